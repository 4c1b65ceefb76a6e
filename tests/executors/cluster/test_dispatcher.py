"""The work items of a cluster without a cluster: random histories of submits, replies, losses, stops and resizes."""

from __future__ import annotations

import itertools
import pickle
import random
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from paropt_exporter.errors import TaskStopped, WorkerDied
from paropt_exporter.executors.base import RemoteTaskOptions
from paropt_exporter.executors.cluster import membership
from paropt_exporter.executors.cluster.dispatcher import Dispatcher
from paropt_exporter.executors.cluster.membership import Membership
from paropt_exporter.executors.cluster.messages import (
    Batch,
    RemoteFunction,
    RemoteMeasurement,
    RemoteTask,
    StopOrder,
    TaskReply,
    WorkerUsage,
)
from paropt_exporter.executors.cluster.settings import ClusterSettings
from paropt_exporter.executors.cluster.work_items import WorkItem
from paropt_exporter.executors.cluster.workers import RemoteWorker
from paropt_exporter.executors.future import TaskFuture
from support.cluster_workers import build_worker

HISTORIES = 500
CUT_OFF_SECONDS = 1000.0  # of silence


class FakeSession:
    """A session whose event loop a test turns by hand. Dask tasks never run: the worker's slots are always served."""

    def __init__(self) -> None:
        self.settings = ClusterSettings(root=Path("/"), scheduler="tcp://127.0.0.1:1", shared_root="/")
        self.id = "session"
        self.closing = False
        self.is_connected = True
        self.loop = self
        self.calls: deque[Callable[[], object]] = deque()  # due now, or for timers later
        self.draw_number = partial(next, itertools.count())

    def call_soon(self, function: Callable[..., object], *arguments: object) -> None:
        self.calls.append(partial(function, *arguments))

    def call_later(self, _seconds: float, function: Callable[..., object], *arguments: object) -> None:
        self.calls.append(partial(function, *arguments))

    def spawn(self, coroutine: Any) -> None:
        coroutine.close()

    def turn(self) -> None:
        if self.calls:
            self.calls.popleft()()


class FakeLink:
    """The stream and the lease of a worker."""

    def __init__(self) -> None:
        self.sent: deque[Any] = deque()
        self.is_closed = False

    def send(self, *messages: Any) -> None:
        self.sent += messages

    def close(self) -> None:
        self.is_closed = True

    def release(self) -> None:
        """Do nothing."""


class FakeCluster:
    """A dispatcher with workers that a test makes, kills and lets answer."""

    def __init__(self) -> None:
        self.session = FakeSession()
        session: Any = self.session
        self.members = Membership(session)
        self.dispatcher = Dispatcher(session, self.members)
        self.members.listener = self.dispatcher
        self.settled = 0
        self.dispatcher.on_settled = self._count
        self.items: list[WorkItem] = []
        self.sent: Counter[int] = Counter()  # how often each attempt was sent
        self._links: dict[str, tuple[RemoteWorker, FakeLink]] = {}
        self._holds: dict[str, list[int]] = {}  # the attempts that each worker has to answer
        self._stopped: set[int] = set()

    def _count(self, _measured: object, _kind: str) -> None:
        self.settled += 1

    def submit(self, group: str) -> None:
        attempt = len(self.items)
        task = RemoteTask(attempt, f"{group}[{attempt}]", RemoteFunction(b"", ()))
        future: TaskFuture[Any] = TaskFuture()
        future.add_done_callback(lambda _: None)  # as the pool does
        self.items.append(WorkItem(future, task, group, RemoteTaskOptions()))
        self.dispatcher.submit(self.items[-1])

    def add_worker(self, threads: int) -> None:
        worker, link = build_worker(f"w{len(self._links)}", threads=threads), FakeLink()
        fake: Any = link
        worker.stream = worker.lease = fake
        worker.heard_seconds = float("inf")  # never silent, unless a test says so
        self._links[worker.address], self._holds[worker.address] = (worker, link), []
        self.members.workers[worker.address] = worker
        self.dispatcher.handle_change()

    def lose_worker(self, worker: RemoteWorker, *, is_cut_off: bool) -> None:
        if is_cut_off:
            worker.heard_seconds = -CUT_OFF_SECONDS
        self.members.lose(worker)

    def receive(self) -> None:
        """Let all workers read their messages."""
        for address, (_, link) in self._links.items():
            while link.sent:
                message = link.sent.popleft()
                if isinstance(message, Batch):
                    self.sent.update(task.attempt for task in message.tasks)
                    self._holds[address] += [task.attempt for task in message.tasks]
                elif isinstance(message, StopOrder):
                    self._stopped.add(message.attempt)

    def answer(self, seconds: float) -> bool:
        """Let a worker reply to its first task; return whether there was one."""
        self.receive()
        for address, (worker, link) in self._links.items():
            if self._holds[address] and not link.is_closed:
                attempt = self._holds[address].pop(0)
                error = TaskStopped("stopped") if attempt in self._stopped else None
                measurement = RemoteMeasurement(duration_seconds=seconds)
                reply = TaskReply(attempt=attempt, value=attempt, error=error, measurement=measurement)
                heard_seconds = worker.heard_seconds
                self.dispatcher.take_answers(worker, [(attempt, pickle.dumps(reply))])
                worker.heard_seconds = heard_seconds
                return True
        return False

    def settle_down(self) -> None:
        while self.session.calls or self.answer(0.0):
            self.session.turn()

    def check(self) -> None:
        cancelled = 0
        for item in self.items:
            future, attempt = item.future, item.task.attempt
            assert future.done(), f"{attempt} has not settled"
            assert self.sent[attempt] <= 1, f"{attempt} was sent {self.sent[attempt]} times"
            cancelled += future.cancelled()
            if not future.cancelled() and future.exception(0) is None:
                assert future.result(0) == attempt
                assert self.sent[attempt] == 1
        assert self.settled == len(self.items) - cancelled
        assert not self.dispatcher.queued
        for worker in () if self.session.closing else self.members.workers.values():
            assert (worker.items, worker.unanswered, worker.batches, worker.taken_slots) == ({}, {}, 0, 0)


def test_item_is_sent_to_the_worker_with_free_slots_and_settles_by_its_reply() -> None:
    cluster = FakeCluster()
    cluster.add_worker(1)
    cluster.submit("a")
    cluster.settle_down()
    cluster.check()
    assert cluster.items[0].future.result(0) == 0


def test_items_of_a_worker_that_may_be_cut_off_fail_after_the_grace() -> None:
    cluster = FakeCluster()
    cluster.add_worker(1)
    cluster.submit("a")
    cluster.session.turn()
    (worker,) = cluster.members.workers.values()
    cluster.lose_worker(worker, is_cut_off=True)
    assert not cluster.items[0].future.done()
    cluster.settle_down()
    cluster.check()


def test_item_of_a_worker_that_answers_no_request_fails() -> None:
    cluster = FakeCluster()
    cluster.add_worker(1)
    cluster.submit("a")
    cluster.session.turn()
    (worker,) = cluster.members.workers.values()
    for _ in range(2):
        for _ in range(membership._MOST_OPEN_REQUESTS):
            cluster.members.poll(idle=False)
        assert cluster.members.is_present(worker)
        usage = WorkerUsage(memory_available_bytes=1)
        cluster.dispatcher.take_answers(worker, [usage])  # it was only slow
    for _ in range(membership._MOST_OPEN_REQUESTS + 1):
        cluster.members.poll(idle=False)
    assert isinstance(cluster.items[0].future.exception(0), WorkerDied)
    cluster.settle_down()
    cluster.check()


def test_random_histories_settle_each_item_once() -> None:
    for seed in range(HISTORIES):
        try:
            _play(random.Random(seed))
        except AssertionError as error:
            raise AssertionError(f"history {seed}: {error}") from error


def _play(choice: random.Random) -> None:
    cluster = FakeCluster()
    cluster.dispatcher.target = choice.randint(1, 4)
    for _ in range(choice.randint(5, 40)):
        _do_something(cluster, choice)
    if choice.random() < 0.2:
        cluster.session.closing = True
        cluster.dispatcher.end()
        cluster.submit("late")
    else:
        cluster.add_worker(2)
    cluster.settle_down()
    cluster.check()


def _do_something(cluster: FakeCluster, choice: random.Random) -> None:
    drawn, workers, items = choice.random(), tuple(cluster.members.workers.values()), cluster.items
    if drawn < 0.3:
        for _ in range(choice.choice((1, 1, 5, 30))):
            cluster.submit(choice.choice("ab"))
    elif drawn < 0.5:
        cluster.session.turn()
    elif drawn < 0.7:
        cluster.answer(choice.choice((1e-4, 0.01, 5.0)))
    elif drawn < 0.8:
        cluster.add_worker(choice.randint(1, 3))
    elif drawn < 0.85 and workers:
        cluster.lose_worker(choice.choice(workers), is_cut_off=choice.random() < 0.5)
    elif drawn < 0.88:
        cluster.dispatcher.target = choice.randint(1, 8)
        cluster.dispatcher.handle_change()
    elif drawn < 0.92 and items:
        choice.choice(items).future.cancel()
    elif drawn < 0.96 and items:
        cluster.dispatcher.stop(choice.choice(items), 1.0)
    elif items:
        cluster.dispatcher.give_up(choice.choice(items))
