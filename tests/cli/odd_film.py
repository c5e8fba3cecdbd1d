"""`panda` on a film that is damaged, or that Ctrl-C interrupts, at one of its windows.

DAMAGED       number of the window that cannot be read
INTERRUPTED   number of the window at which SIGINT arrives
"""

import os
import signal
from collections.abc import Iterable, Iterator
from typing import Any

from pandacli.cli import main
from pandacli.errors import ClipError
from pandacli.video.windows import FilmReader, Span

_read = FilmReader.read


def _read_oddly(self: FilmReader, spans: Iterable[Span]) -> Iterator[tuple[Span, Any]]:
    for number, (span, frames) in enumerate(_read(self, spans)):
        if str(number) == os.environ.get("INTERRUPTED"):
            os.kill(os.getpid(), signal.SIGINT)
        damaged = str(number) == os.environ.get("DAMAGED")
        yield span, ClipError("film.mp4 cannot be decoded there") if damaged else frames


if __name__ == "__main__":
    FilmReader.read = _read_oddly  # type: ignore[method-assign]
    main()
