"""Replies of a judge: what they say, and the file of JSON lines that keeps them.

A reply is on the disk before it counts, so that a run can be resumed after anything. It is found
again by the digest of the model, the messages and the sampling settings.
"""

import ast
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from pandacli.errors import UsageError

MATCH = "match"
ASPECTS = ("correctness", "detail", "context", "temporal", "consistency")
TASKS = (MATCH, *ASPECTS)
"""What a judge decides: whether a short answer is right, or how good a long one is in an aspect."""

HIGHEST = 5
"""The best score of a judge; the lowest is 0."""

_BEGIN = b'{"digest": "'  # of a line in the file
_PAIR = re.compile(r"\b(pred|score)\b\W{1,6}(yes|no|true|false|\d+(?:\.\d+)?)\b")
_NUMBER = re.compile(r"\s*(\d{1,3}(?:\.\d*)?)\s*(?:(?:/|out of)\s*5)?\s*")


@dataclass(frozen=True)
class Verdict:
    """A reply that could be read.

    Attributes:
        score: From 0 to 5.
        match: Whether the prediction is right; None for an aspect.
    """

    score: int
    match: bool | None = None


def read_reply(text: str, task: str) -> Verdict | None:
    """The verdict in a reply; None where it cannot be read.

    The last dictionary of JSON or Python with a score in it counts, or else the last `pred: yes`
    and `score: 4` in plain text. A fraction of a point is dropped.
    """
    said = _dictionary(text) or dict(_PAIR.findall(text.casefold()))
    score = _score(said.get("score"))
    if score is None or task != MATCH:
        return None if score is None else Verdict(score)
    word = re.match(r"\W*(yes|no|true|false)\b", str(said.get("pred")).casefold())
    return Verdict(score, word[1] in ("yes", "true")) if word else None


def _dictionary(text: str) -> dict[str, Any]:
    """The last dictionary with a score in a text, without those in it."""
    found: dict[str, Any] = {}
    for candidate in re.findall(r"\{(?:[^{}]|\{[^{}]*\})*\}", text):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(candidate)
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                continue
            if isinstance(value, dict):
                folded = {str(key).casefold(): each for key, each in value.items()}
                found = folded if "score" in folded else found
                break
    return found


def _score(value: Any) -> int | None:
    """A score such as 4, 4.5, "4" or "4/5"; None for another value."""
    number = _NUMBER.fullmatch(str(value)) if isinstance(value, str | int | float) else None
    is_score = number is not None and float(number[1]) <= HIGHEST
    return int(float(number[1])) if number and is_score else None


@dataclass(frozen=True)
class Reply:
    """What a judge said, and what its endpoint calls the model."""

    reply: str
    model: str


class Replies:
    """The replies of judges in a file of JSON lines; a context manager that holds its lock.

    Args:
        path: The file; it is created.

    Raises:
        UsageError: Another run writes it, it is another kind of file, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, list[Reply]] = {}
        self._lock = FileLock(path.with_name(path.name + ".lock"), timeout=0)

    def __enter__(self) -> Self:
        try:
            self._lock.acquire()
        except Timeout as error:
            raise UsageError(f"{self.path} is being written by another run of panda") from error
        except OSError as error:
            raise self._failed(error) from error
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def of(self, digest: str) -> list[Reply]:
        """The replies to a request, in order."""
        return self._lines.setdefault(digest, [])

    def add(self, digest: str, task: str, reply: Reply) -> None:
        """Write a reply; it is on the disk when this returns.

        Raises:
            UsageError: It cannot be written.
        """
        self.of(digest).append(reply)
        try:
            line = {"digest": digest, "task": task, **asdict(reply)}
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from error

    def _open(self) -> None:
        whole = 0
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
            for raw in content.splitlines(keepends=True):
                line = _parsed(raw)
                if line is not None and raw.endswith(b"\n"):
                    self.of(line["digest"]).append(Reply(line["reply"], line["model"]))
                    whole += len(raw)
                elif raw.startswith(_BEGIN[: len(raw)]) and not raw.endswith(b"\n"):
                    break  # torn by a kill
                else:
                    message = f"{self.path} is not a file of judge replies"
                    raise UsageError(message, "name another: --judge-replies")
            self._file = self.path.open("a", encoding="utf-8")
            self._file.truncate(whole)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> UsageError:
        message = f"cannot write the judge's replies to {self.path}: {error.strerror}"
        return UsageError(message, "name another file: --judge-replies")


def _parsed(raw: bytes) -> dict[str, str] | None:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    names = ("digest", "task", "reply", "model")
    held = isinstance(line, dict) and all(isinstance(line.get(name), str) for name in names)
    return line if held else None
