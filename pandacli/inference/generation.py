"""Sampler, incremental detokenizer, and the state of a request that is being answered."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pandacli.inference.spec import (
    Answer,
    FinishReason,
    GenerationOptions,
    Stats,
    TokenLogprob,
)

if TYPE_CHECKING:
    from pandacli.modeling.tokenization_videopanda import VideoPandaTokenizer


@torch.inference_mode()
def sample(
    logits: Tensor, temperature: float = 0.0, generator: torch.Generator | None = None
) -> int:
    """Sample the next token from logits (vocabulary,); greedy at a temperature of 0."""
    if temperature == 0:
        return int(logits.argmax())
    logits = logits.double().cpu()  # where a seed means the same for every device
    # shifted first, so that a tiny temperature gives -inf for the others and never inf or nan
    probabilities = torch.softmax((logits - logits.max()) / float(temperature), -1)
    return int(torch.multinomial(probabilities, 1, generator=generator))


_UNSETTLED = re.compile(r"\s*(?:<(?:/(?:s>?)?)?)?\ufffd*\Z")
"""The end of a text that a later token may change: an incomplete character, the beginning of a
`</s>` that the tokenizer drops, and space that is stripped at the end."""


class Detokenizer:
    """Incremental text of tokens, up to the first of the strings `stop`.

    Text that was returned never changes. Each token decodes all ids, because SentencePiece decides
    about spaces between pieces; that takes microseconds.
    """

    def __init__(self, tokenizer: "VideoPandaTokenizer", stop: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._returned = 0
        self.ids: list[int] = []
        self.text = ""  # as of the last call of `add` or `finish`
        self.stopped = False  # whether a stop string was found

    def add(self, token: int) -> str:
        """Append a token; returns the text that became final, if any."""
        self.ids.append(token)
        self._decode()
        end = len(self.text)
        if not self.stopped:
            partial_stops = (s[:n] for s in self._stop for n in range(1, len(s)))
            end -= max((len(p) for p in partial_stops if self.text.endswith(p)), default=0)
            unsettled = _UNSETTLED.search(self.text[:end], self._returned)
            end = unsettled.start() if unsettled else self._returned
        return self._take(end)

    def pieces(self, tokens: Sequence[int]) -> Iterator[str]:
        """The text of each token by itself, with its space."""
        return map(self._tokenizer.piece, tokens)

    def finish(self) -> str:
        self._decode()
        return self._take(len(self.text))

    def _decode(self) -> None:
        text = self._tokenizer.decode(self.ids)
        if found := [place for stop in self._stop if (place := text.find(stop)) >= 0]:
            text, self.stopped = text[: min(found)].rstrip(), True
        self.text = text

    def _take(self, end: int) -> str:
        piece = self.text[self._returned : end]
        self._returned = max(self._returned, end)
        return piece


@dataclass
class RequestState:
    index: int
    question: str
    ids: list[int]  # after the prefix: earlier turns and the question
    history: int  # how many of them belong to earlier turns
    limit: int  # tokens of the answer
    options: GenerationOptions
    end_tokens: frozenset[int]
    text: Detokenizer
    tokens: list[int] = field(default_factory=list)  # with the one that ends the answer
    finish_reason: FinishReason | None = None
    stats: Stats | None = None  # set when the request ends or is stopped
    in_batch: bool = False  # whether a SequenceBatch holds all tokens but the last
    prefilled: int = 0  # tokens computed before the answer
    prefill_seconds: float = 0.0
    first_token_seconds: float = 0.0
    decode_seconds: float = 0.0
    logprobs: list[float] = field(default_factory=list)  # of `tokens`, where they are wanted

    def __post_init__(self) -> None:
        self._generator, seed = torch.Generator(), self.options.seed
        self._generator.seed() if seed is None else self._generator.manual_seed(seed)

    @property
    def pending(self) -> list[int]:
        """The tokens to compute before the next one can be sampled."""
        return self.tokens[-1:] if self.in_batch else self.ids + self.tokens

    @property
    def positions(self) -> int:
        """Positions in the KV cache after the next pass, without the prefix."""
        return len(self.ids) + len(self.tokens)

    def sample(self, logits: Tensor) -> int:
        return sample(logits, self.options.temperature, self._generator)

    def add(self, token: int, logits: Tensor, *, stream: bool) -> str:
        """Append a token, chosen from logits (vocabulary,).

        Returns text that became final, at the last token all of the rest.
        """
        self.tokens.append(token)
        if self.options.logprobs:
            self.logprobs.append(float(logits.double().log_softmax(-1)[token]))
        piece = ""
        if token in self.end_tokens:
            self.finish_reason = "stop"
        elif stream or self.options.stop:
            piece = self.text.add(token)
        else:
            self.text.ids.append(token)
        if self.text.stopped:
            self.finish_reason = "stop"
        elif len(self.tokens) == self.limit:
            self.finish_reason = self.finish_reason or "length"
        return piece + self.text.finish() if self.finish_reason else piece

    def restart(self) -> None:
        """Drop the tokens, if there are any; text that was returned is not returned again."""
        if self.tokens:
            self.tokens.clear()
            self.text.ids.clear()
            self.logprobs.clear()
            self.prefilled = 0
            self.prefill_seconds = self.first_token_seconds = self.decode_seconds = 0.0

    def add_prefill(self, seconds: float) -> None:
        """Count a prefill, the sampling of the token after it included."""
        self.prefill_seconds += seconds
        self.first_token_seconds = self.first_token_seconds or self.prefill_seconds

    def count_pass(self, seconds: float) -> None:
        """Count a pass of the batch, which computed the pending tokens."""
        if self.in_batch:
            self.decode_seconds += seconds
            return
        self.prefilled += len(self.pending)
        self.in_batch = True
        self.add_prefill(seconds)

    def answer(self) -> Answer:
        assert self.finish_reason
        assert self.stats
        # if a stop string cut the text, the ids spell more than it
        ids = () if self.text.stopped else tuple(self.text.ids)
        logprobs = tuple(map(TokenLogprob, self.text.pieces(self.tokens), self.logprobs))
        text = self.text.text
        return Answer(text, self.finish_reason, self.stats, self.question, ids, logprobs)
