"""Which device to compute on, in which number format, and what running out of memory looks like."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pandacli.engine.cgroup import usable_memory
from pandacli.errors import DeviceError, UsageError


def pick_device(wanted: str) -> torch.device:
    """The device called `wanted`: auto, cpu, cuda or cuda:N.

    Raises:
        UsageError: No device is called so.
        DeviceError: It is not there.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", wanted):
        raise UsageError(
            f"no device is called '{wanted}'", "the devices are auto, cpu, cuda and cuda:N"
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and not count):
        return torch.device("cpu")
    number = int(wanted.partition(":")[2] or 0)
    if number < count:
        return torch.device("cuda", number)
    if not count:
        raise DeviceError(f"{wanted} is not there: torch sees no CUDA device", "use --device cpu")
    last = f"cuda:{count - 1}"
    there = last if count == 1 else f"cuda:0 to {last}"
    raise DeviceError(f"{wanted} is not there", f"torch sees {there}")


def pick_dtype(device: torch.device) -> torch.dtype:
    """float32 on the CPU, where half precision is slower; bfloat16 on CUDA, or else float16."""
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return usable_memory().free


def peak_memory(device: torch.device) -> int:
    """The most bytes in use so far: torch's on a CUDA device, this process's on the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # getrusage(2): kibibytes on Linux


@contextmanager
def memory_errors(hint: str) -> Iterator[None]:
    """Turn running out of memory into a `DeviceError` with this hint."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError("the GPU is out of memory", hint) from error
    except MemoryError as error:
        raise DeviceError("out of memory", hint) from error
    except RuntimeError as error:
        # torch has no class of its own for the CPU's allocator
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise DeviceError("out of memory", hint) from error
