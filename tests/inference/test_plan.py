"""What a wish for bits, an engine and a device becomes, and what it depends on."""

from collections.abc import Callable
from typing import NoReturn

import pytest
import torch

from pandacli.errors import DeviceError, UsageError
from pandacli.inference.backends import registry as ways
from pandacli.inference.planning import devices as devices_module
from pandacli.inference.planning import planner as plan
from pandacli.inference.planning.planner import Plan, pick_plan
from pandacli.inference.planning.speed import Runner
from pandacli.modeling.configuration_videopanda import VideoPandaConfig

SMALL = VideoPandaConfig(hidden_size=64, intermediate_size=128, num_attention_heads=4)
LARGE = VideoPandaConfig(vocab_size=32000)

CPU = torch.device("cpu")
CARDS = [torch.device("cuda", number) for number in range(2)]

Kind = tuple[str, str, str | None]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough memory, new cards, nothing measured, and no llama.cpp."""
    has_free(monkeypatch, cpu=100, cuda=100)
    has_engines(monkeypatch, "torch", "bitsandbytes")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(plan, "race", None)


def has_free(monkeypatch: pytest.MonkeyPatch, **gigabytes: float) -> None:
    """Make so much memory free on `cpu` and on each card (`cuda`)."""
    monkeypatch.setattr(plan, "free_memory", lambda device: int(gigabytes[device.type] * 1e9))


def has_engines(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(plan, "is_usable", names.__contains__)


def measured(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Make the engines as fast as said, by engine and bits."""

    def race(_: object, runners: list[Runner]) -> dict[Runner, float]:
        return {runner: seconds["_".join(runner)] for runner in runners}

    monkeypatch.setattr(plan, "race", race)
    monkeypatch.setattr(plan, "remembered_race", race)


def pick(
    quant: str = "auto",
    engine: str = "auto",
    config: VideoPandaConfig = LARGE,
    devices: list[torch.device] | None = None,
    measure: bool = True,
) -> Plan:
    return pick_plan(quant, engine, config, devices or [CPU], measure=measure)


def kind(plan: Plan) -> Kind:
    return plan.quant, plan.engine, plan.form


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
def test_a_small_model_on_a_cpu_is_whole_unless_asked(
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
def test_a_card_gets_the_most_bits_that_fit(
    monkeypatch: pytest.MonkeyPatch, gigabytes: float, expected: Kind
) -> None:
    has_free(monkeypatch, cuda=gigabytes)
    found = pick(devices=CARDS[:1])
    assert kind(found) == expected
    assert found.placement.devices == (CARDS[0],)


OLD_CAPABILITIES = [(6, 1), (7, 0), (7, 2)]


@pytest.mark.parametrize("capability", OLD_CAPABILITIES)
@pytest.mark.parametrize("quarters", range(25, 80, 5))
def test_8_bits_are_not_chosen_for_cards_that_compute_them_as_float32(
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


def test_8_bits_go_to_the_newer_of_two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    has_free(monkeypatch, cuda=10)
    capabilities = {0: (7, 0), 1: (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: capabilities[card.index])
    found = pick("8bit", devices=CARDS)
    assert (found.quant, found.placement.devices) == ("8bit", (CARDS[1],))


@pytest.mark.parametrize("capability", OLD_CAPABILITIES)
def test_8_bits_on_an_old_card_are_for_those_who_ask_or_have_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    has_free(monkeypatch, cuda=12)
    assert kind(pick("8bit", devices=CARDS[:1])) == ("8bit", "bitsandbytes", "int8")
    kept = pick_plan("auto", "auto", LARGE, CARDS[:1], kept=frozenset({"int8"}))
    assert kind(kept) == ("8bit", "bitsandbytes", "int8")


def test_what_is_too_large_for_a_card_goes_on_two_before_bits_are_spared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_free(monkeypatch, cuda=12)
    found = pick(devices=CARDS)
    assert (found.quant, found.placement.devices) == ("none", tuple(CARDS))
    assert sum(found.placement.layers) == LARGE.num_hidden_layers
    assert found.free == 24e9


def test_a_model_that_fits_on_the_first_card_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    has_free(monkeypatch, cuda=30)
    assert pick(devices=CARDS).placement.devices == (CARDS[0],)


def test_cards_that_are_too_small_leave_the_work_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_free(monkeypatch, cuda=2, cpu=64)
    measured(monkeypatch, torch_8bit=1, bitsandbytes_8bit=2)
    assert kind(pick(devices=[*CARDS, CPU])) == ("8bit", "torch", "int8")
    with pytest.raises(DeviceError, match=r"4\.0 GB are free on cuda:0 and cuda:1"):
        pick(devices=CARDS)


def test_what_is_asked_for_is_done_whatever_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    has_free(monkeypatch, cuda=2, cpu=64)
    for quant in ("none", "8bit", "4bit"):
        found = pick(quant, devices=[*CARDS, CPU])
        assert (found.quant, found.placement.devices) == (quant, (CARDS[0],))


@pytest.mark.parametrize(("gigabytes", "quant"), [(200, "8bit"), (13, "8bit"), (10, "4bit")])
def test_a_large_model_on_a_cpu_takes_8_bits_or_else_4(
    monkeypatch: pytest.MonkeyPatch, gigabytes: float, quant: str
) -> None:
    has_free(monkeypatch, cpu=gigabytes)
    measured(monkeypatch, torch_8bit=1, bitsandbytes_8bit=2, bitsandbytes_4bit=2)
    assert pick().quant == quant


def test_auto_says_when_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_where_memory_runs_out_it_is_told_what_would_fit(
    monkeypatch: pytest.MonkeyPatch, quant: str, cuda: float, hint: str
) -> None:
    has_free(monkeypatch, cuda=cuda)
    assert pick(quant, devices=CARDS[:1]).hint.startswith(hint)


@pytest.mark.parametrize(
    ("fastest", "form"), [("torch", "int8"), ("bitsandbytes", "int8"), ("llama", "q8_0")]
)
def test_8_bits_go_to_the_engine_that_was_measured_fastest(
    monkeypatch: pytest.MonkeyPatch, fastest: str, form: str
) -> None:
    has_engines(monkeypatch, "torch", "bitsandbytes", "llama")
    times = {"torch_8bit": 2.0, "bitsandbytes_8bit": 2.0, "llama_8bit": 2.0}
    measured(monkeypatch, **times | {f"{fastest}_8bit": 1.0})
    assert kind(pick("8bit")) == ("8bit", fastest, form)


@pytest.mark.parametrize(
    ("llama", "expected"),
    [(1.0, ("4bit", "llama", "q4_k_m")), (3.0, ("4bit", "bitsandbytes", "nf4"))],
)
def test_4_bits_are_for_llama_cpp_unless_bitsandbytes_is_faster(
    monkeypatch: pytest.MonkeyPatch, llama: float, expected: Kind
) -> None:
    has_engines(monkeypatch, "torch", "bitsandbytes", "llama")
    measured(monkeypatch, llama_4bit=llama, bitsandbytes_4bit=2)
    assert kind(pick("4bit")) == expected


def test_4_bits_go_to_bitsandbytes_where_it_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, torch_8bit=1, bitsandbytes_4bit=2)
    assert kind(pick("4bit")) == ("4bit", "bitsandbytes", "nf4")


def test_4_bits_where_nothing_is_quick_say_what_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, torch_8bit=1, bitsandbytes_4bit=10)
    with pytest.raises(UsageError, match=r"only with llama\.cpp") as caught:
        pick("4bit")
    assert "pandacli[llama]" in str(caught.value.command)


def test_an_engine_that_is_asked_for_is_not_measured() -> None:
    assert pick("4bit", "bitsandbytes").engine == "bitsandbytes"


def test_without_a_measurement_the_usual_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "remembered_race", lambda *_: None)
    has_engines(monkeypatch, "torch", "bitsandbytes", "llama")
    found = [pick(quant, measure=False) for quant in ("8bit", "4bit")]
    assert [plan.engine for plan in found] == ["torch", "llama"]
    assert all(plan.guessed and not plan.times for plan in found)


def test_what_was_measured_before_is_used_where_nothing_may_be_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured(monkeypatch, torch_8bit=3, bitsandbytes_8bit=2)
    monkeypatch.setattr(plan, "race", None)
    found = pick(measure=False)
    assert (found.engine, found.guessed) == ("bitsandbytes", False)
    assert dict(found.times) == {("torch", "8bit"): 3, ("bitsandbytes", "8bit"): 2}


def test_of_a_model_that_is_only_here_as_copies_one_of_these_is_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_engines(monkeypatch, "torch", "bitsandbytes", "llama")
    measured(monkeypatch, torch_8bit=1, bitsandbytes_4bit=10, bitsandbytes_8bit=2)

    def run(*kept: str) -> Kind:
        return kind(pick_plan("auto", "auto", LARGE, [CPU], kept=frozenset(kept)))  # type: ignore[arg-type]

    assert run("int8") == ("8bit", "torch", "int8")
    assert run("q4_k_m") == ("4bit", "llama", "q4_k_m")
    assert run("nf4") == ("4bit", "torch", "nf4"), "widened, where 4 bits are slow"


def test_a_copy_for_the_cpu_is_run_there_though_there_are_cards() -> None:
    found = pick_plan("auto", "auto", LARGE, [*CARDS, CPU], kept=frozenset({"q4_k_m"}))
    assert found.placement.devices == (CPU,)


def fails(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


def test_a_card_that_is_full_leaves_the_work_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "free_memory", devices_module.free_memory)
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", fails(torch.AcceleratorError("CUDA error: out of memory"))
    )
    found = pick(config=SMALL, devices=[CARDS[0], CPU])
    assert found.placement.devices == (CPU,)
    with pytest.raises(DeviceError, match="and 0 bytes are free on cuda:0"):
        pick(config=SMALL, devices=CARDS[:1])


@pytest.mark.parametrize("part", ["sizes_of", "free_memory", "race"])
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
def test_running_out_of_memory_while_planning_is_a_device_error(
    monkeypatch: pytest.MonkeyPatch, part: str, error: Exception
) -> None:
    monkeypatch.setattr(plan, part, fails(error))
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
def test_what_does_not_go_together_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    quant: str,
    engine: str,
    device: torch.device,
    complaint: str,
) -> None:
    monkeypatch.setattr(ways, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=complaint):
        pick(quant, engine, devices=[device])


STORED = VideoPandaConfig(quantization_config={"load_in_4bit": True})


def test_a_checkpoint_stored_in_4_bits_is_run_in_4_bits() -> None:
    assert kind(pick(config=STORED)) == ("4bit", "bitsandbytes", None)


@pytest.mark.parametrize(
    ("quant", "engine"), [("none", "auto"), ("8bit", "auto"), ("auto", "torch")]
)
def test_a_stored_quantisation_cannot_be_changed(quant: str, engine: str) -> None:
    with pytest.raises(UsageError, match="is stored in 4bit by bitsandbytes"):
        pick(quant, engine, STORED)
