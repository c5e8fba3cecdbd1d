"""The frames of all windows of a film: `python -m benchmarks.films`.

    python -m benchmarks.films                       # films made for it, in a folder of their own
    python -m benchmarks.films --folder /tmp/films   # make the films there, once

Sixty windows of ten seconds of a ten-minute film in 1080p, eight frames each, fitted to the model's
square image. `FilmReader` takes turns with three plain readers on PyAV: one that decodes the film
from start to end, one that seeks to the beginning of each window and decodes on, and one that seeks
to each frame. All of them start from nothing but a path; the plain readers know the frames' times
beforehand. Seconds are those of the CPU, of all threads and processes, and of the clock; medians.

The memory is the highest resident size of both processes while 720 windows of a film of two hours
(small pictures) are read, after the film is known and after the last window.
"""

import argparse
import json
import os
import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import av
import numpy as np
import psutil  # type: ignore[import-untyped]
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.sample_videos import Sample, write_all
from pandacli.video import Frames, fit_to_box
from pandacli.video.windows import FilmReader, Span, cut_windows

Pictures = NDArray[np.uint8]
Times = Sequence[Sequence[float]]  # of the frames of each window, in seconds

_WINDOW = 10.0
_FRAMES = 8
_SIDE = 448
_H264 = {"preset": "superfast", "bf": "2", "crf": "28"}


def film(group: int) -> Sample:
    """Ten minutes in 1080p with a key frame every `group` frames."""
    options = _H264 | {"g": str(group)}
    return Sample("libx264", (1920, 1080), 60, repeated=10, options=options)


FILMS = {"key frames each second.mp4": film(30), "key frames each ten seconds.mp4": film(300)}
LONG = {"two hours.mp4": Sample("libx264", (320, 180), 60, repeated=120, options=_H264)}


def ours(path: Path, times: Times) -> Iterator[Pictures]:
    """What `--every 10s` does, finding the times included."""
    with FilmReader(path, _FRAMES, _SIDE) as reader:
        spans = cut_windows(Span(0, reader.info().duration), _WINDOW)
        for (_, frames), expected in zip(reader.read(spans), times, strict=True):
            assert isinstance(frames, Frames), frames
            assert list(frames.times) == list(expected)
            yield frames.pixels


def sequentially(path: Path, times: Times) -> Iterator[Pictures]:
    """Decode all frames."""
    return _plainly(path, times, seeks_to_windows=False, seeks_to_frames=False)


def by_window(path: Path, times: Times) -> Iterator[Pictures]:
    """Jump to the key frame before each window, and decode up to its last frame."""
    return _plainly(path, times, seeks_to_windows=True, seeks_to_frames=False)


def by_frame(path: Path, times: Times) -> Iterator[Pictures]:
    """Jump to the key frame before each frame, and decode up to it."""
    return _plainly(path, times, seeks_to_windows=True, seeks_to_frames=True)


def _plainly(
    path: Path, times: Times, *, seeks_to_windows: bool, seeks_to_frames: bool
) -> Iterator[Pictures]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        assert stream.time_base is not None
        begin = stream.start_time or 0
        decoded = container.decode(stream)
        for window in times:
            pictures = []
            for number, time in enumerate(window):
                tick = begin + round(Fraction(time) / stream.time_base)
                if seeks_to_frames or (seeks_to_windows and number == 0):
                    container.seek(tick, stream=stream)
                    decoded = container.decode(stream)
                frame = next(f for f in decoded if f.pts is not None and f.pts >= tick)
                picture = np.asarray(
                    frame.to_ndarray(format="rgb24", interpolation="BICUBIC"), np.uint8
                )
                pictures.append(fit_to_box(picture[None], image_size=_SIDE)[0])
            yield np.stack(pictures)


READERS: dict[str, Callable[[Path, Times], Iterator[Pictures]]] = {
    "FilmReader": ours,
    "sequential": sequentially,
    "a seek for each window": by_window,
    "a seek for each frame": by_frame,
}


def times_of(path: Path) -> list[tuple[float, ...]]:
    """The times of the frames of all windows."""
    with FilmReader(path, _FRAMES, _SIDE) as reader:
        spans = cut_windows(Span(0, reader.info().duration), _WINDOW)
        return [frames.times for _, frames in reader.read(spans) if isinstance(frames, Frames)]


def cpu_seconds() -> float:
    """Those of this process and of its children, ended or not."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    living = [child.cpu_times() for child in psutil.Process().children()]
    total = sum(times.ru_utime + times.ru_stime for times in used)
    return float(total + sum(times.user + times.system for times in living))


def measure(path: Path, repeats: int) -> dict[str, Any]:
    """The seconds of each reader on a film, in turns."""
    times = times_of(path)
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in READERS}
    for _ in range(repeats):
        for name, reader in READERS.items():
            began, cpu = perf_counter(), cpu_seconds()
            count = sum(len(pictures) for pictures in reader(path, times))
            assert count == sum(map(len, times))
            took = {"cpu": cpu_seconds() - cpu, "clock": perf_counter() - began}
            seconds[name].append(took)
    return {"film": path.stem, "windows": len(times), "seconds": seconds}


def peak_memory(path: Path) -> dict[str, Any]:
    """The highest resident sizes in bytes of the reading process and of this one."""
    with FilmReader(path, _FRAMES, _SIDE) as reader:
        duration = reader.info().duration
        (worker,) = psutil.Process().children()
        opened = _peak(worker.pid), _peak(os.getpid())
        spans = cut_windows(Span(0, duration), _WINDOW)
        count = sum(isinstance(frames, Frames) for _, frames in reader.read(spans))
        read = _peak(worker.pid), _peak(os.getpid())
    return {"film": path.stem, "windows": count, "opened": opened, "read": read}


def _peak(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024


def table_of(films: list[dict[str, Any]]) -> Table:
    """Median seconds of each reader, and the ratio to the fastest plain one, of the CPU's."""
    table = Table("film", "reader", "CPU seconds", "clock seconds", "ratio of the CPU's")
    for found in films:
        cpu = {n: median(s["cpu"] for s in each) for n, each in found["seconds"].items()}
        best = min(seconds for name, seconds in cpu.items() if name != "FilmReader")
        for name, each in found["seconds"].items():
            clock = median(s["clock"] for s in each)
            row = f"{cpu[name]:.1f}", f"{clock:.1f}", f"{cpu[name] / best:.2f}"
            table.add_row(found["film"], name, *row)
    return table


def main() -> None:
    """Measure on films of two kinds, and the memory on a long one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, help="where to make the films, and to leave them")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = wanted.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        (long,) = write_all(folder, LONG)
        memory = peak_memory(long)  # before the other readers raise the peak of this process
        films = [measure(path, wanted.repeats) for path in write_all(folder, FILMS)]
    if wanted.json:
        print(json.dumps({"films": films, "memory": memory}, indent=2))
        return
    Console().print(table_of(films))
    for when in ("opened", "read"):
        worker, main_process = (size / 2**20 for size in memory[when])
        print(f"{memory['film']}, {when}: {worker:.0f} MiB and {main_process:.0f} MiB")


if __name__ == "__main__":
    main()
