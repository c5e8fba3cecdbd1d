"""From a video file to the tensor of frames that the model sees.

    clip           a video file and a time range in it
    container      opening files, and refusing what is not one file with pictures in it
    stream         the timestamp index of a video stream, read without decoding
    images         conversion of decoded frames to RGB; images through Pillow
    sources        decoders as iterators over frames
    seeking        keyframe seeking: the fast path to a few frames
    decoder        exact frames by number
    sampling       duration, frame rate and timestamps; the frames that the model sees
    preprocessing  letterboxing and normalisation

The names below are imported on first use, so that this package costs neither numpy nor FFmpeg.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandacli.video.clip import Clip, format_time, parse_time
    from pandacli.video.decoder import read_frames
    from pandacli.video.preprocessing import content_box, fit_to_box, preprocess
    from pandacli.video.sampling import Frames, VideoInfo, probe, sample_frames, sample_indices

_MODULES = {
    "clip": ("Clip", "format_time", "parse_time"),
    "decoder": ("read_frames",),
    "preprocessing": ("content_box", "fit_to_box", "preprocess"),
    "sampling": ("Frames", "VideoInfo", "probe", "sample_frames", "sample_indices"),
}

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


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
