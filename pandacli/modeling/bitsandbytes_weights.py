"""Read, check and use weights that bitsandbytes stored in 8 or 4 bits.

    8 bits   NAME.weight (out, in) int8, NAME.SCB (out,) float32, NAME.weight_format () uint8
    4 bits   NAME.weight (ceil(out * in / 2), 1) uint8, and NAME.weight.P with P one of
             absmax, quant_map, nested_absmax, nested_quant_map, quant_state.bitsandbytes__nf4

The kernels of bitsandbytes trust the shapes and the packed state (block sizes, shape, dtype) that a
file declares, and read out of bounds if these are wrong.
"""

import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pandacli.checkpoint_files import INCOMPLETE
from pandacli.errors import ModelError
from pandacli.file_io import parse_object
from pandacli.modeling.checkpoint import (
    check_tensors,
    check_values,
    is_quantisable,
    read_stored,
    shape_and_dtype,
)

_QUANT_STATE = "weight.quant_state.bitsandbytes__"  # before "nf4" or "fp4"
_INT8_PARTS = ("SCB", "weight_format")
_BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_DTYPES = ("float16", "bfloat16", "float32")
_STATE_BYTES = 4096  # of a few names and numbers, as JSON


def read_quantised(
    folder: Path, expected: Mapping[str, Tensor], bits: int
) -> tuple[dict[str, Tensor], frozenset[str]]:
    """Map the tensors of a model whose layers bitsandbytes may have quantised to 8 or 4 `bits`.

    `expected` is the state dict of the unquantised model. Returns the tensors, the parts of
    quantised weights among them, whose values are checked, and the names of these weights.

    Raises:
        ModelError: As `read_tensors`; a quantised weight is incomplete, or is not of a layer.
    """
    tensors, _ = read_stored(folder, expected)
    quantised: dict[str, dict[str, Tensor]] = {}
    for name in tensors:
        if weight := _weight_of(name):
            quantised.setdefault(weight, {})[name] = tensors[name]
    check = _check_int8 if bits == 8 else _check_4bit
    for weight, parts in quantised.items():
        if weight not in expected or not is_quantisable(weight, expected[weight]):
            raise ModelError(f"{folder} stores {weight} quantised, which this model does not have")
        if weight in tensors:
            parts[weight] = tensors[weight]
        layer = weight.removesuffix("weight")
        unprefixed = {name.removeprefix(layer): part for name, part in parts.items()}
        try:
            check(unprefixed, expected[weight])
        except ValueError as error:
            raise ModelError(f"{weight} in {folder} is damaged: {error}", INCOMPLETE) from error
        check_values(folder, parts)
    plain = {k: t for k, t in tensors.items() if k not in quantised and not _weight_of(k)}
    unquantised = {name: tensor for name, tensor in expected.items() if name not in quantised}
    check_tensors(folder, plain, unquantised)
    if not quantised:
        raise ModelError(f"nothing in {folder} is quantised, as its config.json says", INCOMPLETE)
    return tensors, frozenset(quantised)


def bitsandbytes_linear(
    layer: str,
    parts: Mapping[str, Tensor],
    stored: Mapping[str, Any],
    device: torch.device,
    dtype: torch.dtype,
) -> nn.Module:
    """Build the linear layer of this name from its checked parts, on a device.

    `stored` is the `quantization_config`; `dtype` is that of its inputs and, in 4 bits, of its
    products.
    """
    bnb: Any = import_module("bitsandbytes").nn

    name = f"{layer}.weight"
    weight = parts[name].to(device)
    if stored["load_in_8bit"]:
        rows, columns = weight.shape
        linear: nn.Module = bnb.Linear8bitLt(
            columns,
            rows,
            bias=False,
            has_fp16_weights=False,
            threshold=stored["llm_int8_threshold"],
            device="meta",
        )
        scales = parts[f"{layer}.SCB"].to(device)
        linear.weight = bnb.Int8Params(
            weight, requires_grad=False, has_fp16_weights=False, CB=weight, SCB=scales
        )
        return linear
    start = f"{name}."
    state = {part[len(start) :]: value for part, value in parts.items() if part.startswith(start)}
    packed = next(value for part, value in state.items() if part.startswith("quant_state."))
    rows, columns = parse_object(bytes(packed.tolist()))["shape"]
    linear = bnb.Linear4bit(
        columns,
        rows,
        bias=False,
        compute_dtype=dtype,
        quant_type=stored["bnb_4bit_quant_type"],
        device="meta",
    )
    linear.weight = bnb.Params4bit.from_prequantized(
        data=weight, quantized_stats=state, requires_grad=False, device=device, module=linear
    )
    return linear


def _weight_of(name: str) -> str | None:
    """The quantised weight that a tensor of this name belongs to, if any."""
    owner, _, part = name.rpartition(".")
    if part in _INT8_PARTS:
        return f"{owner}.weight"
    start, found, _ = name.partition(".weight.")
    return f"{start}.weight" if found else None


def _check_int8(parts: Mapping[str, Tensor], expected: Tensor) -> None:
    wanted = {"weight": (tuple(expected.shape), torch.int8), "weight_format": ((), torch.uint8)}
    _check_parts(parts, wanted | {"SCB": ((len(expected),), torch.float32)})
    if int(parts["weight_format"]) != 0:
        raise ValueError("weight_format is not 'row by row'")
    if float(parts["SCB"].amin()) < 0:
        raise ValueError("SCB holds negative scales")


def _check_4bit(parts: Mapping[str, Tensor], expected: Tensor) -> None:
    states = [name for name in parts if name.startswith(_QUANT_STATE)]
    if len(states) != 1:
        raise ValueError(f"{len(states)} quantisation states instead of 1")
    packed = parts[states[0]]
    if packed.dtype != torch.uint8 or packed.ndim != 1 or len(packed) > _STATE_BYTES:
        raise ValueError(f"{states[0]} is not a packed state")
    state = parse_object(bytes(packed.tolist()))
    nested = "weight.nested_absmax" in parts
    known = {
        "quant_type": [states[0].removeprefix(_QUANT_STATE)],
        "blocksize": _BLOCK_SIZES,
        "dtype": _DTYPES,
        "shape": [list(expected.shape)],
    }
    if nested:
        known |= {"nested_blocksize": _BLOCK_SIZES, "nested_dtype": _DTYPES}
    for field, values in known.items():
        if repr(state.get(field)) not in map(repr, values):  # 64.0 and True are not 64 and 1
            raise ValueError(f"{field} {state.get(field)!r} in the quantisation state")
    offset = state.pop("nested_offset", None) if nested else 0.0
    valid = isinstance(offset, int | float) and math.isfinite(offset)
    if not valid or state.keys() != known.keys():
        raise ValueError("unknown fields in the quantisation state")
    count = expected.numel()
    blocks = -(-count // state["blocksize"])
    wanted = {
        "weight": ((-(-count // 2), 1), torch.uint8),
        "weight.absmax": ((blocks,), torch.uint8 if nested else torch.float32),
        "weight.quant_map": ((16,), torch.float32),
        states[0]: (tuple(packed.shape), torch.uint8),
    }
    if nested:
        blocks = -(-blocks // state["nested_blocksize"])
        wanted["weight.nested_absmax"] = (blocks,), torch.float32
        wanted["weight.nested_quant_map"] = (256,), torch.float32
    _check_parts(parts, wanted)


def _check_parts(
    parts: Mapping[str, Tensor], wanted: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
) -> None:
    if different := sorted(parts.keys() ^ wanted.keys()):
        raise ValueError(f"unexpected or missing: {', '.join(different)}")
    for name, (shape, dtype) in wanted.items():
        if tuple(parts[name].shape) != shape or parts[name].dtype != dtype:
            raise ValueError(f"{name} is {shape_and_dtype(parts[name])}")
