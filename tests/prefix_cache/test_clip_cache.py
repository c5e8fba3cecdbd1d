"""Cached prefixes of clips: used where nothing has changed, ignored or removed otherwise."""

import json
import os
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from pandacli import Panda
from pandacli.errors import PandaError, UsageError
from pandacli.inference.session import VideoSession
from pandacli.prefix_cache import clip_cache as key
from pandacli.prefix_cache import store as store_module
from pandacli.prefix_cache.clip_cache import CachedPrefix, ClipCache
from pandacli.prefix_cache.store import PrefixStore
from pandacli.video import Clip

QUESTION = "What happens?"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where entries are written."""
    place = tmp_path / "prefixes"
    monkeypatch.setattr(store_module, "prefixes_folder", lambda: place)
    return place


@pytest.fixture
def video(clip: Path, tmp_path: Path) -> Path:
    """A clip that may be changed."""
    return Path(shutil.copy2(clip, tmp_path / "video.mp4"))


def ask(panda: Panda, video: Path, **how: object) -> VideoSession:
    """Open a clip, ask about it, and write the prefix to the cache."""
    opened = panda.open(video, cache=True, **how)  # type: ignore[arg-type]
    opened.ask(QUESTION, max_tokens=4)
    opened.keep()
    return opened


def is_found(opened: VideoSession) -> bool:
    """Whether the prefix of a session came from the disk."""
    stats = opened.ask(QUESTION, max_tokens=4).stats
    return opened._prefix is not None and opened._prefix.prefilled < 3 * stats.question_tokens


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_saved_prefix_is_found(panda: Panda, video: Path) -> None:
    ask(panda, video)
    assert is_found(ask(panda, video))


def test_cache_size_variable_applies_in_python(
    panda: Panda, video: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(panda, video)
    kept = entries(folder)
    monkeypatch.setenv("PANDA_CACHE_SIZE", "0")
    assert not is_found(ask(panda, video))
    assert entries(folder) == kept
    monkeypatch.setenv("PANDA_CACHE_SIZE", "20GB")
    assert ClipCache(Clip(video), 8).store.budget == 20_000_000_000
    monkeypatch.setenv("PANDA_CACHE_SIZE", "lots")
    with pytest.raises(UsageError, match="PANDA_CACHE_SIZE: 'lots' is no size"):
        panda.open(video, cache=True)


def test_nothing_is_saved_without_cache(panda: Panda, video: Path, folder: Path) -> None:
    opened = panda.open(video)
    opened.ask(QUESTION, max_tokens=4)
    opened.keep()
    assert not folder.exists()


def test_cached_prefix_decodes_and_encodes_nothing(
    panda: Panda, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask(panda, video)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("this was computed before")

    monkeypatch.setattr("pandacli.video.sample_frames", fail)
    monkeypatch.setattr(panda.model.model, "encode_frames", fail)
    opened = panda.open(video, cache=True)
    stats = opened.ask(QUESTION, max_tokens=4).stats
    assert stats.prefilled_tokens == stats.question_tokens
    assert stats.prefix_tokens == first.prefix_tokens


def test_cached_frames_lack_only_pixels(panda: Panda, video: Path) -> None:
    first = ask(panda, video).frames
    found = panda.open(video, cache=True).frames
    assert replace(found, pixels=first.pixels) == first
    assert len(found.pixels) == 0


def test_renamed_clip_is_found(panda: Panda, video: Path) -> None:
    ask(panda, video)
    moved = video.rename(video.with_name("other.mp4"))
    os.utime(moved, (1, 1))
    assert is_found(panda.open(moved, cache=True))
    assert [entry.metadata.video for entry in PrefixStore().entries()] == [str(moved)]


def test_changed_clip_is_not_found(panda: Panda, video: Path) -> None:
    ask(panda, video)
    state = video.stat()
    with video.open("r+b") as file:
        file.seek(state.st_size // 2)
        file.write(b"\x55")
    os.utime(video, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert not is_found(panda.open(video, cache=True))


@pytest.mark.parametrize(
    "other", [{"start": 1}, {"end": 5}, {"num_frames": 4}, {"system": "Be brief."}]
)
def test_other_range_frames_or_system_prompt_is_not_found(
    panda: Panda, video: Path, other: dict[str, object]
) -> None:
    ask(panda, video)
    assert not is_found(panda.open(video, cache=True, **other))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("identity", "0" * 64),
        ("quant", "8bit"),
        ("engine", "bitsandbytes"),
        ("dtype", "bfloat16"),
        ("device", "cuda:0"),
    ],
)
def test_other_model_or_precision_is_not_found(
    panda: Panda, video: Path, monkeypatch: pytest.MonkeyPatch, part: str, value: str
) -> None:
    ask(panda, video)
    monkeypatch.setitem(panda.__dict__, part, value)
    opened = ClipCache(Clip(video), 8)
    assert CachedPrefix(panda, opened, ids(panda)).tokens is None


def ids(panda: Panda) -> list[int]:
    from pandacli.modeling.tokenization_videopanda import encode_prefix

    return encode_prefix(panda.tokenizer, None, 8)


def test_other_computation_version_is_not_found(
    panda: Panda, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(panda, video)
    monkeypatch.setattr(key, "COMPUTATION_VERSION", key.COMPUTATION_VERSION + 1)
    assert not is_found(panda.open(video, cache=True))


@pytest.mark.parametrize(
    ("name", "other"),
    [("torch.__version__", "9.9.9"), ("torch.backends.cpu.get_cpu_capability", lambda: "VSX")],
)
def test_other_torch_or_cpu_is_not_found(
    panda: Panda, video: Path, monkeypatch: pytest.MonkeyPatch, name: str, other: object
) -> None:
    ask(panda, video)
    assert is_found(panda.open(video, cache=True))
    monkeypatch.setattr(name, other)
    assert not is_found(panda.open(video, cache=True))


@pytest.mark.parametrize("package", ["av", "pillow"])
def test_other_package_version_is_not_found(
    panda: Panda, video: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    ask(panda, video)
    real = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "0.0.1" if name == package else real(name)
    )
    assert not is_found(panda.open(video, cache=True))


@pytest.mark.parametrize(
    ("engine", "name", "other"),
    [
        ("torch", "pandacli.quantization.int8.input_steps", lambda: 1),
        ("bitsandbytes", "pandacli.inference.planning.devices.cpu_flags", lambda: {"none"}),
        ("llama", "pandacli.inference.planning.devices.cpu_flags", lambda: {"none"}),
    ],
)
def test_kernels_that_round_differently_change_the_key(
    panda: Panda, monkeypatch: pytest.MonkeyPatch, engine: str, name: str, other: object
) -> None:
    monkeypatch.setitem(panda.__dict__, "quant", "8bit")
    monkeypatch.setitem(panda.__dict__, "engine", engine)
    before = panda.numerics
    assert before == panda.numerics
    monkeypatch.setattr(name, other)
    assert before != panda.numerics


def test_explicit_default_system_prompt_is_found(panda: Panda, video: Path) -> None:
    from pandacli.modeling.tokenization_videopanda import DEFAULT_SYSTEM

    ask(panda, video)
    assert is_found(panda.open(video, cache=True, system=DEFAULT_SYSTEM))


@pytest.mark.parametrize("name", ["entry.json", "frames.json", "kv"])
@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"[" * 100_000, b"\xff" * 5000])
def test_damaged_entry_is_removed_and_written_again(
    panda: Panda, video: Path, folder: Path, name: str, content: bytes
) -> None:
    wanted = ask(panda, video).ask(QUESTION, max_tokens=4).text
    (entry,) = entries(folder)
    (entry / name).write_bytes(content)
    opened = panda.open(video, cache=True)
    assert opened.ask(QUESTION, max_tokens=4).text == wanted
    assert not is_found(opened)
    assert entries(folder) == []
    opened.keep()
    assert is_found(panda.open(video, cache=True))


@pytest.mark.parametrize("tokens", [1, 9, 5000, 10**9, 2**32 - 1, 2**40, -1, 0, 3.5, True, "9"])
def test_entry_with_impossible_token_count_is_removed(
    panda: Panda, video: Path, folder: Path, tokens: object
) -> None:
    wanted = ask(panda, video).ask(QUESTION, max_tokens=4).text
    (entry,) = entries(folder)
    label = json.loads((entry / "entry.json").read_text())
    (entry / "entry.json").write_text(json.dumps(label | {"tokens": tokens}))
    assert panda.open(video, cache=True).ask(QUESTION, max_tokens=4).text == wanted
    assert entries(folder) == []


@pytest.mark.parametrize("place", [0, 9, 0.3, 0.6, -1])
def test_flipped_bit_in_kv_is_detected(
    panda: Panda, video: Path, folder: Path, place: float
) -> None:
    ask(panda, video)
    path = entries(folder)[0] / "kv"
    content = bytearray(path.read_bytes())
    content[place if isinstance(place, int) else int(place * len(content))] ^= 0x10
    path.write_bytes(content)
    assert not is_found(panda.open(video, cache=True))


@pytest.mark.parametrize(
    "wrong",
    [
        {"times": [float("nan")] * 8},
        {"times": ["0"] * 7},
        {"indices": []},
        {"indices": [{}] * 8},
        {"info": {}},
        {"info": {"width": -1}},
        {"info": {"height": 10**400}},
        {"info": {"fps": "fast"}},
        {"info": {"duration": None}},
        {"info": {"codec": 3}},
        {"info": {"timestamps": 3}},
        {"info": {"more": 3}},
        {"notices": 3},
    ],
)
def test_entry_with_invalid_frames_is_removed(
    panda: Panda, video: Path, folder: Path, wrong: dict[str, Any]
) -> None:
    ask(panda, video)
    (entry,) = entries(folder)
    facts = json.loads((entry / "frames.json").read_text())
    if wrong.get("info"):
        wrong = {"info": facts["info"] | wrong["info"]}
    (entry / "frames.json").write_text(json.dumps(facts | wrong))
    opened = panda.open(video, cache=True)
    opened.prepare()
    assert opened.frames.info.width > 0
    assert entries(folder) == []


def test_frames_are_read_if_kv_file_is_damaged(panda: Panda, video: Path, folder: Path) -> None:
    first = ask(panda, video)
    (entries(folder)[0] / "kv").write_bytes(b"no")
    opened = panda.open(video, cache=True)
    opened.prepare()
    assert (opened.frames.pixels == first.frames.pixels).all()


def test_entry_removed_after_lookup_is_computed(panda: Panda, video: Path, folder: Path) -> None:
    wanted = ask(panda, video).ask(QUESTION, max_tokens=4).text
    opened = panda.open(video, cache=True)
    shutil.rmtree(folder)
    assert opened.ask(QUESTION, max_tokens=4).text == wanted


def test_clip_changed_after_opening_is_not_saved(panda: Panda, video: Path, folder: Path) -> None:
    opened = panda.open(video, cache=True)
    opened.ask(QUESTION, max_tokens=4)
    video.write_bytes(video.read_bytes() + b"more")
    opened.keep()
    assert not folder.exists()


def test_other_system_prompt_on_cached_clip_reads_frames(panda: Panda, video: Path) -> None:
    ask(panda, video)
    wanted = panda.open(video, system="Be brief.").ask(QUESTION, max_tokens=4).text
    other = panda.open(video, cache=True).with_system("Be brief.")
    assert other.ask(QUESTION, max_tokens=4).text == wanted


def test_question_is_not_saved(panda: Panda, video: Path) -> None:
    first = ask(panda, video)
    assert PrefixStore().entries()[0].metadata.tokens == first.prefix_tokens


def test_saving_between_turns_keeps_the_session_usable(panda: Panda, video: Path) -> None:
    opened = panda.open(video, cache=True)
    said = [(QUESTION, opened.ask(QUESTION, max_tokens=4).ids)]
    opened.keep()
    stats = opened.ask("And then?", history=said, max_tokens=4).stats
    assert stats.prefilled_tokens < stats.history_tokens + stats.question_tokens


def test_full_disk_is_reported_after_the_answer(
    panda: Panda, video: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))  # type: ignore[attr-defined]
    opened = panda.open(video, cache=True)
    assert opened.ask(QUESTION, max_tokens=4).text
    with pytest.raises(PandaError, match=r"could not cache the clip: .*prefixes: No space left"):
        opened.keep()
    assert entries(folder) == []


def test_disk_filling_up_leaves_nothing(
    panda: Panda, video: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    from pandacli.inference.backends import kv_cache

    def fail(_: object, path: Path, __: object) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(kv_cache, "save_file", fail)
    opened = panda.open(video, cache=True)
    opened.prepare()
    with pytest.raises(PandaError, match="No space left on device"):
        opened.keep()
    assert entries(folder) == []


def test_interrupted_write_leaves_nothing(
    panda: Panda, video: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module, "replace_durably", interrupt)
    opened = panda.open(video, cache=True)
    opened.prepare()
    with pytest.raises(KeyboardInterrupt):
        opened.keep()
    assert entries(folder) == []


def test_prefix_larger_than_the_budget_is_not_written(
    panda: Panda, video: Path, folder: Path
) -> None:
    opened = panda.open(video, cache=ClipCache(Clip(video), 8, budget=1000))
    opened.prepare()
    opened.keep()
    assert not folder.exists()


def test_metadata_names_clip_range_and_model(panda: Panda, video: Path, folder: Path) -> None:
    ask(panda, video, start=1)
    fields = json.loads((entries(folder)[0] / "entry.json").read_text())
    assert fields["video"] == str(video)
    assert (fields["start"], fields["end"], fields["frames"]) == (1, None, 8)
    assert fields["model"] == panda.name


def test_frames_without_clip_cannot_be_cached(panda: Panda, video: Path) -> None:
    frames = panda.open(video).frames
    with pytest.raises(TypeError, match="which file"):
        panda.open(frames, cache=True)
