"""`panda frames`: lines, JSON, pictures and contact sheets, without a model."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_terminal import Session


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """Eight seconds, 192x108, each second of its own shade of red."""
    import cv2

    path = tmp_path_factory.mktemp("wide") / "wide.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (192, 108))
    for number in range(80):
        writer.write(np.full((108, 192, 3), (40, 40, 60 + number * 2), np.uint8))
    writer.release()
    return path


LINES = [f"{10 * second}\t0:0{second}" for second in range(8)]


def test_piped_output_has_a_line_per_frame(panda, wide):
    done = panda("frames", str(wide), FORCE_COLOR="1", PANDA_GRAPHICS="kitty")
    assert done.stdout.decode().splitlines() == LINES
    assert done.stderr == b""
    assert done.returncode == 0


def test_range_and_number_of_frames_are_respected(panda, wide):
    done = panda("frames", str(wide), "--from", "2", "--to", "0:06", "--frames", "4")
    assert done.stdout.decode().splitlines() == ["20\t0:02", "30\t0:03", "40\t0:04", "50\t0:05"]


def test_frames_equal_those_of_ask(panda, wide):
    options = (str(wide), "--from", "1", "--frames", "4", "--json")
    shown = json.loads(panda("frames", *options).stdout)["frames"]
    asked = json.loads(panda("ask", options[0], "why?", *options[1:], "-m", "tiny").stdout)
    assert shown == asked["frames"]


def test_json_is_one_object(panda, wide):
    done = panda("frames", str(wide), "--json", "--to", "100")
    assert json.loads(done.stdout) == {
        "video": str(wide),
        "width": 192,
        "height": 108,
        "duration": 8.0,
        "fps": 10.0,
        "frame_count": 80,
        "codec": "mpeg4",
        "range": {"from": 0.0, "to": 8.0},
        "canvas": {"side": 448, "width": 448, "height": 252},
        "frames": [{"index": 10 * second, "time": float(second)} for second in range(8)],
    }
    assert done.stderr == b""


def test_torch_and_transformers_are_not_imported(environment, wide):
    script = (
        "import sys\n"
        "from pandacli.cli.entry import run\n"
        f"assert run(['frames', {str(wide)!r}, '--save', 'sheet.png', '--quiet']) == 0\n"
        "assert run(['frames', 'missing.mp4']) == 3\n"
        "heavy = {'torch', 'transformers', 'bitsandbytes'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    command = [sys.executable, "-c", script]
    subprocess.run(command, env=environment, cwd=environment["HOME"], check=True)


def test_nothing_heavy_is_imported_for_wrong_arguments(environment, wide):
    refused = (["--canvas", "100"], ["--save", "sheet.txt"], ["--graphics", "ReGIS"])
    script = (
        "import sys\n"
        "from pandacli.cli.entry import run\n"
        f"for options in {refused!r}:\n"
        f"    assert run(['frames', {str(wide)!r}, *options]) == 2\n"
        "heavy = {'torch', 'cv2', 'numpy', 'PIL', 'av', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


@pytest.mark.parametrize("name", ["sheet.png", "sheet.JPG", "sheet.jpeg", "sheet.webp"])
def test_sheet_has_the_frames_as_the_model_gets_them(panda, home, wide, name):
    done = panda("frames", str(wide), "--save", name, "--canvas", "168")
    assert done.returncode == 0
    assert done.stdout.decode().splitlines() == LINES
    assert done.stderr.decode() == f"panda: saved {name}: 8 pictures of 168x112 pixels\n"
    with Image.open(home / name) as sheet:
        sheet.load()
        assert sheet.format == {"p": "PNG", "j": "JPEG", "w": "WEBP"}[name[6].lower()]
    pixels = np.asarray(sheet).astype(int)
    reds = pixels[..., 0] - pixels[..., 2] > 15  # the pictures, and neither ground nor captions
    assert reds.sum() == pytest.approx(8 * 168 * 112, rel=0.02)
    first, fifth = pixels[16 + 20, 16 + 20], pixels[-16 - 2 * 15 - 20, 16 + 20]
    assert fifth[0] > first[0] + 40  # in order, four in a row
    assert [path.name for path in home.iterdir() if path.is_file()] == [name]


def test_sheet_has_captions(panda, home, clip):
    panda("frames", str(clip), "--frames", "1", "--save", "sheet.png")
    with Image.open(home / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape[:2] == (336 + 2 * 15 + 2 * 16, 448 + 2 * 16)
    under = pixels[16 + 336 + 2 : -16]
    written = (under > 150).all(axis=2)
    assert written.sum() > 50
    across = written.any(axis=0).nonzero()[0]
    assert (across.min() + across.max()) / 2 == pytest.approx(480 / 2, abs=3)


def test_saving_prints_a_notice_unless_quiet(panda, wide):
    done = panda("frames", str(wide), "--save", "sheet.png", "--json", "--quiet")
    assert json.loads(done.stdout)["frame_count"] == 80
    assert done.stderr == b""


def test_existing_file_is_not_replaced_without_confirmation(panda, home, wide):
    (home / "sheet.png").write_text("what was here before")
    (home / "link.png").symlink_to("elsewhere.png")
    for name in ("sheet.png", "link.png"):
        done = panda("frames", str(wide), "--save", name)
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.decode() == (
            f"panda: {name} exists\n       name another file, or remove it first\n"
        )
    assert (home / "sheet.png").read_text() == "what was here before"
    assert (home / "link.png").is_symlink()
    assert not (home / "elsewhere.png").exists()


def test_file_created_meanwhile_is_not_replaced(tmp_path):
    from pandacli.errors import UsageError
    from pandacli.terminal.contact_sheet import save_sheet

    (tmp_path / "sheet.png").write_bytes(b"before")
    with pytest.raises(UsageError, match="exists"):
        save_sheet(Image.new("RGB", (10, 10)), tmp_path / "sheet.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("sheet", "cannot tell from sheet what kind of picture to save"),
        ("sheet.bmp", "cannot tell from sheet.bmp"),
        ("-", "cannot tell from -"),
        ("folder.png", "cannot save folder.png: it is a folder"),
        ("nowhere/sheet.png", "cannot save nowhere/sheet.png: there is no folder nowhere"),
        ("pipe.png", "cannot save pipe.png: it is not a file"),
        ("clip.png", "cannot save clip.png: it is the video"),
    ],
)
def test_unwritable_sheet_is_a_usage_error(panda, home, name, complaint):
    (home / "folder.png").mkdir()
    os.mkfifo(home / "pipe.png")
    Image.new("RGB", (64, 64)).save(home / "clip.png")
    before = (home / "clip.png").read_bytes()
    done = panda("frames", "clip.png", "--save", name)
    assert done.returncode == 2
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith(f"panda: {complaint}")
    assert len(lines) <= 2
    assert (home / "clip.png").read_bytes() == before


def test_failed_save_leaves_no_partial_file(tmp_path):
    from pandacli.errors import UsageError
    from pandacli.terminal.contact_sheet import save_sheet

    (tmp_path / "sheet.webp").write_bytes(b"before")
    with pytest.raises(UsageError, match="20000x1 pixels are too many"):
        save_sheet(Image.new("RGB", (20000, 1)), tmp_path / "sheet.webp")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_sheet_is_written_through_a_symbolic_link(tmp_path):
    from pandacli.terminal.contact_sheet import save_sheet

    (tmp_path / "link.png").symlink_to("sheet.png")
    save_sheet(Image.new("RGB", (10, 10)), tmp_path / "link.png")
    assert (tmp_path / "link.png").readlink() == Path("sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (10, 10)


@pytest.mark.parametrize("name", ["missing.mp4", "empty.mp4", "folder.mp4", "text.mp4"])
def test_unusable_video_exits_with_3(panda, home, name):
    (home / "empty.mp4").touch()
    (home / "text.mp4").write_text("what happens?\n" * 50)
    (home / "folder.mp4").mkdir()
    done = panda("frames", name, "--save", "sheet.png", "--json")
    assert done.returncode == 3
    assert done.stdout == b""
    assert name in done.stderr.decode().splitlines()[0]
    assert not (home / "sheet.png").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--from", "9"],
        ["--from", "3", "--to", "2"],
        ["--frames", "0"],
        ["--frames", "9"],
        ["--canvas", "100"],
        ["--canvas", "0"],
        ["--canvas", "100000"],
        ["--graphics", "regis"],
        ["--nope"],
    ],
)
def test_invalid_options_exit_with_2(panda, wide, options):
    done = panda("frames", str(wide), *options)
    assert done.returncode == 2
    assert done.stdout == b""
    assert len(done.stderr.decode().splitlines()) <= 2


def test_invalid_canvas_names_the_nearest_sizes(panda, wide):
    done = panda("frames", str(wide), PANDA_CANVAS="450")
    assert b"PANDA_CANVAS: 450 is not a multiple of 28, like 448 or 476" in done.stderr


def test_control_characters_in_a_file_name_are_escaped(environment, wide):
    name = "\x1b[31m[red]\n.mp4"
    Path(environment["HOME"], name).symlink_to(wide)
    seen = in_terminal(environment, name, "--graphics", "blocks")
    assert b"\\x1b[31m[red]\\n.mp4: 0:08, 192x108, 10 fps, mpeg4\r\n" in seen
    assert b"\x1b[31m" not in seen


def in_terminal(environment, *arguments, **variables):
    """What `panda frames` writes to a terminal of 80 columns."""
    command = [sys.executable, "-m", "pandacli", "frames"]
    usual = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "80", "LINES": "24"}
    session = Session.__new__(Session)
    session.screen, terminal = pty.openpty()
    session.process = subprocess.Popen(
        [*command, *arguments],
        env=environment | usual | variables,
        cwd=environment["HOME"],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    session.seen = b""
    seen, code = session.finish()
    assert code == 0
    return seen


STARTS = {"kitty": b"\x1b_G", "iterm2": b"\x1b]1337;", "sixel": b"\x1bP"}


@pytest.mark.parametrize("chosen", [*STARTS, "blocks"])
def test_terminal_gets_the_requested_graphics(environment, wide, chosen):
    seen = in_terminal(environment, str(wide), PANDA_GRAPHICS=chosen)
    assert [name for name, start in STARTS.items() if start in seen] == [chosen] * (
        chosen in STARTS
    )
    assert ("▄".encode() in seen) is (chosen == "blocks")
    assert b"wide.mp4: 0:08, 192x108, 10 fps, mpeg4" in seen
    assert b"0:07" in seen


@pytest.mark.parametrize(
    "variables",
    [
        {"TERM": "dumb", "PANDA_GRAPHICS": "kitty"},
        {"NO_COLOR": "1", "KITTY_WINDOW_ID": "1"},
        {"PANDA_GRAPHICS": "none"},
    ],
)
def test_terminal_without_pictures_gets_lines(environment, wide, variables):
    seen = in_terminal(environment, str(wide), "--quiet", **variables)
    assert seen.decode().splitlines() == LINES


def test_json_on_a_terminal_draws_nothing(environment, wide):
    seen = in_terminal(environment, str(wide), "--json", "--quiet", KITTY_WINDOW_ID="1")
    assert json.loads(seen)["codec"] == "mpeg4"
