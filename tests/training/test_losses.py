"""Training computes the same logits as inference."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pandacli.modeling.configuration_videopanda import VideoPandaConfig
from pandacli.modeling.modeling_videopanda import VideoPandaForConditionalGeneration
from pandacli.modeling.tokenization_videopanda import VideoPandaTokenizer, encode_prefix
from training.data import IGNORED, Batch, TrainingData
from training.losses import (
    DEVIATION_WEIGHT,
    ModelWithHeads,
    answer_losses,
    branching_mask,
    branching_positions,
)
from training.vocabulary import train_vocabulary


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> VideoPandaTokenizer:
    """A vocabulary like that of `tiny`."""
    folder: Path = tmp_path_factory.mktemp("vocabulary")
    return VideoPandaTokenizer(train_vocabulary(folder, seed=0), legacy=True)


@pytest.fixture
def data(tokenizer: VideoPandaTokenizer) -> TrainingData:
    """Two clips a batch, three dialogues a clip, on a small canvas."""
    return TrainingData(tokenizer, image_size=56, batch_size=2, dialogues=3, seed=0)


@pytest.fixture
def model(tokenizer: VideoPandaTokenizer) -> ModelWithHeads:
    """A small untrained model with its auxiliary heads."""
    torch.manual_seed(0)
    config = VideoPandaConfig(
        image_size=56,
        video_hidden_size=32,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=len(tokenizer),
        initializer_range=0.2,
    )
    return ModelWithHeads(VideoPandaForConditionalGeneration(config), tokenizer).eval()


@pytest.fixture
def batch(data: TrainingData) -> Batch:
    """One batch of clips."""
    return data.draw(np.random.default_rng(0))


def test_packed_dialogues_have_loss_of_single_dialogues(
    model: ModelWithHeads, batch: Batch, tokenizer: VideoPandaTokenizer
) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):  # as in training
        together = model(batch, auxiliary_weight=0.0).answer
        model.model.set_attn_implementation("sdpa")
        losses = []
        for clip in range(len(batch.text)):
            pixels = model._pixels(batch)[clip : clip + 1]
            for number in batch.dialogue[clip].unique().tolist():
                own = batch.dialogue[clip] == number
                if number == 0:
                    continue
                ids = torch.tensor(encode_prefix(tokenizer) + batch.text[clip, own].tolist())
                logits = model.model(input_ids=ids[None], pixel_values=pixels).logits[0]
                target, usual = batch.target[clip, own], batch.usual[clip, own]
                asked = target != IGNORED
                answered = logits[-len(target) :][asked].float()
                losses.append(answer_losses(answered, target[asked], usual[asked]))
        alone = torch.cat(losses).mean()
    assert together.item() == pytest.approx(alone.item(), rel=0.01)


def test_loss_is_least_where_deviations_have_a_tenth() -> None:
    # half of the targets are usual (0), half deviate: three quarters to 1 and a quarter to 2
    target = torch.tensor([0] * 8 + [1] * 6 + [2] * 2)
    usual = torch.where(target == 0, IGNORED, 0)
    logits = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(1000):
        optimizer.zero_grad()
        answer_losses(logits.expand(len(target), -1), target, usual).sum().backward()
        optimizer.step()
    shares = logits.detach().softmax(-1)
    rare = DEVIATION_WEIGHT / (1 + DEVIATION_WEIGHT)
    expected = [1 - rare, 0.75 * rare, 0.25 * rare, 0.0]
    assert shares.tolist() == pytest.approx(expected, abs=0.002)
    assert rare == pytest.approx(0.1, abs=0.01)


def test_mask_allows_prefix_and_own_past() -> None:
    mask = branching_mask(torch.tensor([[1, 1, 2, 2]]), prefix_length=2)[0, 0] == 0
    assert mask.int().tolist() == [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 1, 1],
    ]


def test_positions_continue_from_prefix() -> None:
    positions = branching_positions(torch.tensor([[0, 1, 0, 1]]), prefix_length=3)
    assert positions.tolist() == [[0, 1, 2, 3, 4, 3, 4]]


def test_targets_are_answers_with_eos(batch: Batch, tokenizer: VideoPandaTokenizer) -> None:
    first = batch.target[0][batch.dialogue[0] == 1]
    answered = first[first != IGNORED].tolist()
    assert answered[-1] == tokenizer.eos_id
    assert tokenizer.decode(answered)


def test_image_batch_has_auxiliary_loss_only(model: ModelWithHeads, data: TrainingData) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(data.draw_images(np.random.default_rng(0)), auxiliary_weight=1.0)
    assert not losses.asked
    assert losses.total.item() > 0


@pytest.mark.parametrize(
    ("deviates", "target", "followed"), [(False, 0, True), (True, 0, False), (False, 1, False)]
)
def test_teacher_is_followed_in_usual_answers_that_it_knows(
    model: ModelWithHeads, batch: Batch, deviates: bool, target: int, followed: bool
) -> None:
    teacher = VideoPandaForConditionalGeneration(model.model.config).eval()
    teacher.set_attn_implementation("branching")
    torch.nn.init.zeros_(teacher.lm_head.weight)  # all tokens alike: argmax gives the first, 0
    asked = replace(
        batch,
        target=torch.where(batch.target == IGNORED, IGNORED, target),
        usual=torch.full_like(batch.usual, IGNORED),
        deviates=torch.full_like(batch.deviates, deviates),
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):  # as in training
        alone, taught = (model(asked, 0.0, each).answer.item() for each in (None, teacher))
    assert (taught != pytest.approx(alone, rel=1e-5)) == followed
