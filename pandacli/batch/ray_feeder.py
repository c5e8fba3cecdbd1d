"""The thread that keeps the board of a run on Ray supplied, and hears from it."""

import pickle
from collections.abc import Iterable
from threading import Event, Semaphore, Thread
from typing import Any

from pandacli.batch.shares import Share

_LOOK_EVERY = 0.2  # seconds


class Feeder(Thread):
    """Pins shares to a board, a few more than are being dealt with, so that few are held.

    Args:
        ray: Ray's module.
        board: The actor.
        shares: All that is to be done; read as there is room.
        stopped: Once set, nothing is begun any more; the board is told.
        ahead: How many shares may be out.

    Attributes:
        out: The shares that are out, by their numbers; whoever has written one takes it out.
        under_way: The numbers of those that were being answered, a moment ago.
        room: To be released where one is taken out.
        error: What went wrong.
    """

    def __init__(
        self, ray: Any, board: Any, shares: Iterable[Share], stopped: Event, ahead: int
    ) -> None:
        super().__init__(name="feeder", daemon=True)
        self._ray, self._board, self._shares = ray, board, shares
        self._stopped, self._told = stopped, False
        self._over = Event()
        self.out: dict[int, Share] = {}
        self.under_way: list[int] = []
        self.room = Semaphore(ahead)
        self.error: Exception | None = None

    def run(self) -> None:
        """Feed until all is out, and listen until the end."""
        try:
            for number, share in enumerate(self._shares):
                if not self._wait_for_room():
                    break
                self.out[number] = share
                self._ray.get(self._board.pin.remote(pickle.dumps(share.questions)))
        except Exception as error:
            self.error = error
        try:
            self._ray.get(self._board.complete.remote())
            while not self._over.wait(_LOOK_EVERY):
                self._look()
        except self._ray.exceptions.RayError as error:  # the run itself hears of it, too
            self.error = self.error or error

    def end(self) -> None:
        """Have it end, and wait for that."""
        self._over.set()
        self.join()

    def _wait_for_room(self) -> bool:
        """Whether there was any before the run came to its end."""
        while not self.room.acquire(timeout=_LOOK_EVERY):
            self._look()
            if self._over.is_set():
                return False
        return not self._stopped.is_set()

    def _look(self) -> None:
        if self._stopped.is_set() and not self._told:
            self._told = True
            self._ray.get(self._board.stop.remote())
        self.under_way = self._ray.get(self._board.under_way.remote())
