"""The thread pool and the process pool of an AdaptivePool: their sizes, and the pools, each made on first use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.cpu_demand import CORE_SLACK
from paropt_exporter.errors import UnpicklableError, is_from_signal_handler
from paropt_exporter.events import Strategy
from paropt_exporter.executors import lifetime
from paropt_exporter.executors.adaptive.routing import PoolName
from paropt_exporter.executors.base import PROCESSES, THREADS
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.pool_log import PoolLogger
from paropt_exporter.executors.processes.executor import ProcessPool
from paropt_exporter.executors.threads.thread_pool import ThreadPool

log = PoolLogger(__name__)

_MAX_WAITING_THREADS = 64  # threads that wait at once, unless the caller sets a bound
_PROCESSES_RETRY_SECONDS = 1.0


class PoolBounds(Struct, frozen=True, kw_only=True):
    """The first and the largest sizes of the pools. `start`: the initial number of threads of an ADAPTIVE pool.

    `name` is the first part of the names of the pools.
    """

    strategy: Strategy
    cores: int
    max_workers: int | None
    start: int
    name: str = ""

    def build_name(self, pool_name: PoolName) -> str:
        return f"{self.name}-{pool_name}" if self.name else pool_name

    def get_initial(self, pool_name: PoolName) -> int:
        if self.strategy is Strategy.SEQUENTIAL:
            return 1
        if pool_name == PROCESSES:
            processes = self.max_workers or self.cores
            return min(processes, self.cores) if self.strategy is Strategy.ADAPTIVE else processes
        if self.strategy is Strategy.ADAPTIVE:
            return min(self.max_workers or self.start, self.start)
        return self.max_workers or min(32, self.cores + 4)

    @property
    def first_size(self) -> int:
        """The initial size of the pool that gets the first task."""
        return self.get_initial(PROCESSES if self.strategy is Strategy.PROCESS else THREADS)

    @property
    def most_threads(self) -> int:
        """The most threads of an ADAPTIVE pool."""
        return self.max_workers or _MAX_WAITING_THREADS

    @property
    def most_workers(self) -> int:
        """The most tasks that run at once."""
        return self.most_threads if self.strategy is Strategy.ADAPTIVE else self.first_size


def compute_thread_count(demand: float, tasks: int, most: int) -> int:
    """Return how many threads tasks of `demand` cores each keep busy: no more than tasks, and at most `most`.

    Threads share one core because of the GIL: more threads than use it up don't help.
    """
    return min(most, tasks, int(1 / max(demand, 1 / most) + CORE_SLACK))


class Pools:
    """The pools of one AdaptivePool, and the sizes that they have or will have.

    The pools are made without the scheduler's lock, which guards the state: a new thread may collect garbage whose
    finalizer submits a task, while the thread that started it waits. If two threads make a pool at once, one of the two
    is shut down again.
    """

    def __init__(
        self,
        bounds: PoolBounds,
        lock: AbstractContextManager[Any],
        observe_unsendable: Callable[[TaskFuture[Any], UnpicklableError], None],
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        self.lock = lock  # guards: everything below
        self.bounds = bounds
        self._initializer, self._initargs = initializer, initargs  # of each worker
        self.made: dict[PoolName, ThreadPool | ProcessPool] = {}
        self.sizes: dict[PoolName, int] = {}
        self._set_initial_sizes()
        self._retry_processes_seconds = 0.0  # when to retry making a process pool that the system has refused
        self._observe_unsendable = observe_unsendable

    def _set_initial_sizes(self) -> None:
        self.sizes = {pool_name: self.bounds.get_initial(pool_name) for pool_name in (THREADS, PROCESSES)}

    @property
    def threads(self) -> ThreadPool | None:
        """The thread pool, if it was used."""
        pool = self.made.get(THREADS)
        return pool if isinstance(pool, ThreadPool) else None

    @property
    def processes(self) -> ProcessPool | None:
        """The process pool, if it was used."""
        pool = self.made.get(PROCESSES)
        return pool if isinstance(pool, ProcessPool) else None

    @property
    def lacks_processes(self) -> bool:
        """Whether the system has just refused a process pool."""
        return monotonic() < self._retry_processes_seconds

    def list(self) -> tuple[ThreadPool | ProcessPool, ...]:
        with self.lock:
            return tuple(self.made.values())

    def resize(self, n: int, reason: str) -> None:
        """Set the maximum size of each pool, and resize both to their initial sizes within it."""
        with self.lock:
            self.bounds = replace(self.bounds, max_workers=n)
            self._set_initial_sizes()
        for pool_name in tuple(self.made):
            self.apply_size(pool_name, reason)

    def reset_threads(self) -> None:
        """Give the thread pool its initial size again."""
        with self.lock:
            self.sizes[THREADS] = self.bounds.get_initial(THREADS)
        self.apply_size(THREADS, "demand")

    def apply_size(self, pool_name: PoolName, reason: str) -> None:
        """Resize a pool to the size that it is to have. Another thread may change that meanwhile: its size counts."""
        pool, size = self.made.get(pool_name), 0
        while pool is not None and size != self.sizes[pool_name]:
            size = self.sizes[pool_name]
            pool.resize(size, reason=reason)

    def get(self, pool_name: PoolName) -> ThreadPool | ProcessPool:
        """Return a pool; make it if this is its first use."""
        with self.lock:
            pool, size = self.made.get(pool_name), self.sizes[pool_name]
        if pool is not None:
            return pool
        made = self._make_thread_pool(size) if pool_name == THREADS else self._make_process_pool(size)
        with self.lock:
            pool, wanted = self.made.setdefault(pool_name, made), self.sizes[pool_name]
        if pool is not made:
            made.shutdown(wait=False)
        elif wanted != size:  # the size changed meanwhile
            pool.resize(wanted, reason="caller")
        return pool

    def _make_thread_pool(self, size: int) -> ThreadPool:
        name = self.bounds.build_name(THREADS)
        return ThreadPool(size, initializer=self._initializer, initargs=self._initargs, name=name)

    def _make_process_pool(self, size: int) -> ProcessPool:
        name = self.bounds.build_name(PROCESSES)
        pool = ProcessPool(size, initializer=self._initializer, initargs=self._initargs, name=name)
        if self.bounds.strategy is not Strategy.PROCESS:
            pool.observe_unsendable(self._observe_unsendable)
        return pool

    def get_processes(self) -> ProcessPool | None:
        """Return the process pool, or None if the system has no threads or processes left for one; then it retries a
        second later.

        If there is no thread pool that could run its tasks, raise the error.
        """
        may_start = lifetime.starts_threads() and not self.lacks_processes
        if self.processes is None and self.threads is not None and not may_start:
            return None
        try:
            self.get(PROCESSES)
        except (RuntimeError, OSError) as error:
            if self.threads is None or is_from_signal_handler(error):
                raise
            self._note_lack(error)
            return None
        processes = self.processes
        if self.threads is None or processes is None or (failure := processes.failure) is None:
            return processes
        # Until one of its workers is ready, tasks would wait for it, and fail with it.
        if not self.lacks_processes and processes.reopen():
            self._note_lack(failure)
        return None

    def _note_lack(self, error: Exception) -> None:
        log.warning("no process pool: its tasks run in threads for now", extra={"err": str(error)})
        self._retry_processes_seconds = monotonic() + _PROCESSES_RETRY_SECONDS
