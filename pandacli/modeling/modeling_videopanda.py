"""Video-Panda in transformers: STAB, a projector, and a Llama that reads frames as tokens."""

from os import PathLike
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationMixin, LlamaModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaPreTrainedModel

from pandacli.errors import ModelError
from pandacli.modeling import checkpoint
from pandacli.modeling.bitsandbytes_weights import read_quantised
from pandacli.modeling.configuration_videopanda import VideoPandaConfig
from pandacli.modeling.fused_stab import FusedSTAB
from pandacli.modeling.patches import FrameTokens, project
from pandacli.modeling.stab import STAB
from pandacli.modeling.tokenization_videopanda import FRAME_SLOT

IGNORED_LABEL = -100  # at positions that carry no loss, as everywhere in transformers


class VideoPandaModel(LlamaModel):
    """Llama decoder plus video tower (STAB) and projector.

    For inference the tower runs on fused weights (`FusedSTAB`), outside the state dict, which are
    built at the first use and again after `train()`, `eval()`, `to()` and changes in place.
    """

    config_class = VideoPandaConfig
    config: VideoPandaConfig

    def __init__(self, config: VideoPandaConfig) -> None:
        super().__init__(config)
        self._fused: FusedSTAB | None = None
        self.video_tower = STAB(config)
        self._tower_types = [type(module) for module in self.video_tower.modules()]
        self.video_projector = nn.Sequential(
            nn.Linear(config.video_hidden_size, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.hidden_size),
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def encode_frames(self, pixel_values: Tensor) -> list[list[Tensor]]:
        """Like `get_video_features`, with the (tokens, hidden_size) of each frame apart."""
        frames = self.run_tower(pixel_values)
        projected = project(frames, self.video_tower.split_embedding, self.video_projector)
        count = pixel_values.shape[1]
        return [projected[i : i + count] for i in range(0, len(projected), count)]

    def run_tower(self, pixel_values: Tensor) -> list[FrameTokens]:
        """The tokens of all B * T frames before the projector; see `encode_frames`."""
        shape, size = tuple(pixel_values.shape), self.config.image_size
        if len(shape) != 5 or shape[2:] != (4, size, size):
            raise ValueError(f"pixel_values of shape {shape}: wanted (B, T, 4, {size}, {size})")
        weight = self.video_tower.patch_embedding.weight
        pixel_values = pixel_values.to(weight.device, weight.dtype)
        if not self._can_fuse(pixel_values):
            return self.video_tower(pixel_values)  # type: ignore[no-any-return]
        if self._fused is None or not self._fused.is_current():
            self._fused = FusedSTAB(self.video_tower)
        return self._fused(pixel_values)

    def train(self, mode: bool = True) -> Self:
        self._fused = None
        super().train(mode)
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._fused = None  # `to` and the like move or cast the weights
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _can_fuse(self, pixel_values: Tensor) -> bool:
        """Whether only the function is needed: no gradients, statistics, autocast, other layers."""
        modules = list(self.video_tower.modules())
        weights = [*self.video_tower.parameters(), *self.video_tower.buffers()]
        needs_grad = pixel_values.requires_grad or any(weight.requires_grad for weight in weights)
        return not (
            any(module.training for module in modules)
            # adapters, quantised layers
            or [type(module) for module in modules] != self._tower_types
            or torch.is_autocast_enabled(pixel_values.device.type)
            # changes of inference tensors are not counted
            or any(weight.is_inference() for weight in weights)
            or (torch.is_grad_enabled() and needs_grad)
        )


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
            config = checkpoint.read_config(Path(config or folder), **changed)
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
        kwargs.setdefault("generation_config", checkpoint.read_generation_config(folder, config))
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
        text = self.model.embed_tokens(input_ids.clamp(min=0))
        slots = input_ids == FRAME_SLOT
        return [_splice(*row) for row in zip(text, slots, videos, strict=True)]

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
            return [_splice(*row) for row in zip(values, slots, fillers, strict=True)]

        kept = [row != 0 for row in expand(mask, 1)]

        def pack(rows: list[Tensor], filler: float) -> Tensor:
            rows = [row[keep] for row, keep in zip(rows, kept, strict=True)]
            return pad_sequence(rows, True, filler, padding_side="left")

        return (
            pack(self.embed_frames(input_ids, videos), 0.0),
            pack(expand(torch.ones_like(mask), 1), 0),
            None if labels is None else pack(expand(labels, IGNORED_LABEL), IGNORED_LABEL),
        )


def empty_model(config: VideoPandaConfig) -> VideoPandaForConditionalGeneration:
    """Build a model on the meta device."""
    with torch.device("meta"):
        return VideoPandaForConditionalGeneration(config)


def _splice(values: Tensor, slots: Tensor, replacements: list[Tensor]) -> Tensor:
    """Replace each slot row of values (length, ...) by the rows of its replacement."""
    pieces, start = [], 0
    for place, rows in zip(slots.nonzero().flatten().tolist(), replacements, strict=True):
        pieces += [values[start:place], rows.to(values)]
        start = place + 1
    return torch.cat([*pieces, values[start:]])
