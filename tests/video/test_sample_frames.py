from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from pandacli.errors import UsageError
from pandacli.video import Clip, decoder, sample_frames, sample_indices, sampling
from pandacli.video.decoder import Decoded
from tests.video.clips import cut_short, damage, numbered_picture, numbers_in, write_clip


@pytest.fixture(scope="module")
def four_seconds(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return write_clip(path, 100, options={"bf": "2", "g": "25"})


def test_sampled_frames_follow_sample_indices(four_seconds):
    frames = sample_frames(Clip(four_seconds))
    assert list(frames.indices) == sample_indices(25.0, 100)
    assert numbers_in(frames.pixels) == list(frames.indices)
    assert frames.times == tuple(index / 25 for index in frames.indices)
    assert frames.notices == ()


def test_range_is_sampled_like_whole_video(four_seconds):
    frames = sample_frames(Clip(four_seconds, start=1.0, end=3.0))
    assert list(frames.indices) == [25 + index for index in sample_indices(25.0, 50)]
    assert numbers_in(frames.pixels) == list(frames.indices)


def test_open_range_ends_at_last_frame(four_seconds):
    assert sample_frames(Clip(four_seconds, start=3.8)).indices == (95, 96, 97, 98, 99)


def test_range_of_one_frame_gives_one_frame(four_seconds):
    frames = sample_frames(Clip(four_seconds, start=2.0, end=2.04))
    assert frames.indices == (50,)


def test_range_past_end_error_names_duration(four_seconds):
    with pytest.raises(UsageError, match=r"starts at 1:00, past the end \(the clip is 0:04 long"):
        sample_frames(Clip(four_seconds, start=60.0))


def test_num_frames_can_exceed_8(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 60, rate=2, options={"g": "10"})
    frames = sample_frames(Clip(path), 16)
    assert list(frames.indices) == sample_indices(2.0, 60, 16)
    assert numbers_in(frames.pixels) == list(frames.indices)


def test_range_uses_stream_timestamps(tmp_path):
    ticks = [number * 20 if number < 50 else 5000 + number * 20 for number in range(60)]
    path = write_clip(tmp_path / "clip.mp4", 60, ticks=ticks, options={"bf": "2"})
    assert set(sample_frames(Clip(path, start=3.0)).indices) <= set(range(49, 60))


WITH_A_GAP = [0, 1000, 2000, 33_000, 34_000, 35_000]


@pytest.mark.parametrize(
    ("start", "end", "shown"),
    [
        (10, 20, (2,)),
        (2.5, 33.5, (2, 3)),
        (1.9995, 2.5, (2,)),
        (1.99, 2.5, (1, 2)),
        (35.5, None, (5,)),
        (None, 0.5, (0,)),
    ],
)
def test_range_includes_frame_shown_at_start(tmp_path, start, end, shown):
    path = write_clip(tmp_path / "clip.mp4", 6, rate=1, ticks=WITH_A_GAP, options={"bf": "2"})
    assert sample_frames(Clip(path, start, end)).indices == shown


def test_times_give_the_frames_shown_then(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 6, rate=1, ticks=WITH_A_GAP, options={"bf": "2"})
    frames = sample_frames(Clip(path, at=(34.9996, 10.0, 0.0, 20.0, 32.99)))
    assert frames.indices == (0, 2, 5)
    assert numbers_in(frames.pixels) == [0, 2, 5]


def test_time_past_end_error_names_duration(four_seconds):
    with pytest.raises(UsageError, match=r"time 0:04 is past the end \(the clip is 0:04 long"):
        sample_frames(Clip(four_seconds, at=(1.0, 4.0)))


def test_more_times_than_frames_are_refused(four_seconds):
    assert len(sample_frames(Clip(four_seconds, at=(0, 1, 2)), 3).indices) == 3
    with pytest.raises(UsageError, match="2 frames, and 3 times"):
        sample_frames(Clip(four_seconds, at=(0, 1, 2)), 2)


def test_range_before_first_frame_error_names_its_time(tmp_path):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=48000)
        film = container.add_stream("libx264", rate=25)
        film.width, film.height, film.pix_fmt = 96, 72, "yuv420p"
        film.codec_context.time_base = Fraction(1, 1000)
        heard = av.AudioFrame.from_ndarray(np.zeros((2, 4800), np.float32), "fltp", "stereo")
        heard.sample_rate = 48000
        container.mux(sound.encode(heard))
        container.mux(sound.encode(None))
        for tick in range(5000, 6000, 40):
            picture = av.VideoFrame.from_ndarray(numbered_picture(1), format="rgb24")
            picture.pts, picture.time_base = tick, Fraction(1, 1000)
            container.mux(film.encode(picture))
        container.mux(film.encode(None))
    with pytest.raises(UsageError, match=r"begins at 0:0[45]"):
        sample_frames(Clip(path, 1, 2))


def test_range_within_long_frame_gives_that_frame(tmp_path):
    pictures = [Image.fromarray(numbered_picture(number)) for number in (1, 2, 3)]
    more = {"save_all": True, "append_images": pictures[1:], "duration": [5000, 100, 20_000]}
    pictures[0].save(tmp_path / "slides.gif", **more)
    assert sample_frames(Clip(tmp_path / "slides.gif", 10, 12)).indices == (2,)


@pytest.mark.parametrize("name", ["clip.ts", "clip.mkv"])
def test_damage_gives_notice(tmp_path, name):
    path = damage(write_clip(tmp_path / name, 60, options={"bf": "2", "g": "12"}, noise=True))
    assert sample_frames(Clip(path)).notices


def test_second_fields_are_not_counted_as_lost(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.ts", 20, interlaced=True, options={"x264-params": "tff=1"})
    stream = sampling.read_stream(path)
    fields = sorted({*stream.ticks, *(tick + 1800 for tick in stream.ticks)})
    paired = replace(stream, packet_count=40, ticks=tuple(fields), whole=False)
    monkeypatch.setattr(sampling, "read_stream", lambda _: paired)
    frames = sample_frames(Clip(path))
    assert frames.info.frame_count == 20
    assert frames.notices == ()


def test_lost_interlaced_frames_are_counted(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.ts", 20, interlaced=True, options={"x264-params": "tff=1"})

    def decode(stream, wanted, **_):
        ticks = stream.ticks[:10] + stream.ticks[16:]
        shown = {n: np.zeros((8, 8, 3), np.uint8) for n in wanted if n < len(ticks)}
        return Decoded(ticks, shown, matches_index=False, interlaced=True)

    monkeypatch.setattr(sampling, "decode", decode)
    assert "only 14 of 20 frames" in sample_frames(Clip(path)).notices[0]


def test_index_is_not_trusted_after_mismatch(four_seconds, monkeypatch):
    tried = []

    def decode(stream, wanted, *, trust_index=True, **_):
        tried.append(trust_index)
        ticks = stream.ticks[:50] + stream.ticks[60:]  # ten frames are lost
        shown = {n: np.full((8, 8, 3), n, np.uint8) for n in sorted(wanted) if n < len(ticks)}
        return Decoded(ticks, shown, matches_index=False)

    monkeypatch.setattr(sampling, "decode", decode)
    sampled = sample_frames(Clip(four_seconds))
    assert tried == [True, False]
    assert list(sampled.indices) == sample_indices(25.0, 90)
    assert sampled.pixels[:, 0, 0, 0].tolist() == list(sampled.indices)


def test_inconvertible_frame_ends_video(four_seconds, monkeypatch):
    last = sample_indices(25.0, 100)[-1]
    earlier = sample_indices(25.0, last)[4]  # wanted only after the last one is known to be bad

    def decode(stream, wanted, **_):
        end = min({last, earlier} & set(wanted), default=100)
        shown = {n: np.full((8, 8, 3), n, np.uint8) for n in wanted if n < end}
        return Decoded(stream.ticks[:end], shown, matches_index=False)

    monkeypatch.setattr(sampling, "decode", decode)
    assert list(sample_frames(Clip(four_seconds)).indices) == sample_indices(25.0, earlier)


def test_truncated_file_is_sampled_up_to_cut(tmp_path):
    options = {"g": "12", "bf": "0", "qp": "1"}
    whole = write_clip(
        tmp_path / "whole.mp4", 200, options=options, muxer={"movflags": "faststart"}
    )
    frames = sample_frames(Clip(cut_short(whole, tmp_path / "part.mp4", 0.5)))
    assert numbers_in(frames.pixels) == list(frames.indices)
    assert list(frames.indices) == sample_indices(25.0, frames.info.frame_count)
    assert f"only {frames.info.frame_count} of 200 frames" in frames.notices[0]


@pytest.mark.parametrize("share", [1.0, 0.8], ids=["whole", "broken off"])
def test_long_clip_is_sampled_by_seeking(tmp_path, monkeypatch, share):
    options = {"g": "12", "bf": "0", "preset": "ultrafast"}
    muxer = {"movflags": "faststart"}
    whole = write_clip(tmp_path / "whole.mp4", 1500, size=(48, 36), options=options, muxer=muxer)
    path = cut_short(whole, tmp_path / "clip.mp4", share)
    monkeypatch.setattr(decoder, "seek_frames", lambda *_, **__: None)
    sequential = sample_frames(Clip(path))
    monkeypatch.setattr(decoder, "_SEQUENTIAL_PIXELS", 0)
    monkeypatch.setattr(decoder, "_decode_all", None)  # seeking must suffice
    frames = sample_frames(Clip(path))
    assert numbers_in(frames.pixels) == list(frames.indices)
    assert frames.indices == sequential.indices
    assert frames.info == sequential.info


def test_single_frame_video_is_sampled(tmp_path):
    frames = sample_frames(Clip(write_clip(tmp_path / "one.mp4", 1)))
    assert frames.indices == (0,)
    assert len(frames.pixels) == 1
