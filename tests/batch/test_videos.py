"""Videos are found by the names in records and by those of data sets."""

from pathlib import Path
from unicodedata import normalize

import pytest

from pandacli.batch.records import find_video
from pandacli.errors import ClipError


def touched(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("there", "asked"),
    [
        ("a.mp4", "a.mp4"),
        ("sub/a.mp4", "sub/a.mp4"),
        ("a.mkv", "a"),
        ("a.MP4", "a"),
        ("v_a.mp4", "a"),
        ("a.mp4", "v_a"),
        ("v_a.mp4", "a.mp4"),
        ("a.mp4", "v_a.mp4"),
        ("sub/v_a.webm", "sub/a"),
        ("a.b.gif", "a.b"),
        ("no extension", "no extension"),
        ("video6513.mp4", "video6513"),
        ("vid1.avi", "video1"),
        ("video6513.mp4", "6513"),
        ("7.webm", "video7"),
        ("東京.mov", "東京"),
    ],
)
def test_name_finds_its_file(tmp_path: Path, there: str, asked: str) -> None:
    file = touched(tmp_path / there)
    assert find_video(tmp_path, asked) == file


@pytest.mark.parametrize(
    ("there", "other", "asked"),
    [
        ("vid1.avi", "video1.mp4", "vid1"),
        ("7.webm", "video7.mp4", "7"),
        ("v_7.webm", "video7.mp4", "7"),
        ("video7.MKV", "vid7.mp4", "video7"),
    ],
)
def test_own_name_is_tried_before_alternatives(
    tmp_path: Path, there: str, other: str, asked: str
) -> None:
    touched(tmp_path / other)
    file = touched(tmp_path / there)
    assert find_video(tmp_path, asked) == file


@pytest.mark.parametrize("above", [False, True])
def test_numbers_are_looked_up_in_the_mappings_of_data_sets(tmp_path: Path, above: bool) -> None:
    videos = tmp_path / "videos"
    msvd, next_qa = touched(videos / "-4wsuPCjDBc_5_15.avi"), videos / "1164" / "2399296074.mp4"
    home = tmp_path if above else videos
    (home / "youtube_mapping.txt").write_text("\nother vid12\n-4wsuPCjDBc_5_15 vid1\nlast\n")
    (home / "map_vid_vidorID.json").write_text('{"23": 4, "2399296074": "1164/2399296074"}')
    touched(next_qa)
    assert find_video(videos, "video1") == find_video(videos, "1") == msvd
    assert find_video(videos, "2399296074") == next_qa
    for name in ("vid12", "23", "2"):
        with pytest.raises(ClipError, match="no file"):
            find_video(videos, name)
    (home / "youtube_mapping.txt").write_bytes(b"\xff")
    (home / "map_vid_vidorID.json").write_text("[]")
    for name in ("1", "2399296074"):
        with pytest.raises(ClipError, match="no file"):
            find_video(videos, name)


def test_host_of_an_address_is_case_insensitive(tmp_path: Path) -> None:
    file = touched(tmp_path / "a.mp4")
    assert find_video(Path("nowhere"), f"file://LOCALHOST{file}") == file


def test_absolute_name_needs_no_folder(tmp_path: Path) -> None:
    file = touched(tmp_path / "a.mp4")
    assert find_video(Path("nowhere"), str(file)) == file


def test_extensions_are_tried_in_order(tmp_path: Path) -> None:
    touched(tmp_path / "a.mkv")
    file = touched(tmp_path / "a.mp4")
    assert find_video(tmp_path, "a") == file


def test_folder_of_the_same_name_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    file = touched(tmp_path / "a.mp4")
    assert find_video(tmp_path, "a") == file


def test_other_extension_is_not_tried_if_one_is_given(tmp_path: Path) -> None:
    touched(tmp_path / "a.mkv")
    with pytest.raises(ClipError):
        find_video(tmp_path, "a.mp4")


@pytest.mark.parametrize("name", ["", ".", "/", "v_", "..", "a\0b", "x" * 5000, "\ud800", "a/b/c"])
def test_missing_file_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClipError, match="no file") as error:
        find_video(tmp_path, name)
    assert len(error.value.message) < 600


@pytest.mark.parametrize("name", ["https://a.b/c.mp4", "data:video/mp4;base64,AAAA", "S3://b/c"])
def test_remote_address_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClipError, match="not a file on this machine"):
        find_video(tmp_path, name)


def test_missing_file_is_looked_up_again(tmp_path: Path) -> None:
    with pytest.raises(ClipError):
        find_video(tmp_path, "a")
    file = touched(tmp_path / "a.mp4")
    assert find_video(tmp_path, "a") == file


def test_absolute_path_error_does_not_name_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"there is no file /nowhere/a\.mp4$") as error:
        find_video(tmp_path, "/nowhere/a.mp4")
    assert error.value.hint == "check the path"


def test_file_address_is_decoded(tmp_path: Path) -> None:
    file = touched(tmp_path / "a b.mp4")
    assert find_video(Path("nowhere"), f"file://{tmp_path}/a%20b.mp4") == file


@pytest.mark.parametrize(("there", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_found_in_either_form(tmp_path: Path, there: str, asked: str) -> None:
    folder, name = "Zoë", "été.mp4"
    file = touched(tmp_path / normalize(there, folder) / normalize(there, name))
    found = find_video(tmp_path, f"{normalize(asked, folder)}/{normalize(asked, name)}")
    assert found.samefile(file)
    assert find_video(file.parent, normalize(asked, "été")).samefile(file)
