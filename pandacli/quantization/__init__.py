"""In how many bits the Llama's layers are kept: fewer only where that is asked for or needed.

STAB and the projector are a hundredth of the weights and make every token of the frames; the
embeddings and the head are kept for the same reason.
"""

from typing import TYPE_CHECKING, Literal, get_args

from pandacli.errors import UsageError

if TYPE_CHECKING:
    from pandacli.modeling.configuration_videopanda import VideoPandaConfig

Quant = Literal["none", "8bit", "4bit"]

_BLOCK = 64
"""Weights that share a scale in 4 bits; on the CPU a row is a whole number of blocks."""


def check_quant(wanted: str) -> None:
    """Refuse a name of no quantisation.

    Raises:
        UsageError: It is neither a `Quant` nor auto.
    """
    if wanted != "auto" and wanted not in get_args(Quant):
        raise UsageError(
            f"no quantisation is called '{wanted}'", "there are auto, 4bit, 8bit and none"
        )


def in_bits(quant: Quant) -> str:
    """A quantisation as it stands in a sentence: "8 bits", or "full precision"."""
    return "full precision" if quant == "none" else f"{quant.removesuffix('bit')} bits"


def check_widths(config: "VideoPandaConfig") -> None:
    """Refuse a model that bitsandbytes cannot put into 4 bits on a CPU.

    Raises:
        UsageError: A width of it is no whole number of blocks.
    """
    widths = (config.hidden_size, config.intermediate_size)
    if any(width % _BLOCK for width in widths):
        raise UsageError(
            f"this model cannot be put into 4 bits on a CPU: its widths, {widths[0]} and"
            f" {widths[1]}, are not multiples of {_BLOCK}",
            "use --quant 8bit or none",
        )
