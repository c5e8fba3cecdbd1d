"""The places where the files of a known model may be."""

import os
from importlib import resources
from pathlib import Path

import platformdirs

from pandacli.store.catalogue import KnownModel


def home() -> Path:
    """The folder that panda keeps its files in: `PANDA_HOME`, or the platform's data folder."""
    named = os.environ.get("PANDA_HOME")
    if not named:
        return platformdirs.user_data_path("panda")
    return Path(os.path.expanduser(named))  # noqa: PTH111  (leaves an unknown ~user alone)


def home_folder(model: KnownModel) -> Path:
    """Where a checkpoint of this model belongs when a person puts it in place."""
    return home() / "models" / model.name


def home_checkpoint(model: KnownModel) -> Path | None:
    """The checkpoint under `home`, if there: in the folder itself, or as `hf download
    --local-dir` leaves it, in the repository's subfolder.
    """
    folder = home_folder(model)
    candidates = [folder, folder / model.subfolder] if model.subfolder else [folder]
    for candidate in candidates:
        if (candidate / "config.json").is_file():
            return candidate
    # a folder that someone filled, if wrongly, is theirs to be told about
    return folder if folder.is_dir() and any(folder.iterdir()) else None


def cached_checkpoint(model: KnownModel, commit: str | None = None) -> Path | None:
    """The checkpoint in the Hugging Face cache, if it is there; the network is never asked.

    Args:
        model: The model.
        commit: The commit to look for; None is the newest that was asked for by branch, as other
            programs do.
    """
    if model.repo is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model.repo, model.published("config.json"), revision=commit)
    return Path(config).parent if isinstance(config, str) else None


def cached_commit(folder: Path) -> str | None:
    """The commit that a checkpoint folder of the Hugging Face cache belongs to."""
    commits = (path.name for path in (folder, *folder.parents) if path.parent.name == "snapshots")
    return next(commits, None)


def bundled_checkpoint(model: KnownModel) -> Path:
    """Where a model that is shipped with the package lies."""
    return Path(str(resources.files("pandacli"))) / "assets" / model.name
