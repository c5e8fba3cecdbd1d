"""The windows of a film together and one by one: `python -m benchmarks.windows MODEL`.

    python -m benchmarks.windows tiny
    python -m benchmarks.windows tiny --threads 1
    python -m benchmarks.windows FOLDER --windows 4 --repeats 1    # a larger model

A film in which a scene of moving shapes follows another, with the model loaded. "Together" is what
`panda ask --every` does: the windows are read in one walk while those before are answered in
batches. "One by one" is what `panda ask --from --to` does for each window: the file is opened, its
frames are read, and they are answered. Then the same with frames that are already read, which is
the part of the model; there the choices of `panda when` are scored too. All take turns, and their
answers are compared.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import av
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from pandacli import Panda
from pandacli.inference.spec import Answer, Scores
from pandacli.inference.windows import WindowBatch, windows_at_once
from pandacli.timeline.looking import NO, YES, answers
from pandacli.video import Clip, Frames
from pandacli.video.prefetch import read_fitted
from pandacli.video.windows import FilmReader, Span, cut_windows
from training.drawing import draw_frames
from training.scenes import random_scene

_SIZE = (640, 360)
_SECONDS = 10.0  # of a window
_RATE = 12  # frames a second
_FRAMES = 8
_QUESTION = "What happens?"
_SCORED = "Is there a star?"
_CHOICES = (*YES, *NO)


def write_film(path: Path, windows: int) -> None:
    """A film with a scene of its own in each window."""
    rng, count = np.random.default_rng(3), int(_SECONDS * _RATE)
    times = [number / count for number in range(count)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(_RATE))
        assert isinstance(stream, av.VideoStream)
        (stream.width, stream.height), stream.pix_fmt = _SIZE, "yuv420p"
        stream.options = {"preset": "superfast", "g": str(2 * _RATE)}
        for _ in range(windows):
            scene = random_scene(rng, width=_SIZE[0], height=_SIZE[1])
            for picture in draw_frames(scene, times, rng):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@dataclass(frozen=True)
class Film:
    """A film with its windows, and their frames."""

    path: Path
    spans: Sequence[Span]
    frames: Sequence[Frames]


def ask_together(panda: Panda, film: Film) -> list[Any]:
    with FilmReader(film.path, _FRAMES, panda.model.config.image_size) as reader:
        found = answers(panda, reader.read(film.spans), [_QUESTION])
        return [answer for _, _, (answer,) in found]


def ask_one_by_one(panda: Panda, film: Film) -> list[Any]:
    sessions = (panda.open(film.path, start=span.start, end=span.end) for span in film.spans)
    return [session.ask(_QUESTION) for session in sessions]


def ask_frames_together(panda: Panda, film: Film) -> list[Any]:
    return [answer for batch in batches(panda, film) for (answer,) in batch.ask([_QUESTION])]


def ask_frames_one_by_one(panda: Panda, film: Film) -> list[Any]:
    return [panda.open(frames).ask(_QUESTION) for frames in film.frames]


def score_frames_together(panda: Panda, film: Film) -> list[Any]:
    return [each for batch in batches(panda, film) for each in batch.score(_SCORED, _CHOICES)]


def score_frames_one_by_one(panda: Panda, film: Film) -> list[Any]:
    return [panda.open(frames).score(_SCORED, _CHOICES) for frames in film.frames]


def batches(panda: Panda, film: Film) -> list[WindowBatch]:
    size = windows_at_once(panda)
    starts = range(0, len(film.frames), size)
    return [WindowBatch(panda, film.frames[start : start + size]) for start in starts]


WAYS: dict[str, tuple[Callable[[Panda, Film], list[Any]], Callable[[Panda, Film], list[Any]]]] = {
    "ask, frames read from the film": (ask_together, ask_one_by_one),
    "ask, frames in memory": (ask_frames_together, ask_frames_one_by_one),
    "score, frames in memory": (score_frames_together, score_frames_one_by_one),
}


def difference(found: list[Any], expected: list[Any]) -> float:
    """The number of answers that differ, or the largest difference of scores."""
    if isinstance(expected[0], Answer):
        return sum(str(one) != str(other) for one, other in zip(found, expected, strict=True))
    assert all(isinstance(scores, Scores) for scores in found), found
    ours, theirs = (
        [choice.logprob for scores in all_scores for choice in scores.choices]
        for all_scores in (found, expected)
    )
    return float(max(abs(one - other) for one, other in zip(ours, theirs, strict=True)))


def measure(panda: Panda, windows: int, repeats: int) -> dict[str, Any]:
    """Look at a film in all ways, in turns, and compare."""
    rates: dict[str, list[tuple[float, float]]] = defaultdict(list)
    different = dict.fromkeys(WAYS, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_film(path, windows)
        spans = cut_windows(Span(0.0, windows * _SECONDS), _SECONDS)
        size = panda.model.config.image_size
        frames = [read_fitted(Clip(path, *span), _FRAMES, size) for span in spans]
        film = Film(path, spans, frames)
        for repeat in range(repeats + 1):
            for name, ways in WAYS.items():
                found, seconds = [], []
                for way in ways:
                    started = perf_counter()
                    found.append(way(panda, film))
                    seconds.append(perf_counter() - started)
                different[name] = max(different[name], difference(*found))
                if repeat:  # the first one warms up
                    rates[name].append((windows / seconds[0], windows / seconds[1]))
    return {
        "engine": panda.engine,
        "quant": panda.quant,
        "windows": windows,
        "at_once": windows_at_once(panda),
        "threads": torch.get_num_threads(),
        "ways": {
            name: {
                "together": median(ours for ours, _ in held),
                "one_by_one": median(theirs for _, theirs in held),
                "ratio": median(ours / theirs for ours, theirs in held),
                "difference": different[name],
            }
            for name, held in rates.items()
        },
    }


def table_of(found: dict[str, Any]) -> Table:
    """A row for each way, in windows a second."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for heading in ("windows/s", "together", "one by one", "times as fast", "difference"):
        table.add_column(heading, justify="right")
    for name, way in found["ways"].items():
        rates = f"{way['together']:.3g}", f"{way['one_by_one']:.3g}"
        table.add_row(name, *rates, f"{way['ratio']:.2f}", f"{way['difference']:.2g}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help="a model's name, or a checkpoint folder")
    parser.add_argument("--quant", default="auto")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
    panda = Panda.load(wanted.model, quant=wanted.quant, engine=wanted.engine, device=wanted.device)
    found = {"model": wanted.model, **measure(panda, wanted.windows, wanted.repeats)}
    if wanted.json:
        print(json.dumps(found, indent=2))
        return
    Console().print(table_of(found))


if __name__ == "__main__":
    main()
