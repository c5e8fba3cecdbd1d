"""Linear layers with 8-bit weights, on the int8 kernels that torch has for every CPU.

A weight is rounded to 255 steps of its row's largest magnitude, an input to 255 steps of its own
(dynamic quantisation, token by token). torch's kernel takes one scale for all of its input, so
tokens are brought to magnitude 1 before it and back after it.

Trained Llamas have tokens in which a few channels are hundreds of times larger than the rest
(Dettmers et al., arXiv 2208.07339); one scale would round the rest to nothing. The kernel takes
such a token twice, once without those channels and once with nothing else. While decoding, when
reading the weights is what takes time, that is free.
"""

import warnings

import torch
from torch import Tensor, nn

_OUTLIER = 8.0
"""How many times the root mean square of its token a value is, to be taken apart."""


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row of a weight to 8 bits.

    Args:
        weight: (out, in), any floating-point type.

    Returns:
        (out, in) int8 from -127 to 127, and (out,) float32, the size of a step.
    """
    weight = weight.float()
    scale = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
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
        with warnings.catch_warnings():
            # that quantised tensors will leave torch: their kernels are worth staying with it
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            quantized = torch._make_per_channel_quantized_tensor(
                weight, scale.double(), torch.zeros(len(scale), dtype=torch.long), 0
            )
        self._packed = torch.ops.quantized.linear_prepack(quantized, None)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in) float32 to (..., out) float32."""
        tokens = inputs.reshape(-1, self.in_features)
        peak = tokens.abs().amax(1, keepdim=True)
        limit = _OUTLIER * tokens.square().mean(1, keepdim=True).sqrt()
        twice = (peak > limit).flatten().nonzero().flatten()
        if len(twice):
            outliers = tokens[twice]
            outliers = outliers.where(outliers.abs() > limit[twice], 0.0)
            rest = tokens.index_add(0, twice, outliers, alpha=-1)
            outputs = self._multiply(torch.cat((rest, outliers)))
            outputs = outputs[: len(tokens)].index_add_(0, twice, outputs[len(tokens) :])
        else:
            outputs = self._multiply(tokens, peak)
        return outputs.view(*inputs.shape[:-1], self.out_features)

    def _multiply(self, tokens: Tensor, peak: Tensor | None = None) -> Tensor:
        peak = tokens.abs().amax(1, keepdim=True) if peak is None else peak
        peak = peak.clamp_min(torch.finfo(torch.float32).tiny)
        product: Tensor = torch.ops.quantized.linear_dynamic(tokens / peak, self._packed, False)
        return product.mul_(peak)

    def extra_repr(self) -> str:
        """Its sizes, as `nn.Linear` shows them."""
        return f"in_features={self.in_features}, out_features={self.out_features}"
