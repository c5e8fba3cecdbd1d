"""A judge model on the loopback, which can be made to fail in every way that endpoints do."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FINGERPRINT = "fp-1"


def verdict(text: str) -> dict[str, Any]:
    """Right where prediction and reference are equal without case and full stop."""
    lines = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    said = lines.get("Predicted answer", lines.get("Answer to the first question", ""))
    match = said.casefold().rstrip(".") == lines["Reference answer"].casefold().rstrip(".")
    return {"pred": "yes" if match else "no", "score": 5 if match else 1}


Messages = list[dict[str, str]]


@dataclass
class FakeJudge:
    """What the judge does, what it was asked, and the verdicts that it sent.

    `behave` gets the number of a request, from 1, and returns "ok", "nonsense", "slow", "empty",
    "drop" (the connection, before the reply), "tear" (in the middle of it), "page" (JSON that is no
    completion) or a status code.
    `grade` gets the user message of a case.
    """

    url: str = ""
    behave: Callable[[int], str | int] = lambda _: "ok"
    grade: Callable[[str], dict[str, Any]] = verdict
    requests: list[dict[str, Any]] = field(default_factory=list)
    said: list[tuple[Messages, dict[str, Any]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def fake_judge(
    behave: Callable[[int], str | int] = lambda _: "ok",
    grade: Callable[[str], dict[str, Any]] = verdict,
) -> Iterator[FakeJudge]:
    """Serve a judge."""
    judge = FakeJudge(behave=behave, grade=grade)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with judge.lock:
                judge.requests.append(body)
                how = judge.behave(len(judge.requests))
            if isinstance(how, int):
                said = f"no to {self.headers['authorization']}"  # as some endpoints do
                self._send(how, {"error": {"message": said}})
                return
            if how == "slow":
                time.sleep(0.2)
            if how == "page":
                self._send(200, {"about": "not a chat endpoint"})
                return
            if how == "drop":
                self.close_connection = True
                return
            asked = next(m for m in body["messages"] if m["role"] == "user")["content"]
            reply = {"nonsense": "I would rather not say.", "empty": ""}.get(how)
            if reply is None:
                reply = f"Sure: {(given := judge.grade(asked))}"
                if how != "tear":
                    judge.said.append((body["messages"], given))
            message = {"role": "assistant", "content": reply}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            completion = {"id": "1", "object": "chat.completion", "created": 0, "model": "judge-1"}
            completion |= {"system_fingerprint": FINGERPRINT, "choices": [choice]}
            self._send(200, completion, torn=how == "tear")

        def _send(self, status: int, content: dict[str, Any], torn: bool = False) -> None:
            raw = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(raw[: len(raw) // 2] if torn else raw)
            self.close_connection = torn

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield judge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
