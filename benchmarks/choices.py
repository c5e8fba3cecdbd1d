"""Choices scored all together and one by one: `python -m benchmarks.choices MODEL`.

    python -m benchmarks.choices tiny
    python -m benchmarks.choices tiny --engine llama --quant 8bit
    python -m benchmarks.choices FOLDER --clips 2 --plain 5    # a larger model

Twenty clips with 25 questions of five choices each, with the model loaded and the frames read.
"Together" is one `VideoSession.score_all` a clip. "One by one" scores each choice by itself, with
`VideoSession.score` on the same session: the prefix of the clip is prefilled once, before both, and
counted for neither. "Plain" shares nothing: a forward pass over frames, question and choice,
without a KV cache, on some of the choices (torch only); beside it "together" has its prefix counted
in. All take turns clip by clip, and their scores are compared.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import count
from math import fsum
from operator import truediv
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from pandacli import Panda
from pandacli.inference.backends.kv_cache import KVCache
from pandacli.inference.session import VideoSession
from pandacli.inference.spec import ScoreRequest, Scores
from pandacli.modeling import encode_prompt
from pandacli.video import Clip, Frames, preprocess, sample_frames
from training.drawing import write_clip
from training.questions import QUESTION_KINDS, random_dialogue
from training.scenes import random_scene

_SIZE = (320, 240)  # that of most clips of MSVD
_SECONDS = 10.0
_FRAMES = 8
_KINDS = [kind for kind in QUESTION_KINDS if kind != "follow-up"]


def drawn_clip(number: int, questions: int, choices: int) -> tuple[Frames, list[ScoreRequest]]:
    """The frames of a clip of moving shapes, and questions about it with possible answers."""
    rng = np.random.default_rng(number)
    scene = random_scene(rng, width=_SIZE[0], height=_SIZE[1], longest=_SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(scene, path, rng)
        frames = sample_frames(Clip(path), _FRAMES)
    requests = []
    for turn in range(questions):
        question, answer = random_dialogue(scene, _KINDS[turn % len(_KINDS)], rng).turns[0]
        texts = [answer]
        for other in count(turn):  # answers to questions of all kinds, of the same kind first
            if len(texts) == choices:
                break
            kind = _KINDS[(turn + other // 4) % len(_KINDS)]
            text = random_dialogue(scene, kind, rng).turns[0][1]
            texts += [text] if text not in texts else []
        requests.append(ScoreRequest(question, tuple(texts)))
    return frames, requests


def together(session: VideoSession, requests: Sequence[ScoreRequest]) -> list[float]:
    found = dict(session.score_all(requests))
    scored = [found[number] for number in range(len(requests))]
    assert all(isinstance(scores, Scores) for scores in scored), scored
    return [c.logprob for scores in scored for c in scores.choices]  # type: ignore[union-attr]


def one_by_one(session: VideoSession, requests: Sequence[ScoreRequest]) -> list[float]:
    return [
        session.score(request.question, [choice]).choices[0].logprob
        for request in requests
        for choice in request.choices
    ]


@torch.inference_mode()
def plain(panda: Panda, frames: Frames, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The log-probabilities of choices behind their questions, each by a pass over everything."""
    model, end = panda.model, panda.tokenizer.eos_id
    sizes = {"image_size": model.config.image_size, "patch_size": model.config.patch_size}
    pixels = preprocess(frames.pixels, num_frames=_FRAMES, **sizes)[None].to(model.device)
    found = []
    for question, choice in pairs:
        prompt = encode_prompt([(question, None)], panda.tokenizer)
        ids = [*encode_prompt([(question, choice)], panda.tokenizer), end]
        ids = ids[:-1] if ids[-2] == end else ids
        given = torch.tensor([ids[:-1]], device=model.device)
        size = len(ids) - len(prompt)
        (embedded,) = model.embed_frames(given, model.model.encode_frames(pixels))
        states = model.model(embedded[None], KVCache(len(model.model.layers)))
        rows = model.lm_head(states[0, -size:]).double().log_softmax(-1)
        found.append(fsum(rows[range(size), ids[-size:]].tolist()))
    return found


def timed(score: Callable[..., list[float]], *given: Any) -> tuple[float, list[float]]:
    """The seconds that scoring took, and the scores."""
    started = perf_counter()
    scores = score(*given)
    return perf_counter() - started, scores


def score_clip(
    panda: Panda, frames: Frames, requests: Sequence[ScoreRequest], step: int
) -> dict[str, tuple[float, list[float]]]:
    """Seconds and log-probabilities of each way; plainly every `step`th choice, 0 for none."""
    session = panda.open(frames)
    started = perf_counter()
    session.prepare()
    prefix = perf_counter() - started
    found = {way.__name__: timed(way, session, requests) for way in (together, one_by_one)}
    if step:
        seconds, scores = found["together"]
        found["with_prefix"] = seconds + prefix, scores
        pairs = [(r.question, choice) for r in requests for choice in r.choices][::step]
        found["plain"] = timed(plain, panda, frames, pairs)
    return found


def measure(panda: Panda, wanted: argparse.Namespace) -> dict[str, Any]:
    """Score in all ways, in turns, and compare."""
    drawn = [drawn_clip(n, wanted.questions, wanted.choices) for n in range(wanted.clips)]
    with_plain = wanted.plain and panda.engine == "torch"
    step = -(-wanted.questions * wanted.choices // wanted.plain) if with_plain else 0
    rates: dict[str, list[float]] = defaultdict(list)
    difference = 0.0
    for _ in range(wanted.repeats):
        clips = [score_clip(panda, *clip, step) for clip in drawn]
        for way in clips[0]:
            seconds, scores = zip(*(clip[way] for clip in clips), strict=True)
            rates[way].append(sum(map(len, scores)) / sum(seconds))
        for clip in clips:
            ours = clip["together"][1]
            pairs = [*zip(ours, clip["one_by_one"][1], strict=True)]
            pairs += zip(ours[::step], clip["plain"][1], strict=True) if step else ()
            difference = max(difference, *(abs(one - other) for one, other in pairs))
    compared = {"one_by_one": "together", "plain": "with_prefix"}
    return {
        "model": wanted.model,
        "quant": panda.quant,
        "engine": panda.engine,
        "choices": wanted.clips * wanted.questions * wanted.choices,
        "choices_per_second": {way: median(held) for way, held in rates.items()},
        "ratios": {
            way: median(map(truediv, rates[ours], rates[way]))
            for way, ours in compared.items()
            if way in rates
        },
        "largest_difference": difference,
    }


def table_of(found: dict[str, Any]) -> Table:
    """A row for each way of scoring."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for heading in ("", "choices/s", "sooner together"):
        table.add_column(heading, justify="right")
    for way, rate in found["choices_per_second"].items():
        ratio = found["ratios"].get(way)
        table.add_row(way.replace("_", " "), f"{rate:.3g}", f"x{ratio:.1f}" if ratio else "")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help="a model's name, or a checkpoint folder")
    parser.add_argument("--quant", default="auto")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--questions", type=int, default=25, help="about each clip")
    parser.add_argument("--choices", type=int, default=5, help="of each question")
    parser.add_argument("--plain", type=int, default=12, help="of the choices of a clip; 0: none")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    panda = Panda.load(wanted.model, quant=wanted.quant, engine=wanted.engine, device=wanted.device)
    found = measure(panda, wanted)
    if wanted.json:
        print(json.dumps(found, indent=2))
        return
    Console().print(table_of(found))
    print(f"the log-probabilities differ by at most {found['largest_difference']:.2g}")


if __name__ == "__main__":
    main()
