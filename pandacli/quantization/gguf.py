"""Export the Llama of a checkpoint to a GGUF file for llama.cpp, without STAB and vocabulary.

Tensors are streamed from the checkpoint and quantised by rows, so memory holds one at a time. The
header gives the end of each tensor and the digests of the source weights, so an interrupted export
resumes: the length of the file tells which tensors are complete.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pandacli.checkpoint_files import INCOMPLETE, weight_files
from pandacli.checkpoints.artifacts import file_digest
from pandacli.errors import ModelError, UsageError
from pandacli.file_io import replace_durably
from pandacli.modeling.checkpoint import read_config, stream_tensors
from pandacli.modeling.configuration import ModelConfig
from pandacli.modeling.video_panda import empty_model
from pandacli.quantization.llama_library import INSTALL, llama_library

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

GgufForm = Literal["f32", "f16", "q8_0", "q4_k_m"]  # of matrices; norms are always float32
Progress = Callable[[int, int], None]  # takes the bytes written and their total
_CHUNK = 1 << 22  # elements converted at a time
_ALIGNMENT = 32  # of tensors in bytes; the default of GGUF
_UNSYNCED = 1 << 26  # bytes between two calls of fsync, unless a tensor is larger

_LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
# allowed besides hyperparameters; "split.count", for one, would open further files
_KEYS = {
    *("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count"),
    *("general.architecture", "general.name", "general.file_type", "general.quantization_version"),
    *("videopanda.weights.sha256", "tokenizer.ggml.model"),
}


@dataclass(frozen=True)
class _Stored:
    """A tensor of the GGUF file."""

    name: str
    shape: tuple[int, ...]  # (rows, width) of a matrix, (width,) of a norm
    form: "GGMLQuantizationType"
    heads: int = 0  # for query and key matrices only

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def row_bytes(self) -> int:
        block, size = _gguf().GGML_QUANT_SIZES[self.form]
        return int(self.shape[-1] // block * size)

    @property
    def nbytes(self) -> int:
        return self.rows * self.row_bytes

    @property
    def padded_bytes(self) -> int:
        return self.nbytes + len(_padding(self.nbytes))


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise UsageError("the package gguf is not installed", INSTALL) from error
    return gguf


def export_gguf(
    folder: Path, target: Path, form: GgufForm, threads: int = 1, progress: Progress | None = None
) -> None:
    """Write the Llama of a checkpoint folder to a GGUF file, atomically and resumably.

    "q4_k_m" uses the types of llama.cpp's own quantiser, or wider ones for rows that are not whole
    blocks. An interrupted call leaves a `.partial` file for the next one.

    Raises:
        ModelError: The checkpoint is damaged or not supported by llama.cpp, or the file cannot be
            written.
        UsageError: The optional packages are not installed.
    """
    _gguf()
    config = read_config(folder)
    _check_supported(folder, config)
    expected = empty_model(config).state_dict()
    partial = target.with_name(target.name + ".partial")
    try:
        order, sources = stream_tensors(folder, expected)
        llama = dict(_llama_tensors(config, expected, form))
        stored = {name: llama[name] for name in order if name in llama}
        digests = [file_digest(path) for path in weight_files(folder)]
        header = _header(config, stored.values(), form, digests)
        with partial.open("a+b") as file:
            kept = _truncate_to_complete(file, header, stored.values())
            _write(file, stored, kept, sources, threads, progress)
        replace_durably(partial, target)
    except ModelError:
        partial.unlink(missing_ok=True)
        raise
    except OSError as error:
        hint = "make room there; the same command then goes on where it stopped"
        message = f"{target} cannot be written: {error.strerror or error}"
        raise ModelError(message, hint) from error


def check_gguf(path: Path, config: ModelConfig) -> None:
    """Check that a file holds exactly the Llama of a model; no weight is read.

    Raises:
        ModelError: It is damaged, or of another model.
        UsageError: The package `gguf` is not installed.
    """
    gguf = _gguf()  # llama.cpp would abort the process on some damaged files
    expected = empty_model(config).state_dict()
    wanted = {stored.name: stored.shape for _, stored in _llama_tensors(config, expected, "f32")}
    numbers = _hyperparameters(config)
    try:
        reader = gguf.GGUFReader(path)
        found = {t.name: tuple(map(int, reversed(t.shape))) for t in reader.tensors}
        size = path.stat().st_size
        is_whole = all(tensor.data_offset + tensor.n_bytes <= size for tensor in reader.tensors)
        kind = reader.fields["general.architecture"].contents()
        stated = {name: float(reader.fields[f"llama.{name}"].contents()) for name in numbers}
        foreign = reader.fields.keys() - _KEYS - {f"llama.{name}" for name in numbers}
    except Exception as error:  # the reader fails in any way over a damaged file
        raise ModelError(f"{path} cannot be read as a GGUF file", INCOMPLETE) from error
    if not is_whole or found != wanted or kind != "llama" or foreign:
        raise ModelError(f"{path} does not hold the Llama of this model", INCOMPLETE)
    for name, number in numbers.items():
        if not math.isclose(stated[name], number, rel_tol=1e-5):
            raise ModelError(f"{path} is of another model: {name} is {stated[name]:g}", INCOMPLETE)


def _check_supported(folder: Path, config: ModelConfig) -> None:
    """Refuse what llama.cpp's Llama graph does not compute."""
    rope = (config.rope_parameters or {}).get("rope_type", "default")
    kinds = {"activations": (config.hidden_act, "silu"), "rotary positions": (rope, "default")}
    for part, (kind, supported) in kinds.items():
        if kind != supported:
            reason = f"{part} of type {kind}, not exported to llama.cpp"
            raise ModelError(f"the model in {folder} has {reason}", "use another --engine")


def _llama_tensors(
    config: ModelConfig, expected: Mapping[str, Tensor], form: GgufForm
) -> Iterator[tuple[str, _Stored]]:
    """Yield the tensors of the Llama with their names in a checkpoint."""
    layers = config.num_hidden_layers
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}

    def stored(ours: str, prefix: str, name: str, many_bits: bool) -> tuple[str, _Stored]:
        shape = tuple(expected[ours].shape)
        kind = _type_of(name, shape, form, many_bits)
        return ours, _Stored(f"{prefix}{name}.weight", shape, kind, heads.get(name, 0))

    yield stored("model.embed_tokens.weight", "", "token_embd", many_bits=False)
    yield stored("model.norm.weight", "", "output_norm", many_bits=False)
    yield stored("lm_head.weight", "", "output", many_bits=True)
    eighth = layers // 8
    for layer in range(layers):
        # Q4_K_M spends more bits on the first and last eighth, and every third layer between
        many_bits = layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
        for name, ours in _LAYER_NAMES.items():
            yield stored(f"model.layers.{layer}.{ours}.weight", f"blk.{layer}.", name, many_bits)


def _type_of(
    name: str, shape: tuple[int, ...], form: GgufForm, many_bits: bool
) -> "GGMLQuantizationType":
    gguf = _gguf()
    types = gguf.GGMLQuantizationType
    if len(shape) == 1 or form == "f32":
        wanted = [types.F32]
    elif form == "f16":
        wanted = []
    elif form == "q8_0":
        wanted = [types.Q8_0]
    elif many_bits and name in ("token_embd", "output", "attn_v", "ffn_down"):
        wanted = [types.Q6_K, types.Q8_0]
    else:
        wanted = [types.Q4_K, types.Q5_0]
    whole = (kind for kind in wanted if shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0)
    return next(whole, types.F16)  # type: ignore[no-any-return]


def _header(
    config: ModelConfig, stored: Iterable[_Stored], form: GgufForm, digests: list[str]
) -> bytes:
    """Return the header of a file with these tensors, with padding."""
    gguf = _gguf()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "header.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_name("Llama of a Video-Panda")
        kind = "ALL_F32" if form == "f32" else f"MOSTLY_{form.upper()}"
        writer.add_file_type(gguf.LlamaFileType[kind])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for name, number in _hyperparameters(config).items():
            add = writer.add_uint32 if isinstance(number, int) else writer.add_float32
            add(f"llama.{name}", number)
        writer.add_tokenizer_model("no_vocab")
        writer.add_array("videopanda.weights.sha256", digests)
        uint8 = np.dtype(np.uint8)
        for tensor in stored:
            shape = [*tensor.shape[:-1], tensor.row_bytes]
            writer.add_tensor_info(tensor.name, shape, uint8, tensor.nbytes, raw_dtype=tensor.form)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        header = path.read_bytes()
    return header + _padding(len(header))


def _hyperparameters(config: ModelConfig) -> dict[str, int | float]:
    """The hyperparameters by their keys without "llama."."""
    return {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": float((config.rope_parameters or {}).get("rope_theta") or 10000.0),
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "vocab_size": config.vocab_size,
    }


def _padding(length: int) -> bytes:
    return bytes(-length % _ALIGNMENT)


def _truncate_to_complete(file: BinaryIO, header: bytes, stored: Iterable[_Stored]) -> int:
    """Truncate a partial file to its complete tensors (none if its header differs); count them."""
    ends = list(accumulate((tensor.padded_bytes for tensor in stored), initial=len(header)))
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(len(header)) != header:
        file.truncate(0)
        file.write(header)
        return 0
    # a power cut may have lost the end
    kept = sum(end <= size - _UNSYNCED for end in ends[1:])
    file.truncate(ends[kept])
    return kept


def _write(
    file: BinaryIO,
    stored: Mapping[str, _Stored],
    kept: int,
    sources: Iterator[tuple[str, Tensor]],
    threads: int,
    progress: Progress | None,
) -> None:
    """Append all tensors but the first `kept`."""
    total = sum(tensor.padded_bytes for tensor in stored.values())
    written = unsynced = 0
    llama = ((stored[name], source) for name, source in sources if name in stored)
    with ThreadPoolExecutor(threads) as pool:
        for number, (tensor, source) in enumerate(llama):
            if number >= kept:
                if unsynced + tensor.padded_bytes > _UNSYNCED:
                    file.flush()
                    os.fsync(file.fileno())
                    unsynced = 0
                file.write(_bytes_of(tensor, source, pool).data)
                file.write(_padding(tensor.nbytes))
                unsynced += tensor.padded_bytes
            written += tensor.padded_bytes
            if progress:
                progress(written, total)


def _bytes_of(tensor: _Stored, source: Tensor, pool: ThreadPoolExecutor) -> NDArray[np.uint8]:
    """Return the encoded tensor: (rows, bytes per row)."""
    data = np.empty((tensor.rows, tensor.row_bytes), np.uint8)
    matrix = source.reshape(tensor.rows, -1)
    order = torch.arange(tensor.rows)
    if tensor.heads:
        # rotary embeddings rotate pairs: in transformers of the halves of a head, in llama.cpp of
        # neighbours, so the rows of the halves are interleaved
        order = order.view(tensor.heads, 2, -1).transpose(1, 2).flatten()
    step = max(1, _CHUNK // tensor.shape[-1])

    def convert(start: int) -> None:
        rows = matrix[order[start : start + step]]
        data[start : start + step] = _encode(tensor, rows.float())

    list(pool.map(convert, range(0, tensor.rows, step)))  # raises what `convert` raised
    return data


def _encode(tensor: _Stored, values: Tensor) -> NDArray[np.uint8]:
    """Encode float32 rows (n, width) of a tensor: (n, bytes per row)."""
    types = _gguf().GGMLQuantizationType
    plain = {types.F32: torch.float32, types.F16: torch.float16}.get(tensor.form)
    numbers = values.to(plain or torch.float32)
    if numbers.numel() and not all(end.isfinite() for end in torch.aminmax(numbers)):
        raise ModelError(f"tensor {tensor.name} holds numbers that are not finite", INCOMPLETE)
    if plain:
        return numbers.numpy().view(np.uint8)
    encoded = np.empty((len(numbers), tensor.row_bytes), np.uint8)
    written = llama_library().ggml_quantize_chunk(
        tensor.form.value, numbers.data_ptr(), encoded.ctypes.data, 0, *numbers.shape, None
    )
    assert written == encoded.nbytes
    return encoded
