"""How many tasks the machine's memory holds: pure functions from peaks and what is left to a number.

N_mem = N + floor((available - reserve - growth) / peak of the next task), where the growth is what running tasks will
still take: the sum of their peaks less what they hold of these now. Source: the banker's rule (Dijkstra, 1965) that who
is let in must be able to get all that it may ask for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from paropt_exporter.autoscaling.policy.fixed_workload import LoadGroup

RESERVE_BYTES = 256 << 20  # memory that no new worker may take: what peaks don't tell of, and all others' needs
# What runs is given up only once half of the reserve is promised away: where others' use of the machine comes and goes,
# the size would else go up and down with it.
SPARE_BYTES = RESERVE_BYTES // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is left of the machine's memory. `held_bytes`: what running tasks of known peaks have of these already."""

    available_bytes: int
    held_bytes: int = 0
    reserve_bytes: int = RESERVE_BYTES


def compute_growth_bytes(running: Iterable[LoadGroup], held_bytes: int) -> int:
    """Return what running tasks will still take: the sum of their peaks less what they hold of them now."""
    return max(0, sum(group.count * group.load.peak_bytes for group in running) - held_bytes)


def compute_room_bytes(running: Iterable[LoadGroup], memory: Memory) -> int:
    """Return what is left for more tasks; negative where those that run are promised more than there is."""
    return memory.available_bytes - memory.reserve_bytes - compute_growth_bytes(running, memory.held_bytes)


def compute_memory_size(running: Sequence[LoadGroup], waiting: Sequence[LoadGroup], memory: Memory) -> int:
    """Return N_mem, at least 1: the tasks that run, and of those that wait, in their order, what there is room for.

    A task of unknown peak needs any room at all. Without room, fewer than run: as many less as the next one's peak goes
    into what is missing.
    """
    size, room = sum(group.count for group in running), compute_room_bytes(running, memory)
    if room <= 0:
        return max(1, size - _count_missing_tasks(-room - SPARE_BYTES, _get_next_peak_bytes(waiting)))
    for group in waiting:
        fits = _count_fitting(group, room)
        size, room = size + fits, room - fits * group.load.peak_bytes
        if fits < group.count:
            break
    return max(1, size)


def _count_fitting(group: LoadGroup, room: int) -> int:
    peak = group.load.peak_bytes
    return min(group.count, room // peak) if peak else group.count if room > 0 else 0


def _count_missing_tasks(missing: int, peak: int) -> int:
    return math.ceil(missing / peak) if missing > 0 and peak else 0


def _get_next_peak_bytes(waiting: Sequence[LoadGroup]) -> int:
    return waiting[0].load.peak_bytes if waiting else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolMemory:
    """What is left of the machine's memory beside a pool. `growth_bytes`: what the workers of all pools may still take.

    `peak_bytes`: the most that one of the pool's workers has used; 0: not known, or threads, which share one process.
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
        """Whether so much is promised that workers have to go."""
        return self.room_bytes < -SPARE_BYTES


def compute_pool_memory_size(size: int, memory: PoolMemory) -> int | None:
    """Return N_mem = N + floor(room / peak); None: no bound. At least N: from whom to take workers the budget says."""
    if memory.room_bytes <= 0:
        return size
    return size + memory.room_bytes // memory.peak_bytes if memory.peak_bytes else None


def compute_shareable_bytes(available_bytes: int, held_bytes: int) -> int:
    """Return what all pools' workers may take together, counted from nothing: what they hold, and what is left."""
    return max(0, available_bytes - RESERVE_BYTES + held_bytes)
