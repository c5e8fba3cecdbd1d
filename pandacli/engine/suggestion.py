"""How Video-Panda-7B is best run on this machine: the plan that `panda ask` would make, and why."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pandacli.engine.facts import Bytes, Fact, Section, find_all
from pandacli.errors import DeviceError, UsageError
from pandacli.store import DEFAULT_MODEL

if TYPE_CHECKING:
    from pandacli.engine.plan import Plan


def suggestion(ready: set[str]) -> Section:
    """What to call panda with on this machine, and why.

    Args:
        ready: The engines that work here.
    """
    return Section(f"For {DEFAULT_MODEL}", find_all("suggestion", lambda: _facts(ready)))


def reason(plan: "Plan") -> str:
    """Why this plan, in a sentence."""
    where = "memory" if _on_cpu(plan) else f"the memory of {plan.placement}"
    free = f"{plan.free / 1e9:.1f} GB of {where} are free"
    return "; ".join(filter(None, (free, _bits(plan), _speed(plan))))


def _on_cpu(plan: "Plan") -> bool:
    return plan.placement.devices[0].type == "cpu"


def _bits(plan: "Plan") -> str:
    if not _on_cpu(plan):
        from pandacli.engine.device import has_int8_cores

        if plan.quant == "none":
            return "the weights as they were published"
        if plan.quant == "4bit" and not all(map(has_int8_cores, plan.placement.devices)):
            return "8 bits are slow on cards older than Turing"
        return "the most bits that fit"
    if plan.quant == "8bit":
        return "on a CPU 8 bits are faster than whole precision, and nearly as exact"
    return "8 bits do not fit"


def _speed(plan: "Plan") -> str | None:
    """What is known of how fast the engines are; None where it does not matter."""
    if plan.times:
        times = sorted(plan.times, key=lambda timed: timed[1])
        told = ", ".join(f"{engine} {_seconds(seconds)}" for (engine, _), seconds in times)
        return f"measured here, seconds a layer: {told}"
    if _on_cpu(plan):
        return "which engine is fastest is measured when the model is first loaded"
    return None


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds < 100 else f"{seconds:.0f}"


def _facts(ready: set[str]) -> Iterator[Fact]:
    if "torch" not in ready:
        yield Fact("suggestion", None, "without torch no model can be run")
        return
    from pandacli.engine.device import pick_devices
    from pandacli.engine.plan import pick_plan
    from pandacli.model.config import VideoPandaConfig

    try:
        plan = pick_plan("auto", "auto", VideoPandaConfig(), pick_devices("auto"), measure=False)
    except DeviceError as error:
        yield Fact("suggestion", "--model tiny", f"{DEFAULT_MODEL}: {error.message}")
        return
    except UsageError as error:
        way = " ".join(filter(None, (error.hint, error.command)))
        yield Fact("suggestion", None, f"{error.message}: {way}")
        return
    yield Fact("--device", plan.device)
    yield Fact("--quant", plan.quant)
    yield Fact("--engine", plan.engine)
    yield Fact("needs", Bytes(plan.needs))
    yield Fact("because", reason(plan))
