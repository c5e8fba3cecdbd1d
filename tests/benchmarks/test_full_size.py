"""A checkpoint of the real size, 13.6 GB of random weights, on this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

ROOT = Path(__file__).parents[2]

GB = 1_000_000_000
_DISK, _MEMORY = 25 * GB, 14 * GB

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The checkpoint's folder, which is deleted at the end: it is not to lie about."""
    folder = tmp_path_factory.mktemp("full_size")
    if shutil.disk_usage(folder).free < _DISK:
        pytest.skip(f"needs {_DISK / GB:.0f} GB of disk")
    if psutil.virtual_memory().available < _MEMORY:
        pytest.skip(f"needs {_MEMORY / GB:.0f} GB of memory")
    command = [sys.executable, "-m", "benchmarks.big_checkpoint", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def home(checkpoint: Path) -> Path:
    """Where the copy is made; deleted with the checkpoint."""
    return checkpoint / "home"


def start(checkpoint: Path, home: Path, tokens: int) -> "subprocess.Popen[str]":
    words = [str(checkpoint), "8bit", "torch", "cpu", str(tokens)]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.one_form", *words],
        cwd=ROOT,
        env=os.environ | {"PANDA_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )


def result(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, _ = process.communicate()
    assert process.returncode == 0
    measured: dict[str, Any] = json.loads(out)
    return measured


def written(home: Path) -> dict[str, int]:
    """When each finished file of the copy was written."""
    files = home.glob("copies/*/*.safetensors")
    return {path.name: path.stat().st_mtime_ns for path in files}


def test_a_killed_conversion_goes_on_within_a_shard_and_two_gigabytes(
    checkpoint: Path, home: Path
) -> None:
    process = start(checkpoint, home, 0)
    while len(before := written(home)) < 5:
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    measured = result(start(checkpoint, home, 0))
    after = written(home)
    assert len(after) > 20
    assert before.items() <= after.items()
    shard = max(path.stat().st_size for path in checkpoint.glob("*.bin"))
    assert measured["load_peak_bytes"] < shard + 2 * GB


def test_the_copy_is_loaded_in_little_more_than_its_size_and_answers(
    checkpoint: Path, home: Path
) -> None:
    measured = result(start(checkpoint, home, 2))
    size = sum(path.stat().st_size for path in home.glob("copies/*/*.safetensors"))
    assert measured["load_peak_bytes"] < 1.3 * size
    assert measured["answer_tokens"] == 2
