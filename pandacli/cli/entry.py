"""The entry point, and the one place where errors become lines and an exit code."""

import errno
import os
import sys
import warnings
from contextlib import suppress
from io import StringIO, TextIOWrapper
from itertools import takewhile
from time import perf_counter, process_time
from typing import NoReturn

from pandacli.cli import signals
from pandacli.errors import DeviceError, PandaError, UsageError

STARTED = perf_counter() - process_time()
"""When this process began, on the clock of `perf_counter`: starting Python is all computing."""

CLOSED_PIPE = 141  # what a shell reports for a program that SIGPIPE ended
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNEXPECTED = 70  # EX_SOFTWARE: a fault of ours, told apart from all that users can cause


def main() -> NoReturn:
    """Runs `panda` on the arguments of this process and exits with its code."""
    _keep_docstrings()
    try:
        _fill_closed_descriptors()
        signals.install()
        _tame_warnings()
        _keep_stdout_clean()
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        code = run(sys.argv[1:])
        signals.leave()
    except KeyboardInterrupt:
        code = signals.INTERRUPTED
    except signals.Terminated:
        code = signals.TERMINATED
    if (ending := signals.ending()) is not None:
        code = ending
    stopped = code in (signals.INTERRUPTED, signals.TERMINATED)
    if stopped:
        signals.end(code)  # what follows may wait for a reader of stdout
    signals.leave()
    _discard_unwritten()
    if stopped or _computing():
        signals.unlink_semaphores()
        os._exit(code)  # the interpreter would wait for threads, and torch abort the process
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Runs `panda` on `arguments`; returns the exit code, having printed what there is to say."""
    _prepare_streams()
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        # The terminal has just written ^C: the shell's prompt belongs on a line of its own.
        if sys.stderr.isatty():
            with suppress(OSError):
                os.write(sys.stderr.fileno(), b"\n")
        return signals.INTERRUPTED
    except BrokenPipeError:
        return CLOSED_PIPE
    except Exception as error:
        stopped = signals.ending()
        return _explain(error, arguments) if stopped is None else stopped


def _explain(error: Exception, arguments: list[str]) -> int:
    """Says what went wrong; returns the exit code."""
    if isinstance(error, PandaError):
        _traceback_if_wanted(arguments)
        _complain(error.message, error.hint, _origin(error.message), command=error.command)
        return error.exit_code
    traced = _traceback_if_wanted(arguments)
    if _out_of_memory(error):
        _complain("out of memory", "close other programs, or ask for a smaller --quant")
        return DeviceError.exit_code
    if isinstance(error, OSError) and error.errno in _FULL:
        _complain(f"cannot write {error.filename or 'the output'}: {error.strerror}")
        return PandaError.exit_code
    if not traced:
        _complain(
            f"unexpected {type(error).__name__}: {error}",
            "this is a fault in panda; the same command with --debug shows where",
        )
    return UNEXPECTED


def _dispatch(arguments: list[str]) -> int:
    """Does what needs no parser at once; parses and runs the rest."""
    from pandacli.cli.help import VERSION, coloured, overview, summary

    match arguments:
        case []:
            print(coloured(summary(), sys.stderr), file=sys.stderr)
            return UsageError.exit_code
        case ["--help" | "-h" | "help"]:
            print(coloured(overview(), sys.stdout))
            return 0
        case ["help", *rest] if rest:
            return _dispatch([*rest, "--help"])
        case ["--version" | "-V"]:
            print(VERSION)
            return 0
    return _parse(arguments)


def _parse(arguments: list[str]) -> int:
    """Parses and runs; nothing is caught here but what the parser itself raises."""
    import typer
    from typer.exceptions import TyperException

    from pandacli.cli.app import app, usage_error
    from pandacli.terminal.text import sanitize_libraries

    sanitize_libraries()
    command = typer.main.get_command(app)
    try:
        with command.make_context("panda", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except TyperException as error:
        raise usage_error(error, command, arguments) from error
    return 0


def _out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:  # too slow to import for an error that is not its own
        return isinstance(error, MemoryError)
    from pandacli.inference.planning.devices import is_out_of_memory

    return is_out_of_memory(error)


def _complain(message: str, *hints: str | None, command: str | None = None) -> None:
    from pandacli.terminal.console import Screen

    Screen().error(message, *hints, command=command)


def _origin(message: str) -> str | None:
    """Return from which variable or file the value came that an error is about."""
    config = sys.modules.get("pandacli.cli.config")
    return config.origin(message) if config is not None else None


def _traceback_if_wanted(arguments: list[str]) -> bool:
    """Prints the traceback of the error in hand if `--debug` or a default asks for it."""
    import traceback

    from pandacli.terminal.text import sanitize

    wanted = _wants_traceback(arguments)
    if wanted:
        with suppress(OSError):  # nobody to read it
            sys.stderr.write(sanitize(traceback.format_exc()))
    return wanted


def _wants_traceback(arguments: list[str]) -> bool:
    options = takewhile(lambda word: word != "--", arguments)
    given = [word == "--debug" for word in options if word in ("--debug", "--no-debug")]
    if given:
        return given[-1]
    config = sys.modules.get("pandacli.cli.config")
    try:
        return config is not None and bool(config.configured("debug"))
    except (KeyError, UsageError):  # no options yet, or the error is about the file
        return False


def _keep_docstrings() -> None:
    """Starts again without -OO, which takes from libraries the docstrings that they work with."""
    if sys.flags.optimize < 2:
        return
    given = sys.orig_argv[1:]
    options = list(takewhile(lambda word: word.startswith("-"), given))  # of the interpreter
    arguments = [word for word in options if word != "-OO"] + given[len(options) :]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONOPTIMIZE"}
    if len(arguments) < len(given) or len(environment) < len(os.environ):
        os.execve(sys.executable, [sys.executable, *arguments], environment)


def _tame_warnings() -> None:
    """Hides the warnings of libraries, or shows them where PYTHONWARNINGS asks for any."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    elif any(option.startswith("error") for option in sys.warnoptions):
        warnings.simplefilter("default")  # they are not panda's, and nothing it could mend


def _fill_closed_descriptors() -> None:
    """Lets no file that is opened take the place of a closed standard stream."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free


def _keep_stdout_clean() -> None:
    """Gives stdout a descriptor of its own, and what libraries write to descriptor 1 to stderr.

    Some do at the word of a variable, such as MKL_VERBOSE.
    """
    stream = sys.stdout
    if not isinstance(stream, TextIOWrapper) or sys.stderr is None:
        return
    try:
        stream.flush()
        own = os.dup(stream.fileno())
        os.dup2(sys.stderr.fileno(), stream.fileno())
    except OSError:  # no descriptor, as under a test's capture
        return
    renewed = open(  # noqa: SIM115  (it stays open to the end)
        own, "w", encoding=stream.encoding, errors=stream.errors, closefd=False
    )
    renewed.reconfigure(line_buffering=stream.line_buffering, write_through=stream.write_through)
    sys.stdout = sys.__stdout__ = renewed  # type: ignore[misc]


def _computing() -> bool:
    """Whether a thread of ours goes on, which is only where its module has been imported."""
    background = sys.modules.get("pandacli.background")
    return background is not None and background.goes_on()


def _prepare_streams() -> None:
    """Makes stdout and stderr take any text; what is written to a closed stdout is an error."""
    import codecs

    from pandacli.terminal.text import escape_unencodable

    codecs.register_error("panda", escape_unencodable)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if sys.stdout is None:
        sys.stdout = _Closed()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="panda")


def _discard_unwritten() -> None:
    """Sends what nobody took nowhere, so that the interpreter's last flush succeeds."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Closed(StringIO):
    """Stands for a stdout that the caller has closed."""

    def write(self, _text: str) -> int:
        """Refuses.

        Raises:
            UsageError: Always.
        """
        raise UsageError("standard output is closed", "leave out >&-")
