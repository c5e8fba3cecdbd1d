"""GGUF export: content, interruption, failure."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pandacli.errors import ModelError, UsageError
from pandacli.quantization import gguf as gguf_export
from pandacli.quantization.gguf import GgufForm, export_gguf
from pandacli.quantization.llama_library import INSTALL
from tests.small_llama import save_small_llama

gguf: ModuleType = pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    save_small_llama(folder)
    return folder


@pytest.fixture(scope="module")
def weights(folder: Path) -> Mapping[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def exported(folder: Path, target: Path, form: GgufForm) -> dict[str, "gguf.ReaderTensor"]:
    export_gguf(folder, target, form)
    return {tensor.name: tensor for tensor in gguf.GGUFReader(target).tensors}


def values(tensor: "gguf.ReaderTensor") -> Tensor:
    return torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type)))


def types(tensors: Mapping[str, "gguf.ReaderTensor"]) -> dict[str, str]:
    return {name: tensor.tensor_type.name for name, tensor in tensors.items()}


def test_file_holds_llama_without_stab(folder: Path, tmp_path: Path) -> None:
    tensors = exported(folder, tmp_path / "small.gguf", "f32")
    assert len(tensors) == 3 + 2 * 9
    assert set(types(tensors).values()) == {"F32"}


def test_float_weights_are_stored_exactly(
    folder: Path, weights: Mapping[str, Tensor], tmp_path: Path
) -> None:
    tensors = exported(folder, tmp_path / "small.gguf", "f32")
    for theirs, ours in {
        "token_embd": "model.embed_tokens",
        "output": "lm_head",
        "output_norm": "model.norm",
        "blk.1.ffn_down": "model.layers.1.mlp.down_proj",
        "blk.0.attn_v": "model.layers.0.self_attn.v_proj",
    }.items():
        assert values(tensors[f"{theirs}.weight"]).equal(weights[f"{ours}.weight"]), theirs


def test_rows_of_queries_and_keys_are_interleaved_within_a_head(
    folder: Path, weights: Mapping[str, Tensor], tmp_path: Path
) -> None:
    tensors = exported(folder, tmp_path / "small.gguf", "f32")
    for theirs, ours in {"attn_q": "q_proj", "attn_k": "k_proj"}.items():
        stored = values(tensors[f"blk.0.{theirs}.weight"])
        rows = weights[f"model.layers.0.self_attn.{ours}.weight"]
        assert stored[64:68].equal(rows[[64, 96, 65, 97]])  # of the second head, 64 rows long


def test_norms_are_float32_in_every_form(folder: Path, tmp_path: Path) -> None:
    tensors = types(exported(folder, tmp_path / "small.gguf", "q8_0"))
    assert {form for name, form in tensors.items() if "norm" in name} == {"F32"}
    assert {form for name, form in tensors.items() if "norm" not in name} == {"Q8_0"}


def test_q4_k_m_mixes_types_as_llama_cpp(tmp_path: Path) -> None:
    save_small_llama(tmp_path / "deep", num_hidden_layers=8)
    tensors = types(exported(tmp_path / "deep", tmp_path / "deep.gguf", "q4_k_m"))
    many = {
        kind: [layer for layer in range(8) if tensors[f"blk.{layer}.{kind}.weight"] == "Q6_K"]
        for kind in ("attn_v", "ffn_down", "attn_q", "ffn_up")
    }
    assert many == {"attn_v": [0, 3, 6, 7], "ffn_down": [0, 3, 6, 7], "attn_q": [], "ffn_up": []}
    assert (tensors["token_embd.weight"], tensors["output.weight"]) == ("Q4_K", "Q6_K")


def test_partial_blocks_take_a_wider_type(tmp_path: Path) -> None:
    save_small_llama(tmp_path / "narrow", hidden_size=192, intermediate_size=512)
    tensors = types(exported(tmp_path / "narrow", tmp_path / "narrow.gguf", "q4_k_m"))
    assert tensors["blk.0.attn_q.weight"] == "Q5_0"
    assert tensors["output.weight"] == "Q8_0"
    assert tensors["blk.0.ffn_down.weight"] == "Q4_K"  # its rows are 512 wide


@pytest.mark.parametrize(("form", "error"), [("f16", 3e-4), ("q8_0", 7e-3), ("q4_k_m", 0.09)])
def test_quantised_weights_are_close(
    folder: Path, weights: Mapping[str, Tensor], tmp_path: Path, form: GgufForm, error: float
) -> None:
    tensors = exported(folder, tmp_path / "small.gguf", form)
    wanted = weights["model.layers.0.mlp.gate_proj.weight"]
    off = (values(tensors["blk.0.ffn_gate.weight"]) - wanted).norm() / wanted.norm()
    assert error / 3 < off < error


def test_threads_and_progress_change_nothing(folder: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    export_gguf(folder, tmp_path / "one.gguf", "q4_k_m")
    export_gguf(
        folder,
        tmp_path / "two.gguf",
        "q4_k_m",
        threads=2,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]


KILLED_IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
from pandacli.quantization import gguf as gguf_export

def kill(done, total):
    if done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)

gguf_export._UNSYNCED = 1
gguf_export.export_gguf(Path(sys.argv[1]), Path(sys.argv[2]), "q8_0", progress=kill)
"""


@pytest.fixture(scope="module")
def begun(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What an export that a SIGKILL has ended leaves behind."""
    target = tmp_path_factory.mktemp("killed") / "small.gguf"
    command = [sys.executable, "-c", KILLED_IN_THE_MIDDLE, str(folder), str(target)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not target.exists()
    return target.with_name("small.gguf.partial").read_bytes()


@pytest.fixture
def killed(begun: bytes, tmp_path: Path) -> Path:
    """The file that is not there, beside what was begun of it."""
    (tmp_path / "killed.gguf.partial").write_bytes(begun)
    return tmp_path / "killed.gguf"


def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tensors that are encoded from now on."""
    names: list[str] = []
    encode = gguf_export._bytes_of

    def count(tensor: Any, *others: Any) -> Any:
        names.append(tensor.name)
        return encode(tensor, *others)

    monkeypatch.setattr(gguf_export, "_bytes_of", count)
    return names


def test_export_resumes_after_sigkill(
    folder: Path, killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_export, "_UNSYNCED", 1)
    names = encoded(monkeypatch)
    export_gguf(folder, killed, "q8_0")
    resumed = names.copy()
    export_gguf(folder, tmp_path / "whole.gguf", "q8_0")
    assert killed.read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    every = names[len(resumed) :]
    assert resumed == every[-len(resumed) :]
    assert len(resumed) < len(every) - 5


def test_partial_tensor_is_rewritten(
    folder: Path, killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_export, "_UNSYNCED", 1)
    partial = killed.with_name("killed.gguf.partial")
    partial.write_bytes(partial.read_bytes()[:-1000] + b"?" * 500)
    export_gguf(folder, killed, "q8_0")
    export_gguf(folder, tmp_path / "whole.gguf", "q8_0")
    assert killed.read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_unsynced_tensors_are_rewritten(
    folder: Path, killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = killed.with_name("killed.gguf.partial")
    whole = partial.stat().st_size
    with partial.open("r+b") as file:
        file.seek(whole - 5000)
        file.write(bytes(5000))
    monkeypatch.setattr(gguf_export, "_UNSYNCED", 5000)
    export_gguf(folder, killed, "q8_0")
    data = killed.read_bytes()[whole - 5000 : whole]
    assert data != bytes(5000)


def test_partial_file_of_other_weights_is_not_resumed(killed: Path, tmp_path: Path) -> None:
    model = save_small_llama(tmp_path / "other")
    with torch.no_grad():
        model.model.embed_tokens.weight[0, 0] += 1
    model.save_pretrained(tmp_path / "other")
    export_gguf(tmp_path / "other", killed, "q8_0")
    export_gguf(tmp_path / "other", tmp_path / "whole.gguf", "q8_0")
    assert killed.read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_interrupted_export_keeps_complete_tensors(folder: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_gguf(folder, tmp_path / "small.gguf", "f16", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["small.gguf.partial"]


def test_non_finite_weights_are_refused(tmp_path: Path) -> None:
    model = save_small_llama(tmp_path / "broken")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = torch.nan
    model.save_pretrained(tmp_path / "broken")
    with pytest.raises(ModelError, match=r"blk\.1\.ffn_up\.weight holds numbers that are not fin"):
        export_gguf(tmp_path / "broken", tmp_path / "broken.gguf", "q8_0")
    assert not list(tmp_path.glob("*.gguf*"))


@pytest.mark.parametrize(
    ("odd", "named"),
    [
        ({"hidden_act": "gelu"}, "activations of type gelu"),
        ({"attention_bias": True}, "attention_bias True is not supported"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "rotary positions of type linear",
        ),
    ],
)
def test_unsupported_llama_is_refused(tmp_path: Path, odd: dict[str, object], named: str) -> None:
    save_small_llama(tmp_path / "odd", **odd)
    with pytest.raises(ModelError, match=named):
        export_gguf(tmp_path / "odd", tmp_path / "odd.gguf", "f16")


def test_unwritable_target_is_model_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be written: No such file"):
        export_gguf(folder, tmp_path / "nowhere" / "small.gguf", "f16")


def test_missing_package_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UsageError, match="gguf is not installed") as caught:
        export_gguf(folder, tmp_path / "small.gguf", "f16")
    assert caught.value.hint == INSTALL
