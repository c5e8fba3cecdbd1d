"""Folders in the official layout: loading, unused tensors, refusals."""

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, BitsAndBytesConfig

from benchmarks.official_layout import config_of, write_config
from pandacli.checkpoints.registry import MODELS, bundled_checkpoint
from pandacli.errors import ModelError
from pandacli.inference.backends import quiet_libraries
from pandacli.modeling import VideoPandaConfig, VideoPandaForConditionalGeneration
from pandacli.modeling.checkpoint import read_config, tensor_name
from pandacli.modeling.tokenization_videopanda import VideoPandaTokenizer
from tests.fake_hub import SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, published_config
from tests.modeling.e2e import last_logits, llama_sizes, load_vectors
from tests.modeling.official_layout import SMALL, tensors_of, write_bin_shards, write_safetensors

load = VideoPandaForConditionalGeneration.from_pretrained


@pytest.fixture(scope="module")
def small_tensors() -> dict[str, Tensor]:
    return tensors_of(config_of(**SMALL))


@pytest.fixture
def folder(tmp_path: Path, small_tensors: dict[str, Tensor]) -> Path:
    """A small checkpoint in two `.bin` shards."""
    write_config(tmp_path, config_of(**SMALL))
    write_bin_shards(tmp_path, small_tensors)
    return tmp_path


@pytest.fixture
def unshared(tmp_path: Path, small_tensors: dict[str, Tensor]) -> tuple[Path, dict[str, Tensor]]:
    """A folder without weights, and the weights under our names."""
    write_config(tmp_path, config_of(**SMALL))
    needed = {name: t for name, t in small_tensors.items() if tensor_name(name) == name}
    return tmp_path, needed


def assert_weights_are(
    model: VideoPandaForConditionalGeneration, tensors: dict[str, Tensor]
) -> None:
    for name, value in model.state_dict().items():
        assert value.equal(tensors[name]), name


def test_loaded_checkpoint_gives_recorded_logits(tmp_path: Path) -> None:
    vectors = load_vectors("e2e_h64_16x9")
    config = config_of(**llama_sizes(vectors))
    write_config(tmp_path, config)
    write_bin_shards(tmp_path, tensors_of(config))
    wanted = vectors.tensors["last_logits"]
    first = last_logits(load(tmp_path), vectors)
    second = last_logits(AutoModelForImageTextToText.from_pretrained(tmp_path), vectors)
    for file in tmp_path.iterdir():
        file.unlink()
    torch.testing.assert_close(first, wanted, atol=1e-3, rtol=0)
    assert second.equal(first)


def test_every_tensor_is_loaded_from_shards(folder: Path, small_tensors: dict[str, Tensor]) -> None:
    assert_weights_are(load(folder), small_tensors)


@pytest.mark.parametrize("shards", [1, 5])
def test_any_number_of_shards_loads(
    tmp_path: Path, small_tensors: dict[str, Tensor], shards: int
) -> None:
    write_config(tmp_path, config_of(**SMALL))
    write_bin_shards(tmp_path, small_tensors, shards)
    assert_weights_are(load(tmp_path), small_tensors)


def test_single_bin_file_loads(tmp_path: Path, small_tensors: dict[str, Tensor]) -> None:
    write_config(tmp_path, config_of(**SMALL))
    torch.save(small_tensors, tmp_path / "pytorch_model.bin")
    assert_weights_are(load(tmp_path), small_tensors)


def test_legacy_bin_file_loads(tmp_path: Path, small_tensors: dict[str, Tensor]) -> None:
    write_config(tmp_path, config_of(**SMALL))
    torch.save(small_tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert_weights_are(load(tmp_path), small_tensors)


def test_safetensors_with_aliases_only_load(
    tmp_path: Path, small_tensors: dict[str, Tensor]
) -> None:
    write_config(tmp_path, config_of(**SMALL))
    write_safetensors(tmp_path, small_tensors)
    assert_weights_are(load(tmp_path), small_tensors)


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_own_name_wins_over_alias(
    unshared: tuple[Path, dict[str, Tensor]], small_tensors: dict[str, Tensor], kind: str
) -> None:
    folder, tensors = unshared
    for name in list(tensors):
        alias = name.replace("video_tower", "vision_tower")
        alias = alias.replace("video_projector", "mm_projector")
        if alias != name:
            tensors[alias] = torch.full_like(tensors[name], 7)
    if kind == "bin":
        write_bin_shards(folder, tensors)
    else:
        save_file(tensors, folder / "model.safetensors")
    assert_weights_are(load(folder), small_tensors)


def test_safetensors_are_preferred_to_bin(folder: Path, small_tensors: dict[str, Tensor]) -> None:
    write_safetensors(folder, small_tensors)
    for file in folder.glob("*.bin"):
        file.write_bytes(b"stale")
    assert_weights_are(load(folder), small_tensors)


def test_subfolder_loads(small_tensors: dict[str, Tensor], folder: Path) -> None:
    assert_weights_are(load(folder.parent, subfolder=folder.name), small_tensors)


def test_teachers_are_not_read(tmp_path: Path) -> None:
    config = config_of(**SMALL)
    write_config(tmp_path, config)
    write_bin_shards(tmp_path, tensors_of(config, teacher_megabytes=64))
    assert sum(file.stat().st_size for file in tmp_path.glob("*.bin")) > 64e6
    script = """
import re, sys
from pathlib import Path
from pandacli.modeling import VideoPandaForConditionalGeneration

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))

before = peak()
VideoPandaForConditionalGeneration.from_pretrained(sys.argv[1])
print(peak() - before)
"""
    if not Path("/proc/self/status").is_file():
        pytest.skip("peak memory is read from /proc")
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    for file in tmp_path.glob("*.bin"):
        file.unlink()
    assert int(done.stdout) < 40e3  # kB


@pytest.mark.parametrize("model_type", ["videopanda", "eve"])
def test_config_keeps_sizes_only(folder: Path, model_type: str) -> None:
    write_config(folder, config_of(**SMALL, model_type=model_type))
    for config in (AutoConfig.from_pretrained(folder), load(folder).config):
        assert isinstance(config, VideoPandaConfig)
        assert config.model_type == "videopanda"
        assert (config.hidden_size, config.video_hidden_size) == (16, 32)
        assert (config.image_size, config.patch_size, config.num_frames) == (448, 14, 4)
        assert config.use_cache is True
        assert not [name for name in config.to_dict() if "mm_" in name or "teacher" in name]


def test_base_checkpoint_loads(folder: Path, small_tensors: dict[str, Tensor]) -> None:
    write_config(folder, config_of(**SMALL, model_type="eve"))
    assert_weights_are(load(folder), small_tensors)
    assert_weights_are(AutoModelForImageTextToText.from_pretrained(folder), small_tensors)


def test_stored_dtype_is_kept_by_default(folder: Path) -> None:
    write_config(folder, config_of(**SMALL, torch_dtype="bfloat16"))
    assert load(folder).dtype == torch.bfloat16
    assert load(folder, dtype=torch.float16).dtype == torch.float16
    assert load(folder, dtype="float32").lm_head.weight.dtype == torch.float32


def test_config_fields_can_be_overridden(folder: Path) -> None:
    model = load(folder, max_position_embeddings=128, attn_implementation="eager")
    assert model.config.max_position_embeddings == 128
    assert model.config._attn_implementation == "eager"


def test_temperature_with_greedy_decoding_can_be_saved(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = load(folder)
    assert model.generation_config.eos_token_id == 2
    model.save_pretrained(tmp_path_factory.mktemp("saved"))


def test_output_loading_info_is_returned(folder: Path) -> None:
    _, details = load(folder, output_loading_info=True)
    assert not details["missing_keys"]
    assert not details["unexpected_keys"]


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


def test_unknown_tensors_are_logged(
    folder: Path, small_tensors: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    write_bin_shards(folder, small_tensors | {"model.extra.weight": torch.zeros(2)})
    with caplog.at_level(logging.WARNING):
        assert_weights_are(load(folder), small_tensors)
    assert "unknown tensors" in caplog.text
    assert "model.extra.weight" in caplog.text


def test_official_folder_logs_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING):
        load(folder)
    assert caplog.text == ""
    assert "Warn" not in capsys.readouterr().err


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


def test_out_of_range_ids_in_generation_config_are_dropped(folder: Path) -> None:
    fields = {"eos_token_id": 2, "pad_token_id": 32000, "bos_token_id": "x"}
    (folder / "generation_config.json").write_text(json.dumps(fields))
    generation = load(folder).generation_config
    assert (generation.eos_token_id, generation.pad_token_id) == (2, None)


def test_dangling_link_is_ignored(folder: Path) -> None:
    (folder / "old.bin").symlink_to(folder / "gone")
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


def test_code_names_in_generation_config_are_ignored(folder: Path) -> None:
    fields = {
        "custom_generate": "evil/repo",
        "cache_implementation": "evil",
        "eos_token_id": [2, 3],
    }
    (folder / "generation_config.json").write_text(json.dumps(fields))
    generation = load(folder).generation_config
    assert "evil" not in str(generation.__dict__)
    assert generation.eos_token_id == [2, 3]


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


@pytest.mark.parametrize("subfolder", ["videopanda_fitu", "videopanda_prtr1"])
def test_published_configs_give_paper_sizes(tmp_path: Path, subfolder: str) -> None:
    (tmp_path / "config.json").write_bytes(published_config(subfolder))
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, VideoPandaConfig)
    stab = (config.image_size, config.patch_size, config.video_hidden_size, config.num_frames)
    assert stab == (448, 14, 1024, 4)
    layers = (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads)
    assert (config.hidden_size, config.intermediate_size, *layers) == (4096, 11008, 32, 32, 32)
    assert (config.vocab_size, config.max_position_embeddings) == (32000, 4096)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 0)
    assert config.rope_parameters["rope_theta"] == 10000
    left_out = ("mm_video_tower", "requires_video_distill", "image_aspect_ratio", "use_mm_proj")
    assert not [name for name in left_out if hasattr(config, name)]


def test_published_tokenizer_settings_are_read(tmp_path: Path) -> None:
    shutil.copy(bundled_checkpoint(MODELS["tiny"]) / "tokenizer.model", tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(TOKENIZER_CONFIG)
    (tmp_path / "special_tokens_map.json").write_bytes(SPECIAL_TOKENS_MAP)
    assert VideoPandaTokenizer.from_pretrained(tmp_path).legacy is False


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


def test_code_and_training_fields_are_ignored(
    folder: Path, small_tensors: dict[str, Tensor]
) -> None:
    hostile = {
        "auto_map": {"AutoConfig": "evil/repo--config.Evil"},
        "attn_implementation": "evil/repo",
        "_attn_implementation": "evil/repo",
        "_attn_implementation_internal": "evil/repo",
        "experts_implementation": "evil/repo",
        "trust_remote_code": True,
        "num_labels": 10**9,
        "id2label": {"x": 1},
        "use_cache": False,
    }
    write_config(folder, config_of(**SMALL, **hostile))
    model = load(folder)
    assert_weights_are(model, small_tensors)
    assert "evil" not in str(model.config.__dict__)
    assert model.config.use_cache


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
def test_bitsandbytes_layers_load_as_stored(tmp_path: Path, form: str) -> None:
    stored = quantised_folder(tmp_path, form)
    loaded = load(tmp_path).state_dict()
    assert loaded.keys() == stored.keys()
    assert all(loaded[name].equal(tensor) for name, tensor in stored.items())


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


def quantised_folder(folder: Path, form: str) -> dict[str, Tensor]:
    """The tensors of a folder saved from a model quantised by bitsandbytes."""
    kept = ["model.video_tower", "model.video_projector", "lm_head"]
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    model = VideoPandaForConditionalGeneration(VideoPandaConfig(**SMALL | sizes))
    model.save_pretrained(folder)
    fields = {f"load_in_{form}": True, "llm_int8_skip_modules": kept}
    with quiet_libraries():
        model = load(folder, quantization_config=BitsAndBytesConfig(**fields))
        model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")
