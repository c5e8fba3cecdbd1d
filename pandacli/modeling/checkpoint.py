"""Read and check a checkpoint folder: the official layout, or one written by `save_pretrained`.

All of it is untrusted: no code runs, no size is believed beyond the file, and a fault is a
`ModelError`. Tensors stay mapped to their files, except in `.bin` files of before torch 1.6 (2020).
"""

import logging
import math
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor, nn

from pandacli.checkpoint_files import INCOMPLETE, MODEL_TYPES, read_json, some, weight_files
from pandacli.errors import ModelError
from pandacli.modeling.configuration import ModelConfig, check_token_ids
from pandacli.modeling.llama import rotary_frequencies
from pandacli.modeling.tokenization_videopanda import VideoPandaTokenizer

logger = logging.getLogger(__name__)

_Config = TypeVar("_Config")

BATCH_COUNTER = ".num_batches_tracked"  # of BatchNorm; inference does not read it
_ALIASES = {
    "model.vision_tower.": "model.video_tower.",
    "model.mm_projector.": "model.video_projector.",
}
_UNUSED_PARTS = (
    *("model.video_teacher.", "model.image_teacher."),
    *("model.video_tower_compressor.", "model.vision_tower_compressor."),
)
_UNUSED_LAYER = ".lmhra2."  # stored, but never called
_UNUSED_LEAVES = (".rotary_emb.inv_freq", BATCH_COUNTER)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_FLOAT32_MAX = torch.finfo(torch.float32).max
_MAX_PARAMETERS_PER_BYTE = 2.5  # 4 bits give 2; the rest allows for tied weights
_SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty", "max_length", "max_new_tokens")
_MAX_PICKLE_BYTES = 1 << 22  # names and shapes; the largest published ones take 1 MB
_LEGACY_PICKLES = 5  # at the start of a `.bin` file of before torch 1.6; the numbers follow
_MAX_BUILDS = 16  # a state dict has one, for its metadata
# what a pickle of saved tensors may name, besides storages and dtypes
_ALLOWED_GLOBALS = (
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
)


def read_config(folder: Path) -> ModelConfig:
    """Read the configuration of a checkpoint folder."""
    return build_config(folder, ModelConfig.from_dict)


def build_config(folder: Path, build: Callable[[dict[str, Any]], _Config]) -> _Config:
    """Build a configuration of any kind from the fields of `config.json`, which are checked."""
    path = folder / "config.json"
    fields = read_json(path)
    stated = fields.get("model_type")
    if stated not in MODEL_TYPES:
        raise ModelError(f"{path} describes a model of type {stated!r}, not a Video-Panda")
    try:
        sizes = ModelConfig.from_dict(fields)
        if not rotary_frequencies(sizes)[0].isfinite().all():
            raise ValueError("rope_parameters give rotary positions that are not finite")
        config = build(fields)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the checks of transformers raise errors of many kinds
        raise _unusable(path, error) from error
    _check_size(folder, sizes)
    return config


def _check_size(folder: Path, config: ModelConfig) -> None:
    """Refuse a small folder that would make panda allocate a large model."""
    try:
        weights = (p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".gguf"))
        stored_bytes = sum(path.stat().st_size for path in weights if path.exists())
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error.strerror}") from error
    heads = 2 * (config.num_attention_heads + config.num_key_value_heads)
    layer = heads * config.head_dim + 3 * config.intermediate_size + 2
    parameters = config.hidden_size * (config.vocab_size + config.num_hidden_layers * layer)
    if stored_bytes and parameters > _MAX_PARAMETERS_PER_BYTE * stored_bytes:
        wanted = f"{folder / 'config.json'} describes a model of {parameters:,} parameters"
        found = f"the weights beside it have {stored_bytes:,} bytes"
        raise ModelError(f"{wanted}, and {found}", INCOMPLETE)


def read_tokenizer(folder: Path, config: ModelConfig) -> VideoPandaTokenizer:
    """Read the tokenizer of a folder and check it against the vocabulary of the model."""
    tokenizer = VideoPandaTokenizer.from_pretrained(folder)
    if len(tokenizer) > config.vocab_size:
        counts = f"{len(tokenizer)} tokens, the model {config.vocab_size}"
        hint = "get the tokenizer.model that belongs to the model"
        raise ModelError(f"the tokenizer in {folder} has {counts}", hint)
    return tokenizer


def read_generation_fields(folder: Path, vocabulary: int) -> dict[str, Any] | None:
    """Read the fields of `generation_config.json` that are used; None if a folder has none."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return None
    fields = read_json(path)
    try:
        # only eos matters for generation; published files use -1 and the like for no token
        eos = {"eos_token_id": fields.get("eos_token_id")}
        check_token_ids(eos, vocabulary)
        others = {
            name: value if type(value) is int and 0 <= value < vocabulary else None
            for name, value in fields.items()
            if name.endswith("_token_id")
        }
        sampling = {name: fields[name] for name in _SAMPLING if fields.get(name) is not None}
        for name, value in sampling.items():
            if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} {value!r} is not a positive number")
        sampling["do_sample"] = fields.get("do_sample") is True
    except (ValueError, OverflowError) as error:
        raise _unusable(path, error) from error
    return others | eos | sampling


def read_eos_ids(folder: Path, config: ModelConfig) -> tuple[int, ...]:
    """The ids that end an answer, as `generation_config.json` or else `config.json` has them."""
    fields = read_generation_fields(folder, config.vocab_size)
    stated = config.eos_token_id if fields is None else fields["eos_token_id"]
    ids = stated if isinstance(stated, list) else [stated]
    return tuple(number for number in ids if number is not None)


def _unusable(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path} cannot be used: {' '.join(str(error).split())}")


def read_stored(
    folder: Path, expected: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, tuple[Path, str]]]:
    """Map the known tensors of a folder under our names, and add the BatchNorm counters `expected`.

    Also returns the file and key of each, in the order of the files.
    """
    tensors: dict[str, Tensor] = {}
    places: dict[str, tuple[Path, str]] = {}
    files: dict[str, Path] = {}
    for path in weight_files(folder):
        for key, tensor in _open_weights(path, lambda key: tensor_name(key) is not None):
            if key in files:
                raise ModelError(f"{some([key])} is in {path} and in {files[key]}", INCOMPLETE)
            files[key] = path
            if reason := _layout_error(tensor):
                raise ModelError(f"{some([key])} in {path} is {reason}", INCOMPLETE)
            name = tensor_name(key)
            assert name is not None
            if name == key or name not in tensors:  # our name goes before the official one
                tensors[name] = tensor
                places.pop(name, None)  # to keep the order
                places[name] = path, key
    for name, wanted in expected.items():
        if name.endswith(BATCH_COUNTER):  # official checkpoints leave them out
            # zeros_like a meta tensor would import sympy
            tensors[name] = torch.zeros(wanted.shape, dtype=wanted.dtype)
    return tensors, places


def read_tensors(folder: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the tensors of a model from the files of a folder, under our names.

    `expected` is the model's state dict, for instance on the meta device. Logs a warning about
    unknown tensors. Values are not read: see `check_values`.

    Raises:
        ModelError: There are no weights; a file is missing, damaged, or holds anything but tensors;
            a tensor is missing or has another shape.
    """
    tensors, _ = read_stored(folder, expected)
    check_tensors(folder, tensors, expected)
    return tensors


def stream_tensors(
    folder: Path, expected: Mapping[str, Tensor]
) -> tuple[list[str], Iterator[tuple[str, Tensor]]]:
    """Check as `read_tensors`; return the names, and stream (name, tensor), both in file order."""
    tensors, places = read_stored(folder, expected)
    check_tensors(folder, tensors, expected)
    order = [(path, key, name) for name, (path, key) in places.items() if name in expected]

    def stream() -> Iterator[tuple[str, Tensor]]:
        for path, group in groupby(order, key=lambda place: place[0]):
            names = {key: name for _, key, name in group}
            for key, tensor in _open_weights(path, names.__contains__):
                yield names[key], tensor

    return [name for _, _, name in order], stream()


def tensor_name(key: str) -> str | None:
    """Our name of a stored tensor; None if inference never uses it, such as those of a teacher."""
    if key.startswith(_UNUSED_PARTS) or key.endswith(_UNUSED_LEAVES) or _UNUSED_LAYER in key:
        return None
    for alias, name in _ALIASES.items():
        if key.startswith(alias):
            return name + key.removeprefix(alias)
    return key


def is_quantisable(name: str, tensor: Tensor) -> bool:
    """Whether the tensor of this name is the weight of a linear layer of the Llama."""
    return tensor.ndim == 2 and name.startswith("model.layers.") and name.endswith(".weight")


def check_tensors(
    folder: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Refuse missing tensors and other shapes or types, and log unknown ones."""
    if missing := [name for name in expected if name not in tensors]:
        count = f"{len(missing)} of {len(expected)}"
        raise ModelError(f"{folder} lacks {count} tensors: {some(missing)}", INCOMPLETE)
    wrong = [
        f"{name} is {shape_and_dtype(tensors[name])} instead of {shape_and_dtype(wanted)}"
        for name, wanted in expected.items()
        if tensors[name].shape != wanted.shape
        or tensors[name].dtype not in (_FLOATS if wanted.is_floating_point() else [wanted.dtype])
    ]
    if wrong:
        raise ModelError(f"{len(wrong)} tensors in {folder} do not fit: {some(wrong)}", INCOMPLETE)
    if unknown := sorted(set(tensors) - set(expected)):
        logger.warning("unknown tensors in %s are ignored: %s", folder, some(unknown))


def shape_and_dtype(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def check_values(folder: Path, tensors: Mapping[str, Any]) -> None:
    """Refuse numbers that are not finite in float32, and negative variances, in a state dict."""
    for name, tensor in tensors.items():
        is_float = isinstance(tensor, Tensor) and tensor.is_floating_point()
        if not is_float or tensor.is_meta or not tensor.numel():
            continue
        low, high = map(float, torch.aminmax(tensor.detach()))
        if not (low >= -_FLOAT32_MAX and high <= _FLOAT32_MAX):
            raise ModelError(f"{name} in {folder} holds numbers that are not finite", INCOMPLETE)
        if name.endswith(".running_var") and low < 0:
            raise ModelError(f"{name} in {folder} holds negative variances", INCOMPLETE)


def _open_weights(path: Path, is_used: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
    """Map the tensors of a `.safetensors` or `.bin` file whose keys are used."""
    stored: object
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                stored = {key: file.get_tensor(key) for key in filter(is_used, file.keys())}
        else:
            stored = _load_bin(path)
    except pickle.UnpicklingError as error:
        reason = "it is damaged, or would run code when opened"
        raise ModelError(f"{path} was refused: {reason}", INCOMPLETE) from error
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged header or pickle can fail in any way
        raise ModelError(f"{path} cannot be read as weights", INCOMPLETE) from error
    if not isinstance(stored, dict) or not all(isinstance(key, str) for key in stored):
        raise ModelError(f"{path} does not hold named tensors", INCOMPLETE)
    for key, tensor in stored.items():
        if isinstance(tensor, Tensor) and is_used(key):
            yield key, tensor


def _layout_error(tensor: Tensor) -> str | None:
    """Why a tensor is not plain numbers in memory; None if it is."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_nested or tensor.is_quantized:
        return "of a kind that is no plain tensor"
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return "not dense"
    if tensor.is_conj() or tensor.is_neg():
        return "a view of other numbers"
    # with zero strides one number may stand for many: the model would be larger than its file
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "larger than what is stored of it"
    return None


def _load_bin(path: Path) -> object:
    """Load a `.bin` file whose pickles take no memory or time out of proportion to their size.

    torch's own unpickler runs no code, but it lets a pickle call `bytearray(2**31 - 1)`, or build
    a dictionary of the same long list again and again.
    """
    with path.open("rb") as file:
        start = file.read(_MAX_PICKLE_BYTES)
    zipped = start.startswith(b"PK\x03\x04")  # the test torch uses
    if zipped:
        _check_archive(path)
        # torch's own reader: another one may see other entries in a crafted archive
        start = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
        if len(start) > _MAX_PICKLE_BYTES:
            raise ValueError("too long a pickle")
    content = BytesIO(start)
    for _ in range(1 if zipped else _LEGACY_PICKLES):
        _check_pickle(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about oddities of files that are refused anyway
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    sizes = sum(entry.file_size for entry in entries)
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    pickled = max((e.file_size for e in entries if e.filename.lower().endswith(".pkl")), default=0)
    if not stored or sizes > path.stat().st_size or pickled > _MAX_PICKLE_BYTES:
        raise ValueError("compressed, or larger than the file")


def _check_pickle(content: BytesIO) -> None:
    """Check the pickle at the position of `content`; leaves the position at its end."""
    before: tuple[str, ...] = ("", "", "")
    builds = 0
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if "PUT" in name or name == "MEMOIZE":
            continue
        if name == "GLOBAL":
            module, _, attribute = str(argument).partition(" ")
            is_torch = module == "torch" and attribute.isidentifier()
            is_dtype = is_torch and isinstance(getattr(torch, attribute, None), torch.dtype)
            is_storage = is_torch and attribute.endswith("Storage")
            if not (is_dtype or is_storage or f"{module}.{attribute}" in _ALLOWED_GLOBALS):
                raise pickle.UnpicklingError(f"{module}.{attribute} is no part of saved tensors")
        elif name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"):
            raise pickle.UnpicklingError(f"{name} is no part of saved tensors")
        elif name == "BUILD":
            builds += 1
        elif name == "REDUCE" and not (
            before[2] in ("EMPTY_TUPLE", "TUPLE3") or (before[2] == "TUPLE" and before[0] != "MARK")
        ):  # OrderedDict takes no arguments, all others at least three
            raise pickle.UnpicklingError("a call that saved tensors do not need")
        before = (*before[1:], name)
    if builds > _MAX_BUILDS:
        raise pickle.UnpicklingError("more state than saved tensors have")
