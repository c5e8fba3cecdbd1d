"""What is said of a copy before there is one."""

from pandacli.engine.forecast import forecast


def test_a_copy_in_8_bits_of_a_published_model_takes_seven_gigabytes() -> None:
    coming = forecast("8bit", "torch", "cpu")
    assert coming is not None
    assert coming.form == "int8"
    assert 6.9e9 < coming.bytes < 7.5e9


def test_what_is_not_quantised_needs_no_copy() -> None:
    assert forecast("none", "auto", "cpu") is None
