"""What was computed of a clip before, and is kept for the next time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pandacli.errors import PandaError
from pandacli.ui.console import Screen
from pandacli.video.clip import Clip

if TYPE_CHECKING:
    from pandacli.engine import LoadedClip
    from pandacli.engine.kept_prefix import ClipPrefixes


def look_up(clip: Clip, chosen: dict[str, Any], screen: Screen) -> "ClipPrefixes | None":
    """Returns what is kept of a clip, and takes more; None where nothing is to be kept.

    Args:
        clip: The clip. If it cannot be used, those who read its frames say so.
        chosen: The options `frames`, `cache-size` and `full-hash`.
        screen: Where to say how it goes.
    """
    if not chosen["cache-size"]:
        return None
    with screen.stage("reading frames"):
        from pandacli.engine.kept_prefix import ClipPrefixes
        from pandacli.video.container import check_file  # a pipe would keep us waiting

        try:
            check_file(clip.path)
            return ClipPrefixes(
                clip, chosen["frames"], budget=chosen["cache-size"], whole=chosen["full-hash"]
            )
        except (PandaError, OSError):
            return None


@contextmanager
def kept_afterwards(clip: "LoadedClip", screen: Screen) -> Iterator[None]:
    """Keeps what was computed of a clip after the block, and where a question was refused in it."""
    try:
        yield
    except PandaError:
        _keep(clip, screen)
        raise
    _keep(clip, screen)


def _keep(clip: "LoadedClip", screen: Screen) -> None:
    """Keeps what was computed of a clip; if that cannot be, it is said, and no answer is lost."""
    try:
        with screen.stage("caching the clip"):
            clip.keep()
    except PandaError as error:
        screen.notice(error.message)
