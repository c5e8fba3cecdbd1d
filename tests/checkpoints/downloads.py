"""Helpers for tests of checkpoints: pull, interrupt a pull, write an artifact."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pandacli import checkpoints
from pandacli.checkpoints import MODELS
from pandacli.checkpoints.artifacts import Artifact, artifact_folder, write_manifest
from pandacli.checkpoints.download import download, plan_download
from pandacli.checkpoints.inventory import remove_download
from pandacli.checkpoints.registry import PublishedFile, partial_path
from pandacli.errors import ModelError

MODEL = MODELS["video-panda-7b"]
SHARD = "pytorch_model-00001-of-00002.bin"

NEEDED = {
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "pytorch_model.bin.index.json",
    SHARD,
    "pytorch_model-00002-of-00002.bin",
}


class Log:
    """Records the progress of each file."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        self.checked: list[str] = []
        self.replaced: list[str] = []
        self.stop_at: int | None = None

    def downloading(self, name: str, _total: int, done: int) -> Callable[[int], None]:
        self.done[name] = done

        def advance(more: int) -> None:
            self.done[name] += more
            if self.stop_at is not None and self.done[name] >= self.stop_at:
                raise KeyboardInterrupt

        return advance

    def checking(self, name: str, _total: int) -> Callable[[int], None]:
        self.checked.append(name)
        return lambda _: None

    def replacing(self, name: str) -> None:
        self.replaced.append(name)


def pull(log: Log | None = None, model: checkpoints.KnownModel = MODEL) -> Path:
    return download(plan_download(model), log or Log())


def shard_file() -> PublishedFile:
    return next(file for file in plan_download(MODEL).files if file.name == SHARD)


def interrupted_pull(part: bytes) -> None:
    """Download everything but the large shard, and leave `part` of that."""
    log = Log()
    log.stop_at = 320_000
    with pytest.raises(KeyboardInterrupt):
        pull(log)
    partial_path(MODEL, shard_file()).write_bytes(part)


def pull_to(folder: Path) -> Path:
    """Put the files of the model into a folder, as users do."""
    downloaded = pull()
    shutil.copytree(downloaded, folder)
    remove_download(MODEL)
    return folder


def write_artifact(model: str, form: str, digest: str = "d" * 64) -> Artifact:
    folder = artifact_folder(digest, form)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return write_manifest(
        folder, model=model, form=form, commit=None, digest=digest, source_files={}
    )


def refusal(act: Callable[[], object] = pull) -> ModelError:
    with pytest.raises(ModelError) as caught:
        act()
    error = caught.value
    assert "\n" not in error.message + (error.hint or "")
    return error
