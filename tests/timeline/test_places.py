"""Files, folders and patterns as the videos that they name."""

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from pandacli.errors import ClipError, UsageError
from pandacli.timeline.places import find_videos

Make = Callable[..., None]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes empty files below the current folder."""
    monkeypatch.chdir(tmp_path)

    def touch(*names: str) -> None:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return touch


def names(*places: str, recursive: bool = False) -> list[str]:
    return [str(path) for path in find_videos(places, recursive)]


def test_folder_stands_for_its_videos_in_natural_order(make: Make) -> None:
    random = Random(17)
    numbers = random.sample(range(1, 2000), 30)
    make(*(f"clips/clip{n}.mp4" for n in random.sample(numbers, 30)), "clips/notes.txt")
    assert names("clips") == [f"clips/clip{n}.mp4" for n in sorted(numbers)]


def test_suffix_is_recognised_in_any_case(make: Make) -> None:
    make("clips/A.MP4", "clips/b.Mov", "clips/c.mp4.part")
    assert names("clips/") == ["clips/A.MP4", "clips/b.Mov"]


def test_files_keep_the_order_in_which_they_are_named(make: Make) -> None:
    make("b.mp4", "a.mp4", "clips/c.mkv")
    assert names("b.mp4", "clips", "a.mp4") == ["b.mp4", "clips/c.mkv", "a.mp4"]


def test_named_file_needs_no_suffix(make: Make) -> None:
    make("film", "film.txt")
    assert names("film", "film.txt") == ["film", "film.txt"]


def test_each_file_is_found_once(make: Make, tmp_path: Path) -> None:
    make("clips/a.mp4", "clips/b.mp4")
    Path("same").symlink_to("clips")
    places = ["clips/a.mp4", "./clips//a.mp4", "clips", str(tmp_path / "clips" / "b.mp4"), "same"]
    assert names(*places) == ["clips/a.mp4", "clips/b.mp4"]


def test_links_to_files_keep_their_names(make: Make) -> None:
    make("clips/a.mp4")
    Path("clips/best.mp4").symlink_to("a.mp4")
    assert names("clips") == ["clips/a.mp4", "clips/best.mp4"]


def test_hidden_files_and_folders_have_to_be_named(make: Make) -> None:
    make("clips/a.mp4", "clips/.b.mp4", "clips/.trash/c.mp4")
    assert names("clips", recursive=True) == ["clips/a.mp4"]
    assert names("clips/*.mp4") == ["clips/a.mp4"]
    assert names("clips/**/*.mp4") == ["clips/a.mp4"]
    assert names("clips/.b.mp4", "clips/.trash") == ["clips/.b.mp4", "clips/.trash/c.mp4"]


def test_only_recursive_looks_into_folders(make: Make) -> None:
    make("clips/a.mp4", "clips/2/b.mp4", "clips/10/deep/c.mp4", "clips/film.mp4/d.mp4")
    assert names("clips") == ["clips/a.mp4"]
    assert sorted(names("clips", recursive=True)) == [
        "clips/10/deep/c.mp4",
        "clips/2/b.mp4",
        "clips/a.mp4",
        "clips/film.mp4/d.mp4",
    ]


def test_loops_of_links_end(make: Make) -> None:
    make("clips/a.mp4", "clips/sub/b.mp4")
    for name in ("clips/up", "clips/sub/up", "clips/sub/up2"):
        Path(name).symlink_to("..")
    Path("clips/self").symlink_to("self")
    assert names("clips", recursive=True) == ["clips/a.mp4", "clips/sub/b.mp4"]
    assert names("clips/**/*.mp4") == ["clips/a.mp4", "clips/sub/b.mp4"]


def test_broken_link_is_found_for_reading_to_report_it(make: Make) -> None:
    make("clips/a.mp4")
    Path("clips/b.mp4").symlink_to("nowhere.mp4")
    assert names("clips") == ["clips/a.mp4", "clips/b.mp4"]


def test_pattern_is_expanded_where_the_shell_did_not(make: Make) -> None:
    make("clips/clip10.mp4", "clips/clip2.mp4", "clips/clip3.mkv", "other/x.mp4")
    assert names("clips/clip?.mp4") == ["clips/clip2.mp4"]
    assert names("*/*.mp4") == ["clips/clip2.mp4", "clips/clip10.mp4", "other/x.mp4"]
    assert names("cl*") == ["clips/clip2.mp4", "clips/clip3.mkv", "clips/clip10.mp4"]


def test_two_stars_are_any_number_of_folders(make: Make) -> None:
    make("clips/a.mp4", "clips/x/b.mp4", "clips/x/y/c.mp4", "clips/x/y/c.txt")
    assert names("clips/**/*.mp4") == ["clips/a.mp4", "clips/x/b.mp4", "clips/x/y/c.mp4"]
    assert names("**/y/*.mp4") == ["clips/x/y/c.mp4"]


@pytest.mark.parametrize(
    "name", ["clip[1].mp4", "what?.mp4", "a*.mp4", "[ab].mp4", "line\nbreak.mp4"]
)
def test_existing_name_is_no_pattern(make: Make, name: str) -> None:
    make(name, "clip1.mp4", "whatx.mp4", "ab.mp4", "a.mp4")
    assert names(name) == [name]


def test_existing_folder_in_a_pattern_is_no_pattern(make: Make) -> None:
    make("films [old]/a.mp4", "films o/b.mp4", "films [old]/x/c.mp4")
    assert names("films [old]/*.mp4") == ["films [old]/a.mp4"]
    assert names("films [old]/**/*.mp4") == ["films [old]/a.mp4", "films [old]/x/c.mp4"]


def test_control_characters_in_names_are_kept(make: Make) -> None:
    make("clips/\x1b[31mred.mp4", "clips/tab\there.mp4")
    assert names("clips") == ["clips/\x1b[31mred.mp4", "clips/tab\there.mp4"]
    assert names("cl*/*red.mp4") == ["clips/\x1b[31mred.mp4"]


def test_name_that_is_not_utf8_is_found(make: Make) -> None:
    make("clips/" + os.fsdecode(b"caf\xe9.mp4"))
    assert names("clips") == ["clips/" + os.fsdecode(b"caf\xe9.mp4")]


def test_tilde_is_the_home_folder_unless_it_is_a_name(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    make("home/clips/a.mp4", "~draft.mp4")
    assert names("~/clips") == [str(tmp_path / "home/clips/a.mp4")]
    assert names("~/cl*/*.mp4") == [str(tmp_path / "home/clips/a.mp4")]
    assert names("~draft.mp4") == ["~draft.mp4"]


def test_file_address_names_a_file(make: Make, tmp_path: Path) -> None:
    make("my clip.mp4")
    assert names(f"file://{tmp_path}/my%20clip.mp4") == [str(tmp_path / "my clip.mp4")]


def test_missing_video_is_left_to_reading(make: Make) -> None:
    make("a.mp4")
    assert names("a.mp4", "gone.mp4") == ["a.mp4", "gone.mp4"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("empty", "there is no video in the folder empty"),
        ("gone", "there is no file or folder gone"),
        ("*.mkv", "no video matches *.mkv"),
        ("emp*", "no video matches emp*"),
        ("https://example.org/a.mp4", "https://example.org/a.mp4 is not a file on this machine"),
    ],
)
def test_place_without_videos_is_refused(make: Make, place: str, message: str) -> None:
    make("empty/notes.txt", "a.mp4")
    with pytest.raises(ClipError) as refused:
        names("a.mp4", place)
    assert refused.value.message == message


def test_empty_folder_hints_at_recursive_unless_it_was_given(make: Make) -> None:
    make("clips/notes.txt")
    hints = []
    for recursive in (False, True):
        with pytest.raises(ClipError) as refused:
            names("clips", recursive=recursive)
        hints.append(refused.value.hint)
    assert hints == ["--recursive looks into its folders as well", None]


def test_empty_name_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        names("")
