"""Sizes as text, and back."""

import pytest

from pandacli.units import byte_count, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1550, "2 kB"),
        (320_000, "320 kB"),
        (999_950, "1 MB"),
        (9_980_000_000, "10.0 GB"),
        (10**18, "1,000,000,000.0 GB"),
    ],
)
def test_size_is_formatted_in_the_unit_that_fits(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("text", "count"), [("4GB", 4 * 10**9), ("1.5 GiB", 3 << 29), ("500m", 5 * 10**8), ("0", 0)]
)
def test_size_is_parsed_in_any_unit(text: str, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "GB", "4XB", "-1", "1 iB"])
def test_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        byte_count(text)
