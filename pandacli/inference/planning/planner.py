"""How a model is to be run here: in how many bits, by which engine, and where.

One set of rules, which `panda doctor` asks too. On cards the most bits that fit into their free
memory, and 8 only on those that have the hardware for it; on a CPU 8 bits, or else 4, where the
model is so wide that this is faster than whole precision. Of two engines for the same bits, the one
that won the race (`speed`).

What is going to be made of a model that is not here yet, to be said before it is downloaded.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, cast

import torch

from pandacli.errors import DeviceError, UsageError
from pandacli.inference.backends.registry import Way, is_usable, refusal, ways
from pandacli.inference.planning.devices import (
    free_memory,
    has_int8_cores,
    memory_errors,
    pick_devices,
    pick_dtype,
)
from pandacli.inference.planning.memory import ON_CPU, Placement, Sizes, bytes_of, place, sizes_of
from pandacli.inference.planning.speed import Runner, race, remembered_race
from pandacli.modeling.configuration_videopanda import VideoPandaConfig
from pandacli.quantization import Quant, check_widths, in_bits
from pandacli.quantization.conversion import copy_bytes
from pandacli.units import size

if TYPE_CHECKING:
    from pandacli.checkpoints.artifacts import Artifact, Form
    from pandacli.modeling.configuration_videopanda import VideoPandaConfig

_MEASURED_WIDTH = 1024
"""Narrower layers are quick on any engine, and too quick to be measured."""

_MUCH_SLOWER = 3.0
"""bitsandbytes in 4 bits is taken on a CPU unless it needs so many times as long as int8."""

_YARDSTICK: Runner = ("torch", "8bit")

_OUT_OF_IDEAS = "close other programs, look at fewer --frames, or try panda with --model tiny"

_Room = Sequence[tuple[torch.device, int]]
"""Devices of one type, and the bytes that are free on each."""


@dataclass(frozen=True)
class Plan(Way):
    """How a model is run.

    Attributes:
        placement: Where.
        needs: Bytes of memory, with a KV cache of the full context.
        free: Bytes that were free there.
        times: Of the engines that could compute it, the seconds that a layer took; empty where
            there was no choice, or it was not measured.
        guessed: Whether there was a choice, which nothing has been measured for.
        hint: What to do where the memory turns out to be too little.
    """

    placement: Placement = ON_CPU
    needs: int = 0
    free: int = 0
    times: tuple[tuple[Runner, float], ...] = ()
    guessed: bool = False
    hint: str = _OUT_OF_IDEAS

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""
        return pick_dtype(self.placement.devices)

    @property
    def device(self) -> str:
        """What `--device` takes to get this placement."""
        devices = self.placement.devices
        return str(devices[0]) if len(devices) == 1 else "cuda"


@memory_errors(_OUT_OF_IDEAS)
def pick_plan(
    quant: str,
    engine: str,
    config: "VideoPandaConfig",
    devices: Sequence[torch.device],
    *,
    kept: "frozenset[Form] | None" = None,
    measure: bool = True,
) -> Plan:
    """The plan for `--quant` and `--engine`, each of which may be "auto".

    What is asked for by name is done whatever the free memory is.

    Args:
        quant: A `Quant`, or "auto".
        engine: "torch", "bitsandbytes", "llama" or "auto".
        config: Of the model.
        devices: Where it may run, see `pick_devices`.
        kept: The forms that are here, where the checkpoint itself is not.
        measure: Whether engines may be measured, which takes seconds, the first time; otherwise
            what has been measured before is used.

    Raises:
        UsageError: A name is not known, or the two do not go together on these devices.
        DeviceError: auto, and not even the fewest bits fit into the free memory.
    """
    sizes = sizes_of(config)
    rooms = [
        [(device, free_memory(device)) for device in group]
        for _, group in groupby(devices, key=lambda device: device.type)
    ]
    tried = []
    for room in rooms:
        found = _ways(quant, engine, config, room[0][0].type, kept)
        if not found:
            continue
        tried.append((found, room))
        for only_fast in (True, False):
            for _, same in groupby(found, key=lambda way: way.quant):
                rooms_of = [(way, _fast_room(way, room) if only_fast else room) for way in same]
                fitting = [plan for way, has in rooms_of if (plan := _fitted(way, sizes, has))]
                if fitting:
                    return _best(fitting, config, engine, measure=measure, final=kept is not None)
        if quant != "auto":
            somehow = [_placed(way, sizes, room, Placement((room[0][0],))) for way in found]
            return _best(somehow, config, engine, measure=measure, final=kept is not None)
    if tried:
        raise _too_little(tried, sizes)
    if kept is not None:  # what lacks is for the caller to tell
        return pick_plan(quant, engine, config, devices, measure=measure)
    raise refusal(devices[0].type, quant, engine)


def _ways(
    quant: str,
    engine: str,
    config: "VideoPandaConfig",
    device: str,
    kept: "frozenset[Form] | None",
) -> list[Way]:
    stored = _stored_quant(config)
    if stored is None:
        found = ways(device, quant, engine, wide=_is_wide(config), kept=kept)
        if kept is None and any(way.engine == "llama" for way in found) and not is_usable("llama"):
            found = [way for way in found if way.engine != "llama"]
        return found
    if quant not in ("auto", stored) or engine not in ("auto", "bitsandbytes"):
        wanted = f"--quant {quant}" if quant not in ("auto", stored) else f"--engine {engine}"
        raise UsageError(
            f"the checkpoint is stored in {stored} by bitsandbytes: {wanted} cannot change that",
            "use the checkpoint that it was made from",
        )
    return [Way(stored, "bitsandbytes", None)]


def _stored_quant(config: "VideoPandaConfig") -> Quant | None:
    """What a checkpoint that is stored quantised, as by `save_pretrained`, is in."""
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    fields = stored if isinstance(stored, dict) else stored.to_dict()
    return "4bit" if fields.get("load_in_4bit") else "8bit"


def _is_wide(config: "VideoPandaConfig") -> bool:
    return config.hidden_size >= _MEASURED_WIDTH


def _fast_room(way: Way, room: _Room) -> _Room:
    """The devices that run a way as fast as its bits promise."""
    if (way.quant, way.engine) != ("8bit", "bitsandbytes"):
        return room
    return [(device, free) for device, free in room if has_int8_cores(device)]


def _fitted(way: Way, sizes: Sizes, room: _Room) -> Plan | None:
    """The way as a plan, where there is room for it."""
    if not room:
        return None
    needed = bytes_of(sizes, way.quant, way.engine, pick_dtype([device for device, _ in room]))
    placement = place(needed, room)
    return _placed(way, sizes, room, placement) if placement else None


def _placed(way: Way, sizes: Sizes, room: _Room, placement: Placement) -> Plan:
    free = dict(room)
    return Plan(
        way.quant,
        way.engine,
        way.form,
        placement,
        needs=bytes_of(sizes, way.quant, way.engine, pick_dtype(placement.devices)).total,
        free=sum(free[device] for device in placement.devices),
        hint=_what_would_fit(way, sizes, room),
    )


def _what_would_fit(way: Way, sizes: Sizes, room: _Room) -> str:
    """What to do where a way needs more memory than there is."""
    fewer: dict[Quant, tuple[Quant, ...]] = {"none": ("8bit", "4bit"), "8bit": ("4bit",)}
    changeable = way.form is not None or way.quant == "none"
    device = room[0][0].type
    dtype = pick_dtype([device for device, _ in room])
    for quant in fewer.get(way.quant, ()) if changeable else ():
        others = ways(device, quant, "auto", wide=True)
        needed = max(
            (bytes_of(sizes, quant, other.engine, dtype) for other in others),
            key=lambda needed: needed.total,
        )
        if place(needed, _fast_room(others[0], room)):
            amount = size(needed.total)
            return f"{in_bits(quant)} need {amount} and would fit: add --quant {quant}"
    return _OUT_OF_IDEAS


def _too_little(choices: Sequence[tuple[list[Way], _Room]], sizes: Sizes) -> DeviceError:
    """The error that nothing fits, told of where the least is lacking."""

    def least(choice: tuple[list[Way], _Room]) -> tuple[int, int, Way, _Room]:
        found, room = choice
        dtype = pick_dtype([device for device, _ in room])
        needs, way = min(
            ((bytes_of(sizes, w.quant, w.engine, dtype).total, w) for w in found),
            key=lambda pair: pair[0],
        )
        return needs, sum(free for _, free in room), way, room

    needs, free, way, room = min(map(least, choices), key=lambda found: found[0] - found[1])
    even = "" if way.quant == "none" else f" even in {in_bits(way.quant)}"
    there = Placement(tuple(device for device, _ in room))
    return DeviceError(
        f"the model needs {size(needs)}{even}, and {size(free)} are free on {there}",
        "free some memory, or try panda with --model tiny",
    )


def _best(
    plans: list[Plan], config: "VideoPandaConfig", engine: str, *, measure: bool, final: bool
) -> Plan:
    """Of plans that differ in their engine, the one whose engine is the fastest.

    Raises:
        UsageError: The only one is far too slow, and there is another to be had (not `final`).
    """
    plan = plans[0]
    if engine == "auto" and plan.placement == ON_CPU and plan.form and _is_wide(config):
        plan = _winner(plans, config, measure=measure, final=final)
    if (plan.quant, plan.engine) == ("4bit", "bitsandbytes") and plan.placement == ON_CPU:
        check_widths(config)
    return plan


def _winner(plans: list[Plan], config: "VideoPandaConfig", *, measure: bool, final: bool) -> Plan:
    """As `_best`, by a race: one that is run, or only remembered, where it has been."""
    plans = [plan for plan in plans if is_usable(plan.engine)] or plans
    slow = plans[0].quant == "4bit" and {plan.engine for plan in plans} == {"bitsandbytes"}
    if len(plans) == 1 and not slow:
        return plans[0]
    runners = [_runner(plan) for plan in plans] + ([_YARDSTICK] if slow else [])
    times = race(config, runners) if measure else remembered_race(config, runners)
    if times is None:
        return replace(plans[0], guessed=True)
    plan = min(plans, key=lambda plan: times[_runner(plan)])
    if slow and not final and times[_runner(plan)] > _MUCH_SLOWER * times[_YARDSTICK]:
        raise UsageError(
            "in 4 bits this CPU is quick only with llama.cpp, which is not installed",
            "use --quant 8bit, which is quick but larger, or --engine bitsandbytes, which is slow,"
            " or install it with:",
            command="pip install 'pandacli[llama]'",
        )
    return replace(plan, times=tuple(times.items()))


def _runner(plan: Plan) -> Runner:
    # torch widens 4 bits to 8
    return (plan.engine, "8bit" if plan.engine == "torch" else plan.quant)


@dataclass(frozen=True)
class Forecast:
    """The quantised copy that a model will be run from.

    Args:
        form: How its weights will be stored.
        bytes: What it will take on the disk, nearly.
    """

    form: "Form"
    bytes: int


def forecast(
    quant: str, engine: str, device: str, kept: "Iterable[Artifact]" = ()
) -> Forecast | None:
    """The copy that `prepare` will take, or make, of a published model; None where it needs none.

    All models that are published have the sizes that `VideoPandaConfig` begins with.

    Args:
        quant: As of `Panda.load`, and so are engine and device.
        engine: See there.
        device: See there.
        kept: The copies that are here, where the checkpoint itself is not; one of them is chosen if
            any will do.

    Raises:
        PandaError: As `prepare`, of what has nothing to do with the files.
    """
    config = VideoPandaConfig()
    forms = frozenset(cast("Form", copy.form) for copy in kept)
    form = pick_plan(quant, engine, config, pick_devices(device), kept=forms or None).form
    return Forecast(form, copy_bytes(config, form)) if form else None
