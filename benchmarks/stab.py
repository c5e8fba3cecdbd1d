"""What frames cost beside a plain STAB and beside a ViT: `python -m benchmarks.stab`.

    python -m benchmarks.stab --repeats 7
    python -m benchmarks.stab --processor-time     # on a machine that is busy with something else

Eight frames, square and 16:9, at the published width: STAB beside the same mathematics unfused
(`benchmarks.plain_stab`), alone and with the projector, and with it beside CLIP's ViT-L/14, which
reads the same frames at 224 px. Everything takes turns with one and with all threads, in single
precision, and in half precision on a CUDA device where there is one. Weights are random.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks.plain_stab import plain_frames, plain_sequences
from benchmarks.report import Row, table_of
from pandacli.modeling.configuration_videopanda import VideoPandaConfig
from pandacli.modeling.modeling_videopanda import VideoPandaModel

FRAMES = 8
_SHAPES = {"1:1": 1.0, "16:9": 9 / 16}  # height of the content, as a part of the canvas
_PLAIN_GOAL = 2.0
_VIT_GOALS = {"1:1": 8.0, "16:9": 11.0}

Clock = Callable[[], float]


@dataclass(frozen=True)
class Setting:
    """Where and how something is computed."""

    name: str
    device: str
    dtype: torch.dtype
    threads: int


def settings() -> list[Setting]:
    """One thread, all of them, and a CUDA device: what this machine has."""
    threads = torch.get_num_threads()
    found = [Setting("1 thread", "cpu", torch.float32, 1)]
    if threads > 1:
        found.append(Setting(f"{threads} threads", "cpu", torch.float32, threads))
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        found.append(Setting(name, "cuda", torch.float16, threads))
    return found


def full_size() -> tuple[VideoPandaModel, CLIPVisionModel]:
    """STAB with the projector of the 7B, and ViT-L/14, both with random weights."""
    torch.manual_seed(0)
    panda = VideoPandaConfig(num_hidden_layers=0, vocab_size=8, intermediate_size=8)
    vit = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
    )
    models = VideoPandaModel(panda), CLIPVisionModel(vit)
    for model in models:
        model.train(False)
    return models


def clip(size: int, patch_size: int, height: float) -> Tensor:
    """(1, 8, 4, S, S): noise so high, as a part of the canvas, and plain bars."""
    lines = round(size * height / (2 * patch_size)) * 2 * patch_size
    top = (size - lines) // 2 // patch_size * patch_size
    values = torch.zeros(1, FRAMES, 4, size, size)
    values[:, :, :3, top : top + lines] = torch.randn(1, FRAMES, 3, lines, size)
    values[:, :, 3, top : top + lines] = 1
    return values


def contenders(
    panda: VideoPandaModel, vit: nn.Module, setting: Setting
) -> dict[str, Callable[[], object]]:
    """What takes turns, by name."""
    place: Any = {"device": setting.device, "dtype": setting.dtype}
    panda.to(**place)
    vit.to(**place)
    tower, projector, config = panda.video_tower, panda.video_projector, panda.config
    side: Any = vit.config
    frames = torch.randn(FRAMES, 3, side.image_size, side.image_size).to(**place)
    found: dict[str, Callable[[], object]] = {"ViT": partial(vit, frames)}
    for shape, height in _SHAPES.items():
        pixels = clip(config.image_size, config.patch_size, height).to(**place)
        found |= {
            f"{shape} plain": partial(plain_sequences, tower, pixels),
            f"{shape} STAB": partial(panda.run_tower, pixels),
            f"{shape} plain, projected": partial(plain_frames, tower, projector, pixels),
            f"{shape} projected": partial(panda.encode_frames, pixels),
        }
    return found


def seconds(run: Callable[[], object], setting: Setting, clock: Clock) -> float:
    """How long something takes, once."""
    torch.set_num_threads(setting.threads)
    with torch.no_grad():
        _wait(setting)
        started = clock()
        run()
        _wait(setting)
        return clock() - started


def _wait(setting: Setting) -> None:
    """Until a device has done what it was given."""
    if setting.device == "cuda":
        torch.cuda.synchronize()


def measure(
    panda: VideoPandaModel,
    vit: nn.Module,
    places: Sequence[Setting],
    repeats: int,
    clock: Clock = perf_counter,
) -> list[Row]:
    """Let everything take turns, after a round to warm up, and compare the medians."""
    found: list[Row] = []
    for place in places:
        runs = contenders(panda, vit, place)
        rounds = [
            {name: seconds(run, place, clock) for name, run in runs.items()}
            for _ in range(repeats + 1)
        ]
        found += compare({name: median(r[name] for r in rounds[1:]) for name in runs}, place)
    return found


def compare(medians: dict[str, float], place: Setting) -> list[Row]:
    """The rows of a table, of the medians of `contenders`."""
    pairs = [
        (f"{shape} {ours}", beside, theirs.format(shape), goal)
        for shape in _SHAPES
        for ours, beside, theirs, goal in (
            ("STAB", "plain STAB", "{} plain", _PLAIN_GOAL),
            ("projected", "plain STAB, projected", "{} plain, projected", None),
            ("projected", "ViT-L/14 at 224", "ViT", _VIT_GOALS[shape]),
        )
    ]
    return [
        Row(f"STAB, {place.name}", ours, medians[ours], "s", beside, medians[theirs], goal)
        for ours, beside, theirs, goal in pairs
    ]


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count what the processor spent on it, not what went by: with one thread only",
    )
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    places = settings()[:1] if wanted.processor_time else settings()
    clock = process_time if wanted.processor_time else perf_counter
    rows = measure(*full_size(), places, wanted.repeats, clock)
    if wanted.json:
        print(json.dumps([asdict(row) | {"ratio": row.ratio} for row in rows], indent=2))
        return
    Console(width=max(110, Console().width)).print(table_of(rows))


if __name__ == "__main__":
    main()
