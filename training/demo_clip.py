"""Render the clip of `panda demo`: `python -m training.demo_clip`."""

from pathlib import Path

import numpy as np

from training.drawing import write_clip
from training.scenes import Background, Scene, Shape

FILE = Path("pandacli/assets/demo.mp4")

SCENE = Scene(
    shapes=(
        Shape("circle", "red", "right", (225, 40, 40), (0.14, 0.3, 0.13), (0.84, 0.3, 0.13)),
        Shape("square", "blue", "still", (50, 90, 235), (0.3, 0.73, 0.16), (0.3, 0.73, 0.16)),
        Shape(
            "star",
            "yellow",
            "appears",
            (245, 215, 40),
            (0.72, 0.7, 0.19),
            (0.72, 0.7, 0.19),
            first=0.55,
        ),
    ),
    background=Background("black", (14, 14, 18), (14, 14, 18), noise=4.0),
    width=640,
    height=360,
    fps=25.0,
    frame_count=200,
)


def main() -> None:
    """Write the clip."""
    write_clip(SCENE, FILE, np.random.default_rng(0), quality=26)
    print(f"{FILE}: {FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
