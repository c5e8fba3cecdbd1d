"""How a model is to be run here: in how many bits, by which engine, from which stored form."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from pandacli.engine.engines import ENGINES
from pandacli.engine.quantize import Quant, check_widths, pick_quant
from pandacli.engine.speed import seconds_a_layer
from pandacli.errors import UsageError

if TYPE_CHECKING:
    from pandacli.model.config import VideoPandaConfig
    from pandacli.store.copies import Form

LLAMA_MODULE = "xllamacpp"

_MEASURED_WIDTH = 1024
"""Narrower layers are quick on any engine, and too quick to be measured."""

_MUCH_SLOWER = 3.0
"""bitsandbytes in 4 bits is taken on a CPU unless it needs so many times as long as int8."""


@dataclass(frozen=True)
class Plan:
    """How a model is run.

    Args:
        quant: "none", "8bit" or "4bit".
        engine: "torch", "bitsandbytes" or "llama".
        form: The stored form that it is loaded from; None for the checkpoint itself.
    """

    quant: Quant
    engine: str
    form: "Form | None"


def pick_plan(
    quant: str,
    engine: str,
    config: "VideoPandaConfig",
    device: torch.device,
    dtype: torch.dtype,
) -> Plan:
    """The plan for `--quant` and `--engine`, each of which may be "auto".

    Raises:
        UsageError: A name is not known, or the two do not go together on this device.
        DeviceError: auto, and not even 4 bits fit into the free memory.
    """
    if engine not in ENGINES:
        raise UsageError(f"no engine is called '{engine}'", f"the engines are {', '.join(ENGINES)}")
    if stored := _stored_quant(config):
        return _stored_plan(stored, quant, engine)
    bits = pick_quant(quant, config, device, dtype)
    if engine == "llama" and device.type == "cpu":
        return _llama_plan(bits)
    if bits == "none":
        if engine in ("bitsandbytes", "llama"):
            raise UsageError(f"--engine {engine} is for 4 and 8 bits", "add --quant 8bit or 4bit")
        return Plan("none", "torch", None)
    if device.type == "cuda":
        if engine in ("torch", "llama"):
            raise UsageError(
                f"--engine {engine} does not run {bits} on CUDA", "use --engine bitsandbytes"
            )
        return Plan(bits, "bitsandbytes", "int8" if bits == "8bit" else "nf4")
    if bits == "8bit":
        return Plan("8bit", engine if engine != "auto" else _faster(config), "int8")
    return _four_bits(engine, config)


def _llama_plan(bits: Quant) -> Plan:
    if find_spec(LLAMA_MODULE) is None:
        raise UsageError(
            "the llama engine is not installed", "install it with: pip install 'pandacli[llama]'"
        )
    if bits == "none":
        raise UsageError("--engine llama is for 4 and 8 bits", "add --quant 8bit or 4bit")
    return Plan(bits, "llama", "q4_k_m" if bits == "4bit" else "q8_0")


def _four_bits(engine: str, config: "VideoPandaConfig") -> Plan:
    """4 bits on a CPU."""
    if engine == "torch":  # widened to 8 bits when it is loaded
        return Plan("4bit", "torch", "nf4")
    if engine == "auto" and _wide(config) and find_spec(LLAMA_MODULE) is not None:
        return _llama_plan("4bit")
    if engine == "auto" and _too_slow(config):
        raise UsageError(
            "in 4 bits this CPU is quick only with llama.cpp, which is not installed",
            "install it with: pip install 'pandacli[llama]' - or use --quant 8bit, which is quick,"
            " or --engine bitsandbytes, which is slow",
        )
    check_widths(config)
    return Plan("4bit", "bitsandbytes", "nf4")


def _wide(config: "VideoPandaConfig") -> bool:
    return config.hidden_size >= _MEASURED_WIDTH


def _faster(config: "VideoPandaConfig") -> str:
    """Which engine is faster with 8 bits on this CPU."""
    if not _wide(config):
        return "torch"
    times = {name: seconds_a_layer(config, name, "8bit") for name in ("torch", "bitsandbytes")}
    return min(times, key=lambda name: times[name])


def _too_slow(config: "VideoPandaConfig") -> bool:
    if not _wide(config):
        return False
    bitsandbytes = seconds_a_layer(config, "bitsandbytes", "4bit")
    return bitsandbytes > _MUCH_SLOWER * seconds_a_layer(config, "torch", "8bit")


def _stored_quant(config: "VideoPandaConfig") -> Quant | None:
    """What a checkpoint that is stored quantised, as by `save_pretrained`, is in."""
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    fields = stored if isinstance(stored, dict) else stored.to_dict()
    return "4bit" if fields.get("load_in_4bit") else "8bit"


def _stored_plan(stored: Quant, quant: str, engine: str) -> Plan:
    if quant not in ("auto", stored) or engine not in ("auto", "bitsandbytes"):
        wanted = f"--quant {quant}" if quant not in ("auto", stored) else f"--engine {engine}"
        raise UsageError(
            f"the checkpoint is stored in {stored} by bitsandbytes: {wanted} cannot change that",
            "use the checkpoint that it was made from",
        )
    return Plan(stored, "bitsandbytes", None)
