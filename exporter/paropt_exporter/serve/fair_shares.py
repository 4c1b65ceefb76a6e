"""Decide how runs share the cores and the memory of a host, by a pure function and an account of used time.

Max-min fairness, one core after another: no run gets a second core while another one that wants its first has none.
Where runs outnumber cores, those that have used the least time come first (as in Linux' CFS, virtual run time with a
granularity). Running tasks are never stopped: a core moves when a task ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, field

from paropt_exporter.cpu_demand import CORE_SLACK

QUANTUM_SECONDS = 2.0  # a run keeps its cores until it has used so much more time than a waiting one
_ROUNDING = 1e-9


class RunDemand(Struct, frozen=True, kw_only=True):
    """A run's demand, in cores and bytes.

    `wanted` includes `held`, the cores of running tasks. `committed`: the most cores that the run may use until it
    confirms its last grant; at least `held`. `granted`: its present share. `used_seconds`: its account in `UsedTime`.
    `memory_wanted_bytes`: for one more task beside the running ones.
    """

    run: int
    held: float = 0.0
    wanted: float = 0.0
    committed: float = 0.0
    granted: float = 0.0
    used_seconds: float = 0.0
    memory_held_bytes: float = 0.0
    memory_wanted_bytes: float = 0.0
    memory_committed_bytes: float = 0.0


class Share(Struct, frozen=True):
    """The cores and bytes that a run may use."""

    cores: float
    memory_bytes: float


class Machine(Struct, frozen=True):
    """The budget of all runs together. `memory_bytes`: 0 if unknown; memory is then not divided."""

    cores: float
    memory_bytes: float = 0.0


def decide_shares(machine: Machine, demands: Iterable[RunDemand]) -> Mapping[int, Share]:
    """Return the share of each run.

    Guarantees, for runs that act only on confirmed grants: shares and running tasks together never exceed the machine,
    unless they did before, or by half a core if a run uses half of one (`_fit`); a core that one run does not want goes
    to another; a waiting run comes before any run that has used QUANTUM_SECONDS more; a run of fixed size that holds
    more than its share starts no task while another one waits for its first core.
    """
    order = sorted(demands, key=lambda run: (run.used_seconds - (QUANTUM_SECONDS if run.granted > 0 else 0.0), run.run))
    memory = _share_memory(machine, order)
    targets = _fill_evenly(machine.cores, order, memory)
    free = machine.cores - sum(max(run.committed, run.held) for run in order)
    shares = {}
    for run in order:
        committed, target = max(run.committed, run.held), targets[run.run]
        raised = _fit(target - committed, free)
        free -= raised
        # Raising a share up to the committed amount costs nothing: the run may use that much anyway.
        shares[run.run] = Share(round(min(target, committed + raised), 6), memory[run.run])
    if any(targets[run.run] > 0 and not run.held and not shares[run.run].cores for run in order):
        for run in order:
            # It holds more than any share, so its size is fixed, and with one core it would continue to its end.
            if run.held > max(run.granted, shares[run.run].cores) + CORE_SLACK:
                shares[run.run] = Share(0.0, memory[run.run])
    return shares


def _fill_evenly(cores: float, order: Sequence[RunDemand], memory: Mapping[int, float]) -> dict[int, float]:
    """Return how many cores each run should have, whether or not they are free yet."""
    targets = dict.fromkeys((run.run for run in order), 0.0)
    wanted = {run.run: min(_get_useful_cores(run, memory[run.run]), cores) for run in order}
    left, open_runs = cores, [run.run for run in order if wanted[run.run] > _ROUNDING]
    while open_runs and left > _ROUNDING:
        steps = {}
        for run in open_runs:
            steps[run] = _fit(min(1.0, wanted[run] - targets[run]), left)
            targets[run] += steps[run]
            left -= steps[run]
        open_runs = [run for run, step in steps.items() if step and wanted[run] - targets[run] > _ROUNDING]
    return targets


def _fit(needed: float, left: float) -> float:
    """Return how many of the cores left a run can use: it starts no task on less than half of the core it needs.

    Beside tasks of half a core, or on a quota of 1.5 cores, a task of a whole one then exceeds the machine by half a
    core. To leave the half idle is worse: lanes of tasks of 0.3 to 1 cores took 5 % longer in simulations, and lanes of
    0.5 cores 8 %.
    """
    if needed <= left + _ROUNDING:
        return max(0.0, needed)
    whole = max(0.0, math.floor(left + _ROUNDING))
    part = left - whole
    return whole + part if part >= min(1.0, needed - whole) / 2 else whole


def _get_useful_cores(run: RunDemand, memory_bytes: float) -> float:
    """Return the wanted cores; if the next task of a run lacks memory, it can't use more than it holds."""
    return run.wanted if run.memory_wanted_bytes <= memory_bytes + _ROUNDING else min(run.wanted, run.held)


def _share_memory(machine: Machine, order: Sequence[RunDemand]) -> dict[int, float]:
    """Return the bytes of each run, in order. The first run whose task does not fit reserves memory as it is freed."""
    if machine.memory_bytes <= 0:
        return {run.run: float("inf") for run in order}
    left = machine.memory_bytes - sum(max(run.memory_committed_bytes, run.memory_held_bytes) for run in order)
    shares = {}
    for run in order:
        committed = max(run.memory_committed_bytes, run.memory_held_bytes)
        wanted = run.memory_wanted_bytes
        if wanted > machine.memory_bytes and left + committed >= machine.memory_bytes - _ROUNDING:
            shares[run.run], left = wanted, 0.0  # it never fits, and runs alone
        elif wanted - committed <= left:
            left -= max(0.0, wanted - committed)
            shares[run.run] = max(wanted, run.memory_held_bytes)
        else:
            shares[run.run], left = run.memory_held_bytes, min(left, 0.0)
    return shares


class Wait(Struct, frozen=True):
    """The cores that a run lacks, by the run that holds them."""

    run: int
    holders: Mapping[int, float] = field(default_factory=dict)


def find_waits(demands: Sequence[RunDemand], shares: Mapping[int, Share]) -> tuple[Wait, ...]:
    """Return which runs wait for which others, in proportion to the cores that the others hold or may take."""
    taken = {run.run: max(run.held, min(shares[run.run].cores, run.wanted)) for run in demands}
    holders = {run: cores for run, cores in taken.items() if cores > _ROUNDING}  # few, however many runs wait
    waits = []
    for run in demands:
        lacks = run.wanted - taken[run.run]
        others = {each: cores for each, cores in holders.items() if each != run.run} if lacks > CORE_SLACK else {}
        total = sum(others.values())
        if lacks > CORE_SLACK and total > 0:
            waits.append(Wait(run.run, {each: lacks * cores / total for each, cores in others.items()}))
    return tuple(waits)


class UsedTime:
    """The core-seconds that runs have used, as the basis of their order.

    A run that joins, or wants cores again after a pause, starts at the account of the least served of the others, or of
    those that were active last: the past gives it neither debt nor credit.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._active: frozenset[int] = frozenset()
        self._least = 0.0  # the account of the least served active run; it only grows

    def advance(self, elapsed_seconds: float, cores_by_run: Mapping[int, float]) -> None:
        """Add the time since the last call. `cores_by_run`: the cores that each active run had in it."""
        for run, cores in cores_by_run.items():
            if run in self._active:
                self._seconds[run] += cores * elapsed_seconds

    def set_active(self, runs: Iterable[int]) -> None:
        """Set the runs that hold or want cores now."""
        active = frozenset(runs)
        known = self._active & active or self._active
        self._least = max(self._least, min((self._seconds[run] for run in known), default=0.0))
        for run in active - self._active:
            self._seconds[run] = max(self._seconds.get(run, 0.0), self._least)
        self._active = active

    def get(self, run: int) -> float:
        """Return the account of a run, in core-seconds."""
        return self._seconds.get(run, 0.0)

    def forget(self, run: int) -> None:
        """Remove a run that has ended."""
        self._seconds.pop(run, None)
        self._active -= {run}
