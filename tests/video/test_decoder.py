"""Each frame shows its number, so that an error of one frame is noticed."""

from contextlib import suppress

import av
import numpy as np
import pytest
from PIL import Image

from pandacli.errors import ClipError
from pandacli.video import decoder, read_frames
from pandacli.video.decoder import PyAVSource
from tests.video.clips import (
    HEIGHT,
    WIDTH,
    copy_from,
    cut_short,
    damage,
    needs_avif,
    number_in,
    numbered_picture,
    numbers_in,
    write_clip,
)

B_FRAMES = {"g": "12", "bf": "3"}
OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0:scenecut=0"}
LIVE = {"deadline": "realtime", "cpu-used": "8"}
AV1 = {"preset": "11", "svtav1-params": "lp=1"}
UNEVEN = [number * 40 + number * number for number in range(30)]

FORMATS = {
    "h264.mp4": {"options": B_FRAMES},
    "h264.mkv": {"options": OPEN_GOP},
    "h264.ts": {"options": B_FRAMES},
    "h264.avi": {"options": B_FRAMES},
    "h264.h264": {"options": B_FRAMES},
    "fragments.mp4": {"options": B_FRAMES, "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "uneven.mp4": {"options": B_FRAMES, "ticks": UNEVEN},
    "uneven.mkv": {"options": B_FRAMES, "ticks": UNEVEN},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=12"}},
    "hevc10.mkv": {
        "codec": "libx265",
        "pix_fmt": "yuv420p10le",
        "options": {"x265-params": "log-level=none"},
    },
    "vp9.webm": {"codec": "libvpx-vp9", "options": LIVE},
    "vp8.webm": {"codec": "libvpx", "options": LIVE},
    "live.webm": {"codec": "libvpx-vp9", "options": LIVE, "muxer": {"live": "1"}},
    "av1.mp4": {"codec": "libsvtav1", "options": AV1},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2", "q": "3"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "animated.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "animated.apng": {"codec": "apng", "pix_fmt": "rgb24"},
    "odd.mkv": {"codec": "ffv1", "size": (95, 71)},
    "gray.mkv": {"codec": "ffv1", "pix_fmt": "gray"},
    "alpha.mov": {"codec": "prores_ks", "pix_fmt": "yuva444p10le"},
    "interlaced.mp4": {"options": {"x264-params": "tff=1"}, "interlaced": True},
}


@pytest.mark.parametrize("name", FORMATS)
def test_read_frames_is_exact(tmp_path, name):
    path = write_clip(tmp_path / name, **FORMATS[name])
    indices = [29, 0, 17, 5, 28, 6, 17]
    assert numbers_in(read_frames(path, indices)) == indices


@pytest.fixture
def seeks(monkeypatch):
    """Treat every clip as long and without trustworthy index; record where decoders start."""
    starts = []

    def noting(walk):
        def noted(self, start=None):
            starts.append(start)
            return walk(self, start)

        return noted

    monkeypatch.setattr(decoder, "seek_frames", lambda *_, **__: None)
    monkeypatch.setattr(decoder, "_SEQUENTIAL_PIXELS", 0)
    monkeypatch.setattr(PyAVSource, "ticks", noting(PyAVSource.ticks))
    return starts


LONG = {
    "h264.mp4": {"options": B_FRAMES},
    "open_gop.mkv": {"options": OPEN_GOP},
    "h264.ts": {"options": B_FRAMES},
    "uneven.mp4": {"options": B_FRAMES, "ticks": [n * 40 + n * n // 4 for n in range(300)]},
    "av1.mp4": {"codec": "libsvtav1", "options": {**AV1, "g": "24"}},
}


@pytest.mark.parametrize("name", LONG)
def test_seeking_in_long_clip_is_exact(tmp_path, seeks, name):
    path = write_clip(tmp_path / name, 300, **LONG[name])
    indices = [270, 299]
    assert numbers_in(read_frames(path, indices)) == indices
    assert any(start is not None for start in seeks)


def test_long_clip_with_wrong_index_is_decoded_sequentially(tmp_path, seeks, monkeypatch):
    path = write_clip(tmp_path / "clip.mp4", 300, options=B_FRAMES)
    monkeypatch.setattr(decoder, "read_stream", with_a_frame_too_many(decoder.read_stream))
    assert numbers_in(read_frames(path, [250, 290])) == [250, 290]
    assert seeks[-1] is None


def with_a_frame_too_many(read_stream):
    def lying(path):
        stream = read_stream(path)
        ticks = (*stream.ticks[:10], stream.ticks[10] - 1, *stream.ticks[10:])
        return decoder.replace(stream, ticks=ticks, packet_count=len(ticks))

    return lying


def test_static_clip_is_read(tmp_path):
    path = write_clip(tmp_path / "still.mkv", 10, codec="ffv1", numbers=[7] * 10)
    assert numbers_in(read_frames(path, [0, 4, 9])) == [7, 7, 7]


def test_long_static_clip_is_read(tmp_path, seeks):
    path = write_clip(tmp_path / "still.mkv", 300, codec="ffv1", numbers=[7] * 300)
    assert numbers_in(read_frames(path, [250, 299])) == [7, 7]
    assert None not in seeks[-2:]


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
def test_rotated_clip_is_upright(tmp_path, codec, rotation):
    options = AV1 if codec == "libsvtav1" else None
    path = write_clip(tmp_path / "clip.mp4", 8, codec=codec, rotation=rotation, options=options)
    frames = read_frames(path, [3, 6])
    stored = [np.rot90(frame, -rotation // 90) for frame in frames]
    assert frames.shape[1:3] == ((HEIGHT, WIDTH) if rotation == 180 else (WIDTH, HEIGHT))
    assert numbers_in(stored) == [3, 6]


def test_channels_are_rgb(tmp_path):
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    pictures = [Image.new("RGB", (64, 48), colour) for colour in colours]
    path = tmp_path / "clip.apng"
    pictures[0].save(path, "PNG", save_all=True, append_images=pictures[1:], duration=40)
    assert [tuple(frame[24, 32]) for frame in read_frames(path, [0, 1, 2])] == colours


def test_hdr_is_not_tone_mapped(tmp_path):
    def tag(stream):
        stream.codec_context.color_primaries = 9
        stream.codec_context.color_trc = 16
        stream.codec_context.colorspace = 9

    options = {"x265-params": "log-level=none"}
    form = {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": options}
    plain = write_clip(tmp_path / "plain.mp4", 4, **form)
    wide = write_clip(tmp_path / "wide.mp4", 4, **form, prepare=tag)
    difference = read_frames(plain, [3]).astype(int) - read_frames(wide, [3])
    assert np.abs(difference).max() <= 3


def test_animated_webp_is_read(tmp_path):
    pictures = [Image.fromarray(numbered_picture(number)) for number in range(12)]
    path = tmp_path / "clip.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40, quality=95)
    assert numbers_in(read_frames(path, [11, 0, 7])) == [11, 0, 7]


@pytest.mark.parametrize("name", ["still.png", "still.jpg", "still.webp", "still.bmp"])
def test_still_picture_has_one_frame(tmp_path, name):
    Image.fromarray(numbered_picture(1234)).save(tmp_path / name)
    assert numbers_in(read_frames(tmp_path / name, [0])) == [1234]


def test_edit_list_frames_are_not_numbered(tmp_path):
    whole = write_clip(tmp_path / "whole.mp4", 60, options={"g": "12", "bf": "0"})
    cut = copy_from(whole, tmp_path / "cut.mp4", 24, before=5)
    assert numbers_in(read_frames(cut, [0, 1, 30])) == [29, 30, 59]


def test_cut_open_gop_starts_at_first_complete_frame(tmp_path):
    whole = write_clip(tmp_path / "whole.ts", 60, options=OPEN_GOP)
    cut = copy_from(whole, tmp_path / "cut.ts", 30)
    first = number_in(read_frames(cut, [0])[0])
    assert numbers_in(read_frames(cut, [0, 1, 2, 9])) == [first, first + 1, first + 2, first + 9]


def test_last_frames_of_truncated_file_are_read(tmp_path):
    # several threads lose the two frames before the damage; the header promises 200
    options = {"g": "12", "bf": "0", "qp": "1"}
    whole = write_clip(
        tmp_path / "whole.mp4", 200, options=options, muxer={"movflags": "faststart"}
    )
    part = cut_short(whole, tmp_path / "part.mp4", 0.6)
    count = len(decoder.decode(decoder.read_stream(part), {0}, to_end=True).ticks)
    assert 50 < count < 199
    assert numbers_in(read_frames(part, [count - 2])) == [count - 2]


def test_index_past_end_gives_last_frame_and_warning(tmp_path, caplog):
    path = write_clip(tmp_path / "clip.mp4", 10)
    frames = read_frames(path, [2, 10, 400])
    assert numbers_in(frames) == [2, 9, 9]
    assert "has no frame 10, 400: frame 9 stands in" in caplog.text


def test_changing_frame_size_is_resized_to_first(tmp_path):
    small = write_clip(tmp_path / "small.h264", 5, options={"bf": "0"})
    large = write_clip(tmp_path / "large.h264", 5, size=(192, 144), options={"bf": "0"})
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    frames = read_frames(both, [4, 9])
    assert frames.shape == (2, HEIGHT, WIDTH, 3)
    assert numbers_in(frames) == [4, 4]


@pytest.mark.parametrize(
    "name", ["a b.mp4", "50%03d.mp4", "c:d.mp4", "-e.mp4", "\udcff.mp4", "日.mp4"]
)
def test_special_characters_in_name_are_literal(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "plain.mp4", 5).rename(tmp_path / name)
    assert numbers_in(read_frames(name, [4])) == [4]


def test_numbered_picture_is_no_sequence(tmp_path):
    for number in range(4):
        Image.fromarray(numbered_picture(number)).save(tmp_path / f"img{number:03}.png")
    assert (
        len(decoder.decode(decoder.read_stream(tmp_path / "img001.png"), {0}, to_end=True).ticks)
        == 1
    )


def test_one_of_several_streams_is_read(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream, size in zip(streams, [(48, 36), (192, 144)], strict=True):
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
        for number in [*range(12), None]:
            for stream in streams:
                picture = numbered_picture(number or 0, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(frame if number is not None else None))
    assert numbers_in(read_frames(path, [0, 5, 11])) == [0, 5, 11]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_thumbnail_track_is_skipped(tmp_path, name):
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        thumbnail = container.add_stream("mjpeg", rate=1)
        thumbnail.width, thumbnail.height, thumbnail.pix_fmt = 192, 144, "yuvj420p"
        film = container.add_stream("libx264", rate=25)
        film.width, film.height, film.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        picture = av.VideoFrame.from_ndarray(numbered_picture(99, 192, 144), format="rgb24")
        container.mux(thumbnail.encode(picture))
        container.mux(thumbnail.encode(None))
        for number in [*range(12), None]:
            picture = av.VideoFrame.from_ndarray(numbered_picture(number or 0), format="rgb24")
            container.mux(film.encode(picture if number is not None else None))
    assert numbers_in(read_frames(path, [0, 5, 11])) == [0, 5, 11]


@pytest.mark.parametrize("name", ["clip.ts", "clip.mkv"])
def test_damaged_frames_equal_single_thread_and_are_reported(tmp_path, name):
    stream = decoder.read_stream(
        damage(write_clip(tmp_path / name, 60, options=B_FRAMES, noise=True))
    )
    one_thread = PyAVSource(stream, threaded=False)
    expected = [one_thread.picture() for _ in one_thread.ticks()]
    decoded = decoder.decode(stream, range(len(expected)), to_end=True)
    assert decoded.damaged
    assert all(np.array_equal(decoded.pictures[n], expected[n]) for n in range(len(expected)))


def test_damage_in_long_clip_is_deterministic(tmp_path, monkeypatch):
    stream = decoder.read_stream(
        damage(write_clip(tmp_path / "clip.ts", 60, options=B_FRAMES, noise=True))
    )
    monkeypatch.setattr(decoder, "_SEQUENTIAL_PIXELS", 0)
    first = decoder.decode(stream, [0, 30, 40], to_end=False)
    again = decoder.decode(stream, [0, 30, 40], to_end=False)
    assert first.damaged
    assert all(np.array_equal(first.pictures[n], again.pictures[n]) for n in (0, 30, 40))


def test_damage_is_found_when_seeking(tmp_path, seeks):
    path = write_clip(tmp_path / "clip.ts", 300, options={"bf": "0", "g": "30"}, noise=True)
    whole = decoder.read_stream(path)
    assert not decoder.decode(whole, [150, 200], to_end=False).damaged
    assert any(start is not None for start in seeks)
    stream = decoder.read_stream(damage(path))
    _, final = decoder.sources_for(stream)
    for _ in zip(range(60), final.ticks(stream.ticks[140]), strict=False):
        pass
    assert final.damaged


def test_cut_off_last_frame_is_not_reported_as_damage(tmp_path):
    options = {"g": "12", "bf": "0", "qp": "10"}
    whole = write_clip(tmp_path / "whole.ts", 30, options=options, noise=True)
    part = cut_short(whole, tmp_path / "part.ts", 0.51)
    assert not decoder.decode(decoder.read_stream(part), [0], to_end=True).damaged


@pytest.mark.parametrize("indices", [[], [-1], [3, -2]])
def test_invalid_indices_are_refused(tmp_path, indices):
    with pytest.raises(ValueError, match="numbered from 0"):
        read_frames(write_clip(tmp_path / "clip.mp4", 3), indices)


def test_file_without_decodable_frame_is_refused(tmp_path):
    Image.fromarray(numbered_picture(0, 400, 300)).save(tmp_path / "whole.png")
    part = cut_short(tmp_path / "whole.png", tmp_path / "part.png", 0.2)
    with pytest.raises(ClipError, match="can be decoded"):
        read_frames(part, [0])


@pytest.mark.parametrize(
    "name", ["still.png", "clip.webp", "clip.gif", pytest.param("clip.avif", marks=needs_avif)]
)
def test_damaged_image_is_refused_or_partly_read(tmp_path, name):
    pictures = [Image.fromarray(numbered_picture(number)) for number in (1, 2, 3)]
    more = {"save_all": True, "append_images": pictures[1:]} if "clip" in name else {}
    pictures[0].save(tmp_path / name, **more)
    content = (tmp_path / name).read_bytes()
    for at in range(0, len(content), max(1, len(content) // 60)):
        changed = bytearray(content)
        changed[at] ^= 0xFF
        (tmp_path / name).write_bytes(changed)
        with suppress(ClipError):
            read_frames(tmp_path / name, [0])


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("clip.mkv", "ffv1", {}), ("clip.avi", "mpeg4", {"q": "3"}), ("clip.webm", "libvpx", LIVE)],
)
def test_unreported_damage_equals_single_thread(tmp_path, name, codec, options):
    path = damage(write_clip(tmp_path / name, 30, codec=codec, options=options, noise=True))
    stream = decoder.read_stream(path)
    one_thread = PyAVSource(stream, threaded=False)
    expected = [one_thread.picture() for _ in one_thread.ticks()]
    for _ in range(3):
        pictures = decoder.decode(stream, range(len(expected)), to_end=True).pictures
        assert all(np.array_equal(pictures[n], expected[n]) for n in range(len(expected)))
