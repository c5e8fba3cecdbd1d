"""Answers as they come, for another program: there is nothing to go on from."""

from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from pandacli.batch.log import encoded
from pandacli.errors import ClipError


class ResultsStream:
    """Answers for a pipe, one JSON object a line.

    Args:
        stream: Where they go.

    Attributes:
        done: Nothing has been answered earlier.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.done: NDArray[np.uint64] = np.zeros(0, np.uint64)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leaves the stream open; it is not ours."""

    def write(self, line: dict[str, Any]) -> None:
        """Send one line.

        Raises:
            BrokenPipeError: Nobody reads any more.
            ClipError: It cannot be written.
        """
        try:
            self._stream.write(encoded(line))
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ClipError(f"cannot write the answers: {error.strerror}") from error

    def sync(self) -> None:
        """All is sent already."""
