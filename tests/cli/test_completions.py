"""The completion files are current, and the shells complete with them."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

FILES = Path(__file__).parents[2] / "completions"

CASES = [
    ("panda ", ["ask", "chat", "frames", "demo", "models", "pull", "info", "rm", "doctor"]),
    ("panda a", ["ask"]),
    ("panda ask x.mp4 --qui", ["--quiet"]),
    ("panda ask x.mp4 --max", ["--max-tokens"]),
    ("panda ask -m t", ["tiny"]),
    ("panda ask --model video-panda-7b-", ["video-panda-7b-pretrained"]),
    ("panda ask --quant 4", ["4bit"]),
    ("panda ask --device cp", ["cpu"]),
    ("panda ask my", ["my clip.mp4"]),
    ("panda ask -m tiny U", ["UPPER.MKV"]),
    ("panda ask no", []),
    ("panda demo --dev", ["--device"]),
    ("panda pull tin", ["tiny"]),
    ("panda rm --yes video-panda-7b-", ["video-panda-7b-pretrained"]),
    ("panda pull tiny --drop", ["--drop-original"]),
    ("panda chat my", ["my clip.mp4"]),
    ("panda chat x.mp4 --load no", ["notes.txt"]),
    ("panda frames my", ["my clip.mp4"]),
    ("panda frames x.mp4 --save no", ["notes.txt"]),
    ("panda frames x.mp4 --graphics ki", ["kitty"]),
    ("panda frames x.mp4 --can", ["--canvas"]),
    ("panda pull tiny --quant ", ["auto", "4bit", "8bit", "none"]),
    ("panda rm tiny --quant ", ["4bit", "8bit", "none"]),
]


@pytest.fixture
def videos(tmp_path):
    for name in ("my clip.mp4", "UPPER.MKV", "notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


def needs(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not here")


def test_the_files_are_current(environment):
    command = [sys.executable, FILES / "generate.py", "--check"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_every_command_and_option_is_in_every_file():
    import typer

    from pandacli.cli.app import app

    commands = typer.main.get_command(app).commands
    for name in ("panda.bash", "panda.zsh", "panda.fish"):
        text = (FILES / name).read_text()
        for command in commands.values():
            assert command.name in text
            for parameter in command.params:
                if parameter.param_type_name == "option":
                    assert max(parameter.opts, key=len).lstrip("-") in text


BASH = r"""
source "$1"
read -ra COMP_WORDS <<< "$2"
[[ $2 == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_panda
printf '%s\n' "${COMPREPLY[@]}"
"""


@needs("bash")
@pytest.mark.parametrize(("line", "expected"), CASES)
def test_bash(videos, line, expected):
    command = ["bash", "-c", BASH, "bash", FILES / "panda.bash", line]
    done = subprocess.run(command, cwd=videos, capture_output=True, text=True, check=True)
    options = [word for word in done.stdout.splitlines() if word]
    if line == "panda ":
        options = [word for word in options if not word.startswith("-")]
    assert options == expected
    assert done.stderr == ""


@needs("bash")
def test_bash_splits_at_an_equals_sign(videos):
    script = BASH.replace('read -ra COMP_WORDS <<< "$2"', "COMP_WORDS=(panda ask --model = t)")
    command = ["bash", "-c", script, "bash", FILES / "panda.bash", ""]
    done = subprocess.run(command, cwd=videos, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tiny"]


@needs("fish")
@pytest.mark.parametrize(("line", "expected"), CASES)
def test_fish(videos, line, expected):
    script = f"source {FILES}/panda.fish; complete -C '{line}'"
    command = ["fish", "--no-config", "-c", script]
    environment = {"HOME": str(videos), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    done = subprocess.run(
        command, cwd=videos, env=environment, capture_output=True, text=True, check=True
    )
    found = [word.split("\t")[0] for word in done.stdout.splitlines()]
    given = [word for word in found if word.startswith(line.split(" ")[-1])]
    assert sorted(given) == sorted(expected)


ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "autoload -U compinit; compinit -u -D; source $1"
zpty -w shell 'show() { zle complete-word; print -r -- "$BUFFER" >> result; BUFFER= }'
zpty -w shell "zle -N show; bindkey '^O' show; print re''ady"
zpty -r -m shell seen '*ready*'
for line in "${@:2}"; do zpty -w -n shell "$line"$'\x0f'; done
zpty -w shell "touch done"
repeat 300; do [[ -e done ]] && break; sleep 0.1; done
zpty -d shell
"""


@pytest.fixture(scope="module")
def zsh_lines(tmp_path_factory):
    """What zsh makes of each line of `CASES` that has one completion."""
    folder = tmp_path_factory.mktemp("zsh")
    for name in ("my clip.mp4", "UPPER.MKV", "notes.txt"):
        (folder / name).touch()
    lines = [line for line, expected in CASES if len(expected) == 1]
    command = ["zsh", "-f", "-c", ZSH, "zsh", FILES / "panda.zsh", *lines]
    environment = os.environ | {"TERM": "dumb", "LANG": "C.UTF-8"}
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=60)
    return dict(zip(lines, (folder / "result").read_text().splitlines(), strict=True))


@needs("zsh")
@pytest.mark.parametrize(("line", "expected"), [case for case in CASES if len(case[1]) == 1])
def test_zsh(zsh_lines, line, expected):
    # zsh completes only in its line editor, which only runs in a terminal: zpty is one.
    typed = line.rsplit(" ", 1)[0]
    assert zsh_lines[line].rstrip(" =") == f"{typed} {expected[0].replace(' ', chr(92) + ' ')}"


@needs("bash")
def test_completing_takes_no_time(videos):
    for number in range(500):
        (videos / f"clip{number}.mp4").touch()
    command = ["bash", "-c", BASH, "bash", FILES / "panda.bash", "panda ask clip"]
    started = time.monotonic()
    done = subprocess.run(command, cwd=videos, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 500
    assert time.monotonic() - started < 1  # 0.02 s on a quiet machine; Python alone takes longer


def test_no_completion_starts_python():
    for path in Path(FILES).glob("panda.*"):
        assert "python" not in path.read_text().lower()
