"""Every error that a user can cause, each with the exit code it ends the program with.

    PandaError            1
    ├── UsageError        2   the command was asked for wrongly
    ├── ClipError         3   the video, or the file of questions, cannot be used
    ├── ModelError        4   the model is missing, damaged or cannot be had
    └── DeviceError       5   out of memory, or the device is not there

The message is one line that says what is wrong; `hint`, where there is one, is one line that
says what to do, and `command` a command line that does it. One place (`pandacli.cli`) catches
`PandaError` and prints them, each on a line of its own.
"""


class PandaError(Exception):
    """Base of all errors a user can cause.

    Args:
        message: What is wrong, in one line, without a full stop at the end.
        hint: What to do about it, in one line; None where the message says it all.
        command: A command line to run, which is never broken; None where there is none.
    """

    exit_code = 1

    def __init__(
        self, message: str, hint: str | None = None, *, command: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.command = command


class UsageError(PandaError):
    """Arguments that cannot be right, found before anything slow happens."""

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
