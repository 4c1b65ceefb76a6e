"""What an AdaptivePool knows and decides: which pool each waiting task goes to, and how large the pools are."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from paropt_exporter import host
from paropt_exporter.cpu_demand import CORE_SLACK, NO_TIME, WAITING_DEMAND, CoreBudget
from paropt_exporter.errors import UnpicklableError
from paropt_exporter.events import RunningTask, Strategy
from paropt_exporter.executors import lifetime
from paropt_exporter.executors.adaptive import monitor
from paropt_exporter.executors.adaptive.monitor import FIRST_LOOK_SECONDS, Monitor
from paropt_exporter.executors.adaptive.profiles import FunctionProfile, recall, remember
from paropt_exporter.executors.adaptive.routing import Place, Router, is_thread_only
from paropt_exporter.executors.demand import DemandMeter, Sample
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.processes import ProcessPool
from paropt_exporter.executors.threads import ThreadPool
from paropt_exporter.executors.threads.worker_thread import CHILD_SAMPLING_SECONDS
from paropt_exporter.plan import PROCESSES, THREADS

log = logging.getLogger(__name__)

_CHILDREN_SECONDS = 0.2  # between two looks at child processes while threads compute
_CHILDLESS_SECONDS = 0.02  # without a child process after which a task is taken to start none
MOST_WAITING = 64  # threads that wait at once, where nobody set a bound
_REFUSAL = "cannot schedule new futures after shutdown"


class Waiting(NamedTuple):
    """A task that has been given to no pool yet."""

    future: TaskFuture[Any]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    profiled: bool = False  # whether to measure it in full wherever it runs


class ThreadFallback(NamedTuple):
    """A function that was to run in processes but can't be sent to one: why, and how many tasks threads got instead."""

    function: str
    reason: str
    tasks: int


class AdaptiveScheduler:
    """The backlog of an AdaptivePool, and the steward thread that looks at running work while some waits.

        submit() ──> backlog, by function ──(room)──> threads | processes ──> ended ──> room for the next
           │              ^                              ^ │
           │              └── steward: CPU shares of running tasks move functions and sizes
           └───(nothing to decide: brief, or one pool for all)

    Guarantees:
      * A task about which there is something to decide is given to a pool only when that pool has room for it, so what
        is learned from the first tasks of a function holds for all that wait.
      * Within a function tasks begin in the order of their submits; SEQUENTIAL keeps it across functions.
      * Nothing runs, and nothing wakes, while nothing waits (but once, to let surplus threads go).
    """

    def __init__(
        self, strategy: Strategy, max_workers: int | None, *, start: int | None = None, memory: Path | None = None
    ) -> None:
        self.router = Router(strategy)
        self.lock = threading.RLock()  # guards: everything below
        self.closed = False
        self.refusal = _REFUSAL
        self.changed = threading.Condition(self.lock)
        self._strategy = strategy
        self._cores = host.count_cpu_workers()
        self._most = max_workers
        self._start = start or self._cores
        self._backlog: dict[str, deque[Waiting]] = {}
        self._inside: dict[Place, int] = {THREADS: 0, PROCESSES: 0}
        self._where: dict[TaskFuture[Any], tuple[Place, str]] = {}  # pool and function of what runs
        self._fallbacks: dict[str, ThreadFallback] = {}  # by function
        self._giving = 0  # tasks on their way into a pool
        self._children = DemandMeter()  # cores that child processes of the threads' tasks want, by function
        self._childless: set[str] = set()  # functions whose tasks were seen to have none
        self._children_due = 0.0  # when to look at child processes again
        self._parents: set[str] = set()  # functions whose tasks were seen to have child processes
        self._crowd = 1  # how many threads were last seen to compete for the interpreter's lock
        self._pools: dict[Place, ThreadPool | ProcessPool] = {}
        self._room: dict[Place, int] = {place: self._beginning(place) for place in (THREADS, PROCESSES)}
        self._steward = Monitor(self)
        self._memory = memory
        if memory is not None:
            known = recall(memory)
            self.router.recall(known)
            parents = {profile.function: profile.children_demand for profile in known if profile.children_demand}
            self._children, self._parents = DemandMeter(parents), set(parents)
        lifetime.register(self, schedules=True)

    # Sizes

    def _beginning(self, place: Place) -> int:
        if self._strategy is Strategy.SEQUENTIAL:
            return 1
        if place == PROCESSES:
            processes = self._most or self._cores
            return min(processes, self._cores) if self._strategy is Strategy.ADAPTIVE else processes
        if self._strategy is Strategy.ADAPTIVE:
            return min(self._most or self._start, self._start)
        return self._most or min(32, self._cores + 4)

    def resize(self, n: int, reason: str) -> None:
        if n < 1:
            raise ValueError(f"a pool of {n} workers: expected at least 1")
        with self.lock:
            self._most = n
            self._room = {place: self._beginning(place) for place in self._room}
            sizes = [(pool, self._room[place]) for place, pool in self._pools.items()]
        for pool, size in sizes:
            pool.resize(size, reason=reason)
        self.feed()

    def pool(self, place: Place) -> ThreadPool | ProcessPool:
        with self.lock:
            if place not in self._pools:
                size = self._room[place]
                self._pools[place] = ThreadPool(size) if place == THREADS else ProcessPool(size)
            return self._pools[place]

    def pools(self) -> tuple[ThreadPool | ProcessPool, ...]:
        with self.lock:
            return tuple(self._pools.values())

    # Work

    def submit(self, task: Waiting) -> None:
        if not self._pass_on(task):
            self._decide(task)

    def _pass_on(self, task: Waiting) -> bool:
        """Give a task straight to its pool where there is nothing to decide; False if there is, or it can't go."""
        place = self._straight_to(task)
        if place is None:
            return False
        future, function, arguments, keywords, profiled = task
        pool = self._pools.get(place) or self.pool(place)
        try:
            pool.submit_future(future, function, arguments, keywords, profiled=profiled)
        except UnpicklableError:
            return False
        if isinstance(pool, ThreadPool) and pool.queued > self._room[THREADS] and not self._steward.at_work:
            self._call_steward()
        return True

    def _straight_to(self, task: Waiting) -> Place | None:
        if self.closed or self._strategy is Strategy.SEQUENTIAL:
            return None
        if self._strategy in (Strategy.THREAD, Strategy.PROCESS):
            return THREADS if self._strategy is Strategy.THREAD else PROCESSES
        # One that is measured in full has a label of its stage's.
        return THREADS if not task.profiled and self.router.is_brief(task.future.label) else None

    def _decide(self, task: Waiting) -> None:
        with self.lock:
            if self.closed:
                raise RuntimeError(self.refusal)
            key = key_of(task.function)
            if is_thread_only(task.function):
                self.router.keep(key, "it is marked thread_only")
            self._backlog.setdefault("" if self._strategy is Strategy.SEQUENTIAL else key, deque()).append(task)
        task.future.add_done_callback(self._ended)
        if self._strategy is Strategy.ADAPTIVE and self.router.share(key) is not None:
            self._expect()
        self.feed()

    def feed(self) -> None:
        """Give the pools what they have room for, and have the rest looked at."""
        self._feed_pools()
        self._call_steward()

    def _call_steward(self) -> None:
        if self._strategy is Strategy.ADAPTIVE:
            self._steward.call()

    def _feed_pools(self) -> None:
        while (found := self._take()) is not None:
            try:
                self._give(*found)
            except (RuntimeError, OSError) as error:  # the pool has given up, or there are no threads to be had
                self._fail(found[1], error)
            finally:
                with self.lock:
                    self._giving -= 1
        if self.closed:
            self._close_pools()

    def _give(self, place: Place, task: Waiting) -> None:
        if place == PROCESSES:
            try:
                self._adopt(place, task)
                return
            except UnpicklableError as error:
                self._keep(task, error)
        self._count_fallback(task)
        self._adopt(THREADS, task)

    def _adopt(self, place: Place, task: Waiting) -> None:
        future, function, arguments, keywords, profiled = task
        profiled = profiled or not self.router.is_brief(key_of(function))  # worth the reading
        self.pool(place).submit_future(future, function, arguments, keywords, profiled=profiled)

    def _take(self) -> tuple[Place, Waiting] | None:
        with self.lock:
            for key, tasks in list(self._backlog.items()):
                if not tasks:
                    del self._backlog[key]
                    continue
                place = self._place(key)
                if self._inside[place] < self._room[place] and not self._on_trial(key) and self._cores_fit(key):
                    task = tasks.popleft()
                    if task.future.done():
                        task.future.start_running(
                            monotonic()
                        )  # refuses, and tells those who wait that it was cancelled
                        return self._take()
                    self._inside[place] += 1
                    self._giving += 1
                    self._where[task.future] = place, key_of(task.function)
                    self._backlog[key] = self._backlog.pop(key)  # the next function's turn
                    return place, task
            return None

    def _place(self, key: str) -> Place:
        """Return where a function's tasks go. While others compute in the threads, what is not known yet goes to
        processes: in a thread it would only wait for the interpreter's lock.
        """
        place = self.router.choose(key)
        if self._strategy is not Strategy.ADAPTIVE:
            return place
        if self.router.share(key) is None:
            return PROCESSES if self._computing_in_threads() else place
        if place == PROCESSES and self._inside[PROCESSES] >= self._room[PROCESSES] and self._may_bridge():
            return THREADS
        if place == THREADS and self.router.doubts(key) and (PROCESSES, key) not in self._where.values():
            return PROCESSES
        return place

    def _may_bridge(self) -> bool:
        """Whether a thread may compute while no process has begun yet: one, since the interpreter's lock is one.

        Not where a process begins within milliseconds: the start of one waits for that lock a dozen times.
        """
        processes = self._pools.get(PROCESSES)
        far = processes is not None and not processes.live and not lifetime.FORK_SERVERS.warm
        return far and not self._computing_in_threads()

    def _computing_in_threads(self) -> bool:
        return any(place == THREADS and self.router.choose(key) == PROCESSES for place, key in self._where.values())

    def _on_trial(self, key: str) -> bool:
        """Whether a task of an unknown function runs, so that the rest had better wait for what it shows.

        One is enough, and all that the others in the threads should suffer from one that keeps the interpreter's lock.
        """
        if self._strategy is not Strategy.ADAPTIVE:
            return False
        untold = key in self._parents and self._children.get_group_demand(key) is None
        if self.router.share(key) is not None and not untold:
            return False
        return any(known == key for _, known in self._where.values())

    def _cores_fit(self, key: str) -> bool:
        """Whether the cores have room for the child processes of one more task, beside those of the running ones."""
        demand = self._children.get_group_demand(key) or 0.0
        if self._strategy is not Strategy.ADAPTIVE or demand < WAITING_DEMAND:
            return True
        return self._cores_left().room(demand) > 0

    def _cores_left(self) -> CoreBudget:
        """Return the cores with what the child processes of running tasks take of them; under the lock."""
        budget = CoreBudget(float(self._cores))
        for _, known in self._where.values():
            budget.take(self._children.get_group_demand(known) or 0.0)
        return budget

    def _startable(self, key: str, tasks: int) -> int:
        """Return how many of a function's waiting tasks the cores have room for; under the lock."""
        if key not in self._parents:
            return tasks
        demand = self._children.get_group_demand(key)
        return 0 if demand is None else min(tasks, self._cores_left().room(demand))

    def _fail(self, task: Waiting, error: Exception) -> None:
        """Settle a task that its pool does not take."""
        with self.lock:
            place, _ = self._where.pop(task.future)
            self._inside[place] -= 1
            self.changed.notify_all()
        task.future.force_exception(error)

    def _keep(self, task: Waiting, error: UnpicklableError) -> None:
        """Have a task that can't be sent to a process, and its function, run in threads."""
        key = key_of(task.function)
        # An unknown function is sent only to find out what it does: it may well wait, and belong in threads.
        unknown = self._strategy is not Strategy.PROCESS and self.router.choose(key) == THREADS
        self.router.keep(key, f"it can't travel to a process: {error}")
        facts = {"function": key, "err": str(error)}
        with self.lock:
            self._inside[PROCESSES] -= 1
            self._inside[THREADS] += 1
            self._where[task.future] = THREADS, key
            first = not unknown and key not in self._fallbacks
            if first:
                self._fallbacks[key] = ThreadFallback(key, str(error), 0)
        if first:
            # Named in the message: scripts that configure no logging see nothing else.
            log.warning("%s can't be sent to a process: its tasks run in threads", key, extra=facts)
        elif unknown:
            log.info("a function stays in threads", extra=facts)

    def _count_fallback(self, task: Waiting) -> None:
        if not self._fallbacks:
            return
        with self.lock:
            known = self._fallbacks.get(key := key_of(task.function))
            if known is not None:
                self._fallbacks[key] = known._replace(tasks=known.tasks + 1)

    def fallbacks(self) -> tuple[ThreadFallback, ...]:
        with self.lock:
            return tuple(self._fallbacks.values())

    def _ended(self, future: Any) -> None:
        with self.lock:
            where = self._where.pop(future, None)
            if where is None:
                return  # cancelled or stopped before it was given to a pool
            place, key = where
            self._inside[place] -= 1
            crowd = self._crowd if place == THREADS else 1
            self.changed.notify_all()
        if future.measurement is not None:
            self.router.learn(key, future.measurement, concurrent=crowd)
        self.feed()

    def stop(self, future: TaskFuture[Any], error: BaseException, grace_seconds: float) -> bool:
        with self.lock:
            where = self._where.get(future)
            threads = self._pools.get(THREADS)
        if where is None and threads is not None:
            return threads.stop(future, error)
        if where is None:
            return future.force_exception(error)
        return self.pool(where[0]).stop(future, error, grace_seconds=grace_seconds)

    def wanting(self) -> int:
        """Return how many tasks wait, here or for a thread."""
        threads = self._pools.get(THREADS)
        return self.waiting() + (threads.queued if isinstance(threads, ThreadPool) else 0)

    def watched(self) -> bool:
        """Whether tasks run in threads: their child processes are measured while they live."""
        return self._strategy is Strategy.ADAPTIVE and self._inside[THREADS] > 0

    def waiting(self) -> int:
        with self.lock:
            return sum(map(len, self._backlog.values()))

    # What the steward asks for

    def knows_what_waits(self) -> bool:
        with self.lock:
            return all(self.router.share(key) is not None for key, tasks in self._backlog.items() if tasks)

    def look(self) -> None:
        """Learn from tasks that still run, so that waiting work is known as such before its first task ends."""
        threads = self._pools.get(THREADS)
        if isinstance(threads, ThreadPool):
            began = monotonic()
            children = began >= self._children_due
            seen = threads.sample_running(children=self._may_have_children if children else lambda _: False)
            running = [each for each in seen if monitor.age_seconds(each[1]) >= FIRST_LOOK_SECONDS / 2]
            shares = [monitor.share(task) for _, task in running]
            self._crowd = monitor.crowd(shares)
            if children and monotonic() < began + CHILD_SAMPLING_SECONDS:  # else the look at them was cut short
                self._sample_children(seen)
            # Beside a thread that computes each read waits for the interpreter's lock.
            self._children_due = monotonic() + (_CHILDREN_SECONDS if any(share >= 0.5 for share in shares) else 0.0)
            for future, task in running:
                where = self._where.get(future)
                key = where[1] if where is not None else future.label
                if where is not None or self.router.share(key) is not None:
                    self.router.learn(key, monitor.so_far(task), concurrent=self._crowd)
            if shares:
                self._oversubscribe(sum(shares) / len(shares))
        self.feed()

    def _sample_children(self, seen: Iterable[tuple[TaskFuture[Any], RunningTask]]) -> None:
        now, found = monotonic(), dict[Hashable, tuple[str, Sample]]()
        with self.lock:
            for future, task in seen:
                where, below = self._where.get(future), monitor.children_time(task)
                if where is not None and where[1] not in self._childless:
                    found[future] = where[1], Sample(now, below)
                    if below == NO_TIME and monitor.age_seconds(task) >= _CHILDLESS_SECONDS:
                        self._childless.add(where[1])
                    if below != NO_TIME:
                        self._parents.add(where[1])
                        self._childless.discard(where[1])
            self._children.sample(found, now)

    def _may_have_children(self, future: TaskFuture[Any]) -> bool:
        where = self._where.get(future)
        return where is None or where[1] not in self._childless

    def _expect(self) -> None:
        """Let threads wait at once for functions that are known to wait."""
        with self.lock:
            known = [
                (share, len(tasks))
                for key, tasks in self._backlog.items()
                if (share := self.router.share(key)) is not None and self.router.choose(key) == THREADS
            ]
        count = sum(number for _, number in known)
        if count and self.pool(THREADS):
            self._oversubscribe(sum(share * number for share, number in known) / count)

    def _oversubscribe(self, share: float) -> None:
        """Have as many threads as fill a core with tasks that take `share` of one each, if so many are wanted."""
        threads, bound = self._pools[THREADS], self._most or MOST_WAITING
        inside = threads.busy + (threads.queued if isinstance(threads, ThreadPool) else 0)
        with self.lock:
            waiting = sum(
                self._startable(key, len(tasks))
                for key, tasks in self._backlog.items()
                if self.router.share(key) is not None and self.router.choose(key) == THREADS
            )
            wanted = max(inside, self._inside[THREADS]) + waiting
            # One core is all that threads get between them: more of them than fill it do not help.
            size = min(bound, wanted, int(1 / max(share, 1 / bound) + CORE_SLACK))
            room = self._room[THREADS]
            if size < room and self._parents.intersection(self._backlog):
                size = max(size, self._inside[THREADS], min(room, self._beginning(THREADS)))
            elif size <= room:
                return
            self._room[THREADS] = size
        if size < room:
            threads.resize(size, reason="cpu_limit")
            return
        self._feed_pools()  # first, so that each new thread finds its task when it begins, not when the last has begun
        threads.resize(size, reason="demand")

    def rest(self) -> None:
        """Let threads go that only waiting work needed."""
        with self.lock:
            size = self._room[THREADS] = self._beginning(THREADS)
            threads = self._pools.get(THREADS)
        if threads is not None and threads.target > size:
            threads.resize(size, reason="demand")

    # The end

    def close(self, *, cancel_futures: bool = False, refusal: str = _REFUSAL) -> None:
        with self.lock:
            if not self.closed:
                self.closed, self.refusal = True, refusal
            left = [task for tasks in self._backlog.values() for task in tasks] if cancel_futures else []
            if cancel_futures:
                self._backlog.clear()
            self.changed.notify_all()
        for task in left:
            task.future.cancel()
            task.future.set_running_or_notify_cancel()
        self._close_pools(cancel_futures=cancel_futures)

    def _close_pools(self, *, cancel_futures: bool = False) -> None:
        with self.lock:
            through = not any(self._backlog.values()) and not self._giving
        if through:
            for pool in self.pools():
                pool.shutdown(wait=False, cancel_futures=cancel_futures)

    def join(self) -> None:
        with self.lock:
            self.changed.wait_for(lambda: not self.waiting() and not self._where)
        for pool in self.pools():
            pool.shutdown(wait=True)
        self._steward.join()
        if self._memory is not None:
            remember(self._memory, self._profiles())

    def _profiles(self) -> Iterable[FunctionProfile]:
        for profile in self.router.profiles():
            yield replace(profile, children_demand=self._children.get_group_demand(profile.function) or 0.0)

    def reset_after_fork(self) -> None:
        """In a forked child: the pools are the parent's."""
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.closed, self.refusal = True, lifetime.AFTER_FORK_MESSAGE
        self._backlog, self._where = {}, {}


def key_of(function: Callable[..., Any]) -> str:
    inner = getattr(function, "func", function)
    return f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', type(inner).__qualname__)}"
