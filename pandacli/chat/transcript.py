"""Conversations as JSON and Markdown, and the last hundred of them saved in the state folder."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, get_args, get_type_hints

import platformdirs

from pandacli.chat.conversation import Turn
from pandacli.errors import ClipError, UsageError
from pandacli.file_io import atomic_write_text, read_object
from pandacli.inference.spec import Choice, Scores
from pandacli.video.clip import format_time, is_moment

FORMAT = 1  # of the JSON; incremented when older programs cannot read newer files
MAX_SAVED = 100  # conversations in the state folder

_KEYS = ("video", "from", "to", "frames", "model", "system", "turns")  # fields of `Transcript`
_TURN_KEYS = ("question", "answer", "finish_reason")
_MAX_FRAMES = 1 << 20
_FINISH_REASONS = get_args(get_type_hints(Turn)["finish_reason"])


@dataclass(frozen=True)
class Transcript:
    """A conversation and what it was about."""

    video: str
    start: float | None  # of the range, in seconds; None for the beginning
    end: float | None
    frames: int  # that the model was shown
    model: str  # name or folder
    system: str | None  # None for the model's own
    turns: tuple[Turn, ...]

    def to_json(self) -> str:
        turns = [
            {key: getattr(turn, key) for key in _TURN_KEYS}
            | (turn.scores.record if turn.scores else {})
            for turn in self.turns
        ]
        fields = dict(zip(_KEYS, vars(self).values(), strict=True))
        return json.dumps({"format": FORMAT, **fields, "turns": turns}, indent=2) + "\n"

    def to_markdown(self) -> str:
        """Format with questions as quotes and answers below them."""
        start = format_time(self.start or 0.0)
        end = "the end" if self.end is None else format_time(self.end)
        part = "" if self.start is None and self.end is None else f", {start} to {end}"
        lines = [f"# {Path(self.video).name}{part}", "", f"Answers by {self.model}."]
        for turn in self.turns:
            lines += [
                "",
                *(f"> {line}".rstrip() for line in turn.question.splitlines()),
                "",
                turn.answer,
            ]
            if turn.finish_reason == "interrupted":
                lines += ["", "*(interrupted)*"]
            if turn.scores:
                lines += [""]
                lines += [f"- {c.probability:.1%} {c.text}" for c in turn.scores.choices]
        # a file name that is not UTF-8 must not prevent saving
        return "\n".join(lines).encode("utf-8", "backslashreplace").decode() + "\n"


_FORMATS = {".json": Transcript.to_json, ".md": Transcript.to_markdown}


def write_transcript(transcript: Transcript, path: Path) -> None:
    """Write atomically, as JSON or Markdown by the extension; a UsageError if that fails."""
    to_text = _FORMATS[check_transcript_path(path)]
    try:
        atomic_write_text(path, to_text(transcript))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def check_transcript_path(path: Path) -> str:
    """Return the extension, .json or .md; a UsageError for another."""
    extension = path.suffix.lower()
    if extension not in _FORMATS:
        raise UsageError(f"{path} ends neither in .json nor in .md", "for example: talk.md")
    return extension


def read_transcript(path: Path) -> Transcript:
    """Load a conversation saved as JSON; a ClipError for any other file."""
    try:
        record = read_object(path)
        if record["format"] != FORMAT:
            raise ClipError(f"{path} was saved by a newer version of panda", "update panda")
        if not isinstance(turns := record["turns"], list):
            raise TypeError("turns are a list")
        record["turns"] = tuple(map(_read_turn, turns))
        transcript = Transcript(*(record[key] for key in _KEYS))
        _check(transcript)
        return transcript
    except OSError as error:
        raise ClipError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        hint = "in a chat, /save talk.json makes one"
        raise ClipError(f"{path} is not a saved conversation, or damaged", hint) from error


def _read_turn(record: dict[str, Any]) -> Turn:
    turn = Turn(*(record[key] for key in _TURN_KEYS))
    if "choices" not in record:
        return turn
    choices = tuple(
        Choice(str(choice["text"]), float(choice["logprob"]), float(choice["probability"]))
        for choice in record["choices"]
    )
    if not choices or not all(0 <= choice.probability <= 1 for choice in choices):
        raise ValueError("not the probabilities of choices")
    return replace(turn, scores=Scores(turn.question, choices, float(record["coverage"])))


def _check(read: Transcript) -> None:
    """Raise a TypeError for a value that JSON can hold and a transcript cannot."""
    texts = [text for turn in read.turns for text in (turn.question, turn.answer)]
    times = [time for time in (read.start, read.end) if time is not None]
    if not (
        all(isinstance(text, str) for text in (read.video, read.model, *texts))
        and isinstance(read.system, str | None)
        and all(type(time) in (int, float) and is_moment(time) for time in times)
        and type(read.frames) is int
        and 0 < read.frames < _MAX_FRAMES
        and all(turn.finish_reason in _FINISH_REASONS for turn in read.turns)
    ):
        raise TypeError("a value of a wrong type")


def state_folder() -> Path:
    """Create and return the private state folder, on Linux `~/.local/state/panda`."""
    folder = platformdirs.user_state_path("panda")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def new_conversation() -> Path:
    """Return a path for a new conversation, and delete the oldest; may raise an OSError."""
    folder = state_folder() / "conversations"
    folder.mkdir(mode=0o700, exist_ok=True)
    for old in _newest_first(folder)[MAX_SAVED - 1 :]:
        with suppress(OSError):  # another process may have deleted it
            old.unlink()
    return folder / f"{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}.json"


def last_conversation() -> Path | None:
    folder = platformdirs.user_state_path("panda") / "conversations"
    return next(iter(_newest_first(folder)), None)


def _newest_first(folder: Path) -> list[Path]:
    found = []
    for path in folder.glob("*.json"):
        with suppress(OSError):  # deleted meanwhile
            if path.is_file():
                found.append((path.stat().st_mtime, path))
    return [path for _, path in sorted(found, reverse=True)]
