"""The benchmarks of `docs/benchmarks.md` with clips that `tiny` can answer, in each layout.

Each set has clips that are there, one that is missing and one that cannot be decoded.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny.clear_videos import VIDEOS
from tests.tiny.renderers import all_times, draw, save

CLIPS = tuple(VIDEOS[number] for number in (0, 3, 8))  # circles of three colours
MISSING, DAMAGED = len(CLIPS), len(CLIPS) + 1  # numbers of videos
_VIDEOS = len(CLIPS) + 2

# in two phrasings
_COLOUR = ("What colour is the circle?", "What color is the circle?")
_COUNT = ("How many shapes are there?", "How many objects are in the video?")
_WRONG = ("two", "three", "four", "five", "six")  # one for each video, so that no cases are equal


@dataclass(frozen=True)
class Layout:
    """How a benchmark names its files.

    Attributes:
        questions: The file of questions.
        videos: The folder of clips.
        video_name: The name of a video in the questions, with its number to be filled in.
        file: The name of its file.
        output: The `--output-format` that the official scripts read.
        fields: The names of the questions of an entry.
    """

    questions: str
    videos: str
    video_name: str
    file: str
    output: str
    fields: tuple[str, ...]


def _zero_shot(name: str, video_name: str, file: str) -> Layout:
    folder = f"GPT_Zero_Shot_QA/{name}_Zero_Shot_QA"
    where = (f"{folder}/test_q.json", f"{folder}/videos")
    return Layout(*where, video_name, file, "qa-lines", ("question",))


def _generative(name: str, output: str, *fields: str) -> Layout:
    where = (f"Video-ChatGPT/{name}_qa.json", "Video-ChatGPT/Test_Videos")
    return Layout(*where, "v_{:011}", "v_{:011}.mp4", output, fields)


LAYOUTS = {
    "MSVD-QA": _zero_shot("MSVD", "vid{}_0_5", "vid{}_0_5.avi"),
    "MSRVTT-QA": _zero_shot("MSRVTT", "video{}", "video{}.mp4"),
    "TGIF-QA": _zero_shot("TGIF", "tumblr_{}o1_250", "tumblr_{}o1_250.mp4"),
    "ActivityNet-QA": _zero_shot("Activitynet", "{:011}", "v_{:011}.mkv"),
    "generic": _generative("generic", "generic-lines", "Q"),
    "temporal": _generative("temporal", "generic-lines", "Q"),
    "consistency": _generative("consistency", "consistency-lines", "Q1", "Q2"),
}
ZERO_SHOT = tuple(LAYOUTS)[:4]
GENERATIVE = tuple(LAYOUTS)[4:]

QUESTIONS = 2 * _VIDEOS
"""Questions of a set; for consistency, of pairs."""

ANSWERED = 2 * len(CLIPS)


def predictions(number: int) -> tuple[str, str]:
    """What `tiny` answers to the questions about a clip: its colour, and how many shapes."""
    return f"{CLIPS[number].actors[0].colour.capitalize()}.", "One."


def make_set(name: str, folder: Path, clips: list[Path]) -> None:
    """Write the questions, right answers and clips of a set into a folder."""
    layout = LAYOUTS[name]
    videos = folder / layout.videos
    videos.mkdir(parents=True, exist_ok=True)
    for number in range(_VIDEOS):
        file = videos / layout.file.format(number)
        if number < len(clips):
            shutil.copy(clips[number], file)  # a container is recognized by its content
        elif number == DAMAGED:
            file.write_bytes(clips[0].read_bytes()[:600])
    entries = list(_entries(name))
    path = folder / layout.questions
    if name in GENERATIVE:
        path.write_text(json.dumps(entries))
        return
    answers = [{"answer": entry.pop("answer")} for entry in entries]
    if name != "TGIF-QA":  # which is joined by position; the others by id, in another order
        for answer, entry in zip(answers, entries, strict=True):
            answer["question_id"] = entry["question_id"]
        answers.reverse()
    path.write_text(json.dumps(entries))
    path.with_name("test_a.json").write_text(json.dumps(answers))


def _entries(name: str) -> Iterator[dict[str, Any]]:
    fields = LAYOUTS[name].fields
    for number in range(_VIDEOS):
        video = LAYOUTS[name].video_name.format(number)
        right = CLIPS[number].actors[0].colour if number < len(CLIPS) else "red"
        for part, (asked, answer) in enumerate(((_COLOUR, right), (_COUNT, _WRONG[number]))):
            entry = {"video_name": video, **dict(zip(fields, asked, strict=False))}
            if name in GENERATIVE:
                yield entry | {"A": answer}
                continue
            # ids are numbers in some releases, strings in others
            key = 2 * number + part if name == "MSVD-QA" else f"{video}_{part}"
            yield entry | {"question_id": key, "answer": answer}


def draw_clips(folder: Path) -> list[Path]:
    """Draw the clips that can be answered."""
    rng = np.random.default_rng(0)
    return [
        save(draw(video, "pillow", all_times(video), rng), video, "libx264", folder / str(number))
        for number, video in enumerate(CLIPS)
    ]
