"""Write a checkpoint with the size and layout of Video-Panda-7B, and random weights.

    python -m benchmarks.big_checkpoint FOLDER               # 13.6 GB, at the speed of the disk
    python -m benchmarks.big_checkpoint FOLDER --layers 2    # the same width, 1.4 GB

The same command writes the same weights. They come from one block of normal numbers, which each
tensor starts at another place of and repeats, scaled so that what a layer gives stays as large as
what it took. Memory stays bounded whatever the size: torch writes the files with room for the
tensors, and the room is filled from the block.
"""

import argparse
import math
import shutil
import sys
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.serialization import skip_data

from benchmarks.official_layout import (
    Layout,
    config_of,
    layout_of,
    shard_name,
    write_config,
    write_index,
)
from benchmarks.tokenizer import tokenizer_model
from pandacli.modeling.checkpoint import BATCH_COUNTER

SHARD_BYTES = 10_000_000_000
"""What `save_pretrained` of the authors' transformers, 4.31, gives a shard at most."""

_BLOCK = 4_194_301  # numbers; a prime, so that no row of a matrix comes twice
_TEACHER_NUMBERS = 4_194_304
_CONTROL_VECTORS = ("class_embedding", "split_embedding", "temporal_cls_token", "balance")


def write_checkpoint(
    folder: Path, config: dict[str, Any], *, shard_bytes: int = SHARD_BYTES, seed: int = 0
) -> int:
    """Write a checkpoint with random bfloat16 weights in the authors' layout.

    Args:
        folder: Where to; made if it is not there.
        config: What `config.json` is to hold, see `config_of`.
        shard_bytes: The most that a shard holds, unless one tensor is larger.
        seed: Other seeds give other weights.

    Returns:
        The bytes of all tensors.

    Raises:
        OSError: The disk has too little room.
    """
    layout = layout_of(config, _TEACHER_NUMBERS)
    total = sum(_bytes(name, shape) for name, shape in layout.shapes.items())
    write_config(folder, config)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise OSError(f"{total / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} are free")
    (folder / "tokenizer.model").write_bytes(tokenizer_model(config["vocab_size"]))
    (folder / "tokenizer_config.json").write_text('{"legacy": false}')
    block = torch.randn(_BLOCK, generator=torch.Generator().manual_seed(seed))
    shards = list(_shards(layout, shard_bytes))
    places: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = shard_name(number, len(shards))
        stored = names + [alias for alias, name in layout.aliases.items() if name in set(names)]
        _write_room(folder / file, layout, stored)
        _fill(folder / file, layout, names, block)
        places |= dict.fromkeys(stored, file)
    write_index(folder, places, total)
    return total


def _shards(layout: Layout, most: int) -> Iterator[list[str]]:
    """The names of the tensors, in order, shard by shard."""
    names: list[str] = []
    held = 0
    for name, shape in layout.shapes.items():
        size = _bytes(name, shape)
        if names and held + size > most:
            yield names
            names, held = [], 0
        names.append(name)
        held += size
    yield names


def _dtype(name: str) -> torch.dtype:
    return torch.int64 if name.endswith(BATCH_COUNTER) else torch.bfloat16


def _bytes(name: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * _dtype(name).itemsize


def _write_room(path: Path, layout: Layout, names: list[str]) -> None:
    """Write a shard in which every tensor is there and zero; aliases share their room."""
    with FakeTensorMode(), skip_data(materialize_fake_tensors=True):
        own = {
            n: torch.empty(layout.shapes[n], dtype=_dtype(n)) for n in names if n in layout.shapes
        }
        torch.save({name: own[layout.aliases.get(name, name)] for name in names}, path)


def _fill(path: Path, layout: Layout, names: list[str], block: torch.Tensor) -> None:
    """Put the values of the named tensors into the room for them."""
    with FakeTensorMode():
        room = torch.load(path, weights_only=True)
    scaled = lru_cache(maxsize=8)(lambda spread, mean: _packed(block * spread + mean))
    with path.open("r+b") as file:
        for name in names:
            shape = layout.shapes[name]
            if _dtype(name) == torch.bfloat16:
                file.seek(room[name].untyped_storage()._checkpoint_offset)
                for piece in _repeated(scaled(*spread_and_mean(name, shape)), name, shape):
                    file.write(piece)


def spread_and_mean(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """How wide the values of a tensor lie, and about what.

    Gains and variances are near one, biases near zero, and a matrix keeps the size of its input.
    """
    leaf = name.rsplit(".", 1)[-1]
    if leaf in _CONTROL_VECTORS or name.endswith("embed_tokens.weight"):
        return 1.0, 0.0
    if leaf in ("bias", "in_proj_bias", "running_mean"):
        return 0.1, 0.0
    if len(shape) == 1:
        return 0.1, 1.0
    return 1 / math.sqrt(math.prod(shape[1:])), 0.0


def _packed(values: torch.Tensor) -> memoryview:
    return memoryview(values.bfloat16().view(torch.int16).numpy().tobytes())


def _repeated(block: memoryview, name: str, shape: tuple[int, ...]) -> Iterator[memoryview]:
    """The bytes of a tensor: the block from a place that its name tells, and on from its start."""
    left = 2 * math.prod(shape)
    start = 2 * (zlib.crc32(name.encode()) % _BLOCK)
    while left:
        piece = block[start : start + left]
        yield piece
        left -= len(piece)
        start = 0


def main() -> None:
    """Write the checkpoint that the command line describes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--intermediate", type=int, default=11008)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--video-hidden", type=int, default=1024)
    parser.add_argument("--shard-size", type=float, default=SHARD_BYTES / 1e9, metavar="GB")
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    config = config_of(
        vocab_size=32_000,
        hidden_size=wanted.hidden,
        intermediate_size=wanted.intermediate,
        num_hidden_layers=wanted.layers,
        num_attention_heads=wanted.heads,
        num_key_value_heads=wanted.heads,
        video_hidden_size=wanted.video_hidden,
        mm_hidden_size=wanted.video_hidden,
        torch_dtype="bfloat16",
    )
    shard_bytes = int(wanted.shard_size * 1e9)
    try:
        written = write_checkpoint(wanted.folder, config, shard_bytes=shard_bytes, seed=wanted.seed)
    except OSError as error:
        sys.exit(f"cannot write the checkpoint: {error}")
    print(f"{wanted.folder}: {written / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
