"""`panda mcp` in bad company: something prints and reads on each call, or loading never ends.

STUCK   loading the model never ends
"""

import os
import subprocess
import time
from pathlib import Path

from pandacli.cli import main
from pandacli.cli.startup import Loading
from pandacli.server.media import MediaFolders

_find = MediaFolders.find


def _find_noisily(self: MediaFolders, address: str) -> Path:
    print("noise of Python")
    os.write(1, b"noise of a C library\n")
    subprocess.run(["cat"], check=True)  # ends at once: its input is not that of the server
    subprocess.run(["echo", "noise of a program"], check=True)
    return _find(self, address)


if __name__ == "__main__":
    MediaFolders.find = _find_noisily  # type: ignore[method-assign]
    if "STUCK" in os.environ:
        Loading.end = lambda *_: time.sleep(3600)  # type: ignore[assignment,method-assign]
    main()
