"""`panda` with a slow model, to be interrupted.

SLOW_MODEL   seconds before each token, or each of the tokens of answers that are read together
SLOW_LAYER   seconds before each layer
SLOW_TENSOR  seconds before each tensor that is loaded
SLOW_FRAMES  seconds before frames are read
"""

import os
import time

from pandacli import video
from pandacli.cli import main
from pandacli.inference.backends.torch import TorchSequence, TorchSequenceBatch
from pandacli.inference.planning import loader
from pandacli.modeling.llama import DecoderLayer


def slowed(call, variable):
    def call_later(*args):
        time.sleep(float(os.environ.get(variable, "0")))
        return call(*args)

    return call_later


if __name__ == "__main__":
    for reads in (TorchSequence, TorchSequenceBatch):
        reads.append = slowed(reads.append, "SLOW_MODEL")
    DecoderLayer.forward = slowed(DecoderLayer.forward, "SLOW_LAYER")
    loader.check_values = slowed(loader.check_values, "SLOW_TENSOR")
    video.sample_frames = slowed(video.sample_frames, "SLOW_FRAMES")
    main()
