"""Every error that a user can cause, each with the exit code it ends the program with.

    PandaError            1
    ├── UsageError        2   wrong arguments, found before anything slow happens
    ├── ClipError         3   the video, or the file of questions, cannot be used
    ├── ModelError        4   the model is missing, damaged, foreign or cannot be downloaded
    └── DeviceError       5   out of memory, or the device is not there

`pandacli.cli` prints message, hint and command on a line each.
"""


class PandaError(Exception):
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
    exit_code = 2


class ClipError(PandaError):
    exit_code = 3


class ModelError(PandaError):
    exit_code = 4


class DeviceError(PandaError):
    exit_code = 5
