"""Help is quick, fits a terminal and names everything."""

import subprocess
import sys

import pytest

from pandacli.cli.settings import SETTINGS

HEAVY = ("torch", "transformers", "cv2", "numpy", "PIL", "av", "rich")


def imported(names, arguments, environment):
    script = (
        "import sys\n"
        "from pandacli.cli.entry import run\n"
        f"run({arguments!r})\n"
        f"print()\nprint(*[name for name in {names!r} if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["ask", "--help"],
        ["demo", "-h"],
        ["--version"],
        ["ask"],
        ["ask", "--nope"],
        ["ask", "x.mp4", "q", "--frames", "9"],
        ["ask", "x.mp4", ""],
    ],
)
def test_nothing_heavy_is_imported_before_the_arguments_are_known_to_be_right(
    arguments, environment
):
    assert imported(HEAVY, arguments, environment) == ""


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"]])
def test_help_does_without_the_slow_half_of_typer(arguments, environment):
    assert imported(["pydantic"], arguments, environment) == ""


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"], ["demo", "--help"]])
def test_help_fits_80_columns_and_goes_to_stdout(panda, arguments):
    done = panda(*arguments, COLUMNS="80")
    assert done.returncode == 0
    assert done.stderr == b""
    assert all(len(line) <= 80 for line in done.stdout.decode().splitlines())


def test_the_help_of_ask_names_every_option(panda):
    text = panda("ask", "--help").stdout.decode()
    elsewhere = {"canvas", "graphics", "no-frames", "no-log"}  # of panda frames and panda chat
    assert {name for name in SETTINGS if f"--{name}" not in text} == elsewhere


def test_the_help_of_panda_names_the_configuration_file_and_the_exit_codes(panda):
    text = panda("--help").stdout.decode()
    assert "~/config/panda/config.toml" in text
    assert "PANDA_MODEL" in text
    for code in ("2", "3", "4", "5", "130"):
        assert f"\n  {code} " in text


def test_version_is_the_version_of_the_package(panda):
    import pandacli

    assert panda("--version").stdout.decode() == f"panda {pandacli.__version__}\n"


def test_no_arguments_show_the_help_as_an_error(panda):
    done = panda()
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"Usage: panda" in done.stderr
