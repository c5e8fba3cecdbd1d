"""Load one form of a checkpoint, ask once, and print what that took as one JSON line.

The work of `benchmarks.forms`, in a process of its own: peak memory is that of a process, and a
form must not profit from what another has loaded.

    python -m benchmarks.one_form CHECKPOINT QUANT ENGINE DEVICE TOKENS

With TOKENS 0 nothing is asked: that is a load, or a conversion where the form is not stored yet.
"""

import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import pandacli
from pandacli import Panda, checkpoints
from pandacli.video import probe
from pandacli.video.preprocessing import content_box

CLIP = Path(pandacli.__file__).parent / "assets" / "demo.mp4"
QUESTION = "What happens in this video?"


def measure(checkpoint: str, quant: str, engine: str, device: str, tokens: int) -> dict[str, Any]:
    """What loading a form takes, and with `tokens` above 0 what an answer of that length does."""
    panda, measured = load(checkpoint, quant, engine, device)
    return measured | ask(panda, tokens) if tokens else measured


def load(checkpoint: str, quant: str, engine: str, device: str) -> tuple[Panda, dict[str, Any]]:
    """A loaded form, and what loading it took."""
    before = peak_bytes()
    started, read_before = perf_counter(), read_bytes()
    import torch  # noqa: F401  (what every load begins with)

    imported = perf_counter() - started
    panda = Panda.load(checkpoint, quant=quant, engine=engine, device=device)
    loaded = perf_counter() - started
    from pandacli.modeling.checkpoint import read_config  # imports torch

    config = read_config(checkpoints.resolve(checkpoint).folder)  # llama.cpp's has no layers
    return panda, {
        "engine": panda.engine,
        "dtype": panda.dtype,
        "config": asdict(config),
        "load_seconds": loaded,
        "import_seconds": imported,
        "load_read_bytes": read_bytes() - read_before,
        "imports_peak_bytes": before,
        "load_peak_bytes": peak_bytes(),
    }


def ask(panda: Panda, tokens: int) -> dict[str, Any]:
    """What an answer of this length about the demo's clip takes, with nothing kept from before."""
    stats, config = panda.ask(CLIP, QUESTION, max_tokens=tokens).stats, panda.model.config
    read = stats.prefix_tokens + stats.question_tokens
    info, cell = probe(CLIP), 2 * config.patch_size
    top, bottom, left, right = content_box(
        info.width, info.height, image_size=config.image_size, patch_size=config.patch_size
    )
    return {
        "frames": stats.frames,
        "cells": (bottom - top) * (right - left) // cell**2,
        "prefill_tokens": read,
        "answer_tokens": stats.answer_tokens,
        "prefill_tokens_per_second": read / stats.prefill_seconds,
        "decode_tokens_per_second": stats.tokens_per_second,
        "first_token_seconds": stats.first_token_seconds,
        "ask_peak_bytes": peak_bytes(),
    }


def peak_bytes() -> int:
    """The most memory that this process has had in use, mapped files included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # getrusage(2): kibibytes on Linux


def read_bytes() -> int:
    """What this process has had read from a disk, mapped files included; 0 but on Linux."""
    try:
        counters = Path("/proc/self/io").read_text()
    except OSError:
        return 0
    return int(dict(line.split(": ") for line in counters.splitlines())["read_bytes"])


def main() -> None:
    """Measure what the command line names."""
    checkpoint, quant, engine, device, tokens = sys.argv[1:]
    print(json.dumps(measure(checkpoint, quant, engine, device, int(tokens))))


if __name__ == "__main__":
    main()
