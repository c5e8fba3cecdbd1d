import math
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from random import Random
from unicodedata import normalize

import pytest

from pandacli.errors import ClipError, UsageError
from pandacli.video.clip import (
    Clip,
    format_time,
    format_times,
    parse_length,
    parse_time,
    parse_times,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("62.5", 62.5),
        (".5", 0.5),
        ("90", 90.0),
        ("1:02.5", 62.5),
        ("01:02", 62.0),
        ("75:00", 4500.0),
        ("1:02:03.5", 3723.5),
        ("0:00:00", 0.0),
        (" 1:02 ", 62.0),
    ],
)
def test_time_is_parsed_in_every_form(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "abc", "-5", "1:60", "1:60:00", "1:2:3:4", ":30", "1:", "1e3", "nan", "inf", "1,5", "٣"],
)
def test_invalid_time_is_refused_with_valid_forms(text):
    with pytest.raises(UsageError, match="not a time") as caught:
        parse_time(text)
    assert "m:ss" in caught.value.hint


def time_texts(count):
    """Random texts of digits, points, colons and number-like parts, of up to 5000 digits."""
    random = Random(21)
    for _ in range(count):
        parts = [
            random.choice("0159") * random.choice((0, 1, 2, 9, 10, 300, 309, 400, 5000))
            for _ in range(random.randint(1, 3))
        ]
        text = ":".join(parts) + random.choice(("", "", ".", ".5", "." + "3" * 400))
        yield random.choice(("", "", "", " ", "-", "+")) + text
    yield from ("1e5", "1e400", "1E-5", "-inf", "Infinity", "NaN", "0x10", "1_000", "\0", "1:nan")


def test_random_text_is_parsed_or_refused_in_one_line():
    read, refused = 0, []
    for text in time_texts(2000):
        try:
            seconds = parse_time(text)
        except UsageError as error:
            refused.append(error.message)
            continue
        read += 1
        assert math.isfinite(seconds)
        assert format_time(Clip("film.mp4", seconds).start)
        with suppress(UsageError):  # the range may end before its start
            Clip("film.mp4", 5.0, seconds)
    assert read > 100
    assert all("not a time" in message and len(message) < 120 for message in refused)


@pytest.mark.parametrize("seconds", [1e12, 1e300, 1.7e308, math.inf, math.nan, -math.inf, 1e-320])
def test_out_of_range_seconds_are_formatted(seconds):
    assert len(format_time(seconds)) < 20


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0:00"),
        (62.5, "1:02.5"),
        (59.9996, "1:00"),
        (10.0, "0:10"),
        (600.0, "10:00"),
        (3723.0, "1:02:03"),
        (-0.04, "-0:00.04"),
    ],
)
def test_time_is_formatted(seconds, text):
    assert format_time(seconds) == text


@pytest.mark.parametrize(
    ("moments", "shown"),
    [
        ([0.0, 1.0, 2.0], ["0:00", "0:01", "0:02"]),
        ([0.4, 1.96, 5.8], ["0:00.40", "0:01.96", "0:05.80"]),
        ([0.0, 3599.9996, 0.5], ["0:00.0", "1:00:00.0", "0:00.5"]),
        ([0.033, 61.0], ["0:00.033", "1:01.000"]),
        ([], []),
    ],
)
def test_times_of_a_list_have_equal_decimals(moments, shown):
    assert format_times(moments) == shown


def test_list_of_times_is_parsed_in_every_form():
    assert parse_times("3,7.5, 0:12") == (3.0, 7.5, 12.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10), ("10s", 10), (" 2.5 s ", 2.5), ("1:30", 90), ("1:00:00", 3600)],
)
def test_length_of_time_is_parsed_in_every_form(text, seconds):
    assert parse_length(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "0", "0s", "0:00", "-1", "1e3", "10m", "10ss", "1:30s:", "inf"]
)
def test_invalid_length_of_time_is_refused(text):
    with pytest.raises(UsageError, match=r"not a length of time|too short") as refused:
        parse_length(text)
    assert "10s" in str(refused.value.hint)


@pytest.mark.parametrize("text", ["", "1,", "1,,2", "1;2", "1 2", "1,x"])
def test_invalid_list_of_times_is_refused(text):
    with pytest.raises(UsageError, match="not a time"):
        parse_times(text)


def test_times_of_a_clip_are_ascending_without_duplicates():
    clip = Clip("film.mp4", at=(7.5, 3.0, 7.5))
    assert (clip.at, clip.extent) == ((3.0, 7.5), (3.0, 7.5))


@pytest.mark.parametrize("more", [{"start": 0.0}, {"end": 9.0}])
def test_times_with_a_range_are_refused(more):
    with pytest.raises(UsageError, match="not both"):
        Clip("film.mp4", at=(1.0,), **more)


def test_clip_accepts_path_as_text():
    assert Clip("film.mp4").path == Path("film.mp4")


@pytest.mark.parametrize(("start", "end"), [(5.0, 5.0), (5.0, 2.0), (None, 0.0)])
def test_range_ending_before_start_is_refused(start, end):
    with pytest.raises(UsageError, match="not after its start"):
        Clip(Path("film.mp4"), start, end)


@pytest.mark.parametrize(
    "moment", [-1.0, math.nan, math.inf, 1e308, 10**400, 10**5000, -(10**5000)], ids=lambda _: ""
)
def test_out_of_range_start_or_end_is_refused(moment):
    for given in ({"start": moment}, {"at": (1.0, moment)}):
        with pytest.raises(UsageError):
            Clip(Path("film.mp4"), **given)


def test_clip_and_parse_time_import_nothing_heavy():
    program = (
        "import sys; from pandacli.video import Clip, parse_time; Clip('a', parse_time('1'));"
        "print([name for name in ('numpy', 'cv2', 'av', 'PIL', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    "address", ["file:///{}/a%20b.mp4", "file://localhost/{}/a%20b.mp4", "FILE:///{}/a b.mp4"]
)
@pytest.mark.parametrize("kind", [str, Path], ids=["text", "path"])
def test_file_url_is_local_path(tmp_path, address, kind):
    if kind is Path and "localhost" in address:
        pytest.skip("a Path has lost what tells the host")
    assert Clip(kind(address.format(str(tmp_path)[1:]))).path == tmp_path / "a b.mp4"


@pytest.mark.parametrize("address", ["https://a.b/c.mp4", "s3://b/c.mp4", "rtsp://cam/1"])
@pytest.mark.parametrize("kind", [str, Path], ids=["text", "path"])
def test_remote_url_is_refused_and_shown(address, kind):
    with pytest.raises(ClipError) as refusal:
        Clip(kind(address))
    assert refusal.value.message == f"{address} is not a file on this machine"
    assert refusal.value.hint == "panda reads files; download it first"


@pytest.mark.parametrize("name", ["https:/a.mp4", "concat:/a.ts|b.ts", "C:/a.mp4", "a:b.mp4"])
def test_existing_file_named_like_url_is_opened(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert Clip(path).path == path


@pytest.mark.parametrize(("there", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_path_is_found_in_either_unicode_form(tmp_path, there, asked):
    folder = tmp_path / normalize(there, "Zoë")
    folder.mkdir()
    (folder / normalize(there, "été.mp4")).touch()
    asked_for = tmp_path / normalize(asked, "Zoë") / normalize(asked, "été.mp4")
    assert Clip(asked_for).path.exists()


def test_missing_path_keeps_its_unicode_form(tmp_path):
    path = tmp_path / normalize("NFD", "été.mp4")
    assert Clip(path).path == path
