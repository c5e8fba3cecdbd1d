"""Read and check a checkpoint folder: the official layout, or one written by `save_pretrained`.

All ways to load a model (plain weights, bitsandbytes weights, quantised copies, conversion) check
configuration, names, shapes, types and values here; a fault is a `ModelError`. Tensors stay mapped
to their files: unused ones are never read, used ones go to their device one by one.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from pandacli.checkpoint_files import INCOMPLETE, MODEL_TYPES, read_json, some, weight_files
from pandacli.errors import ModelError
from pandacli.modeling import bitsandbytes_weights
from pandacli.modeling.configuration_videopanda import VideoPandaConfig, check_token_ids
from pandacli.modeling.safe_load import layout_error, open_weights
from pandacli.modeling.tokenization_videopanda import VideoPandaTokenizer
from pandacli.modeling.weight_mapping import BATCH_COUNTER, tensor_name

logger = logging.getLogger(__name__)

_LAYERS = "model.layers."
"""Prefix of the weights that may be quantised: matrices of the Llama's layers."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_FLOAT32_MAX = torch.finfo(torch.float32).max
_WEIGHTS = (".safetensors", ".bin", ".gguf")
_MAX_PARAMETERS_PER_BYTE = 2.5  # 4 bits give 2; the rest allows for tied weights
_SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty", "max_length", "max_new_tokens")


class _Stored(NamedTuple):
    """A tensor of a checkpoint, mapped, and its key in its file."""

    path: Path
    key: str
    tensor: Tensor


def read_config(folder: Path, **overrides: Any) -> VideoPandaConfig:
    """Read the configuration of a checkpoint folder; `overrides` replace its fields.

    Raises:
        ModelError: `config.json` is missing, damaged, or of another kind of model.
    """
    path = folder / "config.json"
    fields = read_json(path)
    kind = fields.get("model_type")
    if kind not in MODEL_TYPES:
        raise ModelError(f"{path} describes a model of type {kind!r}, not a Video-Panda")
    try:
        config: VideoPandaConfig = VideoPandaConfig.from_dict(fields | overrides, **overrides)
        frequencies = LlamaRotaryEmbedding(config).inv_freq
        if not frequencies.isfinite().all():
            raise ValueError("rope_parameters give rotary positions that are not finite")
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the checks of transformers raise errors of many kinds
        raise _unusable(path, error) from error
    _check_size(folder, config)
    return config


def read_tokenizer(folder: Path, config: VideoPandaConfig) -> VideoPandaTokenizer:
    """Read the tokenizer of a folder and check it against the vocabulary of the model.

    Raises:
        ModelError: It is missing or damaged, or has more tokens than the model.
    """
    tokenizer = VideoPandaTokenizer.from_pretrained(folder)
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, the model {config.vocab_size}",
            "get the tokenizer.model that belongs to the model",
        )
    return tokenizer


def read_generation_config(folder: Path, config: VideoPandaConfig) -> GenerationConfig | None:
    """Read the generation defaults of a folder; None where it has no `generation_config.json`.

    Raises:
        ModelError: `generation_config.json` is damaged.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        return None
    fields = read_json(path)
    try:
        ids = {name: value for name, value in fields.items() if name.endswith("_token_id")}
        # only eos matters for generation; published files use -1 and the like for no token
        check_token_ids({"eos_token_id": ids.get("eos_token_id")}, config.vocab_size)
        for name, value in ids.items():
            if name != "eos_token_id" and not (
                type(value) is int and 0 <= value < config.vocab_size
            ):
                ids[name] = None
        sampling = {name: fields[name] for name in _SAMPLING if fields.get(name) is not None}
        for name, value in sampling.items():
            if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} {value!r} is not a positive number")
        do_sample = fields.get("do_sample") is True
        generation = GenerationConfig.from_dict({**ids, **sampling, "do_sample": do_sample})
    except Exception as error:  # as for the configuration
        raise _unusable(path, error) from error
    if not generation.do_sample:
        # Vicuna's file sets a temperature beside greedy decoding, which cannot be saved again
        generation.temperature = generation.top_p = generation.top_k = None
    return generation


def read_tensors(folder: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the tensors of a model under our names, mapped from the files of a folder.

    Of a tensor stored under two names, the one under ours is taken. Logs a warning of tensors that
    neither the model nor the official layout knows. Values are not read: see `check_values`.

    Args:
        folder: The checkpoint folder.
        expected: For each tensor of the model, its name and one of the same shape and type.

    Raises:
        ModelError: There are no weights; a file is missing, damaged, or holds anything but tensors;
            a tensor is missing or has another shape.
    """
    tensors = _tensors_of(_read_stored(folder), expected)
    _check(folder, tensors, expected)
    return tensors


def stream_tensors(
    folder: Path, expected: Mapping[str, Tensor]
) -> tuple[list[str], Iterator[tuple[str, Tensor]]]:
    """Check as `read_tensors`, then give the stored tensors one by one, with one file mapped.

    Returns:
        The names in the order of the files, and an iterator over (name, tensor) in that order.

    Raises:
        ModelError: As `read_tensors`.
    """
    stored = _read_stored(folder)
    _check(folder, _tensors_of(stored, expected), expected)
    places = [(name, *stored[name][:2]) for name in stored if name in expected]
    return [name for name, *_ in places], _stream(places)


def _stream(places: list[tuple[str, Path, str]]) -> Iterator[tuple[str, Tensor]]:
    for path, group in groupby(places, key=lambda place: place[1]):
        names = {key: name for name, _, key in group}
        for key, tensor in open_weights(path, names.__contains__):
            yield names[key], tensor


def read_quantised(
    folder: Path, expected: Mapping[str, Tensor], bits: int
) -> tuple[dict[str, Tensor], frozenset[str]]:
    """Read the tensors of a model whose layers may be stored as bitsandbytes quantises them.

    Args:
        folder: The folder of a checkpoint, or of a quantised copy.
        expected: As for `read_tensors`, of the model without quantisation.
        bits: 8 or 4.

    Returns:
        The tensors as `read_tensors`, including the parts of quantised weights; and the names of
        the quantised weights, whose parts have been checked, values included.

    Raises:
        ModelError: As `read_tensors`; a quantised weight is incomplete, or is not of a layer.
    """
    tensors = _tensors_of(_read_stored(folder), expected)
    quantised: dict[str, dict[str, Tensor]] = {}
    for name in tensors:
        if weight := bitsandbytes_weights.part_of(name):
            quantised.setdefault(weight, {})[name] = tensors[name]
    plain = dict(tensors)
    for weight, parts in quantised.items():
        if weight not in expected or not is_quantisable(weight, expected[weight]):
            raise ModelError(f"{folder} stores {weight} quantised, which this model does not have")
        for name in parts:
            del plain[name]
        if weight in plain:
            parts[weight] = plain.pop(weight)
        layer = weight.removesuffix("weight")
        try:
            named = {name.removeprefix(layer): part for name, part in parts.items()}
            bitsandbytes_weights.check_parts(named, expected[weight].shape, bits)
        except ValueError as error:
            raise ModelError(f"{weight} in {folder} is damaged: {error}", INCOMPLETE) from error
        for name, part in parts.items():
            if part.is_floating_point():
                check_values(folder, name, part)
    _check(folder, plain, {name: t for name, t in expected.items() if name not in quantised})
    if not quantised:
        raise ModelError(f"nothing in {folder} is quantised, as its config.json says", INCOMPLETE)
    return tensors, frozenset(quantised)


def is_quantisable(name: str, tensor: Tensor) -> bool:
    """Whether the tensor of this name is the weight of a linear layer of the Llama."""
    return tensor.ndim == 2 and name.startswith(_LAYERS) and name.endswith(".weight")


def check_values(folder: Path, name: str, tensor: Tensor) -> None:
    """Refuse numbers that are not finite in float32, and negative variances.

    One pass on the tensor's device, at 8 GB/s on two CPU cores: fast beside reading from a disk.

    Raises:
        ModelError: There is such a number.
    """
    if not tensor.numel():
        return
    low, high = map(float, torch.aminmax(tensor.detach()))
    if not (low >= -_FLOAT32_MAX and high <= _FLOAT32_MAX):
        raise ModelError(f"{name} in {folder} holds numbers that are not finite", INCOMPLETE)
    if name.endswith(".running_var") and low < 0:
        raise ModelError(f"{name} in {folder} holds negative variances", INCOMPLETE)


def check_model_values(folder: Path, model: nn.Module) -> None:
    """Apply `check_values` to everything loaded into a model, on any device."""
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not tensor.is_meta:
            check_values(folder, name, tensor)


def _check_size(folder: Path, config: VideoPandaConfig) -> None:
    """Refuse a configuration whose model cannot be in the files beside it.

    A small folder must not make panda allocate a large model.
    """
    try:
        stored_bytes = sum(
            map(_bytes_of, filter(lambda path: path.suffix in _WEIGHTS, folder.iterdir()))
        )
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error.strerror}") from error
    assert config.head_dim is not None  # filled in by transformers
    assert config.num_key_value_heads is not None
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    layer = heads * config.head_dim + 3 * config.intermediate_size + 2
    parameters = config.hidden_size * (config.vocab_size + config.num_hidden_layers * layer)
    if stored_bytes and parameters > _MAX_PARAMETERS_PER_BYTE * stored_bytes:
        raise ModelError(
            f"{folder / 'config.json'} describes a model of {parameters:,} parameters, and the"
            f" weights beside it have {stored_bytes:,} bytes",
            INCOMPLETE,
        )


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a dangling link
        return 0


def _read_stored(folder: Path) -> dict[str, _Stored]:
    """All known tensors under our names, in the order of the files."""
    found: dict[str, _Stored] = {}
    paths: dict[str, Path] = {}
    for path in weight_files(folder):
        for key, tensor in open_weights(path, lambda key: tensor_name(key) is not None):
            if key in paths:
                raise ModelError(f"{some([key])} is in {path} and in {paths[key]}", INCOMPLETE)
            paths[key] = path
            if reason := layout_error(tensor):
                raise ModelError(f"{some([key])} in {path} is {reason}", INCOMPLETE)
            name = tensor_name(key)
            assert name is not None
            if name == key:
                found.pop(name, None)  # stored under the official name before
            found.setdefault(name, _Stored(path, key, tensor))
    return found


def _tensors_of(stored: Mapping[str, _Stored], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The stored tensors, with the batch counters that official checkpoints leave out."""
    counters = {
        name: torch.zeros_like(wanted, device="cpu")
        for name, wanted in expected.items()
        if name.endswith(BATCH_COUNTER)
    }
    return {name: found.tensor for name, found in stored.items()} | counters


def _unusable(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path} cannot be used: {' '.join(str(error).split())}")


def _check(folder: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of {len(expected)} tensors: {some(missing)}",
            INCOMPLETE,
        )
    wrong = [
        f"{name} is {_kind(tensors[name])} instead of {_kind(wanted)}"
        for name, wanted in expected.items()
        if tensors[name].shape != wanted.shape or not _same_kind(tensors[name], wanted)
    ]
    if wrong:
        raise ModelError(f"{len(wrong)} tensors in {folder} do not fit: {some(wrong)}", INCOMPLETE)
    unknown = sorted(set(tensors) - set(expected))
    if unknown:
        logger.warning("unknown tensors in %s are ignored: %s", folder, some(unknown))


def _same_kind(tensor: Tensor, wanted: Tensor) -> bool:
    return tensor.dtype in _FLOATS if wanted.is_floating_point() else tensor.dtype == wanted.dtype


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
