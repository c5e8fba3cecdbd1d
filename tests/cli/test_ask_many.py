"""`panda ask` about several clips and about the windows of a film, with `tiny`."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import pytest

DEMO = Path(__file__).parents[2] / "pandacli" / "assets" / "demo.mp4"
TINY = ("--model", "tiny", "--cache-size", "0")
STAR, WHAT = "Is there a star?", "What happens?"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two clips, one that is no video, and one in a folder of its own."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "deep").mkdir()
    for name in ("clip10.mp4", "clip2.mp4", "deep/clip1.mp4"):
        (folder / name).symlink_to(DEMO)
    (folder / "clip3.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo three times in a row: 24 seconds."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(DEMO)) as source, av.open(str(path), "w") as target:
        (pictures,) = source.streams.video
        frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(pictures)]
        stream = target.add_stream("libx264", rate=25)
        stream.height, stream.width, _ = frames[0].shape
        for frame in frames * 3:
            target.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        target.mux(stream.encode(None))
    return path


def test_each_clip_takes_a_line_and_a_bad_one_does_not_end_the_run(module_panda, clips):
    places = (str(clips / "clip10.mp4"), f"{clips}/clip[23].mp4", str(clips / "gone.mp4"))
    done = module_panda("ask", *places, "-q", WHAT, "-q", STAR, *TINY)
    what = module_panda("ask", str(DEMO), WHAT, *TINY).stdout.decode()
    assert done.stdout.decode() == "".join(
        f"{clips}/{name}.mp4 [1]: {what}{clips}/{name}.mp4 [2]: Yes.\n"
        for name in ("clip10", "clip2")
    )
    bad, gone = done.stderr.decode().splitlines()
    assert bad == f"panda: {clips}/clip3.mp4 is not a video that can be read"
    assert gone == f"panda: there is no file {clips}/gone.mp4"
    assert done.returncode == 1


def test_folder_with_choices_gives_json_lines(module_panda, clips):
    options = ("--recursive", "--choices", "No.|Yes.", "--json", "--to", "2")
    done = module_panda("ask", str(clips), "-q", STAR, *options, *TINY)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    names = ["clip2.mp4", "clip10.mp4", "deep/clip1.mp4"]
    assert [record["video"] for record in records] == [str(clips / name) for name in names]
    for record in records:
        assert max(frame["time"] for frame in record["frames"]) < 2
        assert record["answers"][0]["answer"] == "No."
        assert len(record["answers"][0]["choices"]) == 2
    assert done.returncode == 1, "clip3.mp4"


def test_question_as_an_option_gives_one_clip_its_own_form(module_panda):
    done = module_panda("ask", str(DEMO), "-q", STAR, *TINY)
    assert (done.stdout, done.stderr, done.returncode) == (b"Yes.\n", b"", 0)


def test_windows_have_their_times(module_panda, film):
    done = module_panda("ask", str(film), STAR, "--every", "4s", "--from", "8", *TINY, "--stats")
    assert done.stdout.decode().splitlines() == [
        "0:08 - 0:12  No.",
        "0:12 - 0:16  Yes.",
        "0:16 - 0:20  No.",
        "0:20 - 0:24  Yes.",
    ]
    assert done.stderr.decode().splitlines()[0] == "windows  4"
    assert done.returncode == 0


@pytest.mark.slow
def test_table_of_windows_has_probabilities(module_panda, film):
    done = module_panda(
        "ask", str(film), STAR, "--choices", "Yes.|No.", "--every", "0:08", "--format", "csv", *TINY
    )
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert [(row["start"], row["text"]) for row in rows] == [
        ("0.000", "Yes."),
        ("8.000", "Yes."),
        ("16.000", "Yes."),
    ]
    assert all(0.5 < float(row["probability"]) <= 1 for row in rows)


def test_times_name_the_frames_to_look_at(module_panda):
    done = module_panda("ask", str(DEMO), STAR, "--at", "5,0:01.5", *TINY, "--json")
    times = [frame["time"] for frame in json.loads(done.stdout)["frames"]]
    assert times == pytest.approx([1.5, 5.0], abs=0.04)


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["x.mp4", WHAT, "--every", "0"], "--every: '0' is too short", 2),
        (["x.mp4", WHAT, "--every", "soon"], "--every: 'soon' is not a length of time", 2),
        (["x.mp4", WHAT, "--at", "3,soon"], "--at: 'soon' is not a time", 2),
        (["x.mp4", WHAT, "--at", "1", "--every", "2"], "--at is for single times, --every", 2),
        (["x.mp4", WHAT, "--at", "1", "--to", "2"], "a clip has a range or single times", 2),
        (["x.mp4", WHAT, "--at", "1,2,3,4,5", "--frames", "4"], "--at: 5 times are given", 2),
        (["x.mp4", WHAT, "--format", "srt"], "--format is for windows", 2),
        (["x.mp4", WHAT, "--every", "2", "--format", "edl"], "--format: 'edl' is not one of", 2),
        (["x.mp4", WHAT, "--every", "2", "--format", "srt", "--json"], "--format and --json", 2),
        (["x.mp4", WHAT, "b?", "--every", "2", "--format", "csv"], "--format is for one", 2),
        (["x.mp4", WHAT, "--every", "2", "--full-hash"], "--full-hash has no effect", 2),
        (["x.mp4", WHAT, "--recursive"], "--recursive is for folders", 2),
        (["x.mp4", "Is it?", "-q", WHAT], "Is it? is not a video", 2),
        (["x.mp4", "-q", " "], "the question is empty", 2),
        ([".", WHAT], ". is a directory, not a video", 2),
        (["x.mp4", "gone/", "-q", WHAT], "there is no file or folder gone/", 3),
        (["x.mp4", WHAT, "--every", "2"], "there is no file x.mp4", 3),
        (["*.mkv", "-q", WHAT], "no video matches *.mkv", 3),
        (["x.mp4", "y.mp4", "-q", WHAT, "--every", "2", "--format", "vtt"], "--format vtt is", 2),
    ],
)
def test_what_cannot_be_done_is_refused_before_a_model_is_looked_for(
    module_panda, words, said, code
):
    done = module_panda("ask", *words)
    assert done.stderr.decode().startswith(f"panda: {said}")
    assert (done.stdout, done.returncode) == (b"", code)


def test_directory_is_refused_with_the_right_command(module_panda, clips):
    done = module_panda("ask", str(clips), WHAT)
    assert done.stderr.decode().splitlines()[-1].strip() == f"panda ask {clips} -q 'What happens?'"


@pytest.mark.slow
def test_interrupted_run_keeps_whole_captions(environment, film):
    command = [sys.executable, "-m", "pandacli", "ask", str(film), WHAT, *TINY]
    run = subprocess.Popen(
        [*command, "--every", "0.1", "--format", "vtt"],
        env=environment,
        bufsize=0,  # `communicate` would skip what is buffered
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdout is not None
    head = b"".join(run.stdout.readline() for _ in range(4))
    os.kill(run.pid, signal.SIGINT)
    rest, said = run.communicate(timeout=60)
    cues = (head + rest).decode().split("\n\n")
    assert cues[0] == "WEBVTT"
    assert cues[-1] == ""
    assert len(cues) < 240
    assert all(len(cue.splitlines()) == 2 for cue in cues[1:-1])
    assert b" of 240 windows" in said
    assert run.returncode == 130
