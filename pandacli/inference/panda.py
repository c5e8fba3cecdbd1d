"""The Python interface of panda, which the command line uses too."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self, Unpack

from pandacli import checkpoints
from pandacli.inference import durations, spec

if TYPE_CHECKING:
    from pandacli.background import Step
    from pandacli.inference.planning.loader import LoadedModel
    from pandacli.inference.planning.planner import Plan
    from pandacli.inference.session import VideoSession
    from pandacli.inference.windows import WindowBatch
    from pandacli.prefix_cache.clip_cache import ClipCache
    from pandacli.quantization.conversion import Report
    from pandacli.video import Clip, Frames


class Panda:
    """A Video-Panda, loaded.

    panda = Panda.load("tiny")
    print(panda.ask("clip.mp4", "what happens?"))

    session = panda.open("clip.mp4", start=10, end=20)  # frames are sampled and encoded once
    for piece in session.stream("what happens?"):
        print(piece, end="", flush=True)
    """

    def __init__(self, plan: "Plan", loaded: "LoadedModel", load_seconds: float = 0.0) -> None:
        self.model, self.tokenizer, self.backend = loaded
        self.name, self.quant = plan.model.name, plan.quant
        self.engine = plan.backend  # "torch", "bitsandbytes" or "llama"
        self.devices = tuple(dict.fromkeys(str(p.device) for p in self.model.parameters()))
        self.device = self.devices[0]
        self.dtype = str(self.model.dtype).removeprefix("torch.")  # e.g. "float32"
        self.load_seconds, self.memory_hint = load_seconds, plan.hint
        self._source = plan.model
        self._kind = durations.kind_of(plan)

    @cached_property
    def identity(self) -> str:
        """The sha256 of the checkpoint, all of which is read; a ModelError if that fails."""
        return checkpoints.model_digest(self._source)

    @property
    def numerics(self) -> dict[str, Any]:
        """All that affects the rounding of keys and values, besides the weights."""
        from pandacli.inference.planning.devices import numerics

        devices = (self.device, *self.devices[1:])
        return numerics(self.quant, self.engine, self.dtype, devices)

    @property
    def context(self) -> int:
        """How many positions the model can hold."""
        return int(self.model.config.max_position_embeddings)

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return frozenset({*self.model.eos_ids, self.tokenizer.eos_id})

    @property
    def image_size(self) -> int:
        """The side of the canvas that frames are fitted to, in pixels."""
        return int(self.model.config.image_size)

    @property
    def peak_memory(self) -> int:
        """Bytes so far: of the process on the CPU, of torch on CUDA."""
        from pandacli.inference.planning.devices import peak_memory

        return peak_memory(self.devices)

    def step(self, words: str, total: int, unit: str) -> "AbstractContextManager[Step]":
        """Show a slow step of this model for the block; see `durations.timed`."""
        return durations.timed(words, total, unit, f"{words}: {self._kind}")

    @property
    def windows_at_once(self) -> int:
        """How many clips `look_together` is best given."""
        from pandacli.inference.windows import windows_at_once

        return windows_at_once(self)

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = checkpoints.DEFAULT_MODEL,  # a name, or a folder
        *,
        device: str = "auto",  # "cpu", "cuda" (one or more devices) or "cuda:N"
        quant: str = "auto",  # "none", "8bit" or "4bit"
        engine: str = "auto",  # "torch", "bitsandbytes" or "llama" (llama.cpp)
        report: "Report | None" = None,  # called with the parameters quantised and their total
    ) -> Self:
        """Load a model that is on this machine.

        It is quantised once, which takes minutes, and kept on disk. "auto" takes CUDA if the model
        fits, and there the most bits that fit; on a CPU a large model gets 8 or 4 bits.

        Raises:
            ModelError: The model is missing or damaged, or its quantised copy cannot be written.
            DeviceError: The device does not exist or has too little memory.
            UsageError: A name is not known, or quant, engine and device cannot be combined.
        """
        from pandacli.inference.planning.planner import resolve_run

        return cls.from_plan(resolve_run(spec.RunSpec(model, quant, engine, device)), report)

    @classmethod
    def from_plan(cls, plan: "Plan", report: "Report | None" = None) -> Self:
        """Load what `resolve_run` planned; see `load`."""
        started = perf_counter()
        from pandacli.inference.planning.loader import load

        loaded = load(plan, report)
        return cls(plan, loaded, perf_counter() - started)

    def open(
        self,
        video: "str | os.PathLike[str] | Clip | Frames",
        *,
        start: float | None = None,  # of a path, in seconds
        end: float | None = None,
        at: Sequence[float] = (),  # instead of a range, times to look at
        num_frames: int = 8,  # a shorter clip is padded
        system: str | None = None,  # None for the system prompt of training
        frames_seconds: float = 0.0,  # that sampling `Frames` took, for the statistics
        cache: "bool | ClipCache" = False,
    ) -> "VideoSession":
        """Sample the frames of a clip, to ask about it.

        With `cache`, the KV cache of the clip is restored from disk if it is there, without
        sampling frames, and `VideoSession.keep` writes it; `Frames` need a `ClipCache` for that.
        A greedy answer is the same with and without it.

        Raises:
            ClipError: The video cannot be used.
            UsageError: The number of frames, the range or `PANDA_CACHE_SIZE` is not valid, or the
                frames exceed the model's context.
        """
        spec.check_frame_count(num_frames, self.model.config.num_frames)
        from pandacli.inference.session import VideoSession
        from pandacli.prefix_cache.clip_cache import ClipCache
        from pandacli.prefix_cache.store import default_budget
        from pandacli.video import Clip, Frames
        from pandacli.video.clip import local_file

        if not isinstance(video, Clip | Frames):
            video = Clip(local_file(video), start, end, at=tuple(at))
        elif at or not (start is None and end is None):
            raise TypeError("start, end and at belong to a path; a Clip has them, Frames are read")
        clip_cache = None if isinstance(cache, bool) else cache
        if cache is True:
            if isinstance(video, Frames):
                raise TypeError("Frames do not say of which file: give a ClipCache as cache")
            if default_budget():
                with suppress(OSError):  # sampling the frames will report it
                    clip_cache = ClipCache(video, num_frames)
        return VideoSession(
            self, video, num_frames, system, frames_seconds=frames_seconds, cache=clip_cache
        )

    def look_together(
        self,
        clips: "Sequence[Frames]",
        num_frames: int = 8,
        system: str | None = None,
    ) -> "WindowBatch":
        """Look at many clips in one batch, to ask the same questions about each."""
        from pandacli.inference.windows import WindowBatch

        return WindowBatch(self, clips, num_frames, system)

    def ask(
        self,
        video: "str | os.PathLike[str] | Clip | Frames",
        question: str,
        *,
        start: float | None = None,
        end: float | None = None,
        num_frames: int = 8,
        system: str | None = None,
        history: spec.History = (),
        **options: Unpack[spec.OptionFields],
    ) -> spec.Answer:
        """Ask one question, with the arguments of `open` and `VideoSession.ask`."""
        session = self.open(video, start=start, end=end, num_frames=num_frames, system=system)
        return session.ask(question, history=history, **options)

    def stream(
        self,
        video: "str | os.PathLike[str] | Clip | Frames",
        question: str,
        *,
        start: float | None = None,
        end: float | None = None,
        num_frames: int = 8,
        system: str | None = None,
        history: spec.History = (),
        **options: Unpack[spec.OptionFields],
    ) -> spec.AnswerStream:
        """Ask one question and read the answer as it is decoded."""
        session = self.open(video, start=start, end=end, num_frames=num_frames, system=system)
        return session.stream(question, history=history, **options)
