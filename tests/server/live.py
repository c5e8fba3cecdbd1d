"""A server of the small model on a free port of this process, and clients for it."""

import base64
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import openai
import uvicorn
from starlette.applications import Starlette

from pandacli import Panda
from pandacli.server import app as app_module
from pandacli.server.app import ServerSettings, Service, create_app
from pandacli.server.connections import PatientProtocol
from tests.server.conftest import IMAGE_SIZE

MODEL = "random"


class Live:
    """A running server; a context manager."""

    def __init__(self, load: Callable[[], Panda], *media: Path, **settings: Any) -> None:
        self.services: list[Service] = []
        make = app_module.Service

        def noted(*arguments: Any) -> Service:
            self.services.append(make(*arguments))
            return self.services[-1]

        app_module.Service = noted  # type: ignore[assignment,misc]
        try:
            wanted = ServerSettings(MODEL, IMAGE_SIZE, media=media, **settings)
            self.app: Starlette = create_app(wanted, load)
        finally:
            app_module.Service = make  # type: ignore[misc]
        config = uvicorn.Config(self.app, port=0, http=PatientProtocol, log_level="error")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    @property
    def service(self) -> Service:
        return self.services[0]

    @property
    def requests(self) -> int:
        """Requests that have a place."""
        return self.service.engine.requests

    @property
    def connections(self) -> int:
        return len(self._server.server_state.connections)

    def client(self, **options: Any) -> openai.OpenAI:
        url = f"http://127.0.0.1:{self.port}/v1"
        return openai.OpenAI(base_url=url, api_key="none", **{"max_retries": 0, **options})

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def raw(self, content: bytes) -> bytes:
        """What the server answers to the bytes of a request with `connection: close`."""
        with self.connect() as connection:
            connection.sendall(content)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """All bytes until the other side closes."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def messages(video: str | Path, text: str = "what?") -> list[dict[str, Any]]:
    """A question about a file, or about a data: address."""
    part = {"type": "video_url", "video_url": {"url": str(video)}}
    return [{"role": "user", "content": [{"type": "text", "text": text}, part]}]


def data(path: Path) -> str:
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def chat_body(video: str | Path, text: str = "what?", **fields: Any) -> bytes:
    """The JSON of a chat completion."""
    asked = {"model": MODEL, "messages": messages(video, text), "max_tokens": 8, **fields}
    return json.dumps(asked).encode()


def post(body: bytes, path: str = "/v1/chat/completions", **headers: str) -> bytes:
    """The bytes of a request."""
    lines = {"host": "localhost", "content-length": str(len(body)), **headers}
    lines = {name.replace("_", "-"): value for name, value in lines.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body
