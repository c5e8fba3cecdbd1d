"""Every error that a user can cause, each with the exit code it ends the program with.

    PandaError            1
    ├── UsageError        2   wrong arguments
    ├── ClipError         3   the video, or the file of questions, cannot be used
    ├── ModelError        4   the model is missing, damaged or cannot be downloaded
    └── DeviceError       5   out of memory, or the device is not there

`pandacli.cli` prints message, hint and command on a line each.
"""


class PandaError(Exception):
    """Base of all errors a user can cause."""

    exit_code = 1

    def __init__(
        self,
        message: str,  # what is wrong, in one line without a full stop
        hint: str | None = None,  # what to do about it, in one line
        *,
        command: str | None = None,  # a command line that does it, printed unwrapped
    ) -> None:
        super().__init__(message)
        self.message, self.hint, self.command = message, hint, command


class UsageError(PandaError):
    """Wrong arguments, found before anything slow happens."""

    exit_code = 2


class ClipError(PandaError):
    """A video, or a file of questions, that cannot be used."""

    exit_code = 3


class ModelError(PandaError):
    """A model that is missing, damaged, of a foreign format or cannot be downloaded."""

    exit_code = 4


class DeviceError(PandaError):
    """Out of memory, or a device that is not there."""

    exit_code = 5
