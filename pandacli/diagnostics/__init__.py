"""All that `panda doctor` looks at."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pandacli.diagnostics.facts import Section
from pandacli.diagnostics.machine import machine_facts
from pandacli.diagnostics.software import engines, environment, ready, software_facts
from pandacli.diagnostics.storage import storage_facts, suggestion


def examine(others: Sequence[Section] = ()) -> list[Section]:
    """The state of this installation and machine; it takes seconds and never fails.

    Args:
        others: Findings of the caller, shown before the last section, which is the suggestion.
    """
    with _silence():
        can_compute = engines()
        return [
            software_facts(),
            *machine_facts(),
            can_compute,
            storage_facts(),
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
