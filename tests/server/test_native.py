"""The routes below `/panda/` for commands: who may name which files, and messages of strangers."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pandacli import Panda
from pandacli.errors import PandaError, UsageError
from pandacli.server import wire
from pandacli.server.client import Client
from pandacli.server.media import Limits
from pandacli.server.remote import RemotePanda
from pandacli.video import Clip
from pandacli.video.prefetch import read_fitted
from tests.server.conftest import IMAGE_SIZE
from tests.server.page_server import RunningServer, listening_at, serving

KEY = "a secret"
SEED = 11


@pytest.fixture(scope="module")
def server(panda: Panda, place: Path) -> Iterator[RunningServer]:
    """A server of the small model with an API key, and strict limits."""
    strict = Limits(pixels=100, upload=3_000_000)
    with (
        listening_at(place) as listening,
        serving(panda, listening, api_key=KEY, limits=strict) as running,
    ):
        yield running


@pytest.fixture
def web(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client over TCP, which has the key."""
    monkeypatch.setenv("PANDA_API_KEY", KEY)
    return Client(server.url)


def message(clip: dict[str, Any], **others: Any) -> dict[str, Any]:
    request = {"question": "what?", "history": [], "options": None}
    named = {"from": None, "to": None, "at": [], "frames": 8, "system": None} | clip
    return {"clip": named, "requests": [request], "stream": True, **others}


def test_socket_needs_no_key_and_knows_no_limits(
    server: RunningServer, place: Path, clip: Path, panda: Panda
) -> None:
    del server
    answer = RemotePanda.connect(Client(place)).open(clip).ask("what?", max_tokens=3)
    assert answer.text == panda.open(clip).ask("what?", max_tokens=3).text


def test_path_is_not_read_over_tcp(web: Client, clip: Path) -> None:
    with pytest.raises(UsageError, match="not one of this version"):
        web.post("/panda/open", message({"path": str(clip)}))


def test_limits_hold_over_tcp(web: Client, clip: Path) -> None:
    with pytest.raises(UsageError, match="more than 100 pixels"):
        RemotePanda.connect(web).open(clip)


@pytest.mark.parametrize("headers", [{}, {"X-Forwarded-For": "unix:", "Host": "localhost"}])
def test_no_header_stands_in_for_the_key(server: RunningServer, headers: dict[str, str]) -> None:
    with server.open("/panda/model", **headers) as response:
        assert response.status == 401


def test_missing_key_is_named(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PANDA_API_KEY", raising=False)
    with pytest.raises(UsageError, match="API key") as error:
        RemotePanda.connect(Client(server.url))
    assert error.value.command == "PANDA_API_KEY=..."


def replaced(value: Any, random_: random.Random) -> Any:
    """A JSON value with one of its parts replaced by something else, or left out."""
    odd = [None, True, -1, 1.5, 10**40, "", "\ud800", "../..", [], [[]], {}, {"a": 1}, float("nan")]
    if isinstance(value, dict) and value and random_.random() < 0.85:
        name = random_.choice(sorted(value))
        if random_.random() < 0.2:
            return {key: each for key, each in value.items() if key != name}
        return value | {name: replaced(value[name], random_)}
    if isinstance(value, list) and value and random_.random() < 0.85:
        place = random_.randrange(len(value))
        return [*value[:place], replaced(value[place], random_), *value[place + 1 :]]
    return random_.choice(odd)


def test_odd_messages_are_refused_and_the_next_is_answered(
    web: Client, server: RunningServer, clip: Path
) -> None:
    frames = read_fitted(Clip(clip, 0, 2), 8, IMAGE_SIZE)
    sent = {"id": wire.frames_id(frames)}
    web.post_bytes("/panda/clips", wire.pack(message(sent), [frames]))
    whole = message(sent, request={"question": "a", "history": [], "options": None}, choice="b")
    whole["requests"][0]["options"] = wire.request_fields(_bounded())["options"]
    odd = random.Random(SEED)
    for number in range(120):
        path = odd.choice(["open", "prefix", "room", "choice", "answers"])
        fields = replaced(whole, odd)
        try:
            if path == "answers":
                list(web.events("/panda/answers", fields))
            else:
                web.post(f"/panda/{path}", fields)
        except UsageError:
            continue
        except PandaError as error:  # a fault of the server
            pytest.fail(f"{number}: {path} {fields}: {error.message}")
    assert server.engine.requests == 0
    answered = list(web.events("/panda/answers", message(sent)))
    assert "answer" in answered[-1]


def _bounded() -> Any:
    from pandacli.inference.spec import GenerationOptions, Request

    return Request("", options=GenerationOptions(max_tokens=4))


@pytest.mark.parametrize("side", [0, -1, IMAGE_SIZE * 100, 2**40])
def test_frames_of_a_wrong_size_are_refused(web: Client, clip: Path, side: int) -> None:
    frames = read_fitted(Clip(clip, 0, 2), 8, IMAGE_SIZE)
    head, _, pixels = wire.pack(message({"id": "x"}), [frames]).partition(b"\n")
    fields = json.loads(head)
    fields["clips"][0]["shape"][1] = side
    with pytest.raises(UsageError, match="not one of this version"):
        web.post_bytes("/panda/clips", wire.to_json(fields) + b"\n" + pixels)


def test_body_over_the_limit_is_refused(web: Client, make_clip: Callable[..., Path]) -> None:
    del make_clip
    with pytest.raises(UsageError, match="too large"):
        web.post_bytes("/panda/windows", bytes(3_000_001))
