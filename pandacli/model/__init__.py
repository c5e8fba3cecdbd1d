"""Video-Panda on today's transformers.

Importing this package registers its classes, so that `AutoConfig`, `AutoProcessor` and
`AutoModelForImageTextToText` load checkpoint folders of the authors' layout and of ours.
"""

from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from pandacli.checkpoint_files import MODEL_TYPES
from pandacli.model.config import VideoPandaConfig
from pandacli.model.modeling import VideoPandaForConditionalGeneration
from pandacli.model.processing import VideoPandaProcessor
from pandacli.model.prompt import build_prompt, encode_prefix, encode_prompt
from pandacli.model.tokenizer import VideoPandaTokenizer

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
