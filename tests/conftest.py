"""What all tests stand on: a home of their own for what panda keeps, and a small random model."""

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker for each core: more threads would only wait
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SENTENCES = [
    "A red circle moves left and a blue square stays still.",
    "The green triangle grows while the white star shrinks.",
    "What happens? What colour is it? Is there a circle?",
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. USER:",
    "ASSISTANT: yes, no, one, two, three; left, right, up, down",
]


def pytest_configure() -> None:
    """Let what the tests start be interrupted, also where a shell in the background forbids it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def panda_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Quantised copies and remembered measurements go to a folder that ends with the tests."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PANDA_HOME", str(home))
        yield home


@pytest.fixture(scope="module")
def short_folder() -> Iterator[Path]:
    """A folder for sockets: the paths of other temporary folders may be too long for them."""
    with TemporaryDirectory(prefix="panda-") as folder:
        yield Path(folder)


def frame_readers() -> list[psutil.Process]:
    """The processes of this one that read video files."""
    children = psutil.Process().children(recursive=True)
    children = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in children if "video.prefetch" in " ".join(child.cmdline())]


@pytest.fixture(scope="module", autouse=True)
def no_frame_reader_is_left() -> Iterator[None]:
    """A process left by one module would be counted in the next."""
    yield
    assert frame_readers() == []


@pytest.fixture(scope="session")
def tokenizer_model() -> bytes:
    """A SentencePiece model of the Llama kind, with byte fallback."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=model,
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer_model: bytes) -> Path:
    """A checkpoint folder of a model small enough to ask thousands of times."""
    import torch

    from pandacli.modeling.configuration_videopanda import VideoPandaConfig
    from pandacli.modeling.modeling_videopanda import VideoPandaForConditionalGeneration

    config = VideoPandaConfig(
        image_size=112,
        patch_size=14,
        video_hidden_size=32,
        video_num_heads=4,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=400,
        max_position_embeddings=512,
        initializer_range=0.2,  # wide enough for answers that vary with the question
    )
    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("models") / "random"
    model = VideoPandaForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight[config.eos_token_id] = 0.0  # never the likeliest: answers do not end
    model.save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(tokenizer_model)
    return folder
