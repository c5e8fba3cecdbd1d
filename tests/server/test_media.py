"""Files below the media folders and no others, and frames read within limits."""

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pandacli.errors import PandaError, UsageError
from pandacli.server.media import FrameReaders, Limits, MediaFolders
from pandacli.server.protocol import RequestError
from pandacli.video import Clip
from pandacli.video.prefetch import read_fitted
from tests.batch.crashing_decoder import CRASHING, ENDLESS
from tests.conftest import frame_readers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A media folder beside a secret."""
    media = tmp_path / "media"
    (media / "inside").mkdir(parents=True)
    for path in (media / "clip.mp4", media / "inside" / "other clip.mp4", tmp_path / "secret.mp4"):
        path.write_bytes(b"1")
    return media


def test_a_file_below_a_folder_is_found_by_each_of_its_names(folder: Path) -> None:
    folders = MediaFolders([folder])
    other = folder / "inside" / "other clip.mp4"
    for name in ("clip.mp4", "./inside/../clip.mp4", str(folder / "clip.mp4")):
        assert folders.find(name) == folder / "clip.mp4"
    for name in ("inside/other clip.mp4", other.as_uri(), f"file://localhost{other.as_uri()[7:]}"):
        assert folders.find(name) == other


def hostile_names(folder: Path) -> Iterator[str]:
    outside = folder.parent / "secret.mp4"
    yield from ("../secret.mp4", "inside/../../secret.mp4", str(outside), outside.as_uri())
    yield from (
        f"file:{outside}",
        f"file://{folder}/../secret.mp4",
        f"file://{folder}/%2e%2e/secret.mp4",
    )
    yield from (f"{folder}/../media/../secret.mp4", f"{folder}x/secret.mp4", "/etc/passwd")
    yield from ("", ".", "..", "/", "inside", str(folder), "none.mp4", "~/clip.mp4", "link.mp4")
    yield from (
        "a\0b.mp4",
        "file:///%00",
        "x" * 5000,
        "x/" * 3000,
        "\ud800.mp4",
        "loop",
        "linked/x",
    )
    yield from ("pipe.mp4", "/dev/zero", "/dev/stdin", "/proc/self/mem", "/proc/self/environ")
    yield from ("http://127.0.0.1:1/a.mp4", "ftp://a/b", "file://host/clip.mp4", "concat:clip.mp4")
    yield from ("\\..\\secret.mp4", "clip.mp4/", "clip.mp4/.", "clip.mp4/../../secret.mp4")


def test_nothing_else_is_found_and_nothing_is_said_about_it(folder: Path) -> None:
    (folder / "link.mp4").symlink_to(folder.parent / "secret.mp4")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "linked").symlink_to(folder.parent)
    os.mkfifo(folder / "pipe.mp4")
    folders = MediaFolders([folder])
    for name in hostile_names(folder):
        if name in ("clip.mp4/", "clip.mp4/."):
            continue  # a path of pathlib has no slash at its end
        with pytest.raises(RequestError) as caught:
            folders.find(name)
        assert caught.value.status in (400, 403), name
        assert len(caught.value.message) < 500
        caught.value.message.encode()
    absent, present = folder.parent / "none.mp4", folder.parent / "secret.mp4"
    told = []
    for path in (absent, present):
        with pytest.raises(RequestError) as caught:
            folders.find(str(path))
        told.append((caught.value.status, caught.value.message.replace(path.name, "")))
    assert told[0] == told[1], "whether it exists is not told"


def test_drawn_paths_never_leave_the_folder(folder: Path) -> None:
    draw = random.Random(9)
    parts = ["..", ".", "inside", "clip.mp4", "secret.mp4", "media", "%2e%2e", "", "//", "linked"]
    (folder / "linked").symlink_to(folder.parent)
    folders, found = MediaFolders([folder]), 0
    for _ in range(3000):
        start = draw.choice(["", "/", f"{folder}/", f"file://{folder}/", "file:", "file:///"])
        name = start + "/".join(draw.choices(parts, k=draw.randint(1, 6)))
        try:
            path = folders.find(name)
        except RequestError:
            continue
        assert path in (folder / "clip.mp4",), name
        found += 1
    assert found > 50


def test_without_folders_no_file_is_found() -> None:
    with pytest.raises(RequestError):
        MediaFolders([]).find(str(Path(__file__)))


def test_videos_below_the_folders_are_listed(folder: Path) -> None:
    (folder / "notes.txt").touch()
    names = [path.name for path in MediaFolders([folder]).list()]
    assert names == ["clip.mp4", "other clip.mp4"]


async def read(clip: Clip, limits: Limits = Limits(), number: int = 1) -> list[object]:  # noqa: B008
    with FrameReaders(112, limits, workers=2) as readers:
        reading = (readers.read(clip, 8) for _ in range(number))
        return [*await asyncio.gather(*reading, return_exceptions=True)]


def test_frames_are_those_of_the_command_line(clip: Path) -> None:
    (frames,) = asyncio.run(read(Clip(clip, 1, 5)))
    expected = read_fitted(Clip(clip, 1, 5), 8, 112)
    assert frames.pixels.tobytes() == expected.pixels.tobytes()  # type: ignore[attr-defined]
    assert frames.indices == expected.indices  # type: ignore[attr-defined]


def test_preloaded_readers_wait_with_their_decoders_for_the_first_request(clip: Path) -> None:
    async def run() -> None:
        with FrameReaders(112, Limits(), workers=2, preload=True) as readers:
            while len(waiting := frame_readers()) < 2:
                await asyncio.sleep(0.02)
            opened = " ".join(each.path for each in waiting[0].memory_maps())
            while "libavcodec" not in opened:
                await asyncio.sleep(0.02)
                opened = " ".join(each.path for each in waiting[0].memory_maps())
            assert len((await readers.read(Clip(clip), 8)).indices) == 8
            assert set(frame_readers()) == set(waiting)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_requests_for_the_same_frames_share_one_reading(clip: Path) -> None:
    found = asyncio.run(read(Clip(clip), number=5))
    assert len({id(frames) for frames in found}) == 1


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        (Limits(pixels=1000), "1,000 pixels"),
        (Limits(frames=20), "20 frames"),
        (Limits(seconds=5), "0:05 in length"),
    ],
)
def test_a_video_over_a_limit_is_refused(clip: Path, limits: Limits, what: str) -> None:
    (error,) = asyncio.run(read(Clip(clip), limits))
    assert isinstance(error, UsageError)
    assert what in error.message


@pytest.fixture
def hostile(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files that crash or hang their decoder, and a good one."""
    monkeypatch.setattr("pandacli.server.media.read_limited", hostile_read)
    for name in (CRASHING, ENDLESS, "good.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
    return tmp_path


def hostile_read(clip: Clip, num_frames: int, image_size: int, limits: Limits) -> object:  # noqa: ARG001
    """As `read_limited`, on the decoder of `crashing_decoder.py`."""
    from tests.batch import crashing_decoder

    return crashing_decoder.read_fitted(clip, num_frames, image_size)


@pytest.mark.slow
def test_a_crash_and_a_hang_cost_their_requests_while_others_are_read(hostile: Path) -> None:
    async def run() -> list[object]:
        with FrameReaders(112, Limits(), workers=2) as readers:
            reading = []
            for number, name in enumerate([ENDLESS, "good.mp4", CRASHING, "good.mp4", "good.mp4"]):
                readers._limits = Limits(read_seconds=1.5 if name == ENDLESS else 60)
                read = readers.read(Clip(hostile / name), 8, number)
                reading.append(asyncio.create_task(read))
                await asyncio.sleep(0)
            return [*await asyncio.gather(*reading, return_exceptions=True)]

    found = asyncio.run(run())
    assert [isinstance(each, PandaError) for each in found] == [True, False, True, False, False]
    assert "does not finish" in str(found[0])
    assert "crashed" in str(found[2])


def test_the_last_request_that_goes_ends_the_reading(hostile: Path) -> None:
    async def run() -> None:
        with FrameReaders(112, Limits(), workers=1) as readers:
            endless = [asyncio.create_task(readers.read(Clip(hostile / ENDLESS), 8)) for _ in "ab"]
            waiting = asyncio.create_task(readers.read(Clip(hostile / CRASHING), 8))
            while not (busy := frame_readers()):
                await asyncio.sleep(0.02)
            endless[0].cancel()
            waiting.cancel()
            await asyncio.sleep(0.1)
            assert busy[0].is_running(), "the other request still waits"
            endless[1].cancel()
            frames = await asyncio.wait_for(readers.read(Clip(hostile / "good.mp4"), 8), 20)
            assert len(frames.indices)
            assert not busy[0].is_running() or busy[0].status() == psutil.STATUS_ZOMBIE
            assert not readers._shared

    asyncio.run(run())


def test_readings_that_wait_at_the_end_are_ended(hostile: Path) -> None:
    async def run() -> list[object]:
        with FrameReaders(112, Limits(), workers=1) as readers:
            names = [ENDLESS, "good.mp4", "good.mp4"]
            reading = [readers.read(Clip(hostile / n), 8, i) for i, n in enumerate(names)]
            tasks = [asyncio.create_task(each) for each in reading]
            while not frame_readers():
                await asyncio.sleep(0.02)
        return [*await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)]

    found = asyncio.run(run())
    assert all(isinstance(each, PandaError) for each in found), found
