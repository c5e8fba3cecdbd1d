"""Open weight files from untrusted sources: no code runs, no size is believed beyond the file.

Files are memory-mapped, except `.bin` files older than torch 1.6 (2020), which are not zip archives
and have to be read whole.
"""

import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from pandacli.checkpoint_files import INCOMPLETE
from pandacli.errors import ModelError

_MAX_PICKLE_BYTES = 1 << 22  # names and shapes; the largest published ones take 1 MB
_LEGACY_PICKLES = 5  # at the start of a file older than 2020; the numbers follow
_MAX_BUILDS = 16  # a state dict has one, for its metadata
_ALLOWED_GLOBALS = frozenset(
    (
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
    )
)
"""What a pickle of saved tensors may name, besides storages and dtypes."""


def open_weights(path: Path, is_used: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
    """Keys and mapped tensors of one file.

    Args:
        path: A `.safetensors` or `.bin` file.
        is_used: Whether the tensor of a key is wanted; others are left out.

    Raises:
        ModelError: The file is damaged, would run code, or does not hold named tensors.
    """
    stored: object
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                stored = {
                    key: file.get_tensor(key)
                    for key in file.keys()  # noqa: SIM118  (not a mapping)
                    if is_used(key)
                }
        else:
            stored = _load_bin(path)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} was refused: it is damaged, or would run code when opened", INCOMPLETE
        ) from error
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged header or pickle can fail in any way
        raise ModelError(f"{path} cannot be read as weights", INCOMPLETE) from error
    if not isinstance(stored, dict) or not all(isinstance(key, str) for key in stored):
        raise ModelError(f"{path} does not hold named tensors", INCOMPLETE)
    for key, tensor in stored.items():
        if isinstance(tensor, Tensor) and is_used(key):
            yield key, tensor


def layout_error(tensor: Tensor) -> str | None:
    """Why a tensor is not plain numbers in memory; None where it is."""
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
    zipped = _is_archive(path)
    _check_pickles(path, zipped)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about oddities of files that are refused anyway
        loaded: object = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    return loaded


def _is_archive(path: Path) -> bool:
    """Whether a file is a zip archive, torch's format since 2020.

    Raises:
        ValueError: It is one that is compressed, or whose content is larger than the file.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":  # the test torch uses
            return False
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    sizes = sum(entry.file_size for entry in entries)
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    pickled = max((e.file_size for e in entries if e.filename.lower().endswith(".pkl")), default=0)
    if not stored or sizes > path.stat().st_size or pickled > _MAX_PICKLE_BYTES:
        raise ValueError("compressed, or larger than the file")
    return True


def _check_pickles(path: Path, zipped: bool) -> None:
    """Refuse pickles that could take memory or time out of proportion to their size.

    torch's own unpickler runs no code, but it lets a pickle call `bytearray(2**31 - 1)`, or build
    a dictionary of the same long list again and again.

    Raises:
        UnpicklingError: One does anything that saved tensors do not need.
        ValueError: One is longer than any published one, or damaged.
    """
    if zipped:
        # torch's own reader: another one may see other entries in a crafted archive
        content = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
        if len(content) > _MAX_PICKLE_BYTES:
            raise ValueError("too long a pickle")
        _check_pickle(BytesIO(content))
        return
    with path.open("rb") as file:
        start = BytesIO(file.read(_MAX_PICKLE_BYTES))
    for _ in range(_LEGACY_PICKLES):
        _check_pickle(start)


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
            storage_or_type = module == "torch" and _is_storage_or_dtype(attribute)
            if not storage_or_type and f"{module}.{attribute}" not in _ALLOWED_GLOBALS:
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


def _is_storage_or_dtype(name: str) -> bool:
    found = getattr(torch, name, None) if name.isidentifier() else None
    return name.endswith("Storage") or isinstance(found, torch.dtype)
