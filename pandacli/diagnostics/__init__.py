"""What `panda doctor` checks: named facts, each with a value, a problem, or both.

No check may fail: an exception becomes the problem of its fact.
"""

import logging
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pandacli.errors import PandaError

Value = str | int | float | bool | list[str] | dict[str, Any] | None


class Bytes(int):
    """An amount of memory or disk, displayed in MB or GB."""


@dataclass(frozen=True)
class Fact:
    """A single finding."""

    name: str
    value: Value = None  # amounts of memory are `Bytes`
    problem: str | None = None  # what is wrong, in words


@dataclass(frozen=True)
class Section:
    """Facts under a title."""

    title: str
    facts: list[Fact]


def find(name: str, read: Callable[[], Value | Fact]) -> Fact:
    """Return the fact that `read` returns; one with a problem if it raises."""
    try:
        found = read()
    except Exception as error:
        return Fact(name, problem=_message(error))
    return found if isinstance(found, Fact) else Fact(name, found)


def find_all(name: str, read: Callable[[], Iterable[Fact]]) -> list[Fact]:
    """Return the facts that `read` yields, and one with a problem if it raises on the way."""
    found = []
    try:
        for fact in read():
            found.append(fact)
    except Exception as error:
        found.append(Fact(name, problem=_message(error)))
    return found


def _message(error: Exception) -> str:
    if isinstance(error, PandaError):
        return error.message
    text = " ".join(str(error).split())
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind


def examine(shown_variables: Container[str], others: Sequence[Section] = ()) -> list[Section]:
    """Check this installation and machine; takes seconds.

    Args:
        shown_variables: The environment variables that are options, whose values may be shown.
        others: Sections of the caller, placed before the last one, which is the suggestion.
    """
    from pandacli.diagnostics.machine import machine_facts
    from pandacli.diagnostics.software import backends, environment, ready, software_facts
    from pandacli.diagnostics.storage import storage_facts, suggestion

    before = logging.root.manager.disable
    logging.disable()  # libraries log while they are imported
    try:
        found = backends()
        parts = [software_facts(), *machine_facts(), found, storage_facts()]
        return [*parts, environment(shown_variables), *others, suggestion(ready(found))]
    finally:
        logging.disable(before)
