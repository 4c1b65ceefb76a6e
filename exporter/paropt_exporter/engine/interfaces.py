"""What the engine asks of its pools, and what others may tell it and ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from paropt_exporter.engine.outcome import Outcome
from paropt_exporter.events import PoolUse, RunningTask
from paropt_exporter.plan import PlannedStage, PlannedTask


class RunningAttempt(Protocol):
    """An attempt that a worker has, or is about to have."""

    @property
    def pool(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def future(self) -> Future[object]: ...

    @property
    def started_seconds(self) -> float | None:
        """When the attempt began in its worker; None while it is on its way there."""

    def stop(self, grace_seconds: float) -> None:
        """End it: politely, and by force after the grace (0: at once). Returns at once; may be called again."""

    def give_up(self) -> None:
        """End it by other means, since it has not ended though it was killed. Returns at once."""

    def outcome(self) -> Outcome:
        """What came of it, once its future has settled."""


class Workers(Protocol):
    """What the engine needs of the pools."""

    def start(self, stage: PlannedStage, task: PlannedTask, label: str) -> RunningAttempt:
        """Hand one attempt to a pool; returns at once."""

    def choose_pool(self, stage: PlannedStage, task: PlannedTask) -> str:
        """Return the pool that a task would start in now."""

    def get_pool_size(self, pool: str) -> int:
        """Return how many tasks `pool` may have at once now."""

    def running(self) -> tuple[RunningTask, ...]:
        """Return what runs now, measured up to this moment; from any thread."""

    def get_pool_uses(self) -> tuple[PoolUse, ...]:
        """Return how the pools fared since the run began."""

    def is_gil_bound(self, stage: str) -> bool:
        """Whether the stage's calls were measured to be CPU-bound Python in threads."""

    def get_abandoned_calls(self) -> tuple[str, ...]:
        """Return the labels of calls that were given up but still run in their threads."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the run to end. `reason` goes into records; `now`: KILL at once; `interrupted`: the user's wish."""

    reason: str
    now: bool = False
    interrupted: bool = True


@dataclass(frozen=True, slots=True)
class Wake:
    """Look again at what may start: the lane's size has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Which tasks may start beside those that run, as far as cores go. Demands are in cores.

    `floor`: so many tasks may run at once whatever they want. `stages`, `tasks`: what a task of a stage will want, and
    what running ones want, by label; what is in neither is unknown. `held`: stages of which none may start now, since
    they compute under an interpreter's lock that is taken. `stuck`: nothing could start for a while, and one task of
    unknown demand may start even beside tasks that want more than all cores.
    """

    cores: float
    floor: int
    stages: Mapping[str, float] = field(default_factory=dict)
    tasks: Mapping[str, float] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    stuck: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCounts:
    """A stage that runs: `busy_seconds`, `delay_seconds` (runnable without a core) and `ended` count attempts and grow.

    Busy time counts running attempts up to now, the delay only those that ended. `fastest_seconds`: the shortest that
    one of them took without its delay; 0: none has succeeded yet.
    """

    stage: str
    running: int
    waiting: int
    busy_seconds: float
    delay_seconds: float
    ended: int
    fastest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What the controller sees of a run: the waiting tasks in the order they would start, and the running ones.

    `left_seconds` is the time until the lane breaks its total (None: without one). `work_seconds` is the work left, as
    far as it is known, and `path_seconds` its longest chain; 0 unless the deadline is the objective. `rescue_size` is
    the size that would save a stage which is about to break its limit; 0: none is, or none can be saved.
    """

    ready: tuple[tuple[str, str, int], ...]  # (pool, stage, how many tasks)
    running: tuple[tuple[str, str, str, float], ...]  # (pool, stage, label, started_seconds)
    # (stage, how many of its tasks ended, sum of demand x duration in core seconds, sum of durations)
    ended: tuple[tuple[str, int, float, float], ...] = ()
    peaks: tuple[tuple[str, int], ...] = ()  # (stage, the most bytes that one of its ended tasks used)
    stages: tuple[StageCounts, ...] = ()  # those of more than one task that run
    work_seconds: float = 0.0
    path_seconds: float = 0.0
    left_seconds: float | None = None
    rescue_size: int = 0
