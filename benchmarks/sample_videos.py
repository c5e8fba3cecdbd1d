"""Videos to measure frame readers on: pictures that move, in the forms that people have.

    python -c "from benchmarks.sample_videos import *; write_all(Path('FOLDER'), VIDEOS)"

FFmpeg's test picture with a little grain, drawn and encoded by PyAV. A long video is a minute of
it, repeated.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.filter

_GROUP = {"g": "250"}  # an encoder's usual distance of key frames


@dataclass(frozen=True)
class Sample:
    """A video to write.

    Attributes:
        seconds: How much of it is drawn.
        repeated: How many times that is shown.
        uneven: Whether frames are shown for different times.
    """

    codec: str
    size: tuple[int, int]
    seconds: int
    rate: int = 30
    repeated: int = 1
    uneven: bool = False
    pix_fmt: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)


_LIVE = {"deadline": "realtime", "cpu-used": "8"}
_H264 = _GROUP | {"preset": "superfast", "bf": "2", "crf": "28"}
VIDEOS = {
    "h264-1080p-10min.mp4": Sample("libx264", (1920, 1080), 60, repeated=10, options=_H264),
    "h264-720p-1min.mp4": Sample("libx264", (1280, 720), 60, options=_H264),
    "h264-240p-10s.mp4": Sample("libx264", (320, 240), 10, options=_H264),
    "h264-240p-5s.mp4": Sample("libx264", (320, 240), 5, options=_H264),
    "uneven-480p-1min.mp4": Sample("libx264", (854, 480), 60, uneven=True, options=_H264),
    "h264-480p-1min.ts": Sample("libx264", (854, 480), 60, options=_H264),
    "hevc-480p-30s.mp4": Sample(
        "libx265",
        (854, 480),
        30,
        options={"preset": "ultrafast", "x265-params": "log-level=none:keyint=250"},
    ),
    "vp9-480p-30s.webm": Sample(
        "libvpx-vp9",
        (854, 480),
        30,
        options={"g": "128", "deadline": "realtime", "cpu-used": "8", "b": "1500000"},
    ),
    "av1-480p-30s.mp4": Sample(
        "libsvtav1", (854, 480), 30, options={"preset": "11", "svtav1-params": "lp=2"}
    ),
    "mpeg4-480p-30s.avi": Sample("mpeg4", (640, 480), 30, options={"q": "4", "bf": "0", "g": "12"}),
    "animated-320p-10s.gif": Sample("gif", (320, 240), 10, rate=10, pix_fmt="rgb8"),
}


def write_all(folder: Path, samples: Mapping[str, Sample]) -> list[Path]:
    """Write the videos that are not in `folder` yet, and return the paths of all."""
    for name, sample in samples.items():
        if (folder / name).exists():
            continue
        minute = folder / f"part-{name}"
        _write(sample, minute)
        if sample.repeated > 1:
            _repeat(minute, folder / name, sample.repeated)
            minute.unlink()
        else:
            minute.rename(folder / name)
    return [folder / name for name in samples]


def _write(sample: Sample, path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(
            sample.codec, rate=sample.rate, options=dict(sample.options)
        )
        stream.width, stream.height = sample.size
        stream.pix_fmt = sample.pix_fmt
        time_base = Fraction(1, 1000) if sample.uneven else Fraction(1, sample.rate)
        stream.codec_context.time_base = time_base
        for number, frame in enumerate(_drawn(sample)):
            frame.pict_type = 0
            frame.time_base = time_base
            frame.pts = number
            if sample.uneven:
                frame.pts = number * 1000 // sample.rate + number * number % 23
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _drawn(sample: Sample) -> Iterable[Any]:
    graph = av.filter.Graph()
    width, height = sample.size
    drawn = f"size={width}x{height}:rate={sample.rate}:duration={sample.seconds}"
    steps = [
        graph.add("testsrc2", drawn),
        graph.add("format", f"pix_fmts={sample.pix_fmt}"),
        graph.add("noise", "all_seed=1:c0s=3:c0f=t"),
        graph.add("format", f"pix_fmts={sample.pix_fmt}"),
        graph.add("buffersink"),
    ]
    for before, after in pairwise(steps):
        before.link_to(after)
    graph.configure()
    for _ in range(sample.seconds * sample.rate):
        yield graph.pull()


def _repeat(part: Path, path: Path, times: int) -> None:
    """Copy the packets of `part` so many times, one after the other."""
    with av.open(str(path), "w") as container:
        copy: Any = None
        for turn in range(times):
            with av.open(str(part)) as drawn:
                stream = drawn.streams.video[0]
                copy = copy or container.add_stream_from_template(stream)
                assert stream.duration is not None
                for packet in drawn.demux(stream):
                    if packet.pts is None or packet.dts is None:
                        continue
                    packet.pts += turn * stream.duration
                    packet.dts += turn * stream.duration
                    packet.stream = copy
                    container.mux(packet)
