"""Reads a Dockerfile, and runs its steps: by Docker, or in a folder where there is none.

In a folder, paths such as /opt are below it, the Python of this process stands for that of the base
image, and accounts of users are not made.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from shutil import copy2

_INSTRUCTION = re.compile(r"([A-Z]+)\s+(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_PATH = re.compile(r"(?<![\w:./])/(?=(?:opt|src|var|media)\b)")
_FROM_HERE = ("PIP_", "SSL_", "REQUESTS_", "HTTP", "http", "NO_PROXY", "no_proxy")  # the network


@dataclass(frozen=True)
class Step:
    """An instruction with its arguments, as one line."""

    instruction: str
    text: str

    @property
    def words(self) -> list[str]:
        """Its arguments, in either form."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


def read_stages(dockerfile: Path) -> tuple[list[Step], list[list[Step]]]:
    """The arguments before the first stage, and the steps of each stage, which FROM begins."""
    lines = dockerfile.read_text("utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    before: list[Step] = []
    stages: list[list[Step]] = []
    for line in text.replace("\\\n", "").splitlines():
        if line.strip():
            match = _INSTRUCTION.fullmatch(line.strip())
            assert match, f"not an instruction: {line}"
            step = Step(*match.groups())
            if step.instruction == "FROM":
                stages.append([])
            (stages[-1] if stages else before).append(step)
    return before, stages


def health_check(dockerfile: Path) -> list[str]:
    """The command of HEALTHCHECK in the last stage."""
    steps = {step.instruction: step for step in read_stages(dockerfile)[1][-1]}
    return Step("CMD", steps["HEALTHCHECK"].text.partition(" CMD ")[2]).words


def context(folder: Path) -> Iterator[PurePosixPath]:
    """The files that are sent to the builder, by the rules of .dockerignore."""
    lines = (folder / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]

    def is_ignored(path: PurePosixPath) -> bool:
        ignored = False
        for rule in rules:
            pattern = rule.removeprefix("!")
            whole, anywhere = pattern.removeprefix("**/"), pattern.startswith("**/")
            for place in [path, *path.parents][:-1]:
                if fnmatchcase(place.name if anywhere else str(place), whole):
                    ignored = not rule.startswith("!")
        return ignored

    for place, folders, names in os.walk(folder):
        here = PurePosixPath(Path(place).relative_to(folder))
        folders[:] = [name for name in folders if not is_ignored(here / name)]
        yield from (here / name for name in names if not is_ignored(here / name))


@dataclass
class FolderImage:
    """What the steps of a Dockerfile make, below a folder in place of the root."""

    root: Path
    source: Path
    arguments: Mapping[str, str]  # as of --build-arg
    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def build(self) -> None:
        """Run all steps; a CalledProcessError if one fails."""
        tools = self.root / "tools"
        tools.mkdir(parents=True)
        for name, words in (("python", ""), ("pip", "-m pip")):
            script = tools / name
            script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words} "$@"\n')
            script.chmod(0o755)
        (self.root / "media").mkdir()
        before, stages = read_stages(self.source / "Dockerfile")
        declared: dict[str, str] = {}
        for step in before:
            self._declare(step, declared, {})
        for stage in stages:
            self._run_stage(stage, declared)

    def run(self, *words: str, port: int = 0, **variables: str) -> "subprocess.Popen[str]":
        """Start the entry point with some words in place of those of CMD; it listens on a port."""
        words = words or (*self.command, "--port", str(port))
        return self._start([*self.entrypoint, *words], variables)

    def execute(self, *words: str) -> "subprocess.Popen[str]":
        """Start another program."""
        return self._start([*words], {})

    def is_healthy(self, port: int) -> bool:
        """Run the health check, on the port that `run` was given."""
        check = health_check(self.source / "Dockerfile")
        process = self.execute(*(word.replace("7263", str(port)) for word in check))
        process.communicate(timeout=30)
        return process.returncode == 0

    def _start(self, words: list[str], variables: Mapping[str, str]) -> "subprocess.Popen[str]":
        paths = os.pathsep.join(self._path())
        return subprocess.Popen(
            ["/usr/bin/env", f"PATH={paths}", *(self._placed(word) for word in words)],
            env=self._variables({}) | variables,
            cwd=self.root / "var/lib/panda",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _declare(self, step: Step, known: dict[str, str], before: Mapping[str, str]) -> None:
        name, _, default = step.text.partition("=")
        given = self.arguments.get(name, default or before.get(name, ""))
        known[name] = _expanded(given, known)

    def _run_stage(self, steps: list[Step], before: Mapping[str, str]) -> None:
        self.environment = {}
        declared: dict[str, str] = {}
        folder = self.root
        for step in steps:
            match step.instruction:
                case "FROM":
                    assert _expanded(step.words[0], before).startswith("python:"), step.text
                case "ARG":
                    self._declare(step, declared, before)
                case "ENV":
                    for word in step.words:
                        name, _, value = word.partition("=")
                        self.environment[name] = self._placed(value)
                case "WORKDIR":
                    folder = Path(self._placed(step.text))
                    folder.mkdir(parents=True, exist_ok=True)
                case "COPY":
                    self._copy(step.words, folder)
                case "RUN" if step.text.startswith("useradd"):
                    home = step.words[step.words.index("--home-dir") + 1]
                    Path(self._placed(home)).mkdir(parents=True)
                case "RUN":
                    variables = self._variables(declared) | {"PATH": os.pathsep.join(self._path())}
                    script = ["/bin/sh", "-c", self._placed(step.text)]
                    subprocess.run(script, cwd=folder, env=variables, check=True)
                case "ENTRYPOINT":
                    self.entrypoint = step.words
                case "CMD":
                    self.command = step.words
                case "USER" | "VOLUME" | "EXPOSE" | "HEALTHCHECK":
                    pass
                case other:
                    raise ValueError(f"{other} is not understood")

    def _copy(self, words: list[str], folder: Path) -> None:
        if words[0].startswith("--from="):
            assert words[1] == words[2], "an environment of Python stays where it is made"
            return
        assert len(words) == 2, words
        names = [*context(self.source)]
        for name in names if words[0] == "." else [PurePosixPath(words[0])]:
            assert name in names, f".dockerignore leaves {name} out"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copy2(self.source / name, folder / name)

    def _path(self) -> list[str]:
        named = self.environment.get("PATH", "").replace(":$PATH", "").split(os.pathsep)
        return [*filter(None, named), str(self.root / "tools"), "/usr/bin", "/bin"]

    def _variables(self, declared: Mapping[str, str]) -> dict[str, str]:
        here = {name: text for name, text in os.environ.items() if name.startswith(_FROM_HERE)}
        for name in ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"):
            here.pop(name, None)
        own = {name: text for name, text in self.environment.items() if name != "PATH"}
        return here | {"HOME": str(self.root / "var/lib/panda"), **declared, **own}

    def _placed(self, text: str) -> str:
        """A text with its paths below the folder."""
        return _PATH.sub(f"{self.root}/", text)


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: variables[match[1]], text)


@dataclass
class DockerImage:
    """The same image, made by Docker."""

    source: Path
    name: str = "panda-test"

    def build(self) -> None:
        """Build it; a CalledProcessError if that fails."""
        subprocess.run(["docker", "build", "--tag", self.name, str(self.source)], check=True)

    def run(self, *words: str, port: int = 0, **variables: str) -> "subprocess.Popen[str]":
        """Start a container; its port 7263 is one of this machine."""
        options = [f"--env={name}={text}" for name, text in variables.items()]
        options += [f"--publish=127.0.0.1:{port}:7263"] if port else []
        return self._start("--init", f"--name={self.name}", *options, self.name, *words)

    def execute(self, *words: str) -> "subprocess.Popen[str]":
        """Start another program in a container of its own."""
        return self._start(f"--entrypoint={words[0]}", self.name, *words[1:])

    def is_healthy(self, port: int) -> bool:  # noqa: ARG002
        """Run the health check in the container that `run` started."""
        command = ["docker", "exec", self.name, *health_check(self.source / "Dockerfile")]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0

    def _start(self, *words: str) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        return subprocess.Popen(
            ["docker", "run", "--rm", *words], stdout=pipe, stderr=pipe, text=True
        )
