"""Where conversations are kept: in the state folder of the platform, one file each.

The newest hundred stay. The folder is for its owner only, as what is said is private.
"""

import os
import stat
import time
from contextlib import suppress
from itertools import chain, count
from pathlib import Path

import platformdirs

KEPT = 100
"""How many conversations are kept."""


def state_folder() -> Path:
    """The folder for what panda remembers of its use, on Linux `~/.local/state/panda`.

    Raises:
        OSError: It is not there and cannot be made.
    """
    folder = platformdirs.user_state_path("panda")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def new_conversation() -> Path:
    """A name for the file of a conversation that begins now; the oldest ones make room.

    Raises:
        OSError: The folder cannot be made.
    """
    folder = state_folder() / "conversations"
    folder.mkdir(mode=0o700, exist_ok=True)
    for old in _newest_first(folder)[KEPT - 1 :]:
        with suppress(OSError):  # another chat has made room just now, or it is a folder
            old.unlink()
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(path for each in names if not (path := folder / f"{each}.json").exists())


def last_conversation() -> Path | None:
    """The file of the conversation that was spoken in last, if there is one."""
    folder = platformdirs.user_state_path("panda") / "conversations"
    return next(iter(_newest_first(folder)), None)


def _newest_first(folder: Path) -> list[Path]:
    found = ((_written(path), path) for path in folder.glob("*.json"))
    return [path for moment, path in sorted(found, reverse=True) if moment >= 0]


def _written(path: Path) -> float:
    """When a conversation was last written; -1 for what is no regular file."""
    try:
        status = path.stat()
    except OSError:  # another chat has made room just now, or the link leads nowhere
        return -1.0
    return status.st_mtime if stat.S_ISREG(status.st_mode) else -1.0
