"""Loading in every quantised form: layer types, closeness of logits, artifacts."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import nn

from pandacli import Panda
from pandacli.checkpoints.artifacts import Artifact, all_artifacts
from pandacli.errors import DeviceError, ModelError
from pandacli.inference.planning import loader
from pandacli.inference.planning.devices import Placement
from pandacli.inference.planning.loader import is_converted, load_model, make_artifact
from pandacli.inference.planning.planner import resolve_run
from pandacli.inference.spec import RunSpec
from pandacli.modeling.checkpoint import read_config
from pandacli.quantization.int8 import Int8Linear, has_exact_product

KINDS: dict[tuple[str, str], type[nn.Module]] = {
    ("8bit", "torch"): Int8Linear,
    ("8bit", "bitsandbytes"): Linear8bitLt,
    ("4bit", "bitsandbytes"): Linear4bit,
    ("4bit", "torch"): Int8Linear,
}
LLAMA = [
    pytest.param(
        quant, "llama", marks=pytest.mark.skipif(not find_spec("xllamacpp"), reason="no llama.cpp")
    )
    for quant in ("8bit", "4bit")
]
each_form = pytest.mark.parametrize(("quant", "engine"), KINDS)
QUESTION = "Is there a red circle?"


def prepare(model: Path, quant: str, backend: str = "auto") -> Artifact | None:
    return make_artifact(resolve_run(RunSpec(model, quant, backend, "cpu")))


def logits(panda: Panda) -> torch.Tensor:
    """Of the token that comes after a question."""
    return panda.backend.new_sequence().append(panda.tokenizer.encode(QUESTION))


@each_form
def test_only_layers_of_the_llama_are_quantised(checkpoint: Path, quant: str, engine: str) -> None:
    panda = Panda.load(checkpoint, device="cpu", quant=quant, engine=engine)
    modules = dict(panda.model.named_modules())
    quantised = {
        name for name, module in modules.items() if isinstance(module, KINDS[quant, engine])
    }
    assert len(quantised) == 14
    assert all(name.startswith("model.layers.") for name in quantised)
    assert (panda.quant, panda.engine) == (quant, engine)


@pytest.mark.parametrize(("quant", "engine"), [*KINDS, *LLAMA])
def test_quantised_logits_are_near_full_precision(
    panda: Panda, checkpoint: Path, quant: str, engine: str
) -> None:
    smaller = Panda.load(checkpoint, device="cpu", quant=quant, engine=engine)
    wanted, given = logits(panda), logits(smaller)
    error = float((given - wanted).norm() / wanted.norm())
    assert 1e-4 < error < {"8bit": 0.1, "4bit": 0.7}[quant]


def test_torch_int8_is_as_exact_as_llama_cpp() -> None:
    pytest.importorskip("xllamacpp")
    questions = [
        f"Is there a {colour} {shape} in the video?"
        for colour in ("red", "green", "blue", "yellow")
        for shape in ("circle", "square", "star")
    ]

    def all_logits(quant: str, engine: str) -> torch.Tensor:
        panda = Panda.load("tiny", device="cpu", quant=quant, engine=engine)
        llama, tokenizer = panda.backend, panda.tokenizer
        return torch.stack(
            [llama.new_sequence().append(tokenizer.encode(text)) for text in questions]
        )

    wanted = all_logits("none", "torch")
    ours, theirs = (
        float(((all_logits("8bit", engine) - wanted).norm(dim=1) / wanted.norm(dim=1)).mean())
        for engine in ("torch", "llama")
    )
    assert 0 < ours < 1.25 * theirs


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_nf4_computes_in_dtype_of_model(checkpoint: Path, dtype: torch.dtype) -> None:
    copy = prepare(checkpoint, "4bit", "bitsandbytes")
    assert copy is not None
    cpu = Placement((torch.device("cpu"),))
    model = load_model(copy.folder, read_config(copy.folder), cpu, dtype, "")
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert {layer.compute_dtype for layer in layers} == {dtype}


@pytest.mark.parametrize(("quant", "engine"), [*KINDS, *LLAMA])
def test_quantised_model_answers(checkpoint: Path, clip: Path, quant: str, engine: str) -> None:
    panda = Panda.load(checkpoint, device="cpu", quant=quant, engine=engine)
    assert panda.ask(clip, "What?", max_tokens=4).text


def test_first_load_converts_and_second_reuses(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANDA_HOME", str(tmp_path))
    reported: list[int] = []
    for _ in range(2):
        Panda.load(checkpoint, quant="8bit", report=lambda done, _: reported.append(done))
    assert reported == sorted(set(reported)), "the second load converts nothing"
    assert [copy.form for copy in all_artifacts()] == ["int8"]


def test_make_artifact_converts_only_quantised_plans(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANDA_HOME", str(tmp_path))
    copy = prepare(checkpoint, "4bit")
    assert copy is not None
    assert copy.form == "nf4"
    assert prepare(checkpoint, "none") is None


def test_damaged_artifact_is_model_error(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANDA_HOME", str(tmp_path))
    copy = prepare(checkpoint, "8bit", "torch")
    assert copy is not None
    weights = next(copy.folder.glob("*.safetensors"))
    weights.write_bytes(b"x" * weights.stat().st_size)
    with pytest.raises(ModelError, match="is damaged"):
        Panda.load(checkpoint, quant="8bit", engine="torch", device="cpu")


def test_out_of_memory_at_load_is_not_damage(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(loader, "_load_file", fail)
    with pytest.raises(DeviceError, match="out of memory"):
        Panda.load(checkpoint, quant="8bit", engine="torch", device="cpu")


def test_model_that_needs_no_artifact_is_converted() -> None:
    assert is_converted(resolve_run(RunSpec("tiny", device="cpu")))


def test_quantised_model_is_converted_once_its_artifact_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANDA_HOME", str(tmp_path))
    plan = resolve_run(RunSpec("tiny", "8bit", "torch", "cpu"))
    assert not is_converted(plan)
    make_artifact(plan)
    assert is_converted(plan)


@pytest.mark.skipif(not has_exact_product(), reason="this CPU packs its weights")
def test_8_bit_weights_and_embeddings_stay_mapped(checkpoint: Path) -> None:
    artifact = prepare(checkpoint, "8bit", "torch")
    assert artifact
    panda = Panda.load(checkpoint, device="cpu", quant="8bit", engine="torch")
    files = {str(path) for path in artifact.folder.glob("*.safetensors")}
    held = [panda.model.model.embed_tokens.weight]
    held += [m._weight.weight for m in panda.model.modules() if isinstance(m, Int8Linear)]
    ranges = [
        tuple(int(end, 16) for end in line.split()[0].split("-"))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.split()[-1] in files
    ]
    for tensor in held:
        assert any(start <= tensor.data_ptr() < end for start, end in ranges)
    assert panda.model.dtype == torch.float32
