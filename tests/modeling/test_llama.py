"""Our Llama gives the numbers of transformers' one."""

import subprocess
import sys
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from pandacli.inference.backends.kv_cache import KVCache
from pandacli.inference.backends.torch import TorchBackend
from pandacli.modeling import VideoPandaConfig, VideoPandaForConditionalGeneration
from pandacli.modeling.configuration import ModelConfig
from pandacli.modeling.video_panda import VideoPanda

ROPES: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "default", "rope_theta": 5e5},
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
]


def draw_fields(draw: Random) -> dict[str, Any]:
    """A `config.json` of a small model of a drawn shape."""
    groups, per_group, size = draw.choice([1, 2, 3]), draw.choice([1, 2]), draw.choice([4, 6, 16])
    heads = groups * per_group
    return {
        "model_type": "videopanda",
        "hidden_size": heads * draw.choice([4, 8]),
        "intermediate_size": draw.randint(8, 40),
        "num_hidden_layers": draw.randint(1, 3),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": size,
        "vocab_size": 50,
        "max_position_embeddings": 256,
        "rms_norm_eps": draw.choice([1e-5, 1e-6]),
        "hidden_act": draw.choice(["silu", "silu", "gelu"]),
        "rope_parameters": {"rope_theta": 10000.0, **draw.choice(ROPES)},
        "video_hidden_size": 16,
        "video_num_heads": 2,
        "image_size": 28,
        "patch_size": 7,
    }


def models(
    draw: Random, dtype: torch.dtype
) -> tuple[VideoPanda, VideoPandaForConditionalGeneration]:
    fields = draw_fields(draw)
    torch.manual_seed(draw.randrange(1 << 30))
    theirs = VideoPandaForConditionalGeneration(VideoPandaConfig.from_dict(fields))
    ours = VideoPanda(ModelConfig.from_dict(fields))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    ours.load_state_dict(theirs.state_dict())
    theirs.to(dtype).eval()  # type: ignore[arg-type]
    return ours.to(dtype).eval(), theirs


@torch.inference_mode()
def in_pieces(model: VideoPanda, ids: Tensor, draw: Random) -> Tensor:
    """The logits at every position of rows (B, n), which are appended in pieces."""
    cache, found, start = KVCache(len(model.model.layers)), [], 0
    while start < ids.shape[1]:
        piece = ids[:, start : start + draw.choice([1, 1, 2, 7])]
        found.append(model(piece, cache, kept=torch.arange(piece.shape[1])))
        start += piece.shape[1]
    return torch.cat(found, 1)


@pytest.mark.parametrize("seed", range(12))
def test_logits_are_those_of_transformers(seed: int) -> None:
    draw = Random(seed)
    ours, theirs = models(draw, torch.float32)
    ids = torch.tensor([[draw.randrange(50) for _ in range(40)] for _ in range(3)])
    with torch.inference_mode():
        wanted = theirs(input_ids=ids).logits
    torch.testing.assert_close(in_pieces(ours, ids, draw), wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_as_transformers_does(dtype: torch.dtype) -> None:
    draw = Random(5)
    ours, theirs = models(draw, dtype)
    ids = torch.tensor([[draw.randrange(50) for _ in range(30)]])
    with torch.inference_mode():
        cache = KVCache(len(ours.model.layers))
        found = ours(ids, cache, kept=torch.arange(30))
        wanted = theirs(input_ids=ids).logits
    assert float((found - wanted).float().norm() / wanted.float().norm()) < 1e-2


@pytest.mark.parametrize("seed", range(4))
def test_tree_gives_the_logits_of_each_path(seed: int) -> None:
    draw = Random(seed)
    ours, theirs = models(draw, torch.float32)
    prefix = [draw.randrange(50) for _ in range(9)]
    tokens = [draw.randrange(50) for _ in range(12)]
    parents = [draw.randrange(-1, node) for node in range(len(tokens))]
    sequence = TorchBackend(ours).new_sequence()
    sequence.append(prefix)
    found = sequence.tree(tokens, parents, [*range(len(tokens))])
    for node, logits in enumerate(found):
        path, at = [], node
        while at >= 0:
            path.insert(0, tokens[at])
            at = parents[at]
        with torch.inference_mode():
            wanted = theirs(input_ids=torch.tensor([prefix + path])).logits[0, -1]
        torch.testing.assert_close(logits, wanted, atol=2e-5, rtol=1e-4)


def test_rotary_tables_grow_without_a_change() -> None:
    draw = Random(1)
    ours, _ = models(draw, torch.float32)
    rotary, like = ours.model.rotary, torch.zeros(1)
    early = [part.clone() for part in rotary.at(torch.tensor([[3, 200]]), 201, like)]
    rotary.at(torch.tensor([[5000]]), 5001, like)
    again = rotary.at(torch.tensor([[3, 200]]), 201, like)
    assert all(torch.equal(one, other) for one, other in zip(early, again, strict=True))


def test_a_model_is_loaded_and_asked_without_transformers() -> None:
    script = (
        "import sys\n"
        "for name in ('transformers', 'accelerate', 'torch._dynamo', 'sympy'):\n"
        "    sys.modules[name] = None\n"
        "from pandacli import Panda\n"
        "from pandacli.cli.frames import CLIP\n"
        "print(Panda.load('tiny', device='cpu').ask(CLIP, 'Which shape appears?').text)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "The yellow star.\n", done.stderr
