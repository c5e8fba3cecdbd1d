"""`panda` with a model that takes its time, so that a test can interrupt it.

UNHURRIED   seconds before each token
"""

import os
import time

from pandacli.cli import main
from pandacli.engine import torch_llama

read = torch_llama.TorchReading.read


def unhurried(self, ids):
    time.sleep(float(os.environ.get("UNHURRIED", "0")))
    return read(self, ids)


if __name__ == "__main__":
    torch_llama.TorchReading.read = unhurried
    main()
