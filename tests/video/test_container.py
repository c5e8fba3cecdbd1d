"""A clip is one file: playlists, and files that cannot be decoded, are refused at once."""

import struct
import time
import zlib

import pytest
from PIL import Image

from pandacli.errors import ClipError
from pandacli.video import container, probe, read_frames
from pandacli.video.container import MAX_PIXELS, read_stream
from tests.video.clips import numbered_picture, numbers_in, write_clip

PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{name}\n#EXT-X-ENDLIST\n",
    "hls, live": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{name}\n",
    "hls after a mark": "\ufeff#EXTM3U\n#EXTINF:2,\n{name}\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'profiles="urn:mpeg:dash:profile:isoff-main:2011"><Period><AdaptationSet><Representation>'
    "<BaseURL>{name}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "ffconcat": "ffconcat version 1.0\nfile {name}\n",
    "smil": "<smil><body><video src='{name}'/></body></smil>",
    "asx": "<ASX version='3.0'><Entry><Ref href='{name}'/></Entry></ASX>",
    "pls": "[playlist]\nFile1={name}\nNumberOfEntries=1\n",
    "xspf": "<?xml version='1.0'?><!-- mine --><playlist xmlns='http://xspf.org/ns/0/'>"
    "<trackList><track><location>{name}</location></track></trackList></playlist>",
    "smooth": "<SmoothStreamingMedia MajorVersion='2'></SmoothStreamingMedia>",
    "sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("suffix", [".m3u8", ".mp4", ".txt", ""])
def test_playlist_is_refused_with_any_suffix(tmp_path, kind, suffix):
    write_clip(tmp_path / "part.ts", 5)
    path = tmp_path / f"list{suffix}"
    path.write_text(PLAYLISTS[kind].format(name="part.ts"))
    with pytest.raises(ClipError) as refusal:
        read_stream(path)
    assert refusal.value.message.startswith(f"{path} is a playlist")
    assert refusal.value.exit_code == 3


@pytest.mark.parametrize("unit", [b"<??>", b"<!---->", b"<!-- -->\n", b"<!doctype>"])
def test_playlist_detection_takes_linear_time(tmp_path, unit):
    began = time.process_time()
    assert not container._names_other_files(tmp_path / "clip.mp4", unit * 1000)
    assert container._names_other_files(tmp_path / "clip.mp4", unit * 300 + b"<MPD >")
    assert time.process_time() - began < 0.5


def test_undetected_playlist_is_not_opened_by_ffmpeg(tmp_path, monkeypatch):
    write_clip(tmp_path / "part.ts", 5)
    path = tmp_path / "list.m3u8"
    path.write_text(PLAYLISTS["hls"].format(name="part.ts"))
    monkeypatch.setattr("pandacli.video.container._names_other_files", lambda *_: False)
    with pytest.raises(ClipError, match="not a video that can be read"):
        read_stream(path)


@pytest.mark.parametrize("name", ["list.m3u", "list.pls", "list.asx"])
def test_plain_playlist_is_recognised_by_suffix(tmp_path, name):
    write_clip(tmp_path / "part.ts", 5)
    (tmp_path / name).write_text("part.ts\n")
    with pytest.raises(ClipError, match="is a playlist"):
        read_stream(tmp_path / name)


def test_video_is_read_with_any_suffix(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 5).rename(tmp_path / "clip.m3u8")
    assert numbers_in(read_frames(path, [4])) == [4]


@pytest.mark.parametrize("name", ["img%03d.png", "img%*.png", "img*.png", "img%d.jpg"])
def test_pattern_in_file_name_is_literal(tmp_path, name):
    for number in range(4):
        Image.fromarray(numbered_picture(number)).save(tmp_path / f"img{number:03}.png")
        Image.fromarray(numbered_picture(number)).save(tmp_path / f"img{number}.jpg")
    Image.fromarray(numbered_picture(99)).save(tmp_path / name)
    assert probe(tmp_path / name).frame_count == 1
    assert numbers_in(read_frames(tmp_path / name, [0])) == [99]


def huge_png(path, side):
    """A PNG that is small on disk, as all pixels are black."""

    def chunk(kind, content):
        length, crc = len(content), zlib.crc32(kind + content)
        return struct.pack(">I", length) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side), 1)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows)
    path.write_bytes(content + chunk(b"IEND", b""))
    return path


def test_huge_picture_is_refused_undecoded(tmp_path):
    path = huge_png(tmp_path / "huge.png", 30_000)
    started = time.perf_counter()
    with pytest.raises(ClipError, match="is too large: 900 million pixels"):
        read_stream(path)
    assert time.perf_counter() - started < 1.0


def test_video_too_large_by_header_is_refused(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.mp4", 3)
    monkeypatch.setattr("pandacli.video.container.MAX_PIXELS", 1000)
    with pytest.raises(ClipError, match="is too large: 96 x 72 pixels a frame"):
        read_stream(path)


def test_max_pixels_allows_16k():
    assert max(15360 * 8640, 16320 * 12240) < MAX_PIXELS


def test_encrypted_video_is_reported(tmp_path):
    key = dict.fromkeys(("encryption_key", "encryption_kid"), "00112233445566778899aabbccddeeff")
    path = write_clip(tmp_path / "clip.mp4", 10, muxer={"encryption_scheme": "cenc-aes-ctr", **key})
    with pytest.raises(ClipError, match="is encrypted"):
        read_stream(path)


def test_scrambled_ts_is_reported_as_encrypted(tmp_path):
    content = bytearray(write_clip(tmp_path / "clip.ts", 20, noise=True).read_bytes())
    for at in range(0, len(content), 188):
        if content[at + 1] & 0x1F or content[at + 2] > 0x20:  # not a table
            content[at + 3] |= 0x80
            content[at + 12 : at + 188] = bytes(byte ^ 0x5A for byte in content[at + 12 : at + 188])
    path = tmp_path / "scrambled.ts"
    path.write_bytes(content)
    with pytest.raises(ClipError, match="is encrypted"):
        read_frames(path, [0])
