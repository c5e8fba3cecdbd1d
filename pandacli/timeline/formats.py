"""Texts with times as files: captions (SRT, WebVTT), tables (CSV), cut lists (EDL, ffconcat).

SubRip   https://www.matroska.org/technical/subtitles.html#srt-subtitles
WebVTT   https://www.w3.org/TR/webvtt1/
EDL      CMX 3600, as SMPTE RP 146 and editing programs read it
ffconcat https://ffmpeg.org/ffmpeg-formats.html#concat-1
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import StringIO
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from pandacli.errors import UsageError

CAPTION_FORMATS = ("srt", "vtt", "csv")
CUT_FORMATS = ("edl", "ffconcat")

_DROP_FRAME_RATES = {30: 30_000 / 1001, 60: 60_000 / 1001}  # by frames in a timecode's second
_RATE_TOLERANCE = 0.01  # frames per second
_MAX_RATE = 100  # a timecode has two digits for the frame
_RECORD_START = 3600  # seconds of timecode: by custom a programme starts at 01:00:00:00


class Caption(NamedTuple):
    """A text about a time range of a film, in seconds."""

    start: float
    end: float
    text: str
    probability: float | None = None
    video: str | None = None  # a column of tables about several films


@dataclass(frozen=True)
class Source:
    """The film that cut lists refer to."""

    path: Path
    fps: float  # average
    origin: float = 0.0  # time of the file's clock at second 0, as in a recorded transport stream


def write_captions(captions: Iterable[Caption], file_format: str) -> Iterator[str]:
    """Yield a file of one of `CAPTION_FORMATS` in pieces, each as soon as its caption is there."""
    return {"srt": _srt, "vtt": _vtt, "csv": _csv}[file_format](captions)


def write_cuts(captions: Iterable[Caption], file_format: str, source: Source) -> Iterator[str]:
    """Yield a file of one of `CUT_FORMATS`, which cuts the captions' ranges from a film.

    UsageError if the format cannot express the film's name or frame rate.
    """
    return {"edl": _edl, "ffconcat": _ffconcat}[file_format](captions, source)


def _srt(captions: Iterable[Caption]) -> Iterator[str]:
    for number, caption in enumerate(captions, 1):
        start, end = (_clock(seconds, ",") for seconds in (caption.start, caption.end))
        yield f"{number}\n{start} --> {end}\n{_cue(caption)}\n\n"


def _vtt(captions: Iterable[Caption]) -> Iterator[str]:
    yield "WEBVTT\n\n"
    for caption in captions:
        start, end = (_clock(seconds, ".") for seconds in (caption.start, caption.end))
        text = _cue(caption).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        yield f"{start} --> {end}\n{text}\n\n"


def _csv(captions: Iterable[Caption]) -> Iterator[str]:
    def row(*values: str) -> str:
        line = StringIO()
        csv.writer(line, lineterminator="\n").writerow(values)
        return line.getvalue()

    remaining = iter(captions)
    first = list(islice(remaining, 1))
    several = any(caption.video is not None for caption in first)
    yield row(*(["video"] * several), "start", "end", "text", "probability")
    for start, end, text, probability, video in chain(first, remaining):
        share = "" if probability is None else f"{probability:.4f}"
        yield row(*([video or ""] * several), f"{start:.3f}", f"{end:.3f}", text, share)


def _edl(captions: Iterable[Caption], source: Source) -> Iterator[str]:
    """One event a caption, a cut each; drop-frame timecode at 29.97 and 59.94 frames a second."""
    base = max(1, round(source.fps))
    if base >= _MAX_RATE:
        message = f"an EDL counts up to {_MAX_RATE - 1} frames a second, this film has {base}"
        raise UsageError(message, "csv has the times in seconds")
    drops = abs(source.fps - _DROP_FRAME_RATES.get(base, 0.0)) < _RATE_TOLERANCE
    name = _one_line(source.path.name)
    yield f"TITLE: {name}\nFCM: {'' if drops else 'NON-'}DROP FRAME\n\n"
    recorded = _frame_of(_RECORD_START * base, base) if drops else _RECORD_START * base
    for number, caption in enumerate(captions, 1):
        first = round(caption.start * source.fps)
        count = max(1, round(caption.end * source.fps) - first)
        frames = (first, first + count, recorded, recorded + count)
        times = " ".join(_timecode(frame, base, drops=drops) for frame in frames)
        yield f"{number:03}  AX       V     C        {times}\n"
        yield f"* FROM CLIP NAME: {name}\n* COMMENT: {_one_line(_with_probability(caption))}\n\n"
        recorded += count


def _ffconcat(captions: Iterable[Caption], source: Source) -> Iterator[str]:
    path = str(source.path.absolute())
    if "\n" in path or "\r" in path or not _is_utf8(path):
        message = f"an ffconcat file cannot name {path}: it has line breaks or is not UTF-8"
        raise UsageError(message, "rename it")
    quoted = "'" + path.replace("'", r"'\''") + "'"
    yield "ffconcat version 1.0\n"
    for caption in captions:
        start, end = caption.start + source.origin, caption.end + source.origin
        yield f"file {quoted}\ninpoint {start:.6f}\noutpoint {end:.6f}\n"


def _cue(caption: Caption) -> str:
    """The lines of a caption; an empty one would end it."""
    lines = _with_probability(caption).splitlines()
    return "\n".join(line for line in lines if line.strip()).replace("-->", "->")


def _with_probability(caption: Caption) -> str:
    share = caption.probability
    return caption.text if share is None else f"{caption.text} ({share:.2f})"


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _clock(seconds: float, point: str) -> str:
    whole, thousandths = divmod(max(0, round(seconds * 1000)), 1000)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{whole:02}{point}{thousandths:03}"


def _timecode(frame: int, base: int, *, drops: bool) -> str:
    """A frame's timecode, SMPTE ST 12-1; drop-frame skips numbers, but no frames."""
    if drops:
        skipped = base // 15  # numbers in each minute but every tenth
        in_ten = 600 * base - 9 * skipped
        tens, rest = divmod(frame, in_ten)
        minutes = max(0, rest - skipped) // (60 * base - skipped)
        frame += skipped * (9 * tens + minutes)
    seconds, number = divmod(frame, base)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    mark = ";" if drops else ":"
    return f"{hours % 24:02}:{minutes:02}:{seconds:02}{mark}{number:02}"


def _frame_of(number: int, base: int) -> int:
    """The frame with a drop-frame number, counted as if none were skipped."""
    minutes = number // (60 * base)
    return number - base // 15 * (minutes - minutes // 10)
