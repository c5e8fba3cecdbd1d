"""Devices, their free memory, the memory that a model needs, and its placement on them.

torch is imported inside functions, so that a missing model is reported first.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil  # type: ignore[import-untyped]

from pandacli.errors import DeviceError, UsageError

if TYPE_CHECKING:
    import torch

    from pandacli.inference.spec import Quant
    from pandacli.modeling.configuration import ModelConfig

_CPUINFO = Path("/proc/cpuinfo")
_CGROUPS = Path("/proc/self/cgroup")
_CGROUP_MOUNT = Path("/sys/fs/cgroup")
_UNLIMITED = 2**60  # version 1 reports a number near 2**63 where there is no limit
_MEMORY_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}

# Errors without a class of their own: torch's CPU allocator, the CUDA runtime and its libraries.
# cuBLAS is "not initialized" where its workspace could not be allocated.
_OUT_OF_MEMORY = re.compile(
    r"DefaultCPUAllocator|out of memory|std::bad_alloc|cannot allocate memory"
    r"|_STATUS_ALLOC_FAILED|CUBLAS_STATUS_NOT_INITIALIZED",
    re.IGNORECASE,
)
# A GPU that is present and cannot compute. Other CUDA errors are bugs of panda.
_UNUSABLE_GPU = re.compile(
    r"CUDA error: .*(busy or unavailable|no kernel image|CUDA-capable device|ECC error|driver)"
)

# Bytes per weight of the decoder layers with its scales, by quantisation and backend.
_LINEAR_BYTES = {
    ("8bit", "torch"): 1.0,
    ("8bit", "bitsandbytes"): 1.0,
    ("8bit", "llama"): 1.07,
    ("4bit", "torch"): 1.0,  # widened to int8 at load
    ("4bit", "bitsandbytes"): 0.55,
    ("4bit", "llama"): 0.65,
}
_LLAMA_HEAD_BYTES = 1.07  # llama.cpp quantises the head too
_LLAMA_CACHE_BYTES = 2  # its KV cache is float16


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, torch or a library below it means that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))


@contextmanager
def memory_errors(hint: str) -> Iterator[None]:
    """Raise a `DeviceError` for running out of memory, with this hint, and for an unusable GPU."""
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
    """List the devices for auto, cpu, cuda or cuda:N: GPUs by free memory, then the CPU."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", wanted):
        names = "the devices are auto, cpu, cuda and cuda:N"
        raise UsageError(f"no device is called '{wanted}'", names)
    import torch

    cpu = torch.device("cpu")
    if wanted == "cpu":
        return [cpu]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.device("cuda", number) for number in range(count)]
    if wanted != "auto" and not gpus:
        raise DeviceError("no CUDA device found", "use --device cpu")
    if wanted.startswith("cuda:"):
        if (number := int(wanted.removeprefix("cuda:"))) < count:
            return [gpus[number]]
        names = "devices are cuda:0 to" if count > 1 else "only CUDA device is"
        raise DeviceError(f"there is no device '{wanted}'", f"the {names} {gpus[-1]}")
    if count > 1:
        gpus.sort(key=free_memory, reverse=True)
    return gpus if wanted == "cuda" else [*gpus, cpu]


def pick_dtype(devices: "Sequence[torch.device]") -> "torch.dtype":
    """Pick the dtype to compute in on devices of one type."""
    import torch

    if devices[0].type == "cpu":  # where half precision is slower
        return torch.float32
    # GPUs before Ampere (8.0) emulate bfloat16
    native = all(torch.cuda.get_device_capability(device) >= (8, 0) for device in devices)
    return torch.bfloat16 if native else torch.float16


def numerics(quant: str, engine: str, dtype: str, devices: Sequence[str]) -> dict[str, Any]:
    """All that affects the rounding of keys and values, besides the weights, for JSON."""
    from importlib.metadata import version

    import torch

    from pandacli.quantization.int8 import input_steps

    facts: dict[str, Any] = {
        "quant": quant,
        "engine": engine,
        "dtype": dtype,
        "device": devices[0].partition(":")[0],
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "versions": {name: version(name) for name in ("av", "pillow")},
    }
    if devices[0].startswith("cuda") and torch.cuda.is_available():
        cards = (device for device in devices if device.startswith("cuda"))
        facts["cards"] = sorted({torch.cuda.get_device_name(card) for card in cards})
    if engine == "torch" and quant != "none":
        facts["input_steps"] = input_steps()
    if engine != "torch":  # these choose their kernels by the instructions of the CPU
        facts["instructions"] = sorted(cpu_flags() or ())
    if engine == "bitsandbytes":
        facts["bitsandbytes"] = version("bitsandbytes")
    if engine == "llama":
        from pandacli.quantization.llama_library import VERSION

        facts["llama"] = VERSION
    return facts


def has_int8_cores(device: "torch.device") -> bool:
    """Whether a device multiplies int8 in hardware, without which 8 bits are slower than 16."""
    import torch

    if device.type != "cuda" or torch.version.hip:
        return True
    return torch.cuda.get_device_capability(device) >= (7, 5)  # since Turing


def free_memory(device: "torch.device") -> int:
    """Return the bytes that tensors can still take on a device, including torch's unused cache."""
    if device.type != "cuda":
        return usable_memory().free
    import torch

    try:
        free, _ = torch.cuda.mem_get_info(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return 0  # not even room for CUDA itself
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
        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # getrusage(2): kibibytes on Linux


def cpu_flags(cpuinfo: Path = _CPUINFO) -> set[str] | None:
    """Return the instruction sets of the CPU in Linux's names; None if they are not listed."""
    try:
        line = re.search(r"^(?:flags|Features)\s*:(.*)", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        return None
    return set(line[1].split()) if line else None


class Memory(NamedTuple):
    total: int  # bytes
    free: int


def usable_memory() -> Memory:
    """Return the main memory that this process may use."""
    machine = psutil.virtual_memory()
    limit = memory_limit() or Memory(machine.total, machine.available)
    return Memory(min(machine.total, limit.total), min(machine.available, limit.free))


def memory_limit(cgroups: Path = _CGROUPS, mount: Path = _CGROUP_MOUNT) -> Memory | None:
    """Return the control group limit that leaves the least free, droppable file pages included."""
    limits = []
    for version, folder in _cgroup_folders("memory", cgroups, mount):
        limit, usage, cached = _MEMORY_FILES[version]
        total, used = _number(folder / limit), _number(folder / usage) or 0
        if total is not None and total < _UNLIMITED:
            stat = _words(folder / "memory.stat")
            droppable = int(dict(zip(stat[::2], stat[1::2], strict=False)).get(cached, 0))
            limits.append(Memory(total, max(0, total - used + droppable)))
    return min(limits, key=lambda limit: limit.free, default=None)


def core_limit(cgroups: Path = _CGROUPS, mount: Path = _CGROUP_MOUNT) -> float | None:
    """Return the control group limit in cores; None without limits."""
    limits = []
    for version, folder in _cgroup_folders("cpu", cgroups, mount):
        names = ["cpu.max"] if version == 2 else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        words = [word for name in names for word in _words(folder / name)]
        if len(words) == 2 and words[0].isdigit():  # neither "max" nor -1
            limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def _cgroup_folders(controller: str, cgroups: Path, mount: Path) -> Iterator[tuple[int, Path]]:
    """Yield version and folder of our control group and its parents, which limit it too."""
    try:
        lines = cgroups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = mount / controllers
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield (1 if controllers else 2), folder


def _words(path: Path) -> list[str]:
    with suppress(OSError):
        return path.read_text().split()
    return []


def _number(path: Path) -> int | None:
    words = _words(path)
    return int(words[0]) if words and words[0].isdigit() else None


class Sizes(NamedTuple):
    """Element counts of the parts of a model."""

    front: int  # embeddings, STAB and projector
    linears: int  # quantisable weights of one decoder layer
    norms: int  # other weights of one decoder layer
    cache: int  # keys and values of a full context in one layer
    back: int  # final norm and head
    layers: int


class Needed(NamedTuple):
    """Bytes of the parts of a model as in `Sizes`; a layer includes its KV cache."""

    front: int
    layer: int
    back: int
    layers: int

    @property
    def total(self) -> int:
        """The whole model, with a KV cache of the full context."""
        return self.front + self.layers * self.layer + self.back


def sizes_of(config: "ModelConfig") -> Sizes:
    """Count the elements of a model."""
    from pandacli.modeling.video_panda import empty_model

    counts: Counter[str] = Counter()
    for name, parameter in empty_model(config).named_parameters():
        if name.startswith("model.layers."):
            part = "linears" if parameter.ndim == 2 else "norms"
        else:
            part = "back" if name.startswith(("model.norm.", "lm_head.")) else "front"
        counts[part] += parameter.numel()
    layers = config.num_hidden_layers
    linears, norms = counts["linears"] // layers, counts["norms"] // layers
    cache = _cache_width(config) * config.max_position_embeddings
    return Sizes(counts["front"], linears, norms, cache, counts["back"], layers)


def bytes_of(sizes: Sizes, quant: "Quant", backend: str, dtype: "torch.dtype") -> Needed:
    """Return the memory of a model; `dtype` is that of everything that is not quantised."""
    width = dtype.itemsize
    linear = width if quant == "none" else _LINEAR_BYTES[quant, backend]
    cache, head = (_LLAMA_CACHE_BYTES, _LLAMA_HEAD_BYTES) if backend == "llama" else (width, width)
    layer = int(sizes.linears * linear) + sizes.norms * width + sizes.cache * cache
    return Needed(sizes.front * width, layer, int(sizes.back * head), sizes.layers)


def position_bytes(config: "ModelConfig", backend: str, dtype: "torch.dtype") -> int:
    """Return the bytes of one position in the KV cache of all layers."""
    width = _LLAMA_CACHE_BYTES if backend == "llama" else dtype.itemsize
    return config.num_hidden_layers * _cache_width(config) * width


def _cache_width(config: "ModelConfig") -> int:
    """The elements of one position in the KV cache of one layer."""
    return 2 * config.num_key_value_heads * config.head_dim


@dataclass(frozen=True)
class Placement:
    """The devices of a model, and how many decoder layers are on each."""

    devices: "tuple[torch.device, ...]"  # the first holds STAB and embeddings, the last the head
    layers: tuple[int, ...] = ()  # in order; unused with one device

    @property
    def on_cpu(self) -> bool:
        return self.devices[0].type == "cpu"

    @property
    def device_map(self) -> "dict[str, torch.device]":
        """The device of each part of a `VideoPanda`, by the start of its name."""
        first, last = self.devices[0], self.devices[-1]
        if len(self.devices) == 1:
            return {"": first}
        parts = ("embed_tokens", "video_tower", "video_projector")
        pairs = zip(self.devices, self.layers, strict=True)
        owners = [device for device, layers in pairs for _ in range(layers)]
        return (
            {f"model.{part}": first for part in parts}
            | {f"model.layers.{number}": owner for number, owner in enumerate(owners)}
            | {"model.norm": last, "lm_head": last}
        )

    def __str__(self) -> str:
        """The devices as words: "cuda:0 and cuda:1", "the CPU"."""
        *others, last = map(str, self.devices)
        last = "the CPU" if last == "cpu" else last
        return f"{', '.join(others)} and {last}" if others else last


def place(needed: Needed, free: "Sequence[tuple[torch.device, int]]") -> Placement | None:
    """Place a model on the first device with enough free bytes, or on as few as hold it."""
    # not by accelerate, which counts neither the KV cache nor quantised weights, and offloads
    for device, room in free:
        if needed.total <= room:
            return Placement((device,))
    for count in range(2, len(free) + 1):
        devices, rooms = zip(*free[:count], strict=True)
        if layers := _spread_layers(needed, list(rooms)):
            return Placement(devices, layers)
    return None


def _spread_layers(needed: Needed, rooms: list[int]) -> tuple[int, ...] | None:
    """Return the layers of each device, so that all have about the same room left."""
    rooms[0] -= needed.front
    rooms[-1] -= needed.back
    counts = [0] * len(rooms)
    for _ in range(needed.layers):
        roomiest = rooms.index(max(rooms))
        rooms[roomiest] -= needed.layer
        counts[roomiest] += 1
    return tuple(counts) if min(rooms) >= 0 else None
