"""The engine's interfaces to its pools, to the cache, to the controller and to signal handlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct, field

from paropt_exporter.events import CacheReason, PoolUse, RunningTask
from paropt_exporter.plan import PlannedStage, PlannedTask

if TYPE_CHECKING:
    from concurrent.futures import Future

    from paropt_exporter.engine.outcome import Outcome  # loads the executors
    from paropt_exporter.executors.commands.traces import Trace


class RunningAttempt(Protocol):
    """An attempt that a worker runs, or is about to run."""

    @property
    def pool(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def future(self) -> Future[object]: ...

    @property
    def started_seconds(self) -> float | None:
        """When the attempt began in its worker; None before that."""

    def stop(self, grace_seconds: float) -> None:
        """Terminate it, and kill it after the grace (0: at once). Returns at once; may be called again."""

    def give_up(self) -> None:
        """Settle it by other means, since it has not ended although it was killed. Returns at once."""

    def outcome(self) -> Outcome:
        """Return its outcome, once its future is done."""


class Workers(Protocol):
    """The pools that run the engine's tasks: `PoolWorkers`, or a fake."""

    def start(self, stage: PlannedStage, task: PlannedTask, label: str) -> RunningAttempt:
        """Hand one attempt to a pool; returns at once."""

    def choose_pool(self, stage: PlannedStage, task: PlannedTask) -> str:
        """Return the pool in which a task would start now."""

    def get_pool_size(self, pool: str) -> int:
        """Return how many tasks `pool` can have at once now."""

    def running(self) -> tuple[RunningTask, ...]:
        """Return the running tasks, measured until now; from any thread."""

    def get_pool_uses(self) -> tuple[PoolUse, ...]:
        """Return the use of the pools since the run began."""

    def is_gil_bound(self, stage: str) -> bool:
        """Return whether the stage's calls were measured to be CPU-bound Python in threads."""

    def get_abandoned_calls(self) -> tuple[str, ...]:
        """Return the labels of abandoned calls that still run in their threads."""


class CachedTask(Struct, frozen=True, kw_only=True):
    """The earlier result of a task that need not run: the output that it printed, and how long it took."""

    output: str
    seconds: float


class UncachedTask(Struct, frozen=True, kw_only=True):
    """Why a task of a cached stage has to run: `note` is a line."""

    reason: CacheReason
    note: str


class StageLookup(Struct, frozen=True, kw_only=True):
    """The tasks of a stage, by index: which are skipped, and which run.

    `narrowed`: for batches of which some items are skipped, the items left; `saved_seconds`: how long the skipped items
    took. `note`: one line on why the first task runs. `traces`: whether the tasks that run are traced.
    """

    hits: Mapping[int, CachedTask]
    misses: Mapping[int, UncachedTask]
    narrowed: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    saved_seconds: float = 0.0
    note: str = ""
    traces: bool = False


class KeptResult(Struct, frozen=True, kw_only=True):
    """The final result of a task that ran, offered to the cache. `item_seconds`: those of a batch's items, if known.

    `trace`: the files that it used, if it was traced.
    """

    succeeded: bool
    output: str
    seconds: float
    item_seconds: Mapping[str, float] = field(default_factory=dict)
    trace: Trace | None = None


class StageCache(Protocol):
    """The results of earlier runs: `cache.stage_cache.StageCache`, or a fake. Each method returns at once."""

    def look_up(self, stage: PlannedStage, report: Callable[[StageLookup], None]) -> None:
        """Look up the tasks of a stage whose needs have ended.

        Calls `report` once, from another thread, or never if the run ends before.
        """

    def keep(self, stage: PlannedStage, task: PlannedTask, result: KeptResult) -> None:
        """Offer the final result of a task that ran."""

    def flush(self, stage: PlannedStage, done: Callable[[], None]) -> None:
        """Keep the offered results of a stage whose tasks have all ended; then call `done` from another thread."""


class Stop(Struct, frozen=True):
    """A request to end the run. `reason`: for records; `now`: KILL at once; `interrupted`: the user asked for it."""

    reason: str
    now: bool = False
    interrupted: bool = True


class Wake(Struct, frozen=True):
    """A message without content, after which the engine applies a new size, limits or admission."""


class Admission(Struct, frozen=True, kw_only=True):
    """The tasks for which there are cores and memory beside the running ones. Demands are in cores.

    `floor`: how many tasks may run at once whatever their demands. `stages`, `tasks`: the demands of a stage's next
    task, and of running tasks by label; other demands are unknown. `held`: stages that may not start tasks in threads
    now, since they compute and the GIL is saturated. `stuck`: tasks of unknown demand have waited for a while, so that
    one of them may start even if running tasks want more than all cores. `peak_bytes`: the most memory that a task of a
    stage takes outside of threads, if known; `memory_bytes`: the memory left for tasks (None: unknown), and
    `held_bytes`: how much running tasks, by label, held when it was read.
    """

    cores: float
    floor: int
    stages: Mapping[str, float] = field(default_factory=dict)
    tasks: Mapping[str, float] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    stuck: bool = False
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    memory_bytes: int | None = None
    held_bytes: Mapping[str, int] = field(default_factory=dict)


class MachineShare(Struct, frozen=True, kw_only=True):
    """The cores and bytes that all tasks of a run may use beside other runs; `number` names it in `MachineUsage`."""

    cores: float
    memory_bytes: float
    number: int = 0


class MachineUsage(Struct, frozen=True, kw_only=True):
    """The demand of a run under the share `number`. Cores are those of computing tasks; wanted amounts include held
    ones.

    `memory_wanted_bytes`: for one more task beside the running ones.
    """

    number: int
    cores_held: float
    cores_wanted: float
    memory_held_bytes: int
    memory_wanted_bytes: int


class MachineLink(Protocol):
    """The connection to the other runs of the machine."""

    @property
    def share(self) -> MachineShare | None:
        """What the run may use when it starts; None: all. Changes come by `Run.set_share`."""

    def report_usage(self, usage: MachineUsage) -> None:
        """Tell the others the run's demand. Returns at once."""


class StageCounts(Struct, frozen=True, kw_only=True):
    """Counts of a running stage. `busy_seconds`, `delay_seconds` (runnable without a core) and `ended` only grow.

    Busy time includes running attempts until now, the delay only ended ones. `fastest_seconds`: the shortest time of a
    successful attempt, without its delay; 0: there is none yet.
    """

    stage: str
    running: int
    waiting: int
    busy_seconds: float
    delay_seconds: float
    ended: int
    fastest_seconds: float


class Demand(Struct, frozen=True, kw_only=True):
    """The controller's view of a run: the waiting tasks in the order in which they will start, and the running ones.

    `left_seconds` is the time until the lane breaks its total (None: it has none). `work_seconds` is the known
    remaining work, and `path_seconds` its longest chain. `rescue_size` is the smallest size that keeps the stages that
    need several workers within their limits; 0: there are none. These are 0 if a run does not sum its work.
    `slots`: the slots of a task, by stage; 1 for missing stages. Work is in seconds of one slot.
    """

    ready: tuple[tuple[str, str, int], ...]  # (pool, stage, number of tasks)
    running: tuple[tuple[str, str, str, float], ...]  # (pool, stage, label, started_seconds)
    # (stage, number of ended tasks, sum of demand x `alone` in core seconds, sums of `alone`, which is the duration
    # without waits for a core, and of the durations)
    ended: tuple[tuple[str, int, float, float, float], ...] = ()
    peaks: tuple[tuple[str, int], ...] = ()  # (stage, the most bytes that one of its ended tasks used)
    stages: tuple[StageCounts, ...] = ()  # running stages of more than one task
    work_seconds: float = 0.0
    path_seconds: float = 0.0
    left_seconds: float | None = None
    rescue_size: int = 0
    slots: Mapping[str, int] = field(default_factory=dict)

    def average_slots(self) -> float | None:
        """Return the mean slots of a task, over running and waiting tasks; None if there are none."""
        tasks = [(stage, count) for _, stage, count in self.ready] + [(stage, 1) for _, stage, _, _ in self.running]
        number = sum(count for _, count in tasks)
        return sum(self.slots.get(stage, 1) * count for stage, count in tasks) / number if number else None
