"""Evaluate `tiny` on held-out clips: `python -m training.evaluate`.

Clips are rendered and encoded to files; `panda batch` answers their questions and `panda eval`
prints exact match by kind of question. A record of a batch is one question without earlier turns,
so follow-ups are asked through `pandacli.Panda`; they are scored with the rest.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from rich.console import Console
from rich.progress import track

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


_PANDA = (sys.executable, "-m", "pandacli")


def main() -> None:
    """Parse the command line, render, ask, print the tables of `panda eval`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny", help="name or folder of the model")
    parser.add_argument("--questions", type=int, default=552)
    parser.add_argument("--per-clip", type=int, default=5, help="questions per clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep clips, questions and answers here")
    options = parser.parse_args()
    kept = nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory()
    with kept as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        dialogues = list(render(folder, options.questions, options.per_clip, options.seed))
        answers = answer(options.model, dialogues, folder)
        raise SystemExit(subprocess.run([*_PANDA, "eval", str(answers)], check=False).returncode)


def render(
    folder: Path, questions: int, per_clip: int, seed: int
) -> Iterator[tuple[Path, Dialogue]]:
    """Render held-out clips into `folder`; yield each question with its clip.

    Args:
        folder: An existing folder.
        questions: Total number of questions, evenly split over the kinds.
        per_clip: Questions per clip.
        seed: Seed of the clips and questions.
    """
    kinds = [QUESTION_KINDS[i % len(QUESTION_KINDS)] for i in range(questions)]
    groups = [kinds[i : i + per_clip] for i in range(0, questions, per_clip)]
    console = Console(stderr=True)
    shown = track(groups, "rendering", console=console, disable=not console.is_terminal)
    for number, group in enumerate(shown):
        rng = np.random.default_rng((_HELD_OUT + seed, number))
        scene, dialogues = scene_for(rng, group)
        codec, suffix = CODECS[int(rng.integers(len(CODECS)))]
        clip = folder / f"{number:03}{suffix}"
        write_clip(scene, clip, rng, codec=codec, quality=int(rng.integers(*_QUALITIES[codec])))
        yield from ((clip, dialogue) for dialogue in dialogues)


def answer(model: str, dialogues: list[tuple[Path, Dialogue]], folder: Path) -> Path:
    """Answer the last question of each dialogue.

    Args:
        model: Name or folder of the model.
        dialogues: As `render` yields them.
        folder: Where files are written; those of an earlier run are replaced.

    Returns:
        A file of answers for `panda eval`, `type` being the kind of question.
    """
    single, answered = folder / "questions.jsonl", folder / "questions.answers.jsonl"
    _write_lines(single, [_record(*each) for each in dialogues if len(each[1].turns) == 1])
    answered.unlink(missing_ok=True)  # it may have other questions, or answers of another model
    batch = [*_PANDA, "batch", str(single), "-o", str(answered), "--model", model]
    if subprocess.run(batch, check=False).returncode not in (0, 1):  # 1: some have no answer
        raise SystemExit("panda batch failed")
    lines = [json.loads(line) for line in answered.read_text().splitlines()]
    panda = Panda.load(model)
    for clip, dialogue in dialogues:
        if len(dialogue.turns) > 1:
            session = panda.open(clip)
            turns: list[tuple[str, str]] = []
            for question, _ in dialogue.turns:
                turns.append((question, session.ask(question, history=turns).text))
            lines.append(_record(clip, dialogue) | {"pred": turns[-1][1]})
    answers = folder / "answers.jsonl"
    _write_lines(answers, lines)
    return answers


def _record(clip: Path, dialogue: Dialogue) -> dict[str, Any]:
    asked = " / ".join(question for question, _ in dialogue.turns)
    right = dialogue.turns[-1][1]
    return {"video": clip.name, "question": asked, "answer": right, "type": dialogue.kind}


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def scene_for(rng: Generator, kinds: list[str]) -> tuple[Scene, list[Dialogue]]:
    """A scene with questions of all these kinds."""
    while True:
        width, height = SIZES[int(rng.integers(len(SIZES)))]
        longest = 20.0 if width * height < 350_000 else 4.0
        scene = random_scene(rng, width=width, height=height, longest=longest)
        dialogues = [random_dialogue(scene, kind, rng) for kind in kinds]
        if [dialogue.kind for dialogue in dialogues] == kinds:
            return scene, dialogues


if __name__ == "__main__":
    main()
