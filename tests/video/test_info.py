from dataclasses import replace
from fractions import Fraction

import pytest
from PIL import Image

from pandacli.video import Clip, probe, sample_frames
from pandacli.video import sampling as frames
from pandacli.video.container import read_stream
from pandacli.video.decoder import decode
from pandacli.video.sampling import clock_jumps, timestamps, video_info
from tests.video.clips import HEIGHT, WIDTH, copy_from, needs_avif, numbered_picture, write_clip

UNEVEN = [number * 40 + number * number for number in range(30)]


def test_probe_of_plain_clip(tmp_path):
    info = probe(write_clip(tmp_path / "clip.mp4", 50, options={"bf": "3"}))
    assert (info.width, info.height) == (WIDTH, HEIGHT)
    assert info.fps == 25.0
    assert info.frame_count == 50
    assert info.duration == pytest.approx(2.0)
    assert info.codec == "h264"
    assert info.constant_rate


def test_fractional_rate_is_exact(tmp_path):
    info = probe(write_clip(tmp_path / "clip.mp4", 30, rate=Fraction(30000, 1001)))
    assert info.fps == 30000 / 1001
    assert info.constant_rate


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_variable_rate_timestamps_are_exact(tmp_path, name):
    info = probe(write_clip(tmp_path / name, 30, ticks=UNEVEN, options={"bf": "2"}))
    assert info.timestamps == pytest.approx([tick / 1000 for tick in UNEVEN], abs=0.001)
    assert not info.constant_rate


@pytest.mark.parametrize("name", ["clip.ts", "clip.mkv"])
def test_times_start_at_file_start(tmp_path, name):
    info = probe(write_clip(tmp_path / name, 25, ticks=range(5000, 6000, 40)))
    assert info.timestamps == pytest.approx([number / 25 for number in range(25)], abs=0.002)


def test_stream_without_times_uses_frame_rate(tmp_path):
    info = probe(write_clip(tmp_path / "clip.h264", 20, options={"bf": "2"}))
    assert info.timestamps == pytest.approx([number / 25 for number in range(20)])


def test_size_is_upright(tmp_path):
    info = probe(write_clip(tmp_path / "clip.mp4", 3, rotation=90))
    assert (info.width, info.height) == (HEIGHT, WIDTH)


def test_hidden_frames_are_not_counted(tmp_path):
    whole = write_clip(tmp_path / "whole.mp4", 60, options={"g": "12", "bf": "0"})
    assert probe(copy_from(whole, tmp_path / "cut.mp4", 24, before=5)).frame_count == 31


def test_live_recording_gets_duration(tmp_path):
    options = {"deadline": "realtime", "cpu-used": "8"}
    path = write_clip(
        tmp_path / "live.webm", 20, codec="libvpx-vp9", options=options, muxer={"live": "1"}
    )
    info = probe(path)
    assert info.frame_count == 20
    assert info.duration == pytest.approx(0.8, abs=0.01)


def test_still_picture_has_no_duration(tmp_path):
    Image.fromarray(numbered_picture(7)).save(tmp_path / "still.png")
    info = probe(tmp_path / "still.png")
    assert info.frame_count == 1
    assert info.timestamps == (0.0,)


def test_animated_webp_has_its_own_times(tmp_path):
    pictures = [Image.fromarray(numbered_picture(number)) for number in range(4)]
    path = tmp_path / "clip.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 50, 200, 50])
    assert probe(path).timestamps == pytest.approx((0.0, 0.1, 0.15, 0.35))


SLIDES = [5000, 100, 20_000]


@pytest.mark.parametrize(
    "name",
    ["slides.gif", "slides.webp", "slides.png", pytest.param("slides.avif", marks=needs_avif)],
)
def test_last_frame_of_image_has_stored_duration(tmp_path, name):
    pictures = [Image.fromarray(numbered_picture(number)) for number in range(1, 4)]
    more = {"save_all": True, "append_images": pictures[1:], "duration": SLIDES}
    pictures[0].save(tmp_path / name, **more)
    info = probe(tmp_path / name)
    assert info.timestamps == pytest.approx((0.0, 5.0, 5.1))
    assert info.duration == pytest.approx(25.1)


def test_last_frame_of_variable_rate_video_has_stored_duration(tmp_path):
    ticks = [0, 1000, 2000, 33_000, 34_000, 35_000]
    path = write_clip(tmp_path / "clip.mp4", 6, rate=1, ticks=ticks, options={"bf": "2"})
    assert probe(path).duration == pytest.approx(36.0, abs=0.1)


@pytest.mark.parametrize("name", ["clip.gif", "clip.webp", "clip.png"])
def test_animated_image_has_average_rate(tmp_path, name):
    pictures = [Image.fromarray(numbered_picture(number)) for number in range(1, 21)]
    more = {"save_all": True, "append_images": pictures[1:], "duration": 200}
    pictures[0].save(tmp_path / name, **more)
    assert probe(tmp_path / name).fps == pytest.approx(5.0)


def test_wrong_header_rate_is_measured(tmp_path):
    form = {"codec": "dvvideo", "pix_fmt": "yuv411p", "size": (720, 480)}
    path = write_clip(tmp_path / "clip.dv", 30, rate=Fraction(30000, 1001), **form)
    assert read_stream(path).fps > 1000
    assert probe(path).fps == pytest.approx(29.97, abs=0.01)


def test_nearly_right_header_rate_is_kept(tmp_path):
    stream = read_stream(write_clip(tmp_path / "clip.mp4", 50))
    info = video_info(replace(stream, fps=25.2), decode(stream, {0}, to_end=True))
    assert info.fps == 25.2


def recording(path, begin):
    options = {"bf": "2", "g": "10"}
    return write_clip(path, 20, ticks=range(begin, begin + 800, 40), options=options).read_bytes()


@pytest.mark.parametrize("begin", [200_000, 30_000], ids=["minutes", "seconds"])
def test_joined_recordings_have_continuous_times(tmp_path, begin):
    joined = tmp_path / "joined.ts"
    late, early = recording(tmp_path / "late.ts", begin), recording(tmp_path / "early.ts", 0)
    joined.write_bytes(late + early)
    info = probe(joined)
    assert info.frame_count == 40
    assert info.fps == 25.0
    assert info.timestamps == pytest.approx([number / 25 for number in range(40)])
    assert info.duration == pytest.approx(1.6)
    assert [notice for notice in sample_frames(Clip(joined)).notices if "clock" in notice]


def test_joined_single_frames_are_spaced_by_rate(tmp_path):
    late = write_clip(tmp_path / "late.ts", 1, ticks=[30_000]).read_bytes()
    early = write_clip(tmp_path / "early.ts", 1, ticks=[0]).read_bytes()
    (tmp_path / "joined.ts").write_bytes(late + early)
    info = probe(tmp_path / "joined.ts")
    assert info.frame_count == 2
    assert 0 < info.timestamps[1] - info.timestamps[0] <= 1


def ticks_of(seconds):
    return [round(90_000 * second) for second in seconds]


@pytest.mark.parametrize("wrong", [0.0, 90_000.0], ids=["early", "late"])
def test_stray_timestamp_is_no_joined_recording(tmp_path, wrong):
    recording(tmp_path / "clip.ts", 0)
    stream = read_stream(tmp_path / "clip.ts")
    seconds = [100 + number / 25 for number in range(20)]
    one_wrong = ticks_of([*seconds[:9], wrong, *seconds[10:]])
    assert not clock_jumps(stream, one_wrong)
    in_order = replace(stream, ticks=tuple(sorted(one_wrong)))
    assert timestamps(in_order, one_wrong)[-1] == pytest.approx(19 / 25)
    assert clock_jumps(stream, ticks_of([*seconds, *(second - 90 for second in seconds)]))
    far = [*seconds, *(second + 95_443 for second in seconds)]
    assert clock_jumps(stream, ticks_of(far))


def test_damage_in_joined_recordings_is_reported(tmp_path, monkeypatch):
    joined = tmp_path / "joined.ts"
    joined.write_bytes(recording(tmp_path / "a.ts", 30_000) + recording(tmp_path / "b.ts", 0))
    assert not [notice for notice in sample_frames(Clip(joined)).notices if "damaged" in notice]
    decoded = frames.decode
    monkeypatch.setattr(
        frames, "decode", lambda *given, **more: replace(decoded(*given, **more), damaged=True)
    )
    notices = sample_frames(Clip(joined)).notices
    assert [notice for notice in notices if "damaged" in notice]
    assert [notice for notice in notices if "clock" in notice]


def test_gap_in_recording_is_kept_without_notice(tmp_path):
    joined = tmp_path / "joined.ts"
    joined.write_bytes(recording(tmp_path / "a.ts", 0) + recording(tmp_path / "b.ts", 30_000))
    frames = sample_frames(Clip(joined))
    assert frames.info.duration == pytest.approx(30.8, abs=0.1)
    assert frames.notices == ()


def test_clock_wrap_is_no_jump(tmp_path):
    over = 2**33 // 90  # milliseconds
    path = write_clip(tmp_path / "clip.ts", 20, ticks=range(over - 400, over + 400, 40))
    assert probe(path).timestamps == pytest.approx([n / 25 for n in range(20)], abs=0.002)
    assert sample_frames(Clip(path)).notices == ()
