"""The contact sheet: the frames of a clip side by side in one picture, with number and time."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pandacli.errors import UsageError
from pandacli.video.clip import format_times

if TYPE_CHECKING:
    from PIL.Image import Image

    from pandacli.video import Frames

_ANOTHER = "name another file, or remove it first"
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_GROUND, _INK = (24, 24, 27), (212, 212, 216)
_MARGIN, _GAP = 16, 12  # pixels
_TEXT = 15  # pixels high; a caption takes twice that
_ASPECT = 2.0  # of a sheet, about


def check_sheet_path(path: Path, video: Path) -> None:
    """Refuses, before anything slow, a place where no sheet can be written.

    Raises:
        UsageError: The extension names no format, or `path` cannot be, is a folder, in no folder,
            or the video itself.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(
            f"cannot tell from {path} what kind of picture to save",
            "name it sheet.png, or .jpg, .jpeg or .webp",
        )
    try:
        flaw = _flaw(path, video)
    except OSError as error:
        flaw = error.strerror
    if flaw:
        raise UsageError(f"cannot save {path}: {flaw}")


def _flaw(path: Path, video: Path) -> str | None:
    """Why no sheet can be written there, if so."""
    if path.is_dir():
        return "it is a folder"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return "its folder cannot be written to"
    if path.exists() and not path.is_file():
        return "it is not a file"
    if path.exists() and video.exists() and path.samefile(video):
        return "it is the video"
    return None


def contact_sheet(frames: "Frames") -> "Image":
    """Returns the frames in rows, each at its own size, with its number in the file and its time.

    Args:
        frames: `pixels` are uint8 (T, H, W, 3) RGB.
    """
    from PIL import Image, ImageDraw, ImageFont

    count, height, width = frames.pixels.shape[:3]
    font = ImageFont.load_default(_TEXT)
    captions = [
        f"frame {index}   {time}"
        for index, time in zip(frames.indices, format_times(frames.times), strict=True)
    ]
    across = max(width, *(round(font.getlength(caption)) for caption in captions))
    step = (across + _GAP, height + 2 * _TEXT + _GAP)
    columns = _columns(count, step[0] / step[1])
    rows = -(-count // columns)
    size = (columns * step[0] - _GAP + 2 * _MARGIN, rows * step[1] - _GAP + 2 * _MARGIN)
    sheet = Image.new("RGB", size, _GROUND)
    draw = ImageDraw.Draw(sheet)
    for place, (frame, caption) in enumerate(zip(frames.pixels, captions, strict=True)):
        left = _MARGIN + place % columns * step[0]
        top = _MARGIN + place // columns * step[1]
        sheet.paste(Image.fromarray(frame), (left + (across - width) // 2, top))
        middle = (left + across / 2, top + height + _TEXT)
        draw.text(middle, caption, fill=_INK, font=font, anchor="mm")
    return sheet


def _columns(count: int, aspect: float) -> int:
    """Pictures a row, so that the sheet is wider than tall and its last row not too empty.

    Args:
        count: How many pictures there are.
        aspect: Of the room for one, width by height.
    """
    if count <= 3:
        return count
    wanted = math.sqrt(count * _ASPECT / aspect)

    def cost(columns: int) -> float:
        return abs(columns - wanted) / wanted + -count % columns / columns

    return min(range(1, count + 1), key=cost)


def save_sheet(sheet: "Image", path: Path, *, replace: bool = False) -> None:
    """Writes `sheet` to `path` in the format of its extension: the whole file, or nothing.

    Args:
        sheet: The picture.
        path: Its file.
        replace: Whether a file of that name may be replaced.

    Raises:
        UsageError: It cannot be written, there is such a file, or it is too large for the format.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    partial = target.with_name(f".panda-{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            try:
                sheet.save(file, _FORMATS[path.suffix.lower()], quality=92)
                if target.exists() and not replace:
                    raise UsageError(f"{path} exists", _ANOTHER)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # the system's complaint, or that of the format
        reason = getattr(error, "strerror", None)
        reason = reason or f"{sheet.width}x{sheet.height} pixels are too many for it"
        raise UsageError(f"cannot save {path}: {reason}") from error
