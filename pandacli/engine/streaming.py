"""From token ids to text, piece by piece, without ever having to take a piece back."""

import re
from typing import Protocol

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
