"""Find the file of a video from its name in a record."""

import re
from collections.abc import Iterator
from pathlib import Path

from pandacli.errors import ClipError
from pandacli.video.clip import as_on_disk, local_file

EXTENSIONS = (
    *(".mp4", ".avi", ".mkv", ".webm", ".mov", ".gif", ".m4v", ".mpg", ".mpeg"),
    *(".wmv", ".flv", ".3gp", ".ts", ".ogv", ".webp"),
)
"""Suffixes that are tried after a name without a file, in this order, then in capitals."""

_NUMBERED = re.compile(r"(video|vid|)(\d+)")  # MSRVTT-QA, MSVD-QA; some have only the number
_PREFIX = "v_"  # in the file names of ActivityNet, but not in ActivityNet-QA
_SHOWN = 200  # characters of a name in an error
_CACHED = 65_536  # files


class VideoFolder:
    """The folder of the videos of a batch; names in records are relative to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[str, Path] = {}

    def find(self, name: str) -> Path:
        """The file of a video.

        A name without a file is tried with the usual extensions, with and without the `v_` of
        ActivityNet, and for a number with the `video` or `vid` of MSRVTT-QA and MSVD-QA; accents
        may be in either Unicode form. Folders are never listed, however many clips they hold.

        Args:
            name: The video as written in the record, a path or a `file://` address.

        Raises:
            ClipError: There is no such file, or it is another address.
        """
        found = self._found.get(name)
        if found is not None:
            return found
        wanted = str(local_file(name)) if ":" in name else name
        for candidate in map(as_on_disk, self._candidates(wanted)):
            if _is_file(candidate):
                if len(self._found) >= _CACHED:
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
        bare = path.name.removeprefix(_PREFIX)
        other = bare if bare != path.name else _PREFIX + path.name
        own = [path.name, other] if path.name and other else [path.name]
        numbered = _NUMBERED.fullmatch(path.name)
        number = numbered[2] if numbered else ""
        alternatives = [f"video{number}", f"vid{number}", number] if number else []
        extensions = ["", *EXTENSIONS, *map(str.upper, EXTENSIONS)]
        if path.suffix.lower() in EXTENSIONS:
            extensions = [""]
        yield path
        for names in (own, alternatives):  # the record's own name with any extension comes first
            for extension in extensions:
                for written in names:
                    yield path.parent / (written + extension)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long or impossible
        return False
