"""Prompts against the official ones, as text and as ids.

The Llama tokenizer may not be passed on, so ids are checked in two ways: with a stand-in that knows
the pieces recorded in `prompt.json` (the very ids), and with another SentencePiece model of the
same kind against a second, string-based statement of the rule (the mechanics).
"""

import re
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor

from pandacli.modeling.tokenization_videopanda import (
    FRAME_SLOT,
    VideoPandaTokenizer,
    build_prompt,
    encode_prefix,
    encode_prompt,
)

CONTROL = ("<image>", "</s>", "<s>", "<unk>")
SPACE = "\u2581"


def is_plain(case: dict[str, Any]) -> bool:
    """Whether no control token was typed, which we treat unlike the official code."""
    return not any(
        mark in (text or "") for turn in case["turns"] for text in turn for mark in CONTROL
    )


class RecordedLlama:
    """A fake of Llama's SentencePiece model that knows the texts of `prompt.json`."""

    def __init__(self, cases: list[dict[str, Any]]) -> None:
        self.pieces: dict[str, list[str]] = {}
        for case in filter(is_plain, cases):
            texts = re.split("<image>|</s>", case["prompt"])
            runs = list(split_at_control(case["ids_legacy"][1:]))
            for text, run in zip(texts, runs, strict=True):
                text = text.replace(SPACE, " ")
                self.pieces[text] = [f"#{i}" for i in run]
                if text.startswith("USER"):  # ids 3148 and 3308, see the specification
                    self.pieces[text][0] = SPACE + "US"

    def encode(self, text: str, out_type: type) -> list[str]:
        assert out_type is str
        return list(self.pieces[text])

    def piece_to_id(self, piece: str) -> int:
        return {SPACE + "US": 3148, "US": 3308}.get(piece) or int(piece[1:])

    def bos_id(self) -> int:
        return 1

    def eos_id(self) -> int:
        return 2

    def unk_id(self) -> int:
        return 0


def split_at_control(ids: list[int]) -> Iterator[list[int]]:
    run: list[int] = []
    for i in ids:
        if i in (FRAME_SLOT, 2):
            yield run
            run = []
        else:
            run.append(i)
    yield run


def ids_of_string(prompt: str, processor: SentencePieceProcessor, legacy: bool) -> list[int]:
    """The official rule, which parses control tokens in the finished string."""
    ids = [1]
    for number, part in enumerate(prompt.split("<image>")):
        ids += [FRAME_SLOT] * (number > 0)
        text = part if legacy else SPACE + part.replace(SPACE, " ")
        for segment in re.split("(<unk>|<s>|</s>)", text):
            if segment in ("<unk>", "<s>", "</s>"):
                ids.append(("<unk>", "<s>", "</s>").index(segment))
            elif legacy or not segment:
                ids += processor.encode(segment)
            elif segment.startswith(SPACE):
                ids += processor.encode(segment[1:])
            else:
                pieces = processor.encode(segment, out_type=str)
                if not segment.startswith(" ") and pieces[0].startswith(SPACE):
                    pieces[0] = pieces[0][1:]
                ids += [processor.piece_to_id(piece) for piece in pieces if piece]
    return ids


def test_prompts_equal_official(prompt_vectors: dict[str, Any]) -> None:
    for case in prompt_vectors["cases"]:
        assert build_prompt(case["turns"]) == case["prompt"], case["id"]


@pytest.mark.parametrize("legacy", [True, False])
def test_ids_equal_official(prompt_vectors: dict[str, Any], legacy: bool) -> None:
    llama = RecordedLlama(prompt_vectors["cases"])
    wanted = "ids_legacy" if legacy else "ids_nonlegacy"
    cases = list(filter(is_plain, prompt_vectors["cases"]))
    assert len(cases) == 35
    for case in cases:
        assert encode_prompt(case["turns"], llama, legacy=legacy) == case[wanted], case["id"]


@pytest.mark.parametrize("legacy", [True, False])
def test_ids_equal_rule_with_other_tokenizer(
    prompt_vectors: dict[str, Any], processor: SentencePieceProcessor, legacy: bool
) -> None:
    for case in filter(is_plain, prompt_vectors["cases"]):
        ids = encode_prompt(case["turns"], VideoPandaTokenizer(processor, legacy=legacy))
        assert ids == ids_of_string(case["prompt"], processor, legacy), case["id"]


@pytest.mark.parametrize("legacy", [True, False])
def test_user_text_is_never_a_control_token(
    prompt_vectors: dict[str, Any], processor: SentencePieceProcessor, legacy: bool
) -> None:
    cases = [case for case in prompt_vectors["cases"] if not is_plain(case)]
    assert len(cases) == 11
    for case in cases:
        ids = encode_prompt(case["turns"], processor, legacy=legacy)
        answered = sum(bool(answer) for _, answer in case["turns"])
        assert ids.count(FRAME_SLOT) == 8, case["id"]
        assert (ids.count(1), ids.count(2), ids.count(0)) == (1, answered, 0), case["id"]
        assert ids != ids_of_string(case["prompt"], processor, legacy), case["id"]


def conversations(count: int) -> Iterator[list[tuple[str, str | None]]]:
    """Random turns, texts possibly empty or blank; the last is unanswered."""
    random = Random(14)
    words = ["", "", " ", "\n", "why", " what?", "a panda. ", "two words", "中文"]
    for _ in range(count):
        turns = [(random.choice(words), random.choice(words)) for _ in range(random.randrange(4))]
        yield [*turns, (random.choice(words), None)]


def official_form(turns: list[tuple[str, str | None]]) -> str:
    """The conversation by its roles: an empty message is its role and a colon."""
    text = ""
    for number, turn in enumerate(turns):
        question, answer = turn
        asked = question if number else f"{'<image>' * 8}\n{question}"
        text += f"USER: {asked} " if asked else "USER:"
        text += f"ASSISTANT: {answer}</s>" if answer else "ASSISTANT:"
    return text


@pytest.mark.parametrize("legacy", [True, False])
def test_empty_turns_leave_no_space(processor: SentencePieceProcessor, legacy: bool) -> None:
    for turns in conversations(300):
        prompt = build_prompt(turns, "S")
        assert prompt == f"S {official_form(turns)}"
        ids = encode_prompt(turns, processor, "S", legacy=legacy)
        assert ids == ids_of_string(prompt, processor, legacy), turns


@pytest.mark.parametrize(
    ("turns", "end"),
    [
        ([("", None)], "\n ASSISTANT:"),
        ([("a", "b"), ("", None)], "b</s>USER:ASSISTANT:"),
        ([("a", "b"), ("", "c"), ("d", None)], "</s>USER:ASSISTANT: c</s>USER: d ASSISTANT:"),
        ([("a", ""), ("", None)], "\na ASSISTANT:USER:ASSISTANT:"),
        ([("a", "b"), (" ", None)], "b</s>USER:   ASSISTANT:"),
    ],
)
def test_empty_message_is_role_only(turns: list[Any], end: str) -> None:
    assert build_prompt(turns).endswith(end)


def test_user_text_decodes_unchanged(processor: SentencePieceProcessor) -> None:
    question = "is <image> or </s> or <unk> in <s>?"
    ids = encode_prompt([(question, None)], processor)
    tail = ids[ids.index(FRAME_SLOT) + 8 :]
    assert processor.decode(tail) == f"\n{question} ASSISTANT:"


def test_legacy_changes_only_text_after_answer(processor: SentencePieceProcessor) -> None:
    turns = [("what?", "a panda"), ("why?", None)]
    new = encode_prompt(turns, processor, legacy=False)
    old = encode_prompt(turns, processor, legacy=True)
    end = new.index(2)
    assert new[: end + 1] == old[: end + 1]
    assert new[end + 1 :] != old[end + 1 :]
    assert encode_prompt(turns[1:], processor, legacy=True) == encode_prompt(turns[1:], processor)


@pytest.mark.parametrize("num_frames", [1, 8, 16])
@pytest.mark.parametrize("system", [None, "", "Be brief."])
def test_conversations_start_with_prefix(
    prompt_vectors: dict[str, Any],
    processor: SentencePieceProcessor,
    system: str | None,
    num_frames: int,
) -> None:
    prefix = encode_prefix(processor, system, num_frames)
    assert prefix[-num_frames:] == [FRAME_SLOT] * num_frames
    assert prefix.count(FRAME_SLOT) == num_frames
    for case in prompt_vectors["cases"]:
        ids = encode_prompt(case["turns"], processor, system, num_frames)
        assert ids[: len(prefix)] == prefix
        assert FRAME_SLOT not in ids[len(prefix) :]


def test_next_turn_extends_ids(
    processor: SentencePieceProcessor,
) -> None:
    first = encode_prompt([("what?", None)], processor)
    second = encode_prompt([("what?", "a panda"), ("and why?", None)], processor)
    assert second[: len(first)] == first


def test_answered_last_turn_ends_with_eos(processor: SentencePieceProcessor) -> None:
    turns = [("what?", "a panda")]
    assert build_prompt(turns).endswith("\nwhat? ASSISTANT: a panda</s>")
    assert encode_prompt(turns, processor)[-1] == 2


def test_system_prompt_can_be_replaced() -> None:
    assert build_prompt([("q", None)], "Be brief.", 2) == (
        "Be brief. USER: <image><image>\nq ASSISTANT:"
    )


def test_lone_surrogate_is_encoded(processor: SentencePieceProcessor) -> None:
    assert encode_prompt([("caf\udce9", None)], processor)


@pytest.mark.parametrize(
    ("turns", "num_frames"), [([], 8), ([("q", None)], 0), ([("q", None)], -1)]
)
def test_prompt_without_turns_or_frames_is_refused(
    processor: SentencePieceProcessor, turns: list[Any], num_frames: int
) -> None:
    with pytest.raises(ValueError, match="at least one"):
        build_prompt(turns, num_frames=num_frames)
    with pytest.raises(ValueError, match="at least one"):
        encode_prompt(turns, processor, num_frames=num_frames)
