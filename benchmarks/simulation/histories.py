"""Random lanes on random machines, and the faults that the controller must never make."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from simulation.lane import LaneRun, Work, clairvoyant_seconds, run_lane
from simulation.machine import Phase

OVER_SECONDS = 2.0  # for which more tasks than cores + 1 may compute after a wrong reading
HELD_SECONDS = 1.0  # for which tasks that only sleep may be held back


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A lane, its machine, and the known demands of its stages."""

    tasks: tuple[Work, ...]
    cores: int
    maximum: int
    others: int
    late_seconds: float
    known: dict[str, float]

    def run(self) -> LaneRun:
        return run_lane(
            self.tasks,
            cores=float(self.cores),
            maximum=self.maximum,
            start=min(self.cores, self.maximum),
            others=self.others,
            late_seconds=self.late_seconds,
            known=self.known,
        )

    def lasting(self, run: LaneRun) -> float:
        """Return the makespan over that of a clairvoyant with the machine to itself."""
        return run.makespan_seconds / clairvoyant_seconds(self.tasks, cores=self.cores, maximum=self.maximum)


def history(seed: int) -> History:
    """Draw a lane of a few stages, each with tasks of one kind."""
    draw = random.Random(seed)
    cores = draw.choice((1, 2, 2, 4, 8))
    kinds = [draw.choice((*_KINDS,)) for _ in range(draw.randint(1, 4))]
    tasks, known = list[Work](), dict[str, float]()
    for number, kind in enumerate(kinds):
        stage = f"s{number}"
        works = [_KINDS[kind](draw, stage, cores) for _ in range(draw.randint(1, 16))]
        tasks += works
        if draw.random() < 0.3:
            wanted = sum(work.core_seconds for work in works) / sum(work.alone_seconds for work in works)
            known[stage] = wanted * draw.uniform(0.8, 1.25)
    return History(
        tasks=tuple(tasks),
        cores=cores,
        maximum=draw.choice((8, 16, 32, 64)),
        others=draw.choice((0, 0, 2, 6)),
        late_seconds=draw.choice((0.0, 0.0, 0.02, 0.1)),
        known=known,
    )


def faults(drawn: History, run: LaneRun) -> list[str]:
    """Return the faults of a run."""
    found = []
    above, held = run.longest_above(drawn.cores + 1), run.longest_held_back()
    if above > OVER_SECONDS:
        found.append(f"more than {drawn.cores + 1} tasks computed for {above:.1f} s")
    if held > HELD_SECONDS and _room_for_sleepers(drawn):
        found.append(f"tasks that only sleep were held back for {held:.1f} s")
    return found


def _room_for_sleepers(drawn: History) -> bool:
    """Whether the config's maximum leaves room for all, and the cores for one more task.

    Tasks that wait and then compute may all have started while they waited: until most of them have ended, more tasks
    compute than there are cores, and none of unknown demand may start.
    """
    late = any(not work.cpu_demand and work.core_seconds for work in drawn.tasks)
    return len(drawn.tasks) <= drawn.maximum and not late


def _burner(draw: random.Random, stage: str, cores: int) -> Work:
    del cores
    return Work(seconds=draw.uniform(0.05, 1.5), cpu_demand=1.0, stage=stage, weight=draw.choice((1.0, 1.0, 0.1)))


def _threaded(draw: random.Random, stage: str, cores: int) -> Work:
    return Work(seconds=draw.uniform(0.2, 1.0), cpu_demand=1.0, stage=stage, threads=draw.randint(1, cores))


def _sleeper(draw: random.Random, stage: str, cores: int) -> Work:
    del cores
    return Work(seconds=draw.uniform(0.05, 2.0), stage=stage)


def _half(draw: random.Random, stage: str, cores: int) -> Work:
    del cores
    return Work(seconds=draw.uniform(0.2, 1.5), cpu_demand=draw.choice((0.2, 0.5, 0.7)), stage=stage)


def _starter(draw: random.Random, stage: str, cores: int) -> Work:
    """A program that computes while it starts, and then sleeps."""
    del cores
    return Work(seconds=0.05, cpu_demand=1.0, stage=stage, phases=(Phase(seconds=draw.uniform(0.2, 1.0)),))


def _late(draw: random.Random, stage: str, cores: int) -> Work:
    """A program that waits for the network or a lock, and then computes."""
    del cores
    computing = Phase(seconds=draw.uniform(0.2, 0.8), cpu_demand=1.0)
    return Work(seconds=draw.uniform(0.3, 1.0), stage=stage, phases=(computing,))


_KINDS: dict[str, Callable[[random.Random, str, int], Work]] = {
    "burner": _burner,
    "threaded": _threaded,
    "sleeper": _sleeper,
    "half": _half,
    "starter": _starter,
    "late": _late,
}
