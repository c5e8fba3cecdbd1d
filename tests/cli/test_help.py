"""Help is quick, fits a terminal and names everything."""

import subprocess
import sys

import pytest

from pandacli.checkpoints import DEFAULT_MODEL
from pandacli.cli import options
from pandacli.cli.config import READERS
from pandacli.cli.help import COMMANDS, EXIT_CODES

HEAVY = ("torch", "transformers", "cv2", "numpy", "PIL", "av", "rich")


def imported(names, arguments, environment):
    script = (
        "import sys\n"
        "from pandacli.cli.entry import run\n"
        f"run({arguments!r})\n"
        f"print()\nprint(*[name for name in {names!r} if name in sys.modules])\n"
    )
    # what measures coverage imports things of its own
    unmeasured = {k: v for k, v in environment.items() if not k.startswith("COVERAGE_")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=unmeasured, capture_output=True, text=True, check=True)
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
def test_nothing_heavy_is_imported_for_wrong_arguments(arguments, environment):
    assert imported(HEAVY, arguments, environment) == ""


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["--version"]])
def test_help_and_version_do_not_import_the_parser(arguments, environment):
    slow = ("typer", "dataclasses", "threading", "pandacli.cli.parser", "pandacli.terminal.console")
    assert imported(slow, arguments, environment) == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_imported_without_the_others(command, environment):
    modules = sorted({f"pandacli.cli.{command.module}" for command in COMMANDS.values()})
    own = f"pandacli.cli.{COMMANDS[command].module}"
    assert imported(modules, [command, "--help"], environment) == own


@pytest.mark.parametrize(
    "arguments", [["ask", "--help"], ["chat", "--help"], ["batch", "--help"], ["ask", "--nope"]]
)
def test_checkpoints_are_not_imported_for_help(arguments, environment):
    assert imported(["pandacli.checkpoints"], arguments, environment) == ""


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"]])
def test_help_does_not_import_pydantic(arguments, environment):
    assert imported(["pydantic"], arguments, environment) == ""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["ask", "--help"], ["batch", "--help"], ["demo", "--help"]]
)
def test_help_fits_80_columns_and_goes_to_stdout(panda, arguments):
    done = panda(*arguments, COLUMNS="80")
    assert done.returncode == 0
    assert done.stderr == b""
    assert all(len(line) <= 80 for line in done.stdout.decode().splitlines())


def test_every_option_is_in_the_help_of_a_command(panda):
    commands = ("ask", "batch", "chat", "eval", "find", "frames", "when")
    text = b"".join(panda(command, "--help").stdout for command in commands).decode()
    assert [name for name in READERS if f"--{name}" not in text] == []


def test_default_model_equals_that_of_the_registry():
    assert options.MODEL == DEFAULT_MODEL


@pytest.mark.parametrize("command", COMMANDS)
def test_summary_in_the_overview_equals_that_of_the_command(panda, command):
    line = f"  {command:<11}  {COMMANDS[command].summary}\n"
    assert line in panda("--help").stdout.decode()
    assert (
        panda(command, "--help").stdout.decode().split("\n\n")[1].strip()
        == COMMANDS[command].summary
    )


def test_overview_names_configuration_file_and_exit_codes(panda):
    text = panda("--help").stdout.decode()
    assert "~/config/panda/config.toml" in text
    assert "PANDA_MODEL" in text
    for code, meaning in EXIT_CODES.items():
        assert f"\n  {code:<3}  {meaning}\n" in text


def test_help_ignores_what_follows(panda):
    assert panda("--help").stdout == panda("--help", "--version").stdout


def test_version_is_the_version_of_the_package(panda):
    import pandacli

    assert panda("--version").stdout.decode() == f"panda {pandacli.__version__}\n"


def test_no_arguments_print_a_summary_and_exit_with_2(panda):
    done = panda()
    assert done.returncode == 2
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("Usage: panda")
    assert len(lines) < 24, "one line is for the prompt"
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("  panda ") for line in lines) == 1
    described = {words[0]: words[1:] for line in lines if (words := line.split())}
    listed = {name for name in COMMANDS if described.get(name) == COMMANDS[name].summary.split()}
    also = lines[-1].removeprefix("Also: ").partition(".")[0].split(", ")
    assert listed | {*also} == {*COMMANDS}


@pytest.mark.parametrize(
    ("words", "same"),
    [(["help"], ["--help"]), (["help", "ask"], ["ask", "--help"]), (["-V"], ["--version"])],
)
def test_help_and_version_have_aliases(panda, words, same):
    done = panda(*words)
    assert (done.returncode, done.stdout) == (0, panda(*same).stdout)


def test_help_on_an_unknown_command_is_an_error(panda):
    assert (
        panda("help", "aks").stderr
        == b"panda: aks is not a command\n       did you mean panda ask?\n"
    )
