"""Run batches on a Dask worker, in the pools of this package, and end them with the coordinator that sent them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import queue
import shutil
import socket
import threading
from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic
from typing import Any

from distributed import Status, WorkerPlugin, get_worker
from msgspec import Struct, field

from paropt_exporter import host
from paropt_exporter.environment import copy_environment
from paropt_exporter.errors import TaskStopped, UnpicklableError, describe, to_one_line
from paropt_exporter.events import RunningTask
from paropt_exporter.executors.base import REPORT_PATH
from paropt_exporter.executors.calls import run_call_in_process
from paropt_exporter.executors.cluster.host_files import HostTree, find_outputs, make_scratch, take_temporary
from paropt_exporter.executors.cluster.message_stream import OPERATION, READY, MessageStream
from paropt_exporter.executors.cluster.messages import (
    Batch,
    Order,
    RemoteCall,
    RemoteCommands,
    RemoteFile,
    RemoteFunction,
    RemoteMeasurement,
    RemoteTask,
    RunningUsage,
    StopOrder,
    TaskReply,
    UsageRequest,
    WorkerFacts,
    WorkerUsage,
)
from paropt_exporter.executors.cluster.settings import ClusterError
from paropt_exporter.executors.cluster.workers import GIT, read_versions
from paropt_exporter.executors.commands.command_pool import CommandOutcome, CommandPool
from paropt_exporter.executors.commands.output import OutputFile
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.worker.payload import LATEST, ONCE, load_arguments, load_function

NAME = "paropt"
VENV = "VIRTUAL_ENV"
SLOT_PREFIX = "paropt-slot"
LINGER_SECONDS = 0.2  # how long an idle slot keeps its thread, so that the next task starts without the scheduler
_HOLD_SECONDS = 5.0  # after which a slot gives its thread up for others' tasks
_MOST_KEPT = 1000  # functions in a worker process
_MOST_LATEST = 8  # of those, functions with globals, which may be large
_SHORTEST_MEASURED_SECONDS = 0.001  # of the process pool
_MOST_STOPPED = 1000  # attempts that were stopped before they arrived


class _Session(Struct):
    """The state of one coordinator on this worker."""

    root: str
    number: int = 0
    running: dict[int, TaskFuture[Any]] = field(default_factory=dict)
    batches: queue.SimpleQueue[Batch] = field(default_factory=queue.SimpleQueue)
    stream: MessageStream | None = None
    tree: HostTree | None = None
    spool: str = ""  # a folder for temporary files
    stopped: set[int] = field(default_factory=set)
    ended: bool = False


class Agent(WorkerPlugin):
    """The pools of one Dask worker, for all coordinators that use it.

    ```
    prepare ──> session ══stream══ coordinator         batches ──> a slot runs them, one after another ──> replies
                   └── the stream ends, or its key is released (the coordinator has gone), or the worker ends ──> killed
    ```
    A slot is a Dask task, so that the scheduler sees that a thread of the worker is busy; batches and replies use the
    stream, which costs a tenth of a Dask task.
    Guarantees: a task runs only while its coordinator is connected to the scheduler and to the worker, and the worker
    to the scheduler.
    """

    name = NAME

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards: everything below
        self.sessions: dict[str, _Session] = {}
        self._leases: dict[str, str] = {}  # key -> session
        self._commands: CommandPool | None = None
        self._calls: Any = None
        self._threads = 1
        self._worker_name = self._worker_id = ""
        self._loop: asyncio.AbstractEventLoop | None = None

    # Called by Dask, on the event loop of the worker: none may block.

    def setup(self, worker: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = worker.state.nthreads
        worker.handlers[OPERATION] = self.serve_stream
        self._worker_id = worker.id
        self._worker_name = f"{socket.gethostname()}/{worker.name}"

    def teardown(self, worker: Any) -> None:
        """Kill all tasks, since the worker ends or has lost its scheduler."""
        del worker
        for session in tuple(self.sessions):
            self.end_session(session)
        with self.lock:
            pools = self._list_pools()
            self._commands = self._calls = None
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """End a session whose lease was released, or one of whose slots was cancelled."""
        del kwargs
        name = str(key)
        if start in ("executing", "long-running") and finish in ("cancelled", "resumed"):
            if name.startswith(SLOT_PREFIX):
                session, number, _ = name.removeprefix(f"{SLOT_PREFIX}-").split("-")
                self.end_session(session, int(number))
        elif finish in ("released", "forgotten") and (leased := self._leases.pop(name, None)) is not None:
            self.end_session(leased)

    async def serve_stream(self, comm: Any, session: str, number: int, worker_id: str) -> Any:
        """Serve a coordinator's connection, and end its session with it."""
        with self.lock:
            state = self.sessions.get(session)
        if state is None or state.number != number or worker_id != self._worker_id:
            await comm.write("refused")
            return Status.dont_reply
        await comm.write(READY)
        state.stream = stream = MessageStream(comm)
        try:
            await stream.serve(lambda orders: self._obey(session, state, orders))
        finally:
            self.end_session(session, number)
        return Status.dont_reply

    def _obey(self, name: str, session: _Session, orders: Sequence[Order]) -> None:
        for order in orders:
            match order:
                case Batch():
                    session.batches.put(order)
                case StopOrder():
                    self.stop(name, order.attempt, order.grace_seconds)
                case UsageRequest():
                    assert session.stream is not None
                    session.stream.send(self.read_usage(name))

    def _list_pools(self) -> list[Any]:
        return [pool for pool in (self._commands, self._calls) if pool is not None]

    # Called by the coordinator

    def begin_session(self, session: str, number: int, lease: str, root: str) -> None:
        """Begin a session that ends when `lease` is released; an earlier one of its coordinator ends now.

        A lease with a lower number came too late: ignore it.
        """
        with self.lock:
            known = self.sessions.get(session)
        if known is not None and known.number > number:
            return
        if known is not None and known.number < number:
            self.end_session(session)
        with self.lock:
            self._leases = dict(item for item in self._leases.items() if item[1] != session) | {lease: session}
            self.sessions.setdefault(session, _Session(root)).number = number

    def end_session(self, session: str, number: int | None = None) -> None:
        """Kill the tasks of a coordinator, unless it has begun another session than `number` since."""
        with self.lock:
            ended = self.sessions.get(session)
            if ended is None or (number is not None and ended.number != number):
                return
            del self.sessions[session]
            ended.ended = True
            running = tuple(ended.running.values())
        for future in running:
            self._stop_future(future, 0.0)
        if ended.stream is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(ended.stream.close)
        if ended.tree is not None:
            ended.tree.close()
        if ended.spool:
            shutil.rmtree(ended.spool, ignore_errors=True)

    def serve_slot(self, session_name: str, number: int) -> None:
        """Run batches of a session until there is none for a moment; in a thread of the worker."""
        with self.lock:
            session = self.sessions.get(session_name)
        if session is None or session.number != number:
            return
        until = monotonic() + _HOLD_SECONDS
        with contextlib.suppress(queue.Empty):
            while monotonic() < until and not session.ended:
                self._run_batch(session, session.batches.get(timeout=LINGER_SECONDS))

    def _run_batch(self, session: _Session, batch: Batch) -> None:
        """Run the tasks of a batch, and send each group of replies that is ready."""
        began = session.tree.read_clock() if session.tree is not None else 0.0
        ended: queue.SimpleQueue[TaskFuture[Any]] = queue.SimpleQueue()
        tasks: dict[TaskFuture[Any], RemoteTask] = {}
        for task in batch.tasks:
            future = self._start(session, task, is_alone=len(batch.tasks) == 1)
            tasks[future] = task
        for future in tasks:
            future.add_done_callback(ended.put)  # type: ignore[arg-type]  # it is a TaskFuture
        left = len(tasks)
        while left:
            group = [ended.get()]
            while not ended.empty():  # no other thread takes from it
                group.append(ended.get())
            left -= len(group)
            each = _estimate_seconds(group)
            replies = [(tasks[one].attempt, self._build_reply(session, tasks[one], one, began, each)) for one in group]
            self._send(session, replies)
            with self.lock:
                for one in group:
                    attempt = tasks[one].attempt
                    session.running.pop(attempt, None)
                    session.stopped.discard(attempt)

    def _send(self, session: _Session, replies: list[tuple[int, bytes]]) -> None:
        assert session.stream is not None and self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(session.stream.send, *replies)

    def stop(self, session_name: str, attempt: int, grace_seconds: float) -> None:
        """Stop one task. One that has not arrived will not start."""
        with self.lock:
            session = self.sessions.get(session_name)
            if session is None:
                return
            future = session.running.get(attempt)
            if future is None and len(session.stopped) < _MOST_STOPPED:
                session.stopped.add(attempt)
        if future is not None:
            self._stop_future(future, grace_seconds)

    def read_usage(self, session_name: str) -> WorkerUsage:
        """Return the usage of the running tasks of a session."""
        with self.lock:
            started = [future for session in self.sessions.values() for future in session.running.values()]
            session = self.sessions.get(session_name)
            attempts = {future: attempt for attempt, future in session.running.items()} if session else {}
            pools = self._list_pools()
        now = monotonic()
        found = [(find_future(task, started), task) for pool in pools for task in pool.running()]
        running = tuple(_build_usage(attempts[one], task, now) for one, task in found if one in attempts)
        return WorkerUsage(memory_available_bytes=host.read_available_memory_bytes(), running=running)

    # Running a task

    def _start(self, session: _Session, task: RemoteTask, *, is_alone: bool) -> TaskFuture[Any]:
        future: TaskFuture[Any]
        if session.ended or task.attempt in session.stopped:
            return _fail(task.label, TaskStopped(f"{task.label} was stopped"))
        try:
            future = self._submit(session, task, is_alone=is_alone)
        except Exception as error:  # noqa: BLE001 -- a lack of threads or processes costs this task only
            return _fail(task.label, error)
        with self.lock:
            session.running[task.attempt] = future
            stopped = session.ended or task.attempt in session.stopped
        if stopped:
            self._stop_future(future, 0.0)
        return future

    def _submit(self, session: _Session, task: RemoteTask, *, is_alone: bool) -> TaskFuture[Any]:
        work = task.work
        if isinstance(work, RemoteCommands):
            output = self._get_output_path(session, task)
            return self._get_commands().submit_commands(
                task.label,
                work.steps,
                cwd=Path(session.root) / work.folder,
                env=self._build_environment(session, task, work),
                output_file=OutputFile(output) if output is not None else None,
            )
        calls = self._get_calls()
        future: TaskFuture[Any]
        if isinstance(work, RemoteCall):
            output = self._get_output_path(session, task)
            future = calls.submit_named(
                task.label,
                run_call_in_process,
                session.root,
                work.target,
                work.arguments,
                str(output) if output is not None else None,
            )
            return future
        if is_alone:
            future = calls.submit_named(task.label, _run_function, work.function, work.arguments)
        else:  # short tasks, which the pool sends to its processes together, too
            future = calls.submit(_run_function, work.function, work.arguments)
            future.label = task.label
        return future

    def _build_environment(self, session: _Session, task: RemoteTask, work: RemoteCommands) -> dict[str, str]:
        """Return the worker's own environment with the variables that the task names."""
        env = copy_environment()
        programs = Path(session.root) / work.programs
        if work.programs and programs.is_dir():
            env |= {"PATH": os.pathsep.join((str(programs), env.get("PATH", os.defpath))), VENV: str(programs.parent)}
        env |= work.env
        if work.has_report:
            path = str(self._get_temporary_path(session, task, ".xml"))
            env = {name: value.replace(REPORT_PATH, path) for name, value in env.items()}
        return env

    def _get_output_path(self, session: _Session, task: RemoteTask) -> Path | None:
        """Return the file for the whole output of a task, if it is wanted."""
        work = task.work
        if isinstance(work, RemoteFunction) or not work.keeps_output:
            return None
        return self._get_temporary_path(session, task, ".out")

    def _get_temporary_path(self, session: _Session, task: RemoteTask, suffix: str) -> Path:
        with self.lock:
            if not session.spool:
                session.spool = mkdtemp(prefix="paropt-")
            return Path(session.spool) / f"{task.attempt}{suffix}"

    def _get_commands(self) -> CommandPool:
        with self.lock:
            if self._commands is None:
                self._commands = CommandPool(self._threads)
            return self._commands

    def _get_calls(self) -> Any:
        with self.lock:
            if self._calls is None:
                from paropt_exporter.executors.processes.executor import ProcessPool  # many lanes have commands only

                self._calls = ProcessPool(self._threads)
            return self._calls

    def _build_reply(
        self, session: _Session, task: RemoteTask, future: TaskFuture[Any], since: float, mean_seconds: float
    ) -> bytes:
        """Pickle a reply. `mean_seconds`: the duration of a task that was too short to be measured alone."""
        error: BaseException | None = None
        value: Any = None
        try:
            value = future.result()
        except BaseException as raised:  # noqa: BLE001 -- the task's own exception, or its cancellation
            error = TaskStopped(f"{task.label} was stopped") if future.cancelled() else raised
        work = task.work
        has_report = isinstance(work, RemoteCommands) and work.has_report
        report: RemoteFile | None = None
        output: RemoteFile | None = None
        outputs: tuple[RemoteFile, ...] = ()
        try:
            report = take_temporary(self._get_temporary_path(session, task, ".xml")) if has_report else None
            output = take_temporary(self._get_output_path(session, task))
            if session.tree is not None and not isinstance(work, RemoteFunction):  # otherwise they are in their place
                outputs = find_outputs(session.root, work.outputs, since)
        except OSError as raised:  # no folder for temporary files, or an output that can't be read
            error = error or raised
        reply = TaskReply(
            attempt=task.attempt,
            value=value,
            error=error,
            measurement=self._measure(value, future, mean_seconds),
            outputs=outputs,
            report=report,
            output=output,
        )
        try:
            return pickle.dumps(reply)
        except BaseException as raised:  # noqa: BLE001 -- user code runs in here
            why = UnpicklableError(f"{task.label}: its result or exception can't be pickled: {describe(raised)}")
            return pickle.dumps(TaskReply(attempt=task.attempt, error=why, measurement=reply.measurement))

    def _measure(self, value: Any, future: TaskFuture[Any], mean_seconds: float) -> RemoteMeasurement:
        measured = value.measurement if isinstance(value, CommandOutcome) else future.measurement
        if measured is None:
            return RemoteMeasurement(worker=self._worker_name, duration_seconds=mean_seconds)
        return RemoteMeasurement(
            worker=self._worker_name,
            pid=measured.pid,
            duration_seconds=measured.ended_seconds - measured.started_seconds,
            cpu_seconds=measured.cpu_seconds,
            run_delay_seconds=measured.run_delay_seconds,
            memory_peak_bytes=measured.memory_peak_bytes,
        )

    # Stopping

    def _stop_future(self, future: TaskFuture[Any], grace_seconds: float) -> None:
        with self.lock:  # the worker may end meanwhile
            commands, calls = self._commands, self._calls
        if commands is not None and commands.stop(future, grace_seconds=grace_seconds):
            return
        if calls is not None:
            calls.stop(future, TaskStopped(f"{future.label} was stopped"), grace_seconds=grace_seconds)


# The coordinator calls the functions below by name, on any worker.


async def prepare(session: str, number: int, lease: str, root: str, *, dask_worker: Any) -> WorkerFacts:
    """Install the agent if it is not there, begin a session, and return facts about the worker."""
    if NAME not in dask_worker.plugins:  # another coordinator's call can't come in between: `setup` waits for nothing
        await dask_worker.plugin_add(Agent(), name=NAME, catch_errors=False)
    try:
        host_key = await asyncio.to_thread(_get_host_key, dask_worker)
    except OSError as error:  # to the coordinator one would mean that the worker has gone
        raise ClusterError(f"its scratch folder can't be used: {to_one_line(describe(error))}") from None
    dask_worker.plugins[NAME].begin_session(session, number, lease, root)
    return WorkerFacts(
        worker_id=dask_worker.id,
        host=socket.gethostname(),
        host_key=host_key,
        threads=dask_worker.state.nthreads,
        cores=host.count_cpus(),
        memory_available_bytes=host.read_available_memory_bytes(),
        versions={**read_versions(), GIT: "yes" if shutil.which("git") else ""},
    )


def serve_slot(session: str, number: int) -> None:
    """Run batches of a session in this thread of the worker."""
    agent: Any = get_worker().plugins.get(NAME)
    if agent is not None:
        agent.serve_slot(session, number)


def _run_function(packed: bytes, arguments: bytes | tuple[Any, ...]) -> Any:
    """Call a function in a worker process."""
    load = {ONCE: _load_kept, LATEST: _load_latest}.get(packed[:1], load_function)
    function, _ = load(packed)
    positional, keywords = load_arguments(arguments)
    return function(*positional, **keywords)


_load_kept = lru_cache(maxsize=_MOST_KEPT)(load_function)
_load_latest = lru_cache(maxsize=_MOST_LATEST)(load_function)


def open_tree(session: str, folder: str, project: str, *, dask_worker: Any) -> tuple[str, str, str]:
    """Lock a copy of the files for a session.

    Returns its folder, the snapshot that it has ("" for none), and the path at which `install_tree` expects a pack.
    """
    agent = dask_worker.plugins[NAME]
    with agent.lock:
        state = agent.sessions[session]
        if state.tree is None:
            state.tree = HostTree(_get_scratch(dask_worker), project, session)
        state.root = os.path.normpath(state.tree.files / folder)
    return str(state.tree.files), state.tree.read_commit(), str(state.tree.place / "pack")


async def restore_tree(session: str, *, dask_worker: Any) -> None:
    """Bring a host's copy of the files back to the snapshot that it has. Raises OSError."""
    tree = dask_worker.plugins[NAME].sessions[session].tree
    await asyncio.to_thread(tree.restore)


async def install_tree(session: str, commit: str, *, dask_worker: Any) -> None:
    """Bring a host's copy of the files to a snapshot, whose pack has arrived. Raises OSError."""
    tree = dask_worker.plugins[NAME].sessions[session].tree
    await asyncio.to_thread(tree.install, tree.place / "pack", commit)
    (tree.place / "pack").unlink(missing_ok=True)


def find_missing(programs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the programs that commands would not find on this worker."""
    path = os.environ.get("PATH", os.defpath)
    return tuple(program for program in programs if shutil.which(program, path=path) is None)


def check_root(session: str, *, dask_worker: Any) -> str:
    """Return the fault of the folder in which the files should be, or ""."""
    root = dask_worker.plugins[NAME].sessions[session].root
    return "" if os.path.isdir(root) else f"there is no folder {root}"  # noqa: PTH112


def _get_scratch(worker: Any) -> Path:
    """Return the folder where Dask keeps temporary files, which its settings may put on another disk."""
    return Path(worker.local_directory).parent / "paropt"


def _estimate_seconds(futures: Sequence[TaskFuture[Any]]) -> float:
    """Return the mean duration of calls that a process ran one after another, too short to be measured one by one."""
    starts = [one.started_seconds for one in futures if one.started_seconds is not None]
    if len(starts) < 2:
        return _SHORTEST_MEASURED_SECONDS
    return min(_SHORTEST_MEASURED_SECONDS, (max(starts) - min(starts)) / (len(starts) - 1))


def find_future(task: RunningTask, futures: Iterable[TaskFuture[Any]]) -> TaskFuture[Any] | None:
    """Return the future of a running task: the last that started with its label, but not after the task.

    Lanes of one project, each with a session of its own, have tasks of the same labels.
    """
    present = [(one.started_seconds, one) for one in futures if one.label == task.label]
    before = [(at, one) for at, one in present if at is not None and at <= task.started_seconds]
    return max(before, key=itemgetter(0))[1] if before else None


def _fail(label: str, error: BaseException) -> TaskFuture[Any]:
    future: TaskFuture[Any] = TaskFuture()
    future.label = label
    future.settle_exception(error)
    return future


def _build_usage(attempt: int, task: RunningTask, now: float) -> RunningUsage:
    age = 0.0 if task.sampled_seconds is None else now - task.sampled_seconds if task.sampled_seconds else None
    return RunningUsage(
        attempt=attempt,
        elapsed_seconds=now - task.started_seconds,
        cpu_seconds=task.cpu_seconds,
        memory_bytes=task.memory_bytes,
        run_delay_seconds=task.run_delay_seconds,
        core_time=task.core_time,
        age_seconds=age,
    )


def _get_host_key(worker: Any) -> str:
    """Return a key that is equal for workers that share a scratch folder, and so a copy of the files."""
    scratch = _get_scratch(worker)
    make_scratch(scratch)
    status = scratch.stat()
    return f"{socket.gethostname()}:{status.st_dev}:{status.st_ino}:{os.getuid()}"
