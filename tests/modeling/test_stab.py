"""STAB at other sizes: supported frame counts, and dependencies between frames."""

import pytest
import torch
from torch import Tensor

from pandacli.modeling import VideoPandaConfig, VideoPandaForConditionalGeneration


@pytest.fixture(scope="module")
def model() -> VideoPandaForConditionalGeneration:
    torch.manual_seed(0)
    config = VideoPandaConfig(
        image_size=56,
        patch_size=7,
        video_hidden_size=24,
        video_num_heads=4,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=32,
    )
    return VideoPandaForConditionalGeneration(config).eval()


def video(frames: int, seed: int = 0) -> Tensor:
    """(1, frames, 4, 56, 56): noise whose content is 4 of 8 rows of patches."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.zeros(1, frames, 4, 56, 56)
    values[:, :, :3] = torch.randn(1, frames, 3, 56, 56, generator=generator)
    values[:, :, 3, 14:42] = 1
    return values


def encode(model: VideoPandaForConditionalGeneration, pixel_values: Tensor) -> list[Tensor]:
    with torch.no_grad():
        (frames,) = model.model.encode_frames(pixel_values)
    return frames


@pytest.mark.parametrize("frames", [1, 4, 5, 6, 7, 8, 10, 12, 15, 16, 24])
def test_frame_counts_of_equal_chunks_are_accepted(
    model: VideoPandaForConditionalGeneration, frames: int
) -> None:
    with torch.no_grad():
        (features,) = model.get_video_features(video(frames))
    assert features.shape == (frames * (1 + 2 * (4 + 1)), 16)


@pytest.mark.parametrize("frames", [2, 3, 9, 11, 13, 14])
def test_frame_counts_of_unequal_chunks_are_refused(
    model: VideoPandaForConditionalGeneration, frames: int
) -> None:
    with pytest.raises(ValueError, match=f"{frames} frames"):
        model.get_video_features(video(frames))


@pytest.mark.parametrize("shape", [(4, 4, 56, 56), (1, 4, 3, 56, 56), (1, 4, 4, 112, 112)])
def test_wrong_pixel_shape_is_refused(
    model: VideoPandaForConditionalGeneration, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="pixel_values of shape"):
        model.get_video_features(torch.zeros(shape))


@pytest.mark.parametrize(("frames", "chunk"), [(8, 4), (10, 5), (12, 4), (15, 5)])
def test_chunks_are_independent(
    model: VideoPandaForConditionalGeneration, frames: int, chunk: int
) -> None:
    one, other = video(frames, seed=1), video(frames, seed=1)
    other[:, chunk] += 1
    changed = [
        not torch.equal(a, b) for a, b in zip(encode(model, one), encode(model, other), strict=True)
    ]
    assert changed == [chunk <= frame < 2 * chunk for frame in range(frames)]


def test_bar_pixels_affect_tokens(model: VideoPandaForConditionalGeneration) -> None:
    one, other = video(4), video(4)
    other[:, :, :3, 0] += 1
    assert not torch.equal(encode(model, one)[0][0], encode(model, other)[0][0])


def test_padded_frame_gives_tokens_of_a_quarter(
    model: VideoPandaForConditionalGeneration,
) -> None:
    padded = video(8)
    padded[:, 3:] = 0
    lengths = [len(tokens) for tokens in encode(model, padded)]
    assert lengths == [11] * 3 + [1 + 2 * (2 + 1)] * 5


def test_videos_of_a_batch_are_independent(
    model: VideoPandaForConditionalGeneration,
) -> None:
    wide, tall = video(8, seed=2), video(8, seed=3)
    tall[:, :, 3] = tall[:, :, 3].transpose(2, 3).clone()
    with torch.no_grad():
        together = model.get_video_features(torch.cat((wide, tall)))
        apart = [model.get_video_features(v)[0] for v in (wide, tall)]
    assert len(together[0]) != len(together[1])
    for both, alone in zip(together, apart, strict=True):
        torch.testing.assert_close(both, alone, atol=1e-5, rtol=1e-5)
