"""From a video file to the tensor of frames that the model sees.

They are imported on first use, to cost no numpy or FFmpeg. An unusable file is a `ClipError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandacli.video.clip import Clip, format_time, parse_time, parse_times
    from pandacli.video.decoder import read_frames
    from pandacli.video.preprocessing import content_box, fit_to_box, preprocess
    from pandacli.video.sampling import Frames, VideoInfo, probe, sample_frames, sample_indices

_MODULES = {
    **dict.fromkeys(("Clip", "format_time", "parse_time", "parse_times"), "clip"),
    **dict.fromkeys(("content_box", "fit_to_box", "preprocess"), "preprocessing"),
    **dict.fromkeys(("Frames", "VideoInfo", "probe"), "sampling"),
    **dict.fromkeys(("sample_frames", "sample_indices"), "sampling"),
    "read_frames": "decoder",
}

__all__ = [
    "Clip",
    "Frames",
    "VideoInfo",
    "content_box",
    "fit_to_box",
    "format_time",
    "parse_time",
    "parse_times",
    "preprocess",
    "probe",
    "read_frames",
    "sample_frames",
    "sample_indices",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
