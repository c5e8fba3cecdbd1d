"""A clip that a model has looked at: its frames, its prefix, and answers about it."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from copy import copy
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import torch

from pandacli.errors import PandaError, UsageError
from pandacli.inference.answer import Answer, AnswerStream, Stats
from pandacli.inference.continuous_batching import (
    HAIR,
    HAIR_INT8,
    MOST_AT_ONCE,
    Ask,
    Asking,
    Choose,
    Together,
)
from pandacli.inference.generation import (
    StreamedText,
    check_drawing,
    drawing_generator,
    generate,
    sample,
)
from pandacli.inference.planning.devices import free_memory, memory_errors, peak_memory
from pandacli.inference.planning.memory import position_bytes
from pandacli.inference.prefix import PrefixCache, cache_model
from pandacli.modeling.patches import count_tokens
from pandacli.modeling.prompt import encode_prefix, encode_prompt
from pandacli.prefix_cache.clip_cache import CachedPrefix
from pandacli.video import preprocess

if TYPE_CHECKING:
    from pandacli.inference import backends
    from pandacli.inference.panda import Panda
    from pandacli.prefix_cache.clip_cache import ClipCache
    from pandacli.video import Clip, Frames

History = Sequence[tuple[str, str | Sequence[int]]]
"""Questions and their answers, as text or as the ids of `Answer.ids`."""


class VideoSession:
    """A clip, opened by `Panda.open`; every question on it shares one prefix.

    The prefix (system prompt and frames) is computed when the first answer is wanted, and kept; or
    it is read from the disk, where it was kept before.

    Args:
        panda: The model.
        frames: What was sampled from the clip; None to sample it, where the prefix is not on the
            disk.
        num_frames: How many frames the model is shown.
        system: The system prompt.
        frames_seconds: How long reading the frames took.
        clip: The file that the frames are of, where it may be read (again).
        on_disk: PrefixStore of the clip on the disk; None to look at none and keep none.

    Attributes:
        frames: What was sampled from the clip. Where the prefix was found on the disk and no
            frames were given, it has no pictures: `pixels` is (0, height, width, 3).

    Raises:
        ClipError: The video cannot be used.
        UsageError: The prefix alone is longer than the model's context.
    """

    def __init__(
        self,
        panda: "Panda",
        frames: "Frames | None",
        num_frames: int,
        system: str | None,
        frames_seconds: float,
        *,
        clip: "Clip | None" = None,
        on_disk: "ClipCache | None" = None,
    ) -> None:
        started = perf_counter()
        self._panda = panda
        self._system = system
        self._num_frames = num_frames
        self._clip = clip
        self._ids = encode_prefix(panda.tokenizer, system, num_frames)
        self._encoded: list[torch.Tensor] | None = None
        self._prefix: PrefixCache | None = None
        self._asked = 0
        self._on_disk = on_disk
        self._kept = self._look_for_prefix()
        self._pixel_values: torch.Tensor | None = None
        known = self._kept and self._kept.frames()
        self.frames = frames or known or self._sample()
        if self._kept and (tokens := self._kept.tokens):
            self._video_tokens = tokens - len(self._ids) + num_frames
        else:
            self._video_tokens = count_tokens(self._pixels(), panda.model.config.patch_size)
        self._room(0)
        self._frames_seconds = frames_seconds + perf_counter() - started

    @property
    def prefix_tokens(self) -> int:
        """How many tokens the system prompt and the frames take."""
        return len(self._ids) - self._num_frames + self._video_tokens

    def with_system(self, system: str | None) -> "VideoSession":
        """The same frames under another system prompt; they are not encoded again.

        Raises:
            UsageError: The prefix alone is longer than the model's context.
        """
        other = copy(self)
        other._system = system
        other._ids = encode_prefix(self._panda.tokenizer, system, self._num_frames)
        other._prefix = None
        other._kept = other._look_for_prefix()
        other._room(0)
        return other

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
        check_drawing(max_tokens, temperature, seed)
        ids = self._encode(question, history)
        limit = min(max_tokens, self._room(len(ids)))
        choose = partial(sample, temperature=temperature, generator=drawing_generator(seed))
        taken: list[Stats] = []
        pieces = self._answer(question, ids, limit, choose, taken)
        return AnswerStream(pieces, lambda: taken[-1] if taken else None)

    def ask_together(
        self,
        asks: Iterable[Ask],
        *,
        at_once: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Together:
        """Ask many questions, each on its own, and take the answers as they become whole.

        At a temperature of 0 every answer is the one that `ask` gives, where torch computes in
        float32 or with 8-bit weights on a CPU. Elsewhere (half precision, bitsandbytes, llama.cpp)
        a near-tie may be decided otherwise, unless questions are asked one at a time.

        Args:
            asks: The questions; they are drawn as there is room for them.
            at_once: The most that are answered at a time; None for as many as memory allows.
            temperature: As of `stream`.
            seed: As of `stream`, for each question.

        Returns:
            An iterator over the place of a question and its answer, or what is wrong with it.

        Raises:
            DeviceError: Out of memory for the prefix.
        """
        if at_once is not None and at_once < 1:
            raise UsageError(f"cannot answer {at_once} questions at a time")
        panda = self._panda
        with memory_errors(panda.memory_hint):
            prefix = self._read_prefix()
        self._asked += 1

        def alone(asking: Asking) -> Answer:
            return self.ask(
                asking.question, max_tokens=asking.limit, temperature=temperature, seed=seed
            )

        return Together(
            self._asking(asks, temperature, seed),
            branch=prefix.batch,
            finish=self._finish,
            alone=alone,
            stop=self._panda.stop_tokens,
            room=self._room_together(),
            at_once=at_once,
            hair=self._hair,
            memory_hint=panda.memory_hint,
        )

    def _asking(
        self, asks: Iterable[Ask], temperature: float, seed: int | None
    ) -> Iterator[Asking | tuple[int, PandaError]]:
        """The questions as tokens, or what is wrong with one."""

        def drawing() -> Choose:
            return partial(sample, temperature=temperature, generator=drawing_generator(seed))

        for number, ask in enumerate(asks):
            try:
                check_drawing(ask.max_tokens, temperature, seed)
                ids = self._encode(ask.question, ())
                limit = min(ask.max_tokens, self._room(len(ids)))
            except UsageError as error:
                yield number, error
                continue
            yield Asking(number, ask.question, ids, limit, drawing if temperature else None)

    def _finish(self, asking: Asking, stopped: bool) -> Answer:
        """The answer of a question that was asked with others."""
        ids = asking.answer[:-1] if stopped else asking.answer
        seconds = perf_counter() - asking.started
        count, decode_seconds = len(asking.answer), seconds - asking.first_token_seconds
        stats = Stats(
            frames=len(self.frames.indices),
            prefix_tokens=self.prefix_tokens,
            question_tokens=len(asking.ids),
            prefilled_tokens=len(asking.ids),
            answer_tokens=count,
            load_seconds=self._panda.load_seconds,
            frames_seconds=self._frames_seconds,
            prefill_seconds=asking.first_token_seconds,
            first_token_seconds=asking.first_token_seconds,
            decode_seconds=decode_seconds,
            tokens_per_second=(count - 1) / decode_seconds if count > 1 else 0.0,
            peak_memory_bytes=peak_memory(self._panda.devices),
        )
        text = self._panda.tokenizer.decode(ids)
        return Answer(text, "stop" if stopped else "length", stats, asking.question, tuple(ids))

    @property
    def _hair(self) -> float:
        """See `Together`; 0 where rounding depends too much on what is read at once."""
        panda = self._panda
        if panda.engine != "torch" or panda.dtype != "float32":
            return 0
        return HAIR if panda.quant == "none" else HAIR_INT8

    def _room_together(self) -> int:
        """How many positions half of the free memory has room for; at least one question's."""
        model, panda = self._panda.model, self._panda
        longest: int = model.config.max_position_embeddings - self.prefix_tokens
        each = position_bytes(model.config, panda.engine, model.dtype)
        if not each:  # the layers are llama.cpp's, which looks after its memory itself
            return MOST_AT_ONCE * longest
        free = min(free_memory(torch.device(device)) for device in panda.devices)
        return max(free // 2 // each, longest)

    def prepare(self) -> None:
        """Compute the prefix, so that the first answer need not wait for it.

        Raises:
            DeviceError: Out of memory.
        """
        with memory_errors(self._panda.memory_hint):
            self._read_prefix()

    def keep(self) -> None:
        """Keep the prefix on the disk, where the clip was opened with `cache` and it was computed.

        It takes no time that an answer would wait for, if it is called when no answer is.

        Raises:
            PandaError: It cannot be written, or there is no memory to. No answer depends on it.
        """
        if self._kept is None or self._prefix is None:
            return
        try:
            with memory_errors(self._panda.memory_hint):
                self._kept.save(self._prefix, self.frames)
        except OSError as error:
            why = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise PandaError(f"could not cache the clip: {why}") from error

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
        self,
        question: str,
        ids: list[int],
        limit: int,
        choose: "partial[int]",
        taken: list[Stats],
    ) -> Generator[str, None, Answer]:
        self._asked += 1
        turn = self._asked
        tokenizer = self._panda.tokenizer
        text = StreamedText(tokenizer)
        stop = self._panda.stop_tokens

        started = perf_counter()
        with memory_errors(self._panda.memory_hint):
            prefilled = self._prefix.prefilled if self._prefix else 0
            prefix = self._read_prefix()
            # what stands before the question ends with the </s> of the last answer
            settled = len(ids) - ids[::-1].index(tokenizer.eos_id) if tokenizer.eos_id in ids else 0
            logits = prefix.append(ids, settled)
            prefill_seconds = perf_counter() - started
            tokens = generate(logits, prefix.read_on, choose, stop, limit)
            token = next(tokens)
        first_token_seconds = perf_counter() - started

        count, decode_seconds = 1, 0.0
        try:
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
        finally:
            taken.append(
                Stats(
                    frames=len(self.frames.indices),
                    prefix_tokens=self.prefix_tokens,
                    question_tokens=len(ids) - settled,
                    prefilled_tokens=prefix.prefilled - prefilled,
                    answer_tokens=count,
                    load_seconds=self._panda.load_seconds,
                    frames_seconds=self._frames_seconds,
                    prefill_seconds=prefill_seconds,
                    first_token_seconds=first_token_seconds,
                    decode_seconds=decode_seconds,
                    tokens_per_second=(count - 1) / decode_seconds if decode_seconds else 0.0,
                    peak_memory_bytes=peak_memory(self._panda.devices),
                    history_tokens=settled,
                )
            )
        reason: Literal["stop", "length"] = "stop" if token in stop else "length"
        return Answer(text.text, reason, taken[-1], question, tuple(text.ids))

    def _read_prefix(self) -> PrefixCache:
        if self._prefix is None:
            reading = self._kept.restore(self._panda.backend.restore) if self._kept else None
            computed = reading is None
            self._prefix = PrefixCache(reading or self._compute_prefix(), computed=computed)
            self._video_tokens = self._prefix.length - len(self._ids) + self._num_frames
        return self._prefix

    def _compute_prefix(self) -> "backends.Sequence":
        model = self._panda.model
        ids = torch.tensor([self._ids], device=model.device)
        reading = self._panda.backend.new_sequence()
        with torch.inference_mode():
            if self._encoded is None:
                pixel_values = self._pixels()[None].to(model.device)
                (self._encoded,) = model.model.encode_frames(pixel_values)
            (embedded,) = model.embed_frames(ids, [self._encoded])
        reading.prefill(embedded)
        return reading

    def _look_for_prefix(self) -> CachedPrefix | None:
        return (
            CachedPrefix(cache_model(self._panda), self._on_disk, self._ids)
            if self._on_disk
            else None
        )

    def _sample(self) -> "Frames":
        from pandacli.video import sample_frames

        assert self._clip is not None  # or frames were given
        return sample_frames(self._clip, self._num_frames)

    def _pixels(self) -> torch.Tensor:
        """(T, 4, S, S) what the model is shown; the frames are read where only facts are known."""
        if self._pixel_values is None:
            if not len(self.frames.pixels):
                self.frames = self._sample()
            config = self._panda.model.config
            self._pixel_values = preprocess(
                self.frames.pixels,
                image_size=config.image_size,
                patch_size=config.patch_size,
                num_frames=self._num_frames,
            )
        return self._pixel_values

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
            "ask a shorter question, or look at fewer frames (--frames 4)",
        )
