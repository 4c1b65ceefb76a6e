"""The outcome of one attempt, from any kind of worker."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeGuard, TypeVar

from msgspec import Struct

from paropt_exporter.errors import CallFailed, ParoptError, TaskStopped, WorkerDied, describe, to_one_line
from paropt_exporter.events import ItemRecord, Measurement, Result
from paropt_exporter.executors.commands.command_pool import CommandOutcome

if TYPE_CHECKING:
    from paropt_exporter.executors.commands.traces import Trace

E = TypeVar("E", bound=BaseException)


class Outcome(Struct, frozen=True, kw_only=True):
    """The result of one attempt, with details for people."""

    result: Result
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    output: str = ""
    output_path: str | None = None
    measurement: Measurement | None = None
    items: tuple[ItemRecord, ...] = ()
    start_up_seconds: float | None = None
    trace: Trace | None = None


class NotStarted(Struct, frozen=True):
    """An attempt that no pool could start: its future has failed with the reason."""

    pool: str
    label: str
    future: Future[object]
    started_seconds: float | None = None

    def stop(self, grace_seconds: float) -> None:
        """Do nothing: it has ended."""

    def give_up(self) -> None:
        """Do nothing: it has ended."""

    def outcome(self) -> Outcome:
        error = self.future.exception(timeout=0)
        why = describe(error) if error is not None else ""
        return Outcome(result=Result.ERROR, message=to_one_line(f"could not be started: {why}"))


def build_not_started(pool: str, label: str, error: BaseException) -> NotStarted:
    """Build an attempt that has already failed."""
    future: Future[object] = Future()
    future.set_exception(error)
    return NotStarted(pool, label, future)


def read_future(future: Future[object]) -> Outcome:
    """Read the outcome from a future of any pool, which must be done. Never raises."""
    if future.cancelled():  # not by its exception, since a call may raise CancelledError, too
        return Outcome(result=Result.CANCELLATION, message="cancelled before it started")
    error = future.exception(timeout=0)
    value = future.result(timeout=0) if error is None else None
    if isinstance(value, CommandOutcome):
        return _read_command(value)
    measurement: Measurement | None = getattr(future, "measurement", None)
    if error is not None:
        return _read_exception(error, measurement)
    from paropt_exporter.executors.calls import CallOutcome  # here: most lanes have commands only

    output = value.output if isinstance(value, CallOutcome) else ""
    return Outcome(result=Result.SUCCESS, output=output, measurement=measurement)


def _read_command(outcome: CommandOutcome) -> Outcome:
    return Outcome(
        result=outcome.result,
        message=outcome.message,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        output=outcome.output,
        output_path=outcome.output_path,
        measurement=outcome.measurement,
        trace=outcome.trace,
    )


def _read_exception(error: BaseException, measurement: Measurement | None) -> Outcome:
    if _is_a(error, CallFailed):
        return Outcome(result=Result.FAILURE, message=error.message, output=error.output, measurement=measurement)
    if _is_a(error, TaskStopped):
        return Outcome(result=Result.CANCELLATION, message=_get_text(error), measurement=measurement)
    if _is_a(error, WorkerDied):
        code = error.exit_code_or_signal
        return Outcome(
            result=Result.ERROR,
            message=_get_text(error),
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            measurement=measurement,
        )
    result, message = (
        (Result.ERROR, _get_text(error)) if _is_a(error, ParoptError) else (Result.FAILURE, describe(error))
    )
    return Outcome(result=result, message=to_one_line(message), measurement=measurement)


def _is_a(error: BaseException, kind: type[E]) -> TypeGuard[E]:
    """Check an exception's class without `isinstance`, which reads `__class__`: a class can make that raise."""
    return issubclass(type(error), kind)


def _get_text(error: ParoptError) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 -- a subclass may define its own text
        return describe(error)
