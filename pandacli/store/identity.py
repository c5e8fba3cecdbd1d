"""By what a model is known as the same, whatever it is called and in whatever form it is run."""

from pandacli.checkpoint_files import weight_files
from pandacli.errors import ModelError
from pandacli.store.copies import read_copy
from pandacli.store.digest import checkpoint_digest
from pandacli.store.resolve import ResolvedModel


def identity(resolved: ResolvedModel) -> str:
    """The sha256 of the checkpoint that a model is, or was before only a copy was left of it.

    A large checkpoint is read whole for it, once.

    Raises:
        ModelError: It cannot be read.
    """
    if resolved.kind == "copy":
        return read_copy(resolved.folder).digest
    try:
        return checkpoint_digest(resolved.folder, weight_files(resolved.folder))[0]
    except OSError as error:
        raise ModelError(f"cannot read {error.filename}: {error.strerror}") from error
