"""The address that the server listens on, and what can be wrong with it."""

import errno
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from pandacli.errors import DeviceError, UsageError

_BACKLOG = 1024  # connections that wait to be accepted
_FIRST_FREE_PORT = 1024  # lower ones are for administrators


@dataclass(frozen=True)
class Address:
    """An address of this machine, resolved."""

    name: str  # as it was given
    port: int
    family: socket.AddressFamily
    resolved: tuple[Any, ...]

    @classmethod
    def resolve(cls, name: str, port: int) -> "Address":
        """Look up a name or an IP address, also one in brackets; a UsageError if there is none."""
        name = name[1:-1] if name.startswith("[") and name.endswith("]") else name
        try:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # a label of a name that is too long
            what = f"--host: {name} is not a known address"
            raise UsageError(what, "use an IP address of this machine, or localhost") from error
        # of localhost, the address that other programs try first or know only
        family, *_, resolved = min(found, key=lambda each: each[0] != socket.AF_INET)
        return cls(name, port, socket.AddressFamily(family), resolved)

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine can reach it."""
        return ip_address(self.resolved[0]).is_loopback

    @property
    def is_any(self) -> bool:
        """Whether it stands for all addresses of this machine."""
        return ip_address(self.resolved[0]).is_unspecified

    @property
    def names(self) -> set[str]:
        """The names by which a client may call it in a Host header; none if it is any."""
        names = {"localhost", "127.0.0.1", "::1", self.name.lower(), self.resolved[0]}
        return set() if self.is_any else names

    def listen(self) -> socket.socket:
        """Listen; a UsageError or a DeviceError if it cannot be done here."""
        both = self.is_any and self.family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        try:
            return socket.create_server(
                self.resolved, family=self.family, backlog=_BACKLOG, dualstack_ipv6=both
            )
        except OSError as error:
            raise self._explained(error) from error

    def _explained(self, error: OSError) -> UsageError | DeviceError:
        if error.errno == errno.EADDRINUSE:
            what = f"port {self.port} of {self.name} is used by another program"
            return DeviceError(what, "choose another one with --port; 0 finds a free one")
        if error.errno in (errno.EACCES, errno.EPERM):
            hint = None
            if self.port < _FIRST_FREE_PORT:
                hint = f"ports below {_FIRST_FREE_PORT} are for administrators; choose a higher one"
            return UsageError(f"port {self.port} of {self.name} is not allowed for you", hint)
        if error.errno == errno.EADDRNOTAVAIL:
            what = f"--host: {self.name} is not an address of this machine"
            return UsageError(what, "0.0.0.0 stands for all that it has")
        why = error.strerror.partition(" (while")[0] if error.strerror else str(error)
        return DeviceError(f"cannot listen on port {self.port} of {self.name}: {why}")


def url(listening: socket.socket) -> str:
    """The address of a listening socket, for clients on this machine."""
    host, port = listening.getsockname()[:2]
    if ip_address(host).is_unspecified:  # which no client can ask
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
