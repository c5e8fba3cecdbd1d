"""What `panda doctor` checks: named facts; the exception of a check becomes its fact's problem."""

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
    name: str
    value: Value = None
    problem: str | None = None  # what is wrong, in words


@dataclass(frozen=True)
class Section:
    title: str
    facts: list[Fact]


def find(name: str, read: Callable[[], Value | Fact]) -> Fact:
    """Return the fact that `read` returns; one with a problem if it raises."""
    try:
        found = read()
    except Exception as error:
        return _failure(name, error)
    return found if isinstance(found, Fact) else Fact(name, found)


def find_all(name: str, read: Callable[[], Iterable[Fact]]) -> list[Fact]:
    """Return the facts that `read` yields, and one with a problem if it raises on the way."""
    found = []
    try:
        for fact in read():
            found.append(fact)
    except Exception as error:
        found.append(_failure(name, error))
    return found


def _failure(name: str, error: Exception) -> Fact:
    if isinstance(error, PandaError):
        return Fact(name, problem=error.message)
    words = " ".join(str(error).split())
    return Fact(name, problem=f"{type(error).__name__}: {words}".removesuffix(": "))


def examine(
    shown_variables: Container[str],  # whose values may be shown, as they are options
    others: Sequence[Section] = (),  # placed before the last section
) -> list[Section]:
    """Check this installation and machine; takes seconds."""
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
