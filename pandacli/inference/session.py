"""A clip that a model is asked about: its frames, their shared prefix, and requests on it."""

from collections.abc import Generator, Iterable, Sequence
from copy import copy
from time import perf_counter
from typing import TYPE_CHECKING, Unpack

import torch
from torch import Tensor

from pandacli import video
from pandacli.errors import PandaError, UsageError
from pandacli.inference import backends
from pandacli.inference.backends import SharedPrefix
from pandacli.inference.continuous_batching import MAX_BATCH_SIZE, Failure, Generation
from pandacli.inference.generation import Detokenizer, RequestState
from pandacli.inference.planning import devices
from pandacli.inference.spec import (
    Answer,
    AnswerStream,
    GenerationOptions,
    History,
    OptionFields,
    Request,
    ScoreRequest,
    Scores,
    Stats,
)
from pandacli.modeling.patches import count_tokens
from pandacli.modeling.tokenization_videopanda import encode_prefix, encode_turns
from pandacli.prefix_cache.clip_cache import CachedPrefix

if TYPE_CHECKING:
    from pandacli.inference.likelihood import Scoring
    from pandacli.inference.panda import Panda
    from pandacli.prefix_cache.clip_cache import ClipCache
    from pandacli.video import Clip, Frames


class VideoSession:
    """A clip, opened by `Panda.open`; all requests on it share one prefix.

    The prefix (system prompt and frames) is computed when it is first needed, or restored from the
    prefix cache. Then a `Clip` is not decoded: the `pixels` of `frames` are (0, height, width, 3).
    """

    def __init__(
        self,
        panda: "Panda",
        source: "Clip | Frames",
        num_frames: int,
        system: str | None,
        *,
        frames_seconds: float = 0.0,
        cache: "ClipCache | None" = None,
    ) -> None:
        started = perf_counter()
        self.panda, self._num_frames, self._cache = panda, num_frames, cache
        self._encoded: list[Tensor] | None = None
        self._pixel_values: Tensor | None = None
        self.turn = 0  # the number of the generation that owns the sequence
        self._set_system(system)
        cached = self._kept and self._kept.frames()
        from_cache = cache.clip if cache else None
        self._clip = source if isinstance(source, video.Clip) else from_cache
        self.frames = source if isinstance(source, video.Frames) else cached or self._sample()
        if self._kept and (tokens := self._kept.tokens):
            self._video_tokens = tokens - len(self._ids) + num_frames
        else:
            self._video_tokens = count_tokens(self._pixels(), panda.model.config.patch_size)
        self._max_answer(0)
        self.frames_seconds = frames_seconds + perf_counter() - started

    def _set_system(self, system: str | None) -> None:
        self._ids = encode_prefix(self.panda.tokenizer, system, self._num_frames)
        self._prefix: SharedPrefix | None = None
        self._prompt: tuple[object, list[int]] = None, []
        cache = self._cache
        self._kept = CachedPrefix(self.panda, cache, self._ids) if cache else None

    @property
    def prefix_tokens(self) -> int:
        return len(self._ids) - self._num_frames + self._video_tokens

    @property
    def held_bytes(self) -> int:
        """About how much memory the prefix and the tensors of the frames take."""
        kept = [*([] if self._pixel_values is None else [self._pixel_values])]
        kept += self._encoded or []
        held = sum(tensor.nbytes for tensor in kept)
        if self._prefix is not None:
            model, panda = self.panda.model, self.panda
            each = devices.position_bytes(model.config, panda.engine, model.dtype)
            saved = self._prefix.sequence.saved_bytes(self._prefix.length)
            held += each * self._prefix.length or saved  # llama.cpp has its own cache
        return held

    def with_system(self, system: str | None) -> "VideoSession":
        """The same frames, not encoded again, after another system prompt."""
        other = copy(self)
        other._set_system(system)
        other._max_answer(0)
        return other

    def generate(
        self,
        requests: Iterable[Request],
        options: GenerationOptions = GenerationOptions(),  # noqa: B008  (frozen)
        *,
        batch_size: int | None = None,
        stream: bool = True,
        joining: bool = False,
    ) -> Generation:
        """Answer requests, each on its own: one alone, several by continuous batching.

        Yields the index of a request with a piece of its text (with `stream`), its `Answer`, or
        the `PandaError` of this request alone. Requests are read when the batch has room: for
        `batch_size` at once, or as many as memory allows. With `joining`, an iterator of requests
        that has ended is read again after each pass, for those that have come since.

        A greedy answer does not depend on the other requests where torch computes in float32 or
        with 8-bit weights on a CPU. Elsewhere (half precision, bitsandbytes, llama.cpp) a near-tie
        may flip under batching, unless `batch_size` is 1.

        Raises:
            UsageError: An option is out of range.
            DeviceError: When the iterator is read: out of memory for the prefix.
            RuntimeError: When it is read after a newer generation on this session has begun.
        """
        options.check()
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"a batch size cannot be {batch_size}", "use at least 1")

        def state(numbered: tuple[int, Request]) -> RequestState | Failure:
            index, request = numbered
            try:
                return self.request_state(index, request, options)
            except UsageError as error:
                return index, error

        # unlike a generator, it can be read again after it has ended
        states = map(state, enumerate(requests))
        return Generation(self, states, batch_size=batch_size, stream=stream, joining=joining)

    def ask(
        self, question: str, *, history: History = (), **options: Unpack[OptionFields]
    ) -> Answer:
        """Ask a question and wait for the whole answer; see `stream`."""
        stream = self.stream(question, history=history, **options)
        for _ in stream:
            pass
        return stream.answer

    def stream(
        self, question: str, *, history: History = (), **options: Unpack[OptionFields]
    ) -> AnswerStream:
        """Ask a question, after the turns of `history`, and read the answer as it is decoded.

        Raises:
            UsageError: An option is out of range, or the question is longer than the context.
            DeviceError: Out of memory, while reading from the stream.
        """
        state = self.request_state(0, Request(question, history), GenerationOptions(**options))

        def pieces() -> Generator[str, None, Answer]:
            with Generation(self, [state], batch_size=1, stream=True) as generation:
                for _, event in generation:
                    if isinstance(event, PandaError):
                        raise event
                    if isinstance(event, str):
                        yield event
            return state.answer()

        return AnswerStream(pieces(), lambda: state.stats)

    def score(self, question: str, choices: Sequence[str], *, history: History = ()) -> Scores:
        """How likely each of some answers is, after the turns of `history`.

        The log-probability of a choice is the sum of those of its tokens and of the end token; its
        probability is a share of the `coverage`, the probability of all choices together. The texts
        are scored as they are given, space around them included; the order of the choices changes
        nothing.

        Raises:
            UsageError: There are no choices, or empty or equal ones, or they are longer than the
                context.
            DeviceError: Out of memory.
        """
        request = ScoreRequest(question, tuple(choices), history)
        ((_, scores),) = self.score_all([request])
        if isinstance(scores, PandaError):
            raise scores
        return scores

    def score_all(self, requests: Iterable[ScoreRequest]) -> "Scoring":
        """Score the choices of many questions, in as few passes as memory allows.

        Yields the index of a request with its `Scores`, or why it has none. All requests are read
        before the first pass.

        Raises:
            DeviceError: When the iterator is read: out of memory for the prefix.
            RuntimeError: When it is read after a newer generation on this session has begun.
        """
        from pandacli.inference.likelihood import Scoring

        return Scoring(self, requests)

    def prepare(self) -> None:
        """Compute the prefix now, not with the first question; a DeviceError if memory runs out."""
        with devices.memory_errors(self.panda.memory_hint):
            self.shared_prefix()

    @torch.inference_mode()
    def embed(self) -> Tensor:
        """The prefix as the Llama reads it, (prefix_tokens, hidden_size)."""
        if self._encoded is None:
            encode_together([self])
        assert self._encoded is not None
        model = self.panda.model
        ids = torch.tensor([self._ids], device=model.device)
        embedded: Tensor
        (embedded,) = model.embed_frames(ids, [self._encoded])
        return embedded

    def keep(self) -> None:
        """Write the prefix to the cache, if it was opened with one; a PandaError if that fails."""
        if self._kept is None or self._prefix is None:
            return
        try:
            with devices.memory_errors(self.panda.memory_hint):
                self._kept.save(self._prefix.sequence, self._prefix.length, self.frames)
        except OSError as error:
            why = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise PandaError(f"could not cache the clip: {why}") from error

    def tokens_left(self, question: str, history: History = ()) -> int:
        """How many tokens of answer still fit into the context; 0 or less if not even one."""
        return self.panda.context - self.prefix_tokens - len(self._encode(question, history))

    def encode_choice(self, request: ScoreRequest, choice: str) -> tuple[list[int], list[int]]:
        """The ids behind the prefix of a request, and those of a choice with its end.

        Raises:
            UsageError: They are longer than the context.
        """
        tokenizer = self.panda.tokenizer
        prompt = self._encode(request.question, request.history)
        turns = [*request.history, (request.question, choice)]
        ids = encode_turns(turns, tokenizer)
        if ids[: len(prompt)] != prompt:
            ids = [*prompt, *tokenizer.encode(choice)]
        if ids[-1] != tokenizer.eos_id:
            ids.append(tokenizer.eos_id)
        answer, room = ids[len(prompt) :], self._max_answer(len(prompt))
        if len(answer) > room:
            what = (
                f"the choice {choice[:40]!r} has {len(answer)} tokens, and there is room for {room}"
            )
            raise UsageError(what, "give shorter choices, or look at fewer frames (--frames 4)")
        return prompt, answer

    def history_tokens(self, ids: Sequence[int]) -> int:
        """How many ids of a prompt belong to earlier turns: up to the </s> of the last answer."""
        end = self.panda.tokenizer.eos_id
        return max((n for n, token in enumerate(ids, 1) if token == end), default=0)

    def shared_prefix(self) -> tuple[SharedPrefix, int]:
        """The prefix, and how many tokens were computed for it now."""
        if self._prefix is not None:
            return self._prefix, 0
        restored = self._kept.restore(self.panda.backend.restore) if self._kept else None
        sequence, step = restored or self._compute_prefix(), self.panda.step
        self._prefix = SharedPrefix(sequence, step, computed=restored is None)
        self._video_tokens = self._prefix.length - len(self._ids) + self._num_frames
        return self._prefix, self._prefix.prefilled

    def batch_positions(self) -> int:
        """How many positions fit into half of the free memory; at least those of one request."""
        model, panda = self.panda.model, self.panda
        longest = panda.context - self.prefix_tokens
        each = devices.position_bytes(model.config, panda.engine, model.dtype)
        if not each:  # llama.cpp manages its own memory
            return MAX_BATCH_SIZE * longest
        free = min(devices.free_memory(torch.device(device)) for device in panda.devices)
        return max(free // 2 // each, longest)

    def stats(self, state: RequestState) -> Stats:
        count, seconds = len(state.tokens), state.decode_seconds
        return Stats(
            frames=len(self.frames.indices),
            prefix_tokens=self.prefix_tokens,
            question_tokens=len(state.ids) - state.history,
            prefilled_tokens=state.prefilled,
            answer_tokens=count,
            load_seconds=self.panda.load_seconds,
            frames_seconds=self.frames_seconds,
            prefill_seconds=state.prefill_seconds,
            first_token_seconds=state.first_token_seconds,
            decode_seconds=seconds,
            tokens_per_second=(count - 1) / seconds if seconds else 0.0,
            peak_memory_bytes=devices.peak_memory(self.panda.devices),
            history_tokens=state.history,
        )

    def request_state(
        self, index: int, request: Request, options: GenerationOptions
    ) -> RequestState:
        options = request.options or options
        options.check()
        tokenizer, ends = self.panda.tokenizer, self.panda.stop_tokens
        text = Detokenizer(tokenizer, options.stop)
        ids = self._encode(request.question, request.history)
        history = self.history_tokens(ids)
        limit = min(options.max_tokens, self._max_answer(len(ids)))
        return RequestState(index, request.question, ids, history, limit, options, ends, text)

    def _encode(self, question: str, history: History) -> list[int]:
        turns = [*history, (question, None)]
        if self._prompt[0] != turns:  # a chat measures a prompt before it asks it
            self._prompt = turns, encode_turns(turns, self.panda.tokenizer)
        return [*self._prompt[1]]

    def _compute_prefix(self) -> backends.Sequence:
        sequence, embeddings = self.panda.backend.new_sequence(), self.embed()
        with self.panda.step("reading the prompt", len(embeddings), "tokens"):
            sequence.prefill(embeddings)
        return sequence

    def _sample(self) -> "Frames":
        assert self._clip is not None, "frames without pixels come from the cache of a clip"
        return video.sample_frames(self._clip, self._num_frames)

    def _pixels(self) -> Tensor:
        """(T, 4, S, S) the model's input; samples the frames if the cache gave no pixels."""
        if self._pixel_values is None:
            if not len(self.frames.pixels):
                self.frames = self._sample()
            config = self.panda.model.config
            self._pixel_values = video.preprocess(
                self.frames.pixels,
                image_size=config.image_size,
                patch_size=config.patch_size,
                num_frames=self._num_frames,
            )
        return self._pixel_values

    def _max_answer(self, question_tokens: int) -> int:
        room = self.panda.context - self.prefix_tokens - question_tokens
        if room > 0:
            return room
        what = f"{self._num_frames} frames of this clip take {self.prefix_tokens} tokens"
        if question_tokens:
            what += f", the question and the turns before it {question_tokens}"
        hint = "ask a shorter question, or look at fewer frames (--frames 4)"
        raise UsageError(f"{what}: the model can hold {self.panda.context}", hint)


@torch.inference_mode()
def encode_together(sessions: Sequence[VideoSession]) -> None:
    """Encode the frames of sessions on one model, as many of each, in one pass through STAB."""
    model = sessions[0].panda.model
    pixel_values = torch.stack([session._pixels() for session in sessions]).to(model.device)
    with sessions[0].panda.step("encoding", pixel_values.shape[:2].numel(), "frames") as step:
        encoded = model.model.encode_frames(pixel_values)
        step.reach(1, 1)
    for session, frames in zip(sessions, encoded, strict=True):
        session._encoded = frames
