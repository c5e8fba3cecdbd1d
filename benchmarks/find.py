"""A second search beside the first: `python -m benchmarks.find MODEL`.

    python -m benchmarks.find tiny --clips 40

A folder of clips is searched with `panda find`, in a process of its own each time, with scores in
an empty folder: at first all clips are decoded and scored, then all scores are looked up, then one
clip in ten has been replaced. Rankings of equal folders must be equal.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from training.drawing import write_clip
from training.scenes import random_scene

_TEXT = "a red circle moves right"
_SIZE = (320, 240)
_SECONDS = 10.0
_REPLACED = 10  # one clip in so many


def draw_clip(path: Path, seed: int) -> None:
    """A clip of some seconds with moving shapes."""
    rng = np.random.default_rng(seed)
    scene = random_scene(rng, width=_SIZE[0], height=_SIZE[1], longest=_SECONDS)
    write_clip(scene, path, rng)


def search(words: list[str], home: Path) -> tuple[float, bytes]:
    """The seconds that a search takes, from the start of the process, and its ranking."""
    started = perf_counter()
    command = [sys.executable, "-m", "pandacli", "find", *words, _TEXT, "--top", "1000"]
    variables = os.environ | {"PANDA_HOME": str(home)}
    done = subprocess.run(command, env=variables, capture_output=True, check=True)
    return perf_counter() - started, done.stdout


def measure(model: str, device: str, clips: int, repeats: int) -> dict[str, Any]:
    """Seconds of each of the three searches."""
    seconds: dict[str, list[float]] = {"first": [], "second": [], "one in ten is new": []}
    with tempfile.TemporaryDirectory() as folder:
        videos, home = Path(folder) / "clips", Path(folder) / "home"
        videos.mkdir()
        for number in range(clips):
            draw_clip(videos / f"{number}.mp4", number)
        words = [str(videos), "--model", model, "--device", device]
        search(words, home)  # the files are in the page cache after that
        for repeat in range(repeats):
            shutil.rmtree(home, ignore_errors=True)
            first, ranking = search(words, home)
            second, again = search(words, home)
            assert ranking == again, "the second search ranks differently"
            for number in range(0, clips, _REPLACED):
                draw_clip(videos / f"{number}.mp4", clips * (repeat + 1) + number)
            partly, _ = search(words, home)
            for name, taken in zip(seconds, (first, second, partly), strict=True):
                seconds[name].append(taken)
    return {
        "model": model,
        "clips": clips,
        "seconds": {name: median(taken) for name, taken in seconds.items()},
    }


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    found = measure(wanted.model, wanted.device, wanted.clips, wanted.repeats)
    if wanted.json:
        print(json.dumps(found))
        return
    for name, seconds in found["seconds"].items():
        ratio = found["seconds"]["first"] / seconds
        print(f"{name:20} {seconds:8.2f} s  {ratio:6.1f} times as fast as the first")


if __name__ == "__main__":
    main()
