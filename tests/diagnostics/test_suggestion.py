"""The suggestion of `panda doctor` for the default model."""

from typing import Any

import pytest
import torch

from pandacli.diagnostics import Fact
from pandacli.diagnostics.storage import reason, suggestion
from pandacli.inference.planning import planner
from pandacli.inference.planning.devices import Placement
from pandacli.inference.planning.planner import Choice

READY = {"torch", "bitsandbytes"}


def found(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> dict[str, Fact]:
    """What is suggested with so much free memory, without a card."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(planner, "free_memory", lambda _: int(gigabytes * 1e9))
    monkeypatch.setattr(planner, "has_4bit_kernel", lambda: False)
    monkeypatch.setattr(planner, "is_usable", READY.__contains__)
    return {fact.name: fact for fact in suggestion(READY).facts}


def test_suggestion_is_the_plan_of_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = found(monkeypatch, 64)
    assert [facts[name].value for name in ("--device", "--quant", "--engine")] == [
        "cpu",
        "8bit",
        "torch",
    ]
    assert str(facts["because"].value).startswith("64.0 GB of memory are free")


def test_tiny_is_suggested_when_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    fact = found(monkeypatch, 4)["suggestion"]
    assert fact.value == "--model tiny"
    assert "4.0 GB are free on the CPU" in (fact.problem or "")


def test_refused_plan_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, 10)
    (fact,) = suggestion(READY).facts
    assert "pip install gguf xllamacpp==" in (fact.problem or "")


def test_nothing_is_suggested_without_torch() -> None:
    (fact,) = suggestion(set()).facts
    assert fact.problem == "without torch no model can be run"


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (("8bit", "torch", "int8"), "torch has the fastest int8 kernels for x86 CPUs"),
        (("8bit", "llama", "q8_0"), "llama.cpp is fastest in 8 bits on this CPU"),
        (("4bit", "llama", "q4_k_m"), "llama.cpp is fastest in 4 bits on this CPU"),
        (("4bit", "bitsandbytes", "nf4"), "bitsandbytes is fast in 4 bits on CPUs with"),
    ],
)
def test_reason_names_the_rule_for_the_backend(choice: Any, said: str) -> None:
    assert said in reason(Choice(*choice, placement=Placement((torch.device("cpu"),))))


def test_reason_names_gpus_that_share_a_model() -> None:
    cards = Placement((torch.device("cuda:1"), torch.device("cuda:0")), (16, 16))
    choice = Choice("none", "torch", None, cards, free=24 * 10**9)
    said = "24.0 GB of the memory of cuda:1 and cuda:0 are free; the weights as they were published"
    assert reason(choice) == said


@pytest.mark.parametrize(
    ("capability", "said"),
    [((7, 0), "8 bits are slow on cards older than Turing"), ((7, 5), "the most bits that fit")],
)
def test_reason_explains_4_bits_on_old_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    choice = Choice("4bit", "bitsandbytes", "nf4", Placement((torch.device("cuda:0"),)))
    assert reason(choice).endswith(said)
