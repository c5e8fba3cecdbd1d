"""`panda when` with `tiny` on a short film: what is printed, refused, and kept after Ctrl-C."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.cli.conftest import Run, _runner

TINY = ("--model", "tiny", "--window", "1s", "--stride", "1s")
CIRCLE, STAR = "Is there a red circle?", "Is there a star?"
SHOWN = [(1.5, 4.0), (6.0, 7.2)]
SECONDS, FPS = 8, 10


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds, in which a red circle is to be seen twice."""
    import cv2

    path = tmp_path_factory.mktemp("film") / "the film's cut.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": "1"})
        stream.width = stream.height = 168
        stream.pix_fmt = "yuv420p"
        for number in range(SECONDS * FPS):
            picture = np.zeros((168, 168, 3), np.uint8)
            if any(start <= number / FPS < end for start, end in SHOWN):
                cv2.circle(picture, (80, 90), 25, (255, 0, 0), -1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def found(module_panda: Run, film: Path) -> dict[str, Any]:
    """The JSON of a search."""
    done = module_panda("when", str(film), CIRCLE, *TINY, "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def test_json_has_the_segments_and_the_windows(found: dict[str, Any], film: Path) -> None:
    assert {name: found[name] for name in ("video", "model", "question")} == {
        "video": str(film),
        "model": "tiny",
        "question": CIRCLE,
    }
    ranges = [(segment["start"], segment["end"]) for segment in found["segments"]]
    assert ranges == [pytest.approx(shown, abs=0.4) for shown in SHOWN]
    assert [(w["start"], w["end"]) for w in found["windows"]] == [(n, n + 1) for n in range(8)]
    assert [w["probability"] >= 0.5 for w in found["windows"]] == [
        n in (1, 2, 3, 6, 7) for n in range(8)
    ]


def test_piped_output_has_a_line_for_each_segment(
    module_panda: Run, film: Path, found: dict[str, Any]
) -> None:
    done = module_panda("when", str(film), CIRCLE, *TINY, "--stats")
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert [line[1] for line in lines] == ["-", "-"]
    for (start, _, end, share), segment in zip(lines, found["segments"], strict=True):
        assert start == f"0:0{segment['start']:.1f}"
        assert end == f"0:0{segment['end']:.1f}"
        assert share == f"{segment['probability']:.2f}"
    said = [line.split("  ")[0] for line in done.stderr.decode().splitlines()]
    assert said == ["windows", "time", "memory"]


def test_a_statement_is_asked_as_a_question_and_nothing_found_is_said(
    module_panda: Run, film: Path
) -> None:
    done = module_panda("when", str(film), "there is a star.", *TINY, "--to", "2.2")
    assert (done.returncode, done.stdout) == (0, b"")
    statement, nothing = done.stderr.decode().splitlines()
    said = "the statement is asked as: Does the video show this: there is a star?"
    assert statement == f"panda: {said}"
    assert nothing.startswith("panda: nothing found: the highest probability of yes is 0.")


@pytest.fixture
def odd_film(environment: dict[str, str], home: Path) -> Run:
    """The real thing on a film of `odd_film.py`."""
    script = str(Path(__file__).with_name("odd_film.py"))
    return _runner([sys.executable, script], environment, home)


def test_a_damaged_window_is_a_gap_and_exits_with_1(odd_film: Run, film: Path) -> None:
    done = odd_film("when", str(film), CIRCLE, *TINY, "--to", "6", "--json", DAMAGED="5")
    assert done.returncode == 1
    (segment,) = json.loads(done.stdout)["segments"]
    assert segment["start"] == pytest.approx(1.5, abs=0.3)
    window = json.loads(done.stdout)["windows"][5]
    assert (window["probability"], window["error"]) == (None, "film.mp4 cannot be decoded there")
    assert done.stderr.decode() == (
        "panda: 1 window could not be looked at (0:05 to 0:06): film.mp4 cannot be decoded there\n"
    )


def test_ctrl_c_keeps_what_has_been_found(odd_film: Run, film: Path) -> None:
    options = ("--window", "0.5", "--stride", "0.5", "--model", "tiny")
    done = odd_film("when", str(film), CIRCLE, *options, INTERRUPTED="10")
    assert done.returncode == 130
    (line,) = done.stdout.decode().splitlines()
    assert line.startswith("0:01.")
    said = "panda: stopped at 0:04 of 0:08; the boundaries are not refined\n"
    assert done.stderr.decode() == said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["", CIRCLE], "VIDEO is empty"),
        (["{film}"], "QUESTION is missing"),
        (["{film}", " "], "the question is empty"),
        (["{film}", b"\xff?"], "the question is not UTF-8 text"),
        (["{film}", CIRCLE, STAR], "too many arguments"),
        (["{film}", CIRCLE, "--threshold", "1"], "--threshold: 1 is not between 0 and 1"),
        (["{film}", CIRCLE, "--threshold", "nan"], "--threshold: nan is not a number"),
        (["{film}", CIRCLE, "--window", "0"], "--window: '0' is too short"),
        (["{film}", CIRCLE, "--stride", "-1"], "--stride: '-1' is not a length of time"),
        (["{film}", CIRCLE, "--precision", "fine"], "--precision: 'fine' is not a length of time"),
        (["{film}", CIRCLE, "--format", "xml"], "--format: 'xml' is not one of srt, vtt, csv, edl"),
        (["{film}", CIRCLE, "--format", "srt", "--json"], "--format and --json are two forms"),
        (["{film}", CIRCLE, "--max-tokens", "5"], "panda when has no option --max-tokens"),
        (["{film}", CIRCLE, "--from", "3", "--to", "2"], "the range ends at 0:02"),
    ],
)
def test_wrong_usage_is_refused(panda: Run, film: Path, arguments: list[Any], said: str) -> None:
    done = panda("when", *(str(film) if word == "{film}" else word for word in arguments))
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith(f"panda: {said}")


def test_torch_is_not_imported_before_bad_input_is_found(
    environment: dict[str, str], film: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    script = (
        "import sys\n"
        "from pandacli.cli.entry import run\n"
        f"assert run(['when', {str(film)!r}, 'why?', '--window', 'x']) == 2\n"
        "heavy = {'torch', 'numpy', 'av', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        f"assert run(['when', {str(text)!r}, 'why?']) == 3\n"
        "assert run(['when', 'missing.mp4', 'why?']) == 3\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_ffmpeg_cuts_by_ffconcat_as_it_is(module_panda: Run, film: Path, tmp_path: Path) -> None:
    done = module_panda("when", str(film), CIRCLE, *TINY, "--format", "ffconcat")
    (tmp_path / "segments.ffconcat").write_bytes(done.stdout)
    command = "ffmpeg -f concat -safe 0 -i segments.ffconcat -c copy cut.mp4"
    subprocess.run(command.split(), cwd=tmp_path, check=True)
    with av.open(str(tmp_path / "cut.mp4")) as container:
        reds = [frame.to_ndarray(format="rgb24")[90, 80, 0] for frame in container.decode(video=0)]
    assert len(reds) == pytest.approx(37, abs=6)
    assert np.mean(np.array(reds) > 200) > 0.85
