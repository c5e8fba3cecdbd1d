"""The Llama SentencePiece tokenizer and the prompt template, on `sentencepiece` itself.

The tokenizers of transformers 5 give other ids than Video-Panda was trained with (runs of spaces,
text right after a special token), so the training tokenizer's rules are implemented here.
"""

import json
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self

from sentencepiece import SentencePieceProcessor

from pandacli.checkpoint_files import INCOMPLETE, read_json
from pandacli.errors import ModelError
from pandacli.file_io import read_bytes

MODEL_FILE = "tokenizer.model"
CONFIG_FILE = "tokenizer_config.json"
FRAME_SLOT = -200  # placeholder id of a frame; the model replaces it by the frame's tokens
DEFAULT_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)

# (question, answer) of each turn; the answer to generate is None
Turns = Sequence[Sequence[str | Sequence[int] | None]]

# words, digits, spaces, other scripts and bytes, to try a model out
_SAMPLE = "A chat: USER: what happens?\n  ASSISTANT: 42, \u00e9\u4e2d\U0001f43c\x00 </s>"
_SPACE = "\u2581"  # how SentencePiece writes a space inside a piece


class VideoPandaTokenizer:
    """Text to ids and back with a Llama SentencePiece model, a file or a loaded processor.

    All input is plain text: `</s>` or `<unk>` in it are encoded in ordinary pieces. With `legacy`,
    text directly after a control id gets the space that SentencePiece puts in front of every text;
    not so in Vicuna and the published Video-Panda.

    Raises:
        ModelError: The file is missing or is not a SentencePiece model.
    """

    def __init__(
        self, model: str | PathLike[str] | SentencePieceProcessor, *, legacy: bool = False
    ) -> None:
        self.legacy = legacy
        self.processor: Any = _load(Path(model)) if isinstance(model, str | PathLike) else model
        self.bos_id: int = self.processor.bos_id()
        self.eos_id: int = self.processor.eos_id()
        self.unk_id: int = self.processor.unk_id()

    @classmethod
    def from_pretrained(cls, folder: str | PathLike[str]) -> Self:
        """Load `tokenizer.model` from a checkpoint folder, and `legacy` from its config."""
        config = Path(folder, CONFIG_FILE)
        settings = read_json(config) if config.is_file() else {}
        return cls(Path(folder, MODEL_FILE), legacy=bool(settings.get("legacy", False)))

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write `tokenizer.model` and `tokenizer_config.json`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL_FILE).write_bytes(self.processor.serialized_model_proto())
        settings = {"legacy": self.legacy, "processor_class": "VideoPandaProcessor"}
        (folder / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def __len__(self) -> int:
        return int(self.processor.get_piece_size())

    def encode(self, text: str, *, after_control: bool = False) -> list[int]:
        """Encode plain text, neither stripped nor with `bos`.

        `after_control`: it directly follows a control id other than `bos` or a frame slot.
        """
        # SentencePiece does not accept lone surrogates, which a shell can pass on
        text = text.replace(_SPACE, " ").encode("utf-8", "replace").decode("utf-8")
        pieces: list[str] = self.processor.encode(text, out_type=str)
        bare = after_control and not self.legacy and not text.startswith(" ")
        if bare and pieces and pieces[0].startswith(_SPACE):
            pieces[:1] = [pieces[0][1:]] if len(pieces[0]) > 1 else []
        return [int(self.processor.piece_to_id(piece)) for piece in pieces]

    def piece(self, token: int) -> str:
        """The text of one token, with its space; a byte is written `<0xE7>`, an unknown id ""."""
        if token >= len(self):  # a model may have more ids than its tokenizer
            return ""
        return str(self.processor.id_to_piece(token)).replace(_SPACE, " ")

    def decode(self, ids: Iterable[int]) -> str:
        """Decode generated ids for display, without control ids and surrounding space.

        A `</s>` spelled in ordinary pieces is removed at the end, as in the official code.
        """
        control = {self.bos_id, self.eos_id, self.unk_id}
        known = [i for i in map(int, ids) if 0 <= i < len(self) and i not in control]
        text: str = self.processor.decode(known)
        return text.strip().removesuffix("</s>").strip()


def as_tokenizer(tokenizer: Any, legacy: bool | None = None) -> VideoPandaTokenizer:
    """Wrap a `SentencePieceProcessor` or the path of a model; `legacy` overrides the flag."""
    if not isinstance(tokenizer, VideoPandaTokenizer):
        return VideoPandaTokenizer(tokenizer, legacy=bool(legacy))
    if legacy is None or legacy == tokenizer.legacy:
        return tokenizer
    return VideoPandaTokenizer(tokenizer.processor, legacy=legacy)


def build_prompt(turns: Turns, system: str | None = None, num_frames: int = 8) -> str:
    r"""The conversation as one string, in the template `videopanda_v1` of the official inference.

        SYSTEM USER: <image>...<image>\nQUESTION ASSISTANT: ANSWER</s>USER: QUESTION ASSISTANT:

    An empty question or answer is left out with the space before it and its `</s>`, except for the
    first question. `system` is by default that of the training. For reading only: encoding this
    string would turn user text into control tokens.

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
    """Encode a conversation as in `build_prompt`, with `FRAME_SLOT` for each frame.

    A literal `<image>` or `</s>` in a question or an answer is encoded in ordinary pieces. (The
    official code reads it as a control token, and crashes or drops words.) An answer may also be
    its ids, without `</s>`; `tokenizer` also a `SentencePieceProcessor` or the path of its model.

    Raises:
        ValueError: There is no turn, or no frame.
    """
    tokenizer = as_tokenizer(tokenizer, legacy)
    return encode_prefix(tokenizer, system, num_frames) + encode_turns(turns, tokenizer)


def encode_turns(turns: Turns, tokenizer: VideoPandaTokenizer) -> list[int]:
    """Encode what follows the prefix in `encode_prompt`; a ValueError if there is no turn."""
    ids: list[int] = []
    for number, (text, answer) in enumerate(_parts(turns)):
        if number:
            ids.append(tokenizer.eos_id)
        if text:
            ids += tokenizer.encode(text, after_control=number > 0)
        ids += answer
    return ids


def encode_prefix(tokenizer: Any, system: str | None = None, num_frames: int = 8) -> list[int]:
    """Encode up to the last frame slot, the part of a prompt that all questions on a clip share."""
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
    text = f"\n{turns[0][0]} ASSISTANT:"
    for number, (question, answer) in enumerate(turns):
        if number:
            text += f"USER: {question} ASSISTANT:" if question else "USER:ASSISTANT:"
        if answer:
            is_text = isinstance(answer, str)
            parts.append((f"{text} {answer}", []) if is_text else (text, list(map(int, answer))))
            text = ""
    return [*parts, (text, [])]


def _load(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"no {path.name} in {path.parent}")
    processor = SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(read_bytes(path))
        _try_out(processor)
    except MemoryError:
        raise
    except Exception as error:  # a damaged model fails in any way, often only in use
        raise ModelError(f"{path} is not a usable SentencePiece model", INCOMPLETE) from error
    return processor


def _try_out(processor: Any) -> None:
    """Raise an error if a model lacks control tokens, or cannot encode and decode."""
    count = processor.get_piece_size()
    controls = (processor.bos_id(), processor.eos_id(), processor.unk_id())
    if not all(0 <= number < count for number in controls):
        raise ValueError("no control tokens")
    pieces = [processor.id_to_piece(number) for number in range(count)]
    if [processor.piece_to_id(piece) for piece in pieces] != list(range(count)):
        raise ValueError("duplicate pieces")
    spelled = processor.encode(_SAMPLE, out_type=str)
    processor.decode([processor.piece_to_id(piece) for piece in spelled])
