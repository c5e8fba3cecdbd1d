"""Evaluate `tiny` on held-out clips: `python -m training.evaluate`.

Each clip is rendered, encoded to a file and asked about with `panda ask --json`; follow-ups, which
need a conversation, use `pandacli.Panda`. The metric is exact match.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pandacli import Panda
from training.drawing import write_clip
from training.questions import QUESTION_KINDS, Dialogue, random_dialogue
from training.scenes import Scene, random_scene

SIZES = (
    (160, 120),
    (320, 240),
    (640, 480),
    (320, 180),
    (640, 360),
    (854, 480),
    (1280, 720),
    (1920, 1080),
    (480, 480),
    (360, 640),
    (240, 320),
    (720, 304),
)
CODECS = (("libx264", ".mp4"), ("libx264", ".mp4"), ("libvpx-vp9", ".webm"), ("mpeg4", ".avi"))
_QUALITIES = {"libx264": (18, 34), "libvpx-vp9": (25, 45), "mpeg4": (3, 12)}
_HELD_OUT = 2**40  # far from any training seed


@dataclass(frozen=True)
class Verdict:
    """A question with its expected and actual answer."""

    clip: str
    kind: str
    question: str
    expected: str
    answer: str

    @property
    def right(self) -> bool:
        """Whether the answer matches exactly."""
        return self.answer == self.expected


def main() -> None:
    """Parse the command line, evaluate, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny", help="name or folder of the model")
    parser.add_argument("--questions", type=int, default=506)
    parser.add_argument("--per-clip", type=int, default=5, help="questions per clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all verdicts to this file")
    options = parser.parse_args()
    verdicts = list(
        evaluate(options.model, options.questions, options.per_clip, options.seed, show=True)
    )
    Console().print(table(verdicts))
    if options.json:
        options.json.write_text(json.dumps([asdict(v) for v in verdicts], indent=1) + "\n")


def evaluate(
    model: str, questions: int, per_clip: int, seed: int, *, show: bool = False
) -> Iterator[Verdict]:
    """Render held-out clips and ask about them.

    Args:
        model: Name or folder of the model.
        questions: Total number of questions, evenly split over the kinds.
        per_clip: Questions per clip.
        seed: Seed of the clips and questions.
        show: Whether to show a progress bar on stderr.
    """
    kinds = [QUESTION_KINDS[i % len(QUESTION_KINDS)] for i in range(questions)]
    groups = [kinds[i : i + per_clip] for i in range(0, questions, per_clip)]
    panda = Panda.load(model)
    with tempfile.TemporaryDirectory() as folder:
        numbered = list(enumerate(groups))
        console = Console(stderr=True, quiet=not show)
        for number, group in track(numbered, description="asking", console=console):
            rng = np.random.default_rng((_HELD_OUT + seed, number))
            scene, dialogues = scene_for(rng, group)
            codec, suffix = CODECS[int(rng.integers(len(CODECS)))]
            clip = Path(folder) / f"{number:03}{suffix}"
            quality = int(rng.integers(*_QUALITIES[codec]))
            write_clip(scene, clip, rng, codec=codec, quality=quality)
            yield from ask(panda, model, clip, dialogues)
            clip.unlink()


def scene_for(rng: Generator, kinds: list[str]) -> tuple[Scene, list[Dialogue]]:
    """A scene with questions of all these kinds."""
    while True:
        width, height = SIZES[int(rng.integers(len(SIZES)))]
        longest = 20.0 if width * height < 350_000 else 4.0
        scene = random_scene(rng, width=width, height=height, longest=longest)
        dialogues = [random_dialogue(scene, kind, rng) for kind in kinds]
        if [dialogue.kind for dialogue in dialogues] == kinds:
            return scene, dialogues


def ask(panda: Panda, model: str, clip: Path, dialogues: list[Dialogue]) -> Iterator[Verdict]:
    """Ask single questions through the command line, conversations through `Panda`."""
    single = [dialogue for dialogue in dialogues if len(dialogue.turns) == 1]
    if single:
        questions = [dialogue.turns[0][0] for dialogue in single]
        command = [sys.executable, "-m", "pandacli", "ask", str(clip), *questions]
        command += ["--model", model, "--json", "--cache-size", "0"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        answers = json.loads(done.stdout)["answers"]
        for dialogue, answer in zip(single, answers, strict=True):
            question, expected = dialogue.turns[0]
            yield Verdict(clip.name, dialogue.kind, question, expected, answer["answer"])
    for dialogue in dialogues:
        if len(dialogue.turns) > 1:
            loaded = panda.open(clip)
            history: list[tuple[str, str]] = []
            for question, _ in dialogue.turns:
                history.append((question, loaded.ask(question, history=history).text))
            question, expected = dialogue.turns[-1]
            asked = " / ".join(question for question, _ in dialogue.turns)
            yield Verdict(clip.name, dialogue.kind, asked, expected, history[-1][1])


def table(verdicts: list[Verdict]) -> Table:
    """Exact-match accuracy by kind of question and overall."""
    result = Table("kind", "questions", "right", title="tiny, on held-out clips")
    for name in (*QUESTION_KINDS, "all"):
        group = [verdict for verdict in verdicts if name in (verdict.kind, "all")]
        share = sum(verdict.right for verdict in group) / max(1, len(group))
        result.add_row(name, str(len(group)), f"{share:.1%}")
    return result


if __name__ == "__main__":
    main()
