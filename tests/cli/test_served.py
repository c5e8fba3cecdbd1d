"""Commands with a server: the same output as without one, and no torch in their process."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pandacli.cli.frames import CLIP
from pandacli.server.client import Client
from tests.cli.conftest import _environment, _home, _runner

pytestmark = pytest.mark.usefixtures("server")

VIDEO = str(CLIP)
# what the commands do is the same without these packages
LIGHT = """
import sys
for name in {absent}:
    sys.modules[name] = None
from pandacli.cli import main
main()
"""
HEAVY = ("torch", "transformers", "starlette", "uvicorn", "pydantic")
ENDLESS = ("--temperature", "50", "--seed", "1", "--max-tokens", "1500")


@pytest.fixture(scope="module")
def home(short_folder):
    return _home(short_folder)


@pytest.fixture(scope="module")
def environment(home):
    return _environment(home) | {"PANDA_MODEL": "tiny"}


@pytest.fixture(scope="module")
def panda(environment, home):
    return _runner([sys.executable, "-m", "pandacli"], environment, home)


@pytest.fixture(scope="module")
def light(environment, home):
    """`panda` in a process that cannot import torch."""
    return _runner([sys.executable, "-c", LIGHT.format(absent=HEAVY)], environment, home)


@pytest.fixture(scope="module")
def server(panda):
    """The address of a server of this home, in the background."""
    done = panda("serve", "--background", "--port", "0")
    assert done.returncode == 0, done.stderr
    try:
        yield re.search(r"http://127\.0\.0\.1:\d+", done.stderr.decode())[0]
    finally:
        stopped = panda("stop")
    assert stopped.returncode == 0
    assert b"stopped tiny at http://127.0.0.1:" in stopped.stderr
    again = panda("stop")
    assert (again.returncode, again.stderr) == (0, b"panda: no server is running\n")


def local_socket(home):
    (place,) = (home / "models" / "servers").glob("*.sock")
    return Client(place)


def test_ask_uses_a_server_of_this_user_and_reads_no_frames_itself(environment, home):
    program = LIGHT.format(absent=(*HEAVY, "numpy", "av", "PIL"))
    done = _runner([sys.executable, "-c", program], environment, home)(
        "ask", VIDEO, "What happens?", "--stats", "--quiet"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(b"frames       8 at 0:00")
    assert done.stdout.startswith(b"A red circle moves right.")


def test_address_and_socket_answer_alike(light, server):
    words = ("ask", VIDEO, "What happens?", "Is it red?", "--json", "--logprobs")
    found = [json.loads(light(*words, "--server", each).stdout) for each in ("auto", server)]
    for record in found:
        for answer in record["answers"]:
            del answer["stats"]
    assert found[0] == found[1]


def test_chat_over_a_pipe_needs_no_torch(light):
    stdin = b"What happens?\n/choices yes|no\nIs it red?\n"
    done = light("chat", VIDEO, stdin=stdin)
    first, second = done.stdout.decode().splitlines()
    assert first.startswith("A red circle moves right.")
    assert second in ("yes", "no")


def test_other_model_is_not_asked(panda, server):
    done = panda("ask", VIDEO, "What?", "--model", "video-panda-7b", "--server", server)
    assert done.returncode == 2
    assert f"the server at {server} has tiny, not video-panda-7b" in done.stderr.decode()
    done = panda("ask", VIDEO, "What?", "--quant", "8bit", "--server", server)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--quant none, not 8bit" in done.stderr


def test_options_of_the_disk_cache_need_the_model_here(light, server):
    cached = ("ask", VIDEO, "What?", "--cache-size", "1GB")
    done = light(*cached, "--server", server)
    assert done.returncode == 2
    assert b"--cache-size has no effect on a server" in done.stderr
    assert light(*cached).returncode == 70  # without torch


def test_ctrl_c_stops_the_answer_on_the_server(environment, home):
    command = [sys.executable, "-m", "pandacli", "ask", VIDEO, "What?", *ENDLESS]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert process.stderr.read() == b""
    place = local_socket(home).address
    until = time.monotonic() + 5
    while running(place) and time.monotonic() < until:
        time.sleep(0.02)
    assert running(place) == 0


def running(place: Path) -> float:
    """How many requests a server has."""
    with Client(place)._response("GET", "/metrics") as response:
        found = re.search(rb"^panda_requests_running (\S+)", response.read(), re.MULTILINE)
    return float(found[1])


def test_second_server_of_a_model_in_the_background_is_refused(panda, server):
    done = panda("serve", "--background", "--port", "0")
    assert done.returncode == 2
    assert f"tiny is served already, at {server}" in done.stderr.decode()


def test_files_of_a_server_are_for_its_user_alone(home):
    folder = home / "models" / "servers"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_folder_that_others_may_enter_is_not_used(panda, home):
    folder = home / "models" / "servers"
    folder.chmod(0o755)
    try:
        stopped = panda("stop")
        assert stopped.stderr == b"panda: no server is running\n"
        done = panda("serve", "--background", "--port", "0")
        assert done.returncode == 2
        assert b"can be entered by others" in done.stderr
    finally:
        folder.chmod(0o700)


def test_server_that_cannot_listen_says_why(panda, short_folder, server):
    port = server.rpartition(":")[2]
    done = panda("serve", "--background", "--port", port, PANDA_HOME=str(short_folder / "p"))
    assert done.returncode == 5
    assert f"port {port}" in done.stderr.decode()
    assert b"its log is" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("ask", VIDEO, "Is it red?", "What?", "--choices", "yes|no", "--json"),
        ("ask", VIDEO, "What happens?", "--every", "2", "--format", "srt"),
        ("ask", VIDEO, "What happens?", "--frames", "512"),
        ("ask", "missing.mp4", "What happens?"),
        ("ask", VIDEO, "What?", "--temperature", "0.8", "--seed", "3", "--max-tokens", "5"),
        ("ask", VIDEO, VIDEO, "missing.mp4", "-q", "What happens?"),
        ("when", VIDEO, "Is there a star?", "--json"),
        ("chat", VIDEO),
        ("batch", "-", "--quiet", "--logprobs", "--video-dir", str(CLIP.parent)),
    ],
)
def test_output_is_that_without_a_server(light, panda, words):
    name = CLIP.name
    lines = [
        {"video": name, "question": "What happens?"},
        {"video": name, "question": "Is it red?", "choices": ["yes", "no"]},
        {"video": name, "question": "What?", "from": 2, "to": 5, "system": "Be short."},
        {"video": name, "question": "What happens?", "every": 4},
        {"video": name, "question": "Is there a star?", "when": True},
        {"video": "missing.mp4", "question": "What?"},
    ]
    chat = b"What happens?\nIs it red?\n/every 4 What happens?\n/when a star\n/clip #1\nWhat?\n"
    records = "\n".join(map(json.dumps, lines)).encode()
    stdin = {"chat": chat, "batch": records}.get(words[0], b"")
    here = panda(*words, "--server", "none", stdin=stdin, PANDA_CACHE_SIZE="0")
    there = light(*words, "--server", "auto", stdin=stdin)
    assert (there.returncode, timeless(there.stdout)) == (here.returncode, timeless(here.stdout))
    assert there.stderr == here.stderr


def timeless(output: bytes) -> bytes:
    """Output without what differs from one run to the next."""
    times = rb'"(\w*seconds|tokens_per_second|peak_memory_bytes|prefilled_tokens|passes)": [\d.e-]+'
    return re.sub(times, b"", output)
