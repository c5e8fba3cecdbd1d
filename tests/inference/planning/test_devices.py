"""Devices, dtypes, free memory and out-of-memory errors."""

import resource
from random import Random

import pytest
import torch

from pandacli.errors import DeviceError, UsageError
from pandacli.inference.planning.devices import (
    free_memory,
    memory_errors,
    peak_memory,
    pick_devices,
    pick_dtype,
)

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """A machine on which torch finds this many GPUs."""
    count: int = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    return count


@pytest.mark.parametrize(
    ("gpus", "wanted", "devices"),
    [
        (0, "auto", ["cpu"]),
        (0, "cpu", ["cpu"]),
        (1, "auto", ["cuda:0", "cpu"]),
        (2, "cpu", ["cpu"]),
        (1, "cuda", ["cuda:0"]),
        (2, "cuda:0", ["cuda:0"]),
        (2, "cuda:1", ["cuda:1"]),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_existing_devices_are_picked(wanted: str, devices: list[str]) -> None:
    assert [str(device) for device in pick_devices(wanted)] == devices


@pytest.mark.parametrize("gpus", [3], indirect=True)
@pytest.mark.usefixtures("gpus")
def test_gpu_with_most_free_memory_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {0: 5, 1: 20, 2: 10}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda card: (free[card.index], 24))
    assert [str(card) for card in pick_devices("cuda")] == ["cuda:1", "cuda:2", "cuda:0"]


@pytest.mark.parametrize(
    ("gpus", "wanted", "message"),
    [
        (0, "cuda", "no CUDA device found"),
        (0, "cuda:0", "no CUDA device found"),
        (1, "cuda:1", "there is no device 'cuda:1'"),
        (3, "cuda:12", "there is no device 'cuda:12'"),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_missing_device_is_device_error(wanted: str, message: str) -> None:
    with pytest.raises(DeviceError) as caught:
        pick_devices(wanted)
    assert caught.value.message == message


@pytest.mark.parametrize("wanted", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "", "cpu:0"])
def test_unknown_device_name_is_usage_error(wanted: str) -> None:
    with pytest.raises(UsageError, match="no device is called"):
        pick_devices(wanted)


def test_cpu_computes_in_float32() -> None:
    assert pick_dtype([CPU]) == torch.float32


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ([(8, 6)], torch.bfloat16),
        ([(7, 5)], torch.float16),
        ([(9, 0), (8, 0)], torch.bfloat16),
        ([(9, 0), (7, 0)], torch.float16),
    ],
    ids=["Ampere", "Turing", "two new ones", "one old one"],
)
def test_bfloat16_needs_hardware_on_every_gpu(
    monkeypatch: pytest.MonkeyPatch, capabilities: list[tuple[int, int]], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: capabilities[card.index])
    cards = [torch.device("cuda", number) for number in range(len(capabilities))]
    assert pick_dtype(cards) == dtype


def test_cpu_peak_memory_is_in_bytes_and_never_falls() -> None:
    before = peak_memory(["cpu"])
    block = bytearray(b"x" * 300_000_000)
    del block
    assert 50e6 < before <= peak_memory(["cpu"]) < free_memory(CPU) + 100e9
    assert peak_memory(["cpu"]) >= 300e6


def test_gpu_peak_memory_is_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {"cuda:0": 5, "cuda:1": 3}.get)
    assert peak_memory(["cuda:0", "cuda:1"]) == 8


@pytest.mark.parametrize(("platform", "factor"), [("linux", 1024), ("darwin", 1)])
def test_getrusage_units_follow_platform(
    monkeypatch: pytest.MonkeyPatch, platform: str, factor: int
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(
        resource, "getrusage", lambda _: type("Usage", (), {"ru_maxrss": 5_000_000})
    )
    assert peak_memory(["cpu"]) == 5_000_000 * factor


def test_memory_reserved_by_torch_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """From clip to clip the allocator keeps what it had, and the same room must be found."""
    random = Random(5)
    total = 24_000_000_000
    reserved = 0
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (total - reserved, total))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 4_000_000_000)
    found = set()
    for _ in range(10):
        reserved = random.randrange(4_000_000_000, total)
        found.add(free_memory(torch.device("cuda", 0)))
    assert found == {20_000_000_000}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_deleted_tensor_frees_gpu_memory() -> None:
    card = torch.device("cuda", 0)
    torch.ones(1, device=card)
    before = free_memory(card)
    block = torch.empty(512_000_000, dtype=torch.uint8, device=card)
    assert free_memory(card) <= before - 500_000_000
    del block
    assert abs(free_memory(card) - before) < 50_000_000


ON_GPU = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    torch.OutOfMemoryError("HIP out of memory. Tried to allocate 2 GiB"),
    torch.AcceleratorError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED"),
]
ON_CPU = [
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("unable to mmap 12 bytes from file <x>: Cannot allocate memory (12)"),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ON_GPU + ON_CPU, ids=str)
def test_any_out_of_memory_is_device_error(error: Exception) -> None:
    with pytest.raises(DeviceError, match="out of memory") as caught, memory_errors("try this"):
        raise error
    assert caught.value.hint == "try this"
    assert caught.value.message.startswith("the GPU is") == (error in ON_GPU)


@pytest.mark.parametrize("error", ON_GPU, ids=str)
def test_gpu_too_full_for_context_has_no_free_memory(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(_: torch.device) -> None:
        raise error

    monkeypatch.setattr(torch.cuda, "mem_get_info", full)
    assert free_memory(torch.device("cuda", 0)) == 0


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError(
            "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCompile with ..."
        ),
        RuntimeError("CUDA error: no kernel image is available for execution on the device"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    ],
    ids=str,
)
def test_unusable_gpu_is_device_error(error: Exception) -> None:
    with pytest.raises(DeviceError, match="CUDA error") as caught, memory_errors(""):
        raise error
    assert "\n" not in caught.value.message
    assert caught.value.hint == "use --device cpu"


@pytest.mark.parametrize("gpus", [2], indirect=True)
@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
        torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
    ],
    ids=str,
)
def test_failing_memory_query_is_device_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(_: torch.device) -> None:
        raise error

    monkeypatch.setattr(torch.cuda, "mem_get_info", fails)
    with pytest.raises(DeviceError):
        pick_devices("cuda")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not fit"),
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
    ],
    ids=str,
)
def test_other_errors_pass_through(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, memory_errors(""):
        raise error
    assert caught.value is error
