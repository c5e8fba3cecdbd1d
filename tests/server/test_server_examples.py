"""The examples of `docs/server.md`, run against a server with `tiny`."""

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/server.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
PYTHON = [block for language, block in BLOCKS if language == "python"]
CURL = [block for language, block in BLOCKS if language == "console" and "$ curl" in block]
DEFAULT = "http://127.0.0.1:7263"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the examples run, with the clip that they name."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copy(ROOT / "pandacli/assets/demo.mp4", folder)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """The address of a server that may read the clip."""
    words = ["serve", "--model", "tiny", "--port", "0", "--media-dir", str(folder)]
    kept = {name: v for name, v in os.environ.items() if not name.startswith("PANDA_")}
    home = {"HOME": str(folder), "PANDA_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pandacli", *words],
        env=kept | home,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        line = process.stderr.readline()
        served = re.search(r"is served at (\S+)/v1", line)
        assert served, line + process.stderr.read()
        yield served[1]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_python_example_prints_its_last_line(server, block):
    code, expected = re.fullmatch(r"(.*)^# ([^\n]*)\n", block, re.MULTILINE | re.DOTALL).groups()
    assert DEFAULT in code
    with redirect_stdout(StringIO()) as printed:
        exec(code.replace(DEFAULT, server) + "\nclient.close()", {})
    assert printed.getvalue() == f"{expected}\n"


def commands(block):
    """The commands of an example, each with a pattern of what it prints."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        if "<<" in command:
            command, output = part, ""
        yield command, ".*".join(map(re.escape, output.strip().split("...")))


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("block", CURL, ids=range(len(CURL)))
def test_curl_example_prints_what_follows_it(server, folder, block):
    for command, expected in commands(block):
        done = subprocess.run(
            ["bash", "-c", command.replace(DEFAULT, server)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert re.fullmatch(expected, done.stdout.strip(), re.DOTALL), done.stdout


def test_metrics_are_those_of_the_page(server):
    with urlopen(f"{server}/metrics", timeout=30) as response:
        text = response.read().decode()
    names = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    named = {name for name in names if not name.endswith("_created")}
    assert named == set(re.findall(r"`(panda_\w+)`", TEXT.partition("## Metrics")[2]))


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny", "/v1/files", "/health"])
def test_route_of_the_page_answers(server, path):
    with urlopen(server + path, timeout=30) as response:
        assert response.status == 200


def test_page_names_every_field_of_a_chat_completion():
    from pandacli.server import protocol

    source = Path(protocol.__file__).read_text("utf-8")
    taken = set(re.findall(r'(?:take|take_any|_time)\((?:fields, |self, )?"(\w+)"', source))
    assert {"from", "to", "choices", "temperature", "frames"} <= taken
    named = set(re.findall(r"`(\w+)`", TEXT)) | {"video", "stream_options"}
    assert taken <= named
