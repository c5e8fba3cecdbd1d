"""From the name of a video in a record to its file."""

import re
from collections.abc import Iterator
from pathlib import Path

from pandacli.errors import ClipError
from pandacli.video.clip import as_on_disk, local_file

EXTENSIONS = (
    *(".mp4", ".avi", ".mkv", ".webm", ".mov", ".gif", ".m4v", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".3gp", ".ts", ".ogv", ".webp"),
)
"""What is tried after a name that is no file, in this order; then the same in capitals."""

_NUMBERED = re.compile(r"(video|vid|)(\d+)")  # MSRVTT-QA, MSVD-QA; some say the number only
_PREFIX = "v_"  # the files of ActivityNet have it, the questions of ActivityNet-QA do not
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

        A name that is no file is tried with the usual extensions, with the `v_` of ActivityNet
        added or taken away, and for a number with the `video` or `vid` of MSRVTT-QA and MSVD-QA;
        accents in it may be in either form of Unicode, and it may be a `file://` address. Folders
        are never listed, however many clips they hold.

        Args:
            name: The video as the record has it.

        Raises:
            ClipError: There is no such file, or it is an address.
        """
        found = self._found.get(name)
        if found is not None:
            return found
        wanted = str(local_file(name)) if ":" in name else name
        for candidate in map(as_on_disk, self._candidates(wanted)):
            if _is_file(candidate):
                if len(self._found) >= _REMEMBERED:
                    self._found.clear()
                self._found[name] = candidate
                return candidate
        shown = name if len(name) <= _SHOWN else name[:_SHOWN] + "..."
        if Path(wanted).is_absolute():
            raise ClipError(f"there is no file {shown}", "check the path")
        folder = self.folder if self.folder.parts else self.folder.absolute()  # not "in ."
        raise ClipError(f"no file {shown} in {folder}", "name its folder with --video-dir")

    def _candidates(self, name: str) -> Iterator[Path]:
        path = self.folder / name
        other = (
            path.name.removeprefix(_PREFIX)
            if path.name.startswith(_PREFIX)
            else (_PREFIX + path.name)
        )
        own = [path.name, other] if path.name and other else [path.name]
        numbered = _NUMBERED.fullmatch(path.name)
        number = numbered[2] if numbered else ""
        alternatives = [f"video{number}", f"vid{number}", number] if number else []
        extensions = ["", *EXTENSIONS, *map(str.upper, EXTENSIONS)]
        if path.suffix.lower() in EXTENSIONS:
            extensions = [""]
        yield path
        for names in (own, alternatives):  # another name only if no extension fits the record's
            for extension in extensions:
                for written in names:
                    yield path.parent / (written + extension)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or that no file can have
        return False
