"""The contact sheet: the frames of a clip in one picture, with index and time."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pandacli.errors import UsageError
from pandacli.video.clip import format_times

if TYPE_CHECKING:
    from PIL.Image import Image

    from pandacli.video import Frames

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_BACKGROUND, _FOREGROUND = (24, 24, 27), (212, 212, 216)
_MARGIN, _GAP = 16, 12  # pixels
_FONT_SIZE = 15  # pixels; a caption is twice as high
_ASPECT = 2.0  # width by height of a sheet


def check_sheet_path(path: Path, video: Path) -> None:
    """Raise UsageError, before anything slow, if a sheet cannot be written to `path`."""
    if path.suffix.lower() not in _FORMATS:
        hint = "name it sheet.png, or .jpg, .jpeg or .webp"
        raise UsageError(f"cannot tell from {path} what kind of picture to save", hint)
    try:
        checks = {
            "it is a folder": path.is_dir(),
            f"there is no folder {path.parent}": not path.parent.is_dir(),
            "its folder cannot be written to": not os.access(path.parent, os.W_OK | os.X_OK),
            "it is not a file": path.exists() and not path.is_file(),
            "it is the video": path.exists() and video.exists() and path.samefile(video),
        }
        reason = next((reason for reason, holds in checks.items() if holds), None)
    except OSError as error:
        reason = error.strerror
    if reason:
        raise UsageError(f"cannot save {path}: {reason}")


def contact_sheet(frames: "Frames") -> "Image":
    """Return the frames, uint8 (T, H, W, 3), in rows, each with its index and its time."""
    from PIL import Image, ImageDraw, ImageFont

    count, height, width = frames.pixels.shape[:3]
    font = ImageFont.load_default(_FONT_SIZE)
    times = zip(frames.indices, format_times(frames.times), strict=True)
    captions = [f"frame {index}   {time}" for index, time in times]
    across = max(width, *(round(font.getlength(caption)) for caption in captions))
    step = (across + _GAP, height + 2 * _FONT_SIZE + _GAP)
    wanted = math.sqrt(count * _ASPECT * step[1] / step[0])
    columns = min(  # near the wanted aspect, with a last row that is not too empty
        range(1 if count > 3 else count, count + 1),
        key=lambda n: abs(n - wanted) / wanted + -count % n / n,
    )
    rows = -(-count // columns)
    size = (columns * step[0] - _GAP + 2 * _MARGIN, rows * step[1] - _GAP + 2 * _MARGIN)
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for place, (frame, caption) in enumerate(zip(frames.pixels, captions, strict=True)):
        left = _MARGIN + place % columns * step[0]
        top = _MARGIN + place // columns * step[1]
        sheet.paste(Image.fromarray(frame), (left + (across - width) // 2, top))
        middle = (left + across / 2, top + height + _FONT_SIZE)
        draw.text(middle, caption, fill=_FOREGROUND, font=font, anchor="mm")
    return sheet


def save_sheet(sheet: "Image", path: Path, *, replace: bool = False) -> None:
    """Write `sheet` to `path` in the format of its extension, atomically; may raise UsageError."""
    target = Path(os.path.realpath(path))  # keep a symbolic link
    partial = target.with_name(f".panda-{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            try:
                sheet.save(file, _FORMATS[path.suffix.lower()], quality=92)
                if target.exists() and not replace:
                    raise UsageError(f"{path} exists", "name another file, or remove it first")
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # ValueError: the format's limits
        reason = getattr(error, "strerror", None)
        reason = reason or f"{sheet.width}x{sheet.height} pixels are too many for it"
        raise UsageError(f"cannot save {path}: {reason}") from error
