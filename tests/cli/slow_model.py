"""`panda` with a slow model, to be interrupted.

SLOW_MODEL   seconds before each token, or each of the tokens of answers that are read together
"""

import os
import time

from pandacli.cli import main
from pandacli.inference.backends.torch import TorchSequence, TorchSequenceBatch


def slow_model(read):
    def read_later(self, ids):
        time.sleep(float(os.environ.get("SLOW_MODEL", "0")))
        return read(self, ids)

    return read_later


if __name__ == "__main__":
    for reads in (TorchSequence, TorchSequenceBatch):
        reads.append = slow_model(reads.append)
    main()
