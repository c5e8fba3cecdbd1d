"""How fast frames are read, and whether they are right: `python -m benchmarks.frames`.

    python -m benchmarks.frames                       # files made for it, in a folder of their own
    python -m benchmarks.frames clip.mp4 other.webm
    python -m benchmarks.frames --folder /tmp/videos  # make the files there, once

Eight frames are taken from each file by `sample_frames`, by decord and by a plain reader on PyAV
(jump to the key frame before, decode up to the frame), in turns; seconds are medians. All give
pictures in memory, from nothing but a path. Without decord, which comes with the extra `bench`,
there is no column of it.

A picture is right when, of all that decoding the whole file in order gives, it is nearest to the
one with its number, nearer than to that one's neighbours.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.sample_videos import VIDEOS, write_all
from pandacli.video import Clip, sample_frames

Pictures = NDArray[np.uint8]
Reader = Callable[[Path, Sequence[int]], Pictures]

_MATRIX_ERROR = 12.0
"""Grey levels by which readers may differ on average, not being of one mind about colours."""


_PATIENCE = 60.0
"""Seconds after which a reader is given up on a file."""


@dataclass
class Row:
    """What was measured on one file.

    Attributes:
        seconds: Of each reader, by name, a number a turn.
        exact: How many of the frames of each were right.
        frames: How many frames were asked for.
    """

    file: str
    frames: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    exact: dict[str, int] = field(default_factory=dict)


def ours(path: Path, _: Sequence[int]) -> Pictures:
    """What `panda ask` does, the choice of the frames included."""
    return sample_frames(Clip(path)).pixels


def by_decord(path: Path, indices: Sequence[int]) -> Pictures:
    """As its README has it."""
    decord = import_module("decord")
    pictures: Pictures = decord.VideoReader(str(path)).get_batch(list(indices)).asnumpy()
    return pictures


def by_pyav(path: Path, indices: Sequence[int]) -> Pictures:
    """Jump to the key frame before each frame, and decode up to it; times are worked out."""
    pictures = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        assert stream.average_rate is not None
        assert stream.time_base is not None
        begin = stream.start_time or 0
        for index in indices:
            tick = begin + round(index / stream.average_rate / stream.time_base)
            container.seek(tick, stream=stream)
            for frame in container.decode(stream):
                if frame.pts is None or frame.pts >= tick:
                    break
            pictures.append(frame.to_ndarray(format="rgb24"))
    return np.stack(pictures).astype(np.uint8)


def readers() -> dict[str, Reader]:
    """Those that can be measured here; ours comes first."""
    found: dict[str, Reader] = {"ours": ours}
    if find_spec("decord") is not None:
        found["decord"] = by_decord
    return found | {"pyav": by_pyav}


def in_order(path: Path, numbers: Iterable[int]) -> dict[int, Pictures]:
    """The frames and their neighbours by decoding all, as a check on those who jump."""
    wanted = {number + step for number in numbers for step in (-1, 0, 1)}
    pictures: dict[int, Pictures] = {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                pictures[number] = frame.to_ndarray(format="rgb24").astype(np.uint8)
            if number == max(wanted):
                break
    return pictures


def right_ones(pictures: Pictures, indices: Sequence[int], truth: dict[int, Pictures]) -> int:
    """How many of the pictures are those of the frames with these numbers."""
    right = 0
    for picture, index in zip(pictures, indices, strict=True):
        off = {
            step: float(np.abs(picture.astype(np.int16) - truth[index + step]).mean())
            for step in (-1, 0, 1)
            if index + step in truth and truth[index + step].shape == picture.shape
        }
        right += (
            bool(off) and off.get(0, _MATRIX_ERROR) < _MATRIX_ERROR and off[0] <= min(off.values())
        )
    return right


def _try(read: Reader, path: Path, indices: Sequence[int]) -> None:
    try:
        read(path, indices)
    except Exception:
        sys.exit(1)


def comes_back(read: Reader, path: Path, indices: Sequence[int]) -> bool:
    """Whether a reader reads a file at all: decord goes round in circles in some MPEG-TS."""
    process = multiprocessing.get_context("spawn").Process(target=_try, args=(read, path, indices))
    process.start()
    process.join(_PATIENCE)
    process.kill()
    process.join()
    return process.exitcode == 0


def measure(path: Path, rivals: dict[str, Reader], repeats: int) -> Row:
    """Let each read the file in turns."""
    indices = sample_frames(Clip(path)).indices
    rivals = {name: read for name, read in rivals.items() if comes_back(read, path, indices)}
    truth = in_order(path, indices)
    row = Row(path.name, len(indices))
    for turn in range(repeats + 1):
        for name, read in rivals.items():
            started = perf_counter()
            pictures = read(path, indices)
            if turn == 0:  # brings the file into the system's cache; not counted
                row.exact[name] = right_ones(pictures, indices, truth)
            else:
                row.seconds.setdefault(name, []).append(perf_counter() - started)
    return row


def ratio(row: Row, to: str) -> float | None:
    """How many times as long as `to` we took, side by side; below one is faster."""
    if to not in row.seconds:
        return None
    pairs = zip(row.seconds["ours"], row.seconds[to], strict=True)
    return median(our / their for our, their in pairs)


def table_of(rows: Sequence[Row], names: Sequence[str]) -> Table:
    """One row a file: seconds and right frames of each reader, and how long we take beside it."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("file", justify="left", no_wrap=True)
    for name in names:
        table.add_column(f"{name}, s", justify="right", no_wrap=True)
        table.add_column("right", justify="right")
    rivals = names[1:]
    for name in rivals:
        table.add_column(f"ours/{name}", justify="right", no_wrap=True)
    for row in rows:
        cells = [row.file]
        for name in names:
            seconds = row.seconds.get(name)
            cells.append(f"{median(seconds):.3g}" if seconds else "-")
            cells.append(f"{row.exact[name]}/{row.frames}" if name in row.exact else "-")
        ratios = (ratio(row, name) for name in rivals)
        cells += ["-" if found is None else f"x{found:.2f}" for found in ratios]
        table.add_row(*cells)
    return table


def as_json(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Every number behind the table."""
    found: list[dict[str, Any]] = [
        asdict(row) | {"ratios": {name: ratio(row, name) for name in names[1:]}} for row in rows
    ]
    return json.dumps({"cpus": os.cpu_count(), "load": os.getloadavg(), "files": found}, indent=2)


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="default: some that are made for it")
    parser.add_argument("--folder", type=Path, help="where to make them, and to leave them")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    rivals = readers()
    with tempfile.TemporaryDirectory() as temporary:
        folder = wanted.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        paths = wanted.files or write_all(folder, VIDEOS)
        rows = [measure(path, rivals, wanted.repeats) for path in paths]
    if wanted.json:
        print(as_json(rows, list(rivals)))
        return
    Console().print(table_of(rows, list(rivals)))
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
