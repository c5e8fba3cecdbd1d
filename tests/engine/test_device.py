"""Where to compute, and what is said when that is not there."""

import resource

import pytest
import torch

from pandacli.engine.device import free_memory, memory_errors, peak_memory, pick_devices, pick_dtype
from pandacli.errors import DeviceError, UsageError

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """A machine with so many GPUs, as far as torch says."""
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
def test_devices_that_are_there_are_taken(wanted: str, devices: list[str]) -> None:
    assert [str(device) for device in pick_devices(wanted)] == devices


@pytest.mark.parametrize("gpus", [3], indirect=True)
@pytest.mark.usefixtures("gpus")
def test_the_card_with_the_most_free_memory_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {0: 5, 1: 20, 2: 10}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda card: (free[card.index], 24))
    assert [str(card) for card in pick_devices("cuda")] == ["cuda:1", "cuda:2", "cuda:0"]


@pytest.mark.parametrize(
    ("gpus", "wanted", "message"),
    [
        (0, "cuda", "cuda is not there: torch sees no CUDA device"),
        (0, "cuda:0", "cuda:0 is not there: torch sees no CUDA device"),
        (1, "cuda:1", "cuda:1 is not there"),
        (3, "cuda:12", "cuda:12 is not there"),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_a_device_that_is_not_there_is_a_device_error(wanted: str, message: str) -> None:
    with pytest.raises(DeviceError) as caught:
        pick_devices(wanted)
    assert caught.value.message == message


@pytest.mark.parametrize("wanted", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "", "cpu:0"])
def test_a_name_of_no_device_is_a_usage_error(wanted: str) -> None:
    with pytest.raises(UsageError, match="no device is called"):
        pick_devices(wanted)


def test_the_cpu_computes_in_single_precision() -> None:
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
def test_bfloat16_is_for_cards_that_all_have_it_in_hardware(
    monkeypatch: pytest.MonkeyPatch, capabilities: list[tuple[int, int]], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: capabilities[card.index])
    cards = [torch.device("cuda", number) for number in range(len(capabilities))]
    assert pick_dtype(cards) == dtype


def test_peak_memory_on_the_cpu_is_in_bytes_and_never_falls() -> None:
    before = peak_memory(["cpu"])
    block = bytearray(b"x" * 300_000_000)
    del block
    assert 50e6 < before <= peak_memory(["cpu"]) < free_memory(CPU) + 100e9
    assert peak_memory(["cpu"]) >= 300e6


def test_peak_memory_on_cards_is_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {"cuda:0": 5, "cuda:1": 3}.get)
    assert peak_memory(["cuda:0", "cuda:1"]) == 8


@pytest.mark.parametrize(("platform", "factor"), [("linux", 1024), ("darwin", 1)])
def test_the_units_of_getrusage_are_the_platforms(
    monkeypatch: pytest.MonkeyPatch, platform: str, factor: int
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(
        resource, "getrusage", lambda _: type("Usage", (), {"ru_maxrss": 5_000_000})
    )
    assert peak_memory(["cpu"]) == 5_000_000 * factor


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_of_any_kind_is_a_device_error(error: Exception) -> None:
    with pytest.raises(DeviceError, match="out of memory") as caught, memory_errors("try this"):
        raise error
    assert caught.value.hint == "try this"


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors(""):
        raise RuntimeError("shapes do not fit")
