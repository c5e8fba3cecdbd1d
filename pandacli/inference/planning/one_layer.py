"""A Llama of one decoder layer, as wide as that of a model, in the form that an engine computes.

It is there to be timed: its numbers mean nothing, and are those that are made soonest.
"""

from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from pandacli.inference.backends import Backend
from pandacli.inference.backends.torch.model import TorchBackend
from pandacli.modeling.configuration_videopanda import VideoPandaConfig
from pandacli.modeling.modeling_videopanda import VideoPandaForConditionalGeneration
from pandacli.quantization import Quant

CONTEXT = 256
"""How many positions it can read."""

_ROWS = 64
"""So many rows of a matrix are random, and repeated: as good as all, to a clock."""


def one_layer(config: VideoPandaConfig, engine: str, quant: Quant) -> Backend:
    """One layer of the width of a model, on the CPU.

    Args:
        config: Of the model; what is not of the layer is taken far smaller.
        engine: "torch", "bitsandbytes" or "llama".
        quant: "8bit" or "4bit".

    Raises:
        PandaError: The engine cannot be used here.
    """
    small = VideoPandaConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        num_hidden_layers=1,
        vocab_size=64,
        max_position_embeddings=CONTEXT,
        image_size=28,
        video_hidden_size=8,
        video_num_heads=1,
    )
    with init_empty_weights(include_buffers=False):
        model = VideoPandaForConditionalGeneration(small)
    return _in_llama_cpp(model, quant) if engine == "llama" else _in_torch(model, engine, quant)


def _in_torch(model: VideoPandaForConditionalGeneration, engine: str, quant: Quant) -> TorchBackend:
    made: dict[torch.Size, nn.Module] = {}
    for name, module in list(model.model.layers.named_modules()):
        if isinstance(module, nn.Linear):
            shape = module.weight.shape
            if engine == "bitsandbytes" and shape in made:  # slow to make, quick to copy
                quantised = deepcopy(made[shape])
            else:
                quantised = made[shape] = _quantised(_random(module.weight), engine, quant)
            model.model.layers.set_submodule(name, quantised)
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            owner, _, leaf = name.rpartition(".")
            filled = nn.Parameter(_random(parameter), requires_grad=False)
            setattr(model.get_submodule(owner), leaf, filled)
    model.train(False)
    return TorchBackend(model)


def _random(wanted: Tensor) -> Tensor:
    """Small random numbers in the shape of a parameter."""
    rows = torch.randn(min(_ROWS, len(wanted)), *wanted.shape[1:]).mul_(0.02)
    times = -(-len(wanted) // len(rows))
    return rows.repeat(times, *[1] * (wanted.ndim - 1))[: len(wanted)]


def _quantised(weight: Tensor, engine: str, quant: Quant) -> nn.Module:
    """A linear layer with the weight (out, in)."""
    if engine == "torch":
        from pandacli.quantization.int8 import Int8Linear, quantize_rows

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


def _in_llama_cpp(model: VideoPandaForConditionalGeneration, quant: Quant) -> Backend:
    from pandacli.inference.backends.llama_cpp.model import LlamaCppBackend
    from pandacli.quantization.gguf import export_gguf

    # zeros: the search for the best scales of others takes longer than all the rest
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    zeros = {name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}
    with TemporaryDirectory(prefix="panda-") as name:
        folder, threads = Path(name), torch.get_num_threads()
        model.save_pretrained(folder, state_dict=zeros)
        gguf = folder / "model.gguf"
        export_gguf(folder, gguf, "q4_k_m" if quant == "4bit" else "q8_0", threads=threads)
        # the file is mapped, and so outlives its name
        return LlamaCppBackend(gguf, context=CONTEXT, threads=threads)
