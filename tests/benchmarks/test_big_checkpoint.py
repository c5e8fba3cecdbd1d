"""A generated checkpoint is one that panda reads, with weights that behave."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.big_checkpoint import write_checkpoint
from benchmarks.official_layout import INDEX, config_of
from benchmarks.tokenizer import tokenizer_model
from pandacli.modeling import VideoPandaForConditionalGeneration, VideoPandaTokenizer
from pandacli.modeling.tokenization_videopanda import DEFAULT_SYSTEM

CONFIG = config_of(
    vocab_size=2000,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    video_hidden_size=64,
    mm_hidden_size=64,
    torch_dtype="bfloat16",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint small enough to make in a moment."""
    path = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(path, CONFIG, shard_bytes=500_000)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> VideoPandaForConditionalGeneration:
    loaded: VideoPandaForConditionalGeneration = VideoPandaForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32
    )
    return loaded


def index_of(folder: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((folder / INDEX).read_text())
    return index


def test_the_logits_are_finite_and_as_wide_as_the_normal_numbers(
    model: VideoPandaForConditionalGeneration,
) -> None:
    with torch.no_grad():
        logits = model(input_ids=torch.arange(1, 40)[None]).logits
    assert 0.2 < logits.std() < 5


def test_no_weight_is_left_at_zero(model: VideoPandaForConditionalGeneration) -> None:
    for name, value in model.named_parameters():
        assert value.std() > 0.001, name


def test_tensors_of_one_shape_differ(model: VideoPandaForConditionalGeneration) -> None:
    queries = [layer.self_attn.q_proj.weight for layer in model.model.layers]
    assert not queries[0].equal(queries[1])


def test_the_same_seed_writes_the_same_files(folder: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, CONFIG, shard_bytes=500_000)
    for file in folder.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_another_seed_writes_other_weights(folder: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, CONFIG, shard_bytes=500_000, seed=1)
    shard = index_of(folder)["weight_map"]["model.layers.0.self_attn.q_proj.weight"]
    assert (tmp_path / shard).read_bytes() != (folder / shard).read_bytes()


def test_shards_are_no_larger_than_asked_unless_by_one_tensor(folder: Path) -> None:
    places = index_of(folder)["weight_map"]
    for shard in set(places.values()):
        stored = torch.load(folder / shard, weights_only=True)
        sizes = {tensor.data_ptr(): tensor.nbytes for tensor in stored.values()}
        assert sum(sizes.values()) <= 500_000 or len(sizes) == 1


def test_the_names_that_inference_drops_are_there(folder: Path) -> None:
    names = set(index_of(folder)["weight_map"])
    assert "model.layers.1.self_attn.rotary_emb.inv_freq" in names
    for part in ("lmhra2", "video_teacher", "vision_tower", "mm_projector", "num_batches_tracked"):
        assert any(part in name for name in names), part


def test_aliases_share_their_bytes(folder: Path) -> None:
    places = index_of(folder)["weight_map"]
    shard = places["model.mm_projector.0.weight"]
    stored = torch.load(folder / shard, weights_only=True)
    ours = stored["model.video_projector.0.weight"]
    assert stored["model.mm_projector.0.weight"].data_ptr() == ours.data_ptr()


def test_a_disk_that_is_too_small_is_told_before_anything_large_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match=r"GB are needed in .*, 0\.0 are free"):
        write_checkpoint(tmp_path, CONFIG)
    assert not list(tmp_path.glob("*.bin"))


def test_the_tokenizer_has_the_pieces_of_llama_and_reads_any_text(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(tokenizer_model())
    tokenizer = VideoPandaTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == 32_000
    for text in (DEFAULT_SYSTEM, "naïve 東京 🐼"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(DEFAULT_SYSTEM)) < 60
