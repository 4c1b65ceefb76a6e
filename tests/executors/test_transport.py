"""The connection to a worker process."""

from __future__ import annotations

import dis
import itertools
import sys
from collections.abc import Callable
from functools import partial
from socket import socket
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

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


def raise_timeout(_: object) -> int:
    raise TimeoutError


@pytest.mark.parametrize("call", ["sendmsg", "shutdown"])
def test_timeout_of_a_signal_handler_is_no_error_of_the_socket(call: str) -> None:
    """It is an OSError. The alarm was lost, and the worker dismissed: about one alarm in twenty during submits."""
    connection = WorkerConnection(lifetime.FORK_SERVERS)
    real = connection._socket
    connection._socket = SimpleNamespace(**{call: raise_timeout})  # type: ignore[assignment]  # as far as it is used
    try:
        with pytest.raises(TimeoutError):
            if call == "sendmsg":
                connection.send_task(0, (b"function", ()), profiled=False, shares_memory=False)
            else:
                connection.dismiss()
    finally:
        connection._socket = real
        connection.close()


NAMES = {each.offset: each.opname for each in dis.get_instructions(WorkerConnection.offer)}


def interrupted_in_offer(place: int, call: Callable[[], object]) -> bool:
    """Make a call, and raise KeyboardInterrupt at the place in `offer` at which the interpreter looks for signals.

    `place`: the number of the place, from 1. Return False if there are fewer.
    """
    passed, last = 0, ""

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal passed, last
        if frame.f_code is not WorkerConnection.offer.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            passed += last.startswith(("RESUME", "CALL", "JUMP_BACKWARD"))
            if passed == place:
                raise KeyboardInterrupt
            last = NAMES[frame.f_lasti]
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # for Python 3.12, which looks for it in settrace only
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_interrupt_of_an_offer_comes_before_the_claims_or_after_their_note() -> None:
    """In between, the pool took tasks that had run for unclaimed ones, and ran them again."""
    connection = WorkerConnection(lifetime.FORK_SERVERS)
    seen = set()
    for place in itertools.count(1):
        sending = {7: ["a task"]}
        interrupted = interrupted_in_offer(place, partial(connection.offer, 3, sending, 7))
        seen.add((connection.withdraw_claims(), sending[7] is None))
        if not interrupted:
            break
    connection.close()
    assert seen == {(0, False), (3, True)}
