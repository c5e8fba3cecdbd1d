"""Video-Panda on today's transformers; importing it registers its classes with `Auto...`."""

from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from pandacli.checkpoint_files import MODEL_TYPES
from pandacli.modeling.configuration_videopanda import VideoPandaConfig
from pandacli.modeling.modeling_videopanda import VideoPandaForConditionalGeneration
from pandacli.modeling.processing_videopanda import VideoPandaProcessor
from pandacli.modeling.tokenization_videopanda import (
    VideoPandaTokenizer,
    build_prompt,
    encode_prefix,
    encode_prompt,
)

__all__ = [
    "VideoPandaConfig",
    "VideoPandaForConditionalGeneration",
    "VideoPandaProcessor",
    "VideoPandaTokenizer",
    "build_prompt",
    "encode_prefix",
    "encode_prompt",
]

for _name in MODEL_TYPES:
    # not AutoConfig.register, which takes a class under one name only
    CONFIG_MAPPING.register(_name, VideoPandaConfig, exist_ok=True)
AutoModelForImageTextToText.register(
    VideoPandaConfig, VideoPandaForConditionalGeneration, exist_ok=True
)
AutoProcessor.register(VideoPandaConfig, VideoPandaProcessor, exist_ok=True)
