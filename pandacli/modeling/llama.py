"""The Llama decoder (Touvron et al., arXiv 2302.13971), on the KV cache of the torch backend.

Parameter names are those of transformers' `LlamaModel`, to which the tests compare its numbers; it
is not imported here, because that takes longer than to load a small model.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pandacli.background import current_step
from pandacli.modeling.configuration import ModelConfig

_MLP_TOKENS = 256  # at a time on a CPU: larger blocks of memory go back to the system each time
_ROTARY_GROWTH = 1024  # positions that the tables of rotary embeddings grow by
_ALIGNED = 16  # numbers; rows of a mask elsewhere are copied for the fused kernel in every layer


class Cache(Protocol):
    """Keys and values of the positions before those that are computed."""

    @property
    def length(self) -> int:
        """How many positions it holds."""

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Append (B, heads, n, head size) to a layer; returns those of all positions."""
        ...


class RMSNorm(nn.Module):
    """Root mean square normalisation; computed in float32, as in training."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * (wide * scale).to(x.dtype)


class RotaryEmbedding:
    """Cosines and sines of rotary positions (Su et al., arXiv 2104.09864), in tables that grow."""

    def __init__(self, config: ModelConfig) -> None:
        self._frequencies, self._scale = rotary_frequencies(config)
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def at(self, positions: Tensor, end: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (B or 1, 1, n, head size) of positions (B or 1, n) below `end`."""
        cosines, sines = self.tables(end, like)
        return F.embedding(positions, cosines)[:, None], F.embedding(positions, sines)[:, None]

    def tables(self, end: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (at least `end`, head size) of all positions, as they are now."""
        key = like.device, like.dtype
        if key not in self._tables or len(self._tables[key][0]) < end:
            size = -(-end // _ROTARY_GROWTH) * _ROTARY_GROWTH
            angles = torch.arange(size, dtype=torch.float32)[:, None] * self._frequencies
            angles = torch.cat((angles, angles), -1)
            tables = (angles.cos() * self._scale, angles.sin() * self._scale)
            self._tables[key] = tuple(table.to(*key) for table in tables)  # type: ignore[assignment]
        return self._tables[key]


class Attention(nn.Module):
    """Causal attention with rotary positions and grouped queries."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        queries = config.num_attention_heads * config.head_dim
        others = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, others, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, others, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)

    def forward(
        self,
        hidden: Tensor,
        rotary: tuple[Tensor, Tensor],
        cache: Cache,
        layer: int,
        mask: Tensor | None,
        is_causal: bool,
    ) -> Tensor:
        projected = (self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden))
        heads = (each.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for each in projected)
        queries, keys, values = heads  # (B, heads, n, head size)
        queries, keys = _rotate(queries, *rotary), _rotate(keys, *rotary)
        keys, values = cache.update(keys, values, layer)
        attended = _attend(queries, keys, values, mask, is_causal)
        output: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return output


def _attend(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, is_causal: bool
) -> Tensor:
    """Scaled dot-product attention of (B, heads, n, head size), with fewer heads of keys."""
    group = queries.shape[1] // keys.shape[1]  # queries that share keys and values
    on_cpu = queries.device.type == "cpu" and queries.dtype == torch.float32
    single = on_cpu and queries.shape[2] == 1 and mask is None
    together = group > 1 and (single or mask is not None)
    if together:  # a group's queries stand as further tokens: kernels take either masks or groups
        queries = queries.unflatten(1, (-1, group)).flatten(2, 3)
        mask = None if mask is None else mask.repeat(1, 1, group, 1)
    if single:  # with the keys first, this reads them faster than torch's attention does
        scores = keys @ (queries * queries.shape[-1] ** -0.5).transpose(2, 3)
        attended: Tensor = scores.transpose(2, 3).softmax(-1) @ values
    else:
        shared = group > 1 and not together
        attended = F.scaled_dot_product_attention(
            queries, keys, values, mask, is_causal=is_causal, enable_gqa=shared
        )
    return attended.unflatten(2, (group, -1)).flatten(1, 2) if together else attended


class MLP(nn.Module):
    """The gated feed-forward layer, SwiGLU (Shazeer, arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.activation = _activation(config.hidden_act)

    def forward(self, hidden: Tensor) -> Tensor:
        if hidden.device.type != "cpu" or hidden.shape[1] <= _MLP_TOKENS:
            return self._gated(hidden)
        return torch.cat([self._gated(piece) for piece in hidden.split(_MLP_TOKENS, 1)], 1)

    def _gated(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.down_proj(
            self.activation(self.gate_proj(hidden)) * self.up_proj(hidden)
        )
        return output


class DecoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden: Tensor, *attention: Any) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), *attention)
        output: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return output


class Llama(nn.Module):
    """Embeddings of tokens in, hidden states out; each layer may be on another device."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # normal_, as by default, imports torch._dynamo on the meta device, which takes a second
        weight = torch.empty(config.vocab_size, config.hidden_size).uniform_(-1, 1)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, _weight=weight)
        layers = (DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = RotaryEmbedding(config)

    def forward(
        self,
        embeddings: Tensor,
        cache: Cache,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the final hidden states of new positions, which are appended to the cache.

        Args:
            embeddings: (B, n, hidden_size).
            cache: Of the positions before.
            positions: (B or 1, n), where they are not those after the cached ones.
            mask: (B or 1, 1, n, cached + n) added to the scores; by default each position sees
                those up to itself.

        Returns:
            (B, n, hidden_size).
        """
        before, new = cache.length, embeddings.shape[1]
        hidden, end = embeddings, before + new
        if positions is None:
            positions = torch.arange(before, end, device=hidden.device)[None]
        is_causal = mask is None and not before and new > 1
        if mask is None and before and new > 1:
            seen = hidden.new_ones(new, end, dtype=torch.bool).tril_(before)
            mask = additive_mask(seen, hidden.dtype)
        rotary = self.rotary.at(positions, end, hidden)
        step = current_step()
        for number, layer in enumerate(self.layers):
            device = layer.get_parameter("input_layernorm.weight").device
            if hidden.device != device:
                hidden, mask = hidden.to(device), None if mask is None else mask.to(device)
                rotary = rotary[0].to(device), rotary[1].to(device)
            hidden = layer(hidden, rotary, cache, number, mask, is_causal)
            if step is not None:
                step.reach(number + 1, len(self.layers))
        normed: Tensor = self.norm(hidden.to(self.norm.weight.device))
        return normed


def additive_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores, (1, 1, n, positions), of the positions that n tokens see."""
    count, positions = seen.shape
    width = -(-positions // _ALIGNED) * _ALIGNED
    rows = torch.zeros(count, width, dtype=dtype, device=seen.device)
    return rows[:, :positions].masked_fill_(~seen, float("-inf"))[None, None]


def _rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate each pair (i, i + half) of channels, as transformers pairs them."""
    first, second = x.chunk(2, -1)
    return x * cosines + torch.cat((-second, first), -1) * sines


def rotary_frequencies(config: ModelConfig) -> tuple[Tensor, float]:
    """The frequencies (head size / 2,) in float32 on the CPU, and a factor of sines and cosines."""
    rope = config.rope_parameters
    if rope["rope_type"] == "default":
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu")
        return 1.0 / rope["rope_theta"] ** (exponents / config.head_dim), 1.0
    # of no published Video-Panda, and slow to import
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    from pandacli.modeling.configuration_videopanda import VideoPandaConfig

    stated = VideoPandaConfig.from_dict(config.to_dict())
    frequencies, scale = ROPE_INIT_FUNCTIONS[rope["rope_type"]](stated, torch.device("cpu"))
    return frequencies.float(), float(scale)


def _activation(name: str) -> Any:
    if name == "silu":
        return F.silu
    from transformers.activations import ACT2FN

    return ACT2FN[name]
