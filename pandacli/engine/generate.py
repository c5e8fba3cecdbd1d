"""One token after another: prefill, decode_one, sample.

Small functions over a model and its KV cache. They know token ids and embeddings, and nothing of
clips, text or terminals.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from pandacli.model.modeling import VideoPandaForConditionalGeneration


@torch.inference_mode()
def prefill_clip(
    model: "VideoPandaForConditionalGeneration", ids: list[int], pixel_values: Tensor
) -> DynamicCache:
    """Run the model over the ids before a question, frame slots included.

    Args:
        model: The model.
        ids: One for each token of text, and the slot id for each frame.
        pixel_values: (T, 4, S, S), one frame for each slot.

    Returns:
        The KV cache of the expanded sequence.
    """
    cache = DynamicCache(config=model.config)
    inputs = torch.tensor([ids], device=model.device)
    (embedded,) = model.embed_prompt(inputs, pixel_values[None].to(model.device))
    # the Llama without its head: no token is predicted from here
    model.model(inputs_embeds=embedded[None], past_key_values=cache, use_cache=True)
    return cache


@torch.inference_mode()
def prefill(
    model: "VideoPandaForConditionalGeneration", ids: list[int], cache: DynamicCache
) -> Tensor:
    """Run the model over further ids of text, which grows the cache by them.

    Returns:
        (vocabulary,) the logits of the token that comes next.
    """
    inputs = torch.tensor([ids], device=model.device)
    output = model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits: Tensor = output.logits[0, -1]
    return logits


def decode_one(
    model: "VideoPandaForConditionalGeneration", token: int, cache: DynamicCache
) -> Tensor:
    """Run the model over the token it just gave; returns the logits (vocabulary,) of the next."""
    return prefill(model, [token], cache)


@torch.inference_mode()
def sample(
    logits: Tensor, temperature: float = 0.0, generator: torch.Generator | None = None
) -> int:
    """Choose the next token.

    Args:
        logits: (vocabulary,)
        temperature: 0 takes the likeliest token; above, one is drawn.
        generator: A CPU generator to draw with, so that a seed means the same on every device.
    """
    if temperature == 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits.double().cpu() / temperature, -1)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def generate(
    logits: Tensor,
    step: Callable[[int], Tensor],
    choose: Callable[[Tensor], int],
    stop: frozenset[int],
    limit: int,
) -> Iterator[int]:
    """Choose tokens until one of `stop`, which is given too, or until there are `limit`.

    Args:
        logits: (vocabulary,) of the first token.
        step: From the token just given to the logits of the next, as `decode_one`.
        choose: From logits to a token, as `sample`.
        stop: The tokens that end an answer.
        limit: The most tokens to give, at least one.
    """
    for count in range(1, limit + 1):
        token = choose(logits)
        yield token
        if token in stop or count == limit:
            return
        logits = step(token)


def crop(cache: DynamicCache, length: int) -> None:
    """Cut the cache back to its first `length` positions.

    Layer by layer, because a forward pass that was interrupted leaves some longer than others.
    """
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)  # a Llama has no others
        surplus = layer.get_seq_length() - length
        if surplus > 0:
            layer.crop(-surplus)
