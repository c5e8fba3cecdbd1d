"""Fewer bits: what they are called, and when they are refused."""

import pytest

from pandacli.errors import UsageError
from pandacli.modeling.configuration_videopanda import VideoPandaConfig
from pandacli.quantization import check_quant, check_widths, in_bits


@pytest.mark.parametrize("name", ["auto", "none", "8bit", "4bit"])
def test_the_names_of_quantisations_are_accepted(name: str) -> None:
    check_quant(name)


def test_a_name_of_no_quantisation_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no quantisation is called '5bit'"):
        check_quant("5bit")


def test_bits_are_said_in_words() -> None:
    assert (in_bits("none"), in_bits("8bit")) == ("full precision", "8 bits")


def test_widths_that_bitsandbytes_cannot_pack_are_refused() -> None:
    odd = VideoPandaConfig(hidden_size=64, intermediate_size=160, num_attention_heads=4)
    with pytest.raises(UsageError, match="64 and 160, are not multiples of 64"):
        check_widths(odd)
