"""Prefixes that `panda ask` and `panda chat` save, and `panda cache`."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pandacli.cli import config
from pandacli.cli.frames import CLIP
from pandacli.errors import UsageError
from tests.cli.conftest import _environment, _home, _runner

ASK = ("What happens?", "--model", "tiny")


@pytest.fixture
def film(home: Path) -> Path:
    """A clip of the user's own."""
    return Path(shutil.copy2(CLIP, home / "film.mp4"))


@pytest.fixture
def kept(home: Path) -> Path:
    """Where prefixes are kept."""
    return home / "models" / "prefixes"


@dataclass(frozen=True)
class Asked:
    """A home in which a clip has been asked about; tests leave its cache as it is."""

    home: Path
    film: Path
    first: subprocess.CompletedProcess[bytes]
    panda: Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    home = _home(tmp_path_factory.mktemp("home"))
    panda = _runner([sys.executable, "-m", "pandacli"], _environment(home), home)
    film = Path(shutil.copy2(CLIP, home / "\x1b[31mfilm\n.mp4"))
    return Asked(home, film, panda("ask", film, *ASK, "--json"), panda)


def facts(done):
    """What `--json` says, without what the answers took."""
    record = json.loads(done.stdout)
    for answer in record["answers"]:
        del answer["stats"]
    return record


def test_second_ask_prefills_only_the_question(asked):
    second = asked.panda("ask", asked.film, *ASK, "--json")
    assert facts(second) == facts(asked.first)
    stats = json.loads(second.stdout)["answers"][0]["stats"]
    assert stats["prefilled_tokens"] == stats["question_tokens"]
    assert (asked.first.stderr, second.stderr) == (b"", b"")


def test_several_questions_are_answered_from_the_cache(asked):
    words = ("ask", asked.film, *ASK, "Which shape appears?", "Which way does the red circle move?")
    from_disk = asked.panda(*words)
    afresh = asked.panda(*words, "--json", "--cache-size", "0")
    answers = json.loads(afresh.stdout)["answers"]
    assert from_disk.stdout.decode().splitlines() == [answer["answer"] for answer in answers]
    assert len(answers) == 3
    assert answers[0]["stats"]["prefilled_tokens"] > 200, "nothing was read from the cache"


def test_cache_size_zero_saves_nothing(panda, film, kept):
    done = panda("ask", film, *ASK, PANDA_CACHE_SIZE="0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert not kept.exists()


def test_unwritable_cache_prints_a_notice_and_the_answer(panda, film, kept):
    kept.parent.mkdir(parents=True)
    kept.write_text("no folder")
    done = panda("ask", film, *ASK, "Which shape appears?")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    (said,) = done.stderr.decode().splitlines()
    assert said.startswith(f"panda: could not cache the clip: {kept}: ")


def test_chat_uses_the_prefix_saved_by_ask(asked):
    words = ("chat", asked.film, "--model", "tiny", "--stats")
    done = asked.panda(*words, stdin=b"What happens?\n")
    assert "; 8 new, " in done.stderr.decode()


def test_ask_uses_the_prefix_saved_by_chat(panda, film):
    panda("chat", film, "--model", "tiny", stdin=b"What happens?\nWhich shape appears?\n")
    stats = json.loads(panda("ask", film, *ASK, "--json").stdout)["answers"][0]["stats"]
    assert stats["prefilled_tokens"] == stats["question_tokens"]


def test_cache_lists_saved_prefixes(panda, film):
    panda("ask", film, *ASK, "--from", "1", "--to", "0:05.5")
    done = panda("cache")
    size, _, model, span, video = done.stdout.decode().rstrip("\n").split("\t")
    assert (model, span, video) == ("tiny none", "0:01 to 0:05.5", str(film))
    assert size.endswith(("kB", "MB"))
    assert done.stderr.decode().startswith(f"panda: 1 clip, {size} (at most 4.0 GB) in ")


def test_cache_as_json_has_bytes_and_times(asked):
    record = json.loads(asked.panda("cache", "--json", PANDA_CACHE_SIZE="1.5GB").stdout)
    (clip,) = record["clips"]
    place = str(asked.home / "models" / "prefixes")
    assert (record["path"], record["budget_bytes"]) == (place, 1_500_000_000)
    assert record["bytes"] == clip["bytes"] > 100_000
    assert (clip["video"], clip["model"], clip["tokens"]) == (str(asked.film), "tiny", 265)
    assert clip["last_used"].endswith("+00:00")


def test_refused_question_still_saves_the_prefix(panda, film, kept):
    done = panda("ask", film, "What happens?", "why? " * 2000, *ASK[1:])
    assert done.returncode == 2
    assert [entry.name for entry in kept.iterdir() if (entry / "kv").exists()]


def test_refused_chat_line_still_saves_the_prefix(panda, film, kept):
    lines = b"What happens?\n" + b"why? " * 2000 + b"\n"
    done = panda("chat", film, "-m", "tiny", "--no-log", stdin=lines)
    assert done.returncode == 2
    assert [entry.name for entry in kept.iterdir() if (entry / "kv").exists()]


def test_clear_removes_all_prefixes(asked, panda, kept):
    shutil.copytree(asked.home / "models" / "prefixes", kept)
    done = panda("cache", "--clear")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.startswith(b"panda: removed ")
    assert list(kept.iterdir()) == []


def test_empty_cache_prints_a_notice(panda, kept):
    done = panda("cache")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.decode() == f"panda: 0 clips, 0 bytes (at most 4.0 GB) in {kept}\n"


def test_control_characters_in_clip_names_are_escaped(asked):
    listed = asked.panda("cache").stdout
    assert b"\x1b" not in listed
    assert listed.count(b"\n") == 1


def test_prefix_is_saved_after_the_last_answer(fake_engine, clip, home):
    fake_engine("ask", clip, "one?", "two?", FAKE_LOG=str(home / "log"))
    events = [json.loads(line)["event"] for line in (home / "log").read_text().splitlines()]
    assert events[-4:] == ["closed", "ask", "closed", "keep"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("123", 123),
        ("500MB", 500_000_000),
        ("4 gb", 4_000_000_000),
        ("1.5G", 1_500_000_000),
        ("2GiB", 2 * 1024**3),
        ("10kB", 10_000),
        ("1TB", 10**12),
    ],
)
def test_cache_size_accepts_units(text, count):
    assert config.reader("cache-size")(text) == count


@pytest.mark.parametrize("text", ["", "-1", "4XB", "GB", "1e9", "iB", "4iB", "9" * 400, "nan"])
def test_invalid_cache_size_is_refused(text):
    with pytest.raises(UsageError, match="is no size like 4GB, 500MB or 0"):
        config.reader("cache-size")(text)


def test_cache_size_is_read_from_the_file(panda, home, film, kept):
    (home / "config" / "panda" / "config.toml").write_text('cache-size = "1kB"\n')
    panda("ask", film, *ASK)
    assert json.loads(panda("cache", "--json").stdout)["budget_bytes"] == 1000
    assert not kept.exists()
