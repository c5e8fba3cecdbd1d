"""The llama.cpp backend gives the logits of torch, within quantisation error, and no output."""

import os
import signal
import tomllib
import weakref
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pandacli.errors import DeviceError, ModelError, UsageError
from pandacli.inference.backends import Backend
from pandacli.inference.backends.llama_cpp.context import LlamaContext
from pandacli.inference.backends.llama_cpp.model import LlamaCppBackend, LlamaCppSequence
from pandacli.modeling import VideoPandaConfig, VideoPandaForConditionalGeneration
from pandacli.quantization import llama_library as library_module
from pandacli.quantization.gguf import GgufForm, export_gguf
from pandacli.quantization.llama_library import VERSION, llama_library
from tests.modeling.e2e import input_pixels, llama_sizes, load_vectors
from tests.parity_weights import fill
from tests.small_llama import save_small_llama

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")

IDS = [(7 * place) % 400 for place in range(60)]

HALF = 1e-3
"""Relative error of logits with weights in float32 and a KV cache in half precision."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llama")


@pytest.fixture(scope="module")
def model(folder: Path) -> VideoPandaForConditionalGeneration:
    return save_small_llama(folder / "checkpoint")


@pytest.fixture(scope="module")
def gguf_of(folder: Path, model: VideoPandaForConditionalGeneration) -> Callable[[GgufForm], Path]:
    del model  # it has written the checkpoint

    def export(form: GgufForm) -> Path:
        path = folder / f"{form}.gguf"
        if not path.exists():
            export_gguf(folder / "checkpoint", path, form)
        return path

    return export


@pytest.fixture
def llama(gguf_of: Callable[[GgufForm], Path]) -> LlamaCppBackend:
    return LlamaCppBackend(gguf_of("f32"), context=256, threads=1)


def torch_logits(model: VideoPandaForConditionalGeneration, ids: list[int]) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(input_ids=torch.tensor([ids])).logits[0, -1]
    return logits


def embed(model: VideoPandaForConditionalGeneration, ids: list[int]) -> Tensor:
    rows: Tensor = model.get_input_embeddings()(torch.tensor(ids))
    return rows.detach()


def error(given: Tensor, wanted: Tensor) -> float:
    return float((given - wanted).norm() / wanted.norm())


def sequence_of(llama: LlamaCppBackend, ids: list[int]) -> LlamaCppSequence:
    sequence = llama.new_sequence()
    sequence.append(ids)
    return sequence


def test_backend_satisfies_the_protocol(llama: LlamaCppBackend) -> None:
    given: Backend = llama
    assert given.new_sequence().length == 0


@pytest.mark.parametrize(
    ("form", "least", "most"),
    [("f32", 0, HALF), ("f16", 5e-4, 3e-3), ("q8_0", 0.02, 0.1), ("q4_k_m", 0.1, 0.7)],
)
def test_logits_match_torch(
    model: VideoPandaForConditionalGeneration,
    gguf_of: Callable[[GgufForm], Path],
    form: GgufForm,
    least: float,
    most: float,
) -> None:
    sequence = LlamaCppBackend(gguf_of(form), context=64, threads=1).new_sequence()
    assert least < error(sequence.append(IDS), torch_logits(model, IDS)) < most
    assert sequence.length == len(IDS)


@pytest.mark.parametrize("form", ["f32", "f16"])
def test_greedy_tokens_match_torch(
    model: VideoPandaForConditionalGeneration,
    gguf_of: Callable[[GgufForm], Path],
    form: GgufForm,
) -> None:
    sequence = LlamaCppBackend(gguf_of(form), context=128, threads=1).new_sequence()
    ids, token = list(IDS), int(sequence.append(IDS).argmax())
    for _ in range(12):
        assert token == int(torch_logits(model, ids).argmax())
        ids.append(token)
        token = int(sequence.append([token]).argmax())


def test_a_narrow_model_matches_torch(tmp_path: Path) -> None:
    model = save_small_llama(tmp_path / "narrow", hidden_size=192)
    export_gguf(tmp_path / "narrow", tmp_path / "narrow.gguf", "q4_k_m")
    sequence = LlamaCppBackend(tmp_path / "narrow.gguf", context=64, threads=1).new_sequence()
    assert error(sequence.append(IDS), torch_logits(model, IDS)) < 0.7


def test_prefill_of_embeddings_equals_appending_their_ids(
    model: VideoPandaForConditionalGeneration, llama: LlamaCppBackend
) -> None:
    sequence = llama.new_sequence()
    sequence.prefill(embed(model, IDS[:40]).to(torch.float64))
    sequence.prefill(embed(model, IDS[40:-1]))
    assert sequence.length == len(IDS) - 1
    assert error(sequence.append(IDS[-1:]), torch_logits(model, IDS)) < HALF


def test_a_long_prefix_is_decoded_in_slices(
    model: VideoPandaForConditionalGeneration, gguf_of: Callable[[GgufForm], Path]
) -> None:
    ids = [(11 * place) % 400 for place in range(1100)]
    sequence = LlamaCppBackend(gguf_of("f32"), context=1200, threads=1).new_sequence()
    sequence.prefill(embed(model, ids[:-1]))
    assert sequence.length == 1099
    assert error(sequence.append(ids[-1:]), torch_logits(model, ids)) < 3 * HALF


def test_truncated_positions_have_no_effect(llama: LlamaCppBackend) -> None:
    wanted = llama.new_sequence().append(IDS)
    sequence = sequence_of(llama, IDS[:30] + [9] * 20)
    sequence.truncate(30)
    assert sequence.length == 30
    assert error(sequence.append(IDS[30:]), wanted) < HALF
    sequence.truncate(1000)
    assert sequence.length == len(IDS)


def test_forks_are_independent(llama: LlamaCppBackend) -> None:
    wanted = llama.new_sequence().append(IDS)
    sequence = sequence_of(llama, IDS[:30])
    fork = sequence.fork()
    sequence.truncate(10)
    sequence.append([3] * 70)
    assert error(fork.append(IDS[30:]), wanted) < HALF
    del sequence
    fork.truncate(59)
    assert error(fork.append(IDS[59:]), wanted) < HALF


def test_forks_that_fill_a_context_move_to_their_own(llama: LlamaCppBackend) -> None:
    wanted = [llama.new_sequence().append([*IDS, *[number] * 100]) for number in range(4)]
    sequence = sequence_of(llama, IDS)
    forks = [sequence.fork() for _ in range(4)]
    given = [fork.append([number] * 100) for number, fork in enumerate(forks)]
    for one, other in zip(given, wanted, strict=True):
        assert error(one, other) < HALF


def test_forks_are_not_limited_in_number(llama: LlamaCppBackend) -> None:
    wanted = llama.new_sequence().append([*IDS, 5])
    sequence = sequence_of(llama, IDS)
    forks = [sequence.fork() for _ in range(140)]
    assert all(error(fork.append([5]), wanted) < HALF for fork in forks)


def test_released_sequences_are_reused(llama: LlamaCppBackend) -> None:
    wanted = llama.new_sequence().append([*IDS, 5])
    sequence = sequence_of(llama, IDS)
    for _ in range(140):
        fork = sequence.fork()
        assert fork._context is sequence._context
        given = fork.append([5])
    assert error(given, wanted) < HALF


def test_a_restored_sequence_continues_exactly(
    llama: LlamaCppBackend, gguf_of: Callable[[GgufForm], Path], tmp_path: Path
) -> None:
    wanted = llama.new_sequence().append(IDS)
    sequence_of(llama, IDS[:-1]).save(tmp_path / "sequence")
    restored = LlamaCppBackend(gguf_of("f32"), context=100, threads=1).restore(
        tmp_path / "sequence"
    )
    assert restored.length == len(IDS) - 1
    assert error(restored.append(IDS[-1:]), wanted) < HALF
    assert [path.name for path in tmp_path.iterdir()] == ["sequence"]


def test_the_first_positions_can_be_saved_alone(llama: LlamaCppBackend, tmp_path: Path) -> None:
    wanted = llama.new_sequence().append([*IDS, 5])
    sequence = sequence_of(llama, [*IDS, 7, 8, 9])
    sequence.save(tmp_path / "sequence", len(IDS))
    assert sequence.length == len(IDS) + 3
    restored = llama.restore(tmp_path / "sequence")
    assert restored.length == len(IDS)
    assert error(restored.append([5]), wanted) < HALF


def test_a_file_of_another_model_is_refused(
    llama: LlamaCppBackend, gguf_of: Callable[[GgufForm], Path], tmp_path: Path
) -> None:
    sequence_of(llama, IDS).save(tmp_path / "sequence")
    with pytest.raises(ModelError, match="was not saved by this model"):
        LlamaCppBackend(gguf_of("f16"), context=256, threads=1).restore(tmp_path / "sequence")


def test_a_saved_sequence_longer_than_the_context_is_refused(
    llama: LlamaCppBackend, gguf_of: Callable[[GgufForm], Path], tmp_path: Path
) -> None:
    sequence_of(llama, IDS * 4).save(tmp_path / "sequence")
    with pytest.raises(ModelError, match="does not fit into a context of 64 tokens"):
        LlamaCppBackend(gguf_of("f32"), context=64, threads=1).restore(tmp_path / "sequence")


@pytest.mark.parametrize("place", [0, 12, 40, 400, 5000, -1])
def test_a_damaged_file_is_refused(llama: LlamaCppBackend, tmp_path: Path, place: int) -> None:
    path = tmp_path / "sequence"
    sequence_of(llama, IDS).save(path)
    content = bytearray(path.read_bytes())
    content[place] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is damaged"):
        llama.restore(path)
    path.write_bytes(content[:100])
    with pytest.raises(ModelError, match="is damaged"):
        llama.restore(path)


def test_missing_files_and_folders_are_errors(llama: LlamaCppBackend, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        llama.restore(tmp_path / "sequence")
    with pytest.raises(FileNotFoundError):
        sequence_of(llama, IDS).save(tmp_path / "nowhere" / "sequence")


def test_an_interrupted_append_changes_nothing(
    llama: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = llama.new_sequence().append([*IDS, 5])
    sequence = sequence_of(llama, IDS)
    library, weights = llama_library(), llama._weights
    decode, statuses = library.llama_decode, []

    def interrupted(*arguments: object) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        assert weights._stop.wait(60)
        statuses.append(decode(*arguments))
        return 2

    # a shell that starts the tests in the background has them ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(library, "llama_decode", interrupted)
            with pytest.raises(KeyboardInterrupt):
                sequence.append([9] * 50)
    finally:
        signal.signal(signal.SIGINT, before)
    assert statuses == [2]  # llama.cpp says so itself
    assert sequence.length == len(IDS)
    assert error(sequence.append([5]), wanted) < HALF


def test_a_failure_of_llama_cpp_is_a_device_error(
    llama: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_library(), "llama_decode", lambda *_: -3)
    with pytest.raises(DeviceError, match="could not compute: it gave status -3"):
        llama.new_sequence().append(IDS)


def test_invalid_inputs_are_refused(llama: LlamaCppBackend) -> None:
    sequence = sequence_of(llama, IDS)
    for ids in ([], [400], [-1, 3]):
        with pytest.raises(ValueError, match="wanted ids from 0 to 399"):
            sequence.append(ids)
    with pytest.raises(ValueError, match="260 positions are more than the context's 256"):
        sequence.append([1] * 200)
    with pytest.raises(ValueError, match=r"wanted \(n, 256\)"):
        sequence.prefill(torch.zeros(3, 64))
    assert sequence.length == len(IDS)


def test_memory_is_freed_with_the_last_sequence(llama: LlamaCppBackend) -> None:
    sequence = sequence_of(llama, IDS)
    fork = sequence.fork()
    context: weakref.ref[LlamaContext] = weakref.ref(sequence._context)
    del sequence
    assert context() is not None
    del fork
    assert context() is None


def test_nothing_is_written_to_the_terminal(
    gguf_of: Callable[[GgufForm], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.gguf").write_bytes(gguf_of("f16").read_bytes()[:100_000])
    with pytest.raises(ModelError):
        LlamaCppBackend(tmp_path / "cut.gguf", context=64, threads=1)
    LlamaCppBackend(gguf_of("f16"), context=64, threads=1).new_sequence().append(IDS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"", b"no model at all", b"GGUF\x03\0\0\0"])
def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"odd\.gguf cannot be read by llama\.cpp"):
        LlamaCppBackend(tmp_path / "odd.gguf", context=64, threads=1)


def test_a_missing_model_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no file"):
        LlamaCppBackend(tmp_path / "none.gguf", context=64, threads=1)


def test_the_error_without_the_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(_: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr(library_module, "version", missing)
    with pytest.raises(UsageError, match=r"llama\.cpp is not installed") as caught:
        llama_library.__wrapped__()
    assert caught.value.hint == library_module.INSTALL


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_module, "version", lambda _: "2026.1.1")
    with pytest.raises(UsageError, match=rf"2026\.1\.1 is not the {VERSION} that"):
        llama_library.__wrapped__()


def test_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        library_module._DEFAULTS, library_module.ContextParams, [("n_ctx", 512), ("n_batch", 7)]
    )
    with pytest.raises(UsageError, match="settings in another way: n_batch"):
        llama_library.__wrapped__()


def test_the_project_pins_the_accepted_version() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    lines = [line.partition(";")[0] for line in project["project"]["dependencies"]]
    assert f"xllamacpp=={VERSION}" in lines
    assert any(line.startswith("gguf") for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["e2e_h128_square", "e2e_h256_raw640x480"])
def test_logits_match_the_official_model(name: str, tmp_path: Path) -> None:
    vectors = load_vectors(name)
    model = VideoPandaForConditionalGeneration(VideoPandaConfig(**llama_sizes(vectors))).eval()
    fill(model, "", vectors.meta["salt"]).save_pretrained(tmp_path / "model")
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "f32")
    with torch.inference_mode():
        frames = model.model.encode_frames(input_pixels(vectors))
        (embedded,) = model.embed_frames(vectors.tensors["input_ids"].unsqueeze(0), frames)
    sequence = LlamaCppBackend(tmp_path / "model.gguf", context=4096, threads=2).new_sequence()
    sequence.prefill(embedded[:-1])
    logits = sequence.append(vectors.tensors["input_ids"][-1:].tolist())
    assert error(logits, vectors.tensors["last_logits"]) < 5 * HALF
    for token in vectors.tensors["new_ids"].tolist():
        assert int(logits.argmax()) == token
        logits = sequence.append([token])
