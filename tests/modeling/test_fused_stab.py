"""FusedSTAB computes the same function as STAB, with the current weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pandacli.modeling import VideoPandaConfig
from pandacli.modeling.modeling_videopanda import VideoPandaModel

CHANGES: dict[str, Callable[[VideoPandaModel], object]] = {
    "in place": lambda model: model.video_tower.dpe.weight.mul_(2),
    "through data, then eval": lambda model: (
        model.video_tower.dpe.weight.data.mul_(2),
        model.eval(),
    ),
    "by a new parameter": lambda model: setattr(
        model.video_tower.dpe, "weight", nn.Parameter(model.video_tower.dpe.weight * 2)
    ),
    "in running statistics": lambda model: model.video_tower.lmhra1.pos_embed[0].running_mean.add_(
        1
    ),
    "from a file": lambda model: model.load_state_dict(
        {name: tensor * 1.5 for name, tensor in model.state_dict().items()}
    ),
    "in the projector": lambda model: model.video_projector[0].weight.mul_(2),
}


def new_model(seed: int = 0) -> VideoPandaModel:
    config = VideoPandaConfig(
        image_size=140,
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
    model = VideoPandaModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.video_tower.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.5, generator=generator)
    return model


@pytest.fixture
def model() -> VideoPandaModel:
    return new_model()


def video(frames: int, rows: slice, columns: slice, real: int | None = None) -> Tensor:
    """(1, frames, 4, 140, 140): noise in a box of pixels, bars of one colour around it."""
    generator = torch.Generator().manual_seed(frames)
    values = torch.zeros(1, frames, 4, 140, 140)
    values[:, :, :3] = torch.tensor([0.3, -1.0, 2.0]).view(3, 1, 1)
    noise = torch.randn(1, frames, 3, 140, 140, generator=generator)
    values[:, :, :3, rows, columns] = noise[..., rows, columns]
    values[:, :, 3, rows, columns] = 1
    values[:, frames if real is None else real :] = 0
    return values


def fused(model: VideoPandaModel, pixel_values: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [frame for frames in model.encode_frames(pixel_values) for frame in frames]


def plain(model: VideoPandaModel, pixel_values: Tensor) -> list[Tensor]:
    """Recording gradients makes the plain block run."""
    frames = [frame for video in model.encode_frames(pixel_values) for frame in video]
    assert all(frame.requires_grad for frame in frames)
    return [frame.detach() for frame in frames]


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def assert_different(one: list[Tensor], other: list[Tensor]) -> None:
    with pytest.raises(AssertionError):
        assert_same(one, other)


ALL = slice(None)
WIDE = slice(42, 98)  # 8 of 20 rows of patches, bars of 6
NARROW = slice(14, 112)  # bars of 2 and of 4


@pytest.mark.parametrize("frames", [1, 4, 5, 7, 8, 12])
@pytest.mark.parametrize(
    "box",
    [(ALL, ALL), (WIDE, ALL), (ALL, WIDE), (NARROW, ALL), (slice(84, None), ALL), (WIDE, NARROW)],
    ids=["square", "landscape", "portrait", "thin bars", "bar above", "bars around"],
)
def test_tokens_equal_those_of_plain_block(
    model: VideoPandaModel, frames: int, box: tuple[slice, slice]
) -> None:
    pixels = video(frames, *box)
    assert_same(fused(model, pixels), plain(model, pixels))


@pytest.mark.parametrize("real", [0, 1, 3, 4, 6])
@pytest.mark.parametrize("box", [(ALL, ALL), (WIDE, ALL), (ALL, NARROW)])
def test_padded_frames_equal_those_of_plain_block(
    model: VideoPandaModel, real: int, box: tuple[slice, slice]
) -> None:
    pixels = video(8, *box, real=real)
    assert_same(fused(model, pixels), plain(model, pixels))


def test_non_uniform_bar_equals_plain_block(model: VideoPandaModel) -> None:
    pixels = video(8, WIDE, ALL)
    pixels[0, 5, 1, 20, 70] += 3
    assert_same(fused(model, pixels), plain(model, pixels))


def test_content_without_mask_equals_plain_block(model: VideoPandaModel) -> None:
    pixels = video(8, WIDE, ALL)
    pixels[0, 4:, 3] = 0
    assert_same(fused(model, pixels), plain(model, pixels))


def test_boxes_may_differ_within_a_chunk(model: VideoPandaModel) -> None:
    pixels = torch.cat((video(4, WIDE, ALL), video(4, slice(56, 84), NARROW)), 1)
    pixels = pixels[:, [0, 4, 1, 5, 2, 6, 3, 7]]
    assert_same(fused(model, pixels), plain(model, pixels))


def test_batch_equals_single_videos(model: VideoPandaModel) -> None:
    videos = [video(8, WIDE, ALL), video(8, ALL, NARROW, real=3), video(8, ALL, ALL, real=5)]
    alone = [frame for pixels in videos for frame in fused(model, pixels)]
    assert_same(fused(model, torch.cat(videos)), alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_stay_close(model: VideoPandaModel, dtype: torch.dtype) -> None:
    pixels = video(8, WIDE, ALL, real=6)
    exact = fused(model, pixels)
    for a, b in zip(exact, fused(model.to(dtype), pixels), strict=True):
        assert (a - b).abs().max() < 0.05 * a.abs().max()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_weight_change_after_fusing_takes_effect(
    model: VideoPandaModel, change: Callable[[VideoPandaModel], object]
) -> None:
    pixels = video(8, WIDE, ALL, real=4)
    before = fused(model, pixels)
    with torch.no_grad():
        change(model)
    after = fused(model, pixels)
    assert_different(before, after)
    assert_same(after, plain(model, pixels))


def test_training_step_between_inferences_takes_effect(model: VideoPandaModel) -> None:
    pixels = video(8, WIDE, ALL)
    before = fused(model, pixels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.train()
    torch.cat(model.encode_frames(pixels)[0]).sum().backward()
    optimizer.step()
    model.eval()
    assert_different(before, fused(model, pixels))
    assert_same(fused(model, pixels), plain(model, pixels))


def test_every_weight_gets_a_gradient_after_inference(model: VideoPandaModel) -> None:
    fused(model, video(8, WIDE, ALL))
    frames = model.train().encode_frames(video(8, WIDE, ALL))[0]
    sum(frame.square().sum() for frame in frames).backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if name.startswith("video_") and parameter.grad is None
    ]
    assert without == []


def test_frozen_block_passes_input_gradients(model: VideoPandaModel) -> None:
    pixels = video(4, WIDE, ALL).requires_grad_()
    frames = model.requires_grad_(False).encode_frames(pixels)[0]
    frames[0].sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0


def test_projector_gets_gradients_on_frozen_block(model: VideoPandaModel) -> None:
    pixels = video(8, WIDE, ALL, real=2)
    fused(model, pixels)
    model.video_tower.requires_grad_(False)
    for frame in model.encode_frames(pixels)[0]:
        weight = model.video_projector[0].weight
        assert torch.autograd.grad(frame.sum(), weight, retain_graph=True)[0].any()


def test_replaced_layer_takes_effect(model: VideoPandaModel) -> None:
    pixels = video(8, WIDE, ALL)
    before = fused(model, pixels)

    class Louder(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 3 * super().forward(x)

    louder = Louder(24, 24, bias=False)
    louder.weight = model.video_tower.local_attention.q[1].weight
    model.video_tower.local_attention.q[1] = louder
    assert_different(before, fused(model, pixels))


def test_fused_weights_are_not_in_state_dict(model: VideoPandaModel) -> None:
    names = list(model.state_dict())
    fused(model, video(8, ALL, ALL))
    assert list(model.state_dict()) == names


def test_inference_tensors_are_not_fused() -> None:
    with torch.inference_mode():
        model = new_model()
        before = fused(model, video(8, WIDE, ALL))
        model.video_tower.dpe.weight[1] = 5
        assert_different(before, fused(model, video(8, WIDE, ALL)))


def test_split_token_is_projected_once(
    model: VideoPandaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    forward = model.video_projector.forward

    def counted(tokens: Tensor) -> Tensor:
        counts.append(len(tokens))
        return forward(tokens)

    monkeypatch.setattr(model.video_projector, "forward", counted)
    fused(model, video(8, WIDE, ALL))
    assert counts == [8 * (1 + 4 * 10) + 1]
