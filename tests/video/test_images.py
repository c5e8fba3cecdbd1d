"""Frames as a player shows them: orientation, pixel aspect, transparency, colours."""

import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from pandacli.errors import ClipError
from pandacli.video import container, probe, read_frames
from pandacli.video.clip import Clip
from pandacli.video.container import read_stream
from pandacli.video.images import frame_to_rgb
from pandacli.video.sampling import sample_frames
from tests.video.clips import HEIGHT, WIDTH, needs_avif, number_in, numbered_picture, write_clip

NUMBER = 0b110_0100_0001  # distinct in all eight orientations
AVIF = pytest.param("clip.avif", marks=needs_avif)
STORED = numbered_picture(NUMBER)
TURNS = {
    1: lambda picture: picture,
    2: np.fliplr,
    3: lambda picture: np.rot90(picture, 2),
    4: np.flipud,
    5: lambda picture: picture.transpose(1, 0, 2),
    6: lambda picture: np.rot90(picture, -1),
    7: lambda picture: np.rot90(picture, 2).transpose(1, 0, 2),
    8: np.rot90,
}
"""The effect of each EXIF orientation on a stored picture."""
MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


def with_matrix(path, a, b, c, d):
    """A clip with this display matrix patched into its track header."""
    content = write_clip(path, 2, numbers=[NUMBER] * 2).read_bytes()
    at = content.index(b"tkhd") + 4 + 40
    entries = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30 if a or b else 0]
    matrix = b"".join(entry.to_bytes(4, "big", signed=True) for entry in entries)
    path.write_bytes(content[:at] + matrix + content[at + 36 :])
    return path


def alike(picture, expected):
    difference = picture.astype(int) - expected
    return picture.shape == expected.shape and np.abs(difference).mean() < 10


@pytest.mark.parametrize("orientation", TURNS)
def test_display_matrix_is_applied_with_mirroring(tmp_path, orientation):
    path = with_matrix(tmp_path / "clip.mp4", *MATRICES[orientation])
    assert alike(read_frames(path, [1])[0], TURNS[orientation](STORED))
    info = probe(path)
    assert (info.width, info.height) == ((WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH))


@pytest.mark.parametrize("matrix", [(0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 0, 0)])
def test_singular_display_matrix_is_ignored(tmp_path, matrix):
    assert alike(read_frames(with_matrix(tmp_path / "clip.mp4", *matrix), [1])[0], STORED)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("name", ["still.jpg", "still.png", "still.webp", AVIF])
def test_exif_orientation_is_applied(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(STORED).save(tmp_path / name, exif=exif, quality=95)
    assert alike(read_frames(tmp_path / name, [0])[0], TURNS[orientation](STORED))


@pytest.mark.parametrize("orientation", [2, 6])
def test_orientation_of_animated_image_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "clip.webp"
    pictures = [Image.fromarray(STORED), Image.fromarray(numbered_picture(0))]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], exif=exif, quality=95)
    assert alike(read_frames(path, [0])[0], TURNS[orientation](STORED))


@pytest.mark.parametrize("count", [1, 2], ids=["still", "moving"])
@pytest.mark.parametrize("name", ["clip.png", "clip.webp", "clip.gif", AVIF])
def test_transparency_is_white_in_every_format(tmp_path, name, count):
    pictures = []
    for number in range(count):
        pixels = np.full((48, 64, 4), (200, 0, 0, 0), np.uint8)  # red under full transparency
        pixels[:, 32:] = (0, 0, 200 - 150 * number, 255)
        pictures.append(Image.fromarray(pixels))
    more = {"save_all": True, "append_images": pictures[1:], "duration": 40} if count > 1 else {}
    if name.endswith((".webp", ".avif")):
        more["quality"] = 100
    pictures[0].save(tmp_path / name, **more)
    picture = read_frames(tmp_path / name, [0])[0].astype(int)
    assert np.abs(picture[24, 10] - (255, 255, 255)).max() < 8
    assert np.abs(picture[24, 50] - (0, 0, 200)).max() < 8


def test_partial_transparency_is_blended(tmp_path):
    Image.new("RGBA", (32, 32), (0, 0, 0, 128)).save(tmp_path / "still.png")
    assert read_frames(tmp_path / "still.png", [0])[0, 5, 5].tolist() == [127, 127, 127]


def shaped(aspect):
    def prepare(stream):
        stream.codec_context.sample_aspect_ratio = aspect

    return prepare


def test_anamorphic_frame_too_large_is_refused(tmp_path, monkeypatch):
    container._options()  # cached with the real limit
    monkeypatch.setattr(container, "MAX_PIXELS", 4 * WIDTH * HEIGHT)
    assert read_stream(write_clip(tmp_path / "square.mp4", 1)).frame_pixels == WIDTH * HEIGHT
    path = write_clip(tmp_path / "wide.mp4", 1, prepare=shaped(Fraction(16)))
    with pytest.raises(ClipError, match="too large: 1536 x 72 pixels"):
        read_stream(path)


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(32, 15), (205, 72)),
        (Fraction(8, 9), (96, 81)),
        (Fraction(1), (96, 72)),
        (Fraction(1279, 1280), (96, 72)),
        (Fraction(1000, 1), (96, 72)),
    ],
    ids=["wide", "narrow", "square", "nearly square", "absurd"],
)
def test_anamorphic_video_gets_square_pixels(tmp_path, aspect, size):
    path = write_clip(tmp_path / "clip.mp4", 3, numbers=[NUMBER] * 3, prepare=shaped(aspect))
    picture = read_frames(path, [2])[0]
    assert picture.shape == (size[1], size[0], 3)
    assert number_in(picture) == NUMBER


def test_print_resolution_is_no_pixel_aspect(tmp_path):
    Image.fromarray(STORED).save(tmp_path / "still.jpg", dpi=(300, 100))
    assert read_frames(tmp_path / "still.jpg", [0]).shape == (1, HEIGHT, WIDTH, 3)


RARE = ("YCgCo", "bt2020c", "smpte2085", "chroma-derived-nc", "chroma-derived-c", "ICtCp")


@pytest.mark.parametrize("matrix", RARE)
def test_inconvertible_colours_are_approximated_with_notice(tmp_path, matrix):
    path = write_clip(tmp_path / "clip.mp4", 5, options={"x264-params": f"colormatrix={matrix}"})
    frames = sample_frames(Clip(path))
    assert [number_in(picture) for picture in frames.pixels] == [0, 1, 2, 3, 4]
    assert [notice for notice in frames.notices if "colours" in notice]


def test_colours_derived_from_primaries_are_exact(tmp_path):
    parameters = "colorprim=bt709:colormatrix="
    plain, derived = (
        write_clip(tmp_path / f"{matrix}.mp4", 5, options={"x264-params": parameters + matrix})
        for matrix in ("bt709", "chroma-derived-nc")
    )
    assert np.array_equal(read_frames(plain, [4]), read_frames(derived, [4]))
    assert sample_frames(Clip(derived)).notices == ()


def test_converted_frame_is_released(tmp_path):
    # a decoder conceals damage with the content of returned buffers
    path = write_clip(tmp_path / "clip.mp4", 2, rotation=90)
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            before = sys.getrefcount(frame)
            frame_to_rgb(frame, path, Fraction(1))
            assert sys.getrefcount(frame) == before
