"""`panda` with a part that hangs, to test that signals end it.

BLOCKED     "decoder" blocks in C where frames are read, here or in a process of a batch; "second"
            does so from the second clip on; "unwinding" waits for ever after an interruption;
            "swallowing" ignores interruptions; "importing" initialises a compiled module,
            which aborts on an exception; nothing blocks where it is empty
BLOCKED_AT  the file that is made once it blocks
"""

import ctypes
import importlib
import multiprocessing
import os
import sys
import threading
from pathlib import Path

from pandacli.cli import main


def decoder(*_, **__):
    libc = ctypes.CDLL(None)
    mutex = ctypes.create_string_buffer(128)
    libc.pthread_mutex_lock(mutex)
    _blocks()
    libc.pthread_mutex_lock(mutex)  # unlike a sleep, it goes on after a signal


def second(*arguments):
    global _read
    if _read:
        decoder()
    from pandacli.video.sampling import sample_frames

    _read = True
    return sample_frames(*arguments)


_read = False


def unwinding(*_, **__):
    try:
        _blocks()
        threading.Event().wait()
    finally:
        threading.Event().wait()


def swallowing(*_, **__):
    _blocks()
    while True:
        try:
            threading.Event().wait()
        except BaseException:
            continue


def importing(*_, **__):
    module = Path(os.environ["BLOCKED_AT"]).with_name("compiled.py")
    module.write_text(
        "import os, threading\nfrom tests.cli import blocked\n"
        "try:\n    blocked._blocks()\n    threading.Event().wait()\n"
        "except BaseException:\n    os.abort()\n"
    )
    sys.path.insert(0, str(module.parent))
    importlib.import_module("compiled")


def _blocks():
    global _lock
    _lock = multiprocessing.RLock()  # as progress bars have one, which must not be left behind
    Path(os.environ["BLOCKED_AT"]).touch()


def run():
    if blocked := os.environ.get("BLOCKED"):
        import pandacli.video
        import pandacli.video.prefetch

        pandacli.video.sample_frames = globals()[blocked]
        pandacli.video.prefetch.read_fitted = globals()[blocked]
    main()


if __name__ == "__main__":
    if os.environ.get("BLOCKED"):
        from tests.cli import blocked  # by a name that a process of a batch can import

        blocked.run()
    main()
