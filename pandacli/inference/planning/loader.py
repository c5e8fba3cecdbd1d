"""Load a plan: convert the checkpoint if needed, read the weights, start the backend."""

import ctypes
import mmap
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pandacli.background import current_step
from pandacli.checkpoint_files import weight_files
from pandacli.checkpoints import artifacts
from pandacli.errors import ModelError
from pandacli.inference.backends import Backend, quiet_libraries
from pandacli.inference.backends.torch import TorchBackend
from pandacli.inference.durations import kind_of, timed
from pandacli.inference.planning.devices import Placement, is_out_of_memory, memory_errors
from pandacli.inference.planning.planner import Plan, missing_artifact
from pandacli.modeling.bitsandbytes_weights import bitsandbytes_linear, read_quantised
from pandacli.modeling.checkpoint import (
    check_values,
    read_config,
    read_eos_ids,
    read_tensors,
    read_tokenizer,
)
from pandacli.modeling.configuration import ModelConfig
from pandacli.modeling.tokenization_videopanda import VideoPandaTokenizer
from pandacli.modeling.video_panda import VideoPanda, empty_model
from pandacli.quantization.int8 import Int8Linear, widen_4bit

if TYPE_CHECKING:
    from pandacli.inference.backends.cuda_graphs import StaticDecoder
    from pandacli.quantization.conversion import Report

_EMBEDDINGS = "model.embed_tokens.weight"  # of which few rows are used

_Part = TypeVar("_Part")


class LoadedModel(NamedTuple):
    """A model in memory."""

    model: VideoPanda  # without decoder layers where llama.cpp has them
    tokenizer: VideoPandaTokenizer
    backend: Backend


def load(plan: Plan, report: "Report | None" = None) -> LoadedModel:
    """Load a model as planned, converting its checkpoint first if needed.

    Raises a `ModelError` if the model is damaged or its artifact cannot be written, and a
    `DeviceError` if the device has too little memory.
    """
    tokenizer = read_tokenizer(plan.model.folder, plan.config)
    artifact = _artifact(plan, report)
    folder = artifact.folder if artifact else plan.model.folder
    files = weight_files(folder)
    if plan.backend == "llama":
        files.append(folder / artifacts.GGUF_FILE)
    total = sum(path.stat().st_size for path in files if path.is_file())
    words = f"loading {plan.model.name}"
    with timed(words, total, "bytes", f"loading: {kind_of(plan)}"):
        return _load(plan, folder, tokenizer, is_artifact=artifact is not None)


def _load(
    plan: Plan, folder: Path, tokenizer: VideoPandaTokenizer, *, is_artifact: bool
) -> LoadedModel:
    if plan.backend == "llama":
        from pandacli.inference.backends.llama_cpp.model import LlamaCppBackend
        from pandacli.quantization.gguf import check_gguf

        model = load_artifact(folder, plan.hint, layers=False)
        check_gguf(folder / artifacts.GGUF_FILE, plan.config)
        context, threads = plan.config.max_position_embeddings, torch.get_num_threads()
        backend = LlamaCppBackend(folder / artifacts.GGUF_FILE, context=context, threads=threads)
        return LoadedModel(model, tokenizer, backend)
    if plan.backend == "torch" and is_artifact:
        model = load_artifact(folder, plan.hint)
    else:
        config = read_config(folder) if is_artifact else plan.config
        model = load_model(folder, config, plan.placement, plan.dtype, plan.hint)
    # quantised layers are far coarser than float16; a prefix in float32 takes twice the disk
    half_prefix = plan.quant != "none" and plan.dtype == torch.float32
    decoder = _decoder(plan, model)
    ours = TorchBackend(model, half_prefix=half_prefix, decoder=decoder)
    return LoadedModel(model, tokenizer, ours)


def _decoder(plan: Plan, model: VideoPanda) -> "StaticDecoder | None":
    """What decodes through CUDA graphs, where the model is on one card."""
    devices = plan.placement.devices
    if devices[0].type != "cuda":
        return None
    # cuDNN, first on recent cards, builds a plan for each length of the KV cache
    torch.backends.cuda.enable_cudnn_sdp(False)
    if len(devices) > 1 or plan.quant == "8bit":  # which looks for outliers on the host
        return None
    from pandacli.inference.backends.cuda_graphs import StaticDecoder

    with memory_errors(plan.hint):
        return StaticDecoder(model)


def is_converted(plan: Plan) -> bool:
    """Whether `load` needs no conversion."""
    if plan.form is None or plan.model.kind == "artifact":
        return True
    from pandacli.quantization.conversion import describe_source

    return artifacts.find_artifact(describe_source(plan.model).digest, plan.form) is not None


def make_artifact(plan: Plan, report: "Report | None" = None) -> artifacts.Artifact | None:
    """Find or make the artifact of a plan, if it has one, and delete those of older checkpoints."""
    artifact = _artifact(plan, report)
    if artifact is None or plan.model.kind == "artifact":
        return artifact
    from pandacli.quantization.conversion import describe_source

    return artifacts.remove_outdated(artifact, describe_source(plan.model).commit)


def _artifact(plan: Plan, report: "Report | None") -> artifacts.Artifact | None:
    if plan.form is None:
        return None
    if plan.model.kind == "artifact":
        for artifact in artifacts.artifacts_of(plan.model.name):
            if artifact.form == plan.form:
                return artifact
        raise missing_artifact(plan.model.name, plan.quant)
    from pandacli.quantization.conversion import convert, describe_source

    with memory_errors(plan.hint):
        source = describe_source(plan.model)
        if found := artifacts.find_artifact(source.digest, plan.form):
            return found
        with quiet_libraries():
            made = convert(source, plan.form, report)
        return artifacts.remove_outdated(made, source.commit)


def load_model(
    folder: Path, config: ModelConfig, placement: Placement, dtype: torch.dtype, hint: str
) -> VideoPanda:
    """Load a checkpoint, or an artifact whose layers bitsandbytes runs.

    Raises a `ModelError` if it is damaged, and a `DeviceError` with `hint` without enough memory.
    """
    with quiet_libraries(), memory_errors(hint):
        model = empty_model(config)
        expected = model.state_dict()
        quantised: frozenset[str] = frozenset()
        if stored := config.quantization_config:
            bits = 8 if stored["load_in_8bit"] else 4
            tensors, quantised = read_quantised(folder, expected, bits)
        else:
            tensors = read_tensors(folder, expected)
        places = placement.device_map.items()
        plain, step = {}, current_step()
        for name in expected:
            device = next(d for part, d in places if not part or name.startswith(f"{part}."))
            if name in quantised:
                layer = name.removesuffix(".weight")
                parts = {k: tensors[k] for k in tensors if k.startswith(f"{layer}.")}
                built = bitsandbytes_linear(layer, parts, stored or {}, device, dtype)
                model.set_submodule(layer, built)
            else:
                tensor, parts = tensors[name], {name: tensors[name]}
                plain[name] = tensor.to(device, dtype if tensor.is_floating_point() else None)
                check_values(folder, {name: plain[name]})  # the conversion may have overflowed
            if step is not None:
                step.advance(sum(part.nbytes for part in parts.values()))
        model.load_state_dict(plain, strict=False, assign=True)
    return _ready(model, folder)


def load_artifact(folder: Path, hint: str, *, layers: bool = True) -> VideoPanda:
    """Load a quantised artifact on the CPU, its linear layers on torch's int8 kernels.

    4-bit layers are widened to int8. Without `layers` the model has no decoder layers and only
    embeds. Raises the errors of `load_model`.
    """
    with quiet_libraries(), memory_errors(hint):
        config = read_config(folder)
        stored = config.quantization_config
        if not layers:
            config.num_hidden_layers = 0
        model = empty_model(config)
        if not layers:
            model.model.norm = model.lm_head = nn.Identity()  # type: ignore[assignment]
        expected = model.state_dict()
        if stored:
            read_quantised(folder, expected, 8 if stored["load_in_8bit"] else 4)
        else:
            read_tensors(folder, expected)
        for path in weight_files(folder):
            try:
                _load_file(model, path)
            except (OSError, RuntimeError, KeyError, AttributeError, SafetensorError) as error:
                if is_out_of_memory(error):
                    raise
                remedy = f"remove the folder {folder}, and panda will make it again"
                raise ModelError(f"the quantised copy in {folder} is damaged", remedy) from error
    if missing := [name for name, parameter in model.named_parameters() if parameter.is_meta]:
        raise ModelError(f"the quantised copy in {folder} lacks {missing[0]}")
    check_values(folder, model.state_dict())
    return _ready(model, folder)


def _ready(model: VideoPanda, folder: Path) -> VideoPanda:
    """The model for inference, with what only its folder says."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d) and module.num_batches_tracked is not None:
            device = module.weight.device
            module.num_batches_tracked = torch.zeros((), dtype=torch.long, device=device)
    model.eos_ids = read_eos_ids(folder, model.config)
    model.train(False)
    return model.requires_grad_(False)


def _load_file(model: nn.Module, path: Path) -> None:
    _read_ahead(path)
    with safe_open(path, framework="pt") as file:
        names: list[str] = file.keys()
        plain = [name for name in names if _is_converted(name, names)]
        sources = [file.get_tensor(name) for name in plain]
        converted = dict(zip(plain, _counted(map(_float, sources), sources), strict=True))
        del sources  # and with them the mapping of what has been copied
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in names if name not in converted}
    # a layer is widened or packed on a single core
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        layers = pool.map(partial(_build_layer, tensors=tensors), tensors)
        built = dict(filter(None, _counted(layers, tensors.values())))
    for name, layer in built.items():
        if not isinstance(model.get_submodule(name), nn.Linear):
            raise AttributeError(f"{name} is no linear layer")
        model.set_submodule(name, layer)
    model.load_state_dict(tensors | converted, strict=False, assign=True)
    with suppress(OSError, AttributeError):  # glibc keeps what packing freed
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _read_ahead(path: Path) -> None:
    """Have a file read at the speed of the disk; page faults alone read it in small pieces."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _counted(parts: Iterable[_Part], tensors: Iterable[Tensor]) -> Iterator[_Part]:
    """The parts that are built of as many tensors, whose bytes are progress of the load."""
    step = current_step()
    for part, tensor in zip(parts, tensors, strict=True):
        if step is not None:
            step.advance(tensor.nbytes)
        yield part


def _is_converted(name: str, names: Collection[str]) -> bool:
    """Whether a tensor is computed with in float32, unlike embeddings and quantised weights."""
    layer = name.removesuffix(".weight")
    kinds = (f"{layer}.SCB" in names, f"{name}.absmax" in names, ".weight." in name)
    return not (any(kinds) or name.endswith((".SCB", ".weight_format")) or name == _EMBEDDINGS)


def _build_layer(name: str, tensors: Mapping[str, Tensor]) -> tuple[str, nn.Module] | None:
    """Build the int8 layer of a quantised weight."""
    tensor, layer = tensors[name], name.removesuffix(".weight")
    if f"{layer}.SCB" in tensors:
        _read_pages(tensor)
        return layer, Int8Linear(tensor, tensors[f"{layer}.SCB"] / 127)
    start = f"{name}."
    parts = {key[len(start) :]: part for key, part in tensors.items() if key.startswith(start)}
    return (layer, Int8Linear(*widen_4bit(tensor, parts))) if parts else None


def _float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _read_pages(tensor: Tensor) -> None:
    """Bring a mapped tensor into memory, which the first prefill would do otherwise."""
    tensor.view(torch.uint8).flatten()[:: mmap.PAGESIZE].sum()
