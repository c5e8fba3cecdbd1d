"""The endpoint as clients see it: OpenAI's client, errors, files, limits and full queues."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from pandacli import Panda
from pandacli.server import guard
from pandacli.server.media import FrameReaders, Limits
from tests.inference.batches import QUESTIONS
from tests.server.conftest import Gate, wait_until
from tests.server.live import MODEL, Live, chat_body, data, messages, post


@pytest.fixture(scope="module")
def server(panda: Panda, clip: Path) -> Iterator[Live]:
    with Live(lambda: panda, clip.parent) as running:
        yield running


def ask(server: Live, video: Any, text: str = "what?", **fields: Any) -> Any:
    fields = {"model": MODEL, "max_tokens": 8, **fields}
    with server.client() as client:
        create: Any = client.chat.completions.create
        answer = create(messages=messages(video, text), **fields)
        return [*answer] if fields.get("stream") else answer


def test_answers_of_the_openai_client_are_those_of_panda(
    server: Live, panda: Panda, clip: Path
) -> None:
    answer = ask(server, clip.name, QUESTIONS[1], max_tokens=12, logprobs=True)
    expected = panda.ask(clip, QUESTIONS[1], max_tokens=12, logprobs=True)
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == (expected.text, "length")
    assert [token.token for token in choice.logprobs.content] == [t for t, _ in expected.logprobs]
    assert answer.usage.completion_tokens == 12
    assert answer.usage.prompt_tokens == expected.stats.total_tokens - 12
    assert answer.model == MODEL


def test_a_stream_has_the_pieces_the_end_and_the_usage(
    server: Live, panda: Panda, clip: Path
) -> None:
    options = {"include_usage": True}
    chunks = ask(server, clip.as_uri(), "what?", stream=True, stream_options=options)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == panda.ask(clip, "what?", max_tokens=8).text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage.completion_tokens == 8


def test_a_range_choices_and_a_data_address_are_understood(
    server: Live, panda: Panda, clip: Path
) -> None:
    extra = {"from": 2, "to": "0:05", "choices": ["red", "blue"]}
    answer = ask(server, data(clip), extra_body=extra)
    scores = panda.open(clip, start=2, end=5).score("what?", ("red", "blue"))
    assert answer.choices[0].message.content == scores.best.text
    got = [choice["logprob"] for choice in answer.panda["choices"]]
    assert got == pytest.approx([choice.logprob for choice in scores.choices], abs=1e-4)


def test_a_file_is_uploaded_listed_asked_about_and_deleted(server: Live, clip: Path) -> None:
    with server.client() as client, clip.open("rb") as content:
        file = client.files.create(file=content, purpose="user_data")
        assert (file.bytes, file.filename) == (clip.stat().st_size, clip.name)
        assert file.id in [each.id for each in client.files.list()]
        part = {"type": "file", "file": {"file_id": file.id}}
        asked: Any = [{"role": "user", "content": [{"type": "text", "text": "what?"}, part]}]
        answer = client.chat.completions.create(model=MODEL, messages=asked, max_tokens=4)
        assert answer.choices[0].message.content
        assert client.files.delete(file.id).deleted
        with pytest.raises(openai.NotFoundError, match="no file"):
            client.files.retrieve(file.id)


def test_wrong_requests_have_the_errors_of_the_openai_client(server: Live, clip: Path) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        ask(server, clip.name, model="other")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        ask(server, clip.name, temperature=-1)
    assert (wrong.value.param, wrong.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.PermissionDeniedError):
        ask(server, "/etc/passwd")


@pytest.mark.parametrize("times", [{"from": 60}, {"from": 5, "to": 5}, {"at": [99]}])
def test_times_outside_of_the_video_are_bad_requests(
    server: Live, clip: Path, times: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(server, clip.name, extra_body=times)
    assert "--" not in str(caught.value)
    assert str(clip.parent) not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/none", 404),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/v1/files/file-0", 404),
        ("GET", "/v1/models/other/model", 404),
        ("DELETE", "/v1/files/%ff", 404),
        ("GET", "/" + "x" * 5000, 404),
    ],
)
def test_every_error_is_the_object_of_the_standard(
    server: Live, method: str, path: str, status: int
) -> None:
    connection = http.client.HTTPConnection("localhost", server.port)
    connection.request(method, path)
    response = connection.getresponse()
    assert response.status == status
    assert json.loads(response.read())["error"].keys() == {"message", "type", "param", "code"}
    connection.close()


def test_a_fault_of_the_server_is_an_error_object_and_the_next_request_is_answered(
    panda: Panda, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Live(lambda: panda, clip.parent) as server:
        with monkeypatch.context() as patch:
            patch.setattr(FrameReaders, "read", None)
            with pytest.raises(openai.InternalServerError, match="its log says why"):
                ask(server, clip.name)
        assert ask(server, clip.name).choices


def forms() -> Iterator[tuple[str, bytes]]:
    part = b'--x\r\nContent-Disposition: form-data; name="file"'
    yield "multipart/form-data", b""
    yield "multipart/form-data; boundary=x", b"nonsense"
    yield "multipart/form-data; boundary=x", part + b"\r\n\r\nno file\r\n--x--\r\n"
    yield "multipart/form-data; boundary=x", part + b'; filename="a"\r\n\r\n\r\n--x--\r\n'
    named = part + b'; filename="\xff\xfe"\r\n\r\n\r\n--x--\r\n'
    for charset in ("utf-8", "undefined", "idna", "hex", "punycode", "\xff", "x" * 9999):
        yield f"multipart/form-data; boundary=x; charset={charset}", named
    yield "application/json", b"{}"
    yield "multipart/form-data; boundary=" + "y" * 500, b"--" + b"y" * 500 + b"\r\n"
    yield "multipart/form-data; boundary=x", (b"--x\r\n" + b"A: b\r\n" * 5000 + b"\r\n\r\n--x--")


@pytest.mark.parametrize(("kind", "content"), [*forms()])
def test_hostile_forms_are_refused(server: Live, kind: str, content: bytes) -> None:
    headers = {"content_type": kind, "connection": "close"}
    status = server.raw(post(content, "/v1/files", **headers)).split()[1]
    assert status == b"400"


def test_names_of_files_come_back_as_data(server: Live, clip: Path) -> None:
    name = "a\x1b[31m\u202e\ud800".encode("utf-8", "surrogatepass") + b"b" * 300
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n' % name
    content = part + clip.read_bytes() + b"\r\n--x--\r\n"
    headers = {"content_type": "multipart/form-data; boundary=x", "connection": "close"}
    answer = server.raw(post(content, "/v1/files", **headers))
    record = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert len(record["filename"]) <= 255
    assert b"\x1b" not in answer


def test_a_body_over_the_limit_is_refused_by_its_length_and_by_its_chunks(
    panda: Panda, clip: Path
) -> None:
    with Live(lambda: panda, clip.parent, limits=Limits(upload=10_000)) as server:
        with server.connect() as connection:
            connection.sendall(post(b"", content_length="10001"))
            assert connection.recv(1000).startswith(b"HTTP/1.1 413"), "before any of it is sent"
        with server.connect() as connection:
            headers = b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: "
            headers += b"multipart/form-data; boundary=x\r\ntransfer-encoding: chunked\r\n\r\n"
            connection.sendall(headers + b"1000\r\n" + b"a" * 0x1000 + b"\r\n")
            connection.sendall((b"1000\r\n" + b"a" * 0x1000 + b"\r\n") * 3)
            assert b"413" in connection.recv(1000) or b"400" in connection.recv(1000)
        with server.client() as client, pytest.raises(openai.APIStatusError) as caught:
            client.files.create(file=bytes(3_000_000), purpose="user_data")
        assert caught.value.status_code == 413
        assert server.service._bodies.held == 0


def test_bodies_that_are_held_together_have_a_limit(panda: Panda, clip: Path) -> None:
    with Live(lambda: panda, clip.parent, limits=Limits(upload=50_000)) as server:
        slow = [server.connect() for _ in range(3)]
        for connection in slow[:2]:
            connection.sendall(post(b"", content_length="50000") + b"x" * 49_999)
        wait_until(lambda: server.service._bodies.held == 99_998)
        slow[2].sendall(post(b"", content_length="50000") + b"x" * 49_999)
        assert b" 429 " in slow[2].recv(1000)
        for connection in slow:
            connection.close()
        wait_until(lambda: server.service._bodies.held == 0)
        assert ask(server, clip.name).choices


def test_a_request_is_refused_before_its_frames_are_read(
    panda: Panda, clip: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    original = FrameReaders.read

    async def noted(readers: FrameReaders, clip: Any, *others: Any, **options: Any) -> Any:
        read.append(clip)
        return await original(readers, clip, *others, **options)

    monkeypatch.setattr(FrameReaders, "read", noted)
    with Live(lambda: panda, clip.parent, most_requests=1) as server:
        gate.close()
        running = threading.Thread(target=ask, args=(server, clip.name))
        running.start()
        gate.wait()
        answer = server.raw(post(chat_body(clip.name, **{"from": 1}), connection="close"))
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"\r\nretry-after: 2\r\n" in answer
        assert b"rate_limit_exceeded" in answer
        for wrong in ({"frames": 3}, {"model": "x"}, {"at": [-1]}, {"from": 2, "to": 1}):
            status = server.raw(post(chat_body(clip.name, **wrong), connection="close"))[9:12]
            assert status in (b"400", b"404")
        assert len(read) == 1
        monkeypatch.setattr(guard, "_RETRY_AFTER", "0.2")
        threading.Timer(0.3, gate.opened.set).start()
        with server.client(max_retries=5) as client:
            create: Any = client.chat.completions.create
            retried = create(model=MODEL, messages=messages(clip.name), max_tokens=4)
        assert retried.choices, "the client of OpenAI tries again"
        running.join()


@pytest.mark.slow
def test_two_hundred_connections_at_once_are_answered(server: Live, clips: list[Path]) -> None:
    expected: dict[tuple[str, str], str] = {}
    for path in clips:
        for text in QUESTIONS[:3]:
            expected[path.name, text] = ask(server, path.name, text).choices[0].message.content
    barrier = threading.Barrier(200)

    def work(number: int) -> tuple[int, bool]:
        path, text = clips[number % 3].name, QUESTIONS[number // 3 % 3]
        connection = http.client.HTTPConnection("localhost", server.port, timeout=60)
        connection.connect()
        barrier.wait(30)
        connection.request("POST", "/v1/chat/completions", chat_body(path, text))
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        content = answer["choices"][0]["message"]["content"] if response.status == 200 else ""
        return response.status, content == expected[path, text]

    with ThreadPoolExecutor(200) as threads:
        found = [*threads.map(work, range(200))]
    assert found == [(200, True)] * 200
    assert server.requests == 0


@pytest.mark.slow
def test_an_idle_model_is_freed_and_the_next_request_loads_it(checkpoint: Path, clip: Path) -> None:
    with Live(lambda: Panda.load(checkpoint, device="cpu"), clip.parent, keep_alive=0.1) as server:
        first = ask(server, clip.name).choices[0].message.content
        wait_until(lambda: server.service.engine.panda is None)
        health = server.raw(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert b'"not loaded"' in health
        assert ask(server, clip.name).choices[0].message.content == first


def test_metrics_count_answers(server: Live, clip: Path) -> None:
    ask(server, clip.name)
    time.sleep(0)
    text = server.raw(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    lines = dict(line.split(" ") for line in text.decode().splitlines() if line[:6] == "panda_")
    assert float(lines["panda_requests_total"]) >= 1
    assert float(lines["panda_answer_tokens_total"]) >= 8
    assert float(lines["panda_requests_running"]) == 0
