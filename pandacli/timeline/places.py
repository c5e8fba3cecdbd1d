"""Where videos are: files, folders and glob patterns as the files that they name."""

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pandacli.errors import ClipError, UsageError
from pandacli.video.clip import VIDEO_SUFFIXES, local_file

_MAGIC = re.compile(r"[*?[]")
_DIGITS = re.compile(r"(\d+)", re.ASCII)


def find_videos(places: Sequence[str], recursive: bool) -> list[Path]:
    """The files that places name, in the order of the places, each once.

    A file is taken as it is. A folder stands for the files in it that have the suffix of a video
    (`recursive`: in its folders too), in natural order: `clip2` before `clip10`. A glob pattern
    that the shell did not expand stands for what it matches; `**` is any number of folders. As in
    a shell, hidden files and folders have to be named. A missing file with the suffix of a video
    is returned too, for reading it to report.

    Raises:
        UsageError: A place is an empty text.
        ClipError: A place has no video, is not there, or is the address of another machine.
    """
    found: dict[str, Path] = {}
    for place in places:
        for path in _videos_of(place, recursive):
            # links to files have names of their own; links to folders lead to the same files
            folder, name = os.path.split(path)
            found.setdefault(os.path.join(os.path.realpath(folder), name), path)  # noqa: PTH118
    return list(found.values())


def _videos_of(place: str, recursive: bool) -> list[Path]:
    if not place:
        raise UsageError("the name of a video is empty")
    given = os.path.lexists(place) or not place.startswith("~")
    path = local_file(place if given else os.path.expanduser(place))  # noqa: PTH111
    if path.is_dir():
        if found := _videos_in(path, recursive):
            return found
        hint = None if recursive else "--recursive looks into its folders as well"
        raise ClipError(f"there is no video in the folder {place}", hint)
    if os.path.lexists(path):
        return [path]
    if _MAGIC.search(str(path)):
        found = []
        parts = path.relative_to(path.anchor).parts
        for match in sorted(_matches(Path(path.anchor), parts), key=_natural_order):
            found += _videos_in(match, recursive) if match.is_dir() else [match]
        if found:
            return found
        raise ClipError(f"no video matches {place}", "check the pattern")
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return [path]
    raise ClipError(f"there is no file or folder {place}", "check the path")


def _videos_in(folder: Path, recursive: bool) -> list[Path]:
    """The videos in a folder, in natural order."""
    found = [
        path
        for each in (_folders(folder) if recursive else (folder,))
        for path in _visible(each)
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()
    ]
    return sorted(found, key=_natural_order)


def _folders(top: Path) -> Iterator[Path]:
    """A folder and all that are not hidden below it, each once, also where links form a loop."""
    seen: set[str] = set()
    pending = [top]
    while pending:
        folder = pending.pop()
        if (real := os.path.realpath(folder)) not in seen:
            seen.add(real)
            yield folder
            pending += [path for path in _visible(folder) if path.is_dir()]


def _visible(folder: Path, *, hidden: bool = False) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.name.startswith(".") == hidden]
    except OSError as error:
        raise ClipError(f"the folder {folder} cannot be read: {error.strerror}") from error


def _matches(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """The paths below a folder that match the parts of a pattern; a part that exists is a name."""
    if not parts:
        yield folder
    elif parts[0] == "**":
        for each in _folders(folder):
            yield from _matches(each, parts[1:] or ["*"])
    elif os.path.lexists(folder / parts[0]):
        yield from _matches(folder / parts[0], parts[1:])
    elif folder.is_dir():
        for path in _visible(folder, hidden=parts[0].startswith(".")):
            if fnmatchcase(path.name, parts[0]):
                yield from _matches(path, parts[1:])


def _natural_order(path: Path) -> list[list[tuple[int, str]]]:
    """A sort key: numbers in names by value."""
    return [
        [(int(text), "") if text.isdecimal() else (-1, text.casefold()) for text in pieces]
        for pieces in map(_DIGITS.split, path.parts)
    ]
