"""Incremental detokenizing: no piece is retracted, and the pieces join to the whole text."""

import random

import pytest
import sentencepiece

from pandacli.inference.generation import Detokenizer
from pandacli.modeling.tokenization_videopanda import VideoPandaTokenizer


@pytest.fixture(scope="module")
def tokenizer(tokenizer_model: bytes) -> VideoPandaTokenizer:
    return VideoPandaTokenizer(sentencepiece.SentencePieceProcessor(model_proto=tokenizer_model))


def stream(tokenizer: VideoPandaTokenizer, ids: list[int], *stop: str) -> list[str]:
    text = Detokenizer(tokenizer, stop)
    return [*(text.add(token) for token in ids), text.finish()]


@pytest.mark.parametrize(
    "text",
    [
        "A red circle moves left.",
        "  space   around\n\n  and inside  \n",
        "größer, 赤い円, 🐼🐼 and é",
        "the tag </s> in the middle",
        "the tag at the end </s>",
        "two tags </s></s>",
        "two tags apart </s> </s>  ",
        "half a tag </",
        "half a tag <",
        "a < b and </sb> and </s",
        "</s>",
        "",
        "   ",
        "🐼",
    ],
)
def test_the_pieces_join_to_the_decoded_text(tokenizer: VideoPandaTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


def test_the_pieces_of_any_ids_join_to_their_decoded_text(tokenizer: VideoPandaTokenizer) -> None:
    draw = random.Random(5)
    often = tokenizer.encode("</s> < </ \n  🐼é")
    for _ in range(300):
        ids = [
            draw.choice(often) if draw.random() < 0.6 else draw.randrange(len(tokenizer))
            for _ in range(draw.randrange(40))
        ]
        assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


def test_a_character_of_several_tokens_is_returned_whole(tokenizer: VideoPandaTokenizer) -> None:
    ids = tokenizer.encode("a 🐼 b")
    assert len(ids) > 6, "the panda should be spelled in bytes"
    pieces = stream(tokenizer, ids)
    assert not any("\ufffd" in piece for piece in pieces)
    assert sum("🐼" in piece for piece in pieces) == 1


def test_words_are_returned_as_they_are_decoded(tokenizer: VideoPandaTokenizer) -> None:
    pieces = stream(tokenizer, tokenizer.encode("A red circle moves left."))
    assert sum(bool(piece) for piece in pieces) > 3


def test_leading_space_is_not_returned(tokenizer: VideoPandaTokenizer) -> None:
    given = [piece for piece in stream(tokenizer, tokenizer.encode(" \n yes")) if piece]
    assert given[0][0] == "y"


def test_an_incomplete_character_is_replaced_at_the_end(tokenizer: VideoPandaTokenizer) -> None:
    ids = tokenizer.encode("a 🐼")[:-1]
    pieces = stream(tokenizer, ids)
    assert set("".join(pieces)) == {"a", " ", "\ufffd"}
    assert "\ufffd" in pieces[-1]


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("END", "one two"),
        ("D", "one two EN"),
        ("END three", "one two"),
        ("two END", "one"),
        ("ENDED", "one two END three"),
        ("three", "one two END"),
        ("o", ""),
    ],
)
def test_text_ends_before_a_stop_string(
    tokenizer: VideoPandaTokenizer, stop: str, expected: str
) -> None:
    ids = tokenizer.encode("one two END three")
    assert "".join(stream(tokenizer, ids, stop)) == expected


def test_text_ends_before_the_first_of_several_stop_strings(tokenizer: VideoPandaTokenizer) -> None:
    ids = tokenizer.encode("one two three")
    assert "".join(stream(tokenizer, ids, "three", "two")) == "one"


def test_the_beginning_of_a_stop_string_is_held_back(tokenizer: VideoPandaTokenizer) -> None:
    text = Detokenizer(tokenizer, ["two END"])
    pieces = [text.add(token) for token in tokenizer.encode("one two EN")]
    assert "".join(pieces) == "one"
    assert text.finish() == " two EN"
    assert not text.stopped
