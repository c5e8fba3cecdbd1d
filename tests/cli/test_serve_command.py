"""`panda serve` on the command line: what it refuses, before anything slow is imported."""

import os
import socket
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "numpy", "av", "starlette", "uvicorn", "mcp")

WITHOUT_HEAVY_IMPORTS = """
import sys
from pandacli.cli.entry import run

for name in {absent!r}:
    sys.modules[name] = None
try:
    code = run({words!r})
except SystemExit as ended:
    code = ended.code
heavy = sorted(name for name in {heavy!r} if sys.modules.get(name))
sys.stderr.write(f"imported: {{heavy}}")
sys.stderr.flush()
sys.exit(code)
"""


@pytest.fixture
def light(environment, home):
    """Runs `panda` in a process that says which heavy packages it imported."""

    def run(*words, absent=(), **variables):
        script = WITHOUT_HEAVY_IMPORTS.format(words=list(words), absent=absent, heavy=HEAVY)
        return subprocess.run(
            [sys.executable, "-c", script],
            env=environment | variables,
            cwd=home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_help_imports_nothing_heavy(light):
    done = light("serve", "--help")
    assert (done.returncode, done.stderr) == (0, "imported: []")
    assert "--media-dir FOLDER" in done.stdout


def test_help_needs_no_package_of_the_extra(light):
    assert light("serve", "--help", absent=("starlette", "uvicorn")).returncode == 0


def test_missing_packages_are_named_with_the_command_that_installs_them(light):
    done = light("serve", "--model", "tiny", absent=("starlette", "python_multipart"))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "panda: panda serve needs packages that are not installed: starlette, python-multipart",
        "         pip install 'pandacli[serve]'",
        "imported: []",
    ]
    assert done.stdout == ""


REFUSED = {
    "0.0.0.0 without a key": (
        ["--host", "0.0.0.0"],
        {},
        "other machines can reach 0.0.0.0, and PANDA_API_KEY is not set",
    ),
    "a name that does not resolve": (
        ["--host", "no-such-host.invalid"],
        {},
        "--host: no-such-host.invalid is not a known address",
    ),
    "a key with a line break": (
        [],
        {"PANDA_API_KEY": "secret\n"},
        "PANDA_API_KEY may have letters, digits and signs of ASCII, and no spaces",
    ),
    "a key that no header can carry": (
        ["--host", "0.0.0.0"],
        {"PANDA_API_KEY": "schlüssel"},
        "PANDA_API_KEY may have letters, digits and signs of ASCII, and no spaces",
    ),
    "a media folder that is a file": (
        ["--media-dir", os.devnull],
        {},
        f"--media-dir: {os.devnull} is not a folder",
    ),
    "a port that does not exist": (["--port", "65536"], {}, "--port: 65536 is not between"),
}


@pytest.mark.parametrize(("words", "variables", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_in_a_line_before_the_model_is_loaded(light, words, variables, message):
    done = light("serve", "--model", "tiny", *words, **variables)
    assert done.returncode == 2
    error, *hint, imported = done.stderr.splitlines()
    assert error.startswith(f"panda: {message}")
    assert imported == "imported: []"
    assert len(hint) <= 1


def test_port_in_use_exits_with_5_before_the_model_is_loaded(light):
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = light("serve", "--model", "tiny", "--port", str(other.getsockname()[1]))
    assert done.returncode == 5
    assert "is used by another program" in done.stderr
    assert "torch" not in done.stderr


def test_missing_model_exits_with_4_before_anything_is_imported(light):
    done = light("serve")
    assert done.returncode == 4
    assert "video-panda-7b is not on this machine" in done.stderr
    assert "torch" not in done.stderr


def test_misspelt_variable_of_the_key_is_noticed(panda):
    done = panda("serve", "--host", "0.0.0.0", PANDA_APIKEY="secret")
    assert b"PANDA_APIKEY has no meaning; did you mean PANDA_API_KEY?" in done.stderr
    assert done.returncode == 2
