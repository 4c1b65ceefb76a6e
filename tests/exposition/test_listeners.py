"""Addresses are parsed; clients are accepted; a process without free descriptors accepts them later."""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from paropt_exporter.errors import UsageError
from paropt_exporter.exposition.listeners import (
    DEFAULT_PORT,
    DEFAULT_TRIES,
    Acceptor,
    format_address,
    open_listeners,
    parse_address,
)
from paropt_exporter.exposition.urls import check_telemetry_path, format_url
from support.event_samples import StillClock


class ListenerWithoutDescriptors:
    """A listening socket whose `_accept` fails for lack of descriptors the first `times` times."""

    def __init__(self, times: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.times = times

    def fileno(self) -> int:
        return self.listener.fileno()

    def _accept(self) -> tuple[int, object]:
        if self.times:
            self.times -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self.listener._accept()  # type: ignore[attr-defined, no-any-return]

    def close(self) -> None:
        self.listener.close()


class VirtualMachineListener:
    """A listening socket of AF_VSOCK, which not every kernel has."""

    family = socket.AF_VSOCK

    def getsockname(self) -> tuple[int, int]:
        return 3, 10178


class AcceptorHarness:
    """An acceptor under test with the connections that it has accepted."""

    def __init__(self, exit_stack: ExitStack, *, scarce: int = 0) -> None:
        self.clock = StillClock()
        self.selector = exit_stack.enter_context(selectors.DefaultSelector())
        self.accepted: list[socket.socket] = []
        self.listener = ListenerWithoutDescriptors(scarce)
        self.acceptor = Acceptor([self.listener], self.selector, self.on_accept, self.clock)  # type: ignore[list-item]
        exit_stack.callback(self.acceptor.close)
        self.client = exit_stack.enter_context(socket.create_connection(self.listener.listener.getsockname()))
        exit_stack.callback(self.close_accepted)

    def close_accepted(self) -> None:
        for each in self.accepted:
            each.close()

    def on_accept(self, accepted: socket.socket, peer: object) -> None:
        self.accepted.append(accepted)

    def select_once(self) -> None:
        """Run one turn of the serving thread."""
        for key, _ in self.selector.select(0):
            key.data()


@pytest.fixture
def exit_stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def test_a_client_is_accepted(exit_stack: ExitStack) -> None:
    harness = AcceptorHarness(exit_stack)
    harness.select_once()
    assert [each.getpeername() for each in harness.accepted] == [harness.client.getsockname()]


def test_without_a_descriptor_it_pauses_and_then_accepts_the_waiting_client(
    exit_stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    harness = AcceptorHarness(exit_stack, scarce=1)
    harness.select_once()
    assert "no descriptor left" in caplog.text
    assert not harness.selector.get_map(), "a waiting client would wake the thread again and again"
    harness.clock.advance(0.9)
    harness.acceptor.resume_if_possible(harness.clock.monotonic())
    harness.select_once()
    assert harness.accepted == []
    harness.clock.advance(0.1)
    harness.acceptor.resume_if_possible(harness.clock.monotonic())
    harness.select_once()
    assert len(harness.accepted) == 1


def test_lack_of_descriptors_is_logged_once_until_a_client_is_accepted(
    exit_stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    harness = AcceptorHarness(exit_stack, scarce=3)
    for _ in range(4):
        harness.select_once()
        harness.clock.advance(1.0)
        harness.acceptor.resume_if_possible(harness.clock.monotonic())
    assert len(harness.accepted) == 1
    assert len(caplog.records) == 1


def test_a_stopped_acceptor_never_resumes(exit_stack: ExitStack) -> None:
    harness = AcceptorHarness(exit_stack, scarce=1)
    harness.select_once()
    harness.acceptor.stop()
    harness.clock.advance(10.0)
    harness.acceptor.resume_if_possible(harness.clock.monotonic())
    harness.select_once()
    assert harness.accepted == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [("localhost:1", ("localhost", 1)), (":0", ("", 0)), ("[::]:10178", ("::", 10178)), ("[::1]:5", ("::1", 5))],
)
def test_addresses_have_exporter_toolkits_form(given: str, expected: tuple[str, int]) -> None:
    assert parse_address(given) == expected


@pytest.mark.parametrize(
    "given", ["10178", "localhost", "::1:5", "a:b", "a:-1", "a:65536", "a:", "", "a:٣", f"a:{'9' * 5000}"]
)
def test_a_malformed_address_is_a_usage_error(given: str) -> None:
    with pytest.raises(UsageError, match="address"):
        parse_address(given)


def open_all(exit_stack: ExitStack, *addresses: str, on_fallback: Callable[[str], None] = pytest.fail) -> list[str]:
    """Return the addresses that are listened on."""
    opened = open_listeners(addresses, on_fallback=on_fallback)
    return [format_address(exit_stack.enter_context(closing(listener))) for listener in opened]


def test_systemds_socket_may_be_one_to_the_host_of_a_virtual_machine() -> None:
    address = format_address(VirtualMachineListener())  # type: ignore[arg-type]
    assert format_url(address, "/metrics", secure=False) == "vsock:3:10178"


def test_every_address_given_is_listened_on(exit_stack: ExitStack) -> None:
    opened = open_all(exit_stack, "127.0.0.1:0", "127.0.0.2:0")
    assert [address.rpartition(":")[0] for address in opened] == ["127.0.0.1", "127.0.0.2"]
    for address in opened:
        socket.create_connection(parse_address(address)).close()


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let each host name have these addresses."""

    def resolve(host: bytes, port: int, **_: int) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr("_socket.getaddrinfo", resolve)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_each_address_of_a_host_name_is_listened_on(exit_stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ::1 first, scrapes of 127.0.0.1 were refused."""
    resolve_to(monkeypatch, "::1", "127.0.0.1", "127.0.0.1")
    first, second = open_all(exit_stack, "localhost:0")
    port = first.rpartition(":")[2]
    assert (first, second) == (f"127.0.0.1:{port}", f"[::1]:{port}")


@pytest.mark.parametrize("foreign", ["192.0.2.1", "2001:db8::1"])
def test_addresses_of_a_host_name_that_this_machine_lacks_are_left_out(
    foreign: str, exit_stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as ::1 of localhost in a container without IPv6: nothing ran."""
    resolve_to(monkeypatch, foreign, "127.0.0.1")
    (opened,) = open_all(exit_stack, "localhost:0")
    assert opened.startswith("127.0.0.1:")
    resolve_to(monkeypatch, foreign)
    with pytest.raises(UsageError, match="cannot listen on 'localhost:0': Cannot assign requested address"):
        open_all(exit_stack, "localhost:0")


def test_an_address_in_use_is_one_clear_line(exit_stack: ExitStack) -> None:
    (taken,) = open_all(exit_stack, "127.0.0.1:0")
    with pytest.raises(UsageError, match=r"cannot listen on .*: Address already in use") as caught:
        open_all(exit_stack, taken)
    assert "\n" not in str(caught.value)


def test_an_unknown_host_is_a_usage_error(exit_stack: ExitStack) -> None:
    with pytest.raises(UsageError, match="cannot listen on"):
        open_all(exit_stack, "no-such-host.invalid:0")


def test_a_default_port_in_use_falls_back_to_the_next_with_a_message(exit_stack: ExitStack) -> None:
    said: list[str] = []
    open_all(exit_stack, on_fallback=said.append)
    (second,) = open_all(exit_stack, on_fallback=said.append)
    host, port = parse_address(second)
    assert host == "127.0.0.1"
    assert DEFAULT_PORT < port < DEFAULT_PORT + DEFAULT_TRIES
    assert any(str(port) in line for line in said)


@pytest.mark.parametrize("path", ["metrics", "/-/ready", "/a\nb", "/a b", "/a?b", "/a#b", ""])
def test_an_unusable_telemetry_path_is_a_usage_error(path: str) -> None:
    with pytest.raises(UsageError, match="telemetry path"):
        check_telemetry_path(path)
