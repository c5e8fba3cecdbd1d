"""A conversation on paper: what it is about and what was said, as JSON and as Markdown.

Where conversations are kept: in the state folder of the platform, one file each.

The newest hundred stay. The folder is for its owner only, as what is said is private.
"""

import json
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, get_args, get_type_hints

import platformdirs

from pandacli.chat.conversation import Turn
from pandacli.errors import ClipError, UsageError
from pandacli.file_io import atomic_write_text, read_object
from pandacli.video.clip import format_time

FORMAT = 1
"""Version of the JSON; it grows when older programs cannot read a newer file."""

_LAST_MOMENT = 1e9  # seconds
_MOST_FRAMES = 1 << 20
_REASONS = get_args(get_type_hints(Turn)["finish_reason"])


@dataclass(frozen=True)
class Transcript:
    """What a conversation was about, and its turns.

    Attributes:
        video: The file.
        start: First moment asked about, in seconds; None for the beginning.
        end: Where the range stops, in seconds; None for the end.
        frames: How many frames the model was shown.
        model: The name or the folder of the model.
        system: The system prompt; None for the one that the model was trained with.
        turns: What was said.
    """

    video: str
    start: float | None
    end: float | None
    frames: int
    model: str
    system: str | None
    turns: tuple[Turn, ...]

    def to_json(self) -> str:
        """The conversation for `read_transcript`, as pure ASCII."""
        record = {
            "format": FORMAT,
            "video": self.video,
            "from": self.start,
            "to": self.end,
            "frames": self.frames,
            "model": self.model,
            "system": self.system,
            "turns": [
                {"question": t.question, "answer": t.answer, "finish_reason": t.finish_reason}
                for t in self.turns
            ],
        }
        return json.dumps(record, indent=2) + "\n"

    def to_markdown(self) -> str:
        """The conversation for people: questions as quotes, answers under them."""
        start = format_time(self.start or 0.0)
        end = "the end" if self.end is None else format_time(self.end)
        part = "" if self.start is None and self.end is None else f", {start} to {end}"
        lines = [f"# {Path(self.video).name}{part}", "", f"Answers by {self.model}."]
        for turn in self.turns:
            lines += ["", *(f"> {line}".rstrip() for line in turn.question.splitlines()), ""]
            lines.append(turn.answer)
            if turn.finish_reason == "interrupted":
                lines += ["", "*(interrupted)*"]
        # as in to_json, a name or a text that is no Unicode must not keep a file from being saved
        return "\n".join(lines).encode("utf-8", "backslashreplace").decode() + "\n"


_FORMS = {".json": Transcript.to_json, ".md": Transcript.to_markdown}


def write_transcript(transcript: Transcript, path: Path) -> None:
    """Save a conversation in the form that the file's name asks for: .json or .md.

    The file is there once it is whole; one of that name is replaced.

    Raises:
        UsageError: The name ends otherwise, or the file cannot be written.
    """
    form = _FORMS[check_transcript_path(path)]
    try:
        atomic_write_text(path, form(transcript))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def check_transcript_path(path: Path) -> str:
    """The form that a file's name asks for: ".json" or ".md".

    Raises:
        UsageError: The name ends otherwise.
    """
    form = path.suffix.lower()
    if form not in _FORMS:
        raise UsageError(f"{path} ends neither in .json nor in .md", "for example: talk.md")
    return form


def read_transcript(path: Path) -> Transcript:
    """The conversation that was saved as JSON.

    Raises:
        ClipError: The file cannot be read, or is no saved conversation.
    """
    try:
        record = read_object(path)
    except OSError as error:
        raise ClipError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        hint = "in a chat, /save talk.json makes one"
        raise ClipError(f"{path} is not a saved conversation", hint) from error
    try:
        if record["format"] != FORMAT:
            raise ClipError(f"{path} was saved by a newer version of panda", "update panda")
        return Transcript(
            video=_typed(record["video"], str),
            start=_moment(record["from"]),
            end=_moment(record["to"]),
            frames=_frames(record["frames"]),
            model=_typed(record["model"], str),
            system=_typed(record["system"], str, type(None)),
            turns=tuple(map(_turn, _typed(record["turns"], list))),
        )
    except (KeyError, TypeError) as error:
        hint = "in a chat, /save talk.json makes one"
        raise ClipError(f"{path} is not a saved conversation, or damaged", hint) from error


def _turn(record: dict[str, Any]) -> Turn:
    reason = record["finish_reason"]
    if reason not in _REASONS:
        raise TypeError
    return Turn(_typed(record["question"], str), _typed(record["answer"], str), reason)


def _frames(value: Any) -> int:
    frames: int = _typed(value, int)
    if not 0 < frames < _MOST_FRAMES:
        raise TypeError
    return frames


def _moment(value: Any) -> float | None:
    moment: float | None = _typed(value, int, float, type(None))
    if moment is not None and not 0 <= moment < _LAST_MOMENT:  # 1e999 is infinity
        raise TypeError
    return moment


def _typed(value: Any, *types: type) -> Any:
    if not isinstance(value, types) or isinstance(value, bool):
        raise TypeError
    return value


KEPT = 100
"""How many conversations are kept."""


def state_folder() -> Path:
    """The folder for what panda remembers of its use, on Linux `~/.local/state/panda`.

    Raises:
        OSError: It is not there and cannot be made.
    """
    folder = platformdirs.user_state_path("panda")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def new_conversation() -> Path:
    """A name for the file of a conversation that begins now; the oldest ones make room.

    Raises:
        OSError: The folder cannot be made.
    """
    folder = state_folder() / "conversations"
    folder.mkdir(mode=0o700, exist_ok=True)
    for old in _newest_first(folder)[KEPT - 1 :]:
        with suppress(OSError):  # another chat has made room just now, or it is a folder
            old.unlink()
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(path for each in names if not (path := folder / f"{each}.json").exists())


def last_conversation() -> Path | None:
    """The file of the conversation that was spoken in last, if there is one."""
    folder = platformdirs.user_state_path("panda") / "conversations"
    return next(iter(_newest_first(folder)), None)


def _newest_first(folder: Path) -> list[Path]:
    found = ((_written(path), path) for path in folder.glob("*.json"))
    return [path for moment, path in sorted(found, reverse=True) if moment >= 0]


def _written(path: Path) -> float:
    """When a conversation was last written; -1 for what is no regular file."""
    try:
        status = path.stat()
    except OSError:  # another chat has made room just now, or the link leads nowhere
        return -1.0
    return status.st_mtime if stat.S_ISREG(status.st_mode) else -1.0
