"""Requests to a server of `panda`, over its Unix socket or over TCP; no library is needed for it.

Errors of the server are raised as what they were there; one that does not answer is a DeviceError.
"""

import hashlib
import json
import os
import socket
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from pandacli.errors import DeviceError, PandaError, UsageError
from pandacli.server.wire import Fields, read_error, to_json

KEY_VARIABLE = "PANDA_API_KEY"
_JSON = {"content-type": "application/json"}
_BUSY_SECONDS = 60.0  # for which a server with too many requests is asked again
_CONNECT_SECONDS = 10.0
_CHUNK = 1 << 20


class NotFoundError(UsageError):
    """The server does not know what was named, such as a clip that it has dropped."""


class TooLargeError(UsageError):
    """The server refuses a body of this size."""


class Client:
    """A server by its address: a Unix socket, or a web address. Each request has a connection."""

    def __init__(self, address: str | Path, *, timeout: float | None = None) -> None:
        self.address = address
        self._timeout = timeout  # seconds, of connecting and of each read

    @property
    def is_local(self) -> bool:
        """Whether it may read every file that this user may read."""
        return isinstance(self.address, Path)

    @property
    def shown(self) -> str:
        return f"the server at {self.address}"

    def get(self, path: str) -> Fields:
        with self._response("GET", path) as response:
            return self._object(response)

    def post(self, path: str, fields: Fields) -> Fields:
        return self.post_bytes(path, to_json(fields), "application/json")

    def post_bytes(self, path: str, body: bytes, kind: str = "application/octet-stream") -> Fields:
        with self._response("POST", path, body, {"content-type": kind}) as response:
            return self._object(response)

    def events(self, path: str, fields: Fields) -> Generator[Fields, None, None]:
        """The server-sent events of an answer; closing the generator stops it on the server."""
        with self._response("POST", path, to_json(fields), _JSON) as response:
            for line in response:
                if line == b"data: [DONE]\n":
                    return
                if line.startswith(b"data: "):
                    yield json.loads(line[6:].decode("utf-8", "surrogatepass"))
        raise self._ended()

    def file_id(self, path: Path) -> str:
        """The id of a file on the server, which is sent unless it is there.

        Raises:
            OSError: The file cannot be read.
            TooLargeError: The server refuses it.
        """
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            known = f"file-{digest[:32]}"
            try:
                self.get(f"/v1/files/{known}")
                return known
            except NotFoundError:
                file.seek(0)
                return self._send_file(file, path.name)

    def _send_file(self, file: BinaryIO, name: str) -> str:
        border = os.urandom(16).hex()
        head = (
            f'--{border}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
            f'--{border}\r\ncontent-disposition: form-data; name="file"; '
            f'filename="{quote(name, errors="surrogateescape")}"\r\n\r\n'
        ).encode()
        tail = f"\r\n--{border}--\r\n".encode()
        length = len(head) + os.fstat(file.fileno()).st_size + len(tail)
        headers = {
            "content-type": f"multipart/form-data; boundary={border}",
            "content-length": str(length),
        }

        def body() -> Iterator[bytes]:
            yield head
            while piece := file.read(_CHUNK):
                yield piece
            yield tail

        with self._response("POST", "/v1/files", body(), headers) as response:
            return str(self._object(response)["id"])

    @contextmanager
    def _response(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Iterator[HTTPResponse]:
        key = os.environ.get(KEY_VARIABLE)
        given = (headers or {}) | ({"authorization": f"Bearer {key}"} if key else {})
        until = time.monotonic() + _BUSY_SECONDS
        while True:
            with closing(self._connection()) as connection:
                try:
                    self._send(connection, method, path, body, given)
                    response = connection.getresponse()
                    wait = response.headers["retry-after"]
                    again = response.status == 429 and isinstance(body, bytes | None)
                    if not (again and time.monotonic() < until):
                        if response.status != 200:
                            raise self._error(response)
                        yield response
                        return
                except (OSError, HTTPException) as error:
                    raise self._lost(error) from error
            time.sleep(float(wait or 1))

    def _connection(self) -> HTTPConnection:
        if isinstance(self.address, Path):
            return _UnixConnection(self.address, self._timeout)
        parts = urlsplit(self.address)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=self._timeout or _CONNECT_SECONDS)

    def _send(
        self,
        connection: HTTPConnection,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None,
        headers: dict[str, str],
    ) -> None:
        try:
            connection.connect()
            connection.sock.settimeout(self._timeout)
        except OSError as error:
            hint = "start one with panda serve, or leave out --server"
            why = error.strerror or "it does not answer"
            raise DeviceError(f"{self.shown} is not there: {why}", hint) from error
        with suppress(BrokenPipeError):  # it answers before it has read a body that it refuses
            connection.request(method, path, body, headers)

    def _object(self, response: HTTPResponse) -> Fields:
        try:
            found = json.loads(response.read())
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise DeviceError(f"{self.shown} is no server of panda")
        return found

    def _error(self, response: HTTPResponse) -> PandaError:
        fields = self._object(response)
        if response.status == 404:
            return NotFoundError(f"{self.shown} does not know what was asked for")
        if "panda" in fields:
            return read_error(fields["panda"])
        error = fields.get("error")
        what = str(error.get("message")) if isinstance(error, dict) else str(response.status)
        message = f"{self.shown} refuses: {what}"
        if response.status == 401:
            return UsageError(
                message, "set the key of the server as", command=f"{KEY_VARIABLE}=..."
            )
        if response.status >= 500:
            return PandaError(f"{self.shown} failed: {what}")
        return TooLargeError(message) if response.status == 413 else UsageError(message)

    def _lost(self, error: Exception) -> DeviceError:
        if isinstance(error, TimeoutError):
            return DeviceError(f"{self.shown} does not answer")
        return self._ended()

    def _ended(self) -> DeviceError:
        log = self.address.with_suffix(".log") if isinstance(self.address, Path) else None
        hint = f"its log is {log}" if log and log.exists() else "its log says why"
        return DeviceError(f"{self.shown} ended before the answer did", hint)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
