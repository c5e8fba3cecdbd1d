"""From files to a model that is ready to compute, without a word on stderr.

From a model's name to weights in memory: the stored form that is wanted, made where it lacks.
"""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pandacli import checkpoints
from pandacli.checkpoint_files import weight_files
from pandacli.checkpoints.artifacts import (
    GGUF_FILE,
    QUANTS,
    Artifact,
    artifacts_of,
    find_artifact,
    remove_outdated,
)
from pandacli.errors import ModelError
from pandacli.inference.backends import Backend
from pandacli.inference.backends.torch.model import TorchBackend
from pandacli.inference.planning.devices import memory_errors, pick_devices
from pandacli.inference.planning.memory import Placement
from pandacli.inference.planning.planner import Plan, pick_plan
from pandacli.inference.planning.quiet import accept_half_precision_inputs, quiet_libraries
from pandacli.modeling.checkpoint import (
    check_model_values,
    read_config,
    read_generation_config,
    read_quantised,
    read_tensors,
)
from pandacli.modeling.modeling_videopanda import VideoPandaForConditionalGeneration
from pandacli.quantization.conversion import Report, convert, describe_source
from pandacli.quantization.int8 import Int8Linear, quantize_rows

if TYPE_CHECKING:
    from pandacli.checkpoints.artifacts import Form
    from pandacli.modeling.modeling_videopanda import VideoPandaForConditionalGeneration

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
                    f"remove the folder {folder}, and panda will make it again",
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


def prepare(
    model: str,
    *,
    quant: str = "auto",
    engine: str = "auto",
    device: str = "auto",
    report: Report | None = None,
) -> Artifact | None:
    """Make the quantised copy that `Panda.load` would, with the same arguments.

    Copies of what a known model was before are deleted.

    Returns:
        The copy; None where the model would be loaded from its checkpoint as it is.

    Raises:
        PandaError: As `Panda.load`.
    """
    resolved = checkpoints.resolve(model)
    plan = plan_for(resolved, quant, engine, device)
    if plan.form is None:
        return None
    with memory_errors(plan.hint):
        copy = _copy(resolved, plan.form, report)
    return (
        copy
        if resolved.kind == "artifact"
        else remove_outdated(copy, describe_source(resolved).commit)
    )


def is_ready(
    model: str, *, quant: str = "auto", engine: str = "auto", device: str = "auto"
) -> bool:
    """Whether `Panda.load`, with the same arguments, finds all it takes on the disk.

    It does not where a race of engines that has not been run yet is to say what it takes.

    Raises:
        PandaError: As `Panda.load`.
    """
    resolved = checkpoints.resolve(model)
    plan = plan_for(resolved, quant, engine, device, measure=False)
    if plan.guessed:
        return False
    if plan.form is None or resolved.kind == "artifact":
        return True
    return find_artifact(describe_source(resolved).digest, plan.form) is not None


def plan_for(
    resolved: checkpoints.ResolvedModel,
    quant: str,
    engine: str,
    device: str,
    *,
    measure: bool = True,
) -> Plan:
    """How a model is to be run: as `pick_plan`, by what is left of it where that is only copies.

    Raises:
        PandaError: As `pick_devices` and `pick_plan`.
        ModelError: Only copies with other bits are left.
    """
    devices = pick_devices(device)
    config = read_config(resolved.folder)
    if resolved.kind != "artifact":
        return pick_plan(quant, engine, config, devices, measure=measure)
    copies = artifacts_of(resolved.name)
    if quant not in ("auto", *(copy.quant for copy in copies)):
        raise _dropped(resolved.name, quant)
    # bitsandbytes copies carry it, GGUF copies do not; the plan is for the unquantised sizes
    config.__dict__.pop("quantization_config", None)
    kept = frozenset(cast("Form", copy.form) for copy in copies)
    plan = pick_plan(quant, engine, config, devices, kept=kept, measure=measure)
    if plan.form not in kept:
        raise _dropped(resolved.name, plan.quant)
    return plan


def load_plan(
    resolved: checkpoints.ResolvedModel, plan: Plan, report: Report | None = None
) -> tuple["VideoPandaForConditionalGeneration", Backend]:
    """Load a model as a plan says, from a copy that is made if there is none yet.

    Returns:
        The model, and what computes its Llama. Where that is llama.cpp, the model has no layers.

    Raises:
        ModelError: The model is damaged, or its copy cannot be written.
        DeviceError: The device has too little memory.
    """
    if plan.form:
        with memory_errors(plan.hint):
            folder = _copy(resolved, plan.form, report).folder
    else:
        folder = resolved.folder
    if plan.engine == "llama":
        from pandacli.inference.backends.llama_cpp.model import LlamaCppBackend
        from pandacli.quantization.gguf import check_gguf

        model = load_copy(folder, plan.hint, layers=False)
        check_gguf(folder / GGUF_FILE, read_config(folder))
        context, threads = model.config.max_position_embeddings, torch.get_num_threads()
        return model, LlamaCppBackend(folder / GGUF_FILE, context=context, threads=threads)
    if plan.engine == "torch" and plan.form:
        model = load_copy(folder, plan.hint)
    else:
        model = load_model(folder, plan.placement, plan.dtype, plan.hint)
    # quantised layers are far coarser than half precision, and float32 would be twice the disk
    half_prefix = plan.quant != "none" and plan.dtype == torch.float32
    return model, TorchBackend(model, half_prefix=half_prefix)


def _copy(resolved: checkpoints.ResolvedModel, form: "Form", report: Report | None) -> Artifact:
    if resolved.kind == "artifact":
        for copy in artifacts_of(resolved.name):
            if copy.form == form:
                return copy
        raise _dropped(resolved.name, QUANTS[form])
    source = describe_source(resolved)
    if found := find_artifact(source.digest, form):
        return found
    with quiet_libraries():
        made = convert(source, form, report)
    return remove_outdated(made, source.commit)


def _dropped(name: str, quant: str) -> ModelError:
    return ModelError(
        f"of {name} other copies are here than this needs, and not the original",
        "get it with:",
        command=f"panda pull {name} --quant {quant}",
    )
