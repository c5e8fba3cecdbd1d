"""One token after another: sample one, read it, sample the next.

Small functions over logits and ids. They know nothing of models, clips, text or terminals.

From token ids to text, piece by piece, without ever having to take a piece back.
"""

import re
from collections.abc import Callable, Iterator
from sys import float_info
from typing import Protocol

import torch
from torch import Tensor

from pandacli.errors import UsageError


def check_drawing(max_tokens: int, temperature: float, seed: int | None) -> None:
    """Look at how an answer is asked for.

    Raises:
        UsageError: A setting is out of range.
    """
    if max_tokens < 1:
        raise UsageError(f"an answer cannot have {max_tokens} tokens", "ask for at least one")
    if not 0 <= temperature <= float_info.max:  # also of ints that no float holds; nan is refused
        raise UsageError(f"a temperature cannot be {temperature}", "0 is greedy, 1 is warm")
    if seed is not None and not 0 <= seed < 2**63:
        raise UsageError(f"a seed cannot be {seed}", "use a whole number from 0 to 2^63 - 1")


def drawing_generator(seed: int | None) -> torch.Generator:
    """What `sample` draws with: the same for the same seed, another each time for None."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


@torch.inference_mode()
def sample(
    logits: Tensor, temperature: float = 0.0, generator: torch.Generator | None = None
) -> int:
    """Choose the next token.

    Args:
        logits: (vocabulary,)
        temperature: 0 takes the likeliest token; above, one is drawn, for any finite number.
        generator: A CPU generator to draw with, so that a seed means the same on every device.
    """
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.double().cpu()
    # shifted first, so that a tiny temperature makes -inf of the others, and never inf or nan
    probabilities = torch.softmax((logits - logits.max()) / float(temperature), -1)
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


_UNSETTLED = re.compile(r"\s*(?:<(?:/(?:s>?)?)?)?\ufffd*\Z")
"""What may yet change at the end of a text: the bytes of a character that is not complete, what
may become a `</s>` that is cut, and space that is stripped if nothing follows."""


class Decoder(Protocol):
    """The part of a tokenizer that streaming needs."""

    def decode(self, ids: list[int]) -> str:
        """The text of ids, stripped."""
        ...


class StreamedText:
    """The text of an answer that grows token by token.

    Decoding starts over at every token: it costs microseconds beside the model's milliseconds, and
    what SentencePiece does between pieces stays its own affair.

    Args:
        tokenizer: Turns ids into stripped text.

    Attributes:
        ids: The tokens so far.
        text: Their text.
    """

    def __init__(self, tokenizer: Decoder) -> None:
        self._tokenizer = tokenizer
        self.ids: list[int] = []
        self.text = ""
        self._given = 0

    def add(self, token: int) -> str:
        """The text that is settled by one more token; often empty, never half a character."""
        self.ids.append(token)
        self.text = self._tokenizer.decode(self.ids)
        unsettled = _UNSETTLED.search(self.text, self._given)
        return self._give(unsettled.start() if unsettled else self._given)

    def finish(self) -> str:
        """The rest, when no more tokens come."""
        return self._give(len(self.text))

    def _give(self, end: int) -> str:
        piece = self.text[self._given : end]
        self._given = end
        return piece
