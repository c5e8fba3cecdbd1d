"""`panda pull`, and the first `panda ask` without the model."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fake_hub import FIRST, KNOWN, REPO, SECOND, FakeHub, checkpoint, published

FAKE_ENGINE = str(Path(__file__).with_name("fake_conversion.py"))
NAME = "video-panda-7b"
SHARD = "videopanda_fitu/pytorch_model-00001-of-00002.bin"


@pytest.fixture
def hub():
    hub = FakeHub({FIRST: checkpoint()})
    yield hub
    hub.close()


@pytest.fixture
def variables(environment, home, hub):
    """The variables of a user whose hub is the one of the test."""
    log = {"FAKE_LOG": str(home / "log"), "HF_ENDPOINT": hub.url}
    return {k: v for k, v in environment.items() if k != "HF_HUB_OFFLINE"} | log


@pytest.fixture
def panda(variables, home):
    """`panda(*arguments, VARIABLE="value")`, with a fake of the conversion."""

    def run(*arguments, **more):
        return subprocess.run(
            [sys.executable, FAKE_ENGINE, *arguments],
            env=variables | more,
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def typed(variables, home):
    """`typed(answer, *arguments)`: runs `panda` in a terminal, types the answer when asked."""

    def run(answer, *arguments):
        screen, terminal = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, FAKE_ENGINE, *arguments],
            env=variables | {"TERM": "xterm", "COLUMNS": "80"},
            cwd=home,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        seen, deadline = b"", time.monotonic() + 120
        while time.monotonic() < deadline:
            if not select.select([screen], [], [], 0.1)[0]:
                continue
            try:
                seen += os.read(screen, 65536)
            except OSError:  # Linux reports the end of a pseudo-terminal so
                break
            if b"[y/N] " in seen and answer:
                os.write(screen, answer)
                answer = b""
        os.close(screen)
        return seen.decode(), process.wait(60)

    return run


def asked_of_conversion(home):
    log = home / "log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_pull_prints_the_size_then_each_file_then_ready(panda, home):
    done = panda("pull", NAME, "--quant", "8bit")
    lines = done.stderr.splitlines()
    start = f"panda: {NAME} is 323 kB, 323 kB of it still to come, and 2 kB for a quantised copy; "
    assert lines[0].startswith(start)
    assert "are free in" in lines[0]
    assert lines[1] == (
        "panda: commit 111111111111 is unknown to panda, with different weights; verified against"
        " the hub's digests only"
    )
    assert lines[2] == "panda: downloading config.json, 2 kB"
    assert "panda: downloading pytorch_model-00001-of-00002.bin, 320 kB" in lines
    assert lines[-2] == "panda: quantising; this is done once"
    assert lines[-1].startswith(f"panda: {NAME} is ready: 2 kB in {home}/models/copies/")
    assert (done.stdout, done.returncode) == ("", 0)


def test_options_reach_the_conversion(panda, home):
    panda("pull", NAME, "--quant", "none", "--device", "cpu")
    how = {"quant": "none", "engine": "auto", "device": "cpu"}
    assert asked_of_conversion(home) == [{"model": NAME, **how}]


def test_quiet_pull_prints_nothing(panda):
    done = panda("pull", NAME, "--quiet")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_tiny_needs_no_download(panda, hub):
    assert panda("pull", "tiny", "--quant", "none").stderr == (
        "panda: tiny is already here (9 MB)\n"
    )
    assert hub.requests == []


def test_drop_original_removes_the_download_after_quantising(panda):
    panda("pull", NAME, "--drop-original")
    state = json.loads(panda("models", "--json").stdout)["models"][0]
    assert (state["state"], [copy["quant"] for copy in state["copies"]]) == ("absent", ["8bit"])


def test_dropped_original_is_not_downloaded_again(panda, hub):
    panda("pull", NAME, "--drop-original")
    hub.requests.clear()
    done = panda("pull", NAME, "--quant", "8bit")
    assert done.returncode == 0
    assert f"{NAME} is already here, as it is published: nothing to download" in done.stderr
    assert hub.fetched() == []


def test_newer_commit_is_downloaded_after_dropping_the_original(panda, hub):
    panda("pull", NAME, "--drop-original")
    hub.commits[SECOND] = checkpoint(shard=b"newer")
    panda("pull", NAME)
    assert hub.fetched()


def test_dropped_original_can_be_pulled_again(panda):
    panda("pull", NAME, "--drop-original")
    assert panda("pull", NAME, "--quant", "none").returncode == 0
    assert json.loads(panda("models", "--json").stdout)["models"][0]["state"] == "here"


def test_quantised_copy_suffices_offline(panda):
    panda("pull", NAME, "--drop-original")
    done = panda("pull", NAME, "--offline")
    assert done.returncode == 0
    assert "is ready" in done.stderr


def test_missing_space_for_the_copy_is_an_error_before_the_download(panda, hub):
    done = panda("pull", NAME, FAKE_COPY_BYTES=str(10**18))
    assert done.returncode == 4
    assert f"{NAME}, with its quantised copy, needs 1,000,000,000.0 GB more, and " in done.stderr
    assert hub.fetched() == []


def test_folder_of_the_user_is_not_dropped(panda, home):
    panda("pull", NAME, "--quant", "none")
    mine = home / "models" / "models" / NAME
    shutil.copytree(next((home / "hub").rglob("videopanda_fitu")), mine)
    done = panda("pull", NAME, "--drop-original")
    assert done.returncode == 2
    assert done.stderr.startswith(f"panda: --drop-original: {mine} is not from panda, and stays\n")


@pytest.mark.parametrize("arguments", [(NAME, "--quant", "none"), ("tiny",)])
def test_drop_original_without_a_copy_is_refused(panda, hub, arguments):
    done = panda("pull", *arguments, "--drop-original")
    assert done.returncode == 2
    assert done.stderr.startswith("panda: --drop-original: ")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("options", "variables"),
    [(["--offline"], {}), ([], {"PANDA_OFFLINE": "1"}), ([], {"HF_HUB_OFFLINE": "1"})],
)
def test_offline_pull_sends_no_request(panda, hub, options, variables):
    done = panda("pull", NAME, *options, **variables)
    assert done.returncode == 4
    assert done.stderr.startswith(f"panda: {NAME} cannot be downloaded: this is offline mode\n")
    assert hub.requests == []


def test_offline_pull_quantises_a_downloaded_model(panda, hub, home):
    panda("pull", NAME, "--quant", "none")
    hub.requests.clear()
    done = panda("pull", NAME, "--offline", "--quant", "8bit")
    assert done.returncode == 0
    assert hub.requests == []
    assert asked_of_conversion(home)[-1]["quant"] == "8bit"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refusal_of_the_hub_is_two_lines_and_exits_with_4(panda, hub, status):
    hub.statuses["/api/models"] = status
    done = panda("pull", NAME)
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 2
    assert f"({status})" in done.stderr


def test_missing_network_is_two_lines_and_exits_with_4(panda, hub):
    hub.close()
    done = panda("pull", NAME)
    assert done.returncode == 4
    assert done.stderr.startswith("panda: cannot reach 127.0.0.1")
    assert len(done.stderr.splitlines()) == 2


def test_unknown_model_exits_with_4(panda):
    assert panda("pull", "video-panda").stderr == (
        "panda: no model is called 'video-panda'\n       did you mean video-panda-7b?\n"
    )


def test_interrupted_pull_exits_with_130_and_is_resumed(panda, variables, home, hub):
    shard = f"/{REPO}/resolve/{FIRST}/videopanda_fitu/pytorch_model-00001-of-00002.bin"
    hub.stall = 320_000 - 1
    process = subprocess.Popen(
        [sys.executable, FAKE_ENGINE, "pull", NAME], env=variables, cwd=home, stderr=subprocess.PIPE
    )
    while process.poll() is None and not any(path == shard for _, path, _ in hub.requests):
        time.sleep(0.05)
    process.send_signal(2)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in said
    hub.stall = None
    assert panda("pull", NAME, "--quant", "none").returncode == 0
    assert panda("info", NAME).returncode == 0


def test_terminal_shows_a_bar_per_file(typed):
    seen, code = typed(b"", "pull", NAME)
    assert code == 0
    for words in ("━", "pytorch_model-00001-of-00002.bin", "checked", "quantising"):
        assert words in seen


def test_first_ask_offers_the_download(typed, clip, hub):
    seen, code = typed(b"n\n", "ask", str(clip), "why?")
    assert f"{NAME} is not on this machine; download 16.7 GB from Hugging Face? [y/N]" in " ".join(
        seen.split()
    )
    assert f"panda pull {NAME}" in seen
    assert code == 4
    assert hub.requests == []


def test_accepted_offer_pulls_the_model(typed, clip, home):
    seen, _ = typed(b"y\n", "ask", str(clip), "why?")
    assert f"{NAME} is ready" in seen
    assert asked_of_conversion(home)[0]["model"] == NAME


def test_clip_is_checked_before_the_offer(typed):
    seen, code = typed(b"", "ask", "missing.mp4", "why?")
    assert "[y/N]" not in seen
    assert code == 3


@pytest.mark.parametrize("option", ["--offline", "--model=tiny"])
def test_download_is_not_offered_where_it_is_not_needed(typed, clip, option):
    seen, _ = typed(b"", "ask", str(clip), "why?", option)
    assert "[y/N]" not in seen


def test_download_is_not_offered_without_a_terminal(panda, clip, hub):
    done = panda("ask", str(clip), "why?")
    assert done.returncode == 4
    assert f"panda pull {NAME}" in done.stderr
    assert hub.requests == []


def test_other_weights_in_the_known_commit_exit_with_4_before_the_download(panda, hub):
    hub.commits[KNOWN] = published() | {SHARD: b"other weights"}
    done = panda("pull", NAME)
    assert done.returncode == 4
    assert "lists another pytorch_model-00001-of-00002.bin for commit 6e2080cb41ca" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert hub.fetched() == []


def test_published_sizes_are_printed_before_the_download(panda, hub):
    hub.commits[KNOWN] = published()
    done = panda("pull", NAME, FAKE_COPY_BYTES=str(10**18))
    assert f"{NAME}, with its quantised copy, needs 1,000,000,016.7 GB more" in done.stderr
    assert "unknown to panda" not in done.stderr


def test_pull_repairs_a_damaged_model(panda, home):
    panda("pull", NAME, "--quant", "none")
    shard = next((home / "hub").rglob("pytorch_model-00001-of-00002.bin"))
    shard.resolve().write_bytes(b"short")
    assert json.loads(panda("info", NAME, "--json").stdout)["state"] == "incomplete"
    done = panda("pull", NAME, "--quant", "none")
    assert done.returncode == 0
    assert f"panda: {shard.name} is damaged here; it is downloaded again\n" in done.stderr
    assert json.loads(panda("info", NAME, "--json").stdout)["state"] == "here"


def test_pull_verifies_an_already_verified_copy(panda, home):
    panda("pull", NAME)
    remembered = home / "models" / "digests.json"
    known = {str(home / "elsewhere"): [1, 2, 3, 4, "d"]}
    copy = next((home / "models" / "copies").glob("*/model.safetensors"))
    remembered.write_text(json.dumps(known | {str(copy): [1, 2, 3, 4, "d"]}))
    panda("pull", NAME)
    assert json.loads(remembered.read_text()) == known


def test_info_names_an_unknown_commit(panda):
    panda("pull", NAME, "--quant", "none")
    text = panda("info", NAME).stdout
    assert f"{FIRST}, unknown to panda, with different weights" in text
    assert f"known       commit {KNOWN}" in text
    assert json.loads(panda("info", NAME, "--json").stdout)["commit_known"] is False


def test_password_of_the_hub_is_in_no_error(panda, hub):
    address = hub.url.replace("http://", "http://user:SECRET@")
    hub.close()
    done = panda("pull", NAME, HF_ENDPOINT=address)
    assert done.returncode == 4
    assert done.stderr.startswith("panda: cannot reach 127.0.0.1")
    assert "SECRET" not in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1080", "ALL_PROXY names a SOCKS proxy (socks5://)"),
        ("HF_ENDPOINT", "notaurl", "HF_ENDPOINT is not the address of a hub"),
        ("HF_TOKEN", "hf_\u00e4", "HF_TOKEN holds a character that is in no token"),
    ],
)
def test_invalid_hub_variable_is_named(panda, variable, value, said):
    done = panda("pull", NAME, **{variable: value})
    assert done.returncode == 4
    assert done.stderr.startswith(f"panda: {said}")
    assert len(done.stderr.splitlines()) <= 3


@pytest.mark.parametrize("place", ["/api/models", f"/{REPO}/resolve"])
def test_password_of_the_hub_is_in_no_traceback(panda, hub, place):
    hub.statuses[place] = 403
    done = panda(
        "pull", NAME, "--debug", HF_ENDPOINT=hub.url.replace("http://", "http://u:SECRET@")
    )
    assert done.returncode == 4
    assert "(403)" in done.stderr
    assert "SECRET" not in done.stderr
