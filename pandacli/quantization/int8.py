"""Linear layers with int8 weights, on torch's quantised CPU kernels (dynamic quantisation).

Weights have one scale per row, inputs one per token. In the residual pass the rounding error of a
token is multiplied as a second row, which gives it about 15 bits. Trained Llamas need that for
tokens in which a few channels are hundreds of times larger than the rest (Dettmers et al., arXiv
2208.07339). It is cheap for few tokens, as in decoding, where reading the weights takes the time.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from threading import Lock

import torch
from torch import Tensor, nn

_FEW = 64  # up to this many tokens of a text, always add the residual pass
_OUTLIER = 8.0  # peak over root mean square from which a token gets the residual pass
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


class Int8Linear(nn.Module):
    """A linear layer without bias on the CPU, for inference; takes what `quantize_rows` returns."""

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._packed = _pack(weight, scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., n, in) float32 to (..., n, out) float32, of n tokens of each text."""
        tokens = inputs.reshape(-1, self.in_features)
        count = len(tokens)
        peak = tokens.abs().amax(1, keepdim=True).clamp_min(_TINY)
        chosen, added = _residual_tokens(tokens, peak, few=inputs.shape[-2] <= _FEW)
        steps = input_steps()
        rows = tokens.new_empty(count + added + 1, self.in_features)
        scaled = torch.div(tokens, peak, out=rows[:count])
        exact = scaled[chosen]
        rounded = (exact * steps).round_().div_(steps)
        torch.sub(exact, rounded, out=rows[count:-1]).mul_(2 * steps)
        scaled[chosen] = rounded
        # the kernel divides the range of its input into 255 steps, or 127 with reduced range; the
        # last row makes that range -1 to 1, and so its scale 1 / steps
        rows[-1] = 0
        rows[-1, 0] = 1 + 0.5 / steps
        rows[-1, -1] = -rows[-1, 0]
        outputs: Tensor = torch.ops.quantized.linear_dynamic(rows, self._packed, steps < 127)
        remainders = outputs[count:-1].div_(2 * steps)
        outputs = outputs[:count]
        outputs[chosen] += remainders
        outputs *= peak
        return outputs.view(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


def _residual_tokens(tokens: Tensor, peak: Tensor, *, few: bool) -> tuple[slice | Tensor, int]:
    """Select the tokens (n, in) for the residual pass, and count them."""
    if few or _residual_for_all.get():
        return slice(None), len(tokens)
    usual = tokens.square().mean(1, keepdim=True).sqrt()
    chosen = (peak > _OUTLIER * usual).flatten().nonzero().flatten()
    return chosen, len(chosen)


def _pack(weight: Tensor, scale: Tensor) -> torch.ScriptObject:
    with _WARNINGS, warnings.catch_warnings():
        # torch warns that it will drop quantised tensors; nothing else has these kernels
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
        zeros = torch.zeros(len(scale), dtype=torch.long)
        quantized = torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
    packed: torch.ScriptObject = torch.ops.quantized.linear_prepack(quantized, None)
    return packed


@cache
def input_steps() -> int:
    """Steps of an input that do not saturate: 127, or 63 on a CPU without VNNI.

    Without VNNI the kernels add pairs of products in 16 bits, which a product here probes for.
    """
    width = 64
    ones = torch.ones(width, width)
    packed = _pack(*quantize_rows(ones))
    product = torch.ops.quantized.linear_dynamic(torch.cat((ones, -ones)), packed, False)
    return 127 if torch.allclose(product[:width], torch.tensor(float(width)), rtol=0.02) else 63
