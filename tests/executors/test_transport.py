"""The connection to a worker process."""

from __future__ import annotations

from collections.abc import Callable
from socket import socket
from typing import Any

from paropt_exporter.executors import lifetime
from paropt_exporter.executors.processes.transport import WorkerConnection


class _Socket:
    """A socket that calls a function after it has sent."""

    def __init__(self, real: socket, then: Callable[[], object]) -> None:
        self._real, self._then = real, then

    def sendmsg(self, parts: list[bytes]) -> int:
        sent = self._real.sendmsg(parts)
        self._then()
        return sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_batch_was_sent_whole_though_the_next_one_waits_for_room_by_then() -> None:
    """A second note of a blocked process may come after the rest was sent, and hide that of another batch."""
    connection = WorkerConnection(lifetime.FORK_SERVERS)
    wholes = []

    def send_next_one() -> None:
        connection._socket = real
        wholes.append(connection.send_task(1, (b"function", bytes(1 << 24)), profiled=False, shares_memory=False))

    real = connection._socket
    connection._socket = _Socket(real, send_next_one)  # type: ignore[assignment]  # as far as it is used
    wholes.append(connection.send_task(0, (b"function", ()), profiled=False, shares_memory=False))
    connection.close()
    assert wholes == [False, True]
