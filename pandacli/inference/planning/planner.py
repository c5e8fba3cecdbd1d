"""Plan a run: resolve the model once, then choose quantisation, backend and devices.

With "auto" on CUDA: the most bits that fit into free memory, 8 only on GPUs with int8 cores. On the
CPU: full precision for a narrow model such as tiny, otherwise 8 bits, or 4 where 8 do not fit. The
backend is the first of `registry.candidates` that can be used.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from pandacli import checkpoints
from pandacli.checkpoints.artifacts import artifacts_of
from pandacli.errors import DeviceError, ModelError, UsageError
from pandacli.inference.backends.registry import (
    ExecutionForm,
    candidates,
    has_4bit_kernel,
    is_usable,
    refusal,
)
from pandacli.inference.planning.devices import (
    Needed,
    Placement,
    Sizes,
    bytes_of,
    free_memory,
    has_int8_cores,
    memory_errors,
    pick_devices,
    pick_dtype,
    place,
    sizes_of,
)
from pandacli.inference.spec import Quant, RunSpec
from pandacli.units import size

if TYPE_CHECKING:
    import torch

    from pandacli.checkpoints.artifacts import Artifact, Form
    from pandacli.modeling.configuration_videopanda import VideoPandaConfig

    Room = Sequence[tuple[torch.device, int]]
    """Devices of one type with their free bytes."""

_WIDE = 1024  # hidden size from which speed decides; narrower models are fast in any form
_BLOCK = 64  # weights per scale of bitsandbytes in 4 bits; on the CPU a row must be whole blocks
_LESS_MEMORY = "close other programs, look at fewer --frames, or try panda with --model tiny"


@dataclass(frozen=True)
class Choice(ExecutionForm):
    """How to run a model of some configuration on this machine.

    Attributes:
        placement: Its devices.
        needs: Bytes of memory, with a KV cache of the full context.
        free: Bytes that are free on these devices.
        hint: What to do if memory runs out nevertheless.
    """

    placement: Placement
    needs: int = 0
    free: int = 0
    hint: str = _LESS_MEMORY

    @property
    def dtype(self) -> "torch.dtype":
        """The dtype to compute in."""
        return pick_dtype(self.placement.devices)

    @property
    def device(self) -> str:
        """The value of `--device` for this placement."""
        devices = self.placement.devices
        return str(devices[0]) if len(devices) == 1 else "cuda"


@dataclass(frozen=True, kw_only=True)
class Plan(Choice):
    """A resolved `RunSpec`: all that loading needs to know.

    Attributes:
        model: The files of the model.
        config: Its configuration, not quantised where `form` is set.
    """

    model: checkpoints.ResolvedModel
    config: "VideoPandaConfig"


def resolve_run(spec: RunSpec, model: checkpoints.ResolvedModel | None = None) -> Plan:
    """Resolve what to run into a plan; a missing model is reported before torch is imported.

    Args:
        spec: Model, quantisation, backend and device.
        model: The files of the model, if they are resolved already.

    Raises:
        ModelError: The model is missing or damaged, or only other quantised artifacts are left.
        UsageError: An option is unknown, or they do not go together on this machine.
        DeviceError: The device does not exist or has too little memory.
    """
    model = model or checkpoints.resolve(spec.model)
    devices = pick_devices(spec.device)
    from pandacli.modeling.checkpoint import read_config

    config = read_config(model.folder)
    stored = None
    if model.kind == "artifact":
        artifacts = artifacts_of(model.name)
        if spec.quant not in ("auto", *(artifact.quant for artifact in artifacts)):
            raise missing_artifact(model.name, spec.quant)
        stored = _forms(artifacts)
        # artifacts of bitsandbytes carry it, and sizes are those of the model as published
        config.__dict__.pop("quantization_config", None)
    choice = choose(spec.quant, spec.backend, config, devices, stored=stored)
    if stored is not None and choice.form not in stored:
        raise missing_artifact(model.name, choice.quant)
    return Plan(**vars(choice), model=model, config=config)


def missing_artifact(name: str, quant: str) -> ModelError:
    """Return the error for a model of which only other artifacts are left."""
    return ModelError(
        f"only other quantised copies of {name} are here, and not the original",
        "get it with:",
        command=f"panda pull {name} --quant {quant}",
    )


def _forms(artifacts: "Iterable[Artifact]") -> "frozenset[Form]":
    return frozenset(artifact.form for artifact in artifacts)  # type: ignore[misc]


@memory_errors(_LESS_MEMORY)
def choose(
    quant: str,
    backend: str,
    config: "VideoPandaConfig",
    devices: "Sequence[torch.device]",
    *,
    stored: "frozenset[Form] | None" = None,
) -> Choice:
    """Choose form and devices for `--quant` and `--engine`, each of which may be "auto".

    A quantisation that is asked for by name is used whatever the free memory is.

    Args:
        quant: A `Quant`, or "auto".
        backend: "torch", "bitsandbytes", "llama" or "auto".
        config: Of the model.
        devices: Allowed devices, see `pick_devices`.
        stored: The artifacts on disk, if the checkpoint itself is not.

    Raises:
        UsageError: An unknown name, or the options do not go together on these devices.
        DeviceError: auto, and not even the fewest bits fit into the free memory.
    """
    sizes = sizes_of(config)
    tried = []
    for kind, group in groupby(devices, key=lambda device: device.type):
        room = [(device, free_memory(device)) for device in group]
        forms = _allowed(quant, backend, config, kind, stored)
        if not forms:
            continue
        tried.append((forms, room))
        for fast_only in (True, False):
            for _, equal in groupby(forms, key=lambda form: form.quant):
                rooms = [(form, _fast(form, room) if fast_only else room) for form in equal]
                fitting = [found for form, fast in rooms if (found := _fit(form, sizes, fast))]
                if fitting:
                    return _usable(fitting, config, backend, convertible=stored is None)
        if quant != "auto":
            forced = [_choice(form, sizes, room, Placement((room[0][0],))) for form in forms]
            return _usable(forced, config, backend, convertible=stored is None)
    if tried:
        raise _too_little_memory(tried, sizes)
    if stored is not None:  # the caller says which artifact is missing
        return choose(quant, backend, config, devices)
    raise refusal(devices[0].type, quant, backend)


def _allowed(
    quant: str,
    backend: str,
    config: "VideoPandaConfig",
    device: str,
    stored: "frozenset[Form] | None",
) -> list[ExecutionForm]:
    fixed = _checkpoint_quant(config)
    if fixed is None:
        forms = candidates(device, quant, backend, wide=_is_wide(config), stored=stored)
        llama = any(form.backend == "llama" for form in forms)
        if stored is None and llama and not is_usable("llama"):
            forms = [form for form in forms if form.backend != "llama"]
        return forms
    if quant not in ("auto", fixed) or backend not in ("auto", "bitsandbytes"):
        wanted = f"--quant {quant}" if quant not in ("auto", fixed) else f"--engine {backend}"
        raise UsageError(
            f"the checkpoint is stored in {fixed} by bitsandbytes: {wanted} cannot change that",
            "use the checkpoint that it was made from",
        )
    return [ExecutionForm(fixed, "bitsandbytes", None)]


def _checkpoint_quant(config: "VideoPandaConfig") -> Quant | None:
    """The quantisation of a checkpoint that `save_pretrained` wrote quantised."""
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    fields = stored if isinstance(stored, dict) else stored.to_dict()
    return "4bit" if fields.get("load_in_4bit") else "8bit"


def _is_wide(config: "VideoPandaConfig") -> bool:
    return config.hidden_size >= _WIDE


def _fast(form: ExecutionForm, room: "Room") -> "Room":
    """The devices on which a form is as fast as its bits promise."""
    if (form.quant, form.backend) != ("8bit", "bitsandbytes"):
        return room
    return [(device, free) for device, free in room if has_int8_cores(device)]


def _fit(form: ExecutionForm, sizes: Sizes, room: "Room") -> Choice | None:
    if not room:
        return None
    placement = place(_needed(form, sizes, room), room)
    return _choice(form, sizes, room, placement) if placement else None


def _needed(form: ExecutionForm, sizes: Sizes, room: "Room") -> Needed:
    dtype = pick_dtype([device for device, _ in room])
    return bytes_of(sizes, form.quant, form.backend, dtype)


def _choice(form: ExecutionForm, sizes: Sizes, room: "Room", placement: Placement) -> Choice:
    free = dict(room)
    return Choice(
        **vars(form),
        placement=placement,
        needs=bytes_of(sizes, form.quant, form.backend, pick_dtype(placement.devices)).total,
        free=sum(free[device] for device in placement.devices),
        hint=_smaller_form_hint(form, sizes, room),
    )


def _smaller_form_hint(form: ExecutionForm, sizes: Sizes, room: "Room") -> str:
    """What to do if a form needs more memory than there is."""
    fewer: dict[Quant, tuple[Quant, ...]] = {"none": ("8bit", "4bit"), "8bit": ("4bit",)}
    changeable = form.form is not None or form.quant == "none"
    for quant in fewer.get(form.quant, ()) if changeable else ():
        others = candidates(room[0][0].type, quant, "auto", wide=True)
        needed = max((_needed(other, sizes, room) for other in others), key=lambda n: n.total)
        if place(needed, _fast(others[0], room)):
            amount = size(needed.total)
            return f"{quant[0]} bits need {amount} and would fit: add --quant {quant}"
    return _LESS_MEMORY


def _too_little_memory(
    tried: "Sequence[tuple[list[ExecutionForm], Room]]", sizes: Sizes
) -> DeviceError:
    """Return the error that nothing fits, for the device type where the least is missing."""
    found = [
        (_needed(form, sizes, room).total, sum(free for _, free in room), form, room)
        for forms, room in tried
        for form in forms
    ]
    needs, free, form, room = min(found, key=lambda each: each[0] - each[1])
    even = "" if form.quant == "none" else f" even in {form.quant[0]} bits"
    where = Placement(tuple(device for device, _ in room))
    return DeviceError(
        f"the model needs {size(needs)}{even}, and {size(free)} are free on {where}",
        "free some memory, or try panda with --model tiny",
    )


def _usable(
    choices: list[Choice], config: "VideoPandaConfig", backend: str, *, convertible: bool
) -> Choice:
    """Return the first choice whose backend can be used.

    Args:
        choices: Of one quantisation, best first.
        config: Of the model.
        backend: What was asked for.
        convertible: Whether another form could be made.

    Raises:
        UsageError: Only a very slow backend is left, and others could be used, or it does not
            support the widths of the model.
    """
    choice = next((choice for choice in choices if is_usable(choice.backend)), choices[0])
    in_4_bits = (choice.quant, choice.backend) == ("4bit", "bitsandbytes")
    if not in_4_bits or not choice.placement.on_cpu:
        return choice
    chosen_by_us = backend == "auto" and choice.form is not None and convertible
    if chosen_by_us and _is_wide(config) and not has_4bit_kernel():
        raise UsageError(
            "in 4 bits this CPU is fast only with llama.cpp, which is not installed",
            "use --quant 8bit, which is fast but larger, or --engine bitsandbytes, which is slow,"
            " or install it with:",
            command="pip install 'pandacli[llama]'",
        )
    widths = config.hidden_size, config.intermediate_size
    if any(width % _BLOCK for width in widths):
        raise UsageError(
            f"this model cannot be put into 4 bits on a CPU: its widths, {widths[0]} and"
            f" {widths[1]}, are not multiples of {_BLOCK}",
            "use --quant 8bit or none",
        )
    return choice


@dataclass(frozen=True)
class Forecast:
    """The quantised artifact that a published model will be run from.

    Args:
        form: How its weights are stored.
        bytes: Its approximate size.
    """

    form: "Form"
    bytes: int


def forecast(spec: RunSpec, artifacts: "Iterable[Artifact]" = ()) -> Forecast | None:
    """Predict, before a download, the artifact that a published model will be run from.

    All published models have the sizes of a default `VideoPandaConfig`.

    Args:
        spec: How the model is to be run.
        artifacts: The artifacts on disk, if the checkpoint is not; one of them is chosen if
            possible.

    Returns:
        The artifact; None if the checkpoint is run as it is.

    Raises:
        PandaError: As `resolve_run`, except for errors about files.
    """
    devices = pick_devices(spec.device)
    from pandacli.modeling.configuration_videopanda import VideoPandaConfig
    from pandacli.quantization.conversion import copy_bytes

    config = VideoPandaConfig()
    form = choose(spec.quant, spec.backend, config, devices, stored=_forms(artifacts) or None).form
    return Forecast(form, copy_bytes(config, form)) if form else None
