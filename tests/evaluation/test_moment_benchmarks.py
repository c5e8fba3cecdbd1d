"""The commands of `docs/benchmarks.md` for moment retrieval, on made films that `tiny` knows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pandacli.cli.entry import run
from tests.evaluation.test_segment_scores import counted
from tests.tiny.renderers import all_times, draw, save
from tests.tiny.synthetic_videos import Actor, SyntheticVideo

SECONDS = 8.0
QUESTION = "Is there a red circle?"
FILMS = {  # when the red circle is there
    "3MSZA": [[0.0, 4.0]],
    "AO8RW_0.0_8.0": [[1.0, 3.0], [5.0, 8.0]],
}


def film(windows: list[list[float]], folder: Path, name: str) -> None:
    """Write a film in which a red circle comes and goes beside a blue square."""
    radius = (0.16, 0.16)
    circles = [
        Actor("red", "circle", "still", (0.3, 0.5), (0.3, 0.5), radius, (s / SECONDS, e / SECONDS))
        for s, e in windows
    ]
    square = Actor("blue", "square", "still", (0.75, 0.5), (0.75, 0.5), radius)
    video = SyntheticVideo((*circles, square), "black", 0.0, "pure", 160, 120, 8, SECONDS)
    pictures = draw(video, "pillow smooth", all_times(video), np.random.default_rng(0))
    save(pictures, video, "libx264", folder / "film").rename(folder / f"{name}.mp4")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for name, windows in FILMS.items():
        film(windows, folder, name)
    return folder


def charades(path: Path) -> None:
    rows = [
        f"{name} {windows[0][0]} {windows[0][1]}##{QUESTION}" for name, windows in FILMS.items()
    ]
    path.write_text("\n".join([*rows, f"GONE 0.0 4.0##{QUESTION}"]) + "\n")


def highlights(path: Path) -> None:
    rows = [
        {"qid": n, "query": QUESTION, "vid": name, "duration": SECONDS, "relevant_windows": windows}
        for n, (name, windows) in enumerate([*FILMS.items(), ("GONE", [[0, 4]])])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str, status: int) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["eval", *arguments, "--json"]) == status
    return json.loads(capsys.readouterr().out)["files"][0]


@pytest.mark.parametrize(
    "data_set", ["charades", pytest.param("highlights", marks=pytest.mark.slow)]
)
def test_made_set_is_answered_written_and_scored_to_the_same_numbers(
    videos: Path, tmp_path: Path, monkeypatch, capsys, data_set: str
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = {"charades": "charades_sta_test.txt", "highlights": "val.jsonl"}[data_set]
    {"charades": charades, "highlights": highlights}[data_set](tmp_path / asked)
    stem = Path(asked).stem
    batch = ["batch", asked, "--video-dir", str(videos), "--quiet"]
    assert run([*batch, "--check"]) == 1  # one film is missing
    assert run([*batch, "--model", "tiny", "--output-format", "same"]) == 1
    ours = evaluated(capsys, f"{stem}.answers.jsonl", status=1)
    extension = {"charades": "txt", "highlights": "submission.jsonl"}[data_set]
    theirs = evaluated(capsys, f"{stem}.answers.{extension}", "--questions", asked, status=0)

    lines = [json.loads(line) for line in (tmp_path / f"{stem}.answers.jsonl").open()]
    best = {
        line["video" if data_set == "charades" else "vid"]: line.get("segments") for line in lines
    }
    right = {n: w[:1] if data_set == "charades" else w for n, w in FILMS.items()} | {"GONE": []}
    overlaps = []
    for name, windows in right.items():
        found = best[name][:1] if best[name] else []
        spans = [(segment["start"], segment["end"]) for segment in found]
        overlaps.append(max((counted(s, w) for s in spans for w in windows), default=0.0))
    assert overlaps[0] > 0.8
    assert ours["measures"]["mIoU"]["mean"] == pytest.approx(sum(overlaps) / 3, abs=0.02)
    assert ours["measures"]["R1@0.5"]["mean"] == pytest.approx(
        sum(each >= 0.5 for each in overlaps) / 3, abs=1e-6
    )
    for measure, value in ours["measures"].items():
        assert theirs["measures"][measure]["mean"] == pytest.approx(value["mean"], abs=1e-3)
    assert (ours["questions"], ours["answered"], theirs["answered"]) == (3, 2, 3)
