"""Pools under a storm of signals: handlers that use the pool, and interrupts, at every moment of the main thread.

Usage: python benchmarks/soak_signals.py [SECONDS] [SEED] [--pools threads broken processes adaptive stages]
                                         [--storms handlers interrupts timeouts]

Each round makes a pool, and uses it in the main thread and in a second one while a timer sends signals. With
`handlers`, their handler submits, waits, resizes, cancels, stops, reads metrics or shuts down; with `interrupts`, it
raises KeyboardInterrupt, with `timeouts` TimeoutError, which is an OSError. Half of the rounds switch threads after a
few instructions. The initializer of a `broken` pool fails often. `stages` is an AdaptiveWorkerPool. Then the pool is
shut down. Each future that was returned must have settled once, each of its tasks run once if it succeeded and never
if it was cancelled, and no thread or descriptor may be left. The seed is printed and gives the same operations, but
not the same moments. Exits with 1 and says what is wrong otherwise. If a round has not ended after 60 s, it prints the
stacks of all threads. Python 3.13 and 3.14 without the fix of gh-148820 may hang: a thread misses its wake-up.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import faulthandler
import gc
import itertools
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from types import FrameType

import psutil

from paropt_exporter import AdaptiveWorkerPool
from paropt_exporter.errors import InitializerFailed, TaskStopped, UnpicklableError
from paropt_exporter.executors import AdaptivePool, ProcessPool, TaskFuture, ThreadPool

Pool = ThreadPool | ProcessPool | AdaptivePool | AdaptiveWorkerPool
POOLS: dict[str, Callable[[], Pool]] = {
    "threads": lambda: ThreadPool(2),
    "broken": lambda: ThreadPool(2, initializer=fail_often),
    "processes": lambda: ProcessPool(2),
    "adaptive": lambda: AdaptivePool(max_workers=3),
    "stages": lambda: AdaptiveWorkerPool(initial_size=2),
}
SECONDS = 300.0
HANG_SECONDS = 60.0
_ROUND_SECONDS = 0.5
_MEAN_DELAY_SECONDS = 2e-4  # between signals: an operation takes a tenth of that or many times as long
_SHORT_SECONDS = 0.001  # of waits in handlers: their thread may hold a lock of the pool
_MOST_NESTED = 3  # handlers that interrupt each other
_CLOSING_RATIO = 0.0005  # of the handlers
_SHORT_SWITCH_SECONDS = 1e-6
_FAILURE_RATIO = 0.8  # of a broken pool's initializer: a worker gives up after three failures
_MOST_NEW_DESCRIPTORS = 4  # of the fork server, and of files that are opened once


class PlannedError(Exception):
    """What a task raises on purpose."""


class PlannedTimeout(TimeoutError):
    """What a signal handler raises. While the main thread pickles a task, it becomes the cause of the task's error."""


class Argument:
    """An instance of a class of this script, which travels to a process by value."""


def fail_often() -> None:
    if random.random() < _FAILURE_RATIO:
        raise PlannedError("initializer")


def run_task(path: str, number: int, _: Argument) -> int:
    """Note that the task runs, here or in a worker process; it may sleep or fail."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, number.to_bytes(4, sys.byteorder))
    finally:
        os.close(file)
    if number % 7 == 0:
        time.sleep(0.0005)
    if number % 11 == 0:
        raise PlannedError(number)
    return number


class Round:
    """One pool, the tasks that it got, and the operations on it, which any thread and signal handler may call."""

    def __init__(self, pool: Pool, path: str, chance: random.Random) -> None:
        self.pool = pool
        self.chance = chance
        self.futures: dict[int, TaskFuture[int]] = {}
        self.settled: Counter[int] = Counter()
        self.observed: set[int] = set()  # tasks whose callback was added
        self.faults: list[str] = []
        self._path = path
        self._numbers = itertools.count(1)

    def submit(self) -> None:
        number = next(self._numbers)
        try:
            future = self._submit(number)
        except InitializerFailed:
            return
        except RuntimeError as error:
            if "after shutdown" not in str(error):
                raise
            return
        self.futures[number] = future
        future.add_done_callback(partial(self._settle, number))
        self.observed.add(number)

    def _submit(self, number: int) -> TaskFuture[int]:
        if isinstance(self.pool, AdaptiveWorkerPool):
            return self.pool.submit_stage(number % 3, "stage", run_task, self._path, number, Argument())
        return self.pool.submit(run_task, self._path, number, Argument())

    def _settle(self, number: int, _: object) -> None:
        self.settled[number] += 1

    def pick(self) -> TaskFuture[int] | None:
        """Return one of the last futures, most of which have not settled."""
        some = self.pick_some(1)
        return some[0] if some else None

    def pick_some(self, most: int = 5) -> list[TaskFuture[int]]:
        recent = tuple(self.futures.values())[-20:]
        return self.chance.sample(recent, min(len(recent), most))

    def cancel(self) -> None:
        if (future := self.pick()) is not None:
            future.cancel()

    def stop(self) -> None:
        if (future := self.pick()) is not None and not isinstance(self.pool, AdaptiveWorkerPool):
            self.pool.stop(future, TaskStopped("stopped by the soak"), grace_seconds=0)

    def resize(self) -> None:
        self.pool.resize(self.chance.randint(1, 4))

    def read(self) -> None:
        self.pool.statistics()
        repr(self.pool)
        if isinstance(self.pool, AdaptiveWorkerPool):
            self.pool.metrics.to_dict()

    def list_running(self) -> None:
        if not isinstance(self.pool, AdaptiveWorkerPool):
            self.pool.running()

    def map(self) -> None:
        try:
            for number in self.pool.map(abs, range(5)):
                assert number < 5
        except (CancelledError, InitializerFailed):
            pass
        except RuntimeError as error:
            if "after shutdown" not in str(error):
                raise

    def wait_for_result(self, timeout: float | None = None) -> None:
        if (future := self.pick()) is not None:
            with contextlib.suppress(CancelledError, PlannedError, TaskStopped, InitializerFailed, UnpicklableError):
                future.result(timeout)

    def wait_shortly(self) -> None:
        try:
            self.wait_for_result(_SHORT_SECONDS)
        except PlannedTimeout:
            raise
        except TimeoutError:
            pass

    def wait_for_all(self, timeout: float | None = None) -> None:
        concurrent.futures.wait(self.pick_some(), timeout)

    def wait_for_all_shortly(self) -> None:
        self.wait_for_all(_SHORT_SECONDS)

    def wait_for_first(self) -> None:
        if some := self.pick_some():
            concurrent.futures.wait(some, return_when=concurrent.futures.FIRST_COMPLETED)

    def wait_for_each(self) -> None:
        for future in concurrent.futures.as_completed(self.pick_some()):
            assert future.done()

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=self.chance.random() < 0.5)

    def use_another(self) -> None:
        """Make a pool, use it, and drop it without a shutdown."""
        ThreadPool(1).submit(run_task, self._path, 0, Argument())

    def collect(self) -> None:
        gc.collect()

    def check(self, storm: type[Storm]) -> Iterator[str]:
        """Yield the faults of a round whose pool was shut down."""
        yield from self.faults
        ran = Counter(array("I", Path(self._path).read_bytes()))
        for number, future in self.futures.items():
            outcome, calls = _get_outcome(number, future), self.settled[number]
            if ran[number] not in _ALLOWED_RUNS.get(outcome, ()):
                yield f"task {number} ran {ran[number]} times: {outcome}, {future!r}"
            if calls > 1 or (calls == 0 and number in self.observed and storm.keeps_callbacks):
                yield f"task {number}: its callback was called {calls} times"
        yield from (f"task {number} ran {runs} times" for number, runs in ran.items() if number and runs > 1)


def _get_outcome(number: int, future: TaskFuture[int]) -> str:
    if not future.done():
        return "lost"
    if future.cancelled():
        return "cancelled"
    error = future.exception()
    if isinstance(error, TaskStopped):
        return "stopped"
    if isinstance(error, InitializerFailed) or isinstance(error and error.__cause__, PlannedTimeout):
        return "not begun"
    is_planned = isinstance(error, PlannedError) and error.args == (number,)
    is_right = is_planned if number % 11 == 0 else error is None and future.result() == number
    return "as planned" if is_right else "wrong"


_ALLOWED_RUNS = {
    "as planned": (1,),
    "cancelled": (0,),
    "stopped": (0, 1),
    "not begun": (0,),
}  # of a task, by its outcome


class Handlers:
    """A storm whose signal handler uses the pool, in the middle of any operation of the main thread."""

    keeps_callbacks = leaves_nothing = True

    def __init__(self, round_: Round) -> None:
        self._round, self._chance = round_, round_.chance
        self._depth = 0
        self._on = True
        frequent = (round_.submit, round_.cancel, round_.resize, round_.read, round_.wait_shortly)
        rare = (round_.wait_for_all_shortly, round_.list_running, round_.stop, round_.collect, round_.use_another)
        self._actions = (*frequent * 6, *rare)
        waits = (round_.wait_for_result, round_.wait_for_all, round_.wait_for_first, round_.wait_for_each)
        others = (round_.map, round_.cancel, round_.resize, round_.read, round_.stop)
        self.operations: tuple[Callable[[], object], ...] = (*(round_.submit,) * 5, *waits, *others)

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        if not self._on or self._depth >= _MOST_NESTED:
            return
        self._depth += 1
        try:
            self._arm()
            closes = self._chance.random() < _CLOSING_RATIO
            (self._round.close if closes else self._chance.choice(self._actions))()
        except Exception as error:  # noqa: BLE001 -- reported as a fault
            self._round.faults.append(f"a handler raised {error!r}")
        finally:
            self._depth -= 1
            self._arm()

    def _arm(self) -> None:
        if self._on:
            _send_later(self._chance)

    def run(self, operation: Callable[[], object]) -> None:
        self._arm()
        operation()

    def end(self) -> None:
        self._on = False
        signal.setitimer(signal.ITIMER_REAL, 0)


class Interrupts:
    """A storm whose signal handler raises an error once in most operations of the main thread.

    It may end a callback, lose a descriptor that is being opened, and a thread that the library is starting.
    """

    error: type[BaseException] = KeyboardInterrupt
    keeps_callbacks = leaves_nothing = False

    def __init__(self, round_: Round) -> None:
        self._chance = round_.chance
        self._armed = False
        # Not wait() and as_completed(): an interrupt in the library's own code leaves their futures locked.
        waits = (round_.wait_for_result, round_.wait_shortly, round_.map)
        others = (round_.cancel, round_.cancel, round_.resize, round_.read, round_.stop)
        self.operations: tuple[Callable[[], object], ...] = (*(round_.submit,) * 5, *waits, *others)

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise self.error

    def run(self, operation: Callable[[], object]) -> None:
        try:
            try:
                self._armed = True
                _send_later(self._chance)
                operation()
            finally:
                self._armed = False
        except self.error:
            pass
        except RuntimeError as error:  # an interrupt in the library's `Condition.wait`, as it releases its lock
            if "un-acquired lock" not in str(error) and "unlocked lock" not in str(error):
                raise

    def end(self) -> None:
        self._armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)


class Timeouts(Interrupts):
    error = PlannedTimeout


def _send_later(chance: random.Random) -> None:
    signal.setitimer(signal.ITIMER_REAL, max(1e-6, chance.expovariate(1 / _MEAN_DELAY_SECONDS)))


Storm = Handlers | Interrupts
STORMS: dict[str, type[Storm]] = {"handlers": Handlers, "interrupts": Interrupts, "timeouts": Timeouts}


class Watch:
    """Ends this process if a round takes too long, and prints the stacks of all threads and the futures."""

    def __init__(self) -> None:
        self.round: Round | None = None
        self._name = ""
        self._began = time.monotonic()
        threading.Thread(target=self._run, daemon=True).start()

    def begin(self, name: str) -> None:
        self._name, self._began = name, time.monotonic()

    def _run(self) -> None:
        while (left := self._began + HANG_SECONDS - time.monotonic()) > 0:
            time.sleep(left)
        print(f"{self._name} hangs", file=sys.stderr)
        faulthandler.dump_traceback(all_threads=True)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)  # the pool may be locked
        if self.round is not None:
            for number, future in tuple(self.round.futures.items()):
                if not future.done() or future._state == "CANCELLED" or future._waiters:
                    print(number, vars(future), file=sys.stderr)
            print(self.round.pool, file=sys.stderr)
        os._exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", nargs="?", type=float, default=SECONDS)
    parser.add_argument("seed", nargs="?", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=[*POOLS])
    parser.add_argument("--storms", nargs="+", choices=STORMS, default=[*STORMS])
    options = parser.parse_args()
    print(f"signals to pools, {options.seconds:.0f} s, seed {options.seed}", flush=True)
    sys.unraisablehook = _report_unraisable
    logging.disable()  # interrupts of callbacks
    for make in POOLS.values():  # imports: an interrupt of one may leave the library's import lock locked
        with contextlib.suppress(InitializerFailed), make() as pool:
            pool.submit(run_task, os.devnull, 1, Argument()).result()
            pool.submit(run_task, os.devnull, 11, Argument()).exception()
    watch, switch_seconds = Watch(), sys.getswitchinterval()
    kinds = [*itertools.product(options.pools, options.storms)]
    end, rounds, tasks = time.monotonic() + options.seconds, 0, 0
    while time.monotonic() < end:
        pool_name, storm_name = kinds[rounds % len(kinds)]
        rounds += 1
        name = f"round {rounds}, {pool_name}, {storm_name}"
        watch.begin(name)
        chance = random.Random(f"{options.seed}-{rounds}")
        sys.setswitchinterval(chance.choice((_SHORT_SWITCH_SECONDS, switch_seconds)))
        submitted, faults = run_round(POOLS[pool_name], STORMS[storm_name], chance, watch)
        tasks += submitted
        if faults:
            print(f"{name}:", *faults[:20], sep="\n  ")
            sys.exit(1)
    print(f"{rounds} rounds, {tasks} tasks: nothing lost, nothing left behind")


def _report_unraisable(raised: sys.UnraisableHookArgs) -> None:
    """Report an exception that was lost, unless a handler raised it, or it ended a thread that was just starting."""
    if not issubclass(raised.exc_type, (KeyboardInterrupt, PlannedTimeout, KeyError)):
        sys.__unraisablehook__(raised)


def run_round(
    make: Callable[[], Pool], storm_type: type[Storm], chance: random.Random, watch: Watch
) -> tuple[int, list[str]]:
    """Use a pool during a storm; return how many tasks it got, and the faults."""
    before = _count_holdings()
    with tempfile.NamedTemporaryFile(prefix="paropt-soak-") as file:
        round_ = watch.round = Round(make(), file.name, chance)
        storm = storm_type(round_)
        signal.signal(signal.SIGALRM, storm.handle)
        threading.excepthook = partial(_add_thread_error, round_.faults)
        stop = threading.Event()
        second = threading.Thread(target=_use_beside, args=(round_, stop, random.Random(chance.random())), daemon=True)
        second.start()
        end = time.monotonic() + _ROUND_SECONDS
        while time.monotonic() < end:
            storm.run(chance.choice(storm.operations))
        stop.set()
        second.join()
        if chance.random() < 0.5:  # otherwise without signals
            storm.run(round_.pool.shutdown)
        storm.end()
        round_.pool.shutdown()
        faults = [*round_.check(storm_type)]
        submitted = len(round_.futures)
    watch.round = None
    threading.excepthook = threading.__excepthook__
    del round_, storm
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    return submitted, [*faults, *_list_leftovers(before, descriptors=storm_type.leaves_nothing)]


def _add_thread_error(faults: list[str], error: threading.ExceptHookArgs) -> None:
    faults.append(f"{error.thread and error.thread.name} ended with {error.exc_value!r}")


def _use_beside(round_: Round, stop: threading.Event, chance: random.Random) -> None:
    # Not wait() and as_completed(), which lock several futures: if the main thread does so too, and a handler uses
    # another one meanwhile, the two wait for each other.
    others = (round_.cancel, round_.resize, round_.wait_for_result, round_.map)
    operations: tuple[Callable[[], object], ...] = (*(round_.submit,) * 3, *others)
    while not stop.is_set():
        try:
            chance.choice(operations)()
        except Exception as error:  # noqa: BLE001 -- reported as a fault
            round_.faults.append(f"the second thread got {error!r}")


def _count_holdings() -> tuple[int, int]:
    """Return the number of threads that have started, and of descriptors."""
    running = sys._current_frames()  # an interrupted start may leave a thread that is none, or that never begins
    started = [thread for thread in threading.enumerate() if thread._started.is_set()]  # type: ignore[attr-defined]
    return sum(thread.ident in running for thread in started), psutil.Process().num_fds()


def _list_leftovers(before: tuple[int, int], *, descriptors: bool) -> list[str]:
    """Compare threads and descriptors with those before. Threads of dropped pools get some time to exit."""
    gc.collect()
    end = time.monotonic() + HANG_SECONDS / 2
    while (after := _count_holdings())[0] > before[0] and time.monotonic() < end:
        time.sleep(0.01)
    faults = []
    if after[0] > before[0]:
        faulthandler.dump_traceback(all_threads=True)
        faults.append(f"threads grew from {before[0]} to {after[0]}")
    if descriptors and after[1] > before[1] + _MOST_NEW_DESCRIPTORS:
        faults.append(f"descriptors grew from {before[1]} to {after[1]}")
    return faults


if __name__ == "__main__":
    main()
