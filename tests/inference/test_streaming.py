"""Text as it grows: no piece is ever taken back, and the pieces join to the whole answer."""

import random

import pytest
import sentencepiece

from pandacli.inference.generation import StreamedText
from pandacli.modeling.tokenization_videopanda import VideoPandaTokenizer


@pytest.fixture(scope="module")
def tokenizer(tokenizer_model: bytes) -> VideoPandaTokenizer:
    return VideoPandaTokenizer(sentencepiece.SentencePieceProcessor(model_proto=tokenizer_model))


def stream(tokenizer: VideoPandaTokenizer, ids: list[int]) -> list[str]:
    text = StreamedText(tokenizer)
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


def test_a_character_of_several_bytes_comes_whole(tokenizer: VideoPandaTokenizer) -> None:
    ids = tokenizer.encode("a 🐼 b")
    assert len(ids) > 6, "the panda should be spelled in bytes"
    pieces = stream(tokenizer, ids)
    assert not any("\ufffd" in piece for piece in pieces)
    assert sum("🐼" in piece for piece in pieces) == 1


def test_words_come_as_they_are_decoded(tokenizer: VideoPandaTokenizer) -> None:
    pieces = stream(tokenizer, tokenizer.encode("A red circle moves left."))
    assert sum(bool(piece) for piece in pieces) > 3


def test_space_at_the_start_is_never_given(tokenizer: VideoPandaTokenizer) -> None:
    given = [piece for piece in stream(tokenizer, tokenizer.encode(" \n yes")) if piece]
    assert given[0][0] == "y"


def test_bytes_that_are_no_character_are_marked_at_the_end(tokenizer: VideoPandaTokenizer) -> None:
    ids = tokenizer.encode("a 🐼")[:-1]
    pieces = stream(tokenizer, ids)
    assert set("".join(pieces)) == {"a", " ", "\ufffd"}
    assert "\ufffd" in pieces[-1]
