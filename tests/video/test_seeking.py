"""Keyframe seeking gives exact frames, or None to fall back."""

from dataclasses import replace

import numpy as np
import pytest

from pandacli.video import decoder, seeking
from pandacli.video.container import read_stream
from pandacli.video.decoder import decode
from pandacli.video.seeking import DamagedError, seek_frames
from tests.video.clips import copy_from, cut_short, damage, numbers_in, write_clip

B_FRAMES = {"g": "30", "bf": "3"}
OPEN_GOP = {"x264-params": "open-gop=1:keyint=30:bframes=3:b-adapt=0:scenecut=0"}
X265 = {"x265-params": "log-level=none:keyint=30"}
LAYERS = {"x265-params": "log-level=none:keyint=30:bframes=3:temporal-layers=3"}
FORMS = {
    "h264.mp4": {"options": B_FRAMES},
    "h264.ts": {"options": B_FRAMES},
    "uneven.mp4": {"options": B_FRAMES, "ticks": [n * 40 + n * n // 4 for n in range(300)]},
    "hevc.mp4": {"codec": "libx265", "options": X265},
    "hevc10.mkv": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": X265},
    "layers.mp4": {"codec": "libx265", "options": LAYERS},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "g": "30"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"q": "3", "g": "30"}},
    "animated.gif": {"codec": "gif", "pix_fmt": "rgb8"},
}
WANTED = [0, 44, 75, 131, 240, 267, 299]


@pytest.mark.parametrize("name", FORMS)
def test_keyframe_seeking_is_exact(tmp_path, name):
    stream = read_stream(write_clip(tmp_path / name, 300, **FORMS[name]))
    pictures = seek_frames(stream, WANTED, to_end=True)
    assert pictures is not None
    assert sorted(pictures) == WANTED
    assert numbers_in(pictures[number] for number in WANTED) == WANTED


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4", "hevc10.mkv", "layers.mp4"])
def test_pictures_are_bit_equal_to_sequential_decoding(tmp_path, monkeypatch, name):
    stream = read_stream(write_clip(tmp_path / name, 300, **FORMS[name]))
    pictures = seek_frames(stream, WANTED, to_end=True)
    monkeypatch.setattr(decoder, "seek_frames", lambda *_, **__: None)
    sequential = decode(stream, WANTED, to_end=True).pictures
    assert all(np.array_equal(pictures[number], sequential[number]) for number in WANTED)


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4"])
def test_non_reference_frames_are_skipped(tmp_path, monkeypatch, name):
    stream = read_stream(write_clip(tmp_path / name, 300, **FORMS[name]))
    frames = seeking.KeyframeSeeker.frames

    def decoded(stream):
        count = 0

        def counting(self, key, numbers):
            nonlocal count
            for frame in frames(self, key, numbers):
                count += 1
                yield frame

        monkeypatch.setattr(seeking.KeyframeSeeker, "frames", counting)
        assert seek_frames(stream, WANTED, to_end=False) is not None
        return count

    assert decoded(stream) < decoded(replace(stream, marks_nonref=False))


@pytest.mark.parametrize(
    ("name", "marked"),
    [("h264.mp4", True), ("hevc.mp4", True), ("layers.mp4", False), ("vp9.webm", False)],
)
def test_non_reference_marks_are_used_only_if_reliable(tmp_path, name, marked):
    stream = read_stream(write_clip(tmp_path / name, 60, **FORMS[name]))
    assert stream.marks_nonref == marked


def test_skipped_open_gop_frames_fall_back(tmp_path):
    stream = read_stream(write_clip(tmp_path / "clip.mkv", 300, options=OPEN_GOP))
    assert seek_frames(stream, WANTED, to_end=True) is None
    pictures = decode(stream, WANTED, to_end=True).pictures
    assert numbers_in(pictures[number] for number in WANTED) == WANTED


def test_few_packets_are_decoded(tmp_path, monkeypatch):
    stream = read_stream(write_clip(tmp_path / "clip.mp4", 300, options=B_FRAMES))
    read = []
    packets_from = seeking.KeyframeSeeker._packets_from

    def noting(self, key):
        for packet in packets_from(self, key):
            read.append(packet)
            yield packet

    monkeypatch.setattr(seeking.KeyframeSeeker, "_packets_from", noting)
    assert seek_frames(stream, [0, 121, 242], to_end=False) is not None
    assert len(read) < 40


def test_missing_frame_falls_back(tmp_path):
    stream = read_stream(write_clip(tmp_path / "clip.mp4", 60, options=B_FRAMES))
    ticks = (*stream.ticks[:10], stream.ticks[10] - 1, *stream.ticks[10:])
    assert seek_frames(replace(stream, ticks=ticks), [0, 40], to_end=False) is None


def test_false_key_frame_falls_back(tmp_path):
    stream = read_stream(write_clip(tmp_path / "clip.mp4", 100, options={"g": "1000", "bf": "0"}))
    wrong = replace(stream, key_ticks=(stream.ticks[0], stream.ticks[60]))
    assert seek_frames(stream, [0, 70], to_end=False) is not None
    assert seek_frames(wrong, [0, 70], to_end=False) is None


def test_damage_raises_damaged_error(tmp_path):
    path = damage(write_clip(tmp_path / "clip.mp4", 100, options=B_FRAMES, noise=True))
    with pytest.raises(DamagedError):
        seek_frames(read_stream(path), [0, 50], to_end=False)


def test_error_caused_by_seeking_is_no_damage(tmp_path):
    options = {"x264-params": "intra-refresh=1:keyint=30:bframes=0:scenecut=0"}
    stream = read_stream(write_clip(tmp_path / "clip.mkv", 300, options=options))
    keys = stream.ticks[::60]  # marked as key frames, but decoding cannot start there
    assert seek_frames(replace(stream, key_ticks=keys), [0, 250], to_end=False) is None


def test_truncated_file_falls_back(tmp_path):
    muxer = {"movflags": "faststart"}
    whole = write_clip(tmp_path / "whole.mp4", 200, options=B_FRAMES, muxer=muxer)
    stream = read_stream(cut_short(whole, tmp_path / "part.mp4", 0.6))
    assert not stream.whole
    assert seek_frames(stream, [0, 20], to_end=False) is None


def test_hidden_frames_fall_back(tmp_path):
    whole = write_clip(tmp_path / "whole.mp4", 60, options={"g": "12", "bf": "0"})
    stream = read_stream(copy_from(whole, tmp_path / "cut.mp4", 24, before=5))
    assert seek_frames(stream, [0, 20], to_end=False) is None


def test_index_past_end_falls_back(tmp_path):
    stream = read_stream(write_clip(tmp_path / "clip.mp4", 30, options=B_FRAMES))
    assert seek_frames(stream, [0, 30], to_end=False) is None
