r"""The prompt template, as text and as token ids.

It is that of the official inference (`videopanda_v1`)::

    SYSTEM USER: <image>...<image>\nQUESTION ASSISTANT: ANSWER</s>USER: QUESTION ASSISTANT:

An empty question or answer is left out together with the space before it and its terminator:
`USER:ASSISTANT:`. The first question is always there, as it holds the frames.

Only the frame slots and the `</s>` after an answer are control ids. Questions and answers are plain
text: a literal `<image>`, `</s>`, `<s>` or `<unk>` is encoded in ordinary pieces. (The official
code reads those as control tokens, and crashes or drops words.)
"""

from collections.abc import Sequence
from typing import Any

from pandacli.modeling.tokenization_videopanda import as_tokenizer

FRAME_SLOT = -200
"""The placeholder id of a frame; the model replaces it by the frame's tokens."""

DEFAULT_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)

Turns = Sequence[Sequence[str | Sequence[int] | None]]
"""(question, answer) of each turn; the answer is None where it is to be generated."""


def build_prompt(turns: Turns, system: str | None = None, num_frames: int = 8) -> str:
    """The conversation as one string, each frame slot written `<image>`.

    For reading and comparing only: encoding this string would turn user text into control tokens.
    Use `encode_prompt` for the ids.

    Args:
        turns: Pairs of (question, answer); the last answer is None where it is to be generated. An
            empty answer counts as None.
        system: The system prompt; by default that of the training.
        num_frames: Number of frame slots before the first question.

    Raises:
        ValueError: There is no turn, or no frame.
    """
    frames = "<image>" * _checked(num_frames)
    return _head(system) + frames + "</s>".join(text for text, _ in _parts(turns))


def encode_prompt(
    turns: Turns,
    tokenizer: Any,
    system: str | None = None,
    num_frames: int = 8,
    *,
    legacy: bool | None = None,
) -> list[int]:
    """Encode a conversation, with `FRAME_SLOT` for each frame; it starts with `encode_prefix`.

    Args:
        turns: As for `build_prompt`; an answer may also be its ids, without the `</s>`.
        tokenizer: A `VideoPandaTokenizer`, a `sentencepiece.SentencePieceProcessor`, or the path of
            a SentencePiece model.
        system: As for `build_prompt`.
        num_frames: As for `build_prompt`.
        legacy: Overrides the tokenizer's own flag (see `VideoPandaTokenizer`); a bare SentencePiece
            model defaults to `legacy=False`.

    Raises:
        ValueError: There is no turn, or no frame.
    """
    tokenizer = as_tokenizer(tokenizer, legacy)
    ids = encode_prefix(tokenizer, system, num_frames)
    for number, (text, answer) in enumerate(_parts(turns)):
        if number:
            ids.append(tokenizer.eos_id)
        if text:
            ids += tokenizer.encode(text, after_control=number > 0)
        ids += answer
    return ids


def encode_prefix(tokenizer: Any, system: str | None = None, num_frames: int = 8) -> list[int]:
    """Encode up to the last frame slot, the part all questions on a clip share.

    Arguments as for `encode_prompt`.

    Raises:
        ValueError: There is no frame.
    """
    tokenizer = as_tokenizer(tokenizer)
    frames = [FRAME_SLOT] * _checked(num_frames)
    return [tokenizer.bos_id, *tokenizer.encode(_head(system)), *frames]


def _head(system: str | None) -> str:
    return f"{DEFAULT_SYSTEM if system is None else system} USER: "


def _checked(num_frames: int) -> int:
    if num_frames < 1:
        raise ValueError(f"a prompt needs at least one frame, not {num_frames}")
    return num_frames


def _parts(turns: Turns) -> list[tuple[str, list[int]]]:
    """The text after the frames, split at each `</s>`, with the ids that follow each part."""
    if not turns:
        raise ValueError("a prompt needs at least one turn")
    parts: list[tuple[str, list[int]]] = []
    text = "\n"
    for number, (question, answer) in enumerate(turns):
        if number:
            text += f"USER: {question} " if question else "USER:"
        else:
            text += f"{question} "
        text += "ASSISTANT:"
        if answer:
            is_text = isinstance(answer, str)
            parts.append((f"{text} {answer}", []) if is_text else (text, list(map(int, answer))))
            text = ""
    return [*parts, (text, [])]
