"""What slow steps report while a model loads, and while it reads a prompt."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread

import pytest

from pandacli import Panda
from pandacli.background import Background, Step, current_step, running
from pandacli.checkpoint_files import weight_files
from pandacli.checkpoints.artifacts import GGUF_FILE
from pandacli.inference import durations
from pandacli.inference.planning.loader import make_artifact
from pandacli.inference.planning.planner import resolve_run
from pandacli.inference.session import VideoSession
from pandacli.inference.spec import GenerationOptions, RunSpec
from tests.inference.batches import REQUESTS

needs_llama = pytest.mark.skipif(not find_spec("xllamacpp"), reason="no llama.cpp")
FORMS = [
    ("none", "torch"),
    ("8bit", "torch"),
    ("4bit", "torch"),
    ("8bit", "bitsandbytes"),
    pytest.param("8bit", "llama", marks=needs_llama),
]


@dataclass(eq=False)
class Recorded(Step):
    """A step that keeps each number it reports."""

    reported: list[int] = field(default_factory=list)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "done" and "reported" in vars(self):
            self.reported.append(self.done)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """The slow steps that models report from here on."""
    made: list[Recorded] = []

    def make(*args: object) -> Recorded:
        made.append(Recorded(*args))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(durations, "Step", make)
    return made


def header_bytes(path: Path) -> int:
    """Of a safetensors file: what is before its tensors."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


@pytest.mark.parametrize(("quant", "engine"), FORMS)
def test_load_reports_the_bytes_of_the_weight_files(
    steps: list[Recorded], quant: str, engine: str
) -> None:
    plan = resolve_run(RunSpec("tiny", quant, engine, "cpu"))
    artifact = make_artifact(plan)
    folder = artifact.folder if artifact else plan.model.folder
    files = weight_files(folder)
    headers = sum(map(header_bytes, files))
    if engine == "llama":
        files.append(folder / GGUF_FILE)
    Panda.from_plan(plan)
    (step,) = steps
    assert (step.words, step.unit) == ("loading tiny", "bytes")
    assert step.total == sum(path.stat().st_size for path in files)
    # one number of a layer is made where files lack it
    assert step.done - (step.total - headers) in (0, 8)
    assert step.reported == sorted(step.reported)
    assert len(step.reported) > 5


def test_prompt_and_question_report_each_layer_up_to_all_tokens(
    panda: Panda, session: VideoSession, steps: list[Recorded]
) -> None:
    session.ask("What happens?", max_tokens=3)
    layers = len(panda.model.model.layers)
    frames, prompt, question = steps
    assert [step.words for step in steps] == [
        "encoding",
        "reading the prompt",
        "reading the question",
    ]
    assert (frames.total, frames.done) == (8, 8)
    assert prompt.total == session.prefix_tokens
    for step in (prompt, question):
        assert step.reported == [step.total * n // layers for n in range(1, layers + 1)]
    steps.clear()
    session.ask("What happens?", max_tokens=3)
    assert [step.words for step in steps] == ["reading the question"], "the prompt is kept"


def test_batch_reports_its_questions_and_not_what_it_decodes(
    panda: Panda, session: VideoSession, steps: list[Recorded]
) -> None:
    session.prepare()
    steps.clear()
    list(session.generate(REQUESTS, batch_size=len(REQUESTS)))
    read = [step for step in steps if step.words == "reading the questions"]
    tokens = sum(len(session.request_state(0, each, GenerationOptions()).ids) for each in REQUESTS)
    assert sum(step.total for step in read) >= tokens
    assert all(step.done == step.total for step in read)
    layers = len(panda.model.model.layers)
    assert all(len(step.reported) == layers for step in read)


@needs_llama
def test_llama_cpp_reports_chunks_of_the_prompt(
    checkpoint: Path, clip: Path, steps: list[Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pandacli.inference.backends.llama_cpp import context

    monkeypatch.setattr(context, "SLICE", 32)
    session = Panda.load(checkpoint, device="cpu", quant="8bit", engine="llama").open(clip)
    session.prepare()
    prompt = steps[-1]
    tokens = session.prefix_tokens
    assert (prompt.words, prompt.total) == ("reading the prompt", tokens)
    assert prompt.reported == [*range(32, tokens, 32), tokens]


def test_failed_step_is_over() -> None:
    with pytest.raises(ValueError, match="broken"), running(Step("reading", 3, "tokens")):
        raise ValueError("broken")
    assert current_step() is None


def test_step_of_the_background_is_that_of_the_thread_that_waits_for_it() -> None:
    seen, go_on, loaded = Event(), Event(), Step("loading", 3, "bytes")

    def load(_: object) -> None:
        with running(loaded):
            seen.set()
            go_on.wait(10)

    work = Background(load)
    prefill = Background(lambda _: work.result())
    waiting = Thread(target=prefill.result)
    waiting.start()
    seen.wait(10)
    assert current_step() is None
    assert work.step is loaded
    while prefill.step is None or current_step(waiting.ident) is None:
        assert not go_on.wait(0.01)
    assert prefill.step is current_step(waiting.ident) is loaded
    go_on.set()
    waiting.join()
    assert work.step is prefill.step is current_step(waiting.ident) is None
