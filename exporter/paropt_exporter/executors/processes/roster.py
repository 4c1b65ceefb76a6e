"""How many workers a ProcessPool has: their slots, which of them are idle, and the threads that serve them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from paropt_exporter.executors.counters import PoolCounters
from paropt_exporter.executors.processes.slot import ProcessSlot
from paropt_exporter.executors.thread_group import ThreadGroup

log = logging.getLogger(__name__)

MOST_WORKERS = 1024  # processes; more is a slip of the keyboard


class Roster:
    """The slots of one pool, each with the thread that serves it.

        slot:  starting ──> idle <──> busy ──> leaving ──> gone
                  ^           └────────┴──> dead ──┐
                  └───────── pause <───────────────┘

    Guarantees:
      * Each slot has one thread, from its start to its end. What the system would not give is asked for again.
      * A pool that is closed gets no more slots, and refuses whatever comes, with the reason why it was closed.
      * One that has begun to start stays until it is ready, see `resize`.
    """

    def __init__(self, counters: PoolCounters) -> None:
        self.lock = threading.RLock()  # guards: everything below, the slots' states, and what the desk and crew keep
        self.slots: list[ProcessSlot] = []
        self.idle: list[ProcessSlot] = []
        self.target = 0
        self.closed = False
        self.wakeable = False  # whether a submit has to have an idle worker take its task
        self._refusal: Exception = RuntimeError()
        self._ledger = counters
        self._hands = ThreadGroup()
        self._made = 0

    # Size

    def resize(self, n: int, reason: str) -> None:
        """Say how many workers there shall be: idle ones too many go at once, others when they are through."""
        if not 1 <= n <= MOST_WORKERS:
            raise ValueError(f"a pool of {n} processes: expected 1 to {MOST_WORKERS}")
        with self.lock:
            self._ledger.count_resize(self.target, n, reason)
            self.target = n
            while self.idle and self.surplus() > 0:
                self.dismiss(self.idle.pop(0))
            # One that has begun to start stays until it is ready: the next resize may want it, and a storm of them
            # on a slow machine would otherwise have any number of processes on their way in and out.
            for slot in [slot for slot in self.slots if slot.failures and slot.link is None and not slot.leaving]:
                if self.surplus() > 0:
                    self.dismiss(slot)
            self.look()

    def surplus(self) -> int:
        """Return how many workers there are too many; below 0, how many are missing."""
        return sum(not slot.leaving for slot in self.slots) - self.target

    def grow(self, serve: Callable[[ProcessSlot], None]) -> None:
        """Start the slots that are missing, each with a thread that runs `serve` for it.

        The system may say no: then the pool goes on as it is, says so, and has to be called again.
        """
        self._hands.clear_shortage()
        try:
            while (slot := self._new_slot()) is not None:
                self._start(slot, serve)
        except (OSError, RuntimeError) as error:
            log.warning("no more workers to be had", extra={"pool": self._ledger.name, "err": str(error)})
            with self.lock:
                self._hands.note_shortage()
                if not self.slots:
                    raise
                self.slots[0].wake()  # its thread asks again

    def note_shortage(self, slot: ProcessSlot) -> bool:
        """Give up a slot that the system has no descriptors for, so that it keeps none from the others.

        False when it is the only one. It is asked for again, see `get_retry_delay`.
        """
        with self.lock:
            if slot.leaving or not any(other is not slot and not other.leaving for other in self.slots):
                return slot.leaving
            self.dismiss(slot)
            self._hands.note_shortage()
            self.wake_all()  # one of them asks again
            return True

    def get_retry_delay(self) -> float | None:
        """Return how long to wait before the next `grow`: 0.0 when it is due, None when none is missing."""
        return self._hands.get_retry_delay()

    def _new_slot(self) -> ProcessSlot | None:
        with self.lock:
            if self.closed or self.surplus() >= 0:
                return None
            slot = ProcessSlot(f"{self._ledger.name}-{self._made}")
            self._made += 1
            self.slots.append(slot)
            self._hands.announce(slot.name)
            return slot

    def _start(self, slot: ProcessSlot, serve: Callable[[ProcessSlot], None]) -> None:
        try:
            self._hands.start(slot.name, partial(self._occupy, slot, serve))
        except RuntimeError:
            self._leave(slot)
            raise

    def _occupy(self, slot: ProcessSlot, serve: Callable[[ProcessSlot], None]) -> None:
        try:
            serve(slot)
        finally:
            self._leave(slot)
            self._hands.remove_current()

    def _leave(self, slot: ProcessSlot) -> None:
        """Take a slot off the books."""
        with self.lock:
            self.slots.remove(slot)
            self._ledger.exited.add(slot.tally)
            self._ledger.slot_seconds += slot.slot_seconds
            self._ledger.cpu_seconds += slot.cpu_seconds
            self._ledger.run_delay_seconds += slot.delay_seconds
            os.close(slot.call)
            slot.call = -1

    # With the lock held

    def look(self) -> None:
        """Note whether a submit may find an idle worker."""
        self.wakeable = self.closed or bool(self.idle)

    def dismiss(self, slot: ProcessSlot, *, recycle: bool = False) -> None:
        """Have a worker go when it has ended what it holds; `recycle`: and another process take its slot."""
        slot.leaving, slot.recycling = not recycle, recycle
        if slot.link is not None:
            slot.link.dismiss()
        slot.wake()

    def unlist(self, slot: ProcessSlot) -> None:
        """Take a worker from the idle ones, if it is there."""
        if slot in self.idle:
            self.idle.remove(slot)

    def wake_all(self) -> None:
        for slot in self.slots:
            slot.wake()

    # The end

    def refuse(self) -> NoReturn:
        raise self._refusal

    def close(self, refusal: Exception) -> None:
        """Take no more work from now on, and say why; with the lock held."""
        self._refusal = refusal
        self.closed = self.wakeable = True

    def join(self, timeout_seconds: float | None = None) -> bool:
        return self._hands.join(timeout_seconds)

    def reset_after_fork(self, refusal: Exception) -> None:
        """In a forked child: the workers are the parent's, and a lock may have been held at the fork."""
        self.lock, self._hands = threading.RLock(), ThreadGroup()
        self.close(refusal)
        for slot in self.slots:
            if slot.link is not None:
                slot.link.close()
        self.slots, self.idle = [], []
