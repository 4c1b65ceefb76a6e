"""Place work items on the workers of a cluster, from one thread with an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import pickle
import secrets
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future, wait
from time import monotonic
from typing import Any

from msgspec.structs import replace

from paropt_exporter._version import __version__
from paropt_exporter.errors import Interrupted, TaskStopped, WorkerDied, describe, to_one_line
from paropt_exporter.events import RunningTask
from paropt_exporter.executors.cluster import agent, dask_client, file_sync, placement, transfers, work_items, workers
from paropt_exporter.executors.cluster.dask_client import HostedCluster
from paropt_exporter.executors.cluster.file_sync import Uploads
from paropt_exporter.executors.cluster.message_stream import open_stream
from paropt_exporter.executors.cluster.messages import (
    Answer,
    Batch,
    RemoteMeasurement,
    RemoteTask,
    StopOrder,
    TaskReply,
    UsageRequest,
    WorkerFacts,
    WorkerUsage,
    are_sound_facts,
    find_fault,
    is_sound_usage,
)
from paropt_exporter.executors.cluster.placement import ClusterSize
from paropt_exporter.executors.cluster.settings import ClusterError, ClusterSettings
from paropt_exporter.executors.cluster.work_items import WorkItem, build_running_task
from paropt_exporter.executors.cluster.workers import RemoteWorker
from paropt_exporter.signals import DeferredSignals

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5  # between two samples of running tasks
_IDLE_POLLS = 10  # of which an idle worker gets one
_EVENT_SECONDS = 1.0  # how long the scheduler has to report why the connection to a worker has ended
_RELIST_SECONDS = 1.0  # after which a worker that could not be prepared is looked for again
_CONNECTION_SECONDS = 0.2  # between two looks at the client's connection
_SILENT_SECONDS = 5.0  # a worker that was lost after such a silence may be cut off rather than dead
_PREPARE_SECONDS = 60.0
_PREPARING_SECONDS = 0.05  # between two looks at workers that are being prepared
_SUBSCRIBED_SECONDS = (0.1, 1.0, 5.0)  # the scheduler confirms no subscription
# how much longer the client, which has no limit of its own, may wait for a scheduler's handshake
_HANDSHAKE_SECONDS = 5.0
_CLOSE_SECONDS = 3.0
_SIGNAL_SECONDS = 0.1  # between two looks for a signal while the cluster starts
_EXPOSED = (
    "it has no TLS, and anyone on the way to it can run code here: use tls:// with dask.tls, or write insecure: true "
    "if the network is yours alone"
)
_KEPT_MEAN = 0.8  # of the mean duration of a group, at each new duration


class Coordinator:
    """The connection to one cluster.

    ```
    submit ──> queue ──a worker has a slot──> sent, pinned to that worker ──reply──> settled
                                                └── the worker is lost ──(grace, if cut off)──> failed: WorkerDied
    ```
    Guarantees: an item is sent once; a worker that was lost can't settle its items; only this thread touches the
    workers and the queue. Public methods may be called from any thread.
    """

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        self._programs: tuple[str, ...] = ()
        self._session = secrets.token_hex(6)
        uploads = not (settings.is_local or settings.shared_root)
        self._uploads = Uploads(settings, self._session) if uploads else None
        self._keys = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="paropt-cluster", daemon=True)
        self._client: Any = None
        self._hosted: HostedCluster | None = None
        self._workers: dict[str, RemoteWorker] = {}  # by address
        self._preparing: dict[str, int] = {}  # address -> number of the lease that counts
        self._unfit: dict[str, str] = {}  # address -> reason
        self._ready = asyncio.Event()
        self._queue: deque[WorkItem] = deque()
        self._incoming: deque[WorkItem] = deque()
        self._cut_off: dict[WorkItem, str] = {}  # items of lost workers that may still run them; reasons
        self._waking = False
        self._means: dict[str, float] = {}  # group -> seconds
        self._target = 1
        self._size: ClusterSize | None = None  # None: the cluster is managed elsewhere
        self._adjust_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._beginning: Future[Any] = Future()  # of the last run
        self._has_begun = False  # whether a run has
        self._broken = ""
        self._without_workers_since: float | None = None
        self._root = settings.shared_root or str(settings.root)
        self.deaths: Counter[str] = Counter()
        self.on_settled: Callable[[RemoteMeasurement | None, str], None] = lambda *_: None
        self.on_adjusted: Callable[[], None] = lambda: None  # called when workers or their slots may have changed
        self._load_agent = dask_client.Source(_load_agent)
        self._serve_slot = dask_client.Source(_serve_slot)

    # From any thread

    def start(self, target: int) -> None:
        """Connect, and wait for the first fit worker, which takes minutes where pods have to start.

        Raises ClusterError, and Interrupted after a signal.
        """
        self._target = target
        with DeferredSignals() as held:
            try:
                if not self._settings.is_fixed:
                    self._hosted = HostedCluster(self._settings, held.wake_reader)
                    self._size = ClusterSize(self._hosted, self._settings.idle_seconds)
                self._thread.start()
                _wait_for(self._call(self._connect()), held)
            except BaseException:
                self.close()
                if held.number is None:
                    raise
            if held.number is not None:
                self.close()  # here: the signal may end this process at the end of the block
        if held.number is not None:
            raise _build_interrupted(held.number, "it waited for the cluster")

    def begin_run(self, programs: tuple[str, ...]) -> None:
        """Give all hosts the files as they are now, and check each worker for the programs.

        Raises ClusterError, and Interrupted after a signal.
        """
        self._beginning = beginning = self._call(self._begin_run(programs))
        if self._closing:
            beginning.cancel()
        with DeferredSignals() as held:
            try:
                _wait_for(beginning, held)
            except FutureCancelled:
                if held.number is None:
                    raise ClusterError("dask: the pool was closed") from None
        if held.number is not None:
            raise _build_interrupted(held.number, "the hosts of the cluster got the files")

    @property
    def helper_pids(self) -> frozenset[int]:
        """The processes that this program started for the cluster."""
        return frozenset() if self._hosted is None else frozenset({self._hosted.pid})

    @property
    def is_elastic(self) -> bool:
        return self._hosted is not None

    @property
    def slots(self) -> int:
        """The slots of all workers that take tasks."""
        return sum(worker.facts.threads for worker in tuple(self._workers.values()) if worker.takes_tasks)

    @property
    def draining_slots(self) -> int:
        return sum(worker.facts.threads for worker in tuple(self._workers.values()) if worker.draining)

    @property
    def busy_slots(self) -> int:
        return sum(worker.busy_slots for worker in tuple(self._workers.values()))

    @property
    def queued(self) -> int:
        return len(self._queue) + len(self._incoming)

    @property
    def oldest_queued_age_seconds(self) -> float:
        with contextlib.suppress(IndexError):
            return monotonic() - self._queue[0].queued_seconds
        return 0.0

    def submit(self, item: WorkItem) -> None:
        item.queued_seconds = monotonic()
        self._incoming.append(item)
        if self._closing:
            self._cancel(self._incoming)
        elif not self._waking:
            self._waking = True
            self._call_soon(self._take_incoming)

    def resize(self, target: int) -> None:
        self._target = target
        self._call_soon(self._adjust)

    def stop(self, item: WorkItem, grace_seconds: float) -> None:
        """Stop an item that was sent. Its reply settles it."""
        self._call_soon(self._stop_item, item, grace_seconds)

    def give_up(self, item: WorkItem) -> None:
        """Settle an item whose worker does not answer."""
        error = WorkerDied(f"{item.task.label}: its worker did not answer the order to stop")
        self._call_soon(self._fail_item, item, error)

    def running(self) -> tuple[RunningTask, ...]:
        return tuple(
            build_running_task(item, worker)
            for worker in tuple(self._workers.values())
            for item in tuple(worker.items.values())
        )

    def close(self) -> None:
        """End all tasks, the session and a cluster that this program started. Blocks for seconds at most."""
        if self._closing:
            return
        self._closing = True
        if self._thread.is_alive():
            with contextlib.suppress(Exception, FutureCancelled):
                self._call(self._disconnect()).result(2 * _CLOSE_SECONDS)
            self._beginning.cancel()  # the loop would not end it any more
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSE_SECONDS)
        elif not self._loop.is_closed():
            self._loop.close()
        if self._hosted is not None:
            self._hosted.close()

    def _call(self, coroutine: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _call_soon(self, function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: all items have been settled
            self._loop.call_soon_threadsafe(function, *arguments)

    def _cancel(self, items: deque[WorkItem]) -> None:
        """Cancel items that were not sent, as the pool is closed."""
        with contextlib.suppress(IndexError):  # another thread may have taken the last one
            while items:
                item = items.popleft()
                if item.future.cancel():
                    item.future.start_running(monotonic())  # tells waiters of its cancellation
                else:
                    self._fail_item(item, TaskStopped(f"{item.task.label} was stopped"))

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(_log_unexpected)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    # Everything below runs in the event loop.

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)
        return task

    def _end_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("internal error in the cluster's coordinator", exc_info=error)

    async def _connect(self) -> None:
        from distributed import Client

        dask_client.silence_logs()
        settings = self._settings
        if self._hosted is not None:
            address, security = self._hosted.address, self._hosted.security
            dask_client.require_encryption(
                address, "dask.cluster", "let it make one with TLS", insecure=settings.insecure
            )
        else:
            address, security = dask_client.read_address(settings), dask_client.build_security(settings.tls)
            await asyncio.to_thread(dask_client.check_address, address, tls=settings.tls, insecure=settings.insecure)
        make: Any = Client
        self._client = make(
            address, security=security, asynchronous=True, set_as_default=False,
            timeout=settings.reconnect_seconds, heartbeat_interval="2s",
        )  # fmt: skip
        try:
            # Dask waits for a handshake without a limit
            await asyncio.wait_for(self._client, settings.reconnect_seconds)
        except TimeoutError:
            raise ClusterError(
                f"dask: {address}: the scheduler does not answer within {settings.reconnect_seconds:g} s"
            ) from None
        except OSError as error:
            raise ClusterError(f"dask: {address}: {to_one_line(describe(error))}") from None
        except Exception as error:  # noqa: BLE001 -- TypeError, ValueError, MemoryError and others
            told = to_one_line(describe(error))
            raise ClusterError(f"dask: {address}: no Dask scheduler of this version answers there: {told}") from None
        self._subscribe()
        self._adjust()
        if not await self._list_workers():
            raise ClusterError(f"dask: {address}: the scheduler has gone")
        await self._wait_for_worker(address)
        self._spawn(self._poll_workers())
        self._spawn(self._watch_connection())

    def _subscribe(self) -> None:
        """Subscribe to the scheduler's events, and list workers that arrive before the subscription takes effect."""
        self._client.subscribe_topic("all", self._handle_event)
        for seconds in _SUBSCRIBED_SECONDS:
            self._loop.call_later(seconds, self._relist)

    async def _list_workers(self) -> bool:
        """Welcome the workers that are there; return False if the scheduler has gone meanwhile."""
        try:
            found = await self._ask_for_workers()
        except OSError:
            return False
        for address in found:
            if address not in self._unfit:
                self._welcome(address)
        return True

    async def _ask_for_workers(self) -> dict[str, Any]:
        """Return the scheduler's information on its workers, by address. Raises OSError, also if it does not answer."""
        asked = self._client.scheduler.identity(n_workers=-1)
        identity = await asyncio.wait_for(asked, self._settings.reconnect_seconds)
        found: dict[str, Any] = identity["workers"]
        return found

    async def _wait_for_worker(self, address: str) -> None:
        fixed, started = self._settings.worker_timeout_seconds, self._settings.start_timeout_seconds
        timeout = started if self._hosted is not None else fixed
        try:
            await asyncio.wait_for(self._ready.wait(), timeout)
        except TimeoutError:
            reasons = "; ".join(dict.fromkeys(self._unfit.values()))
            raise ClusterError(
                f"dask: no worker at {address} can take tasks: {reasons or f'none came within {timeout:g} s'}"
            ) from None

    # Membership

    def _handle_event(self, event: tuple[float, Any]) -> None:
        message = event[1]
        if self._closing or not isinstance(message, dict):
            return
        if message.get("action") == "add-worker":
            self._welcome(message["worker"])
        elif message.get("action") == "remove-worker":
            self._lose(message["worker"], expected=bool(message.get("expected")))

    async def _watch_connection(self) -> None:
        """Lose all workers with the scheduler, and find them again when it is back.

        The client looks for it for `reconnect_seconds`. Workers kill the tasks of a client that has gone.
        """
        heard_seconds = monotonic()
        connection = self._client.scheduler_comm  # None: there is none
        while not self._closing:
            await asyncio.sleep(_CONNECTION_SECONDS)
            status, current = self._client.status, self._client.scheduler_comm
            if status != "running":
                connection = None
                self._lose_all()
            elif current is not connection:
                if connection is not None:  # the scheduler was away between two looks only
                    self._lose_all()
                self._subscribe()
                connection = current if await self._list_workers() else None
            if status == "running":
                heard_seconds = monotonic()
            silent = monotonic() - heard_seconds > self._settings.reconnect_seconds + _HANDSHAKE_SECONDS
            if (status == "closed" or silent) and not self._closing:
                self._fail_queue(
                    f"dask: the scheduler has been away for {self._settings.reconnect_seconds:g} s: systemd or "
                    "Kubernetes must restart it, and its workers too"
                )
                return
            self._check_workers_exist()

    def _lose_all(self) -> None:
        self._unfit.clear()  # these addresses may belong to other workers when the scheduler is back
        for address in (*self._workers, *self._preparing):
            self._lose(address, why="the scheduler has gone")

    def _check_workers_exist(self) -> None:
        """Fail the queue if no worker has been there for `start_timeout_seconds`."""
        if self._workers or self._preparing or not self._queue:
            self._without_workers_since = None
            return
        now = monotonic()
        self._without_workers_since = since = self._without_workers_since or now
        if now - since >= self._settings.start_timeout_seconds:
            reasons = "; ".join(dict.fromkeys(self._unfit.values()))
            self._fail_queue(f"dask: no worker for {now - since:.0f} s{': ' if reasons else ''}{reasons}")
            self._broken = ""  # workers may come later

    def _fail_queue(self, why: str) -> None:
        self._broken = why
        self._dispatch()

    def _welcome(self, address: str) -> None:
        if address in self._workers or address in self._preparing:
            return
        if dask_client.is_exposed(address) and not self._settings.insecure:
            if address not in self._unfit:
                self._reject(address, _EXPOSED)
        else:
            self._preparing[address] = number = next(self._keys)
            self._unfit.pop(address, None)
            self._spawn(self._prepare_worker(address, number))

    async def _prepare_worker(self, address: str, number: int) -> None:
        """Begin a session on a worker. If another worker has its address by now, that one's lease counts."""
        key = f"paropt-lease-{self._session}-{number}"
        # The worker holds this key from its arrival on; others' tasks may keep all threads, so that it runs much later.
        lease = self._submit_pinned(address, key, (eval, "None"))
        try:
            facts = await asyncio.wait_for(self._prepare_agent(address, number, key), _PREPARE_SECONDS)
            worker = await self._begin_session(address, number, lease, facts)
        except (FutureCancelled, OSError):  # it has gone, or its scheduler has
            lease.release()
            self._loop.call_later(_RELIST_SECONDS, self._relist)
            return
        except Exception as error:  # noqa: BLE001 -- whatever it lacks, the others may be fit
            lease.release()
            if self._preparing.get(address) == number:
                self._reject(address, _explain(error))
            return
        finally:
            counts = self._preparing.get(address) == number
            if counts:
                del self._preparing[address]
        if not counts or self._closing:
            self._release(worker)
            return
        self._workers[address] = worker
        self._spawn(self._serve_stream(worker))
        if await self._fit(worker):
            self._ready.set()
        self._adjust()

    async def _prepare_agent(self, address: str, number: int, lease: str) -> WorkerFacts:
        """Begin a session with the agent of a worker, which first loads it outside of its event loop."""
        call = transfers.call_worker
        found = await call(self._client, address, asyncio.to_thread, *self._load_agent.build_call(__version__))
        if isinstance(found, str):
            raise ClusterError(found)
        if fault := workers.find_version_fault(workers.read_versions(), found, needs_git=False):
            raise ClusterError(fault)
        facts: WorkerFacts = await call(self._client, address, agent.prepare, self._session, number, lease, self._root)
        if not are_sound_facts(facts):
            raise ClusterError("it describes itself in a way that makes no sense")
        return facts

    async def _begin_session(self, address: str, number: int, lease: Any, facts: WorkerFacts) -> RemoteWorker:
        info = (await self._ask_for_workers()).get(address)
        if info is None:
            raise OSError(f"the worker at {address} has gone")
        stream = await open_stream(
            self._client, address, session=self._session, number=number, worker_id=facts.worker_id
        )
        return RemoteWorker(
            address,
            info["id"],
            facts,
            lease,
            stream,
            number,
            heard_seconds=monotonic(),
            memory_available_bytes=facts.memory_available_bytes,
        )

    async def _fit(self, worker: RemoteWorker) -> bool:
        """Give a worker the files of this run and check its programs; it takes no task before."""
        worker.fit = False
        try:
            await self._provide(worker)
        except Exception as error:  # noqa: BLE001 -- the others may be fit
            if self._workers.get(worker.address) is worker:
                self._drop(worker)
                self._reject(worker.address, f"{worker.facts.host}: {_explain(error)}")
            return False
        worker.fit = True
        self._adjust()
        return self._workers.get(worker.address) is worker

    def _drop(self, worker: RemoteWorker) -> None:
        del self._workers[worker.address]
        self._release(worker)

    def _release(self, worker: RemoteWorker) -> None:
        worker.stream.close()
        worker.lease.release()

    async def _serve_stream(self, worker: RemoteWorker) -> None:
        """Receive a worker's answers until its connection ends, then mark it as lost."""
        try:
            await worker.stream.serve(lambda answers: self._take_answers(worker, answers))
        finally:
            worker.connected = False
            # Without tasks there is time to wait for the scheduler to report whether the end was expected.
            self._loop.call_later(0.0 if worker.items else _EVENT_SECONDS, self._lose_stream, worker)

    def _lose_stream(self, worker: RemoteWorker) -> None:
        if self._workers.get(worker.address) is worker and not self._closing:
            self._lose(worker.address)
            self._loop.call_later(_RELIST_SECONDS, self._relist)

    def _relist(self) -> None:
        if not self._closing and self._client.status == "running":
            self._spawn(self._list_workers())

    async def _provide(self, worker: RemoteWorker) -> None:
        ours, theirs = workers.read_versions(), worker.facts.versions
        if fault := workers.find_version_fault(ours, theirs, needs_git=self._uploads is not None):
            raise ClusterError(fault)
        call = transfers.call_worker
        if self._uploads is not None:
            await self._uploads.provide(self._client, worker)
        if fault := await call(self._client, worker.address, agent.check_root, self._session):
            raise ClusterError(fault)
        missing = await call(self._client, worker.address, agent.find_missing, self._programs)
        worker.differences = workers.list_differences(ours, theirs, missing)

    async def _begin_run(self, programs: tuple[str, ...]) -> None:
        self._programs = programs
        if self._broken:
            raise ClusterError(self._broken)
        if self._has_begun:  # the faults of a run before may be over, such as a full disk
            self._unfit.clear()
            await self._list_workers()
        self._has_begun = True
        if self._uploads is not None:
            await self._uploads.take(self._client, tuple(self._workers.values()))
        await asyncio.gather(*(self._fit(worker) for worker in tuple(self._workers.values())))
        while (self._workers or self._preparing) and not any(worker.fit for worker in self._workers.values()):
            await asyncio.sleep(_PREPARING_SECONDS)  # one that has just come may be fit
        if not self._workers:
            reasons = "; ".join(dict.fromkeys(self._unfit.values()))
            raise ClusterError(f"dask: no worker can take tasks: {reasons or 'all have gone'}")
        rows = [(worker.label, worker.differences) for worker in self._workers.values()]
        for line in workers.format_differences(rows):
            log.warning(line)

    def _reject(self, address: str, reason: str) -> None:
        self._unfit[address] = f"{address}: {reason}"
        log.warning("a worker can't take tasks", extra={"worker": address, "err": reason})

    def _lose(self, address: str, *, expected: bool = False, why: str = "") -> None:
        """Fail the items of a worker that has gone."""
        self._preparing.pop(address, None)
        worker = self._workers.pop(address, None)
        if worker is None:
            return
        self._release(worker)
        items = tuple(worker.items.values())
        if items or not expected:
            self.deaths["lost"] += 1
        silence = monotonic() - worker.heard_seconds
        why = f"lost: {why or f'the worker {worker.name} on {worker.facts.host} has gone'}"
        if items and silence > _SILENT_SECONDS:
            wait = max(0.0, self._settings.partition_grace_seconds - silence)
            self._cut_off |= dict.fromkeys(items, f"{why} after {silence:.0f} s without an answer")
            self._loop.call_later(wait, self._fail_cut_off, items)
        else:
            self._fail_items(items, why)
        self._adjust()

    def _fail_items(self, items: Iterable[WorkItem], why: str) -> None:
        for item in items:
            self._fail_item(item, WorkerDied(f"{item.task.label}: {why}"))

    def _fail_cut_off(self, items: Iterable[WorkItem]) -> None:
        for item in items:
            if (why := self._cut_off.get(item)) is not None:
                self._fail_item(item, WorkerDied(f"{item.task.label}: {why}"))

    def _fail_item(self, item: WorkItem, error: BaseException) -> None:
        self._cut_off.pop(item, None)
        if item.worker is not None:
            item.worker.take_item(item.task.attempt)
        if item.future.done():
            return  # its reply came before the order to give it up
        if not item.sent_seconds and not item.future.start_running(monotonic()):
            return  # it was cancelled in the queue
        measured = work_items.build_last_measurement(item, monotonic())
        self._settle(item, TaskReply(attempt=item.task.attempt, error=error, measurement=measured), monotonic())

    # Sending

    def _take_incoming(self) -> None:
        self._waking = False
        while self._incoming and not self._closing:  # a closed pool has no queue
            self._queue.append(self._incoming.popleft())
        self._dispatch()

    def _dispatch(self) -> None:
        """Send queued items to workers with free slots, as far as the target allows."""
        while self._queue:
            item = self._queue[0]
            if item.future.done():
                self._queue.popleft()
                item.future.start_running(monotonic())  # tells waiters of its cancellation
                continue
            if self._broken:
                self._queue.popleft()
                self._fail_item(item, ClusterError(self._broken))
                continue
            worker = self._choose_worker(item) if self._client.status == "running" else None
            if worker is None:
                return
            self._send(worker, self._take_batch(item))

    def _choose_worker(self, item: WorkItem) -> RemoteWorker | None:
        mean = self._means.get(item.group)
        ahead = 1 if mean is not None and mean < placement.AHEAD_SECONDS and len(self._queue) > self._target else 0
        if sum(worker.taken_slots for worker in self._workers.values()) >= self._target * (1 + ahead):
            return None
        return placement.choose_worker(
            self._workers.values(),
            slots=item.options.slots,
            memory_bytes=item.options.memory_bytes,
            batches_ahead=ahead,
        )

    def _take_batch(self, first: WorkItem) -> list[WorkItem]:
        size = placement.choose_batch_size(
            self._means.get(first.group), queued=len(self._queue), slots=min(self._target, max(1, self.slots))
        )
        taken: list[WorkItem] = []
        while self._queue and len(taken) < size and self._queue[0].group == first.group:
            item = self._queue.popleft()
            now = monotonic()
            if item.future.start_running(now):
                item.sent_seconds = now
                taken.append(item)
        return taken

    def _send(self, worker: RemoteWorker, items: list[WorkItem]) -> None:
        if items:
            worker.add_batch(items)
            worker.stream.send(Batch(tuple(item.task for item in items)))
            self._serve_slots(worker)

    def _serve_slots(self, worker: RemoteWorker) -> None:
        """Have a thread of a worker for each of its batches."""
        while worker.served_slots < min(worker.batches, worker.facts.threads):
            worker.served_slots += 1
            self._spawn(self._hold_slot(worker))

    async def _hold_slot(self, worker: RemoteWorker) -> None:
        """Run a Dask task on a worker that runs batches there until none is left."""
        key = f"{agent.SLOT_PREFIX}-{self._session}-{worker.number}-{next(self._keys)}"
        slot = self._submit_pinned(worker.address, key, self._serve_slot.build_call(self._session, worker.number))
        why = ""
        try:
            await slot
        except (asyncio.CancelledError, FutureCancelled):
            if self._client.status != "running":
                self._lose_all()
            why = "the scheduler or the worker has gone"
        except Exception as error:  # noqa: BLE001 -- KilledWorker, or a fault of ours
            why = to_one_line(describe(error))
        finally:
            slot.release()
            worker.served_slots -= 1
        if self._workers.get(worker.address) is not worker:
            return
        if why:
            self._lose(worker.address, why=why)
            self._loop.call_later(_RELIST_SECONDS, self._relist)
        else:
            self._serve_slots(worker)

    def _submit_pinned(self, address: str, key: str, call: tuple[Any, ...]) -> Any:
        return self._client.submit(*call, key=key, workers=[address], allow_other_workers=False, retries=0, pure=False)

    def _take_answers(self, worker: RemoteWorker, answers: list[Answer]) -> None:
        """Apply the answers of a worker. Raises an exception of any kind if they are invalid."""
        now = worker.heard_seconds = monotonic()
        for answer in answers:
            if isinstance(answer, WorkerUsage):
                _take_usage(worker, answer, now)
            else:
                self._take_reply(worker, *answer, now)
        self._adjust()

    def _take_reply(self, worker: RemoteWorker, attempt: int, data: bytes, now: float) -> None:
        item = worker.items.get(attempt)
        if item is None:
            self._drop_late(worker, attempt)
            worker.end_attempt(attempt)
            return
        reply = _load_reply(item.task, data, most_seconds=now - item.sent_seconds)
        self._learn_duration(item.group, reply)
        if reply.outputs or reply.report or reply.output:
            self._spawn(self._take_files(worker, item, reply, now))
        else:
            self._end_item(worker, item, reply, now)

    def _drop_late(self, worker: RemoteWorker, attempt: int) -> None:
        log.warning(
            "a result came after its task was given up: dropped",
            extra={"worker": worker.label, "attempt": attempt},
        )

    async def _take_files(self, worker: RemoteWorker, item: WorkItem, reply: TaskReply, received: float) -> None:
        self._end_item(worker, item, await self._fetch_files(worker, item, reply), received)
        self._adjust()

    def _end_item(self, worker: RemoteWorker, item: WorkItem, reply: TaskReply, received: float) -> None:
        worker.end_attempt(item.task.attempt)
        if worker.take_item(item.task.attempt) is None:  # it was lost meanwhile
            self._drop_late(worker, item.task.attempt)
        else:
            self._settle(item, reply, received)

    async def _fetch_files(self, worker: RemoteWorker, item: WorkItem, reply: TaskReply) -> TaskReply:
        """Write the files of a reply here; a fault becomes the error of the task."""
        try:
            await file_sync.fetch_files(
                self._client,
                worker.address,
                item,
                reply,
                root=self._settings.root,
                wants_outputs=self._uploads is not None,
                max_bytes=self._settings.upload_max_bytes,
            )
        except Exception as error:  # noqa: BLE001 -- a full disk here, or a worker that has gone
            why = ClusterError(f"{item.task.label}: its files could not be fetched: {to_one_line(describe(error))}")
            return replace(reply, value=None, error=why)
        return reply

    def _learn_duration(self, group: str, reply: TaskReply) -> None:
        if reply.measurement is not None:
            new = reply.measurement.duration_seconds
            old = self._means.get(group, new)
            self._means[group] = _KEPT_MEAN * old + (1 - _KEPT_MEAN) * new

    def _settle(self, item: WorkItem, reply: TaskReply, received_seconds: float) -> None:
        self.on_settled(reply.measurement, work_items.classify_reply(reply))
        work_items.settle(item, reply, received_seconds)

    # Stopping and sampling

    def _stop_item(self, item: WorkItem, grace_seconds: float) -> None:
        worker = item.worker
        if worker is not None and item.task.attempt in worker.items:
            worker.stream.send(StopOrder(item.task.attempt, grace_seconds))

    async def _poll_workers(self) -> None:
        for tick in itertools.count(1):
            await asyncio.sleep(_POLL_SECONDS)
            for worker in tuple(self._workers.values()):
                if worker.items or tick % _IDLE_POLLS == 0:
                    worker.stream.send(UsageRequest())

    # Sizing

    def _adjust(self) -> None:
        """Ask for as many workers as the target needs, and release surplus ones."""
        if self._closing:
            return
        if self._size is not None:
            self._adjust_size(self._size)
        self._dispatch()
        self.on_adjusted()

    def _adjust_size(self, size: ClusterSize) -> None:
        for worker in size.adjust(self._target, self._workers.values(), monotonic()):
            self._workers.pop(worker.address, None)
            self._release(worker)
        check = size.get_next_check()
        if check is not None and check > monotonic() and self._adjust_timer is None:
            self._adjust_timer = self._loop.call_later(check - monotonic(), self._adjust_later)

    def _adjust_later(self) -> None:
        self._adjust_timer = None
        self._adjust()

    async def _disconnect(self) -> None:
        for worker in tuple(self._workers.values()):
            self._fail_items(tuple(worker.items.values()), "stopped: the pool was closed")
            worker.stream.close()
        self._fail_cut_off(tuple(self._cut_off))
        self._cancel(self._incoming)  # `submit` cancels later ones
        self._cancel(self._queue)
        if self._client is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._client.close(), _CLOSE_SECONDS)
        for task in tuple(self._tasks):
            task.cancel()


def _explain(error: Exception) -> str:
    return to_one_line(str(error) if isinstance(error, ClusterError) else describe(error))


def _load_reply(task: RemoteTask, data: bytes, *, most_seconds: float) -> TaskReply:
    """Return the reply to a task; an unreadable or invalid one becomes an error.

    A task takes at most the time since it was sent, `most_seconds`. (A host that sleeps lets this clock stand still.)
    """
    try:
        reply = pickle.loads(data)
        fault = find_fault(task, reply)
    except BaseException as error:  # noqa: BLE001 -- a user's classes run in here; an exit would end the event loop
        fault = f"can't be read: {to_one_line(describe(error))}"
    if fault:
        return TaskReply(attempt=task.attempt, error=WorkerDied(f"{task.label}: its reply {fault}"))
    duration_seconds = min(reply.measurement.duration_seconds, most_seconds)
    return replace(reply, measurement=replace(reply.measurement, duration_seconds=duration_seconds))  # type: ignore[no-any-return]  # `find_fault` has checked its type


def _wait_for(future: Future[Any], held: DeferredSignals) -> None:
    """Wait until a future has ended, and raise its error; after a signal, cancel it and return."""
    while not future.done():  # `wait` does not count a future as done that another thread has cancelled
        if held.number is not None:
            future.cancel()
            return
        wait([future], _SIGNAL_SECONDS)
    future.result()


def _build_interrupted(number: int, what: str) -> Interrupted:
    return Interrupted(number, f"interrupted by {signal.Signals(number).name} before a run: {what}")


def _take_usage(worker: RemoteWorker, usage: WorkerUsage, now: float) -> None:
    if not is_sound_usage(usage):
        raise ValueError("the usage of its tasks makes no sense")
    worker.memory_available_bytes = usage.memory_available_bytes
    for task in usage.running:
        if (item := worker.items.get(task.attempt)) is not None:
            item.usage = (now, task)


def _log_unexpected(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log errors of Dask's own tasks without a reader, such as those of connections which broke."""
    del loop
    log.debug("an error in the event loop", extra={"err": f"{context.get('message')}: {context.get('exception')}"})


def _load_agent(version: str) -> object:
    """Import the agent if it has this version. Return the version that a worker has, or the reason why it has none."""
    try:
        from paropt_exporter._version import __version__

        if __version__ == version:
            import paropt_exporter.executors.cluster.agent  # noqa: F401 -- the next call finds it loaded
    except ImportError as error:
        import sys

        return f"{error}: install paropt-exporter[dask] for {sys.executable} of this worker"
    return {"paropt-exporter": __version__}


def _serve_slot(session: str, number: int) -> None:
    from paropt_exporter.executors.cluster.agent import serve_slot

    serve_slot(session, number)
