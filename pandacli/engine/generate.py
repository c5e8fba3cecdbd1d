"""One token after another: sample one, read it, sample the next.

Small functions over logits and ids. They know nothing of models, clips, text or terminals.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


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
        step: From the token just given to the logits of the next.
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
