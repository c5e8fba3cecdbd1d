"""Where the server listens: names, loopback, IPv6, and addresses that cannot be used."""

import errno
import socket

import pytest

from pandacli.errors import DeviceError, UsageError
from pandacli.server.listening import Address, url

needs_ipv6 = pytest.mark.skipif(
    not socket.has_dualstack_ipv6(), reason="this machine has no IPv6 beside IPv4"
)


@pytest.mark.parametrize("name", ["no-such-host.invalid", "300.1.1.1", "a..b", "x" * 70, "[::1"])
def test_unknown_name_is_a_usage_error_that_shows_it(name):
    with pytest.raises(UsageError) as caught:
        Address.resolve(name, 0)
    assert caught.value.message == f"--host: {name} is not a known address"


@pytest.mark.parametrize("name", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_only_this_machine_reaches_the_loopback(name):
    address = Address.resolve(name, 7)
    assert (address.is_loopback, address.is_any) == (True, False)
    assert {"localhost", name.strip("[]")} <= address.names


@pytest.mark.parametrize(
    ("name", "is_any"), [("0.0.0.0", True), ("::", True), ("192.0.2.1", False)]
)
def test_other_machines_reach_other_addresses(name, is_any):
    address = Address.resolve(name, 7)
    assert (address.is_loopback, address.is_any) == (False, is_any)
    assert bool(address.names) is not is_any  # with any address, any name is right


def test_used_port_is_a_device_error_in_a_line():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(DeviceError) as caught:
            Address.resolve("127.0.0.1", port).listen()
    assert caught.value.message == f"port {port} of 127.0.0.1 is used by another program"


def test_address_of_another_machine_is_a_usage_error():
    with pytest.raises(UsageError, match=r"192\.0\.2\.1 is not an address of this machine"):
        Address.resolve("192.0.2.1", 0).listen()


@pytest.mark.parametrize(("port", "hint"), [(80, "choose a higher one"), (8080, "")])
def test_port_without_the_right_to_it_is_a_usage_error(monkeypatch, port, hint):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(UsageError, match="is not allowed for you") as caught:
        Address.resolve("127.0.0.1", port).listen()
    assert hint in (caught.value.hint or "")


def test_other_failure_tells_the_reason_of_the_system(monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOBUFS, "No buffer space (while attempting to bind on ('1', 2))")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(DeviceError, match=r"port 7 of localhost: No buffer space$"):
        Address.resolve("localhost", 7).listen()


@pytest.mark.parametrize("name", ["127.0.0.1", pytest.param("[::1]", marks=needs_ipv6)])
def test_url_names_the_address_and_the_free_port_that_was_found(name):
    with Address.resolve(name, 0).listen() as listening:
        port = listening.getsockname()[1]
        assert port > 0
        assert url(listening) == f"http://{name}:{port}"


def test_url_of_any_address_is_one_that_clients_can_ask():
    with Address.resolve("0.0.0.0", 0).listen() as listening:
        assert url(listening) == f"http://localhost:{listening.getsockname()[1]}"


@needs_ipv6
def test_any_address_of_ipv6_takes_connections_of_ipv4():
    with Address.resolve("::", 0).listen() as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
