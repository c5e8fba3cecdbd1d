"""Slow clients are let go, and what clients asked for that have gone is stopped."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pandacli import Panda
from pandacli.inference.session import VideoSession
from pandacli.server import connections as connections_module
from pandacli.server import streaming
from pandacli.server.media import FrameReaders, Limits
from tests.inference.batches import QUESTIONS
from tests.server.conftest import Gate, wait_until
from tests.server.live import Live, chat_body, post, read_all
from tests.server.test_media import hostile_read

LONG = 250  # tokens of an answer


@pytest.fixture(scope="module")
def server(panda: Panda, clip: Path) -> Iterator[Live]:
    with Live(lambda: panda, clip.parent) as running:
        yield running


def is_answered(server: Live, clip: Path) -> bool:
    return b" 200 OK" in server.raw(post(chat_body(clip.name), connection="close"))


def test_headers_that_do_not_end_close_the_connection(
    server: Live, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "_HEADER_SECONDS", 0.3)
    silent, slow = server.connect(), server.connect()
    slow.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n")
    started = time.monotonic()
    assert read_all(silent) == b""
    for number in range(20):
        try:
            slow.sendall(b"x-%d: y\r\n" % number)
        except OSError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("it was not closed")
    assert time.monotonic() - started < 10
    silent.close()
    slow.close()
    wait_until(lambda: server.connections == 0)
    assert is_answered(server, clip)


def test_a_connection_that_is_kept_has_time_for_each_request(
    server: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "_HEADER_SECONDS", 0.5)
    connection = http.client.HTTPConnection("localhost", server.port)
    for _ in range(4):
        connection.request("GET", "/health")
        assert connection.getresponse().read()
        time.sleep(0.25)
    assert connection.sock is not None, "twice as long as the limit"
    connection.close()


def test_a_body_that_comes_too_slowly_is_refused(
    server: Live, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "_BODY_SECONDS", 0.3)
    monkeypatch.setattr(connections_module, "_HEADER_SECONDS", 0.3)
    with server.connect() as slow:
        slow.sendall(post(b"", content_length="1000"))
        started = time.monotonic()
        for _ in range(10):
            slow.sendall(b" ")
            time.sleep(0.04)
        assert b" 408 " in slow.recv(1000)
        assert read_all(slow) == b"", "closed, though its body has not ended"
        assert time.monotonic() - started < 10
    assert server.service._bodies.held == 0
    assert is_answered(server, clip)


def test_a_body_that_comes_steadily_has_more_time(
    server: Live, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_module, "_BODY_SECONDS", 0.3)
    body = chat_body(clip.name)
    body += b" " * (60_000 - len(body))
    with server.connect() as steady:
        steady.sendall(post(b"", content_length=str(len(body)), connection="close"))
        for start in range(0, len(body), 10_000):
            steady.sendall(body[start : start + 10_000])
            time.sleep(0.1)
        assert b" 200 OK" in read_all(steady)


def test_a_client_that_does_not_read_its_stream_is_let_go(
    panda: Panda, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "_SEND_SECONDS", 0.5)
    original = streaming.Answering.next

    async def large(answering: Any) -> Any:
        result = await original(answering)
        return result * 100_000 if isinstance(result, str) else result

    monkeypatch.setattr(streaming.Answering, "next", large)
    with Live(lambda: panda, clip.parent) as server:
        stalled = socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", server.port))
        stalled.sendall(post(chat_body(clip.name, stream=True, max_tokens=LONG)))
        wait_until(lambda: server.requests == 1)
        wait_until(lambda: server.requests == 0)
        stalled.close()


def test_a_client_that_goes_while_frames_are_read_ends_the_reading(
    panda: Panda, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pandacli.server.media.read_limited", hostile_read)
    (tmp_path / "endless.mp4").write_bytes(clip.read_bytes())
    with Live(lambda: panda, tmp_path, limits=Limits()) as server:
        with server.connect() as going:
            going.sendall(post(chat_body("endless.mp4")))
            readings = server.service._readers._shared
            wait_until(lambda: any(each.request.begun.is_set() for each in readings.values()))
            (reader,) = [each.request.reader for each in readings.values()]
            wait_until(lambda: reader._process is not None)
            process = reader._process.process
            assert server.requests == 1
        wait_until(lambda: server.requests == 0)
        wait_until(lambda: not readings)
        wait_until(lambda: process.poll() is not None)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_while_it_is_answered_stops_the_answer_within_a_token(
    server: Live, clip: Path, gate: Gate, stream: bool
) -> None:
    gate.close()
    with server.connect() as going:
        going.sendall(post(chat_body(clip.name, QUESTIONS[0], stream=stream, max_tokens=LONG)))
        gate.wait()
    wait_until(lambda: server.requests == 0)
    before = len(gate.passes)
    gate.opened.set()
    wait_until(lambda: all(each.is_idle for each in [*server.service.engine._clips.values()]))
    assert len(gate.passes) <= before + 2


def test_a_client_that_goes_while_it_waits_is_never_computed(
    server: Live, clip: Path, clips: list[Path], gate: Gate
) -> None:
    gate.close()
    first, kept = server.connect(), server.service.engine.clips
    first.sendall(post(chat_body(clip.name, **{"from": 1}), connection="close"))
    gate.wait()
    with server.connect() as going:
        going.sendall(post(chat_body(clips[0].name, max_tokens=LONG)))
        wait_until(lambda: server.service.engine.clips == kept + 2)
    wait_until(lambda: server.requests == 1)
    gate.opened.set()
    assert b" 200 OK" in read_all(first)
    first.close()
    wait_until(lambda: all(each.is_idle for each in [*server.service.engine._clips.values()]))
    (opened,) = [
        each for key, each in server.service.engine._clips.items() if key.clip.path == clips[0]
    ]
    assert opened.session is None or opened.session._prefix is None


def test_a_client_that_goes_during_the_prefill_costs_no_further_pass(
    server: Live, clip: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = VideoSession.shared_prefix
    held: list[VideoSession] = []

    def slow(session: VideoSession) -> Any:
        held.append(session)
        assert gate.opened.wait(20)
        return prepare(session)

    monkeypatch.setattr(VideoSession, "shared_prefix", slow)
    gate.close()
    with server.connect() as going:
        going.sendall(post(chat_body(clip.name, max_tokens=LONG)))
        wait_until(lambda: bool(held))
    wait_until(lambda: server.requests == 0)
    gate.opened.set()
    wait_until(lambda: all(each.is_idle for each in [*server.service.engine._clips.values()]))
    assert len(gate.passes) <= 3, "the one that ran, and two in which nothing is left to do"


def test_a_client_that_goes_leaves_the_others_of_its_batch_as_they_are(
    server: Live, clip: Path, panda: Panda, gate: Gate
) -> None:
    expected = [panda.ask(clip, text, max_tokens=20).text for text in QUESTIONS[:4]]
    gate.close()
    asked = []
    for text in QUESTIONS[:4]:
        asked.append(server.connect())
        asked[-1].sendall(post(chat_body(clip.name, text, max_tokens=20), connection="close"))
    wait_until(lambda: server.requests == 4)
    asked[1].close()
    wait_until(lambda: server.requests == 3)
    gate.opened.set()
    for number in (0, 2, 3):
        answer = json.loads(read_all(asked[number]).partition(b"\r\n\r\n")[2])
        assert answer["choices"][0]["message"]["content"] == expected[number]
        asked[number].close()


def test_the_soft_limit_on_open_files_is_raised() -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))
        connections_module.allow_many_files()
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(65_536, hard)
    assert raised == (wanted, hard)


def test_hundreds_of_clients_that_come_and_go_leave_nothing(
    server: Live, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = FrameReaders.read

    async def slow(readers: FrameReaders, *arguments: Any, **options: Any) -> Any:
        frames = await read(readers, *arguments, **options)
        time.sleep(0.001)
        return frames

    monkeypatch.setattr(FrameReaders, "read", slow)
    request = post(chat_body(clip.name, stream=True, max_tokens=60))
    for number in range(300):
        with server.connect() as going:
            going.sendall(request[: len(request) - number % 3 * 40])
            if number % 15 == 0:  # the request is whole
                going.recv(100)
    wait_until(lambda: server.requests == 0)
    wait_until(lambda: server.connections == 0)
    wait_until(lambda: server.service._bodies.held == 0)
    assert is_answered(server, clip)
