"""What this machine computes with: CPU, CUDA devices, free memory, and errors that say it is full.

Memory and cores are counted within the limits of Linux's control groups, both versions
(cgroups(7)), as containers and batch jobs set them.

torch is imported only inside functions, so that a missing model is reported before.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]

from pandacli.errors import DeviceError, UsageError

if TYPE_CHECKING:
    import torch

_CPUINFO = Path("/proc/cpuinfo")
_CGROUPS = Path("/proc/self/cgroup")
_CGROUP_MOUNT = Path("/sys/fs/cgroup")
_UNLIMITED = 2**60  # version 1 reports a number near 2**63 where there is no limit
_MEMORY_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}

_OUT_OF_MEMORY = re.compile(
    r"DefaultCPUAllocator|out of memory|std::bad_alloc|cannot allocate memory"
    r"|_STATUS_ALLOC_FAILED|CUBLAS_STATUS_NOT_INITIALIZED",
    re.IGNORECASE,
)
"""Messages of errors without a class of their own: torch's CPU allocator, the CUDA runtime and its
libraries. cuBLAS is "not initialized" where its workspace could not be allocated."""

_UNUSABLE_GPU = re.compile(
    r"CUDA error: .*(busy or unavailable|no kernel image|CUDA-capable device|ECC error|driver)"
)
"""A GPU that is present and cannot compute. Other CUDA errors are bugs of panda."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, torch or a library below it means that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))


@contextmanager
def memory_errors(hint: str) -> Iterator[None]:
    """Turn running out of memory, and a GPU that cannot compute, into a `DeviceError`.

    Args:
        hint: What to do when memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            on_gpu = re.search("cuda|cublas|cudnn|cusolver|hip", str(error), re.IGNORECASE)
            raise DeviceError(f"{'the GPU is ' if on_gpu else ''}out of memory", hint) from error
        if found := _UNUSABLE_GPU.search(str(error)):
            raise DeviceError(found[0], "use --device cpu") from error
        raise


@memory_errors("use --device cpu")
def pick_devices(wanted: str) -> "list[torch.device]":
    """List the devices that `wanted` allows, the preferred one first.

    Args:
        wanted: "cpu"; "cuda" for all GPUs, the one with the most free memory first; "cuda:N" for
            one; "auto" for the GPUs, then the CPU.

    Raises:
        UsageError: `wanted` is none of these.
        DeviceError: The device does not exist.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", wanted):
        raise UsageError(
            f"no device is called '{wanted}'", "the devices are auto, cpu, cuda and cuda:N"
        )
    import torch

    cpu = torch.device("cpu")
    if wanted == "cpu":
        return [cpu]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.device("cuda", number) for number in range(count)]
    if wanted == "auto":
        return [*_most_free_first(gpus), cpu]
    if not count:
        raise DeviceError("no CUDA device found", "use --device cpu")
    if wanted == "cuda":
        return _most_free_first(gpus)
    number = int(wanted.partition(":")[2])
    if number < count:
        return [gpus[number]]
    last = f"cuda:{count - 1}"
    raise DeviceError(
        f"there is no device {wanted!r}",
        f"the CUDA devices are cuda:0 to {last}"
        if count > 1
        else f"the only CUDA device is {last}",
    )


def _most_free_first(gpus: "list[torch.device]") -> "list[torch.device]":
    return sorted(gpus, key=free_memory, reverse=True) if len(gpus) > 1 else gpus


def pick_dtype(devices: "Sequence[torch.device]") -> "torch.dtype":
    """Pick the dtype to compute in on devices of one type.

    float32 on the CPU, where half precision is slower. bfloat16 on CUDA if every GPU has it in
    hardware (compute capability 8.0, Ampere); float16 otherwise, as older GPUs emulate bfloat16.
    """
    import torch

    if devices[0].type == "cpu":
        return torch.float32
    native = all(torch.cuda.get_device_capability(device) >= (8, 0) for device in devices)
    return torch.bfloat16 if native else torch.float16


def has_int8_cores(device: "torch.device") -> bool:
    """Whether a device multiplies int8 in hardware; GPUs do since Turing (7.5).

    On older ones bitsandbytes computes 8 bits as float32 products, slower than not quantising.
    """
    import torch

    if device.type != "cuda" or torch.version.hip:
        return True
    return torch.cuda.get_device_capability(device) >= (7, 5)


def free_memory(device: "torch.device") -> int:
    """Return the bytes that tensors can still take on a device; 0 on a GPU without room for CUDA.

    On CUDA this includes what torch's caching allocator has reserved and does not use.
    """
    if device.type != "cuda":
        return usable_memory().free
    import torch

    try:
        free, _ = torch.cuda.mem_get_info(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return 0
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + unused)


def peak_memory(devices: Sequence[str]) -> int:
    """Return the peak use in bytes: torch's on CUDA devices, this process's on the CPU."""
    if devices[0] != "cpu":
        import torch

        return sum(int(torch.cuda.max_memory_allocated(device)) for device in devices)
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # getrusage(2): kibibytes on Linux


def cpu_flags(cpuinfo: Path = _CPUINFO) -> set[str] | None:
    """Return the instruction sets of the CPU in Linux's names; None where they are not listed."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return None
    line = re.search(r"^(?:flags|Features)\s*:(.*)", text, re.MULTILINE)
    return set(line[1].split()) if line else None


@dataclass(frozen=True)
class Memory:
    """Total and free memory in bytes."""

    total: int
    free: int


def usable_memory() -> Memory:
    """Return the main memory that this process may use."""
    machine = psutil.virtual_memory()
    limit = memory_limit() or Memory(machine.total, machine.available)
    return Memory(min(machine.total, limit.total), min(machine.available, limit.free))


def memory_limit(cgroups: Path = _CGROUPS, mount: Path = _CGROUP_MOUNT) -> Memory | None:
    """Return the control group limit that leaves the least free; None without limits.

    File pages that the kernel can drop count as free.
    """
    limits = []
    for version, folder in _cgroup_folders("memory", cgroups, mount):
        limit, usage, cached = _MEMORY_FILES[version]
        total = _number(folder / limit)
        if total is not None and total < _UNLIMITED:
            used = (_number(folder / usage) or 0) - _field(folder / "memory.stat", cached)
            limits.append(Memory(total, max(0, total - used)))
    return min(limits, key=lambda limit: limit.free, default=None)


def core_limit(cgroups: Path = _CGROUPS, mount: Path = _CGROUP_MOUNT) -> float | None:
    """Return the control group limit in cores (CPU seconds per second); None without limits."""
    limits = []
    for version, folder in _cgroup_folders("cpu", cgroups, mount):
        if version == 2:
            words = _words(folder / "cpu.max")
        else:
            words = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and words[0].isdigit():  # neither "max" nor -1
            limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def _cgroup_folders(controller: str, cgroups: Path, mount: Path) -> Iterator[tuple[int, Path]]:
    """Yield version and folder of our group and of its parents, whose limits apply too."""
    try:
        lines = cgroups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = mount / controllers if controllers else mount
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield (1 if controllers else 2), folder


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    words = _words(path)
    return int(words[0]) if words and words[0].isdigit() else None


def _field(path: Path, name: str) -> int:
    words = _words(path)
    return int(words[words.index(name) + 1]) if name in words else 0
