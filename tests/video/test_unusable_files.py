"""Unusable files are refused in one clear line before anything is decoded."""

import os
from pathlib import Path
from types import SimpleNamespace

import av
import pytest

from pandacli.errors import ClipError
from pandacli.video import container as container_module
from pandacli.video.container import read_stream
from tests.video.clips import cut_short, numbered_picture, write_clip, write_sound


def refusal(path):
    with pytest.raises(ClipError) as caught:
        read_stream(path)
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 3
    return caught.value.message


def test_missing_file_is_named(tmp_path):
    assert refusal(tmp_path / "none.mp4") == f"there is no file {tmp_path / 'none.mp4'}"


def test_path_below_a_file_is_missing(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 2)
    assert "there is no file" in refusal(path / "inside.mp4")


def test_directory_is_refused(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path} is a directory"


def test_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty.mp4"
    path.touch()
    assert refusal(path) == f"{path} is empty"


@pytest.mark.parametrize(
    "content",
    [
        b"hello, this is no video\n" * 50,
        bytes(100_000),
        bytes(range(256)) * 50,
        b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        b"1\n00:00:01,000 --> 00:00:02,000\nhello\n",
    ],
    ids=["text", "zeros", "bytes", "playlist", "list of files", "subtitles"],
)
@pytest.mark.parametrize("name", ["file.mp4", "file.txt", "file"])
def test_non_video_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert refusal(path).startswith(str(path))


def test_audio_only_is_refused(tmp_path):
    path = write_sound(tmp_path / "sound.m4a")
    assert refusal(path) == f"{path} has sound but no picture"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_refused(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 2)
    path.chmod(0)
    assert "may not be read" in refusal(path)


def test_os_error_on_open_is_reported(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.mp4", 2)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert refusal(path) == f"{path} may not be read"


def test_pipe_is_refused_without_blocking(tmp_path):
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)
    assert refusal(path) == f"{path} is not a regular file"


def test_device_is_refused():
    assert refusal("/dev/zero") == "/dev/zero is not a regular file"


@pytest.mark.parametrize("name", ["a\0b.mp4", "x" * 5000])
def test_invalid_name_is_refused(name):
    assert "cannot be opened" in refusal(name)


def test_cover_picture_is_no_video(tmp_path):
    sound = write_sound(tmp_path / "sound.m4a")
    path = tmp_path / "song.mp4"
    with av.open(str(sound)) as heard, av.open(str(path), "w") as song:
        audio = song.add_stream_from_template(heard.streams.audio[0])
        cover = song.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(numbered_picture(1, 64, 48), format="rgb24")
        song.mux(cover.encode(picture))
        for packet in heard.demux():
            if packet.size:
                packet.stream = audio
                song.mux(packet)
    assert refusal(path) == f"{path} has sound but no picture"


def test_unknown_codec_is_refused(tmp_path):
    path = tmp_path / "drawing.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    assert refusal(path) == f"no decoder here knows the kind of video in {path}"


def test_tiled_heic_is_refused(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 2)
    with av.open(str(path)) as container:
        tile = SimpleNamespace(
            codec_context=container.streams.video[0].codec_context,
            disposition=av.stream.Disposition.dependent,
        )
        with pytest.raises(ClipError, match="picture in tiles"):
            container_module._describe(path, container, tile)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov"])
def test_missing_moov_is_reported_as_incomplete(tmp_path, name):
    whole = write_clip(tmp_path / f"whole{name}", 50)
    path = cut_short(whole, tmp_path / name, 0.5)
    assert refusal(path) == f"{path} looks incomplete: it has no index (moov)"


def test_mp4_header_alone_is_incomplete_and_text_is_no_video(tmp_path):
    begun, text = tmp_path / "begun.mp4", tmp_path / "text.mp4"
    begun.write_bytes(b"\0\0\0\x10ftypisom\0\0\2\0" + b"\0\1\0\0mdat" + bytes(3000))
    text.write_bytes(b"\0\0\0\x10moovfree" * 10)
    assert "looks incomplete" in refusal(begun)
    assert "looks incomplete" not in refusal(text)
