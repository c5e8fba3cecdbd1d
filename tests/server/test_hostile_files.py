"""Hostile files cost their request only, however they are sent, and say nothing of the machine."""

import base64
import json
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pandacli import Panda
from pandacli.server.media import Limits
from tests.batch.crashing_decoder import CRASHING, ENDLESS
from tests.server.live import Live, chat_body, post
from tests.server.test_media import hostile_read
from tests.video.clips import cut_short, damage, write_clip, write_sound

LIMITS = Limits(pixels=1_000_000, frames=100, seconds=60, read_seconds=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A media folder."""
    return tmp_path_factory.mktemp("hostile media")


@pytest.fixture(scope="module")
def server(panda: Panda, folder: Path) -> Iterator[Live]:
    write_clip(folder / "good.mp4", 30)
    with Live(lambda: panda, folder, limits=LIMITS) as running:
        yield running


def png(width: int, height: int) -> bytes:
    """A small file of a picture of any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    rows = zlib.compress(bytes(min(width // 8 + 1, 10_000)) * min(height, 1000))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


HOSTILE: dict[str, Callable[[Path], object]] = {
    "text.mp4": written(b"hello, this is no video\n" * 50),
    "zeros.mp4": written(bytes(100_000)),
    "playlist.mp4": written(b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n"),
    "list.mp4": written(b"ffconcat version 1.0\nfile /etc/hostname\n"),
    "manifest.mp4": written(b'<?xml version="1.0"?><MPD><BaseURL>/etc/</BaseURL></MPD>'),
    "sdp.mp4": written(
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n"
    ),
    "subtitles.mp4": written(b"1\n00:00:01,000 --> 00:00:02,000\nhello\n"),
    "drawing.svg": written(b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "header.mp4": written(b"\0\0\0\x10ftypisom\0\0\2\0" + b"\0\1\0\0mdat" + bytes(3000)),
    "huge.png": written(png(60_000, 60_000)),
    "wide.png": written(png(2_000_000_000, 1)),
    "over.png": written(png(1001, 1000)),
    "sound.m4a": write_sound,
    "cut.mp4": lambda path: cut_short(write_clip(path.with_suffix(".mkv"), 50), path, 0.001),
    "frames.mp4": lambda path: write_clip(path, 101),
    "long.mp4": lambda path: write_clip(path, 3, ticks=(0, 1000, 61_000)),
    "large.mp4": lambda path: write_clip(path, 2, size=(1280, 960)),
}


def sent(path: Path, way: str, server: Live) -> bytes:
    """The answer to a request about a file."""
    content = path.read_bytes()
    if way == "file":
        return server.raw(post(chat_body(path.name), connection="close"))
    if way == "data":
        address = "data:video/mp4;base64," + base64.b64encode(content).decode()
        return server.raw(post(chat_body(address), connection="close"))
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    headers = {"content_type": "multipart/form-data; boundary=x", "connection": "close"}
    upload = server.raw(post(form + content + b"\r\n--x--\r\n", "/v1/files", **headers))
    record = json.loads(upload.partition(b"\r\n\r\n")[2])
    part = {"type": "file", "file": {"file_id": record["id"]}}
    body: Any = json.loads(chat_body("x"))
    body["messages"][0]["content"][1] = part
    return server.raw(post(json.dumps(body).encode(), connection="close"))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("way", ["file", "data", "upload"])
def test_a_hostile_file_is_a_bad_request(server: Live, folder: Path, name: str, way: str) -> None:
    path = folder / name
    if not path.exists():
        HOSTILE[name](path)
    head, _, body = sent(path, way, server).partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert head.startswith(b"HTTP/1.1 400"), error
    assert error["type"] == "invalid_request_error"
    assert str(folder) not in error["message"]
    assert "panda-uploads" not in error["message"]
    assert "\n" not in error["message"]
    good = server.raw(post(chat_body("good.mp4", max_tokens=2), connection="close"))
    assert good.startswith(b"HTTP/1.1 200")


def test_a_damaged_file_is_answered_or_refused(server: Live, folder: Path) -> None:
    for number in range(3):
        path = damage(write_clip(folder / f"damaged{number}.mp4", 30 + number))
        answer = server.raw(post(chat_body(path.name), connection="close"))
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400"))
    assert server.requests == 0


@pytest.mark.slow
def test_while_decoders_hang_and_crash_others_are_answered(
    panda: Panda, clip: Path, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pandacli.server.media.read_limited", hostile_read)
    for name in (CRASHING, ENDLESS):
        (tmp_path / name).write_bytes(clip.read_bytes())
    found: dict[str, tuple[bytes, float]] = {}

    def ask(name: str) -> None:
        answer = server.raw(post(chat_body(name), connection="close"))
        found[name] = answer, time.monotonic()

    with Live(lambda: panda, tmp_path, clip.parent, limits=Limits(read_seconds=3)) as server:
        ask(clip.name)
        hanging = threading.Thread(target=ask, args=(ENDLESS,))
        hanging.start()
        while not server.requests:
            time.sleep(0.01)
        for name in (CRASHING, clips[0].name, clips[1].name):
            ask(name)
        hanging.join()
    assert b"does not finish" in found[ENDLESS][0]
    assert b"crashed" in found[CRASHING][0]
    for path in clips[:2]:
        assert found[path.name][0].startswith(b"HTTP/1.1 200")
        assert found[path.name][1] < found[ENDLESS][1], "not after the one that hangs"
    assert str(tmp_path).encode() not in found[ENDLESS][0] + found[CRASHING][0]
