from fractions import Fraction

import pytest
from PIL import Image

from pandacli.video import probe
from tests.video.clips import HEIGHT, WIDTH, copy_from, numbered_picture, write_clip

UNEVEN = [number * 40 + number * number for number in range(30)]


def test_the_facts_about_a_plain_clip(tmp_path):
    info = probe(write_clip(tmp_path / "clip.mp4", 50, options={"bf": "3"}))
    assert (info.width, info.height) == (WIDTH, HEIGHT)
    assert info.fps == 25.0
    assert info.frame_count == 50
    assert info.duration == pytest.approx(2.0)
    assert info.codec == "h264"
    assert info.constant_rate


def test_a_fractional_rate_is_exact(tmp_path):
    info = probe(write_clip(tmp_path / "clip.mp4", 30, rate=Fraction(30000, 1001)))
    assert info.fps == 30000 / 1001
    assert info.constant_rate


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_uneven_times_are_the_streams_own(tmp_path, name):
    info = probe(write_clip(tmp_path / name, 30, ticks=UNEVEN, options={"bf": "2"}))
    assert info.timestamps == pytest.approx([tick / 1000 for tick in UNEVEN], abs=0.001)
    assert not info.constant_rate


@pytest.mark.parametrize("name", ["clip.ts", "clip.mkv"])
def test_times_begin_where_the_file_does(tmp_path, name):
    info = probe(write_clip(tmp_path / name, 25, ticks=range(5000, 6000, 40)))
    assert info.timestamps == pytest.approx([number / 25 for number in range(25)], abs=0.002)


def test_a_stream_without_times_is_counted_out_at_its_rate(tmp_path):
    info = probe(write_clip(tmp_path / "clip.h264", 20, options={"bf": "2"}))
    assert info.timestamps == pytest.approx([number / 25 for number in range(20)])


def test_size_is_that_of_the_upright_picture(tmp_path):
    info = probe(write_clip(tmp_path / "clip.mp4", 3, rotation=90))
    assert (info.width, info.height) == (HEIGHT, WIDTH)


def test_hidden_frames_do_not_count(tmp_path):
    whole = write_clip(tmp_path / "whole.mp4", 60, options={"g": "12", "bf": "0"})
    assert probe(copy_from(whole, tmp_path / "cut.mp4", 24, before=5)).frame_count == 31


def test_a_live_recording_without_a_length_has_one(tmp_path):
    options = {"deadline": "realtime", "cpu-used": "8"}
    path = write_clip(
        tmp_path / "live.webm", 20, codec="libvpx-vp9", options=options, muxer={"live": "1"}
    )
    info = probe(path)
    assert info.frame_count == 20
    assert info.duration == pytest.approx(0.8, abs=0.01)


def test_a_still_picture_has_one_frame_and_no_time(tmp_path):
    Image.fromarray(numbered_picture(7)).save(tmp_path / "still.png")
    info = probe(tmp_path / "still.png")
    assert info.frame_count == 1
    assert info.timestamps == (0.0,)


def test_an_animated_webp_has_its_own_times(tmp_path):
    pictures = [Image.fromarray(numbered_picture(number)) for number in range(4)]
    path = tmp_path / "clip.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 50, 200, 50])
    assert probe(path).timestamps == pytest.approx((0.0, 0.1, 0.15, 0.35))
