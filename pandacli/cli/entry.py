"""The entry point: standard streams, signals, and the one place where errors become exit codes."""

import errno
import os
import sys
import warnings
from contextlib import suppress
from io import StringIO, TextIOWrapper
from itertools import takewhile
from time import perf_counter, process_time
from typing import Any, NoReturn

from pandacli.cli import signals
from pandacli.errors import DeviceError, PandaError, UsageError

# when this process started, on the clock of `perf_counter`: start-up is all CPU time
STARTED = perf_counter() - process_time()

BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended
UNEXPECTED = 70  # EX_SOFTWARE
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main() -> NoReturn:
    """Run `panda` on the arguments of this process and exit with its code."""
    _restart_without_oo()
    try:
        _fill_closed_descriptors()
        signals.install()
        _hide_warnings()
        _reserve_stdout()
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        code = run(sys.argv[1:])
        signals.leave()
    except KeyboardInterrupt:
        code = signals.INTERRUPTED
    except signals.Terminated:
        code = signals.TERMINATED
    code = signals.ending() or code
    stopped = code in (signals.INTERRUPTED, signals.TERMINATED)
    if stopped:
        signals.end(code)  # flushing may block on a reader of stdout
    signals.leave()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # broken; the last flush of the interpreter must succeed
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    background = sys.modules.get("pandacli.background")
    if stopped or (background is not None and background.is_running()):
        signals.unlink_semaphores()
        os._exit(code)  # a normal exit waits for threads, or torch aborts the process
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run `panda` on `arguments`, print any error, and return the exit code."""
    _prepare_streams()
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        # the terminal has just echoed ^C
        if sys.stderr.isatty():
            with suppress(OSError):
                os.write(sys.stderr.fileno(), b"\n")
        return signals.INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except Exception as error:
        return signals.ending() or _report(error, arguments)


def _report(error: Exception, arguments: list[str]) -> int:
    """Print an error; return the exit code."""
    from pandacli.terminal.console import Screen

    show = Screen().error
    config = sys.modules.get("pandacli.cli.config")
    if traced := _wants_traceback(arguments, config):
        import traceback

        from pandacli.terminal.text import sanitize

        with suppress(OSError):
            sys.stderr.write(sanitize(traceback.format_exc()))
    if isinstance(error, PandaError):
        origin = config.origin(error.message) if config else None
        show(error.message, error.hint, origin, command=error.command)
        return error.exit_code
    if isinstance(error, MemoryError) or ("torch" in sys.modules and _is_out_of_memory(error)):
        show("out of memory", "close other programs, or ask for a smaller --quant")
        return DeviceError.exit_code
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        show(f"cannot write {error.filename or 'the output'}: {error.strerror}")
        return PandaError.exit_code
    if not traced:
        hint = "this is a fault in panda; the same command with --debug shows where"
        show(f"unexpected {type(error).__name__}: {error}", hint)
    return UNEXPECTED


def _is_out_of_memory(error: Exception) -> bool:
    from pandacli.inference.planning.devices import is_out_of_memory

    return is_out_of_memory(error)


def _wants_traceback(arguments: list[str], config: Any) -> bool:
    words = takewhile(lambda word: word != "--", arguments)
    if given := [word for word in words if word in ("--debug", "--no-debug")]:
        return given[-1] == "--debug"
    try:
        return config is not None and bool(config.configured("debug"))
    except (KeyError, UsageError):  # no options yet, or the error is about the file
        return False


def _dispatch(arguments: list[str]) -> int:
    """Show help and the version without a parser; parse and run the rest."""
    from pandacli.cli.help import VERSION, coloured, overview, summary

    match arguments:
        case []:
            print(coloured(summary(), sys.stderr), file=sys.stderr)
            return UsageError.exit_code
        case ["--help" | "-h", *_] | ["help"]:
            print(coloured(overview(), sys.stdout))
            return 0
        case ["help", *rest]:
            return _dispatch([*rest, "--help"])
        case ["--version" | "-V", *_]:
            print(VERSION)
            return 0
    from pandacli.cli.parser import run_command
    from pandacli.terminal.text import sanitize_libraries

    sanitize_libraries()
    return run_command(arguments)


def _restart_without_oo() -> None:
    """Start again without -OO, which removes docstrings that libraries read at run time."""
    if sys.flags.optimize < 2:
        return
    given = sys.orig_argv[1:]
    options = list(takewhile(lambda word: word.startswith("-"), given))  # of the interpreter
    arguments = [word for word in options if word != "-OO"] + given[len(options) :]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONOPTIMIZE"}
    if len(arguments) < len(given) or len(environment) < len(os.environ):
        os.execve(sys.executable, [sys.executable, *arguments], environment)


def _hide_warnings() -> None:
    """Hide the warnings of libraries, unless PYTHONWARNINGS or -W asks for them."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    elif any(option.startswith("error") for option in sys.warnoptions):
        warnings.simplefilter("default")  # a warning in a library must not end panda


def _fill_closed_descriptors() -> None:
    """Open /dev/null for closed standard streams, so that no other file gets their descriptors."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor


def _reserve_stdout() -> None:
    """Duplicate stdout for answers, and redirect descriptor 1, where libraries write, to stderr."""
    stream = sys.stdout
    if not isinstance(stream, TextIOWrapper) or sys.stderr is None:
        return
    try:
        stream.flush()
        own = os.dup(stream.fileno())
        os.dup2(sys.stderr.fileno(), stream.fileno())
    except OSError:  # no descriptor, as under a test's capture
        return
    reopened = open(  # noqa: SIM115  (open until the process exits)
        own, "w", encoding=stream.encoding, errors=stream.errors, closefd=False
    )
    reopened.reconfigure(line_buffering=stream.line_buffering, write_through=stream.write_through)
    sys.stdout = sys.__stdout__ = reopened  # type: ignore[misc]


def _prepare_streams() -> None:
    """Make stdout and stderr accept any text; writing to a closed stdout is an error."""
    import codecs

    from pandacli.terminal.text import escape_unencodable

    codecs.register_error("panda", escape_unencodable)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if sys.stdout is None:
        sys.stdout = _ClosedStdout()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="panda")


class _ClosedStdout(StringIO):
    """Stands in for a stdout that the caller has closed."""

    def write(self, _text: str) -> int:
        raise UsageError("standard output is closed", "leave out >&-")
