"""`panda mcp` in a process of its own, over standard input and output."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp import Client, StdioServerParameters, stdio_client

from pandacli.cli.parser import load_command
from tests.cli.conftest import Run

NOISY = Path(__file__).with_name("noisy_mcp.py")
ASSETS = Path(__file__).parents[2] / "pandacli" / "assets"
WORDS = ["mcp", "--model", "tiny", "--media-dir", str(ASSETS)]
WHAT = "A red circle moves right. A blue square stays still. A yellow star appears."
ASK = {"path": "demo.mp4", "question": "What happens?"}
OUTSIDE = {"path": "/etc/passwd", "question": "What happens?"}
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


class Server:
    """`panda mcp`, and messages to it line by line."""

    def __init__(self, command: list[str], environment: dict[str, str], home: Path) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd=home
        )
        self._number = 0

    def send(self, line: str | bytes | dict[str, Any]) -> None:
        assert self.process.stdin
        content = json.dumps(line) if isinstance(line, dict) else line
        content = content.encode() if isinstance(content, str) else content
        self.process.stdin.write(content + b"\n")
        self.process.stdin.flush()

    def begin(self, method: str, parameters: dict[str, Any]) -> int:
        self._number += 1
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": parameters}
        self.send(message)
        return self._number

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout
        message: dict[str, Any] = json.loads(self.process.stdout.readline())
        return message

    def request(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request; no other message may come before it."""
        number = self.begin(method, parameters)
        message = self.receive()
        assert message["id"] == number
        return message

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self.request("tools/call", {"name": name, "arguments": arguments})[
            "result"
        ]
        return result

    def open(self) -> "Server":
        assert self.request("initialize", HELLO)["result"]["serverInfo"]["name"] == "panda"
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self

    def imports(self, name: str) -> bool:
        """Whether the process has loaded a library."""
        files = (file.path for file in psutil.Process(self.process.pid).memory_maps())
        return any(f"/{name}/" in file for file in files)

    def end(self) -> int:
        """The exit code, once it has ended by itself."""
        return self.process.wait(20)


@pytest.fixture
def start(environment: dict[str, str], home: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(program: Path | None = None, **variables: str) -> Server:
        command = [sys.executable, *([str(program)] if program else ["-m", "pandacli"]), *WORDS]
        started.append(Server(command, environment | variables, home))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()
        for stream in (server.process.stdin, server.process.stdout, server.process.stderr):
            assert stream
            stream.close()


def refused(result: dict[str, Any]) -> bool:
    return result["isError"] and "no file '/etc/passwd'" in result["content"][0]["text"]


def test_client_of_the_package_lists_and_calls_the_tools(environment: dict[str, str]) -> None:
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "pandacli", *WORDS], env=environment
    )

    async def work() -> None:
        async with Client(stdio_client(parameters)) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert names == ["ask_video", "look_at_frames", "find_moment"]
            look = {"path": "demo.mp4", "from": "0:02", "frames": 4}
            star = {"path": "demo.mp4", "question": "Is there a star?", "from": 3}
            asked, seen, found, refused = await asyncio.gather(
                client.call_tool("ask_video", ASK),
                client.call_tool("look_at_frames", look),
                client.call_tool("find_moment", star),
                client.call_tool("ask_video", OUTSIDE),
            )
        assert asked.content[0].text == WHAT
        assert [part.type for part in seen.content] == ["text", *["image"] * 4]
        (segment,) = found.structured_content["segments"]
        assert (segment["start"], segment["end"]) == (pytest.approx(4.5, abs=0.5), 8.0)
        assert refused.is_error

    asyncio.run(work())


def test_tools_are_listed_and_calls_refused_before_torch_is_imported(start: Any) -> None:
    server = start().open()
    assert len(server.request("tools/list", {})["result"]["tools"]) == 3
    assert refused(server.call("ask_video", OUTSIDE))
    assert not server.imports("torch")


def test_stdout_carries_only_messages_whatever_prints(start: Any) -> None:
    server = start(NOISY).open()
    assert refused(server.call("ask_video", OUTSIDE))
    assert server.request("ping", {})["result"] == {}
    output, log = server.process.communicate()
    assert output == b""
    kinds = [b"Python", b"a C library", b"a program"]
    assert all(b"noise of " + kind in log for kind in kinds)


MALFORMED = [
    *(
        "",
        "{",
        "null",
        "[]",
        "7",
        '"text"',
        "[[[[" * 100_000,
        '{"id": 1}',
        "\x00\x01",
        '{"a": NaN}',
    ),
    *('{"jsonrpc": "1.0", "id": 1, "method": "ping"}', '{"jsonrpc": "2.0", "method": 7}'),
    *('{"jsonrpc": "2.0", "id": 99, "result": {}}', '{"jsonrpc": "2.0", "id": null, "error": 3}'),
    *(b"\xff\xfe\xff", b'{"jsonrpc": "2.0", "id": 1, "method": "p\xc3"', "x" * 1_000_000),
    '{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 55}}',
    '{"jsonrpc": "2.0", "method": "notifications/unknown", "params": []}',
]


def test_malformed_messages_change_nothing(start: Any) -> None:
    server = start()
    for line in MALFORMED[:4]:
        server.send(line)
    server.open()
    for line in MALFORMED:
        server.send(line)
    answers = [server.call("ask_video", OUTSIDE)]
    assert refused(answers[0])
    for name, arguments in [("ask_video", [1]), (7, {}), ("ask_video", "text")]:
        answer = server.request("tools/call", {"name": name, "arguments": arguments})
        assert answer["error"]["code"] == -32602
    assert server.request("no/such/method", {})["error"]["code"] == -32601
    assert refused(server.call("ask_video", OUTSIDE))


def test_closed_input_ends_the_server(start: Any) -> None:
    server = start().open()
    server.process.stdin.close()
    assert server.end() == 0
    assert server.process.stdout.read() == b""


def test_client_that_no_longer_reads_ends_the_server(start: Any) -> None:
    server = start().open()
    server.process.stdout.close()
    server.begin("tools/list", {})
    assert server.end() == 141
    assert b"Traceback" not in server.process.stderr.read()


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_signal_ends_the_server(start: Any, name: str, code: int) -> None:
    server = start().open()
    server.process.send_signal(getattr(signal, name))
    assert server.end() == code
    assert b"Traceback" not in server.process.stderr.read()


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["closed input", "SIGTERM", "vanished client"])
def test_call_in_hand_does_not_hold_up_the_end(start: Any, ending: str) -> None:
    server = start(NOISY, STUCK="1").open()
    meta = {"progressToken": "loading"}
    server.begin("tools/call", {"name": "ask_video", "arguments": ASK, "_meta": meta})
    message = server.receive()
    while message["params"]["message"] != "loading tiny":
        message = server.receive()
    workers = psutil.Process(server.process.pid).children(recursive=True)
    assert workers
    if ending == "SIGTERM":
        server.process.terminate()
    else:
        server.process.stdin.close()
        if ending == "vanished client":
            server.process.stdout.close()
    assert server.end() in {"SIGTERM": [143], "closed input": [0]}.get(ending, [0, 141])
    _, left = psutil.wait_procs(workers, 5)
    assert left == []


def test_configurations_in_the_documentation_are_commands() -> None:
    page = (ASSETS.parents[1] / "docs" / "server.md").read_text()
    blocks = re.findall(r"```json\n(.*?)```", page.partition("## MCP")[2], re.DOTALL)
    servers = [json.loads(block) for block in blocks]
    assert [*servers[0], *servers[1]] == ["mcpServers", "servers"]
    for server in (servers[0]["mcpServers"]["panda"], servers[1]["servers"]["panda"]):
        name, *words = server["args"]
        with load_command(name).make_context(name, words) as context:
            assert context.params["media_dir"]


REFUSED = {
    "no folder": (WORDS[:3], 2, "--media-dir is missing"),
    "a folder that is a file": ([*WORDS[:3], "--media-dir", os.devnull], 2, "is not a folder"),
    "a model that is not there": (["mcp", "--media-dir", "."], 4, "is not on this machine"),
}


@pytest.mark.parametrize(("words", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_said_in_a_line_before_the_protocol_begins(
    panda: Run, words: list[str], code: int, message: str
) -> None:
    done = panda(*words, stdin=b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
    assert (done.returncode, done.stdout) == (code, b"")
    first, *hints = done.stderr.decode().splitlines()
    assert first.startswith("panda: ")
    assert message in first
    assert len(hints) <= 2
