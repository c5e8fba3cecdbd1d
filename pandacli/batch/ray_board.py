"""The board of a run on Ray: shares to be taken, which are begun, and whether to go on.

It is an actor on the machine that the run was started on. What the run pins up is taken by the
workers through the feed, in the order of its numbers; nothing here needs Ray to be installed.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any

DEALT_WITH = b""
"""Stands for a share that nobody need look at any more."""


class Board:
    """What a run and its workers have to tell each other; its methods are called from anywhere.

    All of it may be called again with the same numbers, as Ray does when a machine is lost.
    """

    def __init__(self) -> None:
        self._shares: dict[int, bytes] = {}
        self._pinned = 0  # how many there were, so far
        self._complete = False
        self._changed = asyncio.Condition()
        self._begun: Counter[int] = Counter()
        self._stopped = asyncio.Event()

    async def pin(self, share: bytes) -> None:
        """Offer the next share; the numbers count from 0."""
        async with self._changed:
            self._shares[self._pinned] = share
            self._pinned += 1
            self._changed.notify_all()

    async def complete(self) -> None:
        """Say that no share follows."""
        async with self._changed:
            self._complete = True
            self._changed.notify_all()

    async def take(self, number: int) -> bytes | None:
        """A share, once it is there; None if there are not so many."""
        async with self._changed:
            await self._changed.wait_for(lambda: number < self._pinned or self._complete)
            return self._shares.get(number, DEALT_WITH) if number < self._pinned else None

    async def begin(self, number: int) -> int:
        """Note that the answering of a share begins; returns how often it has."""
        self._begun[number] += 1
        return self._begun[number]

    async def under_way(self) -> list[int]:
        """The shares that are begun and not settled."""
        return list(self._begun)

    async def settle(self, number: int) -> None:
        """Forget a share, whose answers are written."""
        self._shares.pop(number, None)
        self._begun.pop(number, None)

    async def stop(self) -> None:
        """Have no question begun any more."""
        self._stopped.set()
        await self.complete()

    async def wait_for_stop(self) -> None:
        """Return when `stop` was called."""
        await self._stopped.wait()


def feed(_: dict[str, Any], board: Any) -> Iterator[dict[str, Any]]:
    """The rows of the data set, one for each share, as they are pinned to the board.

    Args:
        board: The actor.
    """
    import ray

    for number in count():
        share = ray.get(board.take.remote(number))
        if share is None:
            return
        yield {"number": [number], "share": [share]}
