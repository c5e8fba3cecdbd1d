"""Where conversations are kept: in the state folder of the platform, one file each.

The newest hundred stay. The folder is for its owner only, as what is said is private.
"""

import os
import time
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
        old.unlink(missing_ok=True)
    return folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.json"


def last_conversation() -> Path | None:
    """The file of the conversation that was spoken in last, if there is one."""
    folder = platformdirs.user_state_path("panda") / "conversations"
    return next(iter(_newest_first(folder)), None)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"), key=_written, reverse=True)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another chat has made room just now
        return 0.0
