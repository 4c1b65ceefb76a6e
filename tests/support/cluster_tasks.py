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
    "has no outcome": lambda values: {**values, "value": replace(values["value"], result=["success"])},
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


def claim_a_long_duration() -> None:
    """Have the agent of this worker say that each task took days; for the worker's own process."""
    from paropt_exporter.executors.cluster import agent
    from paropt_exporter.executors.cluster.messages import TaskReply

    def build(**values: Any) -> TaskReply:
        return TaskReply(**{**values, "measurement": replace(values["measurement"], duration_seconds=1e6)})

    vars(agent)["TaskReply"] = build  # in the place of the class


def answer_twice() -> None:
    """Have the agent of this worker send each answer twice; for the worker's own process."""
    from paropt_exporter.executors.cluster.message_stream import MessageStream

    send = MessageStream.send
    MessageStream.send = lambda self, *messages: send(self, *messages, *messages)  # type: ignore[method-assign]


def build_malformed() -> dict[str, object]:
    """Build objects that an agent never sends in the place of its list of answers."""
    from paropt_exporter.executors.cluster.messages import RunningUsage, WorkerUsage

    unsound: Any = RunningUsage(attempt=1, elapsed_seconds=nan)
    no_number: Any = "much"
    return {
        "an exit": ExitsWhereLoaded(),
        "a number": 5,
        "a text": "answers",
        "half an answer": [(1,)],
        "no attempt": [([], b"")],
        "no memory": [WorkerUsage(memory_available_bytes=no_number)],
        "no time": [WorkerUsage(memory_available_bytes=1, running=(unsound,))],
    }


MALFORMED = ("an exit", "a number", "a text", "half an answer", "no attempt", "no memory", "no time")


def send_malformed(kind: str) -> None:
    """Have the agent of this worker send such an object; for the worker's own process."""
    from paropt_exporter.executors.cluster.message_stream import MessageStream

    malformed: Any = build_malformed()[kind]

    def send(stream: MessageStream, *_: object) -> None:
        stream._pending = malformed
        stream._wakes_writer.set()

    MessageStream.send = send  # type: ignore[assignment, method-assign]


def lose_temporary_folder() -> None:
    """Take the folder for temporary files from the agent of this worker; for the worker's own process."""
    import tempfile

    tempfile.tempdir = "/proc/nonexistent"  # where none can be made


def set_clock_ahead() -> None:
    """Set the clock of this worker ahead of that of its files; for its own process, before it has an agent."""
    import time

    wall = time.time
    time.time = lambda: wall() + 60.0


def set_status(name: str, status: str, *, dask_worker: Any) -> None:
    """Pause the worker of this name, as Dask does while its memory is full, or let it go on; for its own process."""
    from distributed import Status

    if dask_worker.name == name:
        dask_worker.status = Status[status]
