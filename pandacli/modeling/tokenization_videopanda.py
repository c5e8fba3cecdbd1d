"""The Llama SentencePiece tokenizer, on `sentencepiece` itself.

The tokenizers of transformers 5 give other ids than Video-Panda was trained with (runs of spaces,
text right after a special token), so the training tokenizer's rules are implemented here.
"""

import json
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, Self

import sentencepiece

from pandacli.checkpoint_files import INCOMPLETE, read_json
from pandacli.errors import ModelError
from pandacli.file_io import read_bytes

MODEL_FILE = "tokenizer.model"
CONFIG_FILE = "tokenizer_config.json"

_SAMPLE = "A chat: USER: what happens?\n  ASSISTANT: 42, \u00e9\u4e2d\U0001f43c\x00 </s>"
"""Words, digits, spaces, other scripts and bytes, to try a model out."""

_SPACE = "\u2581"  # how SentencePiece writes a space inside a piece


class VideoPandaTokenizer:
    """Text to ids and back with a Llama SentencePiece model.

    All input is plain text: `</s>` or `<unk>` in it are encoded in ordinary pieces. The caller
    inserts control ids (`bos_id`, `eos_id`), see `pandacli.modeling.prompt`.

    Args:
        model: The SentencePiece model: a file, or a loaded processor.
        legacy: Whether text directly after a control id gets the space that SentencePiece puts in
            front of every text. It does not in Vicuna and the published Video-Panda.

    Raises:
        ModelError: The file is missing or is not a SentencePiece model.
    """

    def __init__(
        self,
        model: str | PathLike[str] | sentencepiece.SentencePieceProcessor,
        *,
        legacy: bool = False,
    ) -> None:
        self.legacy = legacy
        self.processor: Any = _load(Path(model)) if isinstance(model, str | PathLike) else model
        self.bos_id: int = self.processor.bos_id()
        self.eos_id: int = self.processor.eos_id()
        self.unk_id: int = self.processor.unk_id()

    @classmethod
    def from_pretrained(cls, folder: str | PathLike[str]) -> Self:
        """Load `tokenizer.model` from a checkpoint folder, and `legacy` from its config.

        Raises:
            ModelError: The model is missing, or a file is damaged.
        """
        folder = Path(folder)
        settings = _read_settings(folder / CONFIG_FILE)
        return cls(folder / MODEL_FILE, legacy=bool(settings.get("legacy", False)))

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write `tokenizer.model` and `tokenizer_config.json`, which `from_pretrained` reads."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL_FILE).write_bytes(self.processor.serialized_model_proto())
        settings = {"legacy": self.legacy, "processor_class": "VideoPandaProcessor"}
        (folder / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def __len__(self) -> int:
        return int(self.processor.get_piece_size())

    def encode(self, text: str, *, after_control: bool = False) -> list[int]:
        """Encode a piece of plain text, without `bos`.

        Args:
            text: Any text; it is not stripped, and control tokens in it are not recognised.
            after_control: Whether the text directly follows a control id other than `bos` or a
                frame slot. With `legacy=False` no space is then put in front.
        """
        # SentencePiece does not accept lone surrogates, which a shell can pass on
        text = text.replace(_SPACE, " ").encode("utf-8", "replace").decode("utf-8")
        pieces: list[str] = self.processor.encode(text, out_type=str)
        bare = after_control and not self.legacy and not text.startswith(" ")
        if bare and pieces and pieces[0].startswith(_SPACE):
            pieces[:1] = [pieces[0][1:]] if len(pieces[0]) > 1 else []
        return [int(self.processor.piece_to_id(piece)) for piece in pieces]

    def decode(self, ids: Iterable[int]) -> str:
        """Decode generated ids for display, without control ids and surrounding space.

        A `</s>` spelled in ordinary pieces is removed at the end, as in the official code.
        """
        control = {self.bos_id, self.eos_id, self.unk_id}
        known = [i for i in map(int, ids) if 0 <= i < len(self) and i not in control]
        text: str = self.processor.decode(known)
        return text.strip().removesuffix("</s>").strip()


def as_tokenizer(tokenizer: Any, legacy: bool | None = None) -> VideoPandaTokenizer:
    """Convert a `SentencePieceProcessor` or the path of a model to a `VideoPandaTokenizer`.

    `legacy` overrides the tokenizer's own flag, which is False for a processor or a path.
    """
    if not isinstance(tokenizer, VideoPandaTokenizer):
        return VideoPandaTokenizer(tokenizer, legacy=bool(legacy))
    if legacy is None or legacy == tokenizer.legacy:
        return tokenizer
    return VideoPandaTokenizer(tokenizer.processor, legacy=legacy)


def _load(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"no {path.name} in {path.parent}")
    processor = sentencepiece.SentencePieceProcessor()
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
    text = processor.decode([processor.piece_to_id(piece) for piece in spelled])
    if not isinstance(text, str):
        raise ValueError("no text")


def _read_settings(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
