"""What one answer is made with, token by token.

Sampler, incremental detokenizer, and the state of a request.
"""

import re
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from pandacli.inference.answer import Answer, Stats
from pandacli.inference.spec import GenerationOptions


@torch.inference_mode()
def sample(
    logits: Tensor, temperature: float = 0.0, generator: torch.Generator | None = None
) -> int:
    """Choose the next token.

    Args:
        logits: (vocabulary,)
        temperature: 0 takes the likeliest token; above, one is sampled, for any finite number.
        generator: On the CPU, so that a seed means the same on every device.
    """
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.double().cpu()
    # shifted first, so that a tiny temperature makes -inf of the others, and never inf or nan
    probabilities = torch.softmax((logits - logits.max()) / float(temperature), -1)
    return int(torch.multinomial(probabilities, 1, generator=generator))


_UNSETTLED = re.compile(r"\s*(?:<(?:/(?:s>?)?)?)?\ufffd*\Z")
"""The end of a text that a later token may change: the bytes of an incomplete character, the
beginning of a `</s>` that the tokenizer drops, and space that is stripped at the end."""


class Decoder(Protocol):
    """The part of a tokenizer that a `Detokenizer` needs."""

    def decode(self, ids: list[int]) -> str:
        """The text of ids, stripped."""
        ...


class Detokenizer:
    """Text of tokens as they come; text that was returned is never taken back.

    All ids are decoded at every token: that takes microseconds, and SentencePiece decides about
    spaces between pieces.

    Args:
        tokenizer: Turns ids into stripped text.
        stop: Strings that end the text.

    Attributes:
        ids: The tokens so far.
        text: Their text, as of the last call of `add` or `finish`.
        stopped: Whether a stop string was found; the text ends before it.
    """

    def __init__(self, tokenizer: Decoder, stop: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self.ids: list[int] = []
        self.text = ""
        self.stopped = False
        self._returned = 0

    def add(self, token: int) -> str:
        """Append a token; returns text that became final, often none, never half a character."""
        self.ids.append(token)
        self._decode()
        end = len(self.text)
        if not self.stopped:
            end -= self._partial_stop()
            unsettled = _UNSETTLED.search(self.text[:end], self._returned)
            end = unsettled.start() if unsettled else self._returned
        return self._take(end)

    def finish(self) -> str:
        """The rest of the text, after the last token."""
        self._decode()
        return self._take(len(self.text))

    def _decode(self) -> None:
        text = self._tokenizer.decode(self.ids)
        if found := [place for stop in self._stop if (place := text.find(stop)) >= 0]:
            text, self.stopped = text[: min(found)].rstrip(), True
        self.text = text

    def _partial_stop(self) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        return max(
            (
                count
                for stop in self._stop
                for count in range(1, len(stop))
                if self.text.endswith(stop[:count])
            ),
            default=0,
        )

    def _take(self, end: int) -> str:
        piece = self.text[self._returned : end]
        self._returned = max(self._returned, end)
        return piece


class RequestState:
    """A request that is being answered.

    Args:
        index: Its place among the requests of a generation.
        question: Its text.
        ids: The tokens behind the prefix: earlier turns and the question.
        history: How many of them belong to earlier turns.
        limit: The most tokens of the answer.
        options: How to generate.
        tokenizer: Decodes the answer.
        end_tokens: The tokens that end an answer.

    Attributes:
        tokens: Tokens generated so far, the one that ends the answer included.
        finish_reason: Set with the last token.
        stats: Set when the request has ended, also where it was stopped.
        prefilled: Tokens that were computed before the answer.
        prefill_seconds, first_token_seconds, decode_seconds: As in `Stats`.
        in_batch: Whether a `SequenceBatch` holds its tokens, all but the last one.
    """

    def __init__(
        self,
        index: int,
        question: str,
        ids: list[int],
        history: int,
        limit: int,
        options: GenerationOptions,
        tokenizer: Decoder,
        end_tokens: frozenset[int],
    ) -> None:
        self.index, self.question, self.ids, self.history = index, question, ids, history
        self.limit, self.temperature = limit, options.temperature
        self.tokens: list[int] = []
        self.finish_reason: Literal["stop", "length"] | None = None
        self.stats: Stats | None = None
        self.prefilled = 0
        self.in_batch = False
        self.prefill_seconds = self.first_token_seconds = self.decode_seconds = 0.0
        self._end_tokens = end_tokens
        self._has_stop = bool(options.stop)
        self._text = Detokenizer(tokenizer, options.stop)
        self._generator = torch.Generator() if options.temperature else None
        if self._generator and options.seed is not None:
            self._generator.manual_seed(options.seed)
        elif self._generator:
            self._generator.seed()

    @property
    def pending(self) -> list[int]:
        """The tokens that the model has to compute before it can give the next."""
        return self.tokens[-1:] if self.in_batch else self.ids + self.tokens

    @property
    def positions(self) -> int:
        """Positions in the KV cache, after the next pass."""
        return len(self.ids) + len(self.tokens)

    def sample(self, logits: Tensor) -> int:
        """The next token, from logits (vocabulary,)."""
        return sample(logits, self.temperature, self._generator)

    def add(self, token: int, *, stream: bool) -> str:
        """Append a token.

        Args:
            token: The next token.
            stream: Whether to decode at every token; otherwise only for stop strings.

        Returns:
            Text that became final; all that was not yet returned once the request has finished.
        """
        self.tokens.append(token)
        piece = ""
        if token in self._end_tokens:
            self.finish_reason = "stop"
        else:
            if stream or self._has_stop:
                piece = self._text.add(token)
            else:
                self._text.ids.append(token)
            if self._text.stopped:
                self.finish_reason = "stop"
            elif len(self.tokens) == self.limit:
                self.finish_reason = "length"
        return piece + self._text.finish() if self.finish_reason else piece

    def restart(self) -> None:
        """Drop the tokens, if there are any; text that was returned is not returned again."""
        if self.tokens:
            self.tokens.clear()
            self._text.ids.clear()
            self.prefilled = 0
            self.prefill_seconds = self.first_token_seconds = self.decode_seconds = 0.0

    def add_prefill(self, seconds: float, until_token: float) -> None:
        """Count a prefill of so many seconds, and those until the token after it was sampled."""
        self.first_token_seconds = self.first_token_seconds or self.prefill_seconds + until_token
        self.prefill_seconds += seconds

    def count_pass(self, seconds: float) -> None:
        """Count a pass of a batch that has computed the pending tokens."""
        if self.in_batch:
            self.decode_seconds += seconds
            return
        self.prefilled += len(self.pending)
        self.in_batch = True
        self.add_prefill(seconds, seconds)

    def answer(self) -> Answer:
        """The whole answer; only once it has finished, and `stats` are set."""
        assert self.finish_reason is not None
        assert self.stats is not None
        # ids that go on behind a stop string are not those of the text
        ids = () if self._text.stopped else tuple(self._text.ids)
        return Answer(self._text.text, self.finish_reason, self.stats, self.question, ids)
