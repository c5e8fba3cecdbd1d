"""How the 7B is best run on a machine, as `panda doctor` tells it."""

import pytest

from pandacli.diagnostics.facts import Fact
from pandacli.diagnostics.storage import reason, suggestion
from pandacli.inference.planning import planner as plan_module
from pandacli.inference.planning.memory import Placement
from pandacli.inference.planning.planner import Plan

READY = {"torch", "bitsandbytes"}


def found(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> dict[str, Fact]:
    """What is suggested with so much free memory, without a card."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(plan_module, "free_memory", lambda _: int(gigabytes * 1e9))
    monkeypatch.setattr(plan_module, "remembered_race", lambda *_: None)
    monkeypatch.setattr(plan_module, "race", None)  # nothing is measured
    monkeypatch.setattr(plan_module, "is_usable", READY.__contains__)
    return {fact.name: fact for fact in suggestion(READY).facts}


def test_the_suggestion_is_the_plan_that_would_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = found(monkeypatch, 64)
    assert [facts[name].value for name in ("--device", "--quant", "--engine")] == [
        "cpu",
        "8bit",
        "torch",
    ]
    assert str(facts["because"].value).startswith("64.0 GB of memory are free")


def test_where_nothing_fits_tiny_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    fact = found(monkeypatch, 4)["suggestion"]
    assert fact.value == "--model tiny"
    assert "4.0 GB are free on the CPU" in (fact.problem or "")


def test_a_plan_that_would_be_refused_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {("bitsandbytes", "4bit"): 10.0, ("torch", "8bit"): 1.0}
    found(monkeypatch, 10)
    monkeypatch.setattr(plan_module, "remembered_race", lambda *_: times)
    (fact,) = suggestion(READY).facts
    assert "pip install 'pandacli[llama]'" in (fact.problem or "")


def test_without_torch_there_is_nothing_to_suggest() -> None:
    (fact,) = suggestion(set()).facts
    assert fact.problem == "without torch no model can be run"


def test_what_was_measured_is_told_and_what_was_not_too() -> None:
    plan = Plan("8bit", "torch", "int8", needs=12, free=20 * 10**9)
    assert "is measured when the model is first loaded" in reason(plan)
    times = ((("bitsandbytes", "8bit"), 4.56), (("torch", "8bit"), 3.21))
    plan = Plan("8bit", "torch", "int8", free=20 * 10**9, times=times)
    assert reason(plan).endswith("seconds a layer: torch 3.2, bitsandbytes 4.6")


def test_cards_that_share_a_model_are_named() -> None:
    import torch

    cards = Placement((torch.device("cuda:1"), torch.device("cuda:0")), (16, 16))
    plan = Plan("none", "torch", None, cards, free=24 * 10**9)
    said = "24.0 GB of the memory of cuda:1 and cuda:0 are free; the weights as they were published"
    assert reason(plan) == said


@pytest.mark.parametrize(
    ("capability", "said"),
    [((7, 0), "8 bits are slow on cards older than Turing"), ((7, 5), "the most bits that fit")],
)
def test_4_bits_on_an_old_card_are_explained(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], said: str
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    plan = Plan("4bit", "bitsandbytes", "nf4", Placement((torch.device("cuda:0"),)))
    assert reason(plan).endswith(said)
