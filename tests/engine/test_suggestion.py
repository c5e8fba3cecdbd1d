"""The form of the 7B that suits a machine."""

import pytest

from pandacli.engine.quantize import Quant
from pandacli.engine.suggestion import Form, first_that_fits, forms, reason, suggestion

EVERYTHING = {"torch", "bitsandbytes", "llama"}


def needed(device: str, quant: Quant) -> int:
    """Round numbers near those of the 7B, in GB."""
    return {"none": 30, "8bit": 12, "4bit": 9}[quant] // (1 if device == "cpu" else 2)


def choice(ready: set[str], **free: int) -> tuple[str, str, str] | None:
    """The (device, quant, engine) chosen with so much memory on `cpu`, `cuda` or both."""
    memory = {name.replace("cuda", "cuda:0"): amount for name, amount in free.items()}
    form = first_that_fits(forms(list(memory), ready, needed), memory.__getitem__)
    return form and (form.device, form.quant, form.engine)


@pytest.mark.parametrize(
    ("gigabytes", "quant", "engine"),
    [(24, "none", "torch"), (8, "8bit", "bitsandbytes"), (5, "4bit", "bitsandbytes")],
)
def test_on_a_card_the_most_bits_that_fit_are_taken(
    gigabytes: int, quant: str, engine: str
) -> None:
    assert choice(EVERYTHING, cuda=gigabytes, cpu=64) == ("cuda:0", quant, engine)


def test_a_card_that_is_too_small_leaves_the_work_to_the_cpu() -> None:
    assert choice(EVERYTHING, cuda=2, cpu=64) == ("cpu", "8bit", "torch")


def test_on_a_cpu_8_bits_go_before_single_precision() -> None:
    assert choice(EVERYTHING, cpu=200) == ("cpu", "8bit", "torch")


@pytest.mark.parametrize(
    ("ready", "engine"), [(EVERYTHING, "llama"), ({"torch", "bitsandbytes"}, "bitsandbytes")]
)
def test_4_bits_on_a_cpu_are_for_llama_cpp_where_it_is_installed(
    ready: set[str], engine: str
) -> None:
    assert choice(ready, cpu=10) == ("cpu", "4bit", engine)


def test_where_nothing_fits_nothing_is_chosen() -> None:
    assert choice(EVERYTHING, cuda=2, cpu=2) is None


def test_bitsandbytes_on_a_cpu_is_called_slow_unless_it_has_avx_512() -> None:
    form = Form("cpu", "4bit", "bitsandbytes", 9)
    assert "slow without AVX-512" in reason(form, 10, {"avx2"})
    assert "slow" not in reason(form, 10, {"avx2", "avx512f"})


@pytest.mark.parametrize("gigabytes", [64, 4])
def test_the_suggestion_follows_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, gigabytes: int
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("pandacli.engine.device.free_memory", lambda _: gigabytes * 10**9)
    found = {fact.name: fact for fact in suggestion(EVERYTHING, None).facts}
    if gigabytes == 64:
        assert found["--quant"].value == "8bit"
        assert str(found["because"].value).startswith("64.0 GB of memory are free")
    else:
        assert found["suggestion"].value == "--model tiny"
        assert "4.0 GB are free on cpu" in (found["suggestion"].problem or "")


def test_without_torch_there_is_nothing_to_suggest() -> None:
    (found,) = suggestion(set(), None).facts
    assert found.problem == "without torch no model can be run"
