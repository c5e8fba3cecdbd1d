"""How Video-Panda-7B is best run on this machine: the plan that `panda ask` would make, and why.

Where files are kept on this machine, how much of the disk they take, and what is left.
"""

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pandacli import checkpoints
from pandacli.checkpoints import DEFAULT_MODEL
from pandacli.checkpoints.resolve import find_checkpoint
from pandacli.diagnostics.facts import Bytes, Fact, Section, Value, find, find_all
from pandacli.errors import DeviceError, ModelError, UsageError
from pandacli.prefix_cache.store import prefixes_folder

if TYPE_CHECKING:
    from pandacli.inference.planning.planner import Plan


def storage_facts() -> Section:
    """The models that are here, and the places that panda keeps and finds them in."""
    return Section(
        "Store",
        [
            *(find(name, partial(_model, name)) for name in checkpoints.MODELS),
            find("PANDA_HOME", lambda: _place("PANDA_HOME", checkpoints.panda_home())),
            *find_all("in PANDA_HOME", _copies),
            find("clips seen", lambda: _place("clips seen", prefixes_folder())),
            find("Hugging Face", lambda: _place("Hugging Face", _hugging_face_cache())),
        ],
    )


def _model(name: str) -> Fact:
    model = checkpoints.MODELS[name]
    if model.repo and not find_checkpoint(model):
        return Fact(name, f"not here: {model.download_command}")
    try:
        return Fact(name, str(checkpoints.resolve(name).folder))
    except ModelError as error:
        return Fact(name, None, error.message)


def _hugging_face_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _copies() -> Iterator[Fact]:
    """What is under `PANDA_HOME`: a line for each model, and each quantised copy of one."""
    home = checkpoints.panda_home()
    kinds = sorted(set(home.iterdir()) - {prefixes_folder()}) if home.is_dir() else []
    for kind in filter(Path.is_dir, kinds):
        for copy in sorted(filter(Path.is_dir, kind.iterdir())):
            yield Fact(f"  {copy.relative_to(home)}", Bytes(_used(copy)))


def _place(name: str, path: Path) -> Fact:
    """A folder for large files; it may not be there yet."""
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(nearest).free
    value: Value = {"path": str(path), "used": Bytes(_used(path)), "free": Bytes(free)}
    if not nearest.is_dir():
        return Fact(name, value, f"{nearest} is a file, not a folder")
    if not os.access(nearest, os.W_OK):
        return Fact(name, value, f"{nearest} cannot be written")
    return Fact(name, value)


def _used(folder: Path) -> int:
    """What the files under a folder take, each counted once: links are not followed."""
    return sum(
        (Path(parent) / name).lstat().st_size
        for parent, _, names in os.walk(folder)
        for name in names
    )


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
        from pandacli.inference.planning.devices import has_int8_cores

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
    from pandacli.inference.planning.devices import pick_devices
    from pandacli.inference.planning.planner import pick_plan
    from pandacli.modeling.configuration_videopanda import VideoPandaConfig

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
