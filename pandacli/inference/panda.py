"""The Python face of panda, which the command line uses too."""

import os
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Self, Unpack

from pandacli import checkpoints
from pandacli.errors import ModelError
from pandacli.inference.answer import Answer, AnswerStream
from pandacli.inference.spec import History, OptionFields, RunSpec, check_frame_count

if TYPE_CHECKING:
    from pandacli.inference.backends import Backend
    from pandacli.inference.planning.planner import Plan
    from pandacli.inference.session import VideoSession
    from pandacli.modeling.modeling_videopanda import VideoPandaForConditionalGeneration
    from pandacli.modeling.tokenization_videopanda import VideoPandaTokenizer
    from pandacli.prefix_cache.clip_cache import ClipCache
    from pandacli.quantization import Quant
    from pandacli.quantization.conversion import Report
    from pandacli.video import Clip, Frames


class Panda:
    """A Video-Panda, loaded.

        panda = Panda.load("tiny")
        print(panda.ask("clip.mp4", "what happens?"))

        clip = panda.open("clip.mp4", start=10, end=20)  # frames are read and encoded once
        for piece in clip.stream("what happens?"):
            print(piece, end="", flush=True)

    Attributes:
        name: What the model was asked for as.
        devices: What it is on: "cpu", or one or more "cuda:N".
        device: The first of these.
        dtype: What is computed in: "float32", "bfloat16" or "float16".
        quant: "none", "8bit" or "4bit".
        engine: What computes the Llama: "torch", "bitsandbytes" or "llama".
        load_seconds: How long loading took.
        memory_hint: What to do where the memory turns out to be too little.
    """

    def __init__(
        self,
        model: "VideoPandaForConditionalGeneration",
        tokenizer: "VideoPandaTokenizer",
        *,
        name: str,
        backend: "Backend",
        quant: "Quant" = "none",
        engine: str = "torch",
        load_seconds: float = 0.0,
        memory_hint: str = "look at fewer --frames",
        source: checkpoints.ResolvedModel | None = None,
    ) -> None:
        self.model = model
        self.backend = backend
        self.tokenizer = tokenizer
        self.name = name
        places = dict.fromkeys(str(parameter.device) for parameter in model.parameters())
        self.devices = tuple(places)
        self.device = self.devices[0]
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.quant: str = quant
        self.engine = engine
        self.load_seconds = load_seconds
        self.memory_hint = memory_hint
        self._source = source

    @cached_property
    def identity(self) -> str:
        """The sha256 of the checkpoint, by which it is the same model whatever it is called.

        A large checkpoint is read whole for it, once.

        Raises:
            ModelError: It cannot be read, or the model did not come from `load`.
        """
        if self._source is None:
            raise ModelError(f"{self.name} was not loaded from a checkpoint")
        return checkpoints.model_digest(self._source)

    @property
    def context(self) -> int:
        """How many positions the model can hold."""
        return int(self.model.config.max_position_embeddings)

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The tokens that end an answer."""
        eos = self.model.generation_config.eos_token_id
        ends = () if eos is None else eos if isinstance(eos, list) else (eos,)
        return frozenset((*ends, self.tokenizer.eos_id))

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = checkpoints.DEFAULT_MODEL,
        *,
        device: str = "auto",
        quant: str = "auto",
        engine: str = "auto",
        report: "Report | None" = None,
    ) -> Self:
        """Load a model that is on this machine.

        Args:
            model: "video-panda-7b", "video-panda-7b-pretrained", "tiny", or a checkpoint folder.
            device: "auto" (CUDA where there is one that has room, or several that have together),
                "cpu", "cuda" (one card, or several), or "cuda:N" (that card).
            quant: "none", "8bit", "4bit", or "auto": on CUDA the most bits that fit; on a CPU 8 or
                4 for a large model. A model is quantised once, which takes minutes for a large
                one, and kept on the disk.
            engine: "torch", "bitsandbytes", "llama", or "auto": the fastest for the device.
            report: Called while the model is being quantised, with the number of parameters that
                are done and that of all.

        Raises:
            ModelError: The model is not here, or damaged, or its quantised copy cannot be written.
            DeviceError: The device is not there, or has too little memory.
            UsageError: A name is not known, or quant, engine and device do not go together.
        """
        return cls.from_spec(RunSpec(model, quant, engine, device), report)

    @classmethod
    def from_spec(cls, spec: RunSpec, report: "Report | None" = None) -> Self:
        """Load what a spec says; see `load`."""
        from pandacli.inference.planning.planner import resolve_run

        return cls.from_plan(resolve_run(spec), report)

    @classmethod
    def from_plan(cls, plan: "Plan", report: "Report | None" = None) -> Self:
        """Load what `resolve_run` planned; see `load`."""
        started = perf_counter()
        from pandacli.inference.planning.loader import load

        loaded = load(plan, report)
        return cls(
            loaded.model,
            loaded.tokenizer,
            name=plan.model.name,
            backend=loaded.backend,
            quant=plan.quant,
            engine=plan.backend,
            load_seconds=perf_counter() - started,
            memory_hint=plan.hint,
            source=plan.model,
        )

    def open(
        self,
        video: "str | os.PathLike[str] | Clip | Frames",
        *,
        start: float | None = None,
        end: float | None = None,
        num_frames: int = 8,
        system: str | None = None,
        frames_seconds: float = 0.0,
        cache: "bool | ClipCache" = False,
    ) -> "VideoSession":
        """Read the frames of a clip, to ask about it.

        Args:
            video: A path, a `Clip`, or `Frames` that are read already.
            start: Of a path: the first moment looked at, in seconds.
            end: Of a path: the moment to stop at, in seconds.
            num_frames: How many frames the model is shown; what a shorter clip lacks is padding.
            system: The system prompt; None is the one that the model was trained with.
            frames_seconds: For `Frames`: how long reading them took, for the statistics.
            cache: Look for what was computed of the clip before on the disk, in which case no
                frames are read, and let `VideoSession.keep` put it there; at most 4 GB are kept, if
                neither `PANDA_CACHE_SIZE` nor `ClipCache` says otherwise. It needs a path or a
                `Clip`, or `ClipCache`. Every bit is kept: a greedy answer is the same with and
                without it.

        Raises:
            ClipError: The video cannot be used.
            UsageError: The model cannot look at so many frames, the range is none, or
                `PANDA_CACHE_SIZE` is no size.
        """
        check_frame_count(num_frames, self.model.config.num_frames)
        from pandacli.inference.session import VideoSession
        from pandacli.video import Clip, Frames
        from pandacli.video.clip import local_file

        if isinstance(video, Clip | Frames) and not (start is None and end is None):
            raise TypeError("start and end belong to a path; a Clip has its own, Frames are read")
        if isinstance(video, Frames):
            if cache is True:
                raise TypeError(
                    "Frames do not say which file they are from: give a ClipCache as cache"
                )
            frames, clip = video, cache.clip if cache else None
        else:
            clip = video if isinstance(video, Clip) else Clip(local_file(video), start, end)
            frames = None
        if isinstance(cache, bool):
            on_disk = _on_disk(clip, num_frames) if cache and clip else None
        else:
            on_disk = cache
        return VideoSession(
            self, frames, num_frames, system, frames_seconds, clip=clip, on_disk=on_disk
        )

    def ask(
        self,
        video: "str | os.PathLike[str] | Clip | Frames",
        question: str,
        *,
        start: float | None = None,
        end: float | None = None,
        num_frames: int = 8,
        system: str | None = None,
        history: History = (),
        **options: Unpack[OptionFields],
    ) -> Answer:
        """Ask one question; `open` and `VideoSession.ask` in one, and with their arguments."""
        clip = self.open(video, start=start, end=end, num_frames=num_frames, system=system)
        return clip.ask(question, history=history, **options)

    def stream(
        self,
        video: "str | os.PathLike[str] | Clip | Frames",
        question: str,
        *,
        start: float | None = None,
        end: float | None = None,
        num_frames: int = 8,
        system: str | None = None,
        history: History = (),
        **options: Unpack[OptionFields],
    ) -> AnswerStream:
        """Ask one question, the answer in pieces; as `ask`."""
        clip = self.open(video, start=start, end=end, num_frames=num_frames, system=system)
        return clip.stream(question, history=history, **options)


def _on_disk(clip: "Clip", num_frames: int) -> "ClipCache | None":
    from pandacli.prefix_cache.clip_cache import ClipCache
    from pandacli.prefix_cache.store import default_budget

    try:
        return ClipCache(clip, num_frames) if default_budget() else None
    except OSError:  # the reader of the frames says what is wrong with it
        return None
