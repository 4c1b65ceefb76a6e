"""Send work items to the workers of a cluster, and settle them by their replies or with the loss of their worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError as FutureCancelled
from time import monotonic

from msgspec.structs import replace

from paropt_exporter.errors import TaskStopped, WorkerDied, describe, to_one_line
from paropt_exporter.events import RunningTask
from paropt_exporter.executors.cluster import agent, dask_client, file_sync, placement, work_items
from paropt_exporter.executors.cluster.membership import Membership
from paropt_exporter.executors.cluster.messages import (
    Answer,
    Batch,
    RemoteMeasurement,
    RemoteTask,
    StopOrder,
    TaskReply,
    WorkerUsage,
    find_fault,
    is_sound_usage,
)
from paropt_exporter.executors.cluster.session import ClusterSession
from paropt_exporter.executors.cluster.settings import ClusterError
from paropt_exporter.executors.cluster.work_items import WorkItem, build_running_task
from paropt_exporter.executors.cluster.workers import RemoteWorker

log = logging.getLogger(__name__)

_SILENT_SECONDS = 5.0  # a worker that was lost after such a silence may be cut off rather than dead
_KEPT_MEAN = 0.8  # of the mean duration of a group, at each new duration


class Dispatcher:
    """The work items of one cluster, from their submission until they settle.

    ```
    submit ──> queue ──a worker has a slot──> sent, pinned to that worker ──reply──> settled
                                                └── the worker is lost ──(grace, if cut off)──> failed: WorkerDied
    ```
    Guarantees: an item is sent once; a worker that was lost can't settle its items; only the event loop touches the
    workers and the queue. Other threads append to `_incoming`, which the loop empties.
    """

    def __init__(self, session: ClusterSession, members: Membership) -> None:
        self.target = 1
        self.broken = ""  # why no item can run; or ""
        self.deaths: Counter[str] = Counter()
        self.on_settled: Callable[[RemoteMeasurement | None, str], None] = lambda *_: None
        self.on_adjusted: Callable[[], None] = lambda: None  # called when workers or their slots may have changed
        self._session = session
        self._members = members
        self._queue: deque[WorkItem] = deque()
        self._incoming: deque[WorkItem] = deque()
        self._waking = False  # whether the loop is to empty `_incoming`
        self._cut_off: dict[WorkItem, str] = {}  # items of lost workers that may still run them; reasons
        self._means: dict[str, float] = {}  # group -> seconds
        self._without_workers_since: float | None = None
        self._serve_slot = dask_client.Source(_serve_slot)

    # From any thread

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
        if self._session.closing:
            self._cancel(self._incoming)
        elif not self._waking:
            self._waking = True
            self._session.call_soon(self._take_incoming)

    def stop(self, item: WorkItem, grace_seconds: float) -> None:
        """Stop an item that was sent. Its reply settles it."""
        self._session.call_soon(self._stop, item, grace_seconds)

    def give_up(self, item: WorkItem) -> None:
        """Settle an item whose worker does not answer."""
        error = WorkerDied(f"{item.task.label}: its worker did not answer the order to stop")
        self._session.call_soon(self._fail, item, error)

    def running(self) -> tuple[RunningTask, ...]:
        return tuple(
            build_running_task(item, worker)
            for worker in tuple(self._members.workers.values())
            for item in tuple(worker.items.values())
        )

    def _cancel(self, items: deque[WorkItem]) -> None:
        """Cancel items that were not sent, as the pool is closed."""
        with contextlib.suppress(IndexError):  # another thread may have taken the last one
            while items:
                item = items.popleft()
                if item.future.cancel():
                    item.future.notify_cancelled()
                else:
                    self._fail(item, TaskStopped(f"{item.task.label} was stopped"))

    # Everything else runs in the event loop.

    def handle_change(self) -> None:
        """Ask for as many workers as the target needs, and send items to those that are there."""
        if not self._session.closing:
            self._members.resize(self.target)
            self._dispatch()
            self.on_adjusted()

    # Sending

    def _take_incoming(self) -> None:
        self._waking = False
        while self._incoming and not self._session.closing:  # a closed pool has no queue
            self._queue.append(self._incoming.popleft())
        self._dispatch()

    def _dispatch(self) -> None:
        """Send queued items to workers with free slots, as far as the target allows."""
        while self._queue:
            item = self._queue[0]
            if item.future.done():
                self._queue.popleft()
                item.future.notify_cancelled()
                continue
            if self.broken:
                self._queue.popleft()
                self._fail(item, ClusterError(self.broken))
                continue
            worker = self._choose_worker(item) if self._session.is_connected else None
            if worker is None:
                return
            self._send(worker, self._take_batch(item))

    def _choose_worker(self, item: WorkItem) -> RemoteWorker | None:
        workers = self._members.workers.values()
        mean = self._means.get(item.group)
        ahead = 1 if mean is not None and mean < placement.AHEAD_SECONDS and len(self._queue) > self.target else 0
        if sum(worker.taken_slots for worker in workers) >= self.target * (1 + ahead):
            return None
        return placement.choose_worker(
            workers,
            slots=item.options.slots,
            memory_bytes=item.options.memory_bytes,
            batches_ahead=ahead,
        )

    def _take_batch(self, first: WorkItem) -> list[WorkItem]:
        size = placement.choose_batch_size(
            self._means.get(first.group), queued=len(self._queue), slots=min(self.target, max(1, self._members.slots))
        )
        taken: list[WorkItem] = []
        while self._queue and len(taken) < size and self._queue[0].group == first.group:
            item = self._queue.popleft()
            now = monotonic()
            if item.future.start_running(now):
                item.sent_seconds = now
                taken.append(item)
            else:
                item.future.notify_cancelled()
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
            self._session.spawn(self._hold_slot(worker))

    async def _hold_slot(self, worker: RemoteWorker) -> None:
        """Run a Dask task on a worker that runs batches there until none is left."""
        session = self._session
        key = f"{agent.SLOT_PREFIX}-{session.id}-{worker.number}-{session.draw_number()}"
        slot = session.submit_pinned(worker.address, key, self._serve_slot.build_call(session.id, worker.number))
        why = ""
        try:
            await slot
        except (asyncio.CancelledError, FutureCancelled):
            if not session.is_connected:
                self._members.lose_all()
            why = "the scheduler or the worker has gone"
        except Exception as error:  # noqa: BLE001 -- KilledWorker, or a fault of ours
            why = to_one_line(describe(error))
        finally:
            slot.release()
            worker.served_slots -= 1
        if why:
            self._members.lose(worker, why)
        elif self._members.is_present(worker):
            self._serve_slots(worker)

    def _stop(self, item: WorkItem, grace_seconds: float) -> None:
        worker = item.worker
        if worker is not None and item.task.attempt in worker.items:
            worker.stream.send(StopOrder(item.task.attempt, grace_seconds))

    # Replies

    def take_answers(self, worker: RemoteWorker, answers: list[Answer]) -> None:
        """Apply the answers of a worker. Raises an exception of any kind if they are invalid."""
        now = worker.heard_seconds = monotonic()
        worker.open_requests = 0
        for answer in answers:
            if isinstance(answer, WorkerUsage):
                _take_usage(worker, answer, now)
            else:
                self._take_reply(worker, *answer, now)
        self.handle_change()

    def _take_reply(self, worker: RemoteWorker, attempt: int, data: bytes, now: float) -> None:
        item = worker.items.get(attempt)
        if item is None:
            _drop_late(worker, attempt)
            worker.end_attempt(attempt)
            return
        reply = _load_reply(item.task, data, most_seconds=now - item.sent_seconds)
        self._learn_duration(item.group, reply)
        if reply.outputs or reply.report or reply.output:
            self._session.spawn(self._take_files(worker, item, reply, now))
        else:
            self._end(worker, item, reply, now)

    async def _take_files(self, worker: RemoteWorker, item: WorkItem, reply: TaskReply, received: float) -> None:
        self._end(worker, item, await self._fetch_files(worker, item, reply), received)
        self.handle_change()

    async def _fetch_files(self, worker: RemoteWorker, item: WorkItem, reply: TaskReply) -> TaskReply:
        """Write the files of a reply here; a fault becomes the error of the task."""
        try:
            await file_sync.fetch_files(
                self._session.client,
                worker.address,
                item,
                reply,
                root=self._session.settings.root,
                wants_outputs=self._members.setup.uploads_files,
                max_bytes=self._session.settings.upload_max_bytes,
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

    def _end(self, worker: RemoteWorker, item: WorkItem, reply: TaskReply, received: float) -> None:
        worker.end_attempt(item.task.attempt)
        if worker.take_item(item.task.attempt) is None:  # it was lost meanwhile
            _drop_late(worker, item.task.attempt)
        else:
            self._settle(item, reply, received)

    def _settle(self, item: WorkItem, reply: TaskReply, received_seconds: float) -> None:
        self.on_settled(reply.measurement, work_items.classify_reply(reply))
        work_items.settle(item, reply, received_seconds)

    # Failures

    def handle_lost(self, worker: RemoteWorker, *, expected: bool, why: str) -> None:
        """Fail the items of a worker that has gone."""
        items = tuple(worker.items.values())
        if items or not expected:
            self.deaths["lost"] += 1
        silence = monotonic() - worker.heard_seconds
        why = f"lost: {why or f'the worker {worker.name} on {worker.facts.host} has gone'}"
        if items and silence > _SILENT_SECONDS:
            wait = max(0.0, self._session.settings.partition_grace_seconds - silence)
            self._cut_off |= dict.fromkeys(items, f"{why} after {silence:.0f} s without an answer")
            self._session.loop.call_later(wait, self._fail_cut_off, items)
        else:
            self._fail_all(items, why)
        self.handle_change()

    def check_workers_exist(self) -> None:
        """Fail the queue if no worker has been there for `start_timeout_seconds`."""
        if not self._members.is_empty or not self._queue:
            self._without_workers_since = None
            return
        now = monotonic()
        self._without_workers_since = since = self._without_workers_since or now
        if now - since >= self._session.settings.start_timeout_seconds:
            reasons = self._members.describe_unfit()
            self.fail_queue(f"dask: no worker for {now - since:.0f} s{': ' if reasons else ''}{reasons}")
            self.broken = ""  # workers may come later

    def fail_queue(self, why: str) -> None:
        """Fail the queued items, and those that come later."""
        self.broken = why
        self._dispatch()

    def end(self) -> None:
        """Settle all items, as the pool is closed. `submit` cancels later ones."""
        for worker in tuple(self._members.workers.values()):
            self._fail_all(tuple(worker.items.values()), "stopped: the pool was closed")
            worker.stream.close()
        self._fail_cut_off(tuple(self._cut_off))
        self._cancel(self._incoming)
        self._cancel(self._queue)

    def _fail_all(self, items: Iterable[WorkItem], why: str) -> None:
        for item in items:
            self._fail(item, WorkerDied(f"{item.task.label}: {why}"))

    def _fail_cut_off(self, items: Iterable[WorkItem]) -> None:
        for item in items:
            if (why := self._cut_off.get(item)) is not None:
                self._fail(item, WorkerDied(f"{item.task.label}: {why}"))

    def _fail(self, item: WorkItem, error: BaseException) -> None:
        self._cut_off.pop(item, None)
        if item.worker is not None:
            item.worker.take_item(item.task.attempt)
        if item.future.done():
            return  # its reply came before the order to give it up
        if not item.sent_seconds and not item.future.start_running(monotonic()):
            item.future.notify_cancelled()  # it was cancelled in the queue
            return
        measured = work_items.build_last_measurement(item, monotonic())
        self._settle(item, TaskReply(attempt=item.task.attempt, error=error, measurement=measured), monotonic())


def _drop_late(worker: RemoteWorker, attempt: int) -> None:
    log.warning(
        "a result came after its task was given up: dropped",
        extra={"worker": worker.label, "attempt": attempt},
    )


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


def _take_usage(worker: RemoteWorker, usage: WorkerUsage, now: float) -> None:
    if not is_sound_usage(usage):
        raise ValueError("the usage of its tasks makes no sense")
    worker.memory_available_bytes = usage.memory_available_bytes
    for task in usage.running:
        if (item := worker.items.get(task.attempt)) is not None:
            item.usage = (now, task)


def _serve_slot(session: str, number: int) -> None:
    from paropt_exporter.executors.cluster.agent import serve_slot

    serve_slot(session, number)
