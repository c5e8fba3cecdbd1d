"""Which engine is faster on this CPU: measured once, on a layer of the model's size, and kept.

What a CPU is good at does not follow from its name: 4 and 8 bits are quick where the right
instructions are, and the libraries change. So each engine multiplies the largest matrix of a layer
with one token and with many, which takes some seconds, and the times are kept in `PANDA_HOME`.
"""

from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pandacli.engine.machine import cpu_model
from pandacli.engine.quiet import quiet_libraries
from pandacli.store.memory import recall, remember

if TYPE_CHECKING:
    from pandacli.model.config import VideoPandaConfig

_MEMORY = "speed"

_PREFILL_TOKENS = 128
_ANSWER_TOKENS = 64
_PREFIX_TOKENS = 1232
"""What a clip of common shape and its answer take."""


def seconds_a_layer(config: "VideoPandaConfig", engine: str, quant: str) -> float:
    """Seconds that the matrix takes for a whole clip and an answer; measured, or remembered.

    Args:
        config: Of the model; the matrix is `intermediate_size` by `hidden_size`.
        engine: "torch" or "bitsandbytes".
        quant: "8bit" or "4bit".
    """
    key = _key(config, engine, quant)
    known = recall(_MEMORY).get(key)
    if isinstance(known, float):
        return known
    seconds = _measure(config, engine, quant)
    remember(_MEMORY, key, seconds)
    return seconds


def _key(config: "VideoPandaConfig", engine: str, quant: str) -> str:
    import bitsandbytes

    size = f"{config.hidden_size}x{config.intermediate_size}"
    versions = f"torch {torch.__version__}, bitsandbytes {bitsandbytes.__version__}"
    return f"{cpu_model()}, {torch.get_num_threads()} threads, {versions}: {engine} {quant} {size}"


@torch.inference_mode()
def _measure(config: "VideoPandaConfig", engine: str, quant: str) -> float:
    torch.manual_seed(0)
    weight = torch.randn(config.intermediate_size, config.hidden_size)
    with quiet_libraries():
        layer = _layer(weight, engine, quant)
        one, many = (
            torch.randn(1, config.hidden_size),
            torch.randn(_PREFILL_TOKENS, config.hidden_size),
        )
        decode, prefill = _seconds(layer, one, 5), _seconds(layer, many, 2)
    return prefill * _PREFIX_TOKENS / _PREFILL_TOKENS + decode * _ANSWER_TOKENS


def _layer(weight: Tensor, engine: str, quant: str) -> nn.Module:
    if engine == "torch":
        from pandacli.model.int8 import Int8Linear, quantize_rows

        return Int8Linear(*quantize_rows(weight))
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    rows, columns = weight.shape
    layer: nn.Module
    if quant == "4bit":
        layer = Linear4bit(columns, rows, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    else:
        layer = Linear8bitLt(columns, rows, bias=False, has_fp16_weights=False)
    layer.load_state_dict({"weight": weight})
    return layer.to("cpu").eval()


def _seconds(layer: nn.Module, inputs: Tensor, repeats: int) -> float:
    layer(inputs)
    times = []
    for _ in range(repeats):
        started = perf_counter()
        layer(inputs)
        times.append(perf_counter() - started)
    return median(times)
