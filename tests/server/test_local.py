"""Servers of this user: which one fits, and which records are not trusted."""

import json
import os
import socket
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

import pytest

from pandacli.errors import UsageError
from pandacli.inference.spec import RunSpec
from pandacli.server.local import Server, find_panda, published, running

URL = "http://127.0.0.1:1"
PLAN: Any = SimpleNamespace(quant="8bit", backend="torch", device="cuda:0")


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, short_folder: Path) -> Path:
    """The folder of the sockets; each test has another."""
    home = Path(mkdtemp(dir=short_folder)) / "p"
    monkeypatch.setenv("PANDA_HOME", str(home))
    return home / "servers"


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        (RunSpec("tiny"), True),
        (RunSpec("tiny", "8bit", "torch", "cuda:0"), True),
        (RunSpec("tiny", device="cuda:0"), True),
        (RunSpec("tiny", "4bit"), False),
        (RunSpec("tiny", device="cpu"), False),
        (RunSpec("tiny", backend="llama"), False),
        (RunSpec("video-panda-7b"), False),
        (RunSpec("./tiny"), False),
    ],
)
def test_server_fits_what_it_was_asked_for_and_what_that_became(spec: RunSpec, fits: bool) -> None:
    assert Server.of(RunSpec("tiny"), PLAN).fits(spec) is fits


def test_server_of_an_explicit_form_does_not_stand_in_for_auto() -> None:
    assert not Server.of(RunSpec("tiny", "8bit"), PLAN).fits(RunSpec("tiny"))


def test_model_folder_is_known_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "link").symlink_to("weights")
    monkeypatch.chdir(tmp_path)
    server = Server.of(RunSpec(tmp_path / "weights"), PLAN)
    assert server.fits(RunSpec("./link"))
    assert server.socket == Server.of(RunSpec("link/../weights/")).socket


def test_published_server_is_listed_until_it_ends(folder: Path) -> None:
    server = Server.of(RunSpec("tiny"), PLAN)
    with published(server, URL) as listening:
        assert listening
        assert running() == [replace(server, url=URL, pid=os.getpid())]
        assert folder.stat().st_mode & 0o777 == 0o700
        with published(server, URL) as second:
            assert second is None
        assert running()
    assert running() == []
    assert [*folder.iterdir()] == []


def test_socket_that_a_killed_server_left_is_replaced(folder: Path) -> None:
    server = Server.of(RunSpec("tiny"))
    folder.mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(server.socket))
    server.socket.with_suffix(".json").write_text("{}")
    assert running() == []
    assert find_panda(RunSpec("tiny"), "auto") is None
    with published(server, URL):
        assert [each.url for each in running()] == [URL]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"quant": 1, "engine": [], "device": []}', "\0"])
def test_damaged_record_is_passed_over(folder: Path, text: str) -> None:
    with published(Server.of(RunSpec("tiny")), URL):
        (folder / "other.json").write_text(text)
        assert len(running()) == 1


def test_server_of_another_version_is_not_used(folder: Path) -> None:
    server = Server.of(RunSpec("tiny"), PLAN)
    with published(server, URL):
        (record,) = folder.glob("*.json")
        record.write_text(json.dumps(json.loads(record.read_text()) | {"version": "0.0.1"}))
        assert not running()[0].fits(RunSpec("tiny"))
        assert find_panda(RunSpec("tiny"), "auto") is None


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o707])
def test_folder_that_others_may_enter_is_not_trusted(folder: Path, mode: int) -> None:
    server = Server.of(RunSpec("tiny"))
    with ExitStack() as stack:
        stack.enter_context(published(server, URL))
        folder.chmod(mode)
        assert running() == []
        with pytest.raises(UsageError, match="can be entered by others"):
            stack.enter_context(published(replace(server, socket=folder / "b.sock"), URL))


def test_path_that_is_too_long_for_a_socket_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANDA_HOME", str(tmp_path / ("x" * 100)))
    with (
        pytest.raises(UsageError, match="too long for a socket"),
        published(Server.of(RunSpec("tiny")), URL),
    ):
        pass


def test_server_that_accepts_and_says_nothing_is_not_waited_for() -> None:
    with published(Server.of(RunSpec("tiny"), PLAN), URL):
        assert find_panda(RunSpec("tiny"), "auto") is None
