"""All that `panda doctor` looks at."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pandacli.engine.environment import environment
from pandacli.engine.facts import Section
from pandacli.engine.machine import machine
from pandacli.engine.software import engines, ready, software
from pandacli.engine.storage import storage
from pandacli.engine.suggestion import suggestion


def examine(others: Sequence[Section] = ()) -> list[Section]:
    """The state of this installation and machine; it takes seconds and never fails.

    Args:
        others: Findings of the caller, shown before the last section, which is the suggestion.
    """
    with _silence():
        can_compute = engines()
        return [
            software(),
            *machine(),
            can_compute,
            storage(),
            environment(),
            *others,
            suggestion(ready(can_compute)),
        ]


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what libraries log while they are imported off stderr."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)
