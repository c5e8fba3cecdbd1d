"""Parity with the official model from pixels to greedy tokens, with small Llamas."""

import pytest
import torch

from pandacli.inference.backends.torch import TorchBackend
from pandacli.modeling import VideoPandaConfig, VideoPandaForConditionalGeneration
from pandacli.modeling.configuration import ModelConfig
from pandacli.modeling.video_panda import VideoPanda
from tests.modeling.e2e import Vectors, input_pixels, last_logits, llama_sizes, load_vectors
from tests.parity_weights import fill

Case = tuple[VideoPandaForConditionalGeneration, Vectors]


@pytest.fixture(
    scope="module",
    params=["e2e_h64_16x9", "e2e_h128_square", "e2e_h256_raw640x480", "e2e_h256_pad_raw360x640"],
)
def case(request: pytest.FixtureRequest) -> Case:
    vectors = load_vectors(request.param)
    model = VideoPandaForConditionalGeneration(VideoPandaConfig(**llama_sizes(vectors))).eval()
    fill(model, "", vectors.meta["salt"])
    return model, vectors


def test_embedded_prompts_equal_recorded(case: Case) -> None:
    model, vectors = case
    with torch.no_grad():
        frames = model.model.encode_frames(input_pixels(vectors))
        (embedded,) = model.embed_frames(vectors.tensors["input_ids"].unsqueeze(0), frames)
    assert len(embedded) == vectors.meta["seq_len"]
    torch.testing.assert_close(
        embedded[vectors.tensors["embed_pos"]], vectors.tensors["embed_rows"], atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        embedded.norm(dim=1), vectors.tensors["embed_norm"], atol=1e-3, rtol=1e-4
    )


def test_logits_equal_recorded(case: Case) -> None:
    model, vectors = case
    wanted = vectors.tensors["last_logits"]
    torch.testing.assert_close(last_logits(model, vectors), wanted, atol=1e-3, rtol=0)


def test_greedy_tokens_equal_recorded(case: Case) -> None:
    model, vectors = case
    ids = vectors.tensors["input_ids"].unsqueeze(0)
    generated = model.generate(
        input_ids=ids, pixel_values=input_pixels(vectors), max_new_tokens=16, do_sample=False
    )
    assert generated[:, : ids.shape[1]].equal(ids)
    assert generated[0, ids.shape[1] :].tolist() == vectors.tensors["new_ids"].tolist()


def test_our_llama_gives_the_recorded_logits_and_tokens(case: Case) -> None:
    _, vectors = case
    model = VideoPanda(ModelConfig(**llama_sizes(vectors))).eval()
    fill(model, "", vectors.meta["salt"])
    sequence = TorchBackend(model).new_sequence()
    with torch.inference_mode():
        ids, frames = vectors.tensors["input_ids"], model.model.encode_frames(input_pixels(vectors))
        (embedded,) = model.embed_frames(ids.unsqueeze(0), frames)
        sequence.prefill(embedded[:-5])
        logits = model.lm_head(model.model(embedded[None, -5:], sequence.cache))[0, -1]
    wanted = vectors.tensors["last_logits"]
    torch.testing.assert_close(logits, wanted, atol=1e-3, rtol=0)
    tokens = [int(logits.argmax())]
    while len(tokens) < 16:
        tokens.append(int(sequence.append([tokens[-1]]).argmax()))
    assert tokens == vectors.tensors["new_ids"].tolist()
