"""Prefixes on the disk: found where nothing has changed, and of no harm where something has."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pandacli import Panda
from pandacli.errors import PandaError, UsageError
from pandacli.inference import VideoSession
from pandacli.prefix_cache import clip as kept_prefix
from pandacli.prefix_cache import disk as prefixes_module
from pandacli.prefix_cache.clip import ClipPrefixes
from pandacli.prefix_cache.disk import Prefixes
from pandacli.video import Clip

QUESTION = "What happens?"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where prefixes are kept."""
    place = tmp_path / "kept"
    monkeypatch.setattr(prefixes_module, "prefixes_folder", lambda: place)
    return place


@pytest.fixture
def film(clip: Path, tmp_path: Path) -> Path:
    """A clip that may be changed."""
    return Path(shutil.copy2(clip, tmp_path / "film.mp4"))


def ask(panda: Panda, film: Path, **how: object) -> VideoSession:
    """Open a clip, ask about it, and keep what was computed."""
    opened = panda.open(film, cache=True, **how)  # type: ignore[arg-type]
    opened.ask(QUESTION, max_tokens=4)
    opened.keep()
    return opened


def is_found(opened: VideoSession) -> bool:
    """Whether a clip that was asked about got its prefix from the disk."""
    stats = opened.ask(QUESTION, max_tokens=4).stats
    return opened._prefix is not None and opened._prefix.prefilled < 3 * stats.question_tokens


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_what_was_kept_is_found(panda: Panda, film: Path) -> None:
    ask(panda, film)
    assert is_found(ask(panda, film))


def test_the_variable_for_the_budget_holds_in_python_too(
    panda: Panda, film: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(panda, film)
    kept = entries(folder)
    monkeypatch.setenv("PANDA_CACHE_SIZE", "0")
    assert not is_found(ask(panda, film))
    assert entries(folder) == kept
    monkeypatch.setenv("PANDA_CACHE_SIZE", "20GB")
    assert ClipPrefixes(Clip(film), 8).prefixes.budget == 20_000_000_000
    monkeypatch.setenv("PANDA_CACHE_SIZE", "lots")
    with pytest.raises(UsageError, match="PANDA_CACHE_SIZE: 'lots' is no size"):
        panda.open(film, cache=True)


def test_nothing_is_kept_unless_it_is_asked_for(panda: Panda, film: Path, folder: Path) -> None:
    opened = panda.open(film)
    opened.ask(QUESTION, max_tokens=4)
    opened.keep()
    assert not folder.exists()


def test_neither_frames_nor_prefix_are_computed_again(
    panda: Panda, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask(panda, film)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("this was computed before")

    monkeypatch.setattr("pandacli.video.sample_frames", fail)
    monkeypatch.setattr(panda.model.model, "encode_frames", fail)
    opened = panda.open(film, cache=True)
    stats = opened.ask(QUESTION, max_tokens=4).stats
    assert stats.prefilled_tokens == stats.question_tokens
    assert stats.prefix_tokens == first.prefix_tokens


def test_all_but_the_pictures_is_known_of_the_frames(panda: Panda, film: Path) -> None:
    first = ask(panda, film).frames
    found = panda.open(film, cache=True).frames
    assert replace(found, pixels=first.pixels) == first
    assert len(found.pixels) == 0


def test_a_clip_is_known_again_by_another_name_and_time(panda: Panda, film: Path) -> None:
    ask(panda, film)
    moved = film.rename(film.with_name("other.mp4"))
    os.utime(moved, (1, 1))
    assert is_found(panda.open(moved, cache=True))
    assert [entry.label.video for entry in Prefixes().entries()] == [str(moved)]


def test_a_clip_of_other_content_is_another(panda: Panda, film: Path) -> None:
    ask(panda, film)
    state = film.stat()
    with film.open("r+b") as file:
        file.seek(state.st_size // 2)
        file.write(b"\x55")
    os.utime(film, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert not is_found(panda.open(film, cache=True))


@pytest.mark.parametrize(
    "other", [{"start": 1}, {"end": 5}, {"num_frames": 4}, {"system": "Be brief."}]
)
def test_what_is_looked_at_otherwise_is_computed(
    panda: Panda, film: Path, other: dict[str, object]
) -> None:
    ask(panda, film)
    assert not is_found(panda.open(film, cache=True, **other))  # type: ignore[arg-type]


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
def test_another_model_or_form_computes_its_own(
    panda: Panda, film: Path, monkeypatch: pytest.MonkeyPatch, part: str, value: str
) -> None:
    ask(panda, film)
    monkeypatch.setitem(panda.__dict__, part, value)
    opened = ClipPrefixes(Clip(film), 8)
    assert kept_prefix.KeptPrefix(panda, opened, ids(panda)).tokens is None


def ids(panda: Panda) -> list[int]:
    from pandacli.modeling.prompt import encode_prefix

    return encode_prefix(panda.tokenizer, None, 8)


def test_other_maths_compute_anew(
    panda: Panda, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(panda, film)
    monkeypatch.setattr(kept_prefix, "MATHS", kept_prefix.MATHS + 1)
    assert not is_found(panda.open(film, cache=True))


@pytest.mark.parametrize(
    ("name", "other"),
    [("torch.__version__", "9.9.9"), ("torch.backends.cpu.get_cpu_capability", lambda: "VSX")],
)
def test_prefix_of_other_software_is_not_used(
    panda: Panda, film: Path, monkeypatch: pytest.MonkeyPatch, name: str, other: object
) -> None:
    ask(panda, film)
    assert is_found(panda.open(film, cache=True))
    monkeypatch.setattr(name, other)
    assert not is_found(panda.open(film, cache=True))


@pytest.mark.parametrize("package", ["transformers", "av", "pillow"])
def test_prefix_of_another_version_of_a_package_is_not_used(
    panda: Panda, film: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    ask(panda, film)
    real = kept_prefix.version
    monkeypatch.setattr(
        kept_prefix, "version", lambda name: "0.0.1" if name == package else real(name)
    )
    assert not is_found(panda.open(film, cache=True))


@pytest.mark.parametrize(
    ("engine", "name", "other"),
    [
        ("torch", "pandacli.quantization.int8._input_steps", lambda: 1),
        ("bitsandbytes", "pandacli.diagnostics.machine.cpu_flags", lambda: {"none"}),
        ("llama", "pandacli.diagnostics.machine.cpu_flags", lambda: {"none"}),
    ],
)
def test_prefix_of_kernels_that_round_otherwise_has_another_name(
    panda: Panda, monkeypatch: pytest.MonkeyPatch, engine: str, name: str, other: object
) -> None:
    monkeypatch.setitem(panda.__dict__, "quant", "8bit")
    monkeypatch.setitem(panda.__dict__, "engine", engine)
    before = kept_prefix._form(panda, "model")
    assert before == kept_prefix._form(panda, "model")
    monkeypatch.setattr(name, other)
    assert before != kept_prefix._form(panda, "model")


def test_the_usual_system_prompt_is_the_same_in_words(panda: Panda, film: Path) -> None:
    from pandacli.modeling.prompt import DEFAULT_SYSTEM

    ask(panda, film)
    assert is_found(panda.open(film, cache=True, system=DEFAULT_SYSTEM))


@pytest.mark.parametrize("name", ["entry.json", "frames.json", "kv"])
@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"[" * 100_000, b"\xff" * 5000])
def test_a_damaged_file_is_removed_and_made_anew(
    panda: Panda, film: Path, folder: Path, name: str, content: bytes
) -> None:
    wanted = ask(panda, film).ask(QUESTION, max_tokens=4).text
    (entry,) = entries(folder)
    (entry / name).write_bytes(content)
    opened = panda.open(film, cache=True)
    assert opened.ask(QUESTION, max_tokens=4).text == wanted
    assert not is_found(opened)
    assert entries(folder) == []
    opened.keep()
    assert is_found(panda.open(film, cache=True))


@pytest.mark.parametrize("tokens", [1, 9, 5000, 10**9, 2**32 - 1, 2**40, -1, 0, 3.5, True, "9"])
def test_an_entry_with_a_number_of_tokens_that_cannot_be_is_dropped(
    panda: Panda, film: Path, folder: Path, tokens: object
) -> None:
    wanted = ask(panda, film).ask(QUESTION, max_tokens=4).text
    (entry,) = entries(folder)
    label = json.loads((entry / "entry.json").read_text())
    (entry / "entry.json").write_text(json.dumps(label | {"tokens": tokens}))
    assert panda.open(film, cache=True).ask(QUESTION, max_tokens=4).text == wanted
    assert entries(folder) == []


@pytest.mark.parametrize("place", [0, 9, 0.3, 0.6, -1])
def test_a_flipped_bit_is_noticed(panda: Panda, film: Path, folder: Path, place: float) -> None:
    ask(panda, film)
    path = entries(folder)[0] / "kv"
    content = bytearray(path.read_bytes())
    content[place if isinstance(place, int) else int(place * len(content))] ^= 0x10
    path.write_bytes(content)
    assert not is_found(panda.open(film, cache=True))


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
def test_facts_of_frames_that_cannot_be_are_dropped(
    panda: Panda, film: Path, folder: Path, wrong: dict[str, Any]
) -> None:
    ask(panda, film)
    (entry,) = entries(folder)
    facts = json.loads((entry / "frames.json").read_text())
    if wrong.get("info"):
        wrong = {"info": facts["info"] | wrong["info"]}
    (entry / "frames.json").write_text(json.dumps(facts | wrong))
    opened = panda.open(film, cache=True)
    opened.prepare()
    assert opened.frames.info.width > 0
    assert entries(folder) == []


def test_frames_are_read_after_all_where_the_kv_is_damaged(
    panda: Panda, film: Path, folder: Path
) -> None:
    first = ask(panda, film)
    (entries(folder)[0] / "kv").write_bytes(b"no")
    opened = panda.open(film, cache=True)
    opened.prepare()
    assert (opened.frames.pixels == first.frames.pixels).all()


def test_an_entry_that_vanishes_after_it_was_found_is_computed(
    panda: Panda, film: Path, folder: Path
) -> None:
    wanted = ask(panda, film).ask(QUESTION, max_tokens=4).text
    opened = panda.open(film, cache=True)
    shutil.rmtree(folder)
    assert opened.ask(QUESTION, max_tokens=4).text == wanted


def test_a_clip_that_changes_while_it_is_read_is_not_kept(
    panda: Panda, film: Path, folder: Path
) -> None:
    opened = panda.open(film, cache=True)
    opened.ask(QUESTION, max_tokens=4)
    film.write_bytes(film.read_bytes() + b"more")
    opened.keep()
    assert not folder.exists()


def test_another_system_prompt_on_a_found_clip_reads_the_frames(panda: Panda, film: Path) -> None:
    ask(panda, film)
    wanted = panda.open(film, system="Be brief.").ask(QUESTION, max_tokens=4).text
    other = panda.open(film, cache=True).with_system("Be brief.")
    assert other.ask(QUESTION, max_tokens=4).text == wanted


def test_what_was_asked_is_not_kept(panda: Panda, film: Path) -> None:
    first = ask(panda, film)
    assert Prefixes().entries()[0].label.tokens == first.prefix_tokens


def test_the_prefix_is_kept_between_two_turns(panda: Panda, film: Path) -> None:
    opened = panda.open(film, cache=True)
    said = [(QUESTION, opened.ask(QUESTION, max_tokens=4).ids)]
    opened.keep()
    stats = opened.ask("And then?", history=said, max_tokens=4).stats
    assert stats.prefilled_tokens < stats.history_tokens + stats.question_tokens


def test_a_full_disk_is_told_once_the_answer_is_there(
    panda: Panda, film: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))  # type: ignore[attr-defined]
    opened = panda.open(film, cache=True)
    assert opened.ask(QUESTION, max_tokens=4).text
    with pytest.raises(PandaError, match=r"could not cache the clip: .*kept: No space left"):
        opened.keep()
    assert entries(folder) == []


def test_a_disk_that_fills_up_leaves_nothing_behind(
    panda: Panda, film: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    from pandacli.prefix_cache import file as prefix_file

    def fail(_: object, path: Path, __: object) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(prefix_file, "save_file", fail)
    opened = panda.open(film, cache=True)
    opened.prepare()
    with pytest.raises(PandaError, match="No space left on device"):
        opened.keep()
    assert entries(folder) == []


def test_an_interrupted_write_leaves_nothing_behind(
    panda: Panda, film: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prefixes_module, "replace_durably", interrupt)
    opened = panda.open(film, cache=True)
    opened.prepare()
    with pytest.raises(KeyboardInterrupt):
        opened.keep()
    assert entries(folder) == []


def test_what_is_larger_than_the_budget_is_not_written(
    panda: Panda, film: Path, folder: Path
) -> None:
    opened = panda.open(film, cache=ClipPrefixes(Clip(film), 8, budget=1000))
    opened.prepare()
    opened.keep()
    assert not folder.exists()


def test_the_label_says_what_it_is(panda: Panda, film: Path, folder: Path) -> None:
    ask(panda, film, start=1)
    fields = json.loads((entries(folder)[0] / "entry.json").read_text())
    assert fields["video"] == str(film)
    assert (fields["start"], fields["end"], fields["frames"]) == (1, None, 8)
    assert fields["model"] == panda.name


def test_frames_that_were_read_need_their_clip_for_the_cache(panda: Panda, film: Path) -> None:
    frames = panda.open(film).frames
    with pytest.raises(TypeError, match="which file"):
        panda.open(frames, cache=True)
