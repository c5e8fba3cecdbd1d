"""`panda serve` in a process of its own: how it ends, and that its memory is flat."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.server.conftest import wait_until
from tests.server.live import MODEL, chat_body, post, read_all

pytestmark = pytest.mark.slow

SLOW_MODEL = """if True:
    import sys, time
    from pandacli.inference.continuous_batching import Generation
    seconds = float(sys.argv.pop(1))
    run = Generation._run
    def slow(generation):
        for events in run(generation):
            time.sleep(seconds)
            yield events
    Generation._run = slow
    from pandacli.cli import main
    main()
"""


class Process:
    """A server whose passes take at least so many seconds."""

    def __init__(self, checkpoint: Path, media: Path, folder: Path, seconds: float) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        model = folder / MODEL
        model.symlink_to(checkpoint)
        words = ("serve", "--model", str(model), "--device", "cpu", "--quant", "none")
        words = (*words, "--port", str(self.port), "--media-dir", str(media))
        (folder / "tmp").mkdir()
        home = {"HOME": str(folder), "PANDA_HOME": str(folder), "TMPDIR": str(folder / "tmp")}
        home |= {"XDG_RUNTIME_DIR": str(folder), "XDG_CONFIG_HOME": str(folder)}
        command = [sys.executable, "-c", SLOW_MODEL, str(seconds), *words]
        self.log = (folder / "log").open("wb")
        self.folder = folder
        self.process = subprocess.Popen(command, env=os.environ | home, stderr=self.log)

    def wait_until_loaded(self) -> None:
        wait_until(lambda: b'"loaded"' in self.ask(b"GET /health HTTP/1.1\r\nhost: localhost\r\n"))

    def ask(self, head: bytes, body: bytes = b"") -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
                connection.sendall(head + b"connection: close\r\n\r\n" + body)
                return read_all(connection)
        except OSError:
            return b""

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(40)


@pytest.fixture
def serve(checkpoint: Path, clip: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(seconds: float = 0.05) -> Process:
        started.append(Process(checkpoint, clip.parent, tmp_path, seconds))
        started[-1].wait_until_loaded()
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()
        each.log.close()


class Reader(threading.Thread):
    """A client that reads an answer, which takes 50 ms a token."""

    def __init__(self, server: Process, clip: Path, tokens: int = 40) -> None:
        super().__init__()
        self.connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        body = chat_body(clip.name, stream=True, max_tokens=tokens)
        self.connection.sendall(post(body, connection="close"))
        self.begun = self.connection.recv(100)
        self.received = b""
        self.start()

    def run(self) -> None:
        self.received = read_all(self.connection)
        self.connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_answers_end_and_refuses_further_ones(
    serve: Callable[..., Process], clip: Path, number: int
) -> None:
    server = serve()
    readers = [Reader(server, clip, tokens=30) for _ in range(3)]
    server.process.send_signal(number)
    wait_until(lambda: not server.ask(b"GET /health HTTP/1.1\r\nhost: localhost\r\n"))
    assert server.process.poll() is None, "it still answers"
    code = server.process.wait(30)
    for reader in readers:
        reader.join()
        assert b"data: [DONE]" in reader.received
    assert code == (143 if number == signal.SIGTERM else 130)
    assert [*(server.folder / "tmp").iterdir()] == []
    log = (server.folder / "log").read_text()
    assert "Traceback" not in log


@pytest.mark.parametrize("numbers", [(signal.SIGTERM,) * 2, (signal.SIGINT,) * 2])
def test_a_second_signal_ends_it_at_once(
    serve: Callable[..., Process], clip: Path, numbers: tuple[int, int]
) -> None:
    server = serve()
    reader = Reader(server, clip, tokens=160)
    server.process.send_signal(numbers[0])
    time.sleep(0.3)
    started = time.monotonic()
    assert server.end(numbers[1]) in (143, 130)
    assert time.monotonic() - started < 2.5
    reader.join()
    assert b"[DONE]" not in reader.received


def test_an_idle_server_ends_at_once_and_its_readers_with_it(
    serve: Callable[..., Process], clip: Path
) -> None:
    server = serve()
    assert b" 200 " in server.ask(
        post(chat_body(clip.name))[: -len(chat_body(clip.name)) - 2], chat_body(clip.name)
    )
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert children
    started = time.monotonic()
    server.end(signal.SIGTERM)
    assert time.monotonic() - started < 3
    psutil.wait_procs(children, 5)
    assert not [each for each in children if each.is_running()]


def test_a_killed_server_leaves_no_process(serve: Callable[..., Process], clip: Path) -> None:
    server = serve()
    body = chat_body(clip.name)
    assert b" 200 " in server.ask(post(body)[: -len(body) - 2], body)
    children = psutil.Process(server.process.pid).children(recursive=True)
    server.end(signal.SIGKILL)
    psutil.wait_procs(children, 10)
    assert not [each for each in children if each.is_running()]


def test_memory_is_flat_over_thousands_of_requests(
    serve: Callable[..., Process], clip: Path, clips: list[Path]
) -> None:
    server = serve(seconds=0.0)
    measured: list[int] = []
    process = psutil.Process(server.process.pid)

    def work(seed: int, count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for number in range(count):
            body: Any = chat_body(clips[(seed + number) % 3].name, f"what {number}?", max_tokens=1)
            if number % 4 == 1:
                body = chat_body(clip.name, temperature=-1)
            elif number % 4 == 2:
                body = b"x" * 100
            connection.request("POST", "/v1/chat/completions", body)
            json.loads(connection.getresponse().read())
        connection.close()

    for count in (60, 60, 60):
        threads = [threading.Thread(target=work, args=(seed, count)) for seed in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        measured.append(process.memory_info().rss)
    assert measured[-1] - measured[0] < 20 * 2**20, [size >> 20 for size in measured]
    assert len(process.open_files()) < 50
    assert process.num_threads() < 80
