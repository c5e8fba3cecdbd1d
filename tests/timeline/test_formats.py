"""Captions, tables and cut lists: read back by parsers that share no code with the writers."""

import csv
import re
from collections.abc import Iterator
from fractions import Fraction
from io import StringIO
from pathlib import Path

import av
import pytest

from pandacli.errors import UsageError
from pandacli.timeline.formats import Caption, Source, write_captions, write_cuts
from tests.video.clips import number_in, write_clip

STAR = Caption(21.5, 35.0, "Is there a star?", 0.97)
LONG = Caption(3599.9996, 7261.25, "It is\n\nred -> blue\n")


def written(file_format: str, *captions: Caption) -> str:
    return "".join(write_captions(captions, file_format))


def cut(file_format: str, source: Source, *captions: Caption) -> str:
    return "".join(write_cuts(captions, file_format, source))


def test_srt_numbers_its_captions_and_has_no_blank_line_in_one() -> None:
    assert written("srt", STAR, LONG) == (
        "1\n00:00:21,500 --> 00:00:35,000\nIs there a star? (0.97)\n\n"
        "2\n01:00:00,000 --> 02:01:01,250\nIt is\nred -> blue\n\n"
    )


def test_vtt_escapes_markup() -> None:
    text = written("vtt", Caption(0, 1, "a <b> & c --> d"))
    assert text == "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na &lt;b&gt; &amp; c -&gt; d\n\n"


def test_csv_is_read_back_with_quotes_and_line_breaks() -> None:
    odd = Caption(1 / 3, 2, 'He said "no",\nthen left')
    rows = list(csv.DictReader(StringIO(written("csv", STAR, odd))))
    assert [(row["start"], row["end"]) for row in rows] == [
        ("21.500", "35.000"),
        ("0.333", "2.000"),
    ]
    assert [row["text"] for row in rows] == [STAR.text, odd.text]
    assert [row["probability"] for row in rows] == ["0.9700", ""]


@pytest.mark.parametrize("file_format", ["srt", "vtt", "csv"])
def test_captions_are_written_as_they_come(file_format: str) -> None:
    def captions() -> Iterator[Caption]:
        yield STAR
        raise KeyboardInterrupt

    pieces: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        pieces.extend(write_captions(captions(), file_format))
    assert "Is there a star?" in "".join(pieces)


def events(edl: str) -> list[list[str]]:
    return [line.split()[4:] for line in edl.splitlines() if re.match(r"\d{3}  ", line)]


def test_edl_counts_the_frames_of_the_film() -> None:
    source = Source(Path("/films/a film.mp4"), 25.0)
    edl = cut("edl", source, Caption(21.48, 35.0, "star"), Caption(40.0, 40.0, "x"))
    assert edl.startswith("TITLE: a film.mp4\nFCM: NON-DROP FRAME\n")
    assert events(edl) == [
        ["00:00:21:12", "00:00:35:00", "01:00:00:00", "01:00:13:13"],
        ["00:00:40:00", "00:00:40:01", "01:00:13:13", "01:00:13:14"],
    ]
    assert edl.count("* FROM CLIP NAME: a film.mp4\n") == 2


@pytest.mark.parametrize(("fps", "base"), [(30_000 / 1001, 30), (60_000 / 1001, 60)])
def test_drop_frame_timecode_keeps_to_the_clock(fps: float, base: int) -> None:
    for seconds in (0.0, 59.9, 60.1, 599.95, 600.0, 3600.0, 7322.5):
        edl = cut("edl", Source(Path("a.mp4"), fps), Caption(seconds, seconds + 1, "x"))
        assert "FCM: DROP FRAME" in edl
        ((code, _, record, _),) = events(edl)
        assert record == "01:00:00;00"
        hours, minutes, whole, frame = map(int, re.split("[:;]", code))
        assert not (whole == 0 and frame < base // 15 and minutes % 10), "a dropped number"
        shown = hours * 3600 + minutes * 60 + whole + frame / base
        assert shown == pytest.approx(seconds, abs=5 / base)


def test_edl_refuses_a_rate_of_three_digits() -> None:
    with pytest.raises(UsageError, match="120"):
        cut("edl", Source(Path("a.mp4"), 120.0), STAR)


def test_ffconcat_is_read_by_ffmpeg_whatever_the_name(tmp_path: Path) -> None:
    folder = tmp_path / "it's  a 'folder' #1 \\ é"
    folder.mkdir()
    every_frame_a_key = {"g": "1"}
    film = write_clip(folder / "the film's end .mp4", 100, options=every_frame_a_key)
    listed = tmp_path / "segments.ffconcat"
    captions = Caption(0.4, 0.8, "a"), Caption(3.0, 3.2, "b")
    listed.write_text(cut("ffconcat", Source(film, 25.0), *captions), "utf-8")
    assert numbers_of(listed) == [*range(10, 20), *range(75, 80)]


def test_ffconcat_has_the_times_of_the_files_own_clock(tmp_path: Path) -> None:
    ticks = [90_000 * 500 + 3600 * number for number in range(100)]
    film = write_clip(
        tmp_path / "recorded.ts",
        100,
        ticks=ticks,
        time_base=Fraction(1, 90_000),
        options={"g": "1"},
    )
    with av.open(str(film)) as container:
        origin = container.start_time / 1e6
    assert origin > 400
    listed = tmp_path / "segments.ffconcat"
    listed.write_text(cut("ffconcat", Source(film, 25.0, origin), Caption(2.0, 2.4, "a")))
    assert numbers_of(listed)[0] == 50


@pytest.mark.parametrize("name", ["two\nlines.mp4", "not utf-8 \udcff.mp4"])
def test_ffconcat_refuses_a_name_that_it_cannot_hold(name: str) -> None:
    with pytest.raises(UsageError, match="ffconcat"):
        cut("ffconcat", Source(Path(name), 25.0), STAR)


def numbers_of(listed: Path) -> list[int]:
    """The numbers of the frames that FFmpeg's concat demuxer gives for a list."""
    with av.open(str(listed), format="concat", options={"safe": "0"}) as container:
        return [number_in(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
