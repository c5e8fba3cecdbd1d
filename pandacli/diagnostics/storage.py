"""Check models, disk space, and how the default model would run here."""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pandacli import checkpoints
from pandacli.checkpoints import DEFAULT_MODEL
from pandacli.checkpoints.registry import panda_home
from pandacli.checkpoints.resolve import find_checkpoint
from pandacli.diagnostics import Bytes, Fact, Section, Value, find, find_all
from pandacli.errors import DeviceError, UsageError
from pandacli.prefix_cache.store import prefixes_folder

if TYPE_CHECKING:
    from pandacli.inference.planning.planner import Choice


def storage_facts() -> Section:
    from huggingface_hub import constants

    facts = [
        *(find(name, partial(_model, name)) for name in checkpoints.MODELS),
        _place("PANDA_HOME", panda_home),
        *find_all("in PANDA_HOME", _copies),
        _place("clips seen", prefixes_folder),
        _place("Hugging Face", lambda: Path(constants.HF_HUB_CACHE)),
    ]
    return Section("Store", facts)


def _model(name: str) -> str:
    model = checkpoints.MODELS[name]
    if model.repo and not find_checkpoint(model):
        return f"not here: {model.download_command}"
    return str(checkpoints.resolve(name).folder)


def _copies() -> Iterator[Fact]:
    home = panda_home()
    kinds = sorted(set(home.iterdir()) - {prefixes_folder()}) if home.is_dir() else []
    for kind in filter(Path.is_dir, kinds):
        for copy in sorted(filter(Path.is_dir, kind.iterdir())):
            yield Fact(f"  {copy.relative_to(home)}", Bytes(_used(copy)))


def _place(name: str, folder: Callable[[], Path]) -> Fact:
    return find(name, lambda: _check_folder(name, folder()))


def _check_folder(name: str, path: Path) -> Fact:  # it need not exist yet
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(nearest).free
    value: Value = {"path": str(path), "used": Bytes(_used(path)), "free": Bytes(free)}
    problem = None
    if not nearest.is_dir():
        problem = f"{nearest} is a file, not a folder"
    elif not os.access(nearest, os.W_OK):
        problem = f"{nearest} cannot be written"
    return Fact(name, value, problem)


def _used(folder: Path) -> int:
    files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sum(file.lstat().st_size for file in files)


def suggestion(ready: set[str]) -> Section:
    return Section(f"For {DEFAULT_MODEL}", find_all("suggestion", lambda: _suggest(ready)))


def _suggest(ready: set[str]) -> Iterator[Fact]:
    if "torch" not in ready:
        yield Fact("suggestion", None, "without torch no model can be run")
        return
    from pandacli.inference.planning.devices import pick_devices
    from pandacli.inference.planning.planner import choose
    from pandacli.modeling.configuration import ModelConfig

    try:
        choice = choose("auto", "auto", ModelConfig(), pick_devices("auto"))
    except DeviceError as error:
        yield Fact("suggestion", "--model tiny", f"{DEFAULT_MODEL}: {error.message}")
        return
    except UsageError as error:
        hint = " ".join(filter(None, (error.hint, error.command)))
        yield Fact("suggestion", None, f"{error.message}: {hint}")
        return
    yield Fact("--device", choice.device)
    yield Fact("--quant", choice.quant)
    yield Fact("--engine", choice.backend)
    yield Fact("needs", Bytes(choice.needs))
    yield Fact("because", reason(choice))


def reason(choice: "Choice") -> str:
    where = "memory" if choice.placement.on_cpu else f"the memory of {choice.placement}"
    return "; ".join([f"{choice.free / 1e9:.1f} GB of {where} are free", *_reasons(choice)])


def _reasons(choice: "Choice") -> Iterator[str]:
    from pandacli.inference.backends import has_int8_kernels
    from pandacli.inference.planning.devices import has_int8_cores

    if not choice.placement.on_cpu:
        if choice.quant == "none":
            yield "the weights as they were published"
        elif choice.quant == "4bit" and not all(map(has_int8_cores, choice.placement.devices)):
            yield "8 bits are slow on cards older than Turing"
        else:
            yield "the most bits that fit"
        return
    if choice.quant == "8bit":
        yield "on a CPU 8 bits are faster than full precision, and nearly as exact"
    else:
        yield "8 bits do not fit"
    if choice.backend == "llama":
        yield f"llama.cpp is fastest in {choice.quant.removesuffix('bit')} bits on this CPU"
    elif choice.backend == "bitsandbytes":
        yield "bitsandbytes is fast in 4 bits on CPUs with AVX512-BF16"
    elif has_int8_kernels():
        yield "torch has the fastest int8 kernels for x86 CPUs"
    else:
        yield "llama.cpp may be faster on this CPU, and is not installed"
