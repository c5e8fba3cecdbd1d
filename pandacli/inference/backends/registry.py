"""The ways to run a model: in how many bits, by which engine, from which stored form."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pandacli.errors import UsageError
from pandacli.inference.planning.quiet import quiet_libraries
from pandacli.inference.spec import ENGINES
from pandacli.quantization import Quant, check_quant

if TYPE_CHECKING:
    from pandacli.checkpoints.artifacts import Form


@dataclass(frozen=True)
class Way:
    """A way to run a model.

    Attributes:
        quant: "none", "8bit" or "4bit".
        engine: "torch", "bitsandbytes" or "llama".
        form: The stored form that it is loaded from; None for the checkpoint itself.
    """

    quant: Quant
    engine: str
    form: "Form | None"


_ON_CUDA = (
    Way("none", "torch", None),
    Way("8bit", "bitsandbytes", "int8"),
    Way("4bit", "bitsandbytes", "nf4"),
)
_WIDENED = Way("4bit", "torch", "nf4")  # to 8 bits, when it is loaded

_ON_CPU = (
    Way("none", "torch", None),
    Way("8bit", "torch", "int8"),
    Way("8bit", "bitsandbytes", "int8"),
    Way("8bit", "llama", "q8_0"),
    Way("4bit", "llama", "q4_k_m"),
    Way("4bit", "bitsandbytes", "nf4"),
    _WIDENED,
)
"""The most bits first, and of equal bits what is taken where nothing has been measured."""


def ways(
    device: str, quant: str, engine: str, *, wide: bool, kept: "frozenset[Form] | None" = None
) -> list[Way]:
    """The ways that `--quant` and `--engine` leave on a type of device, best first.

    Args:
        device: "cpu" or "cuda".
        quant: A `Quant`, or "auto".
        engine: One of `ENGINES`.
        wide: Whether the model is so wide that speed matters. On the CPU a wide one is quantised
            unless that is forbidden, because 8 bits are read twice as fast and lose little; a
            narrow one never goes to llama.cpp unless that is asked for.
        kept: The forms that are here, where the checkpoint is not and no other can be made.

    Raises:
        UsageError: A name is not known, or the engine is llama and is not installed.
    """
    if engine not in ENGINES:
        raise UsageError(f"no engine is called '{engine}'", f"the engines are {', '.join(ENGINES)}")
    check_quant(quant)
    if engine == "llama":
        require_llama()

    def wanted(way: Way) -> bool:
        by_itself = quant == "auto" and device == "cpu" and wide and way.quant == "none"
        return quant in ("auto", way.quant) and engine in ("auto", way.engine) and not by_itself

    found = [way for way in (_ON_CPU if device == "cpu" else _ON_CUDA) if wanted(way)]
    if kept is not None:
        return [way for way in found if way.form in kept]
    if engine == "auto":
        found = [way for way in found if way != _WIDENED and (wide or way.engine != "llama")]
    return found


def refusal(device: str, quant: str, engine: str) -> UsageError:
    """Why `ways` finds none."""
    if quant == "none":
        return UsageError(f"--engine {engine} is for 4 and 8 bits", "add --quant 8bit or 4bit")
    bits = "few bits" if quant == "auto" else quant
    return UsageError(
        f"--engine {engine} does not run {bits} on {'the CPU' if device == 'cpu' else 'CUDA'}",
        "use --engine bitsandbytes, or --device cpu",
    )


def require_llama() -> None:
    """Refuse to run llama.cpp where it cannot be.

    Raises:
        UsageError: It is not installed, or cannot be used on this machine.
    """
    from pandacli.quantization.llama_library import INSTALL, llama_library

    if find_spec("gguf") is None:
        raise UsageError("gguf, which llama.cpp's files are made with, is not installed", INSTALL)
    llama_library()


def is_usable(engine: str) -> bool:
    """Whether an engine can be used on this machine."""
    try:
        if engine == "llama":
            require_llama()
        elif engine == "bitsandbytes":
            with quiet_libraries():
                import bitsandbytes  # noqa: F401
    except Exception:  # whatever keeps a library from being imported
        return False
    return True
