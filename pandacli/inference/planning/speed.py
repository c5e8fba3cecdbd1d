"""Which engine is faster on this CPU: measured once, on a layer of the model's size, and kept.

What a CPU is good at does not follow from its name: 4 and 8 bits are quick where the right
instructions are, and the libraries change. So the engines race: each reads the tokens of a clip and
then answers, with one layer, which takes some seconds. They take turns and the best
round of each counts, so that other work on the machine does not decide it. The times are kept in
`PANDA_HOME`.
"""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from time import perf_counter
from typing import TYPE_CHECKING

import torch

from pandacli.checkpoints.digest import recall, remember
from pandacli.diagnostics.machine import cpu_model
from pandacli.errors import PandaError
from pandacli.inference.planning.quiet import quiet_libraries

if TYPE_CHECKING:
    from pandacli.inference.backends import Backend
    from pandacli.modeling.configuration_videopanda import VideoPandaConfig
    from pandacli.quantization import Quant

Runner = tuple[str, "Quant"]
"""An engine and the bits it computes with."""

_MEMORY = "speed"

_ROUNDS = 3
"""Of which the first, in which some pack weights or compile, will not be the best of any."""

_PREFILL_TOKENS = 128
_DECODED_TOKENS = 4
_ANSWER_TOKENS = 64
_PREFIX_TOKENS = 1232
"""What a clip of common shape and its answer take; a round of the race reads fewer of both."""


def race(config: "VideoPandaConfig", runners: Iterable[Runner]) -> dict[Runner, float]:
    """Seconds that a layer takes for a whole clip and an answer; measured, or remembered.

    Args:
        config: Of the model.
        runners: Who is to run. Their times are from one race, so that they can be compared.

    Returns:
        The time of each; a runner that cannot run here has infinity.
    """
    wanted = list(runners)
    if (known := remembered_race(config, wanted)) is not None:
        return known
    times = _measure(config, wanted)
    if all(map(isfinite, times.values())):  # what keeps a runner from running may pass
        named = {" ".join(runner): seconds for runner, seconds in times.items()}
        remember(_MEMORY, _key(config, wanted), named)
    return times


def remembered_race(
    config: "VideoPandaConfig", runners: Iterable[Runner]
) -> dict[Runner, float] | None:
    """As `race`, without measuring: None where this race has not been run."""
    wanted = list(runners)
    known = recall(_MEMORY).get(_key(config, wanted))
    if not isinstance(known, dict):
        return None
    times = {runner: known.get(" ".join(runner)) for runner in wanted}
    found = {runner: time for runner, time in times.items() if isinstance(time, float)}
    return found if len(found) == len(times) else None


def _key(config: "VideoPandaConfig", runners: list[Runner]) -> str:
    size = f"{config.hidden_size}x{config.intermediate_size}"
    versions = ", ".join(f"{name} {_version(name)}" for name in _packages(runners))
    names = " and ".join(sorted(" ".join(runner) for runner in runners))
    return f"{cpu_model()}, {torch.get_num_threads()} threads, {versions}: {names}, {size}"


def _packages(runners: list[Runner]) -> list[str]:
    engines = {engine for engine, _ in runners}
    return ["torch", *sorted({"bitsandbytes", "llama"} & engines)]


def _version(engine: str) -> str:
    try:
        return version("xllamacpp" if engine == "llama" else engine)
    except PackageNotFoundError:
        return "-"


@torch.inference_mode()
def _measure(config: "VideoPandaConfig", runners: list[Runner]) -> dict[Runner, float]:
    with quiet_libraries():
        there = {runner: layer for runner in runners if (layer := _ready(config, runner))}
        frames = torch.randn(_PREFILL_TOKENS, config.hidden_size)
        rounds = [
            {runner: _run(layer, frames) for runner, layer in there.items()} for _ in range(_ROUNDS)
        ]
    return {
        runner: min(times[runner] for times in rounds) if runner in there else float("inf")
        for runner in runners
    }


def _ready(config: "VideoPandaConfig", runner: Runner) -> "Backend | None":
    from pandacli.inference.planning.one_layer import one_layer

    try:
        return one_layer(config, *runner)
    except (PandaError, ImportError):
        return None


def _run(layer: "Backend", frames: torch.Tensor) -> float:
    """The seconds that a clip and an answer would take, from those of some of their tokens."""
    reading = layer.new_sequence()
    started = perf_counter()
    reading.prefill(frames)
    prefilled = perf_counter()
    for _ in range(_DECODED_TOKENS):
        reading.append([1])
    decoded = perf_counter()
    prefill = (prefilled - started) / _PREFILL_TOKENS
    decode = (decoded - prefilled) / _DECODED_TOKENS
    return prefill * _PREFIX_TOKENS + decode * _ANSWER_TOKENS
