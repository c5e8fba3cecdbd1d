"""Who may use the server: names in the Host header, other sites' pages, and the API key."""

import asyncio
from typing import Any

import pytest

from pandacli.server.app import ServerSettings
from pandacli.server.guard import Guard

LOCAL = ("localhost", "127.0.0.1", "::1")


def status(
    headers: list[tuple[str, bytes]],
    path: str = "/v1/models",
    kind: str = "http",
    **settings: Any,
) -> int:
    """The status of a request's answer: 200 if the guard lets it through."""
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "method": "GET",
        "path": path,
        "headers": [(name.encode(), value) for name, value in headers],
        "server": ("127.0.0.1", 7263),
        "client": ("127.0.0.1", 50000),
    }
    guard = Guard(app, ServerSettings("tiny", 168, **settings))
    asyncio.run(guard(scope, None, send))  # type: ignore[arg-type]
    if sent[0]["type"] == "websocket.close":
        return 403
    names = [name for name, _ in sent[0]["headers"]]
    assert not any(name.startswith(b"access-control") for name in names), "no CORS for anyone"
    found: int = sent[0]["status"]
    return found


def host(name: str) -> tuple[str, bytes]:
    return "host", name.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    "name",
    [
        *("localhost", "localhost:7263", "LOCALHOST:7263", "LocalHost.", "localhost.:7263"),
        *("127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:7263"),
    ],
)
def test_names_of_the_loopback_are_let_through(name: str) -> None:
    assert status([host(name)]) == 200


@pytest.mark.parametrize(
    "name",
    [
        *("evil.example", "evil.example:7263", "localhost.evil.example", "localhost@evil.example"),
        *("evil.example#localhost", "127.0.0.1.evil.example", "127.0.0.2", "0.0.0.0", "[::]"),
        *(
            "",
            ":7263",
            "localhost:80:90",
            "xlocalhost",
            "local host",
            "[::1].evil.example",
            "[::2]",
        ),
        *(
            "::1.evil.example:80",
            "évil",
            "\ud800",
            "127.1",
            "2130706433",
            "localhost\\",
            "[localhost",
        ),
        *("localhost:x", "[::1]x", "::1", "localhost..", "evil.example:localhost"),
    ],
)
def test_any_other_name_is_refused(name: str) -> None:
    assert status([host(name)]) == 403


def test_a_request_without_a_host_is_refused() -> None:
    assert status([]) == 403


def test_a_server_at_any_address_takes_any_name() -> None:
    assert status([host("box.example:7263")], hosts=()) == 200


@pytest.mark.parametrize(
    ("origin", "let_through"),
    [
        ("http://localhost:7263", True),
        ("http://LOCALHOST:7263", True),
        ("http://localhost:8000", False),
        ("http://localhost", False),
        ("https://evil.example", False),
        ("null", False),
        ("localhost:7263", False),
        ("http://localhost:7263.evil.example", False),
        ("chrome-extension://abcdef", False),
        ("http://evil.example/localhost:7263", False),
    ],
)
def test_pages_of_other_sites_are_refused(origin: str, let_through: bool) -> None:
    headers = [host("localhost:7263"), ("origin", origin.encode())]
    assert status(headers) == (200 if let_through else 403)


def test_two_origins_are_refused() -> None:
    both = [("origin", b"https://evil.example"), ("origin", b"http://localhost:7263")]
    assert status([host("localhost:7263"), *both]) == 403
    assert status([host("localhost:7263"), *both[::-1]]) == 403


KEY = "schlüssel-κλειδί"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (b"Bearer " + KEY.encode(), 200),
        (b"bearer " + KEY.encode(), 200),
        (b"Bearer  " + KEY.encode(), 200),
        (b"Basic " + KEY.encode(), 401),
        (b"Bearer " + KEY.encode()[:-1], 401),
        (b"Bearer " + KEY.encode() + b"x", 401),
        (b"Bearer", 401),
        (b"Bearer ", 401),
        (b"Bearer \xff\xfe", 401),
        (KEY.encode(), 401),
        (b"", 401),
    ],
)
def test_the_key_is_compared_as_bytes(given: bytes, wanted: int) -> None:
    headers = [host("localhost"), ("authorization", given)]
    assert status(headers, api_key=KEY) == wanted


def test_health_and_the_page_need_no_key_and_the_rest_does() -> None:
    for path in ("/health", "/"):
        assert status([host("localhost")], path, api_key=KEY) == 200
    for path in ("/metrics", "/v1/files", "/health/", "//health", "/panda/media", "/openapi.json"):
        assert status([host("localhost")], path, api_key=KEY) == 401


def test_a_web_socket_is_closed() -> None:
    assert status([host("evil.example")], kind="websocket") == 403
    assert status([host("localhost")], kind="websocket") == 403
