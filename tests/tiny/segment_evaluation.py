"""Evaluate how well a model finds when shapes are to be seen, in films drawn independently.

Run `python -m tests.tiny.segment_evaluation`.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from pandacli import Panda
from pandacli.evaluation.segments import overlap
from pandacli.timeline.segments import Segment, SegmentOptions, find_segments
from pandacli.video.windows import FilmReader, Span
from tests.tiny.drawn_films import Film, Range, random_film, write_film
from tests.tiny.synthetic_videos import KINDS

_OVERLAPS = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Search:
    """A question about a film, when its answer is yes, and when the model says so."""

    film: Film
    question: str
    ranges: tuple[Range, ...]
    found: tuple[Segment, ...]

    @property
    def overlaps(self) -> list[float]:
        """The best IoU of each true range with a segment."""
        ious = ([overlap(each, found[:2]) for found in self.found] for each in self.ranges)
        return [max(of_range, default=0.0) for of_range in ious]

    @property
    def false(self) -> list[Segment]:
        """The segments that lie for the most part outside the true ranges."""

        def inside(found: Segment) -> float:
            parts = (min(found.end, b) - max(found.start, a) for a, b in self.ranges)
            return sum(max(part, 0.0) for part in parts)

        return [each for each in self.found if inside(each) < (each.end - each.start) / 2]


def evaluate(
    panda: Panda,
    films: int,
    seed: int,
    folder: Path,
    options: SegmentOptions | None = None,
    *,
    longest: float = 120.0,
) -> Iterator[Search]:
    """Draw films into `folder` and ask about shapes in them, and some that are not."""
    for number in range(films):
        rng = np.random.default_rng((seed, number))
        film = random_film(rng, number, longest)
        path = write_film(film, folder / f"{seed}-{number}")
        with FilmReader(path, 8, panda.model.config.image_size) as reader:
            span = Span(0.0, reader.info().duration)
            for question, ranges in questions(film, rng):
                found = find_segments(panda, reader, span, question, options)
                yield Search(film, question, tuple(ranges), found.segments)
        path.unlink()


def questions(film: Film, rng: Generator) -> Iterator[tuple[str, list[Range]]]:
    """About a shape that appears, often with its colour, and often about one that does not."""
    shapes = sorted(film.shapes)
    colour, kind = shapes[int(rng.integers(len(shapes)))]
    if rng.random() < 0.5:
        yield f"Is there a {kind}?", film.ranges(kind)
    else:
        article = "an" if colour == "orange" else "a"
        yield f"Is there {article} {colour} {kind}?", film.ranges(kind, colour)
    absent = [kind for kind in KINDS if kind not in {kind for _, kind in shapes}]
    if absent and rng.random() < 0.5:
        yield f"Is there a {absent[0]}?", []


def main() -> None:
    """Parse the command line, evaluate, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny", help="name or folder of the model")
    parser.add_argument("--films", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--window", type=float, default=SegmentOptions().window)
    parser.add_argument("--stride", type=float, help="half a window by default")
    options = parser.parse_args()
    panda = Panda.load(options.model)
    searching = SegmentOptions(options.window, options.stride)
    print("| film | question | true | found | false | IoU of each true one |\n" + "|---" * 6 + "|")
    with tempfile.TemporaryDirectory() as folder:
        searches = []
        for search in evaluate(panda, options.films, options.seed, Path(folder), searching):
            searches.append(search)
            print(row(search), flush=True)
    print(summary(searches))


def row(search: Search) -> str:
    """A line of the table."""
    film = search.film
    rate = f"{'' if film.is_steady else 'about '}{float(film.rate):.4g} fps"
    setting = f"{film.container}, {film.size[0]}x{film.size[1]}, {rate}, {film.seconds:.0f} s"
    ious = " ".join(f"{each:.2f}" for each in search.overlaps)
    counts = f"{len(search.ranges)} | {len(search.found)} | {len(search.false)}"
    return f"| {setting} | {search.question} | {counts} | {ious} |"


def summary(searches: list[Search]) -> str:
    """The scores of all searches in a line."""
    ious = np.array([each for search in searches for each in search.overlaps])
    recalls = ", ".join(f"R1@{least} {np.mean(ious >= least):.3f}" for least in _OVERLAPS)
    false = sum(len(search.false) for search in searches)
    films = len({id(search.film) for search in searches})
    return (
        f"{len(searches)} questions about {films} films, {len(ious)} true segments:"
        f" mean IoU {ious.mean():.3f}, {recalls}, {false} false"
    )


if __name__ == "__main__":
    main()
