"""What came of one attempt, whichever kind of worker ran it."""

from __future__ import annotations

import traceback
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

from paropt_exporter.errors import CallNotFound, TaskStopped, WorkerDied
from paropt_exporter.pool.calls import CallOutcome
from paropt_exporter.pool.commands import CommandOutcome
from paropt_exporter.records import ItemRecord, Measurement, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one attempt with what a person needs to understand it; `stopped`: ended on our demand."""

    result: Result
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    output: str = ""
    output_path: str | None = None
    measurement: Measurement | None = None
    stopped: bool = False
    items: tuple[ItemRecord, ...] = ()
    start_up_seconds: float | None = None


def of_future(future: Future[object]) -> Outcome:
    """Read a settled future of any pool. Never raises."""
    measurement: Measurement | None = getattr(future, "measurement", None)
    try:
        value = future.result(timeout=0)
    except CancelledError:
        return Outcome(result=Result.CANCELLATION, message="cancelled before it started", stopped=True)
    except BaseException as error:  # noqa: BLE001 -- a task's own exception, whatever it is, becomes its record
        return _of_exception(error, measurement)
    if isinstance(value, CommandOutcome):
        return _of_command(value)
    output = value.output if isinstance(value, CallOutcome) else ""
    return Outcome(result=Result.SUCCESS, output=output, measurement=measurement)


def _of_command(outcome: CommandOutcome) -> Outcome:
    return Outcome(
        result=outcome.result,
        message=outcome.message,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        output=outcome.output,
        output_path=outcome.output_path,
        measurement=outcome.measurement,
        stopped=outcome.stopped,
    )


def _of_exception(error: BaseException, measurement: Measurement | None) -> Outcome:
    if isinstance(error, TaskStopped):
        return Outcome(result=Result.CANCELLATION, message=str(error), measurement=measurement, stopped=True)
    if isinstance(error, WorkerDied):
        code = error.exit_code_or_signal
        return Outcome(
            result=Result.ERROR,
            message=str(error),
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            measurement=measurement,
        )
    if isinstance(error, CallNotFound):
        return Outcome(result=Result.ERROR, message=str(error), measurement=measurement)
    printed = getattr(error, "paropt_output", "")
    trace = getattr(error, "paropt_traceback", None) or "".join(traceback.format_exception(error))
    return Outcome(
        result=Result.FAILURE,
        message=_one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__),
        output=f"{printed}\n{trace}" if printed else trace,
        measurement=measurement,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
