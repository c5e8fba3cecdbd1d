"""Folders in the official layout: loading, unused tensors, refusals."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

from benchmarks.official_layout import config_of, write_config
from pandacli.checkpoints.registry import MODELS, bundled_checkpoint
from pandacli.modeling import VideoPandaConfig, VideoPandaForConditionalGeneration
from pandacli.modeling.tokenization_videopanda import VideoPandaTokenizer
from tests.fake_hub import SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, published_config
from tests.modeling.e2e import last_logits, llama_sizes, load_vectors
from tests.modeling.official_layout import (
    SMALL,
    load,
    quantised_folder,
    tensors_of,
    write_bin_shards,
    write_safetensors,
)


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


def test_out_of_range_ids_in_generation_config_are_dropped(folder: Path) -> None:
    fields = {"eos_token_id": 2, "pad_token_id": 32000, "bos_token_id": "x"}
    (folder / "generation_config.json").write_text(json.dumps(fields))
    generation = load(folder).generation_config
    assert (generation.eos_token_id, generation.pad_token_id) == (2, None)


def test_dangling_link_is_ignored(folder: Path) -> None:
    (folder / "old.bin").symlink_to(folder / "gone")
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


@pytest.mark.parametrize("form", ["8bit", "4bit"])
def test_bitsandbytes_layers_load_as_stored(tmp_path: Path, form: str) -> None:
    stored = quantised_folder(tmp_path, form)
    loaded = load(tmp_path).state_dict()
    assert loaded.keys() == stored.keys()
    assert all(loaded[name].equal(tensor) for name, tensor in stored.items())
