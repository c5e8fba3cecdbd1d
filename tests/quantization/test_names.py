"""Names of quantisations, and unsupported widths."""

import pytest

from pandacli.errors import UsageError
from pandacli.modeling.configuration_videopanda import VideoPandaConfig
from pandacli.quantization import check_quant, check_widths, in_bits


@pytest.mark.parametrize("name", ["auto", "none", "8bit", "4bit"])
def test_known_quantisations_are_accepted(name: str) -> None:
    check_quant(name)


def test_unknown_quantisation_is_usage_error() -> None:
    with pytest.raises(UsageError, match="no quantisation is called '5bit'"):
        check_quant("5bit")


def test_quantisation_reads_as_words() -> None:
    assert (in_bits("none"), in_bits("8bit")) == ("full precision", "8 bits")


def test_unsupported_widths_are_usage_error() -> None:
    odd = VideoPandaConfig(hidden_size=64, intermediate_size=160, num_attention_heads=4)
    with pytest.raises(UsageError, match="64 and 160, are not multiples of 64"):
        check_widths(odd)
