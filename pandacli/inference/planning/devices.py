"""Which device to compute on, in which number format, and what running out of memory looks like."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from pandacli.errors import DeviceError, UsageError
from pandacli.inference.planning.cgroup import usable_memory

_CPU = torch.device("cpu")


_OUT_OF_MEMORY = re.compile(
    r"DefaultCPUAllocator|out of memory|std::bad_alloc|cannot allocate memory"
    r"|_STATUS_ALLOC_FAILED|CUBLAS_STATUS_NOT_INITIALIZED",
    re.IGNORECASE,
)
"""What says so in errors that have no class of their own: of torch's CPU allocator, of the CUDA
driver and runtime, and of the libraries on top. cuBLAS is "not initialized" where its workspace
found no memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, torch or a library below it means that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))


_UNUSABLE = re.compile(
    r"CUDA error: .*(busy or unavailable|no kernel image|CUDA-capable device|ECC error|driver)"
)
"""A GPU that is there and cannot compute. Other CUDA errors, such as an index out of range, are
faults of ours."""


@contextmanager
def memory_errors(hint: str) -> Iterator[None]:
    """Turn running out of memory, and a GPU that cannot compute, into a `DeviceError`.

    Args:
        hint: What to do where memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            on_gpu = re.search("cuda|cublas|cudnn|cusolver|hip", str(error), re.IGNORECASE)
            raise DeviceError(f"{'the GPU is ' if on_gpu else ''}out of memory", hint) from error
        if found := _UNUSABLE.search(str(error)):
            raise DeviceError(found[0], "use --device cpu") from error
        raise


@memory_errors("use --device cpu")
def pick_devices(wanted: str) -> list[torch.device]:
    """The devices that `wanted` (auto, cpu, cuda or cuda:N) allows, the one to be preferred first.

    cuda is all cards, the one with the most free memory first; auto is these, then the CPU.

    Raises:
        UsageError: No device is called so.
        DeviceError: It is not there.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", wanted):
        raise UsageError(
            f"no device is called '{wanted}'", "the devices are auto, cpu, cuda and cuda:N"
        )
    if wanted == "cpu":
        return [_CPU]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cards = [torch.device("cuda", number) for number in range(count)]
    if wanted == "auto":
        return [*_roomiest_first(cards), _CPU]
    if not count:
        raise DeviceError("no CUDA device found", "use --device cpu")
    if wanted == "cuda":
        return _roomiest_first(cards)
    number = int(wanted.partition(":")[2])
    if number < count:
        return [cards[number]]
    last = f"cuda:{count - 1}"
    there = last if count == 1 else f"cuda:0 to {last}"
    raise DeviceError(
        f"there is no device {wanted!r}",
        f"the CUDA devices are {there}" if count > 1 else f"the only CUDA device is {there}",
    )


def pick_dtype(devices: Sequence[torch.device]) -> torch.dtype:
    """What to compute in on devices of one type.

    float32 on the CPU, where half precision is slower. bfloat16 on CUDA where every card has it in
    hardware, which they have since compute capability 8.0 (Ampere), or else float16: older ones
    take bfloat16 too, and emulate it.
    """
    if devices[0].type == "cpu":
        return torch.float32
    native = all(torch.cuda.get_device_capability(device) >= (8, 0) for device in devices)
    return torch.bfloat16 if native else torch.float16


def has_int8_cores(device: torch.device) -> bool:
    """Whether a device multiplies 8-bit integers in hardware; cards do since Turing (7.5).

    On older ones bitsandbytes computes 8 bits as float32 products, which is slower than not
    quantising at all.
    """
    if device.type != "cuda" or torch.version.hip:
        return True
    return torch.cuda.get_device_capability(device) >= (7, 5)


def free_memory(device: torch.device) -> int:
    """Bytes that tensors can still take on a device.

    On CUDA also what torch's allocator holds and does not use: it gives nothing back to the driver
    by itself. A card so full that not even a context fits on it has none.
    """
    if device.type != "cuda":
        return usable_memory().free
    try:
        free, _ = torch.cuda.mem_get_info(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return 0
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + unused)


def peak_memory(devices: Sequence[str]) -> int:
    """The most bytes in use so far: torch's on CUDA cards, this process's on the CPU."""
    if devices[0] != "cpu":
        return sum(int(torch.cuda.max_memory_allocated(device)) for device in devices)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # getrusage(2): kibibytes on Linux


def _roomiest_first(cards: list[torch.device]) -> list[torch.device]:
    return sorted(cards, key=free_memory, reverse=True) if len(cards) > 1 else cards
