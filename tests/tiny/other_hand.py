"""Ask a model about clips that nothing in `training` drew: `python -m tests.tiny.other_hand`."""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pandacli import Panda
from tests.tiny.brushes import BRUSHES, WRITERS, all_times, draw, save
from tests.tiny.film_questions import Exchange, exchanges
from tests.tiny.films import Film, random_film


@dataclass(frozen=True)
class Verdict:
    """A question about a film, and what was answered."""

    film: Film
    brush: str
    writer: str
    exchange: Exchange
    answer: str

    @property
    def right(self) -> bool:
        """Whether the answer is the promised one, to the letter."""
        return self.answer == self.exchange.answer


def examine(
    panda: Panda, clips: int, seed: int, folder: Path, *, together: bool = False
) -> Iterator[Verdict]:
    """Draw films into `folder`, one after another in each style, and ask about each.

    With `together`, all that is asked about a film is one conversation.
    """
    for number in range(clips):
        rng = np.random.default_rng((seed, number))
        film = random_film(rng)
        brush = list(BRUSHES)[number % len(BRUSHES)]
        writer = WRITERS[int(rng.integers(len(WRITERS)))]
        pictures = draw(film, brush, all_times(film), rng)
        path = save(pictures, film, writer, folder / f"{seed}-{number}")
        clip = panda.open(path)
        said: list[tuple[str, str]] = []
        for exchange in exchanges(film, rng):
            history = said if together else []
            for question in exchange.questions:
                history.append((question, clip.ask(question, history=history, max_tokens=80).text))
            yield Verdict(film, brush, writer, exchange, history[-1][1])
        path.unlink()


def main() -> None:
    """Parse the command line, ask, print what is right and what is not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny", help="name or folder of the model")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--together", action="store_true", help="in one conversation a film")
    options = parser.parse_args()
    panda = Panda.load(options.model)
    with tempfile.TemporaryDirectory() as folder:
        asked = examine(panda, options.clips, options.seed, Path(folder), together=options.together)
        verdicts = list(asked)
    report(verdicts)


def report(verdicts: list[Verdict]) -> None:
    """Print every mistake, then the share of right answers by this and by that."""
    for verdict in verdicts:
        if not verdict.right:
            asked = " / ".join(verdict.exchange.questions)
            print(f"{_setting(verdict)}\n  {asked}\n    {verdict.exchange.answer}")
            print(f"    {verdict.answer}  <- answered")
    for title, of in _GROUPINGS.items():
        groups: dict[str, list[bool]] = defaultdict(list)
        for verdict in verdicts:
            groups[of(verdict)].append(verdict.right)
        print(f"\n{title}")
        for name, rights in sorted(groups.items()):
            print(f"  {name:16} {sum(rights):4} of {len(rights):4}  {np.mean(rights):6.1%}")


def _setting(verdict: Verdict) -> str:
    film = verdict.film
    size = f"{film.width}x{film.height}"
    look = f"{film.palette}, on {film.background}, noise {film.noise:g}"
    return f"[{size}, {film.seconds:g} s, {verdict.writer}, {verdict.brush}, {look}]"


_GROUPINGS: dict[str, Callable[[Verdict], str]] = {
    "by brush": lambda v: v.brush,
    "by codec": lambda v: v.writer,
    "by palette": lambda v: v.film.palette,
    "by background": lambda v: v.film.background,
    "by noise": lambda v: f"{v.film.noise:g}",
    "by size": lambda v: f"{v.film.width}x{v.film.height}",
    "by number of shapes": lambda v: str(len(v.film.actors)),
    "by kind of question": lambda v: v.exchange.kind,
    "in all": lambda _: "all",
}


if __name__ == "__main__":
    main()
