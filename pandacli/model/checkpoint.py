"""Reading a checkpoint folder: the authors' layout, or one written by `save_pretrained`.

Files are mapped into memory, never read whole: what the model does not use is never touched, and
what it uses goes from the file to its device tensor by tensor. Nothing in a folder can run code.
Everything that can be wrong with the files is found before the model is built, as a `ModelError`.
"""

import logging
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import GenerationConfig

from pandacli.checkpoint_files import INCOMPLETE, read_json, some, weight_files
from pandacli.errors import ModelError
from pandacli.model.config import VideoPandaConfig
from pandacli.model.official import BATCH_COUNTER, MODEL_TYPES, tensor_name

logger = logging.getLogger(__name__)


def read_config(folder: Path, **overrides: Any) -> VideoPandaConfig:
    """The configuration of the model in a folder.

    Args:
        folder: The checkpoint folder.
        **overrides: Fields that take the place of those in the file.

    Raises:
        ModelError: `config.json` is missing, damaged, or of another kind of model.
    """
    path = folder / "config.json"
    fields = read_json(path)
    kind = fields.get("model_type")
    if kind not in MODEL_TYPES:
        raise ModelError(f"{path} describes a model of type {kind!r}, not a Video-Panda")
    try:
        config: VideoPandaConfig = VideoPandaConfig.from_dict(fields | overrides)
    except Exception as error:  # the checks of transformers raise errors of many kinds
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} cannot be used: {reason}") from error
    return config


def read_generation_config(folder: Path) -> GenerationConfig | None:
    """How the model in a folder generates by default, or None where the folder does not say.

    Raises:
        ModelError: `generation_config.json` is damaged.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        return None
    try:
        generation = GenerationConfig.from_dict(read_json(path))
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} cannot be used: {error}") from error
    if not generation.do_sample:
        # Vicuna's file sets a temperature beside greedy decoding: transformers won't save that
        generation.temperature = generation.top_p = generation.top_k = None
    return generation


def read_tensors(folder: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model, under our names, mapped from the files of a folder.

    Where one is stored under two names, the one that is also ours is taken. Warns of tensors that
    neither the model nor the official layout knows.

    Args:
        folder: The checkpoint folder.
        expected: Of each tensor that the model needs, its name and one of the same shape.

    Raises:
        ModelError: There are no weights; a file is missing, damaged, or holds anything but tensors;
            a tensor is missing or has another shape.
    """
    tensors: dict[str, Tensor] = {}
    aliased: dict[str, Tensor] = {}
    for path in weight_files(folder):
        for key, tensor in _open(path):
            name = tensor_name(key)
            if name is not None:
                (tensors if name == key else aliased)[name] = tensor
    tensors = aliased | tensors
    # left out of the official layout; only training with another momentum would count batches
    for name, wanted in expected.items():
        if name.endswith(BATCH_COUNTER):
            tensors[name] = torch.zeros_like(wanted, device="cpu")
    _check(folder, tensors, expected)
    return tensors


def iterate_tensors(folder: Path, expected: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of `read_tensors`, one after another, without those that are not stored.

    Only one file is mapped at a time, so that what was read of the others takes no memory. The
    order is always the same.

    Raises:
        ModelError: As `read_tensors`, and before the first tensor is given.
    """
    read_tensors(folder, expected)
    files = weight_files(folder)
    stored = {key for path in files for key, _ in _open(path)}
    for path in files:
        for key, tensor in _open(path):
            name = tensor_name(key)
            if name is not None and name in expected and (name == key or name not in stored):
                yield name, tensor


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
        if tensors[name].shape != wanted.shape
        or tensors[name].is_floating_point() != wanted.is_floating_point()
    ]
    if wrong:
        raise ModelError(f"{len(wrong)} tensors in {folder} do not fit: {some(wrong)}", INCOMPLETE)
    unknown = sorted(set(tensors) - set(expected))
    if unknown:
        logger.warning("unknown tensors in %s are ignored: %s", folder, some(unknown))


def _open(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Keys and mapped tensors of one file; a key that is not used costs nothing."""
    return _open_safetensors(path) if path.suffix == ".safetensors" else _open_bin(path)


def _open_safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  (not a mapping)
                if tensor_name(key) is not None:
                    yield key, file.get_tensor(key)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read as weights", INCOMPLETE) from error


def _open_bin(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is odd in a file that is refused anyway
            # files of before 2020 are no zip archives, and cannot be mapped
            stored = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} was refused: it is damaged, or would run code when opened", INCOMPLETE
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise ModelError(f"{path} cannot be read as weights", INCOMPLETE) from error
    if not isinstance(stored, Mapping):
        raise ModelError(f"{path} does not hold named tensors", INCOMPLETE)
    for key, tensor in stored.items():
        if isinstance(tensor, Tensor):
            yield str(key), tensor


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
