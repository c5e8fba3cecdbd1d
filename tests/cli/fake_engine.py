"""The real command line on a fake of the engine and the video room.

Run as a script, it is `panda` with a model that answers `You asked: …`, word by word, about eight
frames it made up. It records what reached the engine as one JSON line in the file `FAKE_LOG`.

    FAKE_ANSWER     what to answer instead
    FAKE_DELAY      seconds before each word
    FAKE_QUANT      what the model says it runs in, instead of none
    FAKE_DEVICES    what it says it is on, instead of the CPU
    FAKE_QUANTISES  set where loading quantises first
    FAKE_STEP       seconds between two frames, instead of 1
    FAKE_NOISE      what a library prints on descriptor 1 while it loads
"""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np

import pandacli
import pandacli.checkpoints
import pandacli.video
from pandacli.cli import main, startup


@dataclass
class FakeStats:
    frames: int = 8
    prefix_tokens: int = 1232
    question_tokens: int = 9
    prefilled_tokens: int = 1241
    answer_tokens: int = 3
    load_seconds: float = 1.0
    frames_seconds: float = 0.25
    prefill_seconds: float = 0.5
    first_token_seconds: float = 0.75
    decode_seconds: float = 0.3
    tokens_per_second: float = 10.0
    peak_memory_bytes: int = 1_500_000_000
    history_tokens: int = 0


@dataclass
class FakeAnswer:
    question: str
    text: str
    finish_reason: str = "stop"
    logprobs: tuple = ()
    stats: FakeStats = field(default_factory=FakeStats)


class FakeStream:
    def __init__(self, answer):
        self.answer = answer
        self.pieces = iter(answer.text.replace(" ", "\0 ").split("\0"))

    def __iter__(self):
        return self

    def __next__(self):
        time.sleep(float(os.environ.get("FAKE_DELAY", "0")))
        return next(self.pieces)

    def close(self):
        log("closed")


class FakeClip:
    def __init__(self, frames):
        self.frames = frames

    def keep(self):
        log("keep")

    def ask(self, question, *, max_tokens=1024, **how):
        log("ask", question=question, max_tokens=max_tokens, **how)
        text = os.environ.get("FAKE_ANSWER", f"You asked: {question}")
        return FakeAnswer(question, text, "length" if max_tokens == 3 else "stop")

    def stream(self, question, **how):
        return FakeStream(self.ask(question, **how))


class FakePanda:
    engine = "torch"
    devices = tuple(os.environ.get("FAKE_DEVICES", "cpu").split())

    def __init__(self, name):
        self.name = name
        self.quant = os.environ.get("FAKE_QUANT", "none")

    @classmethod
    def from_plan(cls, spec, report):
        how = {"device": spec.device, "quant": spec.quant, "engine": spec.backend}
        log("load", model=spec.model, **how)
        time.sleep(float(os.environ.get("FAKE_DELAY", "0")))
        if noise := os.environ.get("FAKE_NOISE"):
            os.write(1, noise.encode())
        if "FAKE_QUANTISES" in os.environ:
            report(1, 2)
        return cls(spec.model)

    def open(self, frames, *, num_frames=8, system=None, frames_seconds=0.0, cache=False):
        assert cache is not True
        assert frames_seconds >= 0
        log("open", num_frames=num_frames, system=system)
        return FakeClip(frames)


def sample_frames(clip, num_frames=8):
    log("frames", start=clip.start, end=clip.end, num_frames=num_frames)
    time.sleep(float(os.environ.get("FAKE_DELAY", "0")))
    shade = np.linspace(0, 255, 320, dtype=np.uint8)
    pixels = np.zeros((num_frames, 180, 320, 3), np.uint8)
    pixels[..., 0], pixels[..., 2] = shade, shade[::-1]
    step = float(os.environ.get("FAKE_STEP", "1"))
    times = tuple(step * n for n in range(num_frames))
    return SimpleNamespace(
        pixels=pixels,
        indices=tuple(range(0, num_frames * 30, 30)),
        times=times,
        notices=tuple(filter(None, [os.environ.get("FAKE_NOTICE")])),
    )


def log(event, **facts):
    if path := os.environ.get("FAKE_LOG"):
        with Path(path).open("a") as file:
            file.write(json.dumps({"event": event, **facts}) + "\n")


if __name__ == "__main__":
    pandacli.Panda = FakePanda
    pandacli.video.sample_frames = sample_frames
    startup.Loading.begin = lambda _: None  # the real one imports the engine
    startup.Loading.plan = lambda self: self.spec  # so does this one
    pandacli.checkpoints.resolve = lambda name: log("resolve", model=name)
    main()
