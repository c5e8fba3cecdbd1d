"""Where files are kept on this machine, how much of the disk they take, and what is left."""

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pandacli import store
from pandacli.engine.facts import Bytes, Fact, Section, Value, find, find_all
from pandacli.errors import ModelError
from pandacli.store.prefixes import prefixes_folder
from pandacli.store.resolve import locate


def storage() -> Section:
    """The models that are here, and the places that panda keeps and finds them in."""
    return Section(
        "Store",
        [
            *(find(name, partial(_model, name)) for name in store.MODELS),
            find("PANDA_HOME", lambda: _place("PANDA_HOME", store.home())),
            *find_all("in PANDA_HOME", _copies),
            find("clips seen", lambda: _place("clips seen", prefixes_folder())),
            find("Hugging Face", lambda: _place("Hugging Face", _hugging_face_cache())),
        ],
    )


def _model(name: str) -> Fact:
    model = store.MODELS[name]
    if model.repo and not locate(model):
        return Fact(name, f"not here: {model.download_command}")
    try:
        return Fact(name, str(store.resolve(name).folder))
    except ModelError as error:
        return Fact(name, None, error.message)


def _hugging_face_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _copies() -> Iterator[Fact]:
    """What is under `PANDA_HOME`: a line for each model, and each quantised copy of one."""
    home = store.home()
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
