"""Sizes in the units that people read."""

import pytest

from pandacli.ui.report import size


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_500_000, "2 MB"), (16_340_000_000, "16.3 GB")],
)
def test_a_size_has_the_unit_that_fits(count, shown):
    assert size(count) == shown
