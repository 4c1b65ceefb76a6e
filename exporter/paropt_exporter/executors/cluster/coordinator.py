"""Connect to a cluster, start its runs, watch the connection to its scheduler, and close it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future, wait
from time import monotonic
from typing import Any

from paropt_exporter.errors import Interrupted
from paropt_exporter.executors.cluster import workers
from paropt_exporter.executors.cluster.dask_client import HostedCluster
from paropt_exporter.executors.cluster.dispatcher import Dispatcher
from paropt_exporter.executors.cluster.membership import Membership
from paropt_exporter.executors.cluster.placement import ClusterSize
from paropt_exporter.executors.cluster.session import CLOSE_SECONDS, ClusterSession
from paropt_exporter.executors.cluster.settings import ClusterError, ClusterSettings
from paropt_exporter.signals import DeferredSignals

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5  # between two samples of running tasks
_IDLE_POLLS = 10  # of which an idle worker gets one
_CONNECTION_SECONDS = 0.2  # between two looks at the client's connection
# how much longer the client, which has no limit of its own, may wait for a scheduler's handshake
_HANDSHAKE_SECONDS = 5.0
_ASK_SECONDS = 30.0  # between two questions to the scheduler, and for an answer
_MOST_UNANSWERED = 5  # questions in a row; it may be busy with other clients for minutes
_SIGNAL_SECONDS = 0.1  # between two looks for a signal while the cluster starts


class Coordinator:
    """The connection to one cluster, from its start to its end. Public methods may be called from any thread.

        ClusterPool ──> Coordinator ──> ClusterSession   the thread with the event loop, Dask's client
                                   ──> Membership       the workers
                                   ──> Dispatcher       the work items, which it sends to the workers

    Membership tells the dispatcher which workers have come and gone; all else goes along the arrows.
    """

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        self._session = ClusterSession(settings)
        self.members = Membership(self._session)
        self.dispatcher = Dispatcher(self._session, self.members)
        self.members.listener = self.dispatcher
        self._hosted: HostedCluster | None = None
        self._beginning: Future[Any] = Future()  # of the last run
        self._has_begun = False  # whether a run has

    # From any thread

    def start(self, target: int) -> None:
        """Connect, and wait for the first fit worker, which takes minutes where pods have to start.

        Raises ClusterError, and Interrupted after a signal.
        """
        self.dispatcher.target = target
        with DeferredSignals() as held:
            try:
                if not self._settings.is_fixed:
                    self._hosted = HostedCluster(self._settings, held.wake_reader)
                    self.members.size = ClusterSize(self._hosted, self._settings.idle_seconds)
                self._session.start()
                _wait_for(self._session.call(self._connect()), held)
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
        self._beginning = beginning = self._session.call(self._begin_run(programs))
        if self._session.closing:
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

    def resize(self, target: int) -> None:
        self.dispatcher.target = target
        self._session.call_soon(self.dispatcher.handle_change)

    def close(self) -> None:
        """End all tasks, the session and a cluster that this program started. Blocks for seconds at most."""
        if self._session.closing:
            return
        self._session.closing = True
        if self._session.is_running:
            with contextlib.suppress(Exception, FutureCancelled):
                self._session.call(self._disconnect()).result(2 * CLOSE_SECONDS)
            self._beginning.cancel()  # the loop would not end it any more
        self._session.stop()
        if self._hosted is not None:
            self._hosted.close()

    # Everything below runs in the event loop.

    async def _connect(self) -> None:
        address = await self._session.connect(self._hosted)
        self.members.subscribe()
        self.dispatcher.handle_change()
        if not await self.members.list_workers():
            raise ClusterError(f"dask: {address}: the scheduler has gone")
        fixed, started = self._settings.worker_timeout_seconds, self._settings.start_timeout_seconds
        await self.members.wait_for_worker(address, fixed if self._hosted is None else started)
        self._session.spawn(self._poll_workers())
        self._session.spawn(self._watch_connection())
        self._session.spawn(self._watch_answers())

    async def _begin_run(self, programs: tuple[str, ...]) -> None:
        if self.dispatcher.broken:
            raise ClusterError(self.dispatcher.broken)
        # The faults of a run before may be over, such as a full disk.
        looks_again, self._has_begun = self._has_begun, True
        await self.members.begin_run(programs, looks_again=looks_again)
        rows = [(worker.label, worker.differences) for worker in self.members.workers.values()]
        for line in workers.format_differences(rows):
            log.warning(line)

    async def _watch_connection(self) -> None:
        """Lose all workers with the scheduler, and find them again when it is back.

        The client looks for it for `reconnect_seconds`. Workers kill the tasks of a client that has gone.
        """
        session, members = self._session, self.members
        heard_seconds = monotonic()
        connection = session.client.scheduler_comm  # None: there is none
        while not session.closing:
            await asyncio.sleep(_CONNECTION_SECONDS)
            status, current = session.client.status, session.client.scheduler_comm
            if status != "running":
                connection = None
                members.lose_all()
            elif current is not connection:
                if connection is not None:  # the scheduler was away between two looks only
                    members.lose_all()
                members.subscribe()
                connection = current if await members.list_workers() else None
            if status == "running":
                heard_seconds = monotonic()
            silent = monotonic() - heard_seconds > self._settings.reconnect_seconds + _HANDSHAKE_SECONDS
            if (status == "closed" or silent) and not session.closing:
                self.dispatcher.fail_queue(
                    f"dask: the scheduler has been away for {self._settings.reconnect_seconds:g} s: systemd or "
                    "Kubernetes must restart it, and its workers too"
                )
                return
            self.dispatcher.check_workers_exist()

    async def _watch_answers(self) -> None:
        """Cut the connection to a scheduler that hangs, as if it had gone: no slot would ever begin.

        Questions are counted, not seconds: after a stop of this process an answer may come too late.
        """
        unanswered = 0
        while not self._session.closing:
            await asyncio.sleep(_ASK_SECONDS)
            connection = self._session.client.scheduler_comm
            if await self._session.ask_scheduler(_ASK_SECONDS) or not self._session.is_connected:
                unanswered = 0
                continue
            unanswered += 1
            if unanswered >= _MOST_UNANSWERED and connection is self._session.client.scheduler_comm:
                log.warning("the scheduler does not answer: its connection is cut")
                connection.abort()

    async def _poll_workers(self) -> None:
        for tick in itertools.count(1):
            await asyncio.sleep(_POLL_SECONDS)
            self.members.poll(idle=tick % _IDLE_POLLS == 0)

    async def _disconnect(self) -> None:
        self.dispatcher.end()
        await self._session.disconnect()


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
