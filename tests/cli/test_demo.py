"""`panda demo` without a terminal: plain text that says what it is."""

from pandacli.cli.frames import QUESTIONS


def test_demo_names_the_model_tiny(fake_engine):
    first = fake_engine("demo").stdout.decode().splitlines()[0]
    assert "tiny" in first
    assert "not Video-Panda-7B" in first


def test_piped_demo_is_plain_text_with_frame_times(fake_engine):
    done = fake_engine("demo", FORCE_COLOR="1")
    assert b"\x1b" not in done.stdout
    assert b"frames at 0:00, 0:01, 0:02, 0:03, 0:04, 0:05, 0:06, 0:07\n" in done.stdout
    assert done.stderr == b""


def test_demo_asks_three_questions(fake_engine):
    text = fake_engine("demo").stdout.decode()
    assert len(QUESTIONS) == 3
    for question in QUESTIONS:
        assert f"> {question}\nYou asked: {question}\n" in text
