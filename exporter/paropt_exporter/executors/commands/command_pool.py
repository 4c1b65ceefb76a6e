"""Run commands in a resizable pool: the steps of each task in order, and its whole process tree measured."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from time import monotonic
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.environment import copy_environment
from paropt_exporter.events import Measurement, PoolStatistics, Result, RunningTask
from paropt_exporter.executors.commands.command_task import CommandTask, ResourceShortage, StepResult
from paropt_exporter.executors.commands.output import Capture, OutputFile, OutputSink
from paropt_exporter.executors.commands.supervisor_client import SUPERVISOR
from paropt_exporter.executors.counters import WorkerTime
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.threads.pool_state import ThreadPoolState
from paropt_exporter.signal_numbers import name_signal, signal

if TYPE_CHECKING:
    from paropt_exporter.executors.commands.traces import Trace

log = logging.getLogger(__name__)

_GRACE_SECONDS = 10.0  # from SIGTERM to SIGKILL, as documented for the command
_SHELL_WORDS = {126: "a command could not be executed", 127: "a command was not found"}
_SHELL_SIGNAL_CODE = 128  # a shell exits with this plus the number of the signal that killed its command


class CommandOutcome(Struct, frozen=True, kw_only=True):
    """The outcome of one task. `exit_code` or `signal`: that of its last step; `message`: one line, "" on success.

    `stopped`: `CommandPool.stop` ended it; this overrides the exit code. `output` is the end of the output of all
    steps, `output_path` the file with all of it. `trace`: the files that it used, if it was traced.
    """

    result: Result
    message: str
    exit_code: int | None
    signal: int | None
    output: str
    output_path: str | None
    measurement: Measurement
    stopped: bool
    trace: Trace | None = None


class CommandPool:
    """A pool of threads, each of which waits for one command task at a time.

        submit_commands -> ThreadPoolState (queue, threads, size) -> CommandTask.run -> supervisor -> processes
                                                                    ^ stop

    Guarantees:
      * Any failure of a command is an outcome, never an exception.
      * A task ends only when all its processes have exited.
      * Commands get descriptors 0, 1 and 2, a session of their own, and one extra variable (PAROPT_COMMAND), which
        identifies processes that leave the session.
    """

    name = "commands"

    def __init__(self, max_workers: int) -> None:
        # not a ThreadPool, since the standard library's class, of which that is one, loads `queue` and `heapq`
        self._threads = ThreadPoolState(self.name, f"paropt-{self.name}", None, ())
        # If the pool is dropped without a shutdown, its workers finish the submitted tasks and exit.
        weakref.finalize(self, self._threads.close).atexit = False
        self._threads.resize(max_workers, "start")
        self._threads.start_first_thread()
        self._shortage = ResourceShortage()
        self._marks = itertools.count(1)
        self._mark = os.urandom(8).hex()
        self._lock = threading.Lock()  # guards: everything below
        self._tasks: dict[Future[CommandOutcome], CommandTask] = {}
        self._running: set[CommandTask] = set()
        self._finished: Counter[str] = Counter()
        self._cpu_seconds = 0.0
        self._delay_seconds = 0.0
        self._reported_cpu = self._reported_delay = 0.0
        SUPERVISOR.lease()  # keeps the supervisor running between tasks
        self._has_lease = True

    def submit_commands(
        self,
        label: str,
        steps: Sequence[Sequence[str]],
        *,
        cwd: str | Path,
        env: Mapping[str, str] | None = None,
        output_file: OutputFile | None = None,
        sink: OutputSink | None = None,
        traced: bool = False,
    ) -> TaskFuture[CommandOutcome]:
        """Queue a task: run `steps` in order, in `cwd`, until one fails.

        `env` is the whole environment (None: a copy of this process's own). The output of all steps goes to
        `output_file` too, which other tasks may share, and to `sink`, which belongs to this task. `traced`: record the
        files that the steps use.
        """
        if isinstance(steps, str) or any(isinstance(step, str) for step in steps):
            raise TypeError("steps must be a sequence of argument vectors, such as [['ruff', 'check', '.']]")
        if not steps:
            raise ValueError("a task without steps: give it at least one")
        task = CommandTask(
            SUPERVISOR,
            self._shortage,
            label,
            steps,
            mark=f"{self._mark}-{next(self._marks)}",
            cwd=(cwd if isinstance(cwd, Path) else Path(cwd)).absolute(),
            env=copy_environment() if env is None else dict(env),
            traced=traced,
        )
        future: TaskFuture[CommandOutcome] = TaskFuture()
        future.label = label
        with self._lock:
            self._tasks[future] = task
        try:
            # Not profiled: this would measure the thread, which only waits for the supervisor.
            self._threads.submit(future, self._run_task, (task, output_file, sink), {})
        except BaseException:  # the pool is closed, or the system starts no thread; raised again
            self._remove_task(future)
            raise
        future.add_done_callback(self._remove_task)
        return future

    def stop(self, future: TaskFuture[CommandOutcome], *, grace_seconds: float = _GRACE_SECONDS) -> bool:
        """Stop one task: SIGTERM to its processes now, SIGKILL after the grace (0: at once); cancel a queued one.

        Call it again to shorten the grace. Returns at once; False if the task had ended.
        """
        if future.cancel():
            return True
        with self._lock:
            task = self._tasks.get(future)
        return task is not None and task.stop(grace_seconds)

    def end_supervisor(self) -> None:
        """Kill the supervisor if it does not respond, for example because it was stopped.

        All running commands end with it. Returns at once; the next command starts another supervisor.
        """
        log.error("the supervisor of commands does not answer: killed")
        SUPERVISOR.kill()

    def resize(self, n: int, *, reason: str = "caller") -> None:
        """Set the target number of concurrent tasks; surplus threads exit after their task. Returns at once."""
        self._threads.resize(n, reason)

    @property
    def target(self) -> int:
        """How many tasks may run at once."""
        return self._threads.workers.target

    @property
    def live(self) -> int:
        """How many workers there are, with or without a thread, including those that will exit after their task."""
        return self._threads.workers.live

    @property
    def busy(self) -> int:
        """How many tasks run."""
        return self._threads.workers.busy

    def statistics(self) -> PoolStatistics:
        """Return the statistics of the threads, but with the results, CPU time and run delay of the commands."""
        threads = self._threads.statistics()
        with self._lock:
            usages = [task.usage() for task in self._running]
            finished = self._finished.copy()
            # The run delay of a descendant that exits between two samples is lost: never report less than before.
            cpu = self._reported_cpu = max(self._reported_cpu, self._cpu_seconds + sum(u.cpu_seconds for u in usages))
            delay = self._reported_delay = max(
                self._reported_delay, self._delay_seconds + sum(u.run_delay_seconds for u in usages)
            )
        # Tasks that never reached a thread.
        finished[Result.CANCELLATION] += threads.finished.get(Result.CANCELLATION, 0)
        return replace(threads, cpu_seconds=cpu, run_delay_seconds=delay, finished=MappingProxyType(finished))

    def get_worker_time(self) -> WorkerTime:
        """Return how long the threads have been busy and available."""
        return self._threads.get_worker_time()

    def running(self) -> tuple[RunningTask, ...]:
        """Return the running tasks, with the CPU time and memory of all their processes."""
        with self._lock:
            tasks = tuple(self._running)
        return tuple(
            RunningTask(
                label=task.label,
                worker=task.worker,
                started_seconds=task.started_seconds,
                cpu_seconds=(usage := task.usage()).cpu_seconds,
                memory_bytes=usage.memory_bytes,
                run_delay_seconds=usage.run_delay_seconds,
                core_time=usage.core_time,
                sampled_seconds=usage.sampled_seconds,
            )
            for task in tasks
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse further tasks; with `wait`, return when all have ended. It does not stop commands: use `stop`."""
        self._threads.close(cancel_futures=cancel_futures)
        if wait:
            self._threads.join()
        with self._lock:
            leased, self._has_lease = self._has_lease, False
        if leased:
            SUPERVISOR.release()

    def close_within(self, seconds: float) -> tuple[str, ...]:
        """Shut down. Return (): `stop` and the supervisor end the commands, so that no worker's process is left."""
        del seconds
        self.shutdown(wait=False, cancel_futures=True)
        return ()

    def __enter__(self) -> CommandPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def _run_task(self, task: CommandTask, output_file: OutputFile | None, sink: OutputSink | None) -> CommandOutcome:
        """Run a task in the calling thread."""
        self._start_task(task)
        outcome: CommandOutcome | None = None
        try:
            with Capture(output_file, sink) as capture:
                try:
                    step_result = task.run(capture)
                except Exception as error:  # an internal error must fail this task only
                    log.exception("internal error in a command task", extra={"err": str(error)})
                    problem = f"internal error: {type(error).__name__}: {error}: please report it"
                    step_result = StepResult(problem=problem)
            outcome = self._build_outcome(task, step_result, capture)
            return outcome
        finally:
            self._finish_task(task, outcome)

    def _start_task(self, task: CommandTask) -> None:
        task.worker = threading.current_thread().name
        task.started_seconds = monotonic()
        SUPERVISOR.lease()
        with self._lock:
            self._running.add(task)

    def _finish_task(self, task: CommandTask, outcome: CommandOutcome | None) -> None:
        with self._lock:
            self._running.discard(task)
            if outcome is not None:
                self._finished[outcome.result] += 1
                self._cpu_seconds += outcome.measurement.cpu_seconds
                self._delay_seconds += outcome.measurement.run_delay_seconds
        SUPERVISOR.release()

    def _build_outcome(self, task: CommandTask, step_result: StepResult, capture: Capture) -> CommandOutcome:
        result, message = classify_result(step_result, stopped=task.stopped)
        code = step_result.code
        if capture.file_error:
            log.warning(capture.file_error)
        return CommandOutcome(
            result=result,
            message=message,
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            output=capture.text(),
            output_path=str(capture.path) if capture.path is not None and not capture.file_error else None,
            measurement=self._build_measurement(task),
            stopped=task.stopped,
            trace=task.trace,
        )

    def _build_measurement(self, task: CommandTask) -> Measurement:
        usage = task.usage()
        return Measurement(
            worker=task.worker,
            pid=task.pid,
            started_seconds=task.started_seconds,
            ended_seconds=task.ended_seconds or monotonic(),
            cpu_seconds=usage.cpu_seconds,
            run_delay_seconds=usage.run_delay_seconds,
            memory_peak_bytes=usage.memory_peak_bytes,
            samples=task.list_samples(),
        )

    def _remove_task(self, future: Future[CommandOutcome]) -> None:
        with self._lock:
            self._tasks.pop(future, None)


def classify_result(step_result: StepResult, *, stopped: bool) -> tuple[Result, str]:
    """Return the result of a task, by its last step, and a message of one line."""
    if stopped:
        return Result.CANCELLATION, "stopped"
    code = step_result.code
    if code is None:
        return Result.ERROR, step_result.problem
    if code == 0:
        return Result.SUCCESS, ""
    if code < 0:
        return Result.ERROR, f"killed by {_describe_signal(-code) or f'signal {-code}'}"
    if code in _SHELL_WORDS:
        return Result.FAILURE, f"exit {code}: {_SHELL_WORDS[code]}"
    if code > _SHELL_SIGNAL_CODE and _describe_signal(code - _SHELL_SIGNAL_CODE):
        return (
            Result.FAILURE,
            f"exit {code}: something that it ran was killed by {_describe_signal(code - _SHELL_SIGNAL_CODE)}",
        )
    return Result.FAILURE, f"exit {code}"


def _describe_signal(number: int) -> str:
    """Return "SIGTERM (15)", with a hint for SIGKILL; "" if no signal has this number."""
    try:
        name = name_signal(number)
    except ValueError:
        return ""
    hint = ", perhaps by the out-of-memory killer" if number == signal.SIGKILL else ""
    return f"{name} ({number}){hint}"
