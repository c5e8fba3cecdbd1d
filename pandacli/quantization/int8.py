"""Linear layers with 8-bit weights, on the int8 kernels that torch has for every CPU.

A weight is rounded to 255 steps of its row's largest magnitude. So is an input, token by token
(dynamic quantisation), and where that is not enough, what the rounding took away is a second
input: with it a token has 15 bits. It is enough for the many tokens of a clip. It is not for a
token in which a few channels are hundreds of times larger than the rest, as trained Llamas have
them (Dettmers et al., arXiv 2208.07339), nor where tokens are few, as while decoding: there reading
the weights is what takes time, and more rows cost nothing. Text is always read with remainders
(`every_remainder`): otherwise a token would depend on how many others are in the same pass.

CPUs without instructions for int8 (VNNI) add pairs of products in 16 bits and lose what is larger.
There an input has 127 steps, with which that cannot happen.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch
from torch import Tensor, nn

_FEW = 64
"""So many tokens, or fewer, are all taken with their remainders."""

_OUTLIER = 8.0
"""A token whose peak is this many times its root mean square is taken with its remainder."""

_TINY = torch.finfo(torch.float32).tiny

_every_remainder: ContextVar[bool] = ContextVar("every_remainder", default=False)


@contextmanager
def every_remainder() -> Iterator[None]:
    """Inside, each token is computed in the same way however many there are."""
    token = _every_remainder.set(True)
    try:
        yield
    finally:
        _every_remainder.reset(token)


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row of a weight to 8 bits.

    Args:
        weight: (out, in), any floating-point type.

    Returns:
        (out, in) int8 from -127 to 127, and (out,) float32, the size of a step.
    """
    weight = weight.float()
    scale = weight.abs().amax(1).clamp_min(_TINY) / 127
    return (weight / scale[:, None]).round_().to(torch.int8), scale


class Int8Linear(nn.Module):
    """A linear layer without bias, with 8-bit weights. On the CPU, for inference.

    Args:
        weight: (out, in) int8.
        scale: (out,) float32, see `quantize_rows`.
    """

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._packed = _pack(weight, scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in) float32 to (..., out) float32."""
        tokens = inputs.reshape(-1, self.in_features)
        count = len(tokens)
        peak = tokens.abs().amax(1, keepdim=True).clamp_min(_TINY)
        twice, added = _taken_twice(tokens, peak)
        steps = input_steps()
        rows = tokens.new_empty(count + added + 1, self.in_features)
        scaled = torch.div(tokens, peak, out=rows[:count])
        exact = scaled[twice]
        rounded = (exact * steps).round_().div_(steps)
        torch.sub(exact, rounded, out=rows[count:-1]).mul_(2 * steps)
        scaled[twice] = rounded
        _set_range(rows[-1], steps)
        outputs: Tensor = torch.ops.quantized.linear_dynamic(rows, self._packed, steps < 127)
        remainders = outputs[count:-1].div_(2 * steps)
        outputs = outputs[:count]
        outputs[twice] += remainders
        outputs *= peak
        return outputs.view(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Its sizes, as `nn.Linear` shows them."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


def _taken_twice(tokens: Tensor, peak: Tensor) -> tuple[slice | Tensor, int]:
    """Which of the tokens (n, in) are taken with their remainders, and how many."""
    if len(tokens) <= _FEW or _every_remainder.get():
        return slice(None), len(tokens)
    usual = tokens.square().mean(1, keepdim=True).sqrt()
    chosen = (peak > _OUTLIER * usual).flatten().nonzero().flatten()
    return chosen, len(chosen)


def _pack(weight: Tensor, scale: Tensor) -> torch.ScriptObject:
    with warnings.catch_warnings():
        # that quantised tensors will leave torch: their kernels are worth staying with it
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
        quantized = torch._make_per_channel_quantized_tensor(
            weight, scale.double(), torch.zeros(len(scale), dtype=torch.long), 0
        )
    packed: torch.ScriptObject = torch.ops.quantized.linear_prepack(quantized, None)
    return packed


def _set_range(row: Tensor, steps: int) -> None:
    """Make a row for the kernel to take its step from, so that the step is 1 / `steps`.

    The kernel divides the distance from the smallest to the largest number of its input into 255
    steps, or 127 with reduced range; all other numbers are from -1 to 1.
    """
    row.zero_()
    row[0] = 1 + 0.5 / steps
    row[-1] = -row[0]


@cache
def input_steps() -> int:
    """Into how many steps the kernel of this CPU may divide the magnitude of an input.

    Told by a product that is right only where pairs are added in more than 16 bits.
    """
    width = 64
    ones = torch.ones(width, width)
    packed = _pack(*quantize_rows(ones))
    product = torch.ops.quantized.linear_dynamic(torch.cat((ones, -ones)), packed, False)
    return 127 if torch.allclose(product[:width], torch.tensor(float(width)), rtol=0.02) else 63
