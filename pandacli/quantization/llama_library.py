"""Bind the C functions of llama.cpp with ctypes; torch must be imported first, for its OpenMP.

The library comes from the wheel of `xllamacpp`, whose Python API takes no embeddings. Structs are
passed by value and change between versions, so exactly one version is accepted, and the layout is
checked by the defaults that the library reports.
"""

import logging
import os
from ctypes import (
    CDLL,
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint32,
    c_void_p,
)
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pandacli.errors import UsageError

logger = logging.getLogger(__name__)

PACKAGE, VERSION = "xllamacpp", "2026.10.11549"  # the version whose functions are declared here
INSTALL_COMMAND = f"pip install gguf {PACKAGE}=={VERSION}"
INSTALL = f"install it with: {INSTALL_COMMAND}"

# polled between two nodes of the graph; True aborts the computation
AbortCallback = CFUNCTYPE(c_bool, c_void_p)
ProgressCallback = CFUNCTYPE(c_bool, c_float, c_void_p)  # of a load, a share; False aborts it
_LogCallback = CFUNCTYPE(None, c_int, c_char_p, c_void_p)
_WARNING = 3  # of ggml_log_level; errors are above


def _fields(*groups: tuple[Any, str]) -> list[tuple[str, Any]]:
    """(name, value) of fields, from each value and the names of those that have it."""
    return [(name, value) for value, names in groups for name in names.split()]


class Batch(Structure):
    """`llama_batch`: n_tokens positions to read, either ids or embeddings."""

    _fields_ = [
        ("n_tokens", c_int32),
        ("token", c_void_p),  # int32 (n_tokens,), or null
        ("embd", c_void_p),  # float32 (n_tokens, hidden), or null
        ("pos", c_void_p),  # int32 (n_tokens,)
        ("n_seq_id", c_void_p),  # int32 (n_tokens,)
        ("seq_id", c_void_p),  # pointers (n_tokens,) to int32
        ("logits", c_void_p),  # int8 (n_tokens,): whether the logits behind it are wanted
    ]


class ModelParams(Structure):
    """`llama_model_params`, with a reserve for longer structs."""

    _fields_ = _fields(
        (c_void_p, "devices tensor_buft_overrides"),
        (c_int32, "n_gpu_layers"),
        (c_int, "split_mode load_mode lazy_mode"),
        (c_int32, "main_gpu"),
        (c_void_p, "tensor_split progress_callback progress_callback_user_data kv_overrides"),
        (c_bool, "vocab_only check_tensors use_extra_bufts no_host no_alloc load_mtp"),
        (c_uint8 * 256, "reserve"),
    )


class ContextParams(Structure):
    """`llama_context_params`, with a reserve for longer structs."""

    _fields_ = _fields(
        (c_uint32, "n_ctx n_batch n_ubatch n_seq_max n_rs_seq n_outputs_max"),
        (c_uint32, "n_outputs_max_per_seq"),
        (c_int32, "n_threads n_threads_batch"),
        (c_int, "ctx_type rope_scaling_type pooling_type attention_type flash_attn_type"),
        (c_float, "rope_freq_base rope_freq_scale yarn_ext_factor yarn_attn_factor"),
        (c_float, "yarn_beta_fast yarn_beta_slow"),
        (c_uint32, "yarn_orig_ctx"),
        (c_float, "defrag_thold"),
        (c_void_p, "cb_eval cb_eval_user_data"),
        (c_int, "type_k type_v"),
        (c_size_t, "moe_cache_size"),
        (c_void_p, "abort_callback abort_callback_data"),
        (c_bool, "embeddings offload_kqv no_perf op_offload swa_full kv_unified"),
        (c_void_p, "samplers"),
        (c_size_t, "n_samplers"),
        (c_void_p, "ctx_other"),
        (c_uint8 * 256, "reserve"),
    )


# that llama.cpp reports, to check the struct layout
_DEFAULTS: dict[type[Structure], list[tuple[str, Any]]] = {
    ModelParams: _fields(
        (None, "devices kv_overrides"),
        (-1, "n_gpu_layers load_mode"),
        (0, "main_gpu"),
        (1, "split_mode lazy_mode"),
        (False, "vocab_only check_tensors no_alloc"),
        (True, "use_extra_bufts"),
    ),
    ContextParams: _fields(
        (512, "n_ctx n_ubatch"),
        (2048, "n_batch"),
        (4, "n_threads n_threads_batch"),
        (0, "n_outputs_max n_samplers"),
        (1, "n_seq_max type_k type_v"),
        (-1, "rope_scaling_type pooling_type attention_type flash_attn_type"),
        (-1.0, "yarn_ext_factor defrag_thold"),
        (None, "abort_callback ctx_other"),
        (True, "offload_kqv no_perf"),
        (False, "kv_unified"),
    ),
}

_STATE_FILE = [c_void_p, c_char_p, c_int32, c_void_p, c_size_t]  # context, path, sequence, tokens
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "ggml_quantize_chunk": (c_size_t, [c_int, *[c_void_p] * 2, *[c_int64] * 3, c_void_p]),
    "llama_context_default_params": (ContextParams, []),
    "llama_decode": (c_int32, [c_void_p, Batch]),
    "llama_free": (None, [c_void_p]),
    "llama_get_logits_ith": (POINTER(c_float), [c_void_p, c_int32]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_init_from_model": (c_void_p, [c_void_p, ContextParams]),
    "llama_log_set": (None, [_LogCallback, c_void_p]),
    "llama_memory_seq_cp": (None, [c_void_p, *[c_int32] * 4]),
    "llama_memory_seq_pos_max": (c_int32, [c_void_p, c_int32]),
    "llama_memory_seq_rm": (c_bool, [c_void_p, c_int32, c_int32, c_int32]),
    "llama_model_default_params": (ModelParams, []),
    "llama_model_free": (None, [c_void_p]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_model_load_from_file": (c_void_p, [c_char_p, ModelParams]),
    "llama_model_n_embd": (c_int32, [c_void_p]),
    "llama_set_abort_callback": (None, [c_void_p, AbortCallback, c_void_p]),
    "llama_state_seq_get_data": (c_size_t, [c_void_p, c_void_p, c_size_t, c_int32]),
    "llama_state_seq_get_size": (c_size_t, [c_void_p, c_int32]),
    "llama_state_seq_load_file": (c_size_t, [*_STATE_FILE, POINTER(c_size_t)]),
    "llama_state_seq_save_file": (c_size_t, _STATE_FILE),
    "llama_state_seq_set_data": (c_size_t, [c_void_p, c_void_p, c_size_t, c_int32]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
}


@cache
def llama_library() -> CDLL:
    """Load llama.cpp, declare its functions, and send its log to this module's logger.

    Raises:
        UsageError: It is not installed, in another version, or cannot be used on this machine.
    """
    path = _find()
    # otherwise an abort starts a debugger to print a backtrace
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    try:
        library = CDLL(str(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        message = f"llama.cpp cannot be used here: {error}"
        raise UsageError(message, "use another --engine") from error
    _check_layout(library)
    library.llama_log_set(_LOG_CALLBACK, None)
    return library


def _find() -> Path:
    try:
        installed = version(PACKAGE)
    except PackageNotFoundError as error:
        raise UsageError("llama.cpp is not installed", INSTALL) from error
    if installed != VERSION:
        raise UsageError(f"{PACKAGE} {installed} is not the {VERSION} that panda can use", INSTALL)
    spec = find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    # not imported: the package would start the Python side of its server
    found = [path for folder in folders or () for path in Path(folder).glob(f"{PACKAGE}.*so")]
    if not found:
        raise UsageError(f"{PACKAGE} {installed} is installed without its library", INSTALL)
    return found[0]


def _check_layout(library: CDLL) -> None:
    for struct, defaults in _DEFAULTS.items():
        kind = "model" if struct is ModelParams else "context"
        reported = getattr(library, f"llama_{kind}_default_params")()
        if wrong := [name for name, value in defaults if getattr(reported, name) != value]:
            settings = f"its settings in another way: {', '.join(wrong)}"
            raise UsageError(f"this build of llama.cpp lays out {settings}", INSTALL)


def _on_log(level: int, text: bytes, _: object) -> None:
    if level >= _WARNING:
        logger.debug("%s", text.decode(errors="replace").rstrip())


_LOG_CALLBACK = _LogCallback(_on_log)  # C holds no reference
