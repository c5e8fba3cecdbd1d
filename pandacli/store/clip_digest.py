"""By what a clip is known again, wherever it lies and whatever it is called: its content.

Up to 64 MiB are read whole. Of a longer file a sample is: its beginning, its end, and blocks spread
between them. The rest may have been changed, so with a sample go the times of the last change:
mtime, and ctime, which no program can set back. A long file that was touched, moved or copied
counts as another, which costs time and is never wrong.
"""

import hashlib
from pathlib import Path

from pandacli.store.digest import hash_file

_WHOLE = 1 << 26
_BLOCK = 1 << 20
_BLOCKS = 32


def clip_digest(path: Path, *, whole: bool = False) -> str:
    """What tells the content of a file from that of others.

    Args:
        path: The file.
        whole: Read all of it, however long it is; its name and times then count for nothing.

    Raises:
        OSError: It cannot be read.
    """
    status = path.stat()
    if whole or status.st_size <= _WHOLE:
        return hash_file(path)
    state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    digest = hashlib.sha256(repr(state).encode())
    with path.open("rb") as file:
        for number in range(_BLOCKS):
            file.seek(number * (status.st_size - _BLOCK) // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
    return f"sample {digest.hexdigest()}"
