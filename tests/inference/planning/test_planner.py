"""The plan for each combination of quantisation, backend, device and free memory."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from pandacli.checkpoints.artifacts import Artifact
from pandacli.errors import DeviceError, UsageError
from pandacli.inference import backends
from pandacli.inference.planning import devices as devices_module
from pandacli.inference.planning import planner
from pandacli.inference.planning.planner import Choice, choose, forecast
from pandacli.inference.spec import RunSpec
from pandacli.modeling.configuration import ModelConfig

SMALL = ModelConfig(hidden_size=64, intermediate_size=128, num_attention_heads=4)
LARGE = ModelConfig(vocab_size=32000)

CPU = torch.device("cpu")
CARDS = [torch.device("cuda", number) for number in range(2)]

Kind = tuple[str, str, str | None]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough memory, new GPUs, an x86 CPU without AVX512-BF16, and no llama.cpp."""
    has_free(monkeypatch, cpu=100, cuda=100)
    has_engines(monkeypatch, "torch", "bitsandbytes")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(planner, "has_int8_kernels", lambda: True)
    monkeypatch.setattr(planner, "has_4bit_kernel", lambda: False)


def has_free(monkeypatch: pytest.MonkeyPatch, **gigabytes: float) -> None:
    """Set the free memory of `cpu` and of each GPU (`cuda`)."""
    monkeypatch.setattr(planner, "free_memory", lambda device: int(gigabytes[device.type] * 1e9))


def has_engines(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(planner, "is_usable", names.__contains__)


def pick(
    quant: str = "auto",
    backend: str = "auto",
    config: ModelConfig = LARGE,
    devices: list[torch.device] | None = None,
) -> Choice:
    return choose(quant, backend, config, devices or [CPU])


def kind(choice: Choice) -> Kind:
    return choice.quant, choice.backend, choice.form


@pytest.mark.parametrize(
    ("quant", "engine", "expected"),
    [
        ("none", "auto", ("none", "torch", None)),
        ("auto", "auto", ("none", "torch", None)),
        ("auto", "bitsandbytes", ("8bit", "bitsandbytes", "int8")),
        ("8bit", "auto", ("8bit", "torch", "int8")),
        ("8bit", "bitsandbytes", ("8bit", "bitsandbytes", "int8")),
        ("4bit", "auto", ("4bit", "bitsandbytes", "nf4")),
        ("4bit", "torch", ("4bit", "torch", "nf4")),
    ],
)
def test_narrow_model_on_cpu_is_not_quantised_unless_asked(
    quant: str, engine: str, expected: Kind
) -> None:
    assert kind(pick(quant, engine, SMALL)) == expected


@pytest.mark.parametrize(
    ("gigabytes", "expected"),
    [
        (30, ("none", "torch", None)),
        (12, ("8bit", "bitsandbytes", "int8")),
        (6.5, ("4bit", "bitsandbytes", "nf4")),
    ],
)
def test_gpu_gets_most_bits_that_fit(
    monkeypatch: pytest.MonkeyPatch, gigabytes: float, expected: Kind
) -> None:
    has_free(monkeypatch, cuda=gigabytes)
    found = pick(devices=CARDS[:1])
    assert kind(found) == expected
    assert found.placement.devices == (CARDS[0],)


OLD_CAPABILITIES = [(6, 1), (7, 0), (7, 2)]


@pytest.mark.parametrize("capability", OLD_CAPABILITIES)
@pytest.mark.parametrize("quarters", range(25, 80, 5))
def test_auto_avoids_8_bits_without_int8_cores(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], quarters: int
) -> None:
    has_free(monkeypatch, cuda=quarters / 4)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    whole = quarters / 4 > 16
    expected = ("none", "torch", None) if whole else ("4bit", "bitsandbytes", "nf4")
    if quarters / 4 > 6.5:
        assert kind(pick(devices=CARDS[:1])) == expected
    hint = pick("none", devices=CARDS[:1]).hint
    assert "8bit" not in hint
    assert ("--quant 4bit" in hint) == (quarters / 4 > 6.5)


def test_8_bits_use_gpu_with_int8_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    has_free(monkeypatch, cuda=10)
    capabilities = {0: (7, 0), 1: (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: capabilities[card.index])
    found = pick("8bit", devices=CARDS)
    assert (found.quant, found.placement.devices) == ("8bit", (CARDS[1],))


@pytest.mark.parametrize("capability", OLD_CAPABILITIES)
def test_8_bits_on_old_gpu_only_when_asked_or_stored(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    has_free(monkeypatch, cuda=12)
    assert kind(pick("8bit", devices=CARDS[:1])) == ("8bit", "bitsandbytes", "int8")
    kept = choose("auto", "auto", LARGE, CARDS[:1], stored=frozenset({"int8"}))
    assert kind(kept) == ("8bit", "bitsandbytes", "int8")


def test_two_gpus_come_before_fewer_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_free(monkeypatch, cuda=12)
    found = pick(devices=CARDS)
    assert (found.quant, found.placement.devices) == ("none", tuple(CARDS))
    assert sum(found.placement.layers) == LARGE.num_hidden_layers
    assert found.free == 24e9


def test_model_that_fits_first_gpu_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    has_free(monkeypatch, cuda=30)
    assert pick(devices=CARDS).placement.devices == (CARDS[0],)


def test_too_small_gpus_fall_back_to_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_free(monkeypatch, cuda=2, cpu=64)
    assert kind(pick(devices=[*CARDS, CPU])) == ("8bit", "torch", "int8")
    with pytest.raises(DeviceError, match=r"4\.0 GB are free on cuda:0 and cuda:1"):
        pick(devices=CARDS)


def test_requested_quant_ignores_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    has_free(monkeypatch, cuda=2, cpu=64)
    for quant in ("none", "8bit", "4bit"):
        found = pick(quant, devices=[*CARDS, CPU])
        assert (found.quant, found.placement.devices) == (quant, (CARDS[0],))


@pytest.mark.parametrize(("gigabytes", "quant"), [(200, "8bit"), (13, "8bit"), (10, "4bit")])
def test_wide_model_on_cpu_takes_8_bits_else_4(
    monkeypatch: pytest.MonkeyPatch, gigabytes: float, quant: str
) -> None:
    monkeypatch.setattr(planner, "has_4bit_kernel", lambda: True)
    has_free(monkeypatch, cpu=gigabytes)
    assert pick().quant == quant


def test_auto_is_device_error_when_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    has_free(monkeypatch, cpu=2)
    with pytest.raises(DeviceError, match=r"even in 4 bits, and 2\.0 GB are free on the CPU"):
        pick()


@pytest.mark.parametrize(
    ("quant", "cuda", "hint"),
    [
        ("none", 12, "8 bits need 9.2 GB and would fit: add --quant 8bit"),
        ("none", 9, "4 bits need 6.3 GB and would fit: add --quant 4bit"),
        ("8bit", 9, "4 bits need 6.3 GB and would fit: add --quant 4bit"),
        ("4bit", 9, "close other programs"),
        ("8bit", 4, "close other programs"),
    ],
)
def test_hint_names_quantisation_that_would_fit(
    monkeypatch: pytest.MonkeyPatch, quant: str, cuda: float, hint: str
) -> None:
    has_free(monkeypatch, cuda=cuda)
    assert pick(quant, devices=CARDS[:1]).hint.startswith(hint)


@pytest.mark.parametrize(
    ("avx2", "installed", "expected"),
    [
        (True, "llama", ("8bit", "torch", "int8")),
        (False, "llama", ("8bit", "llama", "q8_0")),
        (False, "bitsandbytes", ("8bit", "torch", "int8")),
    ],
)
def test_8_bits_run_on_torch_unless_only_llama_cpp_has_kernels_for_the_cpu(
    monkeypatch: pytest.MonkeyPatch, avx2: bool, installed: str, expected: Kind
) -> None:
    has_engines(monkeypatch, "torch", installed)
    monkeypatch.setattr(planner, "has_int8_kernels", lambda: avx2)
    assert kind(pick("8bit")) == expected


@pytest.mark.parametrize("kernel", [True, False])
def test_4_bits_run_on_llama_cpp_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, kernel: bool
) -> None:
    has_engines(monkeypatch, "torch", "bitsandbytes", "llama")
    monkeypatch.setattr(planner, "has_4bit_kernel", lambda: kernel)
    assert kind(pick("4bit")) == ("4bit", "llama", "q4_k_m")


def test_4_bits_run_on_bitsandbytes_where_it_has_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "has_4bit_kernel", lambda: True)
    assert kind(pick("4bit")) == ("4bit", "bitsandbytes", "nf4")


def test_4_bits_without_a_fast_backend_are_refused_with_the_command_to_install_one() -> None:
    with pytest.raises(UsageError, match=r"only with llama\.cpp") as caught:
        pick("4bit")
    assert "pip install gguf xllamacpp==" in str(caught.value.command)


def test_a_slow_backend_is_used_when_asked_for() -> None:
    assert pick("4bit", "bitsandbytes").backend == "bitsandbytes"


def test_stored_artifacts_limit_the_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_engines(monkeypatch, "torch", "bitsandbytes", "llama")

    def run(*kept: str) -> Kind:
        return kind(choose("auto", "auto", LARGE, [CPU], stored=frozenset(kept)))  # type: ignore[arg-type]

    assert run("int8") == ("8bit", "torch", "int8")
    assert run("q4_k_m") == ("4bit", "llama", "q4_k_m")
    assert run("nf4") == ("4bit", "torch", "nf4"), "widened, where 4 bits are slow"


def test_gguf_artifact_runs_on_cpu_despite_gpus() -> None:
    found = choose("auto", "auto", LARGE, [*CARDS, CPU], stored=frozenset({"q4_k_m"}))
    assert found.placement.devices == (CPU,)


def fails(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


def test_full_gpu_falls_back_to_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "free_memory", devices_module.free_memory)
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", fails(torch.AcceleratorError("CUDA error: out of memory"))
    )
    found = pick(config=SMALL, devices=[CARDS[0], CPU])
    assert found.placement.devices == (CPU,)
    with pytest.raises(DeviceError, match="and 0 bytes are free on cuda:0"):
        pick(config=SMALL, devices=CARDS[:1])


@pytest.mark.parametrize("part", ["sizes_of", "free_memory", "is_usable"])
@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=str,
)
def test_out_of_memory_while_planning_is_device_error(
    monkeypatch: pytest.MonkeyPatch, part: str, error: Exception
) -> None:
    monkeypatch.setattr(planner, part, fails(error))
    with pytest.raises(DeviceError, match="out of memory"):
        pick("8bit")


@pytest.mark.parametrize(
    ("quant", "engine", "device", "complaint"),
    [
        ("none", "bitsandbytes", CPU, "is for 4 and 8 bits"),
        ("8bit", "torch", CARDS[0], "does not run 8bit on CUDA"),
        ("8bit", "gguf", CPU, "no engine is called 'gguf'"),
        ("5bit", "auto", CPU, "no quantisation is called '5bit'"),
        ("8bit", "llama", CPU, "is not installed"),
    ],
)
def test_incompatible_options_are_usage_error(
    monkeypatch: pytest.MonkeyPatch,
    quant: str,
    engine: str,
    device: torch.device,
    complaint: str,
) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=complaint):
        pick(quant, engine, devices=[device])


STORED = ModelConfig(quantization_config={"load_in_4bit": True})


def test_checkpoint_stored_in_4_bits_runs_in_4_bits() -> None:
    assert kind(pick(config=STORED)) == ("4bit", "bitsandbytes", None)


@pytest.mark.parametrize(
    ("quant", "engine"), [("none", "auto"), ("8bit", "auto"), ("auto", "torch")]
)
def test_stored_quantisation_cannot_be_changed(quant: str, engine: str) -> None:
    with pytest.raises(UsageError, match="is stored in 4bit by bitsandbytes"):
        pick(quant, engine, STORED)


def test_forecast_of_8_bits_is_seven_gigabytes() -> None:
    coming = forecast(RunSpec(quant="8bit", backend="torch", device="cpu"))
    assert coming is not None
    assert coming.form == "int8"
    assert 6.9e9 < coming.bytes < 7.5e9


def test_forecast_without_quantisation_is_none() -> None:
    assert forecast(RunSpec(quant="none", device="cpu")) is None


def test_forecast_prefers_stored_artifact() -> None:
    kept = Artifact("video-panda-7b", "q8_0", Path("/copies/q8_0"), None, "d" * 64, 7_000_000_000)
    coming = forecast(RunSpec(backend="llama", device="cpu"), [kept])
    assert coming is not None
    assert coming.form == "q8_0"


def test_forecast_ignores_artifact_of_other_bits() -> None:
    kept = Artifact("video-panda-7b", "nf4", Path("/copies/nf4"), None, "d" * 64, 4_000_000_000)
    coming = forecast(RunSpec(quant="8bit", backend="torch", device="cpu"), [kept])
    assert coming is not None
    assert coming.form == "int8"


def test_widths_that_4_bits_do_not_support_are_usage_error() -> None:
    odd = ModelConfig(hidden_size=64, intermediate_size=160, num_attention_heads=4)
    with pytest.raises(UsageError, match="64 and 160, are not multiples of 64"):
        pick("4bit", "bitsandbytes", config=odd)
