"""Linear layers with int8 weights on the CPU (dynamic quantisation).

Weights have one scale per row, inputs one per token. In the residual pass the rounding error of a
token is multiplied as a second row, which gives it about 15 bits. Trained Llamas need that for
tokens in which a few channels are hundreds of times larger than the rest (Dettmers et al., arXiv
2208.07339). It is cheap for few tokens, as in decoding, where reading the weights takes the time.

On CPUs with AVX-512 VNNI the products are those of oneDNN, on the weights as they are stored, which
may be mapped from a file: a model is ready at once, and long prompts are read fastest so. Decoding
is 1.4 times as fast with weights that are packed for fbgemm, which takes a minute of one core for a
7B: `pack_in_background` is for models that decode longer than that. Other CPUs add pairs of
products in 16 bits, which oneDNN lets overflow; there all weights are packed.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from threading import Lock, Thread
from weakref import ref

import numpy as np
import torch
from torch import Tensor, nn

from pandacli.file_io import parse_object

_FEW = 64  # up to this many tokens of a text, always add the residual pass
_OUTLIER = 8.0  # peak over root mean square from which a token gets the residual pass
_PIECE = 256  # rows whose products are still in the cache when they are scaled
_VECTORS = 4  # rows up to which matrix-vector products are faster than a matrix product
_ROWS = 4  # of a matrix product: oneDNN takes longer for numbers that are no multiple
_WIDENED = 1 << 18  # weights that are widened at a time, in the cache
_CACHED_BYTES = 4 << 20  # of weights that matrix-vector products read in turns
_TINY = torch.finfo(torch.float32).tiny

_residual_for_all: ContextVar[bool] = ContextVar("residual_for_all", default=False)
_WARNINGS = Lock()  # layers are packed in threads, and all of them share the warning filters


@contextmanager
def residual_for_all() -> Iterator[None]:
    """Add the residual pass to every token, so that results do not depend on the batch."""
    token = _residual_for_all.set(True)
    try:
        yield
    finally:
        _residual_for_all.reset(token)


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise each row of a floating-point weight (out, in) to int8, symmetrically.

    Returns (out, in) int8 from -127 to 127, and (out,) float32, the size of a step.
    """
    weight = weight.float()
    scale = weight.abs().amax(1).clamp_min(_TINY) / 127
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def widen_4bit(weight: Tensor, parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Convert a 4-bit weight of bitsandbytes to rows of int8, as `quantize_rows` returns them.

    All of it runs on one core, so that several weights can be converted at once.

    Args:
        weight: (n, 1) uint8, two weights each, the first in the high bits.
        parts: The checked parts of its quantisation state: `absmax`, `quant_map` and so on.
    """
    packed = next(part for name, part in parts.items() if name.startswith("quant_state."))
    state = parse_object(bytes(packed.tolist()))
    (rows, columns), block = state["shape"], state["blocksize"]
    largest, code = parts["absmax"].numpy(), parts["quant_map"].numpy()
    if "nested_absmax" in parts:
        outer = parts["nested_absmax"].numpy().repeat(state["nested_blocksize"])[: len(largest)]
        largest = parts["nested_quant_map"].numpy().take(largest) * outer
        largest += np.float32(state["nested_offset"])
    pairs = np.stack((code.repeat(16), np.tile(code, 16)), 1)  # what each byte stands for
    if columns % 4 or columns % block:  # of no published model
        values = pairs[weight.numpy().ravel()].ravel()[: rows * columns]
        values *= largest.repeat(block)[: rows * columns]
        return quantize_rows(torch.from_numpy(values.reshape(rows, columns)))
    # four weights are looked up at once, and move as one number of 16 bytes
    fours = np.concatenate((np.tile(pairs, (256, 1)), pairs.repeat(256, 0)), 1)
    table = fours.view(np.complex128).ravel()
    indices = np.frombuffer(weight.numpy(), "<u2").reshape(rows, -1)
    largest = largest.reshape(rows, -1)
    scale = np.maximum(np.abs(largest).max(1) * np.abs(code).max(), _TINY) / 127
    factors = (largest / scale[:, None])[..., None]
    widened = np.empty((rows, columns), np.int8)
    step = min(rows, max(1, _WIDENED // columns))
    room = np.empty((step, columns // 4), np.complex128)
    for start in range(0, rows, step):
        at = slice(start, start + step)
        count = len(indices[at])
        # in numpy, which needs neither the interpreter lock here nor threads of its own
        found = np.take(table, indices[at], out=room[:count], mode="clip").view(np.float32)
        blocks = found.reshape(count, -1, block)
        np.rint(np.multiply(blocks, factors[at], out=blocks), out=blocks)
        np.copyto(widened[at], found, casting="unsafe")
    return torch.from_numpy(widened), torch.from_numpy(scale)


class Int8Linear(nn.Module):
    """A linear layer without bias on the CPU, for inference; takes what `quantize_rows` returns."""

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._scale = scale
        self._weight: _StoredWeight | _PackedWeight = (
            _StoredWeight(weight) if has_exact_product() else _PackedWeight(weight)
        )

    def pack(self) -> None:
        """Pack stored weights, which are then no longer needed; outputs stay the same."""
        if isinstance(self._weight, _StoredWeight):
            self._weight = _PackedWeight(self._weight.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., n, in) float32 to (..., n, out) float32, of n tokens of each text."""
        tokens, weight = inputs.reshape(-1, self.in_features), self._weight
        count, steps = len(tokens), weight.steps
        peak = tokens.abs().amax(1, keepdim=True).clamp_min(_TINY)
        chosen = _residual_tokens(tokens, peak, few=inputs.shape[-2] <= _FEW)
        scaled = torch.div(tokens, peak).mul_(steps)
        rounded = scaled.round()
        residual = (scaled[chosen] - rounded[chosen]).mul_(2 * steps).round_()
        rows = torch.cat((rounded, residual))
        products, scale = tokens.new_empty(len(rows), self.out_features), self._scale / steps
        for given, product in zip(rows.split(_PIECE), products.split(_PIECE), strict=True):
            torch.mul(weight.multiply(given), scale, out=product)
        outputs = products[:count]
        if len(residual):
            outputs[chosen] += products[count:].div_(2 * steps)
        return outputs.mul_(peak).view(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


def _residual_tokens(tokens: Tensor, peak: Tensor, *, few: bool) -> slice | Tensor:
    """Select the tokens (n, in) for the residual pass."""
    if few or _residual_for_all.get():
        return slice(None)
    usual = tokens.square().mean(1, keepdim=True).sqrt()
    return (peak > _OUTLIER * usual).flatten().nonzero().flatten()


def pack_in_background(model: nn.Module, has_room: Callable[[int], bool]) -> None:
    """Pack the int8 layers of a model one by one in a thread, on one core.

    It ends with the model, or when `has_room` is False for the bytes of the next layer.
    """
    layers = [ref(layer) for layer in model.modules() if isinstance(layer, Int8Linear)]

    def work() -> None:
        for number in range(len(layers)):
            layer = layers[number]()
            if layer is None or not has_room(layer.out_features * layer.in_features):
                return
            layer.pack()

    if layers:
        Thread(target=work, name="panda packing", daemon=True).start()


class _StoredWeight:
    """Weights as they are stored, for oneDNN, which is given them as the first factor.

    As the second one it would copy them into blocks at every product, which takes longer than the
    product itself up to a hundred tokens.
    """

    steps = 127  # of an input, on either side of zero

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def multiply(self, rows: Tensor) -> Tensor:
        """Multiply whole numbers (n, in), float32 up to `steps`; returns (n, out) int32, exact."""
        count, width = rows.shape
        rows = rows.to(torch.int8)
        if count > _VECTORS:
            filled = nn.functional.pad(rows, (0, 0, 0, -count % _ROWS))
            return torch._int_mm(self.weight, filled.t()).t()[:count]
        # matrix-vector products, all but the first on weights that are still in the cache
        pieces = self.weight.split(max(1, _CACHED_BYTES // width))
        vectors = rows.split(1)
        return torch.cat(
            [torch.cat([torch._int_mm(row, piece.t()) for row in vectors]) for piece in pieces], 1
        )


class _PackedWeight:
    """Weights that are packed for fbgemm, which takes 0.2 to 0.3 s for each of the 7B's layers."""

    def __init__(self, weight: Tensor) -> None:
        self.packed, self.steps = _pack(weight), input_steps()

    def multiply(self, rows: Tensor) -> Tensor:
        """As `_StoredWeight.multiply`; returns the same numbers, rounded to float32."""
        # the kernel divides the range of its input into 255 steps, or 127 with reduced range; the
        # last row makes that range so wide that a step is 1
        filled = nn.functional.pad(rows, (0, 0, 0, 1))
        filled[-1, 0] = self.steps + 0.5
        filled[-1, -1] = -filled[-1, 0]
        reduced = self.steps < _StoredWeight.steps
        products: Tensor = torch.ops.quantized.linear_dynamic(filled, self.packed, reduced)
        return products[:-1]


@cache
def has_exact_product() -> bool:
    """Whether oneDNN's product of int8 matrices is exact here, as it is with AVX-512 VNNI.

    Where it is not, it is also slow; where it is exact without AVX-512, torch may have no kernel.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    largest = torch.full((_ROWS, 64), _StoredWeight.steps, dtype=torch.int8)
    sums = 64 * _StoredWeight.steps**2
    above, below = (torch._int_mm(largest, each.t()) for each in (largest, -largest))
    return bool((above == sums).all() and (below == -sums).all())


def _pack(weight: Tensor) -> torch.ScriptObject:
    with _WARNINGS, warnings.catch_warnings():
        # torch warns that it will drop quantised tensors; nothing else has these kernels
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
        ones, zeros = torch.ones(len(weight)).double(), torch.zeros(len(weight), dtype=torch.long)
        quantized = torch._make_per_channel_quantized_tensor(weight, ones, zeros, 0)
    packed: torch.ScriptObject = torch.ops.quantized.linear_prepack(quantized, None)
    return packed


@cache
def input_steps() -> int:
    """Steps of an input that do not saturate: 127, or 63 on a CPU without VNNI.

    Without VNNI the kernels add pairs of products in 16 bits, which a product here probes for.
    """
    width = 64
    ones = torch.ones(width, width)
    packed = _pack(quantize_rows(ones)[0])
    product = torch.ops.quantized.linear_dynamic(torch.cat((ones, -ones)), packed, False)
    whole = torch.tensor(float(width * 127))
    return 127 if torch.allclose(product[:width], whole, rtol=0.02) else 63
