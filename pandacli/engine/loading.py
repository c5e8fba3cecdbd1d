"""From a checkpoint folder to a model that is ready to compute, without a word on stderr."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from pandacli.engine.device import memory_errors
from pandacli.engine.quantize import Quant, bitsandbytes_config
from pandacli.model.modeling import VideoPandaForConditionalGeneration


def load_model(
    folder: Path, device: torch.device, dtype: torch.dtype, quant: Quant
) -> VideoPandaForConditionalGeneration:
    """The model of a checkpoint, on a device, in evaluation mode.

    Raises:
        ModelError: The weights are damaged or do not fit the configuration.
        DeviceError: The device has too little memory.
    """
    options: dict[str, Any] = {}
    hint = "choose fewer bits with --quant 4bit, or another --device"
    with quiet_libraries(), memory_errors(hint):
        if config := bitsandbytes_config(quant, dtype):
            options["quantization_config"] = config
            _accept_half_precision_inputs()
        model: VideoPandaForConditionalGeneration = (
            VideoPandaForConditionalGeneration.from_pretrained(
                folder, dtype=dtype, device_map={"": device}, local_files_only=True, **options
            )
        )
    return model  # transformers hands it over in evaluation mode


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep progress bars, notices and warnings of the libraries off stderr, for a while."""
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
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _accept_half_precision_inputs() -> None:
    """Drop one notice, which bitsandbytes repeats at every 8-bit product: that it casts inputs."""
    logger = logging.getLogger("bitsandbytes.autograd._functions")
    if not logger.filters:
        logger.addFilter(lambda record: "inputs will be cast" not in str(record.msg))
