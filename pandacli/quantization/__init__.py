"""Quantisation of the Llama's linear layers.

STAB and the projector, a hundredth of the weights, stay in half precision, as do the embeddings and
the head: every token depends on them.
"""

from typing import TYPE_CHECKING, Literal, get_args

from pandacli.errors import UsageError

if TYPE_CHECKING:
    from pandacli.modeling.configuration_videopanda import VideoPandaConfig

Quant = Literal["none", "8bit", "4bit"]

_BLOCK = 64
"""Weights per scale in 4 bits; on the CPU a row must be whole blocks."""


def check_quant(wanted: str) -> None:
    """Check the name of a quantisation.

    Raises:
        UsageError: It is neither a `Quant` nor auto.
    """
    if wanted != "auto" and wanted not in get_args(Quant):
        raise UsageError(
            f"no quantisation is called '{wanted}'", "there are auto, 4bit, 8bit and none"
        )


def in_bits(quant: Quant) -> str:
    """Name a quantisation in a sentence: "8 bits", or "full precision"."""
    return "full precision" if quant == "none" else f"{quant.removesuffix('bit')} bits"


def check_widths(config: "VideoPandaConfig") -> None:
    """Refuse a model that bitsandbytes cannot put into 4 bits on a CPU.

    Raises:
        UsageError: One of its widths is no multiple of the block size.
    """
    widths = (config.hidden_size, config.intermediate_size)
    if any(width % _BLOCK for width in widths):
        raise UsageError(
            f"this model cannot be put into 4 bits on a CPU: its widths, {widths[0]} and"
            f" {widths[1]}, are not multiples of {_BLOCK}",
            "use --quant 8bit or none",
        )
