"""From files to a model that is ready to compute, without a word on stderr."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pandacli.checkpoint_files import weight_files
from pandacli.engine.device import memory_errors
from pandacli.engine.placement import Placement
from pandacli.engine.quiet import accept_half_precision_inputs, quiet_libraries
from pandacli.errors import ModelError
from pandacli.model.checkpoint import (
    check_model_values,
    read_config,
    read_generation_config,
    read_quantised,
    read_tensors,
)
from pandacli.model.int8 import Int8Linear, quantize_rows
from pandacli.model.modeling import VideoPandaForConditionalGeneration

_QUANT_STATE = ".quant_state.bitsandbytes__nf4"


def load_model(
    folder: Path, placement: Placement, dtype: torch.dtype, hint: str
) -> VideoPandaForConditionalGeneration:
    """The model of a checkpoint or of a copy that bitsandbytes runs.

    Args:
        folder: The folder of it.
        placement: On which device, or which part of it on which card.
        dtype: What to compute in.
        hint: What to do where there is too little memory.

    Raises:
        ModelError: The weights are damaged or do not fit the configuration.
        DeviceError: There is too little memory.
    """
    with quiet_libraries(), memory_errors(hint):
        accept_half_precision_inputs()
        config = read_config(folder)
        if stored := getattr(config, "quantization_config", None):
            # not said, 4 bits are computed in single precision, whatever the rest is in
            stored["bnb_4bit_compute_dtype"] = str(dtype).removeprefix("torch.")
        model: VideoPandaForConditionalGeneration = (
            VideoPandaForConditionalGeneration.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                device_map=placement.device_map,
                local_files_only=True,
            )
        )
        # beside quantised layers, transformers keeps what is stored in another precision as it is
        model.model.video_tower.to(dtype)
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        if stored:
            check_model_values(folder, model)  # again: what was just converted may have overflowed
    return model  # transformers hands it over in evaluation mode


def load_copy(
    folder: Path, hint: str, *, layers: bool = True
) -> VideoPandaForConditionalGeneration:
    """The model of a quantised copy, on the CPU, its linear layers on torch's int8 kernels.

    Layers stored in 4 bits are widened. One file is mapped at a time, so that memory never holds
    much more than the model.

    Args:
        folder: The folder of the copy.
        hint: What to do where there is too little memory.
        layers: Whether the copy has the Llama's layers; without them the model only embeds.

    Raises:
        ModelError: The copy is damaged.
        DeviceError: Too little memory.
    """
    with quiet_libraries(), memory_errors(hint):
        config = read_config(folder)
        stored = config.__dict__.pop("quantization_config", None)
        if not layers:
            config.num_hidden_layers = 0
        with init_empty_weights(include_buffers=False):
            model = VideoPandaForConditionalGeneration(config)
        if not layers:
            model.model.norm = model.lm_head = nn.Identity()
        expected = model.state_dict()
        if stored:
            read_quantised(folder, expected, 8 if stored["load_in_8bit"] else 4)
        else:
            read_tensors(folder, expected)
        for path in weight_files(folder):
            try:
                _fill(model, path)
            except (OSError, RuntimeError, KeyError, AttributeError, SafetensorError) as error:
                raise ModelError(
                    f"the quantised copy in {folder} is damaged",
                    f"remove the folder {folder}, and panda makes it anew",
                ) from error
        model.generation_config = read_generation_config(folder, config) or model.generation_config
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise ModelError(f"the quantised copy in {folder} lacks {missing[0]}")
    check_model_values(folder, model)
    model.train(False)
    return model


def _fill(model: nn.Module, path: Path) -> None:
    """Put what a file of a copy holds into a model."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    # torch packs a layer on one core, however many there are
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for part in pool.map(partial(_part, tensors=tensors), tensors):
            if part is not None:
                _place(model, *part)
    _give_back()


def _part(name: str, tensors: dict[str, Tensor]) -> tuple[str, nn.Module | Tensor] | None:
    """What a tensor of a file stands for, and its place: a quantised layer, or itself in float32.

    None where it is a part of a layer that has another name.
    """
    tensor, layer = tensors[name], name.removesuffix(".weight")
    if f"{layer}.SCB" in tensors:
        return layer, Int8Linear(tensor, tensors[f"{layer}.SCB"] / 127)
    if name + _QUANT_STATE in tensors:
        return layer, Int8Linear(*quantize_rows(_widen(name, tensors)))
    if name.endswith((".SCB", ".weight_format")) or ".weight." in name:
        return None
    return name, tensor.float() if tensor.is_floating_point() else tensor


def _give_back() -> None:
    """Have glibc return what was freed; it keeps the copies of weights that packing takes."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _widen(name: str, tensors: dict[str, Tensor]) -> Tensor:
    """The weight (out, in) that 4 bits stand for."""
    from bitsandbytes.functional import QuantState, dequantize_4bit

    start = f"{name}."
    parts = {key[len(start) :]: part for key, part in tensors.items() if key.startswith(start)}
    state = QuantState.from_dict(parts, device=torch.device("cpu"))
    weight: Tensor = dequantize_4bit(tensors[name], state)
    return weight


def _place(model: nn.Module, name: str, value: nn.Module | Tensor) -> None:
    """Put a module, a parameter or a buffer in its place."""
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    if isinstance(value, nn.Module):
        if not isinstance(getattr(owner, leaf), nn.Linear):
            raise AttributeError(f"{name} is no linear layer")
        setattr(owner, leaf, value)
    elif leaf in owner._parameters:
        expected = owner.get_parameter(leaf).shape
        if value.shape != expected:
            raise RuntimeError(f"{name} has the shape {tuple(value.shape)}")
        setattr(owner, leaf, nn.Parameter(value, requires_grad=False))
    else:
        owner.get_buffer(leaf).copy_(value)
