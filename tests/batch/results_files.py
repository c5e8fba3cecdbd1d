"""Results files for tests."""

from pathlib import Path
from typing import Any

from pandacli.batch.results_file import ResultsFile


def answer(digest: int, text: str = "yes") -> dict[str, Any]:
    return {"question": "really?", "answer": text, "digest": f"{digest:016x}"}


def failure(digest: int) -> dict[str, Any]:
    return {"line": 3, "error": {"kind": "video", "message": "gone"}, "digest": f"{digest:016x}"}


def written(path: Path, *lines: dict[str, Any]) -> bytes:
    with ResultsFile(path) as answers:
        for line in lines:
            answers.write(line)
    return path.read_bytes()


def done(path: Path) -> list[int]:
    with ResultsFile(path) as answers:
        found: list[int] = answers.done.tolist()
        return found
