import av
import cv2
import numpy as np
import pytest
from av.codec.context import ThreadType
from PIL import Image

from pandacli.video.container import read_stream
from pandacli.video.decoder import PyAVSource, sources_for
from pandacli.video.images import PillowSource
from pandacli.video.seeking import DamagedError, stop_at_errors
from tests.video.clips import damage, numbered_picture, write_clip


def damaged(path):
    return read_stream(damage(write_clip(path, 60, options={"bf": "0"}, noise=True)))


def test_picture_equals_opencv(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 5, options={"bf": "2"})
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    stream = read_stream(path)
    for source in sources_for(stream):
        walk = source.ticks()
        assert [next(walk) for _ in range(5)] == list(stream.ticks)
    for _ in range(5):
        _, picture = capture.read()
    assert np.array_equal(source.picture(), picture[..., ::-1])


def test_threaded_source_stops_at_damage(tmp_path):
    source = PyAVSource(damaged(tmp_path / "clip.ts"))
    with pytest.raises(DamagedError):
        list(source.ticks())


def test_single_thread_continues_after_damage(tmp_path):
    stream = damaged(tmp_path / "clip.ts")
    source = PyAVSource(stream, threaded=False)
    assert list(source.ticks())[-1] == stream.ticks[-1]
    assert source.damaged


def test_pillow_source_reads_animated_webp(tmp_path):
    pictures = [Image.fromarray(numbered_picture(number)) for number in range(3)]
    path = tmp_path / "clip.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
    assert isinstance(sources_for(read_stream(path))[0], PillowSource)


def test_decoders_print_nothing_about_damage(tmp_path, capfd):
    stream = damaged(tmp_path / "clip.ts")
    capfd.readouterr()
    source = PyAVSource(stream, threaded=False)
    for _ in source.ticks():
        source.picture()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "codec", "by_frames"),
    [
        ("clip.mp4", "libx264", True),
        ("clip.mkv", "ffv1", False),
        ("clip.avi", "mpeg4", False),
        ("clip.webm", "libvpx", False),
    ],
)
def test_frame_threads_only_for_codecs_that_report_damage(tmp_path, name, codec, by_frames):
    # the others conceal damage with the unfinished frame of another thread
    with av.open(str(write_clip(tmp_path / name, 3, codec=codec))) as container:
        stream = container.streams.video[0]
        stop_at_errors(stream)
        assert bool(stream.codec_context.thread_type & ThreadType.FRAME) == by_frames
