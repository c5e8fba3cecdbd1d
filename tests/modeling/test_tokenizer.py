"""The tokenizer on its own: folders, flags, decoding."""

import json
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor

from pandacli.errors import ModelError
from pandacli.modeling.checkpoint import read_tokenizer
from pandacli.modeling.configuration_videopanda import VideoPandaConfig
from pandacli.modeling.tokenization_videopanda import VideoPandaTokenizer, as_tokenizer


@pytest.fixture
def folder(sentencepiece_file: Path, tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_file.read_bytes())
    return tmp_path


@pytest.mark.parametrize("legacy", [True, False])
def test_legacy_flag_is_read_from_folder(folder: Path, legacy: bool) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"legacy": legacy}))
    assert VideoPandaTokenizer.from_pretrained(folder).legacy is legacy


def test_legacy_defaults_to_false(folder: Path) -> None:
    assert VideoPandaTokenizer.from_pretrained(folder).legacy is False


@pytest.mark.parametrize("legacy", [True, False])
def test_save_and_load_keep_model_and_flag(
    processor: SentencePieceProcessor, tmp_path: Path, legacy: bool
) -> None:
    VideoPandaTokenizer(processor, legacy=legacy).save_pretrained(tmp_path / "new")
    loaded = VideoPandaTokenizer.from_pretrained(tmp_path / "new")
    assert loaded.legacy is legacy
    assert len(loaded) == 32000
    assert loaded.encode("two  spaces") == processor.encode("two  spaces")


@pytest.mark.parametrize("content", [b"", b"hello, I am a text file", b"\x0a\x03\x0a\x01"])
def test_damaged_model_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.model"):
        VideoPandaTokenizer.from_pretrained(tmp_path)


def test_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no tokenizer\.model in"):
        VideoPandaTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe"])
def test_damaged_config_is_named(folder: Path, content: bytes) -> None:
    (folder / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer_config\.json"):
        VideoPandaTokenizer.from_pretrained(folder)


def test_text_after_control_id_gets_no_space(processor: SentencePieceProcessor) -> None:
    tokenizer = VideoPandaTokenizer(processor)
    pieces = [processor.id_to_piece(i) for i in tokenizer.encode("b", after_control=True)]
    assert pieces == ["b"]
    assert tokenizer.encode(" b", after_control=True) == processor.encode(" b")
    assert VideoPandaTokenizer(processor, legacy=True).encode(
        "b", after_control=True
    ) == processor.encode("b")


def test_as_tokenizer_accepts_processor_and_path(
    processor: SentencePieceProcessor, sentencepiece_file: Path
) -> None:
    own = VideoPandaTokenizer(processor, legacy=True)
    assert as_tokenizer(own) is own
    assert as_tokenizer(own, legacy=False).legacy is False
    assert as_tokenizer(processor).legacy is False
    assert as_tokenizer(sentencepiece_file, legacy=True).encode("hi") == own.encode("hi")


def test_decode_inverts_encode(
    processor: SentencePieceProcessor, prompt_vectors: dict[str, Any]
) -> None:
    tokenizer = VideoPandaTokenizer(processor)
    texts = [case["text"] for case in prompt_vectors["decode"]]
    for text in (text for text in texts if "\ufffd" not in text):
        assert tokenizer.decode([*processor.encode(text), 2]) == text


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["▁The", "▁man", "</s>"], "The man"),
        (["▁", "▁two", "▁", "▁spaces", "▁", "</s>"], "two  spaces"),
        (["▁one", "<0x0A>", "two", "<0x0A>", "</s>"], "one\ntwo"),
        (["▁a", "▁", "<0xF0>", "<0x9F>", "<0x90>", "<0xBC>", "▁pan", "da"], "a 🐼 panda"),
        (["<s>", "▁odd", "<unk>", "mix", "</s>", "</s>"], "oddmix"),
        (["</s>", "▁A", "▁man"], "A man"),
        (["▁x", "▁</", "s", ">", "</s>"], "x"),
        (["▁ends", "▁</", "s"], "ends </s"),
        (["<0xF0>", "<0x9F>", "<0x90>"], "\ufffd\ufffd\ufffd"),
        (["</s>"], ""),
    ],
)
def test_control_ids_and_outer_space_are_removed(
    processor: SentencePieceProcessor, pieces: list[str], text: str
) -> None:
    ids = [processor.piece_to_id(piece) for piece in pieces]
    assert ids.count(0) == pieces.count("<unk>")
    assert VideoPandaTokenizer(processor).decode(ids) == text


def test_ids_outside_vocabulary_are_removed(processor: SentencePieceProcessor) -> None:
    hello = processor.encode("hello")
    assert VideoPandaTokenizer(processor).decode([-200, *hello, 32000, 99999]) == "hello"


def test_changed_byte_is_refused_or_changes_pieces_only(tokenizer_model: bytes) -> None:
    draw = Random(5)
    refused = 0
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.model"
        for _ in range(150):
            content = bytearray(tokenizer_model)
            # the model's settings follow the pieces
            ends = (len(content), min(len(content), 700))
            content[len(content) - 1 - draw.randrange(draw.choice(ends))] = draw.randrange(256)
            path.write_bytes(content)
            try:
                tokenizer = VideoPandaTokenizer(path)
            except ModelError:
                refused += 1
                continue
            for text in ("A circle? \x00\ud800 \u00e9\u4e2d </s>", "", " ", "a" * 500):
                ids = tokenizer.encode(text) + tokenizer.encode(text, after_control=True)
                assert all(0 <= number < len(tokenizer) for number in ids)
                tokenizer.decode(ids)
            tokenizer.decode(range(len(tokenizer)))
    assert 0 < refused < 150


def test_tokenizer_larger_than_vocabulary_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="has 32000 tokens, the model 31999"):
        read_tokenizer(folder, VideoPandaConfig(vocab_size=31999))
    assert len(read_tokenizer(folder, VideoPandaConfig(vocab_size=32000))) == 32000


@pytest.mark.parametrize("content", [b"[" * 5000, b"[]", b"NaN", b'{"legacy": NaN}', b"\xff"])
def test_non_object_settings_are_a_model_error(folder: Path, content: bytes) -> None:
    (folder / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer_config\.json"):
        VideoPandaTokenizer.from_pretrained(folder)
