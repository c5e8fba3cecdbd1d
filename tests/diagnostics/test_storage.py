"""Models and folders: sizes and problems."""

from pathlib import Path

import pytest

from pandacli.diagnostics import Fact
from pandacli.diagnostics.storage import storage_facts


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`PANDA_HOME`, not made yet, beside an empty Hugging Face cache."""
    monkeypatch.setenv("PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "home"


def facts() -> dict[str, Fact]:
    return {fact.name.strip(): fact for fact in storage_facts().facts}


def place(name: str) -> dict[str, object]:
    value = facts()[name].value
    assert isinstance(value, dict)
    return value


def test_missing_folder_is_no_problem(home: Path) -> None:
    found = facts()["PANDA_HOME"]
    assert found.problem is None
    assert place("PANDA_HOME")["path"] == str(home)
    assert place("PANDA_HOME")["used"] == 0


def test_size_of_every_artifact_is_reported(home: Path) -> None:
    for name, size in (("models/mine", 100), ("copies/mine-4bit", 30)):
        (home / name / "deep").mkdir(parents=True)
        (home / name / "deep" / "weights").write_bytes(bytes(size))
    found = facts()
    assert found["models/mine"].value == 100
    assert found["copies/mine-4bit"].value == 30
    assert place("PANDA_HOME")["used"] == 130


def test_linked_file_is_counted_once(tmp_path: Path) -> None:
    (tmp_path / "hub" / "blobs").mkdir(parents=True)
    (tmp_path / "hub" / "blobs" / "weights").write_bytes(bytes(5000))
    (tmp_path / "hub" / "snapshot").symlink_to(tmp_path / "hub" / "blobs" / "weights")
    used = place("Hugging Face")["used"]
    assert isinstance(used, int)
    assert 5000 < used < 10_000


def test_unwritable_folder_is_a_problem(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    monkeypatch.setattr("os.access", lambda *_: False)
    assert facts()["PANDA_HOME"].problem == f"{home} cannot be written"


def test_file_in_place_of_folder_is_a_problem(home: Path) -> None:
    home.write_text("")
    assert facts()["PANDA_HOME"].problem == f"{home} is a file, not a folder"


def test_missing_model_is_no_problem() -> None:
    assert facts()["video-panda-7b"] == Fact(
        "video-panda-7b", "not here: panda pull video-panda-7b"
    )


def test_installed_model_reports_its_folder() -> None:
    assert str(facts()["tiny"].value).endswith("assets/tiny")


def test_incomplete_model_is_a_problem(home: Path) -> None:
    folder = home / "models" / "video-panda-7b"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "videopanda"}')
    assert "is incomplete" in (facts()["video-panda-7b"].problem or "")


def test_prefix_cache_is_reported_as_one(home: Path) -> None:
    for name in ("a", "b"):
        (home / "prefixes" / name).mkdir(parents=True)
        (home / "prefixes" / name / "kv").write_bytes(bytes(40))
    assert place("clips seen")["path"] == str(home / "prefixes")
    assert place("clips seen")["used"] == 80
    assert not [name for name in facts() if name.startswith("prefixes/")]
