"""Functions that tests run on the workers of a cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from math import nan
from typing import Any

from msgspec.structs import replace


def kill_own_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class NoPickle:
    def __reduce__(self) -> Any:
        raise TypeError("this one stays here")


def return_no_pickle() -> Any:
    return NoPickle()


def raise_no_pickle() -> None:
    error = ValueError("bad value")
    error.held = NoPickle()  # type: ignore[attr-defined]
    raise error


EXIT_VARIABLE = "PAROPT_TEST_EXIT"


class ExitsWhereLoaded:
    """A value that ends the process which loads it, if that has a variable."""

    def __reduce__(self) -> tuple[object, ...]:
        return _load_or_exit, ()


def return_exit() -> ExitsWhereLoaded:
    return ExitsWhereLoaded()


def _load_or_exit() -> ExitsWhereLoaded:
    if os.environ.get(EXIT_VARIABLE):
        raise SystemExit("the class of a result exits")
    return ExitsWhereLoaded()


LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no outcome": lambda values: {**values, "value": None},
    "another task": lambda values: {**values, "attempt": values["attempt"] + 1},
    "no exception": lambda values: {**values, "value": None, "error": "it failed"},
    "type int": lambda values: 5,
    "measurement": lambda values: {**values, "measurement": replace(values["measurement"], cpu_seconds=None)},
    "measurement that makes no": lambda values: {
        **values,
        "measurement": replace(values["measurement"], cpu_seconds=-9),
    },
    "makes no sense": lambda values: {**values, "measurement": replace(values["measurement"], duration_seconds=nan)},
}


def tell_lies(lie: str) -> None:
    """Have the agent of this worker send replies of a kind that makes no sense; for the worker's own process."""
    from paropt_exporter.executors.cluster import agent
    from paropt_exporter.executors.cluster.messages import TaskReply

    def build(**values: Any) -> Any:
        told = LIES[lie](values)
        return TaskReply(**told) if isinstance(told, dict) else told

    vars(agent)["TaskReply"] = build  # in the place of the class


def answer_twice() -> None:
    """Have the agent of this worker send each answer twice; for the worker's own process."""
    from paropt_exporter.executors.cluster.message_stream import MessageStream

    send = MessageStream.send
    MessageStream.send = lambda self, *messages: send(self, *messages, *messages)  # type: ignore[method-assign]


def send_exits() -> None:
    """Have the agent of this worker send a value that exits where it is loaded; for the worker's own process."""
    from paropt_exporter.executors.cluster.message_stream import MessageStream

    send = MessageStream.send
    MessageStream.send = lambda self, *_: send(self, ExitsWhereLoaded())  # type: ignore[method-assign]


def lose_temporary_folder() -> None:
    """Take the folder for temporary files from the agent of this worker; for the worker's own process."""
    import tempfile

    tempfile.tempdir = "/nonexistent"
