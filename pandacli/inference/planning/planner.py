"""Plan a run: resolve the model once, then choose quantisation, backend and devices.

With "auto" on CUDA: the most bits that fit into free memory, 8 only on GPUs with int8 cores. On the
CPU: full precision for a narrow model such as tiny, otherwise 8 bits, or 4 if 8 do not fit. The
backend is the first in the tables below that can be used.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from pandacli import checkpoints
from pandacli.checkpoints.artifacts import artifacts_of
from pandacli.errors import DeviceError, ModelError, UsageError
from pandacli.inference.backends import has_4bit_kernel, has_int8_kernels, is_usable, require_llama
from pandacli.inference.planning.devices import (
    Needed,
    Placement,
    Sizes,
    bytes_of,
    free_memory,
    has_int8_cores,
    memory_errors,
    numerics,
    pick_devices,
    pick_dtype,
    place,
    sizes_of,
)
from pandacli.inference.spec import ENGINES, Quant, RunSpec
from pandacli.units import size

if TYPE_CHECKING:
    import torch

    from pandacli.checkpoints.artifacts import Artifact, Form
    from pandacli.modeling.configuration import ModelConfig

    Free = dict[torch.device, int]  # devices of one type with their free bytes

_WIDE = 1024  # hidden size from which speed decides; narrower models are fast in any form
_BLOCK = 64  # weights per scale of bitsandbytes in 4 bits; on the CPU a row must be whole blocks
_LESS_MEMORY = "close other programs, look at fewer --frames, or try panda with --model tiny"
_QUANTS: tuple[Quant, ...] = get_args(Quant)  # most bits first


@dataclass(frozen=True)
class ExecutionForm:
    """How a language model is stored and computed."""

    quant: Quant
    backend: str  # "torch", "bitsandbytes" or "llama"
    form: "Form | None"  # the stored form that it is loaded from; None for the checkpoint itself


_WIDENED = ExecutionForm("4bit", "torch", "nf4")  # widened to int8 at load

# The forms for each type of device, best first, by measurements of a 7B's layers
# (docs/performance.md): for 8 bits on x86 CPUs with AVX2 or AVX-512, torch's int8 kernels prefill
# two to three times as fast as llama.cpp; for 4 bits llama.cpp is faster than bitsandbytes, whose
# fused kernel needs AVX512-BF16. On other CPUs, such as ARM, which were not measured, torch has few
# kernels, so llama.cpp comes first.
_FORMS = {
    "cuda": (
        ExecutionForm("none", "torch", None),
        ExecutionForm("8bit", "bitsandbytes", "int8"),
        ExecutionForm("4bit", "bitsandbytes", "nf4"),
    ),
    "cpu": (
        ExecutionForm("none", "torch", None),
        ExecutionForm("8bit", "torch", "int8"),
        ExecutionForm("8bit", "llama", "q8_0"),
        ExecutionForm("8bit", "bitsandbytes", "int8"),
        ExecutionForm("4bit", "llama", "q4_k_m"),
        _WIDENED,
        ExecutionForm("4bit", "bitsandbytes", "nf4"),
    ),
}


@dataclass(frozen=True)
class Choice(ExecutionForm):
    """How to run a model of some configuration on this machine."""

    placement: Placement
    needs: int = 0  # bytes, with a KV cache of the full context
    free: int = 0  # bytes on the devices of the placement
    hint: str = _LESS_MEMORY  # what to do if memory runs out nevertheless

    @property
    def dtype(self) -> "torch.dtype":
        return pick_dtype(self.placement.devices)

    @property
    def device(self) -> str:
        """The value of `--device` for this placement."""
        devices = self.placement.devices
        return str(devices[0]) if len(devices) == 1 else "cuda"


@dataclass(frozen=True, kw_only=True)
class Plan(Choice):
    """A resolved `RunSpec`: all that loading needs to know."""

    model: checkpoints.ResolvedModel
    config: "ModelConfig"  # not quantised where `form` is set

    @property
    def numerics(self) -> dict[str, Any]:
        """`Panda.numerics` of the model that this loads."""
        devices = list(map(str, self.placement.devices))
        return numerics(self.quant, self.backend, str(self.dtype).removeprefix("torch."), devices)


def resolve_run(spec: RunSpec, model: checkpoints.ResolvedModel | None = None) -> Plan:
    """Resolve what to run into a plan.

    Raises a `ModelError` for a missing or damaged model, or if only other artifacts are left, and
    the errors of `pick_devices` and `choose`.
    """
    model = model or checkpoints.resolve(spec.model)  # a missing one fails before torch is imported
    devices = pick_devices(spec.device)
    from pandacli.modeling.checkpoint import read_config

    config = read_config(model.folder)
    stored = None
    if model.kind == "artifact":
        stored = {artifact.form: artifact.quant for artifact in artifacts_of(model.name)}
        if spec.quant not in ("auto", *stored.values()):
            raise missing_artifact(model.name, spec.quant)
        # artifacts of bitsandbytes carry it, and sizes are those of the model as published
        config.quantization_config = None
    choice = choose(spec.quant, spec.backend, config, devices, stored=stored)
    if stored is not None and choice.form not in stored:
        raise missing_artifact(model.name, choice.quant)
    return Plan(**vars(choice), model=model, config=config)


def missing_artifact(name: str, quant: str) -> ModelError:
    message = f"only other quantised copies of {name} are here, and not the original"
    return ModelError(message, "get it with:", command=f"panda pull {name} --quant {quant}")


class Forecast(NamedTuple):
    """The quantised artifact that a published model will be run from."""

    form: "Form"
    bytes: int  # approximate


def forecast(spec: RunSpec, artifacts: "Iterable[Artifact]" = ()) -> Forecast | None:
    """Predict, before a download, the artifact that a published model will be run from.

    One of `artifacts` is chosen if possible, for a checkpoint of which only these are on disk. None
    if the checkpoint is run as it is.
    """
    devices = pick_devices(spec.device)
    from pandacli.modeling.configuration import ModelConfig
    from pandacli.quantization.conversion import copy_bytes

    config = ModelConfig()  # all published models have these sizes
    stored = {artifact.form for artifact in artifacts}
    form = choose(spec.quant, spec.backend, config, devices, stored=stored or None).form
    return Forecast(form, copy_bytes(config, form)) if form else None


@memory_errors(_LESS_MEMORY)
def choose(
    quant: str,
    backend: str,
    config: "ModelConfig",
    devices: "Sequence[torch.device]",
    *,
    stored: Collection[str] | None = None,
) -> Choice:
    """Choose form and devices for `--quant` and `--engine`, each of which may be "auto".

    A quantisation given by name is used whatever the free memory is. `stored` are the forms of the
    artifacts on disk, if the checkpoint itself is not.

    Raises a `UsageError` for an unknown name, or options that do not go together on these devices,
    and a `DeviceError` if with auto not even the fewest bits fit into the free memory.
    """
    if backend not in ENGINES:
        known = f"the engines are {', '.join(ENGINES)}"
        raise UsageError(f"no engine is called '{backend}'", known)
    if quant not in ("auto", *_QUANTS):
        known = "there are auto, 4bit, 8bit and none"
        raise UsageError(f"no quantisation is called '{quant}'", known)
    sizes = sizes_of(config)
    tried: list[tuple[ExecutionForm, Free]] = []
    for kind, group in groupby(devices, key=lambda device: device.type):
        forms = _allowed(quant, backend, config, kind, stored)
        if not forms:
            continue
        free = {device: free_memory(device) for device in group}
        tried += [(form, free) for form in forms]
        for fast_only in (True, False):
            for _, equal in groupby(forms, key=lambda form: form.quant):
                fitting = [
                    _choice(form, sizes, free, placement)
                    for form in equal
                    if (placement := _place(form, sizes, free, fast_only=fast_only))
                ]
                if fitting:
                    return _usable(fitting, config, backend, convertible=stored is None)
        if quant != "auto":
            first = Placement((next(iter(free)),))
            forced = [_choice(form, sizes, free, first) for form in forms]
            return _usable(forced, config, backend, convertible=stored is None)
    if tried:
        raise _too_little_memory(tried, sizes)
    if stored is not None:  # the caller says which artifact is missing
        return choose(quant, backend, config, devices)
    if quant == "none":
        raise UsageError(f"--engine {backend} is for 4 and 8 bits", "add --quant 8bit or 4bit")
    bits = "few bits" if quant == "auto" else quant
    where = "the CPU" if devices[0].type == "cpu" else "CUDA"
    hint = "use --engine bitsandbytes, or --device cpu"
    raise UsageError(f"--engine {backend} does not run {bits} on {where}", hint)


def _allowed(
    quant: str, backend: str, config: "ModelConfig", kind: str, stored: Collection[str] | None
) -> list[ExecutionForm]:
    """The forms that the options allow on a type of device, best first."""
    if given := config.quantization_config:  # saved so by `save_pretrained`
        fixed: Quant = "4bit" if given.get("load_in_4bit") else "8bit"
        if quant not in ("auto", fixed) or backend not in ("auto", "bitsandbytes"):
            wanted = f"--quant {quant}" if quant not in ("auto", fixed) else f"--engine {backend}"
            reason = f"{wanted} cannot change that"
            hint = "use the checkpoint that it was made from"
            raise UsageError(f"the checkpoint is stored in {fixed} by bitsandbytes: {reason}", hint)
        return [ExecutionForm(fixed, "bitsandbytes", None)]
    if backend == "llama":
        require_llama()
    forms = [form for form in _FORMS[kind] if quant in ("auto", form.quant)]
    forms = [form for form in forms if backend in ("auto", form.backend)]
    wide = config.hidden_size >= _WIDE
    if quant == "auto" and kind == "cpu" and wide:  # int8 is twice as fast, nearly as exact
        forms = [form for form in forms if form.quant != "none"]
    if kind == "cpu" and backend == "auto" and not has_int8_kernels():
        forms.sort(key=lambda form: (_QUANTS.index(form.quant), form.backend != "llama"))
    if stored is not None:
        return [form for form in forms if form.form in stored]
    if backend == "auto":
        forms = [form for form in forms if form != _WIDENED and (wide or form.backend != "llama")]
        if any(form.backend == "llama" for form in forms) and not is_usable("llama"):
            forms = [form for form in forms if form.backend != "llama"]
    return forms


def _needed(form: ExecutionForm, sizes: Sizes, devices: "Iterable[torch.device]") -> Needed:
    return bytes_of(sizes, form.quant, form.backend, pick_dtype(list(devices)))


def _place(
    form: ExecutionForm, sizes: Sizes, free: "Free", *, fast_only: bool = True
) -> Placement | None:
    """Place a form, by default on devices where it is as fast as its bits promise."""
    if fast_only and (form.quant, form.backend) == ("8bit", "bitsandbytes"):
        free = {device: room for device, room in free.items() if has_int8_cores(device)}
    return place(_needed(form, sizes, free), list(free.items())) if free else None


def _choice(form: ExecutionForm, sizes: Sizes, free: "Free", placement: Placement) -> Choice:
    needs = _needed(form, sizes, placement.devices).total
    room = sum(free[device] for device in placement.devices)
    hint = _smaller_form_hint(form, sizes, free)
    return Choice(**vars(form), placement=placement, needs=needs, free=room, hint=hint)


def _smaller_form_hint(form: ExecutionForm, sizes: Sizes, free: "Free") -> str:
    if form.form is None and form.quant != "none":  # of a checkpoint that is stored quantised
        return _LESS_MEMORY
    forms = [other for other in _FORMS[next(iter(free)).type] if other != _WIDENED]
    for quant in _QUANTS[_QUANTS.index(form.quant) + 1 :]:
        smaller = [other for other in forms if other.quant == quant]
        largest = max(smaller, key=lambda other: _needed(other, sizes, free).total)
        if _place(largest, sizes, free):
            amount = size(_needed(largest, sizes, free).total)
            return f"{quant[0]} bits need {amount} and would fit: add --quant {quant}"
    return _LESS_MEMORY


def _too_little_memory(tried: "list[tuple[ExecutionForm, Free]]", sizes: Sizes) -> DeviceError:
    """Return the error that nothing fits, for the type of device that lacks the least."""
    found = [
        (_needed(form, sizes, free).total, sum(free.values()), form, free) for form, free in tried
    ]
    needs, room, form, free = min(found, key=lambda each: each[0] - each[1])
    even = "" if form.quant == "none" else f" even in {form.quant[0]} bits"
    available = f"{size(room)} are free on {Placement(tuple(free))}"
    hint = "free some memory, or try panda with --model tiny"
    return DeviceError(f"the model needs {size(needs)}{even}, and {available}", hint)


def _usable(
    choices: list[Choice], config: "ModelConfig", backend: str, *, convertible: bool
) -> Choice:
    """Return the first of several choices of one quantisation whose backend can be used.

    A UsageError is raised if only a very slow backend is left and others could be installed, which
    takes a `convertible` checkpoint, or if it does not support the model's widths.
    """
    choice = next((choice for choice in choices if is_usable(choice.backend)), choices[0])
    if (choice.quant, choice.backend) != ("4bit", "bitsandbytes") or not choice.placement.on_cpu:
        return choice
    chosen_by_us = backend == "auto" and choice.form is not None and convertible
    if chosen_by_us and config.hidden_size >= _WIDE and not has_4bit_kernel():
        from pandacli.quantization.llama_library import INSTALL_COMMAND

        raise UsageError(
            "in 4 bits this CPU is fast only with llama.cpp, which is not installed",
            "use --quant 8bit, which is fast but larger, or --engine bitsandbytes, which is slow,"
            " or install it with:",
            command=INSTALL_COMMAND,
        )
    widths = config.hidden_size, config.intermediate_size
    if any(width % _BLOCK for width in widths):
        reason = f"its widths, {widths[0]} and {widths[1]}, are not multiples of {_BLOCK}"
        message = f"this model cannot be put into 4 bits on a CPU: {reason}"
        raise UsageError(message, "use --quant 8bit or none")
    return choice
