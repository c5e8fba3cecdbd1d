"""From a video file to the tensor of frames that the model looks at.

    clip        what the user names: a file and a range of time in it
    sampling    which frames to look at
    container   opening a file; refusing what is not one file with pictures in it
    stream      what the container says, without decoding
    pictures    a decoded frame to what a player shows of it
    images      the images that Pillow reads
    sources     PyAV and Pillow as walks over decoded frames
    leaps       the quick way to a few frames, where a file can be trusted
    reader      exact frames by number
    info        the facts about a file
    frames      a clip's sampled frames, with their times
    canvas      frames to what the model sees

The names below are loaded when first used, so that importing this package, or
`pandacli.video.clip`, costs neither numpy nor FFmpeg.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandacli.video.clip import Clip, format_time, parse_time
    from pandacli.video.decoder import read_frames
    from pandacli.video.info import VideoInfo, probe
    from pandacli.video.preprocessing import content_box, fit_to_box, preprocess
    from pandacli.video.sampling import Frames, sample_frames, sample_indices

__all__ = [
    "Clip",
    "Frames",
    "VideoInfo",
    "content_box",
    "fit_to_box",
    "format_time",
    "parse_time",
    "preprocess",
    "probe",
    "read_frames",
    "sample_frames",
    "sample_indices",
]

_HOME = {
    "Clip": "clip",
    "Frames": "sampling",
    "VideoInfo": "info",
    "content_box": "preprocessing",
    "fit_to_box": "preprocessing",
    "format_time": "clip",
    "parse_time": "clip",
    "preprocess": "preprocessing",
    "probe": "info",
    "read_frames": "decoder",
    "sample_frames": "sampling",
    "sample_indices": "sampling",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
