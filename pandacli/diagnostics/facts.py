"""What an examination finds: named facts, each a value, a problem, or both.

Nothing here may fail: whatever goes wrong while a fact is being found becomes its problem.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pandacli.errors import PandaError

Value = str | int | float | bool | list[str] | dict[str, Any] | None


class Bytes(int):
    """An amount of memory or disk, which people read in MB and GB."""


@dataclass(frozen=True)
class Fact:
    """Something found.

    Attributes:
        name: What it is about.
        value: What was found, as JSON has it; amounts of memory are `Bytes`.
        problem: What is wrong, in words; None where nothing is.
    """

    name: str
    value: Value = None
    problem: str | None = None


@dataclass(frozen=True)
class Section:
    """Facts that belong together, under a title."""

    title: str
    facts: list[Fact]


def find(name: str, read: Callable[[], Value | Fact]) -> Fact:
    """The fact that `read` returns, or one under `name` that says why there is none."""
    try:
        found = read()
    except Exception as error:
        return Fact(name, problem=_words(error))
    return found if isinstance(found, Fact) else Fact(name, found)


def find_all(name: str, read: Callable[[], Iterable[Fact]]) -> list[Fact]:
    """The facts that `read` yields, and where it fails on the way one under `name` that says so."""
    found = []
    try:
        for fact in read():
            found.append(fact)
    except Exception as error:
        found.append(Fact(name, problem=_words(error)))
    return found


def _words(error: Exception) -> str:
    if isinstance(error, PandaError):
        return error.message
    text = " ".join(str(error).split())
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind
