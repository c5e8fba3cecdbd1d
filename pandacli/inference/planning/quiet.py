"""Keeping the libraries that panda stands on from talking to its users."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep progress bars and notices of the libraries off stderr, for a while.

    Of warnings, only those about torch's own use of `torch.jit`: one about an argument that panda
    passes must be seen.
    """
    loggers = [logging.getLogger(name) for name in ("accelerate", "bitsandbytes")]
    levels = [logger.level for logger in loggers]
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def accept_half_precision_inputs() -> None:
    """Drop one notice, which bitsandbytes repeats at every 8-bit product: that it casts inputs."""
    logger = logging.getLogger("bitsandbytes.autograd._functions")
    if not logger.filters:
        logger.addFilter(lambda record: "inputs will be cast" not in str(record.msg))
