"""Parity of STAB and projector with the official model."""

import json
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from pandacli.modeling import VideoPandaConfig, VideoPandaForConditionalGeneration
from tests.modeling.e2e import PARITY, Vectors, load_vectors
from tests.parity_weights import fill, pixels

CASES = sorted(path.stem for path in PARITY.glob("stab_*.safetensors"))
TOLERANCE = 1e-4
TINY_LLAMA = {
    "vocab_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module")
def models() -> Iterator[dict[int, VideoPandaForConditionalGeneration]]:
    """Models with weights, by width of the Llama."""
    cache: dict[int, VideoPandaForConditionalGeneration] = {}
    yield cache
    cache.clear()


def model_for(
    vectors: Vectors, models: dict[int, VideoPandaForConditionalGeneration]
) -> VideoPandaForConditionalGeneration:
    assert vectors.meta["salt"] == ""
    hidden = vectors.meta["hidden"]
    if hidden not in models:
        config = VideoPandaConfig(hidden_size=hidden, **TINY_LLAMA)
        model = VideoPandaForConditionalGeneration(config).eval()
        fill(model.model.video_tower, "model.video_tower.")
        fill(model.model.video_projector, "model.video_projector.")
        models[hidden] = model
    return models[hidden]


def input_pixels(vectors: Vectors) -> Tensor:
    meta = vectors.meta
    values = pixels(meta["seed"], meta["sizes"], meta["real"], meta["frames"])
    first = torch.tensor(meta["pixel_first8"])
    torch.testing.assert_close(values.flatten()[:8], first, atol=1e-5, rtol=0)
    return values


def assert_near(actual: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(actual, wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_tokens_equal_recorded(
    name: str, models: dict[int, VideoPandaForConditionalGeneration]
) -> None:
    vectors = load_vectors(name)
    recorded = vectors.tensors
    model = model_for(vectors, models)
    with torch.no_grad():
        frames = model.model.encode_frames(input_pixels(vectors))
    lengths = [len(frame) for video in frames for frame in video]
    tokens = torch.cat([frame for video in frames for frame in video])

    assert lengths == recorded["tokens_per_frame"].tolist()
    if "tokens" in recorded:
        assert_near(tokens, recorded["tokens"])
    else:
        assert_near(tokens[recorded["token_idx"]], recorded["post_tokens"])
    assert_near(tokens.mean(1), recorded["post_mean"])
    torch.testing.assert_close(tokens.norm(dim=1), recorded["post_norm"], atol=1e-3, rtol=1e-4)


def test_batch_features_are_per_video(
    models: dict[int, VideoPandaForConditionalGeneration],
) -> None:
    vectors = load_vectors("stab_batch2")
    with torch.no_grad():
        features = model_for(vectors, models).get_video_features(input_pixels(vectors))
    per_video = vectors.tensors["tokens_per_frame"].view(2, 8).sum(1).tolist()
    assert [tuple(video.shape) for video in features] == [(length, 64) for length in per_video]
    assert_near(torch.cat(features), vectors.tensors["tokens"])


def test_tensor_names_and_shapes_equal_official() -> None:
    config = VideoPandaConfig(num_hidden_layers=1)
    shapes = json.loads((PARITY / "stab_shapes.json").read_text())
    wanted = {
        name: tuple(config.hidden_size if size == "hidden" else size for size in shape)
        for part in ("video_tower", "video_projector")
        for name, (shape, _) in shapes[part].items()
        if ".lmhra2." not in name  # stored, but dead
    }
    with torch.device("meta"):
        state = VideoPandaForConditionalGeneration(config).state_dict()
    assert wanted == {name: tuple(t.shape) for name, t in state.items() if "model.video_" in name}
