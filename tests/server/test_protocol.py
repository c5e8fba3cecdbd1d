"""Chat completions are parsed in full or refused with the parameter that is wrong."""

import json
import random
import time
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from pandacli.errors import ClipError, DeviceError, ModelError, PandaError
from pandacli.inference.spec import Request, ScoreRequest
from pandacli.server.engine import BusyError, StoppedError
from pandacli.server.protocol import (
    MOST_FRAMES,
    MOST_TEXT,
    RequestError,
    VideoSource,
    error_object,
    parse_chat,
    parse_json,
)

VIDEO = {"type": "video_url", "video_url": {"url": "clip.mp4"}}
OTHER = {"type": "video_url", "video_url": {"url": "other.mp4"}}
ASK = [{"role": "user", "content": ["text", VIDEO]}]
KINDS: dict[str, tuple[type, ...]] = {  # of the parameters
    "model": (str,),
    "messages": (list,),
    "stream": (bool,),
    "stream_options": (dict,),
    "max_tokens": (int,),
    "max_completion_tokens": (int,),
    "temperature": (int, float),
    "seed": (int,),
    "stop": (str, list),
    "logprobs": (bool,),
    "choices": (list,),
    "from": (str, int, float),
    "to": (str, int, float),
    "at": (list,),
    "frames": (int,),
}
VALUES = [True, False, 0, -1, 3, 0.5, -0.5, float("nan"), float("inf"), 10**400, -(10**400)]
VALUES += ["", "a", "\ud800", [], [1], ["a", ""], ["a", 1], [[]], [None], {}, {"a": 1}]


def user(*content: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": c} if isinstance(c, str) else c for c in content]
    return {"role": "user", "content": parts}


def body(*messages: Any, **fields: Any) -> dict[str, Any]:
    fields = {name.rstrip("_"): value for name, value in fields.items()}
    return {"model": "tiny", "messages": list(messages or [user("what?", VIDEO)]), **fields}


def refusal(body: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse_chat(body)
    status, shown = error_object(caught.value)
    assert (status, shown["error"]["type"]) == (caught.value.status, "invalid_request_error")
    assert len(shown["error"]["message"]) < 500
    assert status == 400
    return caught.value


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:12])
def test_a_value_of_the_wrong_type_is_refused_with_its_parameter(name: str, value: object) -> None:
    wrong = not isinstance(value, KINDS[name]) or (
        isinstance(value, bool) and bool not in KINDS[name]
    )
    asked = body(**{name: value})
    if wrong:
        assert refusal(asked).param == name
        return
    with suppress(RequestError):  # of a right type, it may be out of range
        parse_chat(asked)
        return
    assert (refusal(asked).param or "").startswith(name)


@pytest.mark.parametrize("whole", [None, [], "text", 3, True])
def test_a_body_that_is_no_object_is_refused(whole: object) -> None:
    assert "object" in refusal(whole).message


def test_a_missing_model_or_no_message_is_refused() -> None:
    assert refusal({"messages": ASK}).param == "model"
    assert refusal({"model": "tiny"}).param == "messages"
    assert refusal({"model": "tiny", "messages": []}).param == "messages"


def draw(random: random.Random, depth: int = 3) -> Any:
    """A JSON value."""
    if depth and random.random() < 0.5:
        if random.random() < 0.5:
            return [draw(random, depth - 1) for _ in range(random.randrange(4))]
        names = ["type", "text", "role", "content", "video_url", "url", "data", "file_id", "file"]
        return {random.choice(names): draw(random, depth - 1) for _ in range(random.randrange(4))}
    words = ["user", "assistant", "system", "text", "video_url", "input_video", "data:,", "\udc80"]
    return deepcopy(random.choice([*VALUES, *words, None]))


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container with every key of it, also in what it holds."""
    if not isinstance(value, dict | list):
        return []
    keys = [*value] if isinstance(value, dict) else [*range(len(value))]
    return [(value, key) for key in keys] + [p for key in keys for p in places(value[key])]


def test_drawn_requests_are_parsed_or_refused_and_nothing_else_is_raised() -> None:
    random_ = random.Random(5)
    refused = 0
    for _ in range(4000):
        text = json.dumps(
            body(
                {"role": "system", "content": "Be brief."},
                user("what?", VIDEO),
                {"role": "assistant", "content": "A circle."},
                user("and now?"),
                stream=True,
                stream_options={"include_usage": True},
                temperature=0.5,
                stop=["a"],
                from_=1,
                to="0:09",
            )
        )
        asked = json.loads(text)
        for _ in range(random_.randint(1, 3)):
            container, key = random_.choice(places(asked))
            container[key] = draw(random_)
        try:
            parsed = parse_chat(asked)
            assert parsed.asked.question
        except RequestError as error:
            status, shown = error_object(error)
            assert status == 400
            json.dumps(shown, ensure_ascii=False).encode()
            refused += 1
    assert 1000 < refused < 4000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("n", 2), ("n", True), ("top_p", 0.9), ("tools", [{}]), ("logit_bias", {"5": 1})],
        *[("response_format", {"type": "json_object"}), ("presence_penalty", 1), ("other", 1)],
        *[("modalities", ["audio"]), ("top_logprobs", 3), ("x" * 900, 1), ("\ud800", 1)],
    ],
)
def test_a_parameter_that_would_be_ignored_is_refused(name: str, value: object) -> None:
    error = refusal(body(**{name: value}))
    assert error.param == name[:80]
    json.dumps(error_object(error)[1], ensure_ascii=False).encode()


def test_standard_parameters_without_effect_are_accepted() -> None:
    given = {"user": "me", "n": 1, "top_p": 1.0, "tools": [], "metadata": {"a": "b"}, "seed": None}
    assert parse_chat(body(**given)).model == "tiny"


def test_frames_and_times_have_limits() -> None:
    assert refusal(body(frames=MOST_FRAMES + 4)).param == "frames"
    assert refusal(body(frames=0)).param == "frames"
    assert refusal(body(at=[0.1] * 9)).param == "at"
    assert parse_chat(body(at=[2, "0:01"], frames=8)).clip("c.mp4").at == (1.0, 2.0)


@pytest.mark.parametrize(
    "times",
    [
        *[{"from_": 5, "to": 5}, {"from_": 6, "to": "0:05"}, {"to": 0}, {"from_": 1e10}],
        *[{"from_": -1}, {"at": [1], "to": 2}, {"at": [-1]}, {"from_": "1:99"}],
    ],
)
def test_a_range_out_of_order_is_refused_before_anything_is_read(times: dict[str, Any]) -> None:
    assert refusal(body(**times)).param in {name.rstrip("_") for name in times}


def test_a_conversation_becomes_turns_with_the_last_question_open() -> None:
    asked = parse_chat(
        body(
            {"role": "developer", "content": "Be brief."},
            {"role": "system", "content": "And polite."},
            user(VIDEO),
            user("what?", "and where?"),
            {"role": "assistant", "content": "A circle."},
            {"role": "user", "content": " and now? "},
            max_completion_tokens=7,
            max_tokens=9,
            stop="x",
            seed=3,
        )
    )
    assert asked.system == "Be brief.\nAnd polite."
    assert isinstance(asked.asked, Request)
    assert asked.asked.history == [("what? and where?", "A circle.")]
    assert asked.asked.question == "and now?"
    assert (asked.options.max_tokens, asked.options.stop, asked.options.seed) == (7, ("x",), 3)
    assert asked.video == VideoSource(address="clip.mp4")


@pytest.mark.parametrize(
    ("roles", "where"),
    [
        *[("as", "messages[0]"), ("uaa", "messages[2]"), ("us", "messages[1]")],
        *[("ua", "messages"), ("s", "messages"), ("ut", "messages[1]")],
    ],
)
def test_messages_in_no_order_of_a_conversation_are_refused(roles: str, where: str) -> None:
    names = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    messages = [{"role": names[role], "content": [VIDEO, *user("x")["content"]]} for role in roles]
    assert refusal(body(*messages)).param == where


@pytest.mark.parametrize("role", [None, 3, [[]], {}, "x" * 10_000, "\ud800"])
def test_an_unknown_role_is_refused_in_a_short_message(role: object) -> None:
    assert refusal(body({"role": role, "content": "a"})).param == "messages[0]"


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ({"type": "video_url", "video_url": {"url": "a.mp4"}}, VideoSource(address="a.mp4")),
        ({"type": "video_url", "video_url": {"url": "DATA:x"}}, VideoSource(data="DATA:x")),
        ({"type": "input_video", "input_video": {"data": "AAAA"}}, VideoSource(data="AAAA")),
        ({"type": "file", "file": {"file_data": "data:x"}}, VideoSource(data="data:x")),
        ({"type": "file", "file": {"file_id": "file-1"}}, VideoSource(file_id="file-1")),
    ],
)
def test_each_way_to_name_a_video_is_understood(value: Any, source: VideoSource) -> None:
    assert parse_chat(body(user("what?", value))).video == source


def test_one_video_is_needed_and_the_same_may_be_repeated() -> None:
    assert refusal(body(user("what?"))).code == "invalid_video"
    assert refusal(body(user("what?", VIDEO, OTHER))).code == "invalid_video"
    again = body(user("a", VIDEO), {"role": "assistant", "content": "b"}, user("c", VIDEO))
    assert parse_chat(again).video.address == "clip.mp4"


def test_text_longer_than_any_context_is_refused_at_once() -> None:
    long = "what? " * (MOST_TEXT // 6 + 1)
    half = {"role": "assistant", "content": "b" * (MOST_TEXT // 2 + 1)}
    wanted = [
        body(user(long, VIDEO)),
        body(user("a", VIDEO), half, user("c"), half, user("d")),
        body(stop=[long]),
        body(choices=["a", long]),
        body(*[user("a", VIDEO)] * 1001),
    ]
    for each in wanted:
        started = time.monotonic()
        assert refusal(each).param
        assert time.monotonic() - started < 1


def test_choices_are_scored_and_checked() -> None:
    asked = parse_chat(body(choices=[" red ", "blue"])).asked
    assert isinstance(asked, ScoreRequest)
    assert asked.choices == ("red", "blue")
    for choices in (
        ["a"],
        ["a", "a "],
        ["a", ""],
        ["a", 1],
        ["a", "\ud800"],
        [*map(str, range(101))],
    ):
        assert refusal(body(choices=choices)).param == "choices"
    assert refusal(body(choices=["a", "b"], stream=True)).param == "stream"
    assert refusal(body(choices=["a", "b"], logprobs=True)).param == "logprobs"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"a": 1}x',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5000,
        b"\x00",
    ],
    ids=lambda text: repr(text[:8]),
)
def test_a_body_that_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(RequestError, match="not JSON"):
        parse_json(text)


def test_a_body_of_very_many_values_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(RequestError, match="too many values") as caught:
        parse_json(b"[" + b"0," * 1_000_000 + b"0]")
    assert caught.value.status == 413


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RequestError("no", status=404, code="file_not_found"), 404, "file_not_found"),
        (BusyError("no"), 429, "rate_limit_exceeded"),
        (ClipError("no"), 400, "invalid_video"),
        (ModelError("no"), 503, "model_unavailable"),
        (DeviceError("no"), 503, "out_of_memory"),
        (StoppedError("no"), 503, "server_stopping"),
        (PandaError("no", "do this"), 500, None),
    ],
)
def test_each_error_has_its_status_and_code(error: PandaError, status: int, code: str) -> None:
    got, shown = error_object(error)
    assert (got, shown["error"]["code"]) == (status, code)
    assert shown["error"].keys() == {"message", "type", "param", "code"}


def test_the_clip_of_a_request_has_its_range() -> None:
    clip = parse_chat(body(from_="0:01.5", to=4)).clip(Path("clip.mp4"))
    assert (clip.start, clip.end) == (1.5, 4.0)


def test_a_hint_names_parameters_and_no_options_of_the_command_line() -> None:
    error = PandaError("no", "give --from a time before --to, or fewer frames (--frames 4)")
    message = error_object(error)[1]["error"]["message"]
    assert message == "no; give from a time before to, or fewer frames (frames 4)"
