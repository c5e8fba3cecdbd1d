"""Video-Panda as a class of transformers; importing this registers it with `Auto...`.

panda itself runs `VideoPanda`, whose numbers the tests compare with these.
"""

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    GenerationMixin,
    LlamaModel,
)
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.llama.modeling_llama import LlamaPreTrainedModel

from pandacli.checkpoint_files import MODEL_TYPES
from pandacli.errors import ModelError
from pandacli.modeling import checkpoint
from pandacli.modeling.bitsandbytes_weights import read_quantised
from pandacli.modeling.configuration_videopanda import VideoPandaConfig
from pandacli.modeling.processing_videopanda import VideoPandaProcessor
from pandacli.modeling.tokenization_videopanda import FRAME_SLOT
from pandacli.modeling.video_panda import FrameEncoder, embed_frames, splice

IGNORED_LABEL = -100  # at positions that carry no loss, as everywhere in transformers


class VideoPandaModel(FrameEncoder, LlamaModel):
    """Llama decoder of transformers plus video tower and projector; see `FrameEncoder`."""

    config_class = VideoPandaConfig
    config: VideoPandaConfig

    def __init__(self, config: VideoPandaConfig) -> None:
        super().__init__(config)
        self.add_tower()
        self.post_init()  # type: ignore[no-untyped-call]


class VideoPandaForConditionalGeneration(LlamaPreTrainedModel, GenerationMixin):
    """Video-Panda with its language head: frames and a prompt in, text out.

    Each `FRAME_SLOT` (-200) in `input_ids` is replaced by the tokens of the next frame of that
    row's video, so the Llama's sequence is longer than `input_ids`. Rows with frames are stripped
    of padding on either side and padded again on the left.
    """

    config_class = VideoPandaConfig
    config: VideoPandaConfig
    input_modalities = ["video", "text"]  # noqa: RUF012  (the name transformers reads)
    _no_split_modules = ["LlamaDecoderLayer", "STAB"]  # noqa: RUF012  (the name transformers reads)

    def __init__(self, config: VideoPandaConfig) -> None:
        super().__init__(config)
        self.model = VideoPandaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str] | None = None,
        *model_args: Any,
        config: VideoPandaConfig | str | PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load a model as transformers does, from a folder of the official layout or of ours.

        Raises:
            ModelError: A file of the folder is missing, damaged or unsafe, or tensors are missing
                or have the wrong shape.
        """
        name = pretrained_model_name_or_path
        folder = Path(name or "", kwargs.get("subfolder") or "")
        if name is None or not folder.is_dir():
            return super().from_pretrained(name, *model_args, config=config, **kwargs)
        if not isinstance(config, VideoPandaConfig):
            fields = VideoPandaConfig.__dataclass_fields__.keys() & kwargs.keys() - {"dtype"}
            changed = {name: kwargs.pop(name) for name in fields}
            config = _read_config(Path(config or folder), changed)
        with torch.device("meta"):
            expected = cls(config).state_dict()
        if given := getattr(config, "quantization_config", None):
            stored = dict(given if isinstance(given, dict) else given.to_dict())
            bits = 8 if stored.get("load_in_8bit") else 4
            tensors, quantised = read_quantised(folder, expected, bits)
            # the stored tensors decide which layers are quantised, not config.json
            matrices = (name for name, tensor in expected.items() if tensor.ndim == 2)
            kept = [name.removesuffix(".weight") for name in matrices if name not in quantised]
            config.quantization_config = stored | {"llm_int8_skip_modules": kept}
        else:
            tensors = checkpoint.read_tensors(folder, expected)
        kwargs.pop("subfolder", None)
        wants_details = kwargs.pop("output_loading_info", False)
        kwargs.setdefault("generation_config", read_generation_config(folder, config))
        kwargs |= {"config": config, "state_dict": tensors, "output_loading_info": True}
        loaded: Any = super().from_pretrained(None, *model_args, **kwargs)
        model, details = loaded
        if left := [*details["missing_keys"], *details["mismatched_keys"]]:  # would stay random
            raise ModelError(f"{len(left)} tensors in {folder} were not loaded: {left[0]}")
        checkpoint.check_values(folder, model.state_dict())
        model.name_or_path = model.config.name_or_path = str(folder)
        return loaded if wants_details else model

    def get_video_features(self, pixel_values: Tensor) -> list[Tensor]:
        """Encode and project videos (B, T, 4, S, S): normalised RGB and the mask of the content.

        A single frame (T = 1) takes the image branch of the paper. Returns for each video (tokens,
        hidden_size), the 1 + h * (w + 1) tokens of each frame in order.

        Raises:
            ValueError: Another shape, or T frames cannot be cut into equal chunks.
        """
        return [torch.cat(frames) for frames in self.model.encode_frames(pixel_values)]

    def embed_frames(self, input_ids: Tensor, videos: list[list[Tensor]]) -> list[Tensor]:
        """Embed prompts (B, length), frames in their slots; returns B times (sequence, hidden)."""
        return embed_frames(self.model.embed_tokens, input_ids, videos)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Predict the next token at every position, as `LlamaForCausalLM` does.

        With `pixel_values` (B, T, 4, S, S), `input_ids`, `attention_mask` and `labels` (B, length)
        are expanded to the sequence with its frames, that of the logits (B, sequence, vocabulary).
        """
        if pixel_values is not None:
            if input_ids is None:
                raise ValueError("pixel_values need the input_ids that hold their slots")
            spliced = self._splice_frames(input_ids, pixel_values, attention_mask, labels)
            input_ids, (inputs_embeds, attention_mask, labels) = None, spliced
            if position_ids is None:
                position_ids = attention_mask.cumsum(1).sub(1).clamp(min=0)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        if isinstance(logits_to_keep, int):
            hidden = hidden[:, slice(-logits_to_keep, None)]
        else:  # a model on several devices has its last layer on another one than the input
            hidden = hidden[:, logits_to_keep.to(hidden.device)]
        logits, size = self.lm_head(hidden), self.config.vocab_size
        loss = None if labels is None else self.loss_function(logits, labels, vocab_size=size)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        *args: Any,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Generate as every transformers model does; frames are encoded once, before prefill.

        Returns (B, length + new tokens): the prompts `inputs` or `input_ids`, slots unexpanded, and
        the generated tokens.

        Raises:
            ValueError: The slots of a prompt and the frames of its video differ in number.
        """
        input_ids = kwargs.pop("input_ids", inputs)
        generate: Any = super().generate
        if pixel_values is None or input_ids is None:
            if input_ids is not None and (input_ids == FRAME_SLOT).any():
                raise ValueError("the prompts have frame slots, but no pixel_values came with them")
            return generate(input_ids, *args, attention_mask=attention_mask, **kwargs)
        embedded, mask, _ = self._splice_frames(input_ids, pixel_values, attention_mask, None)
        generated = generate(None, *args, inputs_embeds=embedded, attention_mask=mask, **kwargs)
        sequences: Tensor = getattr(generated, "sequences", generated)
        prompts = input_ids.repeat_interleave(len(sequences) // len(input_ids), 0)
        sequences = torch.cat((prompts, sequences), 1)
        if isinstance(generated, Tensor):
            return sequences
        generated.sequences = sequences
        return generated

    def _splice_frames(
        self, input_ids: Tensor, pixel_values: Tensor, mask: Tensor | None, labels: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Embeddings, mask and labels of the sequence with its frames, padded on the left."""
        slots = input_ids == FRAME_SLOT
        counts, (batch, frames) = slots.sum(1).tolist(), pixel_values.shape[:2]
        if counts != [frames] * batch:
            wanted = f"{batch} videos of {frames} frames"
            raise ValueError(f"prompts with {counts} frame slots do not fit {wanted}")
        videos = self.model.encode_frames(pixel_values)
        mask = torch.ones_like(input_ids) if mask is None else mask

        def expand(values: Tensor, filler: int) -> list[Tensor]:
            fillers = [[values.new_full((len(frame),), filler) for frame in v] for v in videos]
            return [splice(*row) for row in zip(values, slots, fillers, strict=True)]

        kept = [row != 0 for row in expand(mask, 1)]

        def pack(rows: list[Tensor], filler: float) -> Tensor:
            rows = [row[keep] for row, keep in zip(rows, kept, strict=True)]
            return pad_sequence(rows, True, filler, padding_side="left")

        return (
            pack(self.embed_frames(input_ids, videos), 0.0),
            pack(expand(torch.ones_like(mask), 1), 0),
            None if labels is None else pack(expand(labels, IGNORED_LABEL), IGNORED_LABEL),
        )


def _read_config(folder: Path, changed: dict[str, Any]) -> VideoPandaConfig:
    def build(stored: dict[str, Any]) -> VideoPandaConfig:
        config: VideoPandaConfig = VideoPandaConfig.from_dict(stored | changed, **changed)
        return config

    return checkpoint.build_config(folder, build)


def read_generation_config(folder: Path, config: VideoPandaConfig) -> GenerationConfig | None:
    """Read the generation defaults of a folder; None if it has no `generation_config.json`."""
    fields = checkpoint.read_generation_fields(folder, config.vocab_size)
    if fields is None:
        return None
    try:
        generation: GenerationConfig = GenerationConfig.from_dict(fields)
    except Exception as error:  # transformers has checks of its own
        raise ModelError(f"{folder / 'generation_config.json'} cannot be used: {error}") from error
    if not generation.do_sample:
        # Vicuna's file sets a temperature beside greedy decoding, which cannot be saved again
        generation.temperature = generation.top_p = generation.top_k = None
    return generation


for _name in MODEL_TYPES:
    # not AutoConfig.register, which takes a class under one name only
    CONFIG_MAPPING.register(_name, VideoPandaConfig, exist_ok=True)
AutoModelForImageTextToText.register(
    VideoPandaConfig, VideoPandaForConditionalGeneration, exist_ok=True
)
AutoProcessor.register(VideoPandaConfig, VideoPandaProcessor, exist_ok=True)
