"""Checkpoints that are damaged, incomplete or out of bounds: refused, with the reason."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.official_layout import config_of, write_config
from pandacli.errors import ModelError
from pandacli.modeling.checkpoint import read_config
from tests.modeling.official_layout import (
    SMALL,
    load,
    quantised_folder,
    write_bin_shards,
    write_safetensors,
)


def test_missing_tensors_are_named(unshared: tuple[Path, dict[str, Tensor]]) -> None:
    folder, tensors = unshared
    for name in [name for name in tensors if ".dec." in name]:
        del tensors[name]
    write_bin_shards(folder, tensors)
    with pytest.raises(ModelError, match=r"lacks 14 of \d+ tensors: .*\.dec\..* and 11 more") as e:
        load(folder)
    assert e.value.exit_code == 4
    assert "\n" not in e.value.message


def test_wrong_shape_is_named(unshared: tuple[Path, dict[str, Tensor]]) -> None:
    folder, tensors = unshared
    tensors["lm_head.weight"] = torch.zeros(65, 16)
    write_bin_shards(folder, tensors)
    with pytest.raises(ModelError, match=r"lm_head\.weight is \(65, 16\) .* of \(64, 16\)"):
        load(folder)


def test_integer_tensor_is_refused(unshared: tuple[Path, dict[str, Tensor]]) -> None:
    folder, tensors = unshared
    tensors["lm_head.weight"] = torch.zeros(64, 16, dtype=torch.int8)
    write_bin_shards(folder, tensors)
    with pytest.raises(ModelError, match=r"lm_head\.weight is \(64, 16\) int8"):
        load(folder)


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_pickle_is_refused(folder: Path, zipped: bool) -> None:
    trap = folder / "owned"
    shard = next(folder.glob("*.bin"))
    torch.save({"model.norm.weight": Bomb(trap)}, shard, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=shard.name):
        load(folder)
    assert not trap.exists()


@pytest.mark.parametrize(
    "stored",
    [
        b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R",
        b"cbuiltins\nset\n)R",
        b"ctorch.storage\nUntypedStorage\nJ\xff\xff\xff\x7f\x85R",
        b"\x8c\x08builtins\x8c\x09bytearray\x93J\xff\xff\xff\x7f\x85R",
        b"ccollections\nOrderedDict\n(h\x05tR",
        b"ccollections\nOrderedDict\nh\x05\x85R",
        b"ccollections\nOrderedDict\n)R}b" + b"}b" * 20,
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_memory_bomb_pickle_is_not_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stored: bytes, zipped: bool
) -> None:
    shard = sorted(folder.glob("*.bin"))[0]
    content = b"\x80\x02}X\x01\x00\x00\x00a" + stored + b"s."
    if zipped:
        with zipfile.ZipFile(shard, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/data/0", bytes(1 << 16))
    else:
        shard.write_bytes(b"\x80\x02K\x01." * 3 + content + bytes(1 << 16))
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(ModelError, match="was refused: it is damaged, or would run code"):
        load(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"not weights at all", b"PK\x03\x04half a zip", pickle.dumps({"a": 1}), b"\x80\x02."],
)
def test_damaged_shard_is_named(folder: Path, content: bytes) -> None:
    shard = sorted(folder.glob("*.bin"))[1]
    shard.write_bytes(content)
    with pytest.raises(ModelError, match=shard.name):
        load(folder)


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_truncated_file_is_named(
    folder: Path, small_tensors: dict[str, Tensor], kind: str, kept: float
) -> None:
    if kind == "safetensors":
        write_safetensors(folder, small_tensors)
    file = sorted(folder.glob(f"*.{kind}"))[0]
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ModelError, match=file.name):
        load(folder)


def test_bin_file_with_list_is_named(folder: Path) -> None:
    shard = next(folder.glob("*.bin"))
    torch.save([torch.zeros(2)], shard)
    with pytest.raises(ModelError, match=r"does not hold named tensors"):
        load(folder)


def test_missing_shards_are_named(folder: Path) -> None:
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(ModelError, match=r"lacks 1 of 2 weight files: pytorch_model-00002-of-0"):
        load(folder)


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path, config_of(**SMALL))
    with pytest.raises(ModelError, match="no weights in"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "pytorch_model.bin.index.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00"])
def test_damaged_json_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        load(folder)


def test_damaged_generation_config_is_named(folder: Path) -> None:
    (folder / "generation_config.json").write_bytes(b"{")
    with pytest.raises(ModelError, match=r"generation_config\.json"):
        load(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"eos_token_id": 64},
        {"eos_token_id": {"a": 1}},
        {"eos_token_id": [[2]]},
        {"eos_token_id": 2.5},
        {"temperature": "hot"},
        {"temperature": -1},
        {"max_length": 1e999},
    ],
)
def test_invalid_generation_config_is_named(folder: Path, fields: dict[str, Any]) -> None:
    (folder / "generation_config.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError, match=r"generation_config\.json"):
        load(folder)


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_out_of_memory_is_no_damaged_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(error):
        load(folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["a"]}])
def test_index_without_weight_map_is_refused(folder: Path, index: dict[str, Any]) -> None:
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="does not say where"):
        load(folder)


def test_index_outside_folder_is_refused(folder: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "../secret.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="outside its folder"):
        load(folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "llava"}, "of type 'llava', not a Video-Panda"),
        ({"mm_projector_type": "linear"}, "mm_projector_type 'linear'"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"video_hidden_size": 30}, "video_hidden_size 30"),
    ],
)
def test_invalid_config_is_explained(folder: Path, changed: dict[str, Any], message: str) -> None:
    write_config(folder, config_of(**{**SMALL, **changed}))
    with pytest.raises(ModelError, match=message) as e:
        load(folder)
    assert "\n" not in e.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 0),
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", 2**62),
        ("hidden_size", -16),
        ("vocab_size", 2**62),
        ("intermediate_size", 0),
        ("num_attention_heads", 3),
        ("num_attention_heads", 0),
        ("num_key_value_heads", 5),
        ("head_dim", 7),
        ("max_position_embeddings", 10**12),
        ("rms_norm_eps", -1),
        ("rms_norm_eps", 10**400),
        ("hidden_act", "junk"),
        ("hidden_act", ["silu"]),
        ("rope_scaling", {"type": "junk", "factor": 2.0}),
        ("rope_scaling", {"type": "linear", "factor": "2"}),
        ("rope_scaling", {"type": "llama3"}),
        ("rope_scaling", [1]),
        ("rope_theta", 0),
        ("torch_dtype", "evil"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("tie_word_embeddings", True),
        ("torch_dtype", "int8"),
        ("eos_token_id", 64),
        ("eos_token_id", "2"),
        ("eos_token_id", [2, [3]]),
        ("pad_token_id", 64),
        ("quantization_config", {"quant_method": "gptq", "bits": 4}),
        ("quantization_config", {"load_in_8bit": True, "load_in_4bit": True}),
        ("quantization_config", "bitsandbytes"),
    ],
)
def test_out_of_bounds_values_are_refused_by_name(folder: Path, name: str, value: object) -> None:
    write_config(folder, config_of(**{**SMALL, name: value}))
    with pytest.raises(ModelError, match=r"config\.json cannot be used") as e:
        load(folder)
    assert len(e.value.message) < 400


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_frames", -1), ("num_frames", 10**9), ("image_size", 4096), ("video_num_heads", 0)],
)
def test_stab_sizes_are_bounded(tmp_path: Path, name: str, value: int) -> None:
    fields = {"model_type": "videopanda", **SMALL, name: value}
    del fields["mm_hidden_size"]  # makes it official, without these fields
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError, match=name):
        read_config(tmp_path)


def test_model_larger_than_its_files_is_refused(folder: Path) -> None:
    write_config(folder, config_of(**SMALL | {"num_hidden_layers": 500, "intermediate_size": 999}))
    with pytest.raises(ModelError, match=r"model of [\d,]+ parameters, and the weights beside it"):
        read_config(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_non_finite_weights_are_named(
    unshared: tuple[Path, dict[str, Tensor]], kind: str, value: float
) -> None:
    folder, tensors = unshared
    tensors["model.norm.weight"] = torch.ones(16, dtype=torch.float64)
    tensors["model.norm.weight"][3] = value
    if kind == "bin":
        write_bin_shards(folder, tensors)
    else:
        save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.norm\.weight in .* not finite"):
        load(folder)


@pytest.mark.parametrize(
    "make",
    [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.to("meta"),
        lambda tensor: torch.ones(1).expand(tensor.shape),
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda tensor: torch.nested.nested_tensor(list(tensor), layout=torch.jagged),
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor.to(torch.float8_e4m3fn),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch warns about these tensors
def test_unusual_tensors_are_refused(
    unshared: tuple[Path, dict[str, Tensor]], make: Callable[[Tensor], Tensor]
) -> None:
    folder, tensors = unshared
    write_bin_shards(folder, tensors | {"lm_head.weight": make(tensors["lm_head.weight"])})
    with pytest.raises(ModelError, match=r"02-of.* was refused|lm_head|01-of"):
        load(folder)


def test_tensor_in_two_files_is_refused(folder: Path, small_tensors: dict[str, Tensor]) -> None:
    shard = sorted(folder.glob("*.bin"))[0]
    torch.save(small_tensors, shard)
    with pytest.raises(ModelError, match=r"is in .* and in"):
        load(folder)


@pytest.mark.parametrize("name", ["data.pkl", "data/0"])
def test_compressed_bin_file_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_config(tmp_path, config_of(**SMALL))
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as archive:
        archive.writestr(f"archive/{name}", bytes(1 << 20), zipfile.ZIP_DEFLATED)
        archive.writestr("archive/data/1", bytes(1 << 16))  # large enough for the model
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(ModelError, match="cannot be read as weights") as e:
        load(tmp_path)
    assert "larger than the file" in str(e.value.__cause__)


@pytest.mark.parametrize("form", ["8bit", "4bit"])
@pytest.mark.parametrize(
    "name",
    [
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.norm.weight",
        "model.video_projector.0.weight",
        "model.layers.0.self_attn.q_proj.weight",
    ],
)
def test_missing_parts_of_quantised_layers_are_refused(
    tmp_path: Path, form: str, name: str
) -> None:
    stored = quantised_folder(tmp_path, form)
    stored[f"{name}_"] = stored.pop(name)
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=name.replace(".", r"\.")) as e:
        load(tmp_path)
    assert "weights_only" not in e.value.message
