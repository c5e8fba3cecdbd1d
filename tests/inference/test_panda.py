"""The Python interface: load a model, open a clip, ask in one line."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pandacli
from pandacli import Panda
from pandacli.errors import ClipError, ModelError, UsageError
from pandacli.inference import Answer
from pandacli.inference.session import VideoSession
from pandacli.video import Clip, sample_frames


def test_attributes_describe_the_loaded_model(panda: Panda, checkpoint: Path) -> None:
    said = (panda.name, panda.device, panda.dtype, panda.quant)
    assert said == (str(checkpoint), "cpu", "float32", "none")
    assert panda.devices == ("cpu",)
    assert panda.load_seconds > 0
    assert not panda.model.training


def test_ask_answers_about_a_path(panda: Panda, clip: Path) -> None:
    answer = panda.ask(clip, "What happens?", max_tokens=6)
    assert isinstance(answer, Answer)
    assert answer.question == "What happens?"
    assert str(answer) == answer.text != ""


def test_stream_pieces_join_to_the_answer(panda: Panda, clip: Path) -> None:
    stream = panda.stream(clip, "What happens?", max_tokens=12)
    pieces = list(stream)
    assert len(pieces) > 1
    assert (
        "".join(pieces)
        == stream.answer.text
        == panda.ask(clip, "What happens?", max_tokens=12).text
    )


def test_path_clip_and_frames_give_the_same_answer(panda: Panda, clip: Path) -> None:
    frames = sample_frames(Clip(clip, 1.0, 5.0), 4)
    opened: list[VideoSession] = [
        panda.open(str(clip), start=1.0, end=5.0, num_frames=4),
        panda.open(Clip(clip, 1.0, 5.0), num_frames=4),
        panda.open(frames, num_frames=4),
    ]
    assert [loaded.frames.indices for loaded in opened] == [frames.indices] * 3
    assert len({loaded.ask("What colour is it?", max_tokens=8).text for loaded in opened}) == 1


def test_a_range_beside_a_clip_is_a_type_error(panda: Panda, clip: Path) -> None:
    for given in ({"start": 1.0}, {"at": (1.0,)}):
        with pytest.raises(TypeError, match="start, end and at belong to a path"):
            panda.open(Clip(clip), **given)  # type: ignore[arg-type]


def test_single_times_give_the_frames_shown_then(panda: Panda, clip: Path) -> None:
    session = panda.open(clip, at=(4.0, 1.5))
    assert session.frames.times == sample_frames(Clip(clip, at=(1.5, 4.0))).times
    assert session.frames.times[0] <= 1.5 < 4.0 >= session.frames.times[1]


def test_a_clip_that_cannot_be_read_is_a_clip_error(panda: Panda, tmp_path: Path) -> None:
    with pytest.raises(ClipError):
        panda.open(tmp_path / "gone.mp4")


def test_a_number_of_frames_without_equal_chunks_is_refused(panda: Panda, clip: Path) -> None:
    with pytest.raises(UsageError, match="cannot look at 9 frames") as caught:
        panda.open(clip, num_frames=9)
    assert caught.value.hint == "8 or 10 would do; 8 is what it was trained with"


def test_the_package_exports_only_panda() -> None:
    assert pandacli.Panda is Panda
    with pytest.raises(AttributeError, match="no attribute 'Pander'"):
        _ = pandacli.Pander


def test_an_unknown_model_is_refused_before_torch_is_imported() -> None:
    code = (
        "import sys\n"
        "from pandacli import Panda\n"
        "from pandacli.errors import ModelError\n"
        "try: Panda.load('nothing-of-that-name')\n"
        "except ModelError as error: print(error)\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'cv2', 'av'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["no model is called 'nothing-of-that-name'", "[]"]


def test_loading_and_asking_print_nothing(checkpoint: Path, clip: Path) -> None:
    code = (
        "import sys\n"
        "from pandacli import Panda\n"
        "for quant in ('none', '8bit', '4bit'):\n"
        "    panda = Panda.load(sys.argv[1], device='cpu', quant=quant)\n"
        "    panda.ask(sys.argv[2], 'What happens?', max_tokens=2)\n"
    )
    command = [sys.executable, "-W", "default", "-c", code, str(checkpoint), str(clip)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")


def test_a_model_without_its_weights_is_a_model_error(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.model"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError):
        Panda.load(tmp_path, device="cpu")


def test_loading_changes_no_global_settings(checkpoint: Path) -> None:
    import logging

    from transformers.utils import logging as transformers_logging

    def settings() -> tuple[object, ...]:
        return (
            transformers_logging.get_verbosity(),
            transformers_logging.is_progress_bar_enabled(),
            logging.getLogger("bitsandbytes").level,
            torch.get_default_dtype(),
            torch.is_inference_mode_enabled(),
            torch.is_grad_enabled(),
        )

    before = settings()
    Panda.load(checkpoint, device="cpu")
    assert settings() == before


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("quant", ["none", "8bit", "4bit"])
def test_a_panda_answers_on_cuda(checkpoint: Path, clip: Path, quant: str) -> None:
    panda = Panda.load(checkpoint, device="cuda:0", quant=quant)
    answer = panda.ask(clip, "What happens?", max_tokens=4)
    assert (panda.device, panda.quant) == ("cuda:0", quant)
    native = torch.cuda.get_device_capability(0) >= (8, 0)
    assert panda.dtype == ("bfloat16" if native else "float16")
    assert answer.stats.peak_memory_bytes > 0
