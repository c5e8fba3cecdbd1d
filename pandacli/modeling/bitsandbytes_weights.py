"""Check the parts of weights that bitsandbytes stored in 8 or 4 bits.

    8 bits   NAME.weight (out, in) int8, NAME.SCB (out,) float32, NAME.weight_format () uint8
    4 bits   NAME.weight (ceil(out * in / 2), 1) uint8, and NAME.weight.P with P one of
             absmax, quant_map, nested_absmax, nested_quant_map, quant_state.bitsandbytes__nf4

The kernels of bitsandbytes trust the shapes and the packed state (block sizes, shape, dtype) that a
file declares, and read out of bounds where these are wrong.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pandacli.file_io import parse_object

QUANT_STATE = "quant_state.bitsandbytes__"
"""Prefix of the name of a packed quantisation state, before "nf4" or "fp4"."""

_INT8_PARTS = ("SCB", "weight_format")
_NESTED = ("nested_absmax", "nested_quant_map")
_BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_DTYPES = ("float16", "bfloat16", "float32")
_STATE_BYTES = 4096  # of a few names and numbers, as JSON


def quantization_fields(stored: Any) -> dict[str, Any]:
    """Check a `quantization_config` and reduce it to the fields transformers needs.

    It does not decide which layers are quantised: the stored tensors do.

    Raises:
        ValueError: It is not of bitsandbytes, or its fields contradict each other.
    """
    if not isinstance(stored, dict):
        raise ValueError("quantization_config is not an object")
    method = stored.get("quant_method", "bitsandbytes")
    if method not in ("bitsandbytes", "bitsandbytes_8bit", "bitsandbytes_4bit"):
        raise ValueError(f"quantization by {method!r} is not supported, only by 'bitsandbytes'")
    in_8bit, in_4bit = (stored.get(name, False) for name in ("load_in_8bit", "load_in_4bit"))
    if {in_8bit, in_4bit} != {True, False}:
        raise ValueError("quantization_config sets not exactly one of load_in_8bit, load_in_4bit")
    kind = stored.get("bnb_4bit_quant_type", "fp4")
    if kind not in ("nf4", "fp4"):
        raise ValueError(f"bnb_4bit_quant_type {kind!r} is neither 'nf4' nor 'fp4'")
    threshold = stored.get("llm_int8_threshold", 6.0)
    if not isinstance(threshold, int | float) or not 0 <= threshold < math.inf:
        raise ValueError(f"llm_int8_threshold {threshold!r} is not a positive number")
    return {
        "quant_method": "bitsandbytes",
        "load_in_8bit": in_8bit,
        "load_in_4bit": in_4bit,
        "bnb_4bit_quant_type": kind,
        "bnb_4bit_use_double_quant": bool(stored.get("bnb_4bit_use_double_quant", False)),
        "llm_int8_threshold": float(threshold),
    }


def part_of(name: str) -> str | None:
    """The quantised weight that a tensor of this name belongs to, if any."""
    owner, _, part = name.rpartition(".")
    if part in _INT8_PARTS:
        return f"{owner}.weight"
    start, found, _ = name.partition(".weight.")
    return f"{start}.weight" if found else None


def check_parts(parts: Mapping[str, Tensor], shape: torch.Size, bits: int) -> None:
    """Refuse a quantised weight with missing or inconsistent parts.

    Args:
        parts: The parts by their names within the layer: "weight", "SCB", "weight.absmax", ...
        shape: That of the weight, (out, in).
        bits: 8 or 4.

    Raises:
        ValueError: A part is missing, of another shape or type, or out of range.
    """
    if bits == 8:
        _check_int8(parts, shape)
    else:
        _check_4bit({name.removeprefix("weight."): part for name, part in parts.items()}, shape)


def _check_int8(parts: Mapping[str, Tensor], shape: torch.Size) -> None:
    wanted = {
        "weight": (tuple(shape), torch.int8),
        "SCB": ((shape[0],), torch.float32),
        "weight_format": ((), torch.uint8),
    }
    _check(parts, wanted)
    if int(parts["weight_format"]) != 0:
        raise ValueError("weight_format is not 'row by row'")
    if float(parts["SCB"].amin()) < 0:
        raise ValueError("SCB holds negative scales")


def _check_4bit(parts: Mapping[str, Tensor], shape: torch.Size) -> None:
    states = [name for name in parts if name.startswith(QUANT_STATE)]
    if len(states) != 1:
        raise ValueError(f"{len(states)} quantisation states instead of 1")
    packed = parts[states[0]]
    if packed.dtype != torch.uint8 or packed.ndim != 1 or len(packed) > _STATE_BYTES:
        raise ValueError(f"{states[0]} is not a packed state")
    state = parse_object(bytes(packed.tolist()))
    nested = "nested_absmax" in parts
    known = {
        "quant_type": [states[0].removeprefix(QUANT_STATE)],
        "blocksize": _BLOCK_SIZES,
        "dtype": _DTYPES,
        "shape": [list(shape)],
    }
    if nested:
        known |= {"nested_blocksize": _BLOCK_SIZES, "nested_dtype": _DTYPES}
    for field, values in known.items():
        if repr(state.get(field)) not in map(repr, values):  # 64.0 and True are not 64 and 1
            raise ValueError(f"{field} {state.get(field)!r} in the quantisation state")
    offset = state.get("nested_offset") if nested else 0.0
    extra = state.keys() - known.keys() - ({"nested_offset"} if nested else set())
    if extra or not isinstance(offset, int | float) or not math.isfinite(offset):
        raise ValueError("unknown fields in the quantisation state")
    count = shape.numel()
    blocks = -(-count // state["blocksize"])
    wanted = {
        "weight": ((-(-count // 2), 1), torch.uint8),
        "absmax": ((blocks,), torch.uint8 if nested else torch.float32),
        "quant_map": ((16,), torch.float32),
        states[0]: (tuple(packed.shape), torch.uint8),
    }
    if nested:
        blocks = -(-blocks // state["nested_blocksize"])
        wanted["nested_absmax"] = (blocks,), torch.float32
        wanted["nested_quant_map"] = (256,), torch.float32
    _check(parts, wanted)


def _check(
    parts: Mapping[str, Tensor], wanted: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
) -> None:
    if different := sorted(parts.keys() ^ wanted.keys()):
        raise ValueError(f"unexpected or missing: {', '.join(different)}")
    for name, (shape, dtype) in wanted.items():
        part = parts[name]
        if tuple(part.shape) != shape or part.dtype != dtype:
            found = f"{tuple(part.shape)} {str(part.dtype).removeprefix('torch.')}"
            raise ValueError(f"{name} is {found}")
