"""A clip that a model has looked at: its frames, its prefix, and answers about it."""

from collections.abc import Generator, Sequence
from functools import partial
from math import isfinite
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import torch

from pandacli.engine.answer import Answer, AnswerStream, Stats
from pandacli.engine.device import memory_errors, peak_memory
from pandacli.engine.generate import generate, sample
from pandacli.engine.prefix import PrefixCache
from pandacli.engine.streaming import StreamedText
from pandacli.errors import UsageError
from pandacli.model.prompt import encode_prefix, encode_prompt
from pandacli.model.stab import content_boxes
from pandacli.video import preprocess

if TYPE_CHECKING:
    from pandacli.engine.panda import Panda
    from pandacli.video import Frames

History = Sequence[tuple[str, str | Sequence[int]]]
"""Questions and their answers, as text or as the ids of `Answer.ids`."""


class LoadedClip:
    """A clip, opened by `Panda.open`; every question on it shares one prefix.

    The prefix (system prompt and frames) is computed when the first answer is wanted, and kept.

    Attributes:
        frames: What was sampled from the clip.
        prefix_tokens: How many tokens the system prompt and the frames take.

    Raises:
        UsageError: The prefix alone is longer than the model's context.
    """

    def __init__(
        self,
        panda: "Panda",
        frames: "Frames",
        num_frames: int,
        system: str | None,
        frames_seconds: float,
    ) -> None:
        started = perf_counter()
        config = panda.model.config
        self.frames = frames
        self._panda = panda
        self._system = system
        self._num_frames = num_frames
        self._ids = encode_prefix(panda.tokenizer, system, num_frames)
        self._pixel_values = preprocess(
            frames.pixels,
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_frames=num_frames,
        )
        self._prefix: PrefixCache | None = None
        self._asked = 0
        video_tokens = count_video_tokens(self._pixel_values, config.patch_size)
        self.prefix_tokens = len(self._ids) - num_frames + video_tokens
        self._room(0)
        self._frames_seconds = frames_seconds + perf_counter() - started

    def ask(
        self,
        question: str,
        *,
        history: History = (),
        max_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Answer:
        """Ask a question and wait for the whole answer; see `stream`."""
        stream = self.stream(
            question, history=history, max_tokens=max_tokens, temperature=temperature, seed=seed
        )
        for _ in stream:
            pass
        return stream.answer

    def stream(
        self,
        question: str,
        *,
        history: History = (),
        max_tokens: int = 1024,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> AnswerStream:
        """Ask a question and take the answer in pieces, as it is decoded.

        One answer at a time: reading from a stream after a newer one on the same clip has begun is
        a RuntimeError.

        Args:
            question: Any text.
            history: The turns before it.
            max_tokens: The most tokens of answer.
            temperature: 0 takes the likeliest token every time; above, tokens are drawn.
            seed: Makes drawing repeatable.

        Raises:
            UsageError: A setting is out of range, or the question is longer than the context.
            DeviceError: Out of memory, while reading from the stream.
        """
        _check_settings(max_tokens, temperature, seed)
        ids = self._encode(question, history)
        limit = min(max_tokens, self._room(len(ids)))
        choose = partial(sample, temperature=temperature, generator=_generator(seed))
        return AnswerStream(self._answer(question, ids, limit, choose))

    def prepare(self) -> None:
        """Compute the prefix, so that the first answer need not wait for it.

        Raises:
            DeviceError: Out of memory.
        """
        with memory_errors(self._panda.memory_hint):
            self._read_prefix()

    def tokens_left(self, question: str, history: History = ()) -> int:
        """How many tokens of answer the context has room for; below one, there is none."""
        context = self._panda.model.config.max_position_embeddings
        return context - self.prefix_tokens - len(self._encode(question, history))

    def _encode(self, question: str, history: History) -> list[int]:
        """The ids of a question and what was said before it, which follow the prefix."""
        turns = [*history, (question, None)]
        prompt = encode_prompt(turns, self._panda.tokenizer, self._system, self._num_frames)
        return prompt[len(self._ids) :]

    def _answer(
        self, question: str, ids: list[int], limit: int, choose: "partial[int]"
    ) -> Generator[str, None, Answer]:
        self._asked += 1
        turn = self._asked
        model, tokenizer = self._panda.model, self._panda.tokenizer
        text = StreamedText(tokenizer)
        stop = _stop_tokens(model.generation_config.eos_token_id) | {tokenizer.eos_id}

        started = perf_counter()
        with memory_errors(self._panda.memory_hint):
            prefilled = self._prefix.prefilled if self._prefix else 0
            prefix = self._read_prefix()
            # what stands before the question ends with the </s> of the last answer
            settled = len(ids) - ids[::-1].index(tokenizer.eos_id) if tokenizer.eos_id in ids else 0
            logits = prefix.read(ids, settled)
            prefill_seconds = perf_counter() - started
            tokens = generate(logits, prefix.read_on, choose, stop, limit)
            token = next(tokens)
        first_token_seconds = perf_counter() - started

        count, decode_seconds = 1, 0.0
        while token not in stop:
            if piece := text.add(token):
                yield piece
            if turn != self._asked:
                raise RuntimeError("a newer question on this clip has taken this one's place")
            stepped = perf_counter()
            with memory_errors(self._panda.memory_hint):
                following = next(tokens, None)
            if following is None:
                break
            decode_seconds += perf_counter() - stepped
            token, count = following, count + 1
        if piece := text.finish():
            yield piece
        stats = Stats(
            frames=len(self.frames.indices),
            prefix_tokens=self.prefix_tokens,
            question_tokens=len(ids),
            prefilled_tokens=prefix.prefilled - prefilled,
            answer_tokens=count,
            load_seconds=self._panda.load_seconds,
            frames_seconds=self._frames_seconds,
            prefill_seconds=prefill_seconds,
            first_token_seconds=first_token_seconds,
            decode_seconds=decode_seconds,
            tokens_per_second=(count - 1) / decode_seconds if decode_seconds else 0.0,
            peak_memory_bytes=peak_memory(self._panda.devices),
        )
        reason: Literal["stop", "length"] = "stop" if token in stop else "length"
        return Answer(text.text, reason, stats, question, tuple(text.ids))

    def _read_prefix(self) -> PrefixCache:
        if self._prefix is None:
            model = self._panda.model
            ids = torch.tensor([self._ids], device=model.device)
            reading = self._panda.language_model.start()
            with torch.inference_mode():
                (embedded,) = model.embed_prompt(ids, self._pixel_values[None].to(model.device))
            reading.read_embeddings(embedded)
            self._prefix = PrefixCache(reading)
        return self._prefix

    def _room(self, question_tokens: int) -> int:
        """How many tokens of answer still fit into the context, at least one."""
        context = self._panda.model.config.max_position_embeddings
        room = context - self.prefix_tokens - question_tokens
        if room > 0:
            return room
        what = f"{self._num_frames} frames of this clip take {self.prefix_tokens} tokens"
        if question_tokens:
            what += f", the question and what was said before it {question_tokens}"
        raise UsageError(
            f"{what}: the model can hold {context}",
            "ask a shorter question, or look at fewer frames (--frames)",
        )


def count_video_tokens(pixel_values: torch.Tensor, patch_size: int) -> int:
    """How many tokens STAB makes of frames (T, 4, S, S), told from their masks.

    A frame of h by w tokens has a context token in front and a split token after each row.
    """
    boxes = content_boxes(pixel_values[:, 3], patch_size)
    sizes = (((box.bottom - box.top) // 2, (box.right - box.left) // 2) for box in boxes)
    return sum(1 + rows * (columns + 1) for rows, columns in sizes)


def _check_settings(max_tokens: int, temperature: float, seed: int | None) -> None:
    if max_tokens < 1:
        raise UsageError(f"an answer cannot have {max_tokens} tokens", "ask for at least one")
    if not (isfinite(temperature) and temperature >= 0):
        raise UsageError(f"a temperature cannot be {temperature}", "0 is greedy, 1 is warm")
    if seed is not None and not 0 <= seed < 2**63:
        raise UsageError(f"a seed cannot be {seed}", "use a whole number from 0 to 2^63 - 1")


def _generator(seed: int | None) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def _stop_tokens(eos: int | list[int] | None) -> frozenset[int]:
    if eos is None:
        return frozenset()
    return frozenset(eos) if isinstance(eos, list) else frozenset({eos})
