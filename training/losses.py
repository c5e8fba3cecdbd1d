"""Training losses of `tiny`: cross-entropy of the answers, and auxiliary losses on hidden states.

Answers alone are a weak signal. Linear probes, discarded after training, predict what every answer
needs from the Llama's hidden states: presence and outlines of shapes after the first layer, colour
and kind at the tokens a shape covers, its motion after the last layer, and the position of every
token in the frame.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface

from pandacli.modeling.modeling_videopanda import VideoPandaForConditionalGeneration
from pandacli.modeling.tokenization_videopanda import VideoPandaTokenizer, encode_prefix
from pandacli.video.preprocessing import MEAN, STD
from training.data import IGNORED, Batch
from training.scenes import COLOURS, KINDS, MOTIONS

DEVIATION_WEIGHT = 0.11
"""The model gives other spellings about 10 % together, so that none becomes the greedy answer."""

_FIRST_MOTION_FRAME = 3  # earlier frames show too little of a motion


@dataclass
class Losses:
    """The loss of one batch and its metrics."""

    total: Tensor
    answer: Tensor
    token_accuracy: Tensor
    seen_accuracy: Tensor
    """Share of shapes whose colour and kind are right at the middle layer."""
    motion_accuracy: Tensor
    asked: bool
    """Whether the batch has questions; batches of images have none."""
    mask: Tensor
    """Cross-entropy of the outlines predicted at the first layer."""


class ModelWithHeads(nn.Module):
    """A Video-Panda with the auxiliary heads used only in training."""

    prefix_ids: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self, model: VideoPandaForConditionalGeneration, tokenizer: VideoPandaTokenizer
    ) -> None:
        super().__init__()
        self.model = model
        model.set_attn_implementation("branching")
        hidden = model.config.hidden_size
        self.presence = nn.Linear(hidden, 1)
        self.appearance = nn.ModuleList(
            nn.Linear(hidden, len(COLOURS) + len(KINDS)) for _ in range(3)
        )
        self.mask = nn.Linear(hidden, 64)
        self.place = nn.Linear(hidden, 2)
        self.motion = nn.Linear(hidden, len(MOTIONS))
        prefix = torch.tensor([i for i in encode_prefix(tokenizer) if i >= 0])
        self.register_buffer("prefix_ids", prefix, persistent=False)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(
        self,
        batch: Batch,
        auxiliary_weight: float,
        teacher: VideoPandaForConditionalGeneration | None = None,
    ) -> Losses:
        """The losses of a batch.

        Args:
            batch: Clips and dialogues.
            auxiliary_weight: Weight of the auxiliary losses relative to that of the answers.
            teacher: A model with the same STAB; its probabilities are half of the target of
                answers that are spelled as usual, so that they stay as they are. What it gets
                wrong is not learned from it.
        """
        llama = self.model.model
        top, bottom, left, right = batch.box
        rows, columns = (bottom - top) // 28, (right - left) // 28
        videos = torch.stack([torch.cat(v) for v in llama.encode_frames(self._pixels(batch))])
        prefix_length = len(self.prefix_ids) + videos.shape[1]
        layers = self._run(self.model, videos, batch)
        asked = batch.target != IGNORED
        logits = self.model.lm_head(layers[-1][:, prefix_length:][asked]).float()
        target, usual = batch.target[asked], batch.usual[asked]
        losses = answer_losses(logits, target, usual)
        if teacher:
            with torch.no_grad():
                states = self._run(teacher, videos, batch)[-1]
                known = teacher.lm_head(states[:, prefix_length:][asked]).float().softmax(-1)
            kept = F.cross_entropy(logits, known, reduction="none")
            follow = (known.argmax(-1) == target) & ~batch.deviates[asked]
            losses = torch.where(follow, (losses + kept) / 2, losses)
        answer = losses.sum() / max(1, len(target))
        usual = torch.where(usual == IGNORED, target, usual)

        def cells(states: Tensor) -> Tensor:
            """Hidden states of the 2x2-patch cells: (B, T, rows * columns, hidden)."""
            frames = states[:, len(self.prefix_ids) : prefix_length].unflatten(
                1, (batch.shapes.shape[1], -1)
            )
            grid: Tensor = frames[:, :, 1:].unflatten(2, (rows, columns + 1))[:, :, :, :-1]
            return grid.flatten(2, 3)

        early, middle, late = (cells(layers[i]) for i in (0, len(layers) // 2, -1))
        presence = self._presence_loss(early, batch.shapes)
        appearance = [
            self._appearance_loss(head, states, batch.shapes)
            for head, states in zip(self.appearance, (early, middle, late), strict=True)
        ]
        place = self._place_loss(middle, rows, columns)
        motion, motion_accuracy = self._motion_loss(late, batch.shapes)
        coverage = batch.mask.float() / 255
        mask = F.binary_cross_entropy_with_logits(self.mask(early).float(), coverage)
        auxiliary = (
            presence + 5 * mask + 0.5 * sum(loss for loss, _ in appearance) + 4 * place + motion
        )
        return Losses(
            answer + auxiliary_weight * auxiliary,
            answer.detach(),
            _share(logits.argmax(-1) == usual),
            appearance[1][1],
            motion_accuracy,
            len(logits) > 0,
            mask.detach(),
        )

    def _run(
        self, model: VideoPandaForConditionalGeneration, videos: Tensor, batch: Batch
    ) -> tuple[Tensor, ...]:
        """The hidden states before each layer and after the last, each (B, positions, hidden)."""
        llama = model.model
        head = llama.embed_tokens(self.prefix_ids).expand(len(videos), -1, -1)
        length = head.shape[1] + videos.shape[1]
        inputs = torch.cat((head, videos.to(head.dtype), llama.embed_tokens(batch.text)), 1)
        outputs = llama(
            inputs_embeds=inputs,
            attention_mask=branching_mask(batch.dialogue, length),
            position_ids=branching_positions(batch.offset, length),
            output_hidden_states=True,
            use_cache=False,
        )
        layers: tuple[Tensor, ...] = outputs.hidden_states
        return layers

    def _pixels(self, batch: Batch) -> Tensor:
        """(B, T, 4, S, S): normalised RGB and the mask."""
        rgb = batch.frames.permute(0, 1, 4, 2, 3).float().div(255).sub(self.mean).div(self.std)
        mask = torch.zeros_like(rgb[:, :, :1])
        top, bottom, left, right = batch.box
        mask[..., top:bottom, left:right] = 1
        return torch.cat((rgb, mask), 2)

    def _presence_loss(self, cells: Tensor, shapes: Tensor) -> Tensor:
        present = torch.zeros(cells.shape[:3], device=cells.device)
        clips, times, slots = (shapes[..., 0] >= 0).nonzero(as_tuple=True)
        present[clips, times, shapes[clips, times, slots, 0]] = 1
        logits = self.presence(cells)[..., 0].float()
        weight = torch.tensor(4.0, device=cells.device)
        return F.binary_cross_entropy_with_logits(logits, present, pos_weight=weight)

    def _appearance_loss(
        self, head: nn.Module, cells: Tensor, shapes: Tensor
    ) -> tuple[Tensor, Tensor]:
        states, truth = at_shapes(cells, shapes)
        colour, kind = head(states).float().split((len(COLOURS), len(KINDS)), -1)
        loss = F.cross_entropy(colour, truth[:, 1]) + F.cross_entropy(kind, truth[:, 2])
        right = (colour.argmax(-1) == truth[:, 1]) & (kind.argmax(-1) == truth[:, 2])
        return loss, right.float().mean()

    def _place_loss(self, cells: Tensor, rows: int, columns: int) -> Tensor:
        y = torch.linspace(0, 1, rows, device=cells.device).repeat_interleave(columns)
        x = torch.linspace(0, 1, columns, device=cells.device).repeat(rows)
        guess = self.place(cells).float()
        return F.mse_loss(guess, torch.stack((y, x), -1).expand_as(guess))

    def _motion_loss(self, cells: Tensor, shapes: Tensor) -> tuple[Tensor, Tensor]:
        later = slice(_FIRST_MOTION_FRAME, None)
        states, truth = at_shapes(cells[:, later], shapes[:, later])
        if (truth[:, 3] == IGNORED).all():  # images
            return states.sum() * 0, torch.zeros(())
        logits = self.motion(states).float()
        right = (logits.argmax(-1) == truth[:, 3]).float().mean()
        return F.cross_entropy(logits, truth[:, 3]), right


def answer_losses(logits: Tensor, target: Tensor, usual: Tensor) -> Tensor:
    """The losses (n,) of tokens of answers, from logits (n, vocabulary).

    Where a target deviates from the usual spelling, its loss is the sum of how likely it is among
    the tokens that deviate, and with a small weight, how likely a deviation is at all.
    """
    losses = F.cross_entropy(logits, target, reduction="none")
    deviates = usual != IGNORED
    others = logits[deviates].scatter(1, usual[deviates, None], -torch.inf)
    among = F.cross_entropy(others, target[deviates], reduction="none")
    at_all = losses[deviates] - among
    return losses.index_put((deviates,), among + DEVIATION_WEIGHT * at_all)


def at_shapes(cells: Tensor, shapes: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden states (n, hidden) covered by shapes, and their labels (n, 4)."""
    clips, times, slots = (shapes[..., 0] >= 0).nonzero(as_tuple=True)
    truth = shapes[clips, times, slots]
    return cells[clips, times, truth[:, 0]], truth


def branching_attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of dialogues that share a prefix, in the form transformers calls it.

    The prefix uses plain causal attention; only the text behind it needs the dialogue mask.

    Args:
        _module: The attention layer.
        query: (B, heads, P + L, size); `key` and `value` likewise.
        key: See `query`.
        value: See `query`.
        attention_mask: (B, 1, L, P + L), see `branching_mask`.
    """
    prefix = query.shape[2] - attention_mask.shape[2]
    with torch.autocast(query.device.type, enabled=False):  # it would run softmax in float32
        query, key, value = (x.to(torch.bfloat16) for x in (query, key, value))
        ahead = torch.full((prefix, prefix), -torch.inf, dtype=query.dtype, device=query.device)
        seen = _attend(
            query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], ahead.triu(1)
        )
        read = _attend(query[:, :, prefix:], key, value, attention_mask.to(query.dtype))
    return torch.cat((seen, read), 2).transpose(1, 2), None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Explicit attention: its backward is faster than torch's fused one on a CPU in bfloat16."""
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2) + mask
    return torch.matmul(logits.softmax(-1), value)


AttentionInterface.register("branching", branching_attention)


def branching_mask(dialogue: Tensor, prefix_length: int) -> Tensor:
    """The attention mask of packed dialogues that share a prefix.

    Args:
        dialogue: (B, L) numbers from 1, 0 at padding.
        prefix_length: Positions P of the prefix, which all dialogues attend to.

    Returns:
        (B, 1, L, P + L), 0 where the text position may attend to the column, else -inf.
    """
    length = dialogue.shape[1]
    same = dialogue[:, :, None] == dialogue[:, None, :]
    allowed = F.pad(same.tril(), (prefix_length, 0), value=True)  # (B, L, P + L)
    mask = torch.zeros(len(dialogue), 1, length, prefix_length + length, device=dialogue.device)
    return mask.masked_fill(~allowed[:, None], -torch.inf)


def branching_positions(offset: Tensor, prefix_length: int) -> Tensor:
    """(B, P + L) position ids: every dialogue continues from the end of the prefix."""
    prefix = torch.arange(prefix_length, device=offset.device).expand(len(offset), -1)
    return torch.cat((prefix, offset + prefix_length), 1)


def _share(right: Tensor) -> Tensor:
    return right.float().mean() if len(right) else torch.zeros(())
