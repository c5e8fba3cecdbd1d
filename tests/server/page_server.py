"""A server with `tiny`, a film for it, and an engine that can be held up between its passes."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from pandacli.inference.panda import Panda
from pandacli.inference.spec import Request
from pandacli.server import app as server_app
from pandacli.server.app import ServerSettings, create_app
from pandacli.server.engine import Engine
from tests.tiny.drawn_films import Appearance, Film, write_film
from tests.tiny.synthetic_videos import Actor

TINY_SIZE = 168  # of the image that `tiny` sees
SEEN = (3.0, 7.0)  # seconds in which the red circle is to be seen in the film
FILM_SECONDS = 12.0


class HeldEngine(Engine):
    """An engine that keeps what it was asked, and runs pass by pass while it is held up."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.asked: list[Any] = []

    def submit(self, key: Any, frames: Any, request: Any, deliver: Any) -> Any:
        self.asked.append((key.clip, request))
        return super().submit(key, frames, request, deliver)

    @property
    def questions(self) -> list[Request]:
        return [request for _, request in self.asked]

    @contextmanager
    def held_up(self) -> Iterator[threading.Semaphore]:
        """Each `release` of the semaphore lets all clips take one pass."""
        passes, going = threading.Semaphore(0), True

        def hold() -> None:
            while going:
                self.run(lambda _: passes.acquire())

        thread = threading.Thread(target=hold)
        thread.start()
        try:
            yield passes
        finally:
            going = False
            passes.release(1000)
            thread.join()


class RunningServer:
    """A server in this process, on a free port and other sockets that listen."""

    def __init__(self, app: Any, *others: socket.socket) -> None:
        import uvicorn

        config = uvicorn.Config(app, port=0, log_level="error", ws="none", lifespan="on")
        self._server = uvicorn.Server(config)
        sockets = [socket.create_server(("127.0.0.1", 0)), *others]
        self._thread = threading.Thread(target=self._server.run, args=[sockets])
        self.engine: HeldEngine

    def __enter__(self) -> "RunningServer":
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def open(self, path: str, body: object = None, **headers: str) -> Any:
        """The response to a request; one of an error too."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            return urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            return error

    def json(self, path: str, body: object = None, **headers: str) -> Any:
        with self.open(path, body, **headers) as response:
            return json.load(response)

    def events(self, path: str, body: object) -> list[Any]:
        """The objects of a stream of server-sent events."""
        with self.open(path, body) as response:
            parts = response.read().decode().split("\n\n")
        assert parts[-2:] == ["data: [DONE]", ""]
        return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


@contextmanager
def listening_at(place: Path) -> Iterator[socket.socket]:
    """A Unix socket that listens at a path."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen()
        yield listening


@contextmanager
def serving(panda: Panda, *sockets: socket.socket, **settings: Any) -> Iterator[RunningServer]:
    """A server of this model; `settings` are those of `ServerSettings`."""
    engines: list[HeldEngine] = []

    def make(*arguments: Any, **options: Any) -> HeldEngine:
        engines.append(HeldEngine(*arguments, **options))
        return engines[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_app, "Engine", make)
        app = create_app(ServerSettings("tiny", panda.image_size, **settings), lambda: panda)
    running = RunningServer(app, *sockets)
    running.engine = engines[0]
    with running:
        yield running


def write_circle_film(folder: Path, container: str = "mp4") -> Path:
    """A film in which a red circle comes and goes."""
    circle = Actor("red", "circle", "right", (0.25, 0.5), (0.75, 0.5), (0.2, 0.2))
    film = Film(
        (Appearance(circle, *SEEN),),
        FILM_SECONDS,
        (320, 180),
        Fraction(10),
        True,
        "dark gray",
        "css",
        "pillow",
        container,
    )
    return write_film(film, folder / "circle")
