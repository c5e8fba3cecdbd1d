"""Where the results of a batch go: their format, their paths, and the checks on those."""

import errno
import os
import stat
from pathlib import Path

from pandacli.batch.formats import FORMATS
from pandacli.errors import ClipError, UsageError

STREAM = "-"
"""Stands for stdin or stdout in place of a file."""

JSONL = "jsonl"
"""The format of the results file itself; every other format is converted from it at the end."""


def choose_format(asked_for: str | None, output: str | None, questions: str) -> str:
    """The format that is asked for ("same" as the questions), or by the suffix of `output`.

    Raises UsageError where there is no such format, or a .json file would hold JSON lines.
    """
    suffix = Path(output or "").suffix.lower()
    if asked_for not in (None, "same", *FORMATS):
        formats = f"formats are {', '.join(FORMATS)}"
        raise UsageError(f"there is no output format {asked_for!r}", formats)
    if asked_for != "same" and asked_for is not None:
        return asked_for
    if asked_for == "same" or (suffix == ".json" and FORMATS[questions].extension == ".json"):
        return questions
    if suffix == ".json":
        message = f"{output} would hold an object a line, which is not JSON"
        raise UsageError(message, "name a .jsonl file, or an --output-format")
    return "csv" if suffix in (".csv", ".tsv") else JSONL


def choose_paths(
    output: str | None, questions: str, chosen: str, shard: tuple[int, int]
) -> tuple[Path | None, Path | None]:
    """The path of the output in the chosen format, and of the results file it is converted from.

    Both are the same file for JSON lines, and None for stdout. Without `output`, they are beside
    the questions. Raises UsageError where the name is empty, or that of the results file.
    """
    if output == STREAM or (output is None and questions == STREAM):
        return None, None
    if output == "":
        raise UsageError("-o is empty", "name a file, or - for stdout")
    path = Path(output or questions)
    part = f".{shard[0]}-of-{shard[1]}" if output is None and shard[1] > 1 else ""
    results = path.parent / f"{path.stem}.answers{part}.jsonl"
    if output is None:
        path = results.with_suffix(FORMATS[chosen].extension)
    if chosen == JSONL:
        return path, path
    if os.path.realpath(results) == os.path.realpath(path):
        raise UsageError(f"{path} is where the answers are kept one by one: choose another name")
    return path, results


def refuse_same(path: Path, other: Path, what: str) -> None:
    """Raise UsageError if results would go into the input file of the `what` (a plural)."""
    try:
        same = path.samefile(other)
    except OSError:  # one of them does not exist
        same = os.path.realpath(path) == os.path.realpath(other)
    if same:
        raise UsageError(f"{path} is the file of the {what}", "name another file with -o")


def refuse_foreign(path: Path, results: Path, chosen: str) -> None:
    """Raise UsageError if the output would replace a file that is not an earlier one: a clip.

    It is an earlier one if there is a results file, and it begins as the chosen format does.
    """
    try:
        with path.open("rb") as file:
            empty = not os.fstat(file.fileno()).st_size
            if empty or (results.exists() and FORMATS[chosen].is_output(file)):
                return
    except FileNotFoundError:
        return
    except OSError as error:
        raise ClipError(f"cannot read {path}: {error.strerror}") from error
    message = f"{path} already exists and is not an earlier output in the format {chosen}"
    raise UsageError(message, "name another file with -o")


def writable_file(path: Path) -> Path:
    """Resolve symbolic links to a regular file, which need not exist yet; or raise."""
    file = Path(os.path.realpath(path))
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if file.parent.is_dir():
            return file
        raise UsageError(f"there is no folder {path.parent}", "create it first") from None
    except OSError as error:
        raise unusable(path, error) from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a folder", "name a file with -o")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is no file on a disk", "-o - writes to stdout")
    return file


def unusable(path: Path | str, error: OSError) -> ClipError:
    """The error to show where writing to `path` failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space and run the same command again to resume"
        return ClipError(f"the disk of {path} is full", hint)
    return ClipError(f"cannot write {path}: {error.strerror}")
