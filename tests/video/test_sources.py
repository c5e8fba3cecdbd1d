import cv2
import numpy as np
import pytest

from pandacli.video.sources import (
    DoubtfulPictureError,
    OpenCVSource,
    PyAVSource,
    sources_for,
)
from pandacli.video.stream import read_stream
from tests.video.clips import numbered_picture, write_clip


def usual_source(path):
    return type(sources_for(read_stream(path))[0])


def test_opencv_reads_an_ordinary_clip(tmp_path):
    assert usual_source(write_clip(tmp_path / "clip.mp4", 3)) is OpenCVSource


def test_pyav_reads_what_opencv_does_not_decode(tmp_path):
    options = {"preset": "11", "svtav1-params": "lp=1"}
    path = write_clip(tmp_path / "clip.mp4", 3, codec="libsvtav1", options=options)
    assert usual_source(path) is PyAVSource


def test_pyav_reads_what_opencv_leaves_black(tmp_path):
    options = {"x264-params": "tff=1"}
    path = write_clip(tmp_path / "clip.mp4", 3, options=options, interlaced=True)
    assert usual_source(path) is PyAVSource


def test_a_first_picture_that_differs_from_pyavs_rules_opencv_out(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.mp4", 3)
    black = np.zeros_like(numbered_picture(0))
    monkeypatch.setattr(OpenCVSource, "picture", lambda _: black)
    assert usual_source(path) is PyAVSource


def test_a_buffer_that_opencv_left_as_it_was_is_not_believed(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "clip.mp4", 5, codec="ffv1")
    source = OpenCVSource(read_stream(path))
    stale = numbered_picture(0)
    walk = source.walk()
    monkeypatch.setattr(source, "_convert", lambda: stale)
    next(walk)
    assert source.picture().shape == stale.shape
    next(walk)
    with pytest.raises(DoubtfulPictureError):
        source.picture()


def test_opencv_and_pyav_agree_on_the_picture(tmp_path):
    stream = read_stream(write_clip(tmp_path / "clip.mp4", 5, options={"bf": "2"}))
    pictures = []
    for source in (OpenCVSource(stream), PyAVSource(stream)):
        for _ in source.walk():
            pass
        walk = source.walk()
        assert [next(walk) for _ in range(3)] == list(stream.ticks[:3])
        pictures.append(source.picture().astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_decoders_keep_quiet_about_damage(tmp_path, capfd):
    path = write_clip(tmp_path / "clip.ts", 30, options={"bf": "0", "qp": "1"})
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = bytes(3000)
    path.write_bytes(content)
    capfd.readouterr()
    stream = read_stream(path)
    for source in (OpenCVSource(stream), PyAVSource(stream)):
        for _ in source.walk():
            source.picture()
    assert capfd.readouterr().err == ""
    assert cv2.__version__
