"""What is said of a copy before there is one."""

from pathlib import Path

from pandacli.checkpoints.artifacts import Artifact
from pandacli.inference.planning.planner import forecast


def test_a_copy_in_8_bits_of_a_published_model_takes_seven_gigabytes() -> None:
    coming = forecast("8bit", "torch", "cpu")
    assert coming is not None
    assert coming.form == "int8"
    assert 6.9e9 < coming.bytes < 7.5e9


def test_what_is_not_quantised_needs_no_copy() -> None:
    assert forecast("none", "auto", "cpu") is None


def test_the_copy_that_is_kept_is_taken_where_any_will_do() -> None:
    kept = Artifact("video-panda-7b", "q8_0", Path("/copies/q8_0"), None, "d" * 64, 7_000_000_000)
    coming = forecast("auto", "llama", "cpu", [kept])
    assert coming is not None
    assert coming.form == "q8_0"


def test_a_copy_of_other_bits_than_are_wanted_does_not_do() -> None:
    kept = Artifact("video-panda-7b", "nf4", Path("/copies/nf4"), None, "d" * 64, 4_000_000_000)
    coming = forecast("8bit", "torch", "cpu", [kept])
    assert coming is not None
    assert coming.form == "int8"
