"""The threads of a ProcessPool's workers: starts one for each missing worker, wakes and joins them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from threading import get_ident

from paropt_exporter.executors.pool_log import PoolLogger
from paropt_exporter.executors.processes.scheduler import Scheduler
from paropt_exporter.executors.processes.workers import Worker
from paropt_exporter.executors.thread_group import ThreadGroup

log = PoolLogger(__name__)


class WorkerThreads:
    """One thread for each worker, from its first process to its last, and the event descriptor on which it waits.

    If the system refuses a thread or a descriptor, the pool goes on with the workers that it has. The others are asked
    for again a second later: by the thread of a worker, or with the next task if there is none.
    """

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self.group = ThreadGroup(scheduler.lock)
        self._scheduler = scheduler
        self._name = name  # of the pool

    def start_missing(self, run_worker: Callable[[Worker], None]) -> None:
        """Start the missing workers, as far as the system allows. OSError or RuntimeError if there is none at all.

        A worker's thread that finds no descriptors gives up its place, which stays free until the next call.
        """
        self.group.clear_shortage()
        error = self.group.start_workers(self._add, partial(self._run, run_worker), self._drop_unstarted)
        if error is not None:
            log.warning("the system gives no more workers", extra={"pool": self._name, "err": str(error)})

    def _add(self) -> Worker | None:
        if self.group.has_shortage:  # a thread that has just started found no descriptors
            return None
        worker = self._scheduler.add_worker()
        if worker is not None:
            worker.waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.group.announce(worker.name)
        return worker

    def _drop_unstarted(self) -> bool:
        workers = tuple(self._scheduler.workers)
        names = self.group.withdraw_unstarted(worker.name for worker in workers)
        for worker in tuple(worker for worker in workers if worker.name in names):
            self._remove(worker)
        self.group.note_shortage()  # after an interrupt, too
        if self._scheduler.workers:
            wake(self._scheduler.workers[0])  # its thread asks again
        else:
            self._scheduler.needs_dispatch = True  # the next task does
        return bool(self._scheduler.workers)

    def _run(self, run_worker: Callable[[Worker], None], worker: Worker) -> None:
        worker.thread = get_ident()
        try:
            run_worker(worker)
        finally:
            self._remove(worker)

    def _remove(self, worker: Worker) -> None:
        with self._scheduler.lock:
            self._scheduler.remove_worker(worker)
            close_waker(worker)


def wake(worker: Worker) -> None:
    """Wake a worker's thread; under the lock."""
    if worker.waker is not None:
        os.eventfd_write(worker.waker, 1)


def close_waker(worker: Worker) -> None:
    """Close a worker's descriptor, which the system may have refused; under the lock."""
    if worker.waker is not None:
        os.close(worker.waker)
        worker.waker = None
