"""The gate for checkpoint folders: the authors' layout, or one written by `save_pretrained`.

Every way to load a model (plain weights, weights that bitsandbytes quantised, our own copies,
conversion) has its files checked here first: configuration, names, shapes, types and values; what
is wrong is a `ModelError`. Nothing in a folder can run code, and what a file says of its own size
is never believed beyond the size of the file.

Files are mapped into memory, not read whole, except `.bin` files of before 2020: what the model
does not use is never touched, and what it uses goes from the file to its device tensor by tensor.
"""

import logging
import math
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from pandacli.checkpoint_files import INCOMPLETE, MODEL_TYPES, read_json, some, weight_files
from pandacli.errors import ModelError
from pandacli.modeling import bnb_weights
from pandacli.modeling.configuration_videopanda import VideoPandaConfig, check_token_ids
from pandacli.modeling.tokenization_videopanda import VideoPandaTokenizer
from pandacli.modeling.weight_mapping import BATCH_COUNTER, tensor_name

logger = logging.getLogger(__name__)

_LAYERS = "model.layers."
"""What may be quantised: matrices of the Llama's layers."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_FLOAT32_MAX = torch.finfo(torch.float32).max
_WEIGHTS = (".safetensors", ".bin", ".gguf")
_MOST_PARAMETERS_A_BYTE = 2.5  # 4 bits are 2; what is left allows for tensors stored once for two
_PICKLE_BYTES = 1 << 22  # of names and shapes; the largest published ones take 1 MB
_LEGACY_PICKLES = 5  # at the start of a file of before 2020; the numbers follow
_MOST_BUILDS = 16  # a state dict has one, for its metadata
_GLOBALS = frozenset(
    (
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
    )
)
"""What a pickle of saved tensors may name, beside storages and dtypes."""

_SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty", "max_length", "max_new_tokens")


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
        config: VideoPandaConfig = VideoPandaConfig.from_dict(fields | overrides, **overrides)
        frequencies = LlamaRotaryEmbedding(config).inv_freq
        if not frequencies.isfinite().all():
            raise ValueError("rope_parameters give rotary positions that are not finite")
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the checks of transformers raise errors of many kinds
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} cannot be used: {reason}") from error
    _check_size(folder, config)
    return config


def read_tokenizer(folder: Path, config: VideoPandaConfig) -> VideoPandaTokenizer:
    """The tokenizer in a folder, checked against the vocabulary of the model.

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
    """How the model in a folder generates by default, or None where the folder does not say.

    Raises:
        ModelError: `generation_config.json` is damaged.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        return None
    fields = read_json(path)
    try:
        ids = {name: value for name, value in fields.items() if name.endswith("_token_id")}
        # only the end of an answer matters; -1 and the like stand for no token in published files
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
    except Exception as error:  # as of the configuration
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} cannot be used: {reason}") from error
    if not generation.do_sample:
        # Vicuna's file sets a temperature beside greedy decoding: transformers won't save that
        generation.temperature = generation.top_p = generation.top_k = None
    return generation


def read_tensors(folder: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model, under our names, mapped from the files of a folder.

    Where one is stored under two names, the one that is also ours is taken. Warns of tensors that
    neither the model nor the official layout knows. Values are not looked at: see `check_values`.

    Args:
        folder: The checkpoint folder.
        expected: Of each tensor that the model needs, its name and one of the same shape.

    Raises:
        ModelError: There are no weights; a file is missing, damaged, or holds anything but tensors;
            a tensor is missing or has another shape.
    """
    tensors = _stored_tensors(folder)
    _add_batch_counters(tensors, expected)
    _check(folder, tensors, expected)
    return tensors


def read_quantised(
    folder: Path, expected: Mapping[str, Tensor], bits: int
) -> tuple[dict[str, Tensor], frozenset[str]]:
    """The tensors of a model of which layers may be stored as bitsandbytes quantises them.

    Args:
        folder: The folder of a checkpoint, or of a copy.
        expected: As for `read_tensors`, of the model without quantisation.
        bits: In how many bits they are: 8 or 4.

    Returns:
        The tensors as `read_tensors`, the parts of quantised weights among them; and the names of
        the weights that are quantised, whose parts have been checked, values included.

    Raises:
        ModelError: As `read_tensors`; a quantised weight is not whole, or is none of a layer.
    """
    tensors = _stored_tensors(folder)
    _add_batch_counters(tensors, expected)
    quantised: dict[str, dict[str, Tensor]] = {}
    for name in tensors:
        if weight := bnb_weights.part_of(name):
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
            bnb_weights.check_parts(named, expected[weight].shape, bits)
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


def tensor_order(folder: Path, expected: Mapping[str, Tensor]) -> list[str]:
    """The names of what `iterate_tensors` gives, in its order; no values are read.

    Raises:
        ModelError: As `read_tensors`.
    """
    read_tensors(folder, expected)
    return [name for name, _ in _chosen(folder, expected)]


def iterate_tensors(folder: Path, expected: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of `read_tensors`, one after another, without those that are not stored.

    Only one file is mapped at a time, so that what was read of the others takes no memory. The
    order is always the same. Values are not looked at: see `check_values`.

    Raises:
        ModelError: As `read_tensors`, and before the first tensor is given.
    """
    read_tensors(folder, expected)
    yield from _chosen(folder, expected)


def check_values(folder: Path, name: str, tensor: Tensor) -> None:
    """Refuse numbers that are not finite, or not in float32.

    One pass over the memory, on its device. It runs at 8 GB a second on two CPU cores: little
    beside reading the same weights from a disk, so weights of every size are checked.

    Raises:
        ModelError: There is one, or a negative variance.
    """
    if not tensor.numel():
        return
    low, high = map(float, torch.aminmax(tensor.detach()))
    if not (low >= -_FLOAT32_MAX and high <= _FLOAT32_MAX):
        raise ModelError(f"{name} in {folder} holds numbers that are not finite", INCOMPLETE)
    if name.endswith(".running_var") and low < 0:
        raise ModelError(f"{name} in {folder} holds negative variances", INCOMPLETE)


def check_model_values(folder: Path, model: nn.Module) -> None:
    """`check_values` of all that was loaded into a model, wherever it is.

    Raises:
        ModelError: As `check_values`.
    """
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not tensor.is_meta:
            check_values(folder, name, tensor)


def _check_size(folder: Path, config: VideoPandaConfig) -> None:
    """Refuse a configuration of a model that cannot be in the files beside it.

    A small folder cannot make panda allocate a large model, or build one layer by layer.
    """
    try:
        held = sum(map(_bytes_of, filter(lambda path: path.suffix in _WEIGHTS, folder.iterdir())))
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error.strerror}") from error
    assert config.head_dim is not None  # filled in by transformers
    assert config.num_key_value_heads is not None
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    layer = heads * config.head_dim + 3 * config.intermediate_size + 2
    parameters = config.hidden_size * (config.vocab_size + config.num_hidden_layers * layer)
    if held and parameters > _MOST_PARAMETERS_A_BYTE * held:
        raise ModelError(
            f"{folder / 'config.json'} describes a model of {parameters:,} parameters, and the"
            f" weights beside it have {held:,} bytes",
            INCOMPLETE,
        )


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a dangling link, which is of no use to the model either
        return 0


def _stored_tensors(folder: Path) -> dict[str, Tensor]:
    """All that is stored and known, under our names."""
    tensors: dict[str, Tensor] = {}
    aliased: dict[str, Tensor] = {}
    places: dict[str, Path] = {}
    for path in weight_files(folder):
        for key, tensor in _open(path):
            if (name := tensor_name(key)) is None:
                continue
            if key in places:
                raise ModelError(f"{some([key])} is in {path} and in {places[key]}", INCOMPLETE)
            places[key] = path
            if reason := _oddity(tensor):
                raise ModelError(f"{some([key])} in {path} is {reason}", INCOMPLETE)
            (tensors if name == key else aliased)[name] = tensor
    return aliased | tensors


def _chosen(folder: Path, expected: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Each stored tensor that is used, once, in the order of the files."""
    files = weight_files(folder)
    stored = {key for path in files for key, _ in _open(path)}
    given = set()
    for path in files:
        for key, tensor in _open(path):
            name = tensor_name(key)
            if name is None or name not in expected or name in given:
                continue
            if name == key or name not in stored:
                given.add(name)
                yield name, tensor


def _add_batch_counters(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    # left out of the official layout; only training with another momentum would count batches
    for name, wanted in expected.items():
        if name.endswith(BATCH_COUNTER):
            tensors[name] = torch.zeros_like(wanted, device="cpu")


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


def _oddity(tensor: Tensor) -> str | None:
    """Why a tensor is not plain numbers in memory; None where it is."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_nested or tensor.is_quantized:
        return "of a kind that is no plain tensor"
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return "not dense"
    if tensor.is_conj() or tensor.is_neg():
        return "a view of other numbers"
    # one number may stand for many by its strides: the model would be larger than its file
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "larger than what is stored of it"
    return None


def _open(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Keys and mapped tensors of one file; a key that is not used costs nothing."""
    return _open_safetensors(path) if path.suffix == ".safetensors" else _open_bin(path)


def _open_safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {
                key: file.get_tensor(key)
                for key in file.keys()  # noqa: SIM118  (not a mapping)
                if tensor_name(key) is not None
            }
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged header can fail in any way
        raise ModelError(f"{path} cannot be read as weights", INCOMPLETE) from error
    yield from tensors.items()


def _open_bin(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        zipped = _is_archive(path)
        _check_pickles(path, zipped)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is odd in a file that is refused anyway
            # files of before 2020 are no zip archives, and cannot be mapped
            stored = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} was refused: it is damaged, or would run code when opened", INCOMPLETE
        ) from error
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise ModelError(f"{path} cannot be read as weights", INCOMPLETE) from error
    if not isinstance(stored, dict) or not all(isinstance(key, str) for key in stored):
        raise ModelError(f"{path} does not hold named tensors", INCOMPLETE)
    for key, tensor in stored.items():
        if isinstance(tensor, Tensor):
            yield key, tensor


def _is_archive(path: Path) -> bool:
    """Whether a file is a zip archive, as which torch has saved weights since 2020.

    Raises:
        ValueError: It is one whose content is larger than itself, or has to be unpacked.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":  # by this torch tells, too
            return False
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    sizes = sum(entry.file_size for entry in entries)
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    pickled = max((e.file_size for e in entries if e.filename.lower().endswith(".pkl")), default=0)
    if not stored or sizes > path.stat().st_size or pickled > _PICKLE_BYTES:
        raise ValueError("compressed, or larger than the file")
    return True


def _check_pickles(path: Path, zipped: bool) -> None:
    """Refuse pickles that could take memory or time out of proportion to their size.

    torch's own unpickler runs no code, but it lets a pickle call `bytearray(2**31 - 1)`, or build
    a dictionary of the same long list again and again.

    Raises:
        UnpicklingError: One does anything that saved tensors do not.
        ValueError: One is longer than any published one, or damaged.
    """
    if zipped:
        # torch's own reader: another one may see other entries in a crafted archive
        content = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
        if len(content) > _PICKLE_BYTES:
            raise ValueError("too long a pickle")
        _check_pickle(BytesIO(content))
        return
    with path.open("rb") as file:
        start = BytesIO(file.read(_PICKLE_BYTES))
    for _ in range(_LEGACY_PICKLES):
        _check_pickle(start)


def _check_pickle(content: BytesIO) -> None:
    """`_check_pickles` of the pickle that begins where `content` stands; leaves it at its end."""
    before: tuple[str, ...] = ("", "", "")
    builds = 0
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if "PUT" in name or name == "MEMOIZE":
            continue
        if name == "GLOBAL":
            module, _, attribute = str(argument).partition(" ")
            storage_or_type = module == "torch" and _is_storage_or_dtype(attribute)
            if not storage_or_type and f"{module}.{attribute}" not in _GLOBALS:
                raise pickle.UnpicklingError(f"{module}.{attribute} is no part of saved tensors")
        elif name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"):
            raise pickle.UnpicklingError(f"{name} is no part of saved tensors")
        elif name == "BUILD":
            builds += 1
        elif name == "REDUCE" and not (
            before[2] in ("EMPTY_TUPLE", "TUPLE3") or (before[2] == "TUPLE" and before[0] != "MARK")
        ):  # OrderedDict takes nothing, and all else at least three arguments
            raise pickle.UnpicklingError("a call that saved tensors do not need")
        before = (*before[1:], name)
    if builds > _MOST_BUILDS:
        raise pickle.UnpicklingError("more state than saved tensors have")


def _is_storage_or_dtype(name: str) -> bool:
    found = getattr(torch, name, None) if name.isidentifier() else None
    return name.endswith("Storage") or isinstance(found, torch.dtype)


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
