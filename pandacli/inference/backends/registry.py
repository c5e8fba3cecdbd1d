"""The forms that each backend can run a model in, in order of preference.

The order follows measurements of a 7B's layers (`docs/performance.md`): for 8 bits on x86 CPUs with
AVX2 or AVX-512, torch's int8 kernels prefill two to three times as fast as llama.cpp; for 4 bits
llama.cpp is faster than bitsandbytes, whose fused kernel needs AVX512-BF16. CPUs without AVX2, such
as ARM, were not measured; llama.cpp has kernels for them, and torch's are few.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, get_args

from pandacli.errors import UsageError
from pandacli.inference.spec import ENGINES, Quant

if TYPE_CHECKING:
    from pandacli.checkpoints.artifacts import Form


@dataclass(frozen=True)
class ExecutionForm:
    """How a language model is stored and computed.

    Attributes:
        quant: "none", "8bit" or "4bit".
        backend: "torch", "bitsandbytes" or "llama".
        form: The stored form that it is loaded from; None for the checkpoint itself.
    """

    quant: Quant
    backend: str
    form: "Form | None"


_CUDA_FORMS = (
    ExecutionForm("none", "torch", None),
    ExecutionForm("8bit", "bitsandbytes", "int8"),
    ExecutionForm("4bit", "bitsandbytes", "nf4"),
)
_WIDENED = ExecutionForm("4bit", "torch", "nf4")  # widened to int8 at load
_CPU_FORMS = (
    ExecutionForm("none", "torch", None),
    ExecutionForm("8bit", "torch", "int8"),
    ExecutionForm("8bit", "llama", "q8_0"),
    ExecutionForm("8bit", "bitsandbytes", "int8"),
    ExecutionForm("4bit", "llama", "q4_k_m"),
    _WIDENED,
    ExecutionForm("4bit", "bitsandbytes", "nf4"),
)


def candidates(
    device: str, quant: str, backend: str, *, wide: bool, stored: "frozenset[Form] | None" = None
) -> list[ExecutionForm]:
    """List the forms that `--quant` and `--engine` allow on a type of device, best first.

    Args:
        device: "cpu" or "cuda".
        quant: A `Quant`, or "auto".
        backend: One of `ENGINES`.
        wide: Whether the model is large enough for speed to matter. With "auto" on the CPU a wide
            model is always quantised, as int8 is twice as fast as float32 and nearly as exact, and
            a narrow one never runs on llama.cpp.
        stored: The quantised artifacts on disk, if the checkpoint itself is not.

    Raises:
        UsageError: An unknown name, or llama.cpp is asked for and cannot be used.
    """
    if backend not in ENGINES:
        raise UsageError(
            f"no engine is called '{backend}'", f"the engines are {', '.join(ENGINES)}"
        )
    if quant not in ("auto", *get_args(Quant)):
        raise UsageError(
            f"no quantisation is called '{quant}'", "there are auto, 4bit, 8bit and none"
        )
    if backend == "llama":
        require_llama()
    forms = list(_CPU_FORMS if device == "cpu" else _CUDA_FORMS)
    if device == "cpu" and backend == "auto" and not has_int8_kernels():
        forms.sort(key=lambda form: (-_bits(form), form.backend != "llama"))
    forms = [
        form
        for form in forms
        if quant in ("auto", form.quant)
        and backend in ("auto", form.backend)
        and not (quant == "auto" and device == "cpu" and wide and form.quant == "none")
    ]
    if stored is not None:
        return [form for form in forms if form.form in stored]
    if backend == "auto":
        forms = [form for form in forms if form != _WIDENED and (wide or form.backend != "llama")]
    return forms


def refusal(device: str, quant: str, backend: str) -> UsageError:
    """Return the error for options without `candidates`."""
    if quant == "none":
        return UsageError(f"--engine {backend} is for 4 and 8 bits", "add --quant 8bit or 4bit")
    bits = "few bits" if quant == "auto" else quant
    return UsageError(
        f"--engine {backend} does not run {bits} on {'the CPU' if device == 'cpu' else 'CUDA'}",
        "use --engine bitsandbytes, or --device cpu",
    )


def has_int8_kernels() -> bool:
    """Whether torch's int8 kernels (fbgemm) support this CPU: x86 with AVX2 or AVX-512."""
    import torch

    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def has_4bit_kernel() -> bool:
    """Whether bitsandbytes has a fused 4-bit kernel for this CPU; otherwise it is very slow."""
    if not is_usable("bitsandbytes"):
        return False
    from bitsandbytes.functional import has_avx512bf16

    return bool(has_avx512bf16())


def require_llama() -> None:
    """Check that llama.cpp can be used.

    Raises:
        UsageError: It is not installed, or does not work on this machine.
    """
    from pandacli.quantization.llama_library import INSTALL, llama_library

    if find_spec("gguf") is None:
        raise UsageError("the package gguf, which llama.cpp needs, is not installed", INSTALL)
    llama_library()


def is_usable(backend: str) -> bool:
    """Whether a backend can be used on this machine."""
    try:
        if backend == "llama":
            require_llama()
        elif backend == "bitsandbytes":
            with quiet_libraries():
                import bitsandbytes  # noqa: F401
    except Exception:  # whatever prevents the import
        return False
    return True


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep progress bars, log messages and known warnings of libraries off stderr.

    Of warnings, only those about torch's own use of `torch.jit` are hidden.
    """
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("accelerate", "bitsandbytes")]
    levels = [logger.level for logger in loggers]
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    # at every 8-bit product bitsandbytes says that it casts its inputs
    casting = logging.getLogger("bitsandbytes.autograd._functions")
    if not casting.filters:
        casting.addFilter(lambda record: "inputs will be cast" not in str(record.msg))
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _bits(form: ExecutionForm) -> int:
    return {"none": 16, "8bit": 8, "4bit": 4}[form.quant]
