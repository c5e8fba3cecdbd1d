"""Which checkpoint a known model is: that which its last copy was made of.

Where only copies are left of a model nothing else tells, so there are none of two checkpoints.
"""

from dataclasses import replace

from pandacli.store.catalogue import MODELS
from pandacli.store.copies import Copy, all_copies, record_commit, remove_copy


def make_current(copy: Copy, commit: str | None) -> Copy:
    """Delete the copies, in whatever form, of what else a known model has been; a folder's stay.

    Args:
        copy: A finished copy.
        commit: The newest commit that its checkpoint is published in, where there is one; it is
            written down in all copies of this checkpoint.

    Returns:
        The copy, with that commit.

    Raises:
        ModelError: An old copy cannot be deleted, or the commit not be written.
    """
    if copy.model not in MODELS:
        return copy
    for other in all_copies():
        if other.model != copy.model:
            continue
        if other.digest != copy.digest:
            remove_copy(other)
        elif commit and other.commit != commit:
            record_commit(other, commit)
    return replace(copy, commit=commit or copy.commit)
