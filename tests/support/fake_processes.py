"""Worker processes and threads without a kernel, for tests of the process pool's scheduler.

A thread is a generator that yields wherever the real one holds no lock, so that a test chooses the events in between. A
process makes one step at a time: it claims a task, ends it, replies, or exits.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from paropt_exporter.errors import InitializerFailed, TaskStopped, WorkerDied
from paropt_exporter.executors.counters import PoolCounters
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.processes.batches import WorkItem
from paropt_exporter.executors.processes.scheduler import (
    Action,
    Cancel,
    Dismiss,
    Fail,
    Kill,
    Scheduler,
    Send,
    Wake,
)
from paropt_exporter.executors.processes.workers import Worker, WorkerProcess, WorkerState

# Functions whose tasks are known to take a tenth of a microsecond, two milliseconds, and half a second.
BRIEF, MEDIUM, LONG = b"brief", b"medium", b"long"

PREFETCH_TASKS = 256  # queued tasks at which a submit gives one busy worker a second batch
_WATCHED = 4  # each fourth future has a callback, which counts; the others settle without a lock, as most of them do

Thread = Iterator[bool]  # True: it waits for something


@dataclass(eq=False)
class FakeProcess:
    """A worker process and its connection: `batches` that it has received, `claims` that are offered to it.

    `results` are those that it has written and the pool has not read; `replies` wake the worker's thread.
    """

    pid: int
    claims: int = 0
    outbox: list[Send] = field(default_factory=list)  # a batch of which the pool has sent only a part
    batches: deque[Send] = field(default_factory=deque)
    results: list[int] = field(default_factory=list)
    unloaded: set[int] = field(default_factory=set)  # tasks that it could not load
    replies: deque[str] = field(default_factory=deque)
    done: int = 0  # tasks of the first batch that it has ended
    running: WorkItem | None = None
    is_ready: bool = False
    dismissed: bool = False
    code: int | None = None  # how it ended
    ended: bool = False

    def offer(self, count: int, sending: dict[int, list[WorkItem] | None], sender: int) -> None:
        self.claims += count
        sending[sender] = None

    def withdraw_claims(self) -> int:
        claims, self.claims = self.claims, 0
        return claims

    def flush(self) -> None:
        if not self.ended and not self.dismissed:
            self.batches += self.outbox
        self.outbox.clear()

    def end(self, code: int) -> None:
        if not self.ended:
            self.ended, self.code, self.running = True, code, None


class FakePool:
    """A pool on fake processes, whose state a test reads from `scheduler`.

    `begun` counts how often each task was begun in a process, `begun_by` how many each process has begun, by its id;
    `settled` how often a watched future settled.
    """

    def __init__(
        self, size: int = 1, *, most_tasks_per_worker: int | None = None, prefetch_tasks: int = PREFETCH_TASKS
    ) -> None:
        self.now = 0.0
        self.most_tasks_per_worker = most_tasks_per_worker
        self.scheduler = Scheduler(PoolCounters("fake"), most_tasks_per_worker, prefetch_tasks=prefetch_tasks)
        self.scheduler.durations.learn(BRIEF, "", 1e-7, 1)
        self.scheduler.durations.learn(MEDIUM, "", 2e-3, 1)
        self.scheduler.durations.learn(LONG, "", 0.5, 1)
        self.threads: list[Thread] = []
        self.processes: dict[Worker, FakeProcess] = {}
        self.woken: set[Worker] = set()
        self.items: list[WorkItem] = []
        self.begun: Counter[int] = Counter()
        self.begun_by: Counter[int] = Counter()
        self.claimed: set[int] = set()  # also those that could not be loaded
        self.settled: Counter[int] = Counter()
        self.watched: set[int] = set()
        self.started = 0  # processes
        self.start_failures = 0  # so many starts fail from now on
        self.is_partial: Callable[[], bool] = lambda: False  # whether a part of the next batch finds no room
        self.is_unloadable: Callable[[], bool] = lambda: False  # whether the next task must be packed again
        self._senders = itertools.count(1)
        self.run(self.resize(size))

    # Threads of the user

    def submit(self, function: bytes = BRIEF, *, interrupted: str = "") -> Thread:
        """Submit a task. It may be `interrupted` "early", before the claims are offered, or "late", after that."""
        scheduler, sender = self.scheduler, next(self._senders)
        if scheduler.closed:
            return
        item = self.make_item(function)
        scheduler.queue.append(item)
        yield False
        if scheduler.needs_dispatch:
            actions = scheduler.dispatch(self.now, sender)
            if scheduler.closed and scheduler.withdraw(item):
                self.items.remove(item)
        elif len(scheduler.queue) >= scheduler.prefetch_length:
            actions = scheduler.prefetch(self.now, sender)
        else:
            return
        if interrupted != "early":
            self._begin(actions)
        if interrupted:
            yield False
            self._begin(scheduler.recover(sender))
            return
        yield from self._finish(actions)

    def resize(self, size: int) -> Thread:
        self._begin(self.scheduler.resize(size, "caller"))
        yield False
        while (worker := self.scheduler.add_worker()) is not None:
            self.threads.append(self._run_worker(worker, next(self._senders)))
            yield False

    def stop(self, item: WorkItem) -> Thread:
        scheduler, error = self.scheduler, TaskStopped("stop")
        process = scheduler.find_process(item.future)
        if process is not None:
            scheduler.requeue_unclaimed(process, process.connection.withdraw_claims())
        stopped, actions = scheduler.stop(item.future, error, 1.0)
        yield False
        yield from self._finish(actions)
        if stopped is None:
            item.future.force_exception(error)
        yield from self._dispatch(next(self._senders))

    def interrupt_withdrawal(self, process: WorkerProcess) -> None:
        """Withdraw the claims of a process, and let an interrupt come before their tasks are queued again."""
        process.connection.withdraw_claims()
        self._begin(self.scheduler.note_unsure(process))

    def close(self, *, cancel_futures: bool = False) -> Thread:
        if cancel_futures:
            for process in self.scheduler.list_holders():
                self.scheduler.requeue_unclaimed(process, process.connection.withdraw_claims())
        actions = self._begin(self.scheduler.close(RuntimeError("closed"), cancel_queued=cancel_futures))
        yield False
        yield from self._finish(actions)

    def end_workers(self) -> Thread:
        yield from self.close(cancel_futures=True)
        actions = self._begin(self.scheduler.end())
        for process in list(self.processes.values()):
            process.end(-9)
        yield False
        yield from self._finish(actions)

    # The threads of workers

    def _run_worker(self, worker: Worker, sender: int) -> Thread:
        scheduler = self.scheduler
        worker.thread = sender
        while not worker.leaving:
            yield False
            if worker.state is WorkerState.DRAINING:
                break
            if self.start_failures:
                self.start_failures -= 1
                if scheduler.note_failed_start(worker):
                    yield from self._give_up()
                continue
            self.started += 1
            fake = self.processes[worker] = FakeProcess(pid=self.started)
            process = scheduler.add_process(worker, fake)  # type: ignore[arg-type]  # stands for a connection
            fake.dismissed = process.dismissed
            yield from self._converse(process, fake, sender)
        scheduler.remove_worker(worker)
        self.processes.pop(worker, None)

    def _converse(self, process: WorkerProcess, fake: FakeProcess, sender: int) -> Thread:
        scheduler, worker, tasks = self.scheduler, process.worker, process.tasks
        while True:
            delay = tasks.get_slow_delay(self.now)
            due_seconds = math.inf if delay is None else self.now + delay
            while not (fake.replies or fake.ended or worker in self.woken or self.now >= due_seconds):
                yield True
            woken, ended = worker in self.woken, fake.ended  # as `poll` finds it
            yield False
            if fake.replies:
                yield from self._handle(process, fake, sender, fake.replies.popleft(), exited=False)
            if woken:
                self.woken.discard(worker)
                yield from self._finish(self._begin(scheduler.restore_idle(process, self.now, sender)))
            if process.blocked:
                fake.flush()
                scheduler.note_flushed(process)
            if ended and not fake.replies:
                yield from self._handle_exit(process, fake, sender)
                return
            if tasks.get_slow_delay(self.now) == 0.0 and (scheduler.idle or not tasks.wait_longer(self.now)):
                results = self._read(fake)
                tasks.end_tasks(results)
                scheduler.requeue_unclaimed(process, fake.withdraw_claims())
                yield False
                yield from self._dispatch(sender)
                yield from self._settle(process, results, sender)

    def _handle(self, process: WorkerProcess, fake: FakeProcess, sender: int, reply: str, *, exited: bool) -> Thread:
        scheduler = self.scheduler
        if reply == "ready":
            scheduler.note_ready(process, fake.pid, self.now)
        elif reply == "done":
            results = self._read(fake)
            scheduler.note_batch_ended(process, results, self.now)
            yield False
            settles_first = exited or not fake.unloaded.isdisjoint(results)
            if not settles_first:
                yield from self._finish(self._give_next_batch(process, sender))
            yield from self._settle(process, results, sender)
            if not settles_first:
                return
        else:
            finished = scheduler.note_task_ended(process, int(reply), self.now)
            yield False
            yield from self._settle(process, [int(reply)], sender)
            if not finished:
                return
        if not exited:
            yield from self._finish(self._give_next_batch(process, sender))

    def _give_next_batch(self, process: WorkerProcess, sender: int) -> Sequence[Action]:
        overloaded = self.scheduler.find_overloaded(process, self.now)
        if overloaded is not None:
            self.scheduler.requeue_unclaimed(overloaded, _fake_of(overloaded).withdraw_claims())
        return self._begin(self.scheduler.give_next_batch(process, self.now, sender))

    def _handle_exit(self, process: WorkerProcess, fake: FakeProcess, sender: int) -> Thread:
        results = self._read(fake)
        process.tasks.end_tasks(results)
        yield False
        yield from self._settle(process, results, sender)
        while fake.replies:
            yield from self._handle(process, fake, sender, fake.replies.popleft(), exited=True)
        ended = self.scheduler.note_exited(
            process, fake.code, unclaimed=fake.withdraw_claims(), forked=True, now=self.now
        )
        yield False
        for item in ended.lost:
            item.future.settle_exception(WorkerDied(item.future.label, fake.code))
        if ended.gives_up:
            yield from self._give_up()
        yield from self._dispatch(sender)

    def _give_up(self) -> Thread:
        actions = self._begin(self.scheduler.give_up(InitializerFailed("hopeless")))
        yield False
        yield from self._finish(actions)

    def _dispatch(self, sender: int) -> Thread:
        actions = self._begin(self.scheduler.dispatch(self.now, sender))
        yield False
        yield from self._finish(actions)

    # Actions

    def _begin(self, actions: Sequence[Action]) -> Sequence[Action]:
        for action in actions:
            if isinstance(action, Send):
                assert not action.process.worker.leaving, "a worker got tasks after it was to leave"
                assert not _fake_of(action.process).dismissed, "a process got tasks after it was dismissed"
                action.process.connection.offer(len(action.items), action.process.sending, action.sender)
            elif isinstance(action, Dismiss):
                _fake_of(action.process).dismissed = True
                self.woken.add(action.process.worker)
            elif isinstance(action, Wake):
                self.woken.add(action.worker)
        return actions

    def _finish(self, actions: Sequence[Action]) -> Thread:
        for action in actions:
            yield False
            if isinstance(action, Send):
                process = _fake_of(action.process)
                process.outbox.append(action)
                whole = not self.is_partial()
                if whole:
                    process.flush()
                yield False
                if not whole:
                    self.scheduler.note_blocked(action.process)
                    self.woken.add(action.process.worker)
                    yield False
                if self.scheduler.note_sent(action):
                    yield False
                    more = self.scheduler.give_more(action.process, self.now, action.sender)
                    yield from self._finish(self._begin(more))
            elif isinstance(action, Kill):
                process = _fake_of(action.process)
                if not process.ended:
                    hit = process.running is not None and process.running.future
                    assert hit in (False, action.process.stopping), "the kill hit another task"
                    process.end(-15)
            elif isinstance(action, Cancel):
                if action.item.future.cancel():
                    action.item.future.notify_cancelled()
                elif not action.item.future.done():
                    continue
                yield False
                if self.scheduler.withdraw(action.item):
                    self.scheduler.count_unbegun(failed=False)
            elif isinstance(action, Fail):
                self.scheduler.count_unbegun(failed=action.item.future.force_exception(action.error))
        for item in self.scheduler.dropped.copy():
            item.future.notify_cancelled()
            yield False
            self.scheduler.note_notified([item])

    # Processes

    def step(self, process: FakeProcess) -> bool:
        """Let a process do its next thing; return whether there was one."""
        if process.ended:
            return False
        if not process.is_ready:
            process.is_ready = True
            process.replies.append("ready")
        elif process.running is not None:
            number = process.batches[0].first_number + process.done
            process.running = None
            process.done += 1
            if process.batches[0].single:
                process.batches.popleft()
                process.done = 0
                process.replies.append(str(number))
            elif number % 5 == 3:  # as if the pipe were full
                process.replies.append(str(number))
            else:
                process.results.append(number)
        elif process.batches:
            batch = process.batches[0]
            if process.done < len(batch.items) and process.claims:
                process.claims -= 1
                process.running = batch.items[process.done]
                self.claimed.add(id(process.running.future))
                if not process.running.repacked and self.is_unloadable():
                    process.unloaded.add(batch.first_number + process.done)
                else:
                    self.begun[id(process.running.future)] += 1
                    self.begun_by[process.pid] += 1
            else:
                process.batches.popleft()
                process.done = 0
                process.replies.append("done")
        elif process.dismissed:
            process.end(0)
        else:
            return False
        return True

    # Running everything

    def run(self, thread: Thread) -> None:
        """Run a thread of the user to its end, nothing else meanwhile."""
        for _ in thread:
            pass

    def advance(self, thread: Thread) -> bool:
        """Run a thread to its next point without a lock; return whether it goes on from there without waiting."""
        waits = next(thread, None)
        if waits is None:
            self.threads.remove(thread)
        return waits is False

    def settle_down(self, *, except_for: Sequence[FakeProcess] = ()) -> None:
        """Run everything until nothing changes any more; some processes may stand still."""
        moved = True
        while moved:
            moved = False
            for thread in tuple(self.threads):
                while self.advance(thread):
                    moved = True
                moved |= thread not in self.threads
            for process in tuple(self.processes.values()):
                while process not in except_for and self.step(process):
                    moved = True

    def step_into(self, process: FakeProcess, task: int) -> WorkItem:
        """Let a process run until it is in the middle of the `task`-th one of a batch, and return that."""
        while process.done < task or process.running is None:
            assert self.step(process)
        return process.running

    def process_of(self, number: int = 0) -> FakeProcess:
        return self.processes[self.scheduler.workers[number]]

    def check(self) -> None:
        """Assert, at rest, that nothing was lost, run twice or left undone, and that no process ran too many tasks."""
        scheduler, most_tasks = self.scheduler, self.most_tasks_per_worker
        assert most_tasks is None or max(self.begun_by.values(), default=0) <= most_tasks
        assert not scheduler.queue, scheduler
        for item in self.items:
            future = item.future
            assert future.done(), (scheduler, future)
            begun = self.begun[id(future)]
            assert begun == 0 if future.cancelled() else begun <= 1, f"begun {begun} times: {future}"
            error = None if future.cancelled() else future.exception(0)
            assert future.cancelled() or error or begun == 1, future
            lost = isinstance(error, WorkerDied)
            assert not lost or id(future) in self.claimed, f"lost before it was claimed: {future}"
            assert self.settled[id(future)] == (id(future) in self.watched), future
        if scheduler.closed:
            assert not scheduler.workers, scheduler
        else:
            assert [worker.state.value for worker in scheduler.workers] == ["idle"] * scheduler.target, scheduler
            assert len(scheduler.idle) == scheduler.target

    def make_item(self, function: bytes) -> WorkItem:
        future: TaskFuture[Any] = TaskFuture()
        item = WorkItem(future, (function, ()), False, self.now)
        if len(self.items) % _WATCHED == 0:
            self.watched.add(id(future))
            future.add_done_callback(lambda done: self.settled.update([id(done)]))
        self.items.append(item)
        return item

    def _read(self, process: FakeProcess) -> list[int]:
        results, process.results = process.results, []
        return results

    def _settle(self, process: WorkerProcess, numbers: list[int], sender: int) -> Thread:
        for number in numbers:
            item = process.tasks.settling.pop(number)
            if number in _fake_of(process).unloaded:
                self.scheduler.requeue(item._replace(repacked=True))
                yield False
                yield from self._dispatch(sender)
            else:
                item.future.settle_result(number)


def _fake_of(process: WorkerProcess) -> FakeProcess:
    fake: Any = process.connection
    assert isinstance(fake, FakeProcess)
    return fake
