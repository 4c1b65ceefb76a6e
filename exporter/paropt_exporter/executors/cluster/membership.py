"""The workers of a cluster: they are found, prepared, given the files of each run, lost and released."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import CancelledError as FutureCancelled
from functools import partial
from time import monotonic
from typing import Any, Protocol

from paropt_exporter.errors import describe, to_one_line
from paropt_exporter.executors.cluster import dask_client
from paropt_exporter.executors.cluster.messages import Answer, UsageRequest
from paropt_exporter.executors.cluster.placement import ClusterSize
from paropt_exporter.executors.cluster.session import ClusterSession
from paropt_exporter.executors.cluster.settings import ClusterError
from paropt_exporter.executors.cluster.worker_setup import WorkerSetup
from paropt_exporter.executors.cluster.workers import PAUSED, RemoteWorker

log = logging.getLogger(__name__)

_EVENT_SECONDS = 1.0  # how long the scheduler has to report why the connection to a worker has ended
_RELIST_SECONDS = 1.0  # until a worker that could not be prepared is looked for again
_SUBSCRIBED_SECONDS = (0.1, 1.0, 5.0)  # the scheduler confirms no subscription
_MOST_OPEN_REQUESTS = 1200  # two each second: Dask gives up a worker that hangs after half the time (worker-ttl)
_PREPARING_SECONDS = 0.05  # between two looks at workers that are being prepared
_EXPOSED = (
    "it has no TLS, and anyone on the way to it can run code here: use tls:// with dask.tls, or write insecure: true "
    "if the network is yours alone"
)


class WorkerListener(Protocol):
    """The user of the workers."""

    def take_answers(self, worker: RemoteWorker, answers: list[Answer]) -> None:
        """Apply the answers of a worker. Raises an exception if they are invalid: then its connection ends."""

    def handle_lost(self, worker: RemoteWorker, *, expected: bool, why: str) -> None:
        """Handle the loss of a worker, which can no longer settle its items."""

    def handle_change(self) -> None:
        """Handle that workers may have changed, or that more of them take tasks."""


class Membership:
    """The workers of one cluster, by address; for the event loop of the coordinator.

        found ──> preparing ──session──> present ──files──> fit: takes tasks ──> draining ──> released
                     │                      └──────unfit───────┐      └──> lost: the listener hears of it
                     └──unfit──> rejected <────────────────────┘

    Guarantees: a worker that was lost or released is in no list, and answers that come from it later settle nothing; a
    rejected one is looked at again with the next run, or when its scheduler is back.
    """

    def __init__(self, session: ClusterSession) -> None:
        self.setup = WorkerSetup(session)
        self.workers: dict[str, RemoteWorker] = {}
        self.size: ClusterSize | None = None  # None: the cluster is managed elsewhere
        self.listener: WorkerListener
        self._session = session
        self._preparing: dict[str, int] = {}  # the number of the lease that counts
        self._unfit: dict[str, str] = {}  # the reason, with the address
        self._statuses: dict[str, str] = {}  # the last one that was reported, by address
        self._has_fit_worker = asyncio.Event()  # or has had one
        self._resize_timer: asyncio.TimerHandle | None = None

    # From any thread

    @property
    def slots(self) -> int:
        """The slots of all workers that take tasks."""
        return sum(worker.facts.threads for worker in tuple(self.workers.values()) if worker.takes_tasks)

    @property
    def draining_slots(self) -> int:
        return sum(worker.facts.threads for worker in tuple(self.workers.values()) if worker.draining)

    @property
    def busy_slots(self) -> int:
        return sum(worker.busy_slots for worker in tuple(self.workers.values()))

    # Everything below runs in the event loop.

    @property
    def is_empty(self) -> bool:
        """Whether there is no worker, nor one that is being prepared."""
        return not (self.workers or self._preparing)

    def describe_unfit(self) -> str:
        """Return why workers were rejected, or ""."""
        return "; ".join(dict.fromkeys(self._unfit.values()))

    def is_present(self, worker: RemoteWorker) -> bool:
        """Return whether a worker is still the one at its address."""
        return self.workers.get(worker.address) is worker

    async def wait_for_worker(self, address: str, timeout_seconds: float) -> None:
        """Wait for the first fit worker of the cluster at `address`. Raises ClusterError."""
        try:
            await asyncio.wait_for(self._has_fit_worker.wait(), timeout_seconds)
        except TimeoutError:
            reasons = self.describe_unfit() or f"none came within {timeout_seconds:g} s"
            raise ClusterError(f"dask: no worker at {address} can take tasks: {reasons}") from None

    async def begin_run(self, programs: tuple[str, ...], *, looks_again: bool) -> None:
        """Make the workers fit for a run; `looks_again`: also those that were rejected. Raises ClusterError."""
        self.setup.programs = programs
        if looks_again:
            self._unfit.clear()
            await self.list_workers()
        await self.setup.take_snapshot(tuple(self.workers.values()))
        await asyncio.gather(*(self._fit(worker) for worker in tuple(self.workers.values())))
        while not self.is_empty and not any(worker.fit for worker in self.workers.values()):
            await asyncio.sleep(_PREPARING_SECONDS)  # one that has just come may be fit
        if not self.workers:
            raise ClusterError(f"dask: no worker can take tasks: {self.describe_unfit() or 'all have gone'}")

    # Workers that come

    def subscribe(self) -> None:
        """Subscribe to the scheduler's events, and list workers that arrive before the subscription takes effect."""
        self._session.client.subscribe_topic("all", self._handle_event)
        for seconds in _SUBSCRIBED_SECONDS:
            self._session.loop.call_later(seconds, self._relist)

    def _handle_event(self, event: tuple[float, Any]) -> None:
        message = event[1]
        if self._session.closing or not isinstance(message, dict):
            return
        if message.get("action") == "add-worker":
            self._welcome(message["worker"])
        elif message.get("action") == "remove-worker":
            self._lose(message["worker"], expected=bool(message.get("expected")))

    async def list_workers(self) -> bool:
        """Welcome the workers that are there; return False if the scheduler has gone meanwhile."""
        try:
            found = await self._session.ask_for_workers()
        except OSError:
            return False
        for address in found:
            if address not in self._unfit:
                self._welcome(address)
        return True

    def _relist(self) -> None:
        if not self._session.closing and self._session.is_connected:
            self._session.spawn(self.list_workers())

    def _relist_later(self) -> None:
        self._session.loop.call_later(_RELIST_SECONDS, self._relist)

    def _welcome(self, address: str) -> None:
        if address in self.workers or address in self._preparing:
            return
        if dask_client.is_exposed(address) and not self._session.settings.insecure:
            if address not in self._unfit:
                self._reject(address, _EXPOSED)
        else:
            self._preparing[address] = number = self._session.draw_number()
            self._unfit.pop(address, None)
            self._statuses.pop(address, None)
            self._session.client.subscribe_topic(address, partial(self._handle_status, address))
            self._session.spawn(self._prepare(address, number))

    async def _prepare(self, address: str, number: int) -> None:
        """Begin a session on a worker. If another worker has its address by now, that one's lease counts."""
        session = self._session
        # The worker holds this key from its arrival on; others' tasks may keep all threads, so that it runs much later.
        lease = session.submit_pinned(address, f"paropt-lease-{session.id}-{number}", (eval, "None"))
        try:
            worker = await self.setup.open_session(address, number, lease)
        except (FutureCancelled, OSError):  # it has gone, or its scheduler has
            lease.release()
            self._relist_later()
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
        if not counts or session.closing:
            worker.release()
            return
        self.workers[address] = worker
        self._set_status(worker, self._statuses.get(address, worker.status))
        session.spawn(self._serve_stream(worker))
        if await self._fit(worker):
            self._has_fit_worker.set()
        self.listener.handle_change()

    async def _fit(self, worker: RemoteWorker) -> bool:
        """Give a worker the files of this run and check its programs; it takes no task before."""
        worker.fit = False
        try:
            await self.setup.provide(worker)
        except Exception as error:  # noqa: BLE001 -- the others may be fit
            if self.is_present(worker):
                del self.workers[worker.address]
                worker.release()
                self._reject(worker.address, f"{worker.facts.host}: {_explain(error)}")
            return False
        worker.fit = True
        self.listener.handle_change()
        return self.is_present(worker)

    def _reject(self, address: str, reason: str) -> None:
        self._unfit[address] = f"{address}: {reason}"
        log.warning("a worker can't take tasks", extra={"worker": address, "err": reason})

    async def _serve_stream(self, worker: RemoteWorker) -> None:
        """Receive a worker's answers until its connection ends, then mark it as lost."""
        try:
            await worker.stream.serve(lambda answers: self.listener.take_answers(worker, answers))
        finally:
            worker.connected = False
            # Without tasks there is time to wait for the scheduler to report whether the end was expected.
            self._session.loop.call_later(0.0 if worker.items else _EVENT_SECONDS, self._lose_stream, worker)

    def poll(self, *, idle: bool) -> None:
        """Ask the workers with tasks how these run; with `idle`, also ask idle ones for the memory of their hosts.

        Lose a worker that has not answered for long: it hangs, or a proxy holds a connection whose other end has gone.
        """
        for worker in tuple(self.workers.values()):
            if worker.open_requests >= _MOST_OPEN_REQUESTS:
                self.lose(worker)
            elif worker.items or idle:
                worker.open_requests += 1
                worker.stream.send(UsageRequest())

    def _handle_status(self, address: str, event: tuple[float, Any]) -> None:
        """Follow the status of a worker, which may change before it is prepared."""
        message = event[1]
        if isinstance(message, dict) and message.get("action") == "worker-status-change":
            self._statuses[address] = status = str(message["status"])
            if (worker := self.workers.get(address)) is not None:
                self._set_status(worker, status)
                self.listener.handle_change()

    def _set_status(self, worker: RemoteWorker, status: str) -> None:
        worker.status = status
        if status == PAUSED:
            log.warning("Dask has paused a worker: it gets no task until it goes on", extra={"worker": worker.label})

    # Workers that go

    def _lose_stream(self, worker: RemoteWorker) -> None:
        if not self._session.closing:
            self.lose(worker)

    def lose(self, worker: RemoteWorker, why: str = "") -> None:
        """Lose a worker, unless it was lost before, and look whether it comes back."""
        if self.is_present(worker):
            self._lose(worker.address, why=why)
            self._relist_later()

    def lose_all(self) -> None:
        """Lose all workers with their scheduler."""
        self._unfit.clear()  # these addresses may belong to other workers when the scheduler is back
        for address in (*self.workers, *self._preparing):
            self._lose(address, why="the scheduler has gone")

    def _lose(self, address: str, *, expected: bool = False, why: str = "") -> None:
        self._preparing.pop(address, None)
        self._statuses.pop(address, None)
        worker = self.workers.pop(address, None)
        if worker is not None:
            worker.release()
            self.listener.handle_lost(worker, expected=expected, why=why)

    def resize(self, target: int) -> None:
        """Ask for as many workers as `target` slots need, and release surplus ones."""
        if self.size is None:
            return
        for worker in self.size.adjust(target, self.workers.values(), monotonic()):
            self.workers.pop(worker.address, None)
            worker.release()
        check = self.size.get_next_check()
        if check is not None and check > monotonic() and self._resize_timer is None:
            self._resize_timer = self._session.loop.call_later(check - monotonic(), self._end_timer)

    def _end_timer(self) -> None:
        self._resize_timer = None
        self.listener.handle_change()


def _explain(error: Exception) -> str:
    return to_one_line(str(error) if isinstance(error, ClusterError) else describe(error))
