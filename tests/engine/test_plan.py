"""Which engine and which stored form a wish for bits becomes."""

import pytest
import torch

from pandacli.engine import plan
from pandacli.engine.plan import Plan, pick_plan
from pandacli.errors import UsageError
from pandacli.model.config import VideoPandaConfig

SMALL = VideoPandaConfig(hidden_size=64, intermediate_size=128, num_attention_heads=4)
LARGE = VideoPandaConfig(vocab_size=32000)


@pytest.fixture(autouse=True)
def no_llama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "find_spec", lambda _: None)


def measured(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Make the engines as fast as said, by engine and bits."""
    monkeypatch.setattr(
        plan, "seconds_a_layer", lambda _, engine, quant: seconds[f"{engine}_{quant}"]
    )


def pick(quant: str, engine: str, config: VideoPandaConfig = SMALL, device: str = "cpu") -> Plan:
    return pick_plan(quant, engine, config, torch.device(device), torch.float32)


@pytest.mark.parametrize(
    ("quant", "engine", "expected"),
    [
        ("none", "auto", Plan("none", "torch", None)),
        ("auto", "auto", Plan("none", "torch", None)),
        ("8bit", "auto", Plan("8bit", "torch", "int8")),
        ("8bit", "bitsandbytes", Plan("8bit", "bitsandbytes", "int8")),
        ("4bit", "auto", Plan("4bit", "bitsandbytes", "nf4")),
        ("4bit", "torch", Plan("4bit", "torch", "nf4")),
    ],
)
def test_a_small_model_on_a_cpu(quant: str, engine: str, expected: Plan) -> None:
    assert pick(quant, engine) == expected


@pytest.mark.parametrize(
    ("quant", "expected"),
    [
        ("none", Plan("none", "torch", None)),
        ("8bit", Plan("8bit", "bitsandbytes", "int8")),
        ("4bit", Plan("4bit", "bitsandbytes", "nf4")),
    ],
)
def test_on_cuda(quant: str, expected: Plan) -> None:
    assert pick(quant, "auto", LARGE, "cuda:0") == expected


@pytest.mark.parametrize(("torch_seconds", "engine"), [(1.0, "torch"), (3.0, "bitsandbytes")])
def test_8_bits_go_to_the_engine_that_was_measured_faster(
    monkeypatch: pytest.MonkeyPatch, torch_seconds: float, engine: str
) -> None:
    measured(monkeypatch, torch_8bit=torch_seconds, bitsandbytes_8bit=2.0)
    assert pick("8bit", "auto", LARGE).engine == engine


def test_4_bits_go_to_bitsandbytes_where_it_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, torch_8bit=1.0, bitsandbytes_4bit=2.0)
    assert pick("4bit", "auto", LARGE) == Plan("4bit", "bitsandbytes", "nf4")


def test_4_bits_go_to_llama_cpp_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "find_spec", lambda _: object())
    assert pick("4bit", "auto", LARGE) == Plan("4bit", "llama", "q4_k_m")


def test_4_bits_where_nothing_is_quick_say_what_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, torch_8bit=1.0, bitsandbytes_4bit=10.0)
    with pytest.raises(UsageError, match=r"only with llama\.cpp") as caught:
        pick("4bit", "auto", LARGE)
    assert "pandacli[llama]" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("quant", "engine", "device", "complaint"),
    [
        ("none", "bitsandbytes", "cpu", "is for 4 and 8 bits"),
        ("8bit", "torch", "cuda:0", "does not run 8bit on CUDA"),
        ("8bit", "gguf", "cpu", "no engine is called 'gguf'"),
        ("8bit", "llama", "cpu", "is not installed"),
    ],
)
def test_what_does_not_go_together_is_refused(
    quant: str, engine: str, device: str, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        pick(quant, engine, LARGE, device)


STORED = VideoPandaConfig(quantization_config={"load_in_4bit": True})


def test_a_checkpoint_stored_in_4_bits_is_run_in_4_bits() -> None:
    assert pick("auto", "auto", STORED) == Plan("4bit", "bitsandbytes", None)


@pytest.mark.parametrize(
    ("quant", "engine"), [("none", "auto"), ("8bit", "auto"), ("auto", "torch")]
)
def test_a_stored_quantisation_cannot_be_changed(quant: str, engine: str) -> None:
    with pytest.raises(UsageError, match="is stored in 4bit by bitsandbytes"):
        pick(quant, engine, STORED)
