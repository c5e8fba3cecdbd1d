"""By what a model is known as the same, whatever it is called and in whatever form it is run."""

from pandacli.checkpoint_files import weight_files
from pandacli.checkpoints.artifacts import read_artifact
from pandacli.checkpoints.digest import hash_checkpoint
from pandacli.checkpoints.published import finished_pull
from pandacli.checkpoints.registry import MODELS, cached_commit
from pandacli.checkpoints.resolve import ResolvedModel
from pandacli.errors import ModelError


class DamagedError(ModelError):
    """A file of a model is not the one that was pulled."""


def model_digest(resolved: ResolvedModel) -> str:
    """The sha256 of the checkpoint that a model is, or was before only a copy was left of it.

    A large checkpoint is read whole for it, once.

    Raises:
        ModelError: As `checkpoint_digests`.
    """
    if resolved.kind == "artifact":
        return read_artifact(resolved.folder).digest
    return checkpoint_digests(resolved)[0]


def checkpoint_digests(resolved: ResolvedModel) -> tuple[str, dict[str, str]]:
    """The sha256 of a checkpoint, and of each file by name; a large one is read whole once.

    Raises:
        ModelError: It cannot be read, or a file is not the one that `panda pull` has checked.
    """
    try:
        digest, files = hash_checkpoint(resolved.folder, weight_files(resolved.folder))
    except OSError as error:
        raise ModelError(f"cannot read {error.filename}: {error.strerror}") from error
    known = MODELS.get(resolved.name) if resolved.kind == "cache" else None
    pulled = finished_pull(known) if known else None
    if known and pulled and pulled.commit == cached_commit(resolved.folder):
        for file in pulled.files:
            if file.sha256 and files.get(file.name, file.sha256) != file.sha256:
                raise DamagedError(
                    f"{resolved.folder / file.name} is damaged: its sha256 is another than when it"
                    " was pulled",
                    f"mend it with: {known.download_command}",
                )
    return digest, files
