"""The servers of this user: each listens on a Unix socket, beside a record of what it serves.

Their folder is for this user alone, because a client of the socket may name every file of the user.
"""

import hashlib
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pandacli import __version__
from pandacli.checkpoints.registry import MODELS, expand_user, servers_folder
from pandacli.errors import PandaError, UsageError
from pandacli.inference.spec import RunSpec

if TYPE_CHECKING:
    from pandacli.inference.planning.planner import Plan
    from pandacli.server.remote import RemotePanda

_POLL = 0.05  # seconds
_LONGEST = 100  # bytes of the path of a socket, of which systems take 104 to 108
_STOP_SECONDS = 60.0  # the server waits 30 for answers in flight
_CONNECT_SECONDS = 0.5  # in which a server has to answer to be used by itself


@dataclass(frozen=True)
class Server:
    """A server that listens on a socket of this user.

    `quant`, `engine` and `device` have two values each: as the server was asked for, and what that
    was resolved to.
    """

    socket: Path
    model: str  # a name, or a folder as an absolute path
    quant: tuple[str, ...]
    engine: tuple[str, ...]
    device: tuple[str, ...]
    url: str = ""
    pid: int = 0
    version: str = __version__

    @classmethod
    def of(cls, spec: RunSpec, plan: "Plan | None" = None) -> "Server":
        """What is, or would be, started for a spec."""
        name = model_name(spec.model)
        asked = name, spec.quant, spec.backend, spec.device
        digest = hashlib.sha256("\0".join(asked).encode("utf-8", "surrogateescape")).hexdigest()
        place = servers_folder() / f"{Path(name).name[:16]}-{digest[:8]}.sock"
        found = (plan.quant, plan.backend, plan.device) if plan else ("", "", "")
        quant, engine, device = (
            tuple(filter(None, pair)) for pair in zip(asked[1:], found, strict=True)
        )
        return cls(place, name, quant, engine, device)

    @property
    def name(self) -> str:
        return Path(self.model).name

    @property
    def log(self) -> Path:
        """Where a server in the background writes what it has to say."""
        return self.socket.with_suffix(".log")

    def fits(self, spec: RunSpec) -> bool:
        """Whether it serves what a spec asks for, by this version of panda."""
        wanted = (spec.quant, self.quant), (spec.backend, self.engine), (spec.device, self.device)
        same = self.model == model_name(spec.model) and self.version == __version__
        return same and all(value in values for value, values in wanted)

    def is_there(self) -> bool:
        """Whether it accepts connections."""
        with suppress(OSError), _connected(self.socket):
            return True
        return False


def model_name(model: str | os.PathLike[str]) -> str:
    """A registered name, or the path of a folder without links."""
    known = isinstance(model, str) and model in MODELS
    return str(model) if known else os.path.realpath(expand_user(model))


def running() -> list[Server]:
    """The servers of this user that accept connections."""
    if not (hasattr(socket, "AF_UNIX") and _is_private(servers_folder())):
        return []
    found = []
    for place in sorted(servers_folder().glob("*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError):
            fields = json.loads(place.read_bytes())
            lists = {name: tuple(fields[name]) for name in ("quant", "engine", "device")}
            server = Server(**fields | lists | {"socket": place.with_suffix(".sock")})
            if server.is_there():
                found.append(server)
    return found


def find_panda(spec: RunSpec, server: str) -> "RemotePanda | None":
    """The model of a server that `--server` names; of "auto", if one of this user has it.

    Raises:
        DeviceError: The server does not answer.
        UsageError: It has another model, or runs it in another way than the spec asks for.
    """
    if server != "auto":
        return _named(spec, server)
    for each in running():
        if each.fits(spec):
            from pandacli.server.client import Client
            from pandacli.server.remote import RemotePanda

            with suppress(PandaError):  # it is still loading, or ends: load the model here
                panda = RemotePanda.connect(Client(each.socket, timeout=_CONNECT_SECONDS))
                panda.client = Client(each.socket)
                return panda
    return None


def _named(spec: RunSpec, address: str) -> "RemotePanda":
    from pandacli.server.client import Client
    from pandacli.server.remote import RemotePanda

    address = address.rstrip("/").removesuffix("/v1")
    panda = RemotePanda.connect(Client(address))
    wanted = os.fspath(spec.model)
    if Path(panda.name).name != Path(wanted).name:
        what = f"the server at {address} has {panda.name}, not {wanted}"
        raise UsageError(what, f"--model {Path(panda.name).name} asks that one")
    for option, asked, found in (
        ("quant", spec.quant, panda.quant),
        ("engine", spec.backend, panda.engine),
        ("device", spec.device, panda.device),
    ):
        if asked not in ("auto", found) and not (asked == "cuda" and found.startswith("cuda:")):
            what = f"the server at {address} runs {panda.name} with --{option} {found}, not {asked}"
            raise UsageError(what, f"leave out --{option}, or --server")
    return panda


@contextmanager
def published(server: Server, url: str) -> Iterator[socket.socket | None]:
    """Listen on the socket of a server, while its record is there; None if another one does.

    Raises:
        UsageError: There can be no socket, or its folder is not for this user alone.
    """
    _prepare(server)
    if server.is_there():
        yield None
        return
    record = server.socket.with_suffix(".json")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        try:
            server.socket.unlink(missing_ok=True)
            listening.bind(str(server.socket))
            listening.listen(1024)
            fields = asdict(replace(server, url=url, pid=os.getpid()))
            written = record.with_suffix(f".{os.getpid()}")
            written.write_text(json.dumps(fields | {"socket": None}))
            written.replace(record)
        except OSError as error:
            what = f"{server.socket.parent} cannot be used: {error.strerror}"
            raise UsageError(what) from error
        try:
            yield listening
        finally:
            for path in (server.socket, record):
                with suppress(OSError):
                    path.unlink()


def start(server: Server, command: Sequence[str]) -> Server:
    """Start a server in the background, and wait until it has loaded its model.

    Raises:
        PandaError: It ended, or cannot load the model; with its own words where it said any.
    """
    _prepare(server)
    from pandacli.server.client import Client
    from pandacli.server.remote import RemotePanda

    with server.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pandacli", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # it outlives the terminal
        )
    try:
        while process.poll() is None:
            for each in running():
                if each.pid == process.pid:
                    RemotePanda.connect(Client(each.socket))
                    return each
            time.sleep(_POLL)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    lines = server.log.read_text("utf-8", "replace").strip().splitlines()
    said = lines[0].removeprefix("panda: ").removeprefix("error: ") if lines else "it said nothing"
    error = PandaError(f"the server did not start: {said}", f"its log is {server.log}")
    error.exit_code = process.returncode
    raise error


def stop(server: Server) -> bool:
    """End a server after its answers in flight; whether it has ended in the time for that."""
    import signal

    with suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGTERM)
    until = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < until:
        try:
            os.kill(server.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(_POLL)
    return False


@contextmanager
def _connected(place: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CONNECT_SECONDS)
        connection.connect(str(place))
        yield connection


def _prepare(server: Server) -> None:
    """Make the folder of the socket; a UsageError if there can be none, or others may enter it."""
    place, hint = server.socket.parent, "set PANDA_HOME to another folder"
    if not hasattr(socket, "AF_UNIX"):  # Windows
        raise UsageError("this system has no Unix sockets")
    if len(os.fsencode(server.socket)) > _LONGEST:
        raise UsageError(f"the path is too long for a socket: {server.socket}", hint)
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{place} cannot be made: {error.strerror}", hint) from error
    if not _is_private(place):
        raise UsageError(f"{place} can be entered by others", f"chmod 700 {place}, or {hint}")


def _is_private(place: Path) -> bool:
    try:
        status = place.lstat()
    except OSError:
        return False
    others = stat.S_IMODE(status.st_mode) & 0o077
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not others
