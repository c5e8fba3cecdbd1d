"""Running `panda` as users do: in a process of its own, in a home of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")

Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with no configuration and no models."""
    return _home(tmp_path)


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """The variables of a user who has set none that concern panda."""
    return _environment(home)


def _home(folder: Path) -> Path:
    (folder / "config" / "panda").mkdir(parents=True)
    return folder


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if _is_neutral(name)}
    return kept | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "PANDA_HOME": str(home / "models"),
        "HF_HOME": str(home / "hub"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "LANG": "C.UTF-8",
    }


def _is_neutral(name: str) -> bool:
    prefixes = ("PANDA_", "HF_", "XDG_", "LC_", "PYTHON")
    return not name.startswith(prefixes) and name not in ("NO_COLOR", "FORCE_COLOR", "TERM")


def _runner(command: list[str], environment: dict[str, str], home: Path) -> Run:
    def run(
        *arguments: str | bytes, stdin: bytes = b"", **variables: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*command, *arguments],
            input=stdin,
            capture_output=True,
            env=environment | variables,
            cwd=home,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def panda(environment: dict[str, str], home: Path) -> Run:
    """The real thing: `panda(*arguments, stdin=b"", VARIABLE="value")`."""
    return _runner([sys.executable, "-m", "pandacli"], environment, home)


@pytest.fixture(scope="module")
def module_panda(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """As `panda`, with one home for a module whose runs are slow and leave nothing behind."""
    home = _home(tmp_path_factory.mktemp("home"))
    return _runner([sys.executable, "-m", "pandacli"], _environment(home), home)


@pytest.fixture
def fake_engine(environment: dict[str, str], home: Path) -> Run:
    """The real command line on the fake engine of `fake_engine.py`."""
    return _runner([sys.executable, str(FAKE_ENGINE)], environment, home)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of real video."""
    import cv2

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (160, 120))
    for shade in range(20):
        writer.write(np.full((120, 160, 3), shade * 12, np.uint8))
    writer.release()
    return path
