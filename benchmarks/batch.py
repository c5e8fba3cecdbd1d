"""Answers per second in a batch and one by one: `python -m benchmarks.batch MODEL`.

    python -m benchmarks.batch tiny
    python -m benchmarks.batch FOLDER --tokens 8 --one-by-one 20    # a larger model

Twenty clips with 25 questions each, the ratio of MSVD-QA, in random order. One by one is
`Panda.ask` with the model loaded: frames, prefix and question each time. The batch is a run of
`panda batch` from the index to the last line on the disk, with the model loaded too. Both get the
same questions, and their answers must be equal.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pandacli import Panda
from pandacli.batch.clip_worker import Settings
from pandacli.batch.job import Batch, Job
from pandacli.inference.spec import GenerationOptions, RunSpec
from training.drawing import write_clip
from training.questions import QUESTION_KINDS, random_dialogue
from training.scenes import random_scene

_SIZE = (320, 240)  # that of most clips of MSVD
_SECONDS = 10.0
_KINDS = [kind for kind in QUESTION_KINDS if kind != "follow-up"]

Row = dict[str, str]


def write_questions(folder: Path, clips: int, questions: int) -> list[Row]:
    """Draw clips, and write `questions.jsonl` with questions about each."""
    rows: list[Row] = []
    for number in range(clips):
        rng = np.random.default_rng(number)
        scene = random_scene(rng, width=_SIZE[0], height=_SIZE[1], longest=_SECONDS)
        video = f"{number}.mp4"
        write_clip(scene, folder / video, rng)
        kinds = (_KINDS[turn % len(_KINDS)] for turn in range(questions))
        asked = (random_dialogue(scene, kind, rng).turns[0][0] for kind in kinds)
        rows += [{"video": video, "question": question} for question in asked]
    random.Random(0).shuffle(rows)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "questions.jsonl").write_text(lines)
    return rows


def ask_one_by_one(panda: Panda, folder: Path, rows: Sequence[Row], tokens: int) -> list[str]:
    """The answers to questions asked one at a time."""
    return [
        panda.ask(folder / row["video"], row["question"], max_tokens=tokens).text for row in rows
    ]


def ask_in_batch(panda: Panda, folder: Path, settings: Settings) -> Iterator[dict[str, Any]]:
    """The results of a new run."""
    answers = folder / "answers.jsonl"
    answers.unlink(missing_ok=True)
    with Batch(Job(str(folder / "questions.jsonl"), settings, output=str(answers))) as batch:
        for outcome in batch.plan().outcomes(lambda: panda):
            yield outcome.written


def measure(panda: Panda, wanted: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Ask both ways, in turns, and compare."""
    rows = write_questions(folder, wanted.clips, wanted.questions)
    few = rows if wanted.one_by_one is None else rows[: wanted.one_by_one]
    options = GenerationOptions(max_tokens=wanted.tokens)
    settings = Settings(RunSpec(wanted.model, wanted.quant), options)
    rates: dict[str, list[float]] = {"one by one": [], "batch": []}
    differing = 0
    for _ in range(wanted.repeats):
        started = perf_counter()
        alone = ask_one_by_one(panda, folder, few, wanted.tokens)
        rates["one by one"].append(len(few) / (perf_counter() - started))
        started = perf_counter()
        lines = list(ask_in_batch(panda, folder, settings))
        rates["batch"].append(len(rows) / (perf_counter() - started))
        together = {(line["video"], line["question"]): line.get("answer") for line in lines}
        pairs = zip(few, alone, strict=True)
        differing += sum(together[row["video"], row["question"]] != text for row, text in pairs)
    return {
        "model": wanted.model,
        "quant": panda.quant,
        "engine": panda.engine,
        "questions": len(rows),
        "asked_one_by_one": len(few),
        "answers_per_second": {way: median(found) for way, found in rates.items()},
        "ratio": median(
            batch / one for one, batch in zip(rates["one by one"], rates["batch"], strict=True)
        ),
        "compared": len(few) * wanted.repeats,
        "differing": differing,
    }


def table_of(found: dict[str, Any]) -> Table:
    """A row for each way of asking."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for heading in ("", "answers/s", "ratio"):
        table.add_column(heading, justify="right")
    rates = found["answers_per_second"]
    table.add_row("one by one", f"{rates['one by one']:.3g}", "x1")
    table.add_row("batch", f"{rates['batch']:.3g}", f"x{found['ratio']:.1f}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help="a model's name, or a checkpoint folder")
    parser.add_argument("--quant", default="none")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--questions", type=int, default=25, help="about each clip")
    parser.add_argument("--one-by-one", type=int, help="of all questions; default: every one")
    parser.add_argument("--tokens", type=int, default=32, help="the most of an answer")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    panda = Panda.load(wanted.model, quant=wanted.quant, device=wanted.device)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(panda, wanted, Path(folder))
    if wanted.json:
        print(json.dumps(found, indent=2))
        return
    Console().print(table_of(found))
    same = found["compared"] - found["differing"]
    print(f"{same} of {found['compared']} answers are the same both ways")


if __name__ == "__main__":
    main()
