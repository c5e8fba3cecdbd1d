"""Evaluate a model on videos rendered independently of `training`.

Run `python -m tests.tiny.independent_evaluation`.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pandacli import Panda
from tests.tiny.renderers import RENDERERS, WRITERS, all_times, draw, save
from tests.tiny.synthetic_videos import SyntheticVideo, random_video
from tests.tiny.video_questions import Exchange, exchanges


@dataclass(frozen=True)
class Verdict:
    """A question about a video and the model's answer."""

    video: SyntheticVideo
    renderer: str
    writer: str
    exchange: Exchange
    answer: str

    @property
    def right(self) -> bool:
        """Whether the answer is exactly the expected one."""
        return self.answer == self.exchange.answer


def evaluate(
    panda: Panda, clips: int, seed: int, folder: Path, *, conversation: bool = False
) -> Iterator[Verdict]:
    """Render videos into `folder`, cycling through the renderers, and ask about each.

    With `conversation`, all questions about a video form one conversation.
    """
    for number in range(clips):
        rng = np.random.default_rng((seed, number))
        video = random_video(rng)
        renderer = list(RENDERERS)[number % len(RENDERERS)]
        writer = WRITERS[int(rng.integers(len(WRITERS)))]
        pictures = draw(video, renderer, all_times(video), rng)
        path = save(pictures, video, writer, folder / f"{seed}-{number}")
        clip = panda.open(path)
        turns: list[tuple[str, str]] = []
        for exchange in exchanges(video, rng):
            history = turns if conversation else []
            for question in exchange.questions:
                history.append((question, clip.ask(question, history=history, max_tokens=80).text))
            yield Verdict(video, renderer, writer, exchange, history[-1][1])
        path.unlink()


def main() -> None:
    """Parse the command line, evaluate, print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny", help="name or folder of the model")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--conversation", action="store_true", help="one conversation per video")
    options = parser.parse_args()
    panda = Panda.load(options.model)
    with tempfile.TemporaryDirectory() as folder:
        asked = evaluate(
            panda, options.clips, options.seed, Path(folder), conversation=options.conversation
        )
        verdicts = list(asked)
    report(verdicts)


def report(verdicts: list[Verdict]) -> None:
    """Print every mistake, then the share of right answers by several groupings."""
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
    video = verdict.video
    size = f"{video.width}x{video.height}"
    look = f"{video.palette}, on {video.background}, noise {video.noise:g}"
    return f"[{size}, {video.seconds:g} s, {verdict.writer}, {verdict.renderer}, {look}]"


_GROUPINGS: dict[str, Callable[[Verdict], str]] = {
    "by renderer": lambda v: v.renderer,
    "by codec": lambda v: v.writer,
    "by palette": lambda v: v.video.palette,
    "by background": lambda v: v.video.background,
    "by noise": lambda v: f"{v.video.noise:g}",
    "by size": lambda v: f"{v.video.width}x{v.video.height}",
    "by number of shapes": lambda v: str(len(v.video.actors)),
    "by kind of question": lambda v: v.exchange.kind,
    "in all": lambda _: "all",
}


if __name__ == "__main__":
    main()
