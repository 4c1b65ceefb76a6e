"""Compute how many tasks the machine's memory holds: pure functions from peaks and available memory to a number.

N_mem = N + floor((available - reserve - growth) / peak of the next task); the growth is the memory that running tasks
will still take: the sum of their peaks minus the memory that they hold now. Source: the banker's algorithm (Dijkstra,
1965): admit a task only if it can get all that it may ask for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct

from paropt_exporter.autoscaling.policy.fixed_workload import LoadGroup
from paropt_exporter.host import RESERVE_BYTES


class Memory(Struct, frozen=True, kw_only=True):
    """The machine's memory. `held_bytes`: how much of their known peaks the running tasks hold already."""

    available_bytes: int
    held_bytes: int = 0
    reserve_bytes: int = RESERVE_BYTES


def compute_spare_bytes(reserve_bytes: int) -> int:
    """Return the part of the reserve that may be promised away before workers go.

    Without it the size would follow every change of other processes' memory.
    """
    return reserve_bytes // 2


def compute_growth_bytes(running: Iterable[LoadGroup], held_bytes: int) -> int:
    """Return the memory that running tasks will still take: the sum of their peaks minus the memory that they hold."""
    return max(0, sum(group.count * group.load.peak_bytes for group in running) - held_bytes)


def compute_room_bytes(running: Iterable[LoadGroup], memory: Memory) -> int:
    """Return the memory left for more tasks; negative if running tasks are promised more than there is."""
    return memory.available_bytes - memory.reserve_bytes - compute_growth_bytes(running, memory.held_bytes)


def compute_memory_size(running: Sequence[LoadGroup], waiting: Sequence[LoadGroup], memory: Memory) -> int:
    """Return N_mem, at least 1: the slots of the running tasks, and of the waiting ones, in order, while they fit.

    A task of unknown peak fits if there is any room. If memory is short, N_mem is less than the running tasks, by the
    missing memory over the next task's peak.
    """
    size, room = sum(group.slots for group in running), compute_room_bytes(running, memory)
    if room <= 0:
        return max(1, size - _count_missing_slots(-room - compute_spare_bytes(memory.reserve_bytes), waiting))
    for group in waiting:
        fits = _count_fitting(group, room)
        size, room = size + fits * group.load.slots, room - fits * group.load.peak_bytes
        if fits < group.count:
            break
    return max(1, size)


def _count_fitting(group: LoadGroup, room: int) -> int:
    peak = group.load.peak_bytes
    return min(group.count, room // peak) if peak else group.count if room > 0 else 0


def _count_missing_slots(missing: int, waiting: Sequence[LoadGroup]) -> int:
    if missing <= 0 or not waiting or not waiting[0].load.peak_bytes:
        return 0
    return math.ceil(missing / waiting[0].load.peak_bytes) * waiting[0].load.slots


class PoolMemory(Struct, frozen=True, kw_only=True):
    """A pool's view of the machine's memory. `growth_bytes`: the memory that workers of all pools may still take.

    `peak_bytes`: the most memory that one of the pool's workers has used; 0: unknown, or threads, which share a
    process.
    """

    available_bytes: int
    growth_bytes: int
    peak_bytes: int
    reserve_bytes: int = RESERVE_BYTES

    @property
    def room_bytes(self) -> int:
        return self.available_bytes - self.reserve_bytes - self.growth_bytes

    @property
    def is_short(self) -> bool:
        """Return whether so much memory is promised that workers have to go."""
        return self.room_bytes < -compute_spare_bytes(self.reserve_bytes)


def compute_pool_memory_size(size: int, memory: PoolMemory) -> int | None:
    """Return N_mem = N + floor(room / peak), at least N (the budget decides who loses workers); None: unbounded."""
    if memory.room_bytes <= 0:
        return size
    return size + memory.room_bytes // memory.peak_bytes if memory.peak_bytes else None


def compute_shareable_bytes(available_bytes: int, held_bytes: int, reserve_bytes: int) -> int:
    """Return the memory for the workers of all pools together: the memory that they hold and the memory left."""
    return max(0, available_bytes - reserve_bytes + held_bytes)
