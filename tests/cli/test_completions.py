"""The completion files are current, and the shells complete with them."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pandacli.cli.help import COMMANDS
from pandacli.cli.parser import load_command

FILES = Path(__file__).parents[2] / "completions"

CASES = [
    ("panda ", list(COMMANDS)),
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
    ("panda ask -m no", []),
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
    ("panda ask --engine r", []),
    ("panda batch que", ["questions.jsonl"]),
    ("panda batch RO", ["ROWS.CSV"]),
    ("panda batch ol", ["old.json"]),
    ("panda batch cl", ["clips/"]),
    ("panda batch clips/", ["clips/some.jsonl"]),
    ("panda batch ", ["ROWS.CSV", "clips/", "old.json", "questions.jsonl"]),
    ("panda batch -m tiny que", ["questions.jsonl"]),
    ("panda batch --format csv -o x.csv que", ["questions.jsonl"]),
    ("panda batch questions.jsonl ol", []),
    ("panda batch old.json --fail", ["--fail-fast"]),
    ("panda batch --output no", ["notes.txt"]),
    ("panda batch -o no", ["notes.txt"]),
    ("panda batch --answers no", ["notes.txt"]),
    ("panda batch --video-dir cl", ["clips/"]),
    ("panda batch --video-dir old", []),
    ("panda batch --format op", ["openai"]),
    ("panda batch --format sa", []),
    ("panda batch --output-format sa", ["same"]),
    ("panda batch --output-format qa-", ["qa-lines"]),
    ("panda batch --batch-size ", ["auto"]),
    ("panda batch --address ", ["auto"]),
    ("panda batch --engine r", ["ray"]),
    ("panda batch --engine b", ["bitsandbytes"]),
    ("panda batch --workers ", []),
    ("panda batch --blind que", ["questions.jsonl"]),  # a flag, but not in panda eval
    ("panda eval --blind no", ["notes.txt"]),
    ("panda eval --blind notes.txt old", ["old.json"]),
    ("panda completions z", ["zsh"]),
]


# Beside each file that is to be found, one of nearly the same name that is not.
VIDEOS = ("my clip.mp4", "my clip.txt", "UPPER.MKV")
QUESTIONS = ("questions.jsonl", "questions.py", "ROWS.CSV", "ROWS.TXT", "old.json", "old.txt")
OTHERS = ("notes.txt", "clips.txt", "clips/some.jsonl")


def fill(folder):
    (folder / "clips").mkdir()
    for name in (*VIDEOS, *QUESTIONS, *OTHERS):
        (folder / name).touch()
    return folder


@pytest.fixture
def files(tmp_path):
    return fill(tmp_path)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_command_prints_the_file(panda, shell):
    done = panda("completions", shell)
    assert done.stdout == (FILES / f"panda.{shell}").read_bytes()
    assert done.returncode == 0


def test_unknown_shell_is_refused_with_the_choices(panda):
    done = panda("completions", "tcsh")
    assert done.stderr.decode().splitlines() == [
        "panda: there are no completions for tcsh",
        "       choose bash, zsh, fish",
    ]
    assert done.returncode == 2


def needs(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not here")


def test_files_are_current(environment):
    command = [sys.executable, FILES / "generate.py", "--check"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_every_command_and_option_is_in_every_file():
    commands = [load_command(name) for name in COMMANDS]
    for name in ("panda.bash", "panda.zsh", "panda.fish"):
        text = (FILES / name).read_text()
        for command in commands:
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
def test_bash_completes(files, line, expected):
    command = ["bash", "-c", BASH, "bash", FILES / "panda.bash", line]
    done = subprocess.run(command, cwd=files, capture_output=True, text=True, check=True)
    options = [word for word in done.stdout.splitlines() if word]
    if line == "panda ":
        options = [word for word in options if not word.startswith("-")]
    assert sorted(options) == sorted(word.rstrip("/") for word in expected)
    assert done.stderr == ""


@needs("bash")
def test_bash_completes_after_an_equals_sign(files):
    script = BASH.replace('read -ra COMP_WORDS <<< "$2"', "COMP_WORDS=(panda ask --model = t)")
    command = ["bash", "-c", script, "bash", FILES / "panda.bash", ""]
    done = subprocess.run(command, cwd=files, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tiny"]


@needs("fish")
@pytest.mark.parametrize(("line", "expected"), CASES)
def test_fish_completes(files, line, expected):
    script = f"source {FILES}/panda.fish; complete -C '{line}'"
    command = ["fish", "--no-config", "-c", script]
    environment = {"HOME": str(files), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    done = subprocess.run(
        command, cwd=files, env=environment, capture_output=True, text=True, check=True
    )
    found = [word.split("\t")[0] for word in done.stdout.splitlines()]
    given = [word for word in found if word.startswith(line.split(" ")[-1])]
    assert sorted(given) == sorted(expected)


# One way to go on, or none. Where no file has the right suffix, zsh offers all of them.
ZSH_CASES = [case for case in CASES if len(case[1]) < 2 and case[0] != "panda ask no"]

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
    """What zsh makes of each line of `ZSH_CASES`."""
    folder = fill(tmp_path_factory.mktemp("zsh"))
    lines = [line for line, _ in ZSH_CASES]
    command = ["zsh", "-f", "-c", ZSH, "zsh", FILES / "panda.zsh", *lines]
    environment = os.environ | {"TERM": "dumb", "LANG": "C.UTF-8"}
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=60)
    return dict(zip(lines, (folder / "result").read_text().splitlines(), strict=True))


@needs("zsh")
@pytest.mark.parametrize(("line", "expected"), ZSH_CASES)
def test_zsh_completes(zsh_lines, line, expected):
    # zsh completes only in its line editor, which only runs in a terminal: zpty is one.
    typed, _, begun = line.rpartition(" ")
    last = expected[0].replace(" ", r"\ ") if expected else begun
    assert zsh_lines[line].rstrip(" =") == f"{typed} {last}".rstrip()


@needs("bash")
def test_bash_completes_500_files_within_a_second(files):
    for number in range(500):
        (files / f"take{number}.mp4").touch()
    command = ["bash", "-c", BASH, "bash", FILES / "panda.bash", "panda ask take"]
    started = time.monotonic()
    done = subprocess.run(command, cwd=files, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 500
    assert time.monotonic() - started < 1  # 0.02 s on a quiet machine; Python alone takes longer


def test_completion_files_do_not_start_python():
    for path in Path(FILES).glob("panda.*"):
        assert "python" not in path.read_text().lower()
