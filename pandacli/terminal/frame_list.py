"""A clip and its sampled frames in words: for people, for scripts, for programs."""

from typing import TYPE_CHECKING

from pandacli.terminal.report import json_text
from pandacli.terminal.text import sanitize_line
from pandacli.video.clip import Clip, format_time, format_times

if TYPE_CHECKING:
    from pandacli.video import Frames, VideoInfo


def clip_line(clip: Clip, info: "VideoInfo") -> str:
    """Returns one line about a clip: its name, range, length, size, frame rate and codec."""
    length = format_time(info.duration)
    if clip.start is not None or clip.end is not None:
        end = "the end" if clip.end is None else format_time(clip.end)
        length = f"{format_time(clip.start or 0.0)} to {end} of {length}"
    return (
        f"{sanitize_line(clip.path.name)}: {length}, {info.width}x{info.height}, "
        f"{info.fps:.4g} fps, {info.codec}"
    )


def frame_lines(frames: "Frames") -> list[str]:
    """Returns a line for each frame: its number in the file, a tab, its time."""
    return [
        f"{index}\t{time}"
        for index, time in zip(frames.indices, format_times(frames.times), strict=True)
    ]


def frames_json(
    video: str, clip: Clip, frames: "Frames", canvas: dict[str, int], *, pretty: bool
) -> str:
    """Returns one JSON object: the file, the range, the canvas and every frame.

    Args:
        video: The file as the user named it.
        clip: The range asked for; its open ends become those of the file.
        canvas: What `panda frames` says about the size of the pictures, in pixels.
        pretty: Indented, for people.
    """
    info = frames.info
    end = info.duration if clip.end is None else min(clip.end, info.duration)
    record = {
        "video": video,
        "width": info.width,
        "height": info.height,
        "duration": round(info.duration, 6),
        "fps": round(info.fps, 6),
        "frame_count": info.frame_count,
        "codec": info.codec,
        "range": {"from": round(clip.start or 0.0, 6), "to": round(end, 6)},
        "canvas": canvas,
        "frames": [
            {"index": int(index), "time": round(float(time), 6)}
            for index, time in zip(frames.indices, frames.times, strict=True)
        ],
    }
    return json_text(record, pretty=pretty)
