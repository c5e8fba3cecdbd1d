"""STAB beside others: both sides compute the same, and the table compares the right ones."""

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks.plain_stab import plain_frames, plain_sequences
from benchmarks.stab import Setting, clip, compare, measure
from pandacli.modeling import VideoPandaConfig
from pandacli.modeling.modeling_videopanda import VideoPandaModel
from pandacli.modeling.patches import project

SETTING = Setting("1 thread", "cpu", torch.float32, 1)


@pytest.fixture(scope="module")
def panda() -> VideoPandaModel:
    torch.manual_seed(0)
    config = VideoPandaConfig(
        image_size=224,
        patch_size=14,
        video_hidden_size=32,
        video_num_heads=4,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=0,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=8,
    )
    model = VideoPandaModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4)
        model.video_tower.lmhra1.pos_embed[0].running_mean.normal_()
        model.video_tower.lmhra1.pos_embed[0].running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("height", [1.0, 9 / 16])
@pytest.mark.parametrize("real", [8, 3])
def test_the_plain_block_computes_what_ours_does(
    panda: VideoPandaModel, height: float, real: int
) -> None:
    pixels = clip(224, 14, height)
    pixels[:, real:] = 0
    with torch.no_grad():
        plain = plain_frames(panda.video_tower, panda.video_projector, pixels)
        ours = panda.encode_frames(pixels)
    for one, other in zip(plain[0], ours[0], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_before_the_projector_they_agree_too(panda: VideoPandaModel) -> None:
    pixels, tower = clip(224, 14, 9 / 16), panda.video_tower
    with torch.no_grad():
        plain = plain_sequences(tower, pixels)
        ours = project(panda.run_tower(pixels), tower.split_embedding, torch.nn.Identity())
        for one, other in zip(plain[0], ours, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_row_compares_what_it_names() -> None:
    medians = {
        "ViT": 80.0,
        **{f"{shape} plain": 6.0 for shape in ("1:1", "16:9")},
        **{f"{shape} STAB": 2.0 for shape in ("1:1", "16:9")},
        **{f"{shape} plain, projected": 16.0 for shape in ("1:1", "16:9")},
        **{f"{shape} projected": 8.0 for shape in ("1:1", "16:9")},
    }
    rows = compare(medians, SETTING)
    assert [(row.name, row.ratio, row.goal) for row in rows] == [
        ("1:1 STAB", 3, 2),
        ("1:1 projected", 2, None),
        ("1:1 projected", 10, 8),
        ("16:9 STAB", 3, 2),
        ("16:9 projected", 2, None),
        ("16:9 projected", 10, 11),
    ]


def test_everything_is_measured(panda: VideoPandaModel) -> None:
    threads = torch.get_num_threads()
    vit = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        )
    ).eval()
    try:
        rows = measure(panda, vit, [SETTING], repeats=1)
    finally:
        torch.set_num_threads(threads)
    assert len(rows) == 6
    assert all(row.ours > 0 and row.theirs > 0 for row in rows)
