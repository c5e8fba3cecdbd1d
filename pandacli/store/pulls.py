"""What was pulled: the commit of each model, and its files with their digests.

The cache of Hugging Face knows branches, which move. These records say which commit panda took,
so that a model stays the one it was when it was pulled. A second record, of a download under way,
lets what an interrupted one has left be found.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pandacli.small_files import read_object
from pandacli.store.catalogue import KnownModel
from pandacli.store.durable import write_text
from pandacli.store.places import home
from pandacli.store.published import COMMIT, PublishedFile

_FORMAT = 1


@dataclass(frozen=True)
class Pull:
    """A download, finished or under way.

    Args:
        commit: The commit that its files are from.
        files: The files; each has been checked against its digest once it is finished.
    """

    commit: str
    files: tuple[PublishedFile, ...]


def finished_pull(model: KnownModel) -> Pull | None:
    """What the last `panda pull` that finished has brought, if there was one."""
    return _read(_finished_path(model))


def unfinished_pull(model: KnownModel) -> Pull | None:
    """What a `panda pull` that is under way, or was interrupted, is to bring."""
    return _read(_unfinished_path(model))


def begin_pull(model: KnownModel, pull: Pull) -> None:
    """Write down what is about to be downloaded."""
    _write(_unfinished_path(model), pull)


def finish_pull(model: KnownModel, pull: Pull) -> None:
    """Write down that everything is here and checked."""
    _write(_finished_path(model), pull)
    _unfinished_path(model).unlink(missing_ok=True)


def forget_pulls(model: KnownModel) -> None:
    """Remove both records."""
    for path in (_finished_path(model), _unfinished_path(model)):
        path.unlink(missing_ok=True)


def _finished_path(model: KnownModel) -> Path:
    return home() / "pulls" / f"{model.name}.json"


def _unfinished_path(model: KnownModel) -> Path:
    return home() / "pulls" / f"{model.name}.unfinished.json"


def _read(path: Path) -> Pull | None:
    """The record at `path`; None for one that is damaged, as for none: pulling again mends it."""
    try:
        record = read_object(path)
        if record["format"] != _FORMAT:
            return None
        files = tuple(PublishedFile(**file) for file in record["files"])
        commit = str(record["commit"])
        return Pull(commit, files) if COMMIT.fullmatch(commit) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(path: Path, pull: Pull) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"format": _FORMAT, **asdict(pull)}, indent=1))
