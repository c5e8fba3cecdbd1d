"""From the name of a video in a record to its file."""

import re
from collections.abc import Iterator
from pathlib import Path

from pandacli.errors import ClipError

EXTENSIONS = (
    *(".mp4", ".avi", ".mkv", ".webm", ".mov", ".gif", ".m4v", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".3gp", ".ts", ".ogv", ".webp"),
)
"""What is tried after a name that is no file, in this order; then the same in capitals."""

_PREFIX = "v_"  # the files of ActivityNet have it, the questions of ActivityNet-QA do not
_REMOTE = re.compile(r"(?i:data:|[a-z][a-z0-9+.-]*://)")
_SHOWN = 200
_REMEMBERED = 65_536


class VideoFolder:
    """The folder that the names in a file of questions are relative to.

    Args:
        folder: The folder; absolute names do not need it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[str, Path] = {}

    def find(self, name: str) -> Path:
        """The file that a record means.

        A name that is no file is tried with the usual extensions, and with the `v_` of
        ActivityNet added or taken away. Folders are never listed, however many clips they hold.

        Args:
            name: The video as the record has it.

        Raises:
            ClipError: There is no such file.
        """
        found = self._found.get(name)
        if found is not None:
            return found
        for candidate in self._candidates(name):
            if _is_file(candidate):
                if len(self._found) >= _REMEMBERED:
                    self._found.clear()
                self._found[name] = candidate
                return candidate
        shown = name if len(name) <= _SHOWN else name[:_SHOWN] + "..."
        if _REMOTE.match(name):
            raise ClipError(f"{shown} is not a file on this machine", "download the video first")
        if Path(name).is_absolute():
            raise ClipError(f"there is no file {shown}", "check the path")
        raise ClipError(f"no file {shown} in {self.folder}", "name its folder with --video-dir")

    def _candidates(self, name: str) -> Iterator[Path]:
        path = self.folder / name
        other = (
            path.name.removeprefix(_PREFIX)
            if path.name.startswith(_PREFIX)
            else (_PREFIX + path.name)
        )
        names = [path.name, other] if path.name and other else [path.name]
        yield path
        for extension in ("", *EXTENSIONS, *map(str.upper, EXTENSIONS)):
            if extension and path.suffix.lower() in EXTENSIONS:
                return
            for written in names:
                yield path.parent / (written + extension)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or that no file can have
        return False
