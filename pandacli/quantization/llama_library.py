"""Bind the C functions of llama.cpp with ctypes.

The library comes from the wheel of `xllamacpp`, whose Python API takes no embeddings. llama.cpp
passes structs by value and changes them between versions, so exactly one version is accepted, and
the struct layout is checked against the defaults that the library reports.

torch must be imported first, because the library uses its OpenMP runtime.
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

PACKAGE, VERSION = "xllamacpp", "2026.10.11549"
"""The package that carries the library, and the version whose functions are declared here."""

INSTALL = "install it with: pip install 'pandacli[llama]'"

AbortCallback = CFUNCTYPE(c_bool, c_void_p)
"""Polled between two nodes of the graph; True aborts the computation."""

_LogCallback = CFUNCTYPE(None, c_int, c_char_p, c_void_p)

_WARNING = 3  # of ggml_log_level; errors are above


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

    _fields_ = [
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int),
        ("load_mode", c_int),
        ("lazy_mode", c_int),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
        ("reserve", c_uint8 * 256),
    ]


class ContextParams(Structure):
    """`llama_context_params`, with a reserve for longer structs."""

    _fields_ = [
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int),
        ("rope_scaling_type", c_int),
        ("pooling_type", c_int),
        ("attention_type", c_int),
        ("flash_attn_type", c_int),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int),
        ("type_v", c_int),
        ("moe_cache_size", c_size_t),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
        ("reserve", c_uint8 * 256),
    ]


_DEFAULTS: dict[type[Structure], dict[str, object]] = {
    ModelParams: {
        "devices": None,
        "n_gpu_layers": -1,
        "split_mode": 1,
        "load_mode": -1,
        "lazy_mode": 1,
        "main_gpu": 0,
        "kv_overrides": None,
        "vocab_only": False,
        "check_tensors": False,
        "use_extra_bufts": True,
        "no_alloc": False,
    },
    ContextParams: {
        "n_ctx": 512,
        "n_batch": 2048,
        "n_ubatch": 512,
        "n_seq_max": 1,
        "n_outputs_max": 0,
        "n_threads": 4,
        "n_threads_batch": 4,
        "rope_scaling_type": -1,
        "pooling_type": -1,
        "attention_type": -1,
        "flash_attn_type": -1,
        "yarn_ext_factor": -1.0,
        "defrag_thold": -1.0,
        "type_k": 1,
        "type_v": 1,
        "abort_callback": None,
        "offload_kqv": True,
        "no_perf": True,
        "kv_unified": False,
        "n_samplers": 0,
        "ctx_other": None,
    },
}
"""Defaults that llama.cpp reports, to check the struct layout."""

_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "ggml_quantize_chunk": (
        c_size_t,
        [c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p],
    ),
    "llama_context_default_params": (ContextParams, []),
    "llama_decode": (c_int32, [c_void_p, Batch]),
    "llama_free": (None, [c_void_p]),
    "llama_get_logits_ith": (POINTER(c_float), [c_void_p, c_int32]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_init_from_model": (c_void_p, [c_void_p, ContextParams]),
    "llama_log_set": (None, [_LogCallback, c_void_p]),
    "llama_memory_seq_cp": (None, [c_void_p, c_int32, c_int32, c_int32, c_int32]),
    "llama_memory_seq_pos_max": (c_int32, [c_void_p, c_int32]),
    "llama_memory_seq_rm": (c_bool, [c_void_p, c_int32, c_int32, c_int32]),
    "llama_model_default_params": (ModelParams, []),
    "llama_model_free": (None, [c_void_p]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_model_load_from_file": (c_void_p, [c_char_p, ModelParams]),
    "llama_model_meta_val_str": (c_int32, [c_void_p, c_char_p, c_char_p, c_size_t]),
    "llama_model_n_embd": (c_int32, [c_void_p]),
    "llama_set_abort_callback": (None, [c_void_p, AbortCallback, c_void_p]),
    "llama_state_seq_get_data": (c_size_t, [c_void_p, c_void_p, c_size_t, c_int32]),
    "llama_state_seq_get_size": (c_size_t, [c_void_p, c_int32]),
    "llama_state_seq_load_file": (
        c_size_t,
        [c_void_p, c_char_p, c_int32, c_void_p, c_size_t, POINTER(c_size_t)],
    ),
    "llama_state_seq_save_file": (
        c_size_t,
        [c_void_p, c_char_p, c_int32, c_void_p, c_size_t],
    ),
    "llama_state_seq_set_data": (c_size_t, [c_void_p, c_void_p, c_size_t, c_int32]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
}


@cache
def llama_library() -> CDLL:
    """Load llama.cpp, declare its functions, and redirect its log.

    Its warnings and errors go to this module's logger at level DEBUG.

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
        raise UsageError(
            f"llama.cpp cannot be used here: {error}", "use another --engine"
        ) from error
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
    # not imported: the package would start its server's Python face
    found = [path for folder in folders or () for path in Path(folder).glob(f"{PACKAGE}.*so")]
    if not found:
        raise UsageError(f"{PACKAGE} {installed} is installed without its library", INSTALL)
    return found[0]


def _check_layout(library: CDLL) -> None:
    for struct, defaults in _DEFAULTS.items():
        function = (
            library.llama_model_default_params
            if struct is ModelParams
            else library.llama_context_default_params
        )
        reported = function()
        wrong = [name for name, value in defaults.items() if getattr(reported, name) != value]
        if wrong:
            raise UsageError(
                f"this build of llama.cpp lays out its settings in another way: {', '.join(wrong)}",
                INSTALL,
            )


def _on_log(level: int, text: bytes, _: object) -> None:
    if level >= _WARNING:
        logger.debug("%s", text.decode(errors="replace").rstrip())


_LOG_CALLBACK = _LogCallback(_on_log)  # C holds no reference
