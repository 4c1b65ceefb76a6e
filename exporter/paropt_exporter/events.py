"""Events and records: frozen facts about runs, stages, tasks and pools that the parts of the program exchange.

Points in time named `*_seconds` are on the monotonic clock, which is the same in every process of the machine;
`*_timestamp_seconds` are wall time since 1970.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from msgspec import Struct, field

from paropt_exporter.cpu_demand import NO_SWITCHES, NO_TIME, CoreTime, Switches
from paropt_exporter.lazy_patterns import compile_later

RUN_ID = compile_later(r"\d{8}T\d{6}-[0-9a-f]{6}")  # it begins with the time in UTC, so the names of files sort by age


class Strategy(StrEnum):
    """Where the tasks of a lane run."""

    THREAD = "thread"
    PROCESS = "process"
    HYBRID = "hybrid"
    ADAPTIVE = "adaptive"
    SEQUENTIAL = "sequential"
    DASK = "dask"


class Result(StrEnum):
    """The result of a task, a stage or a run; the values are those of OpenTelemetry's CI/CD conventions."""

    SUCCESS = "success"
    FAILURE = "failure"  # non-zero exit or exception
    ERROR = "error"  # could not start, killed by a signal, worker died
    TIMEOUT = "timeout"
    CANCELLATION = "cancellation"  # stopped by the exporter
    SKIP = "skip"  # never started

    @property
    def bad(self) -> bool:
        """Whether a stage with this result makes its run a failure."""
        return self in (Result.FAILURE, Result.ERROR, Result.TIMEOUT)


class CacheReason(StrEnum):
    """Why a task of a cached stage was skipped (the first member) or ran."""

    UNCHANGED = "unchanged"
    NEW = "new"  # no result of the task is known
    INPUTS = "inputs"
    ENVIRONMENT = "environment"
    TOOLS = "tools"
    COMMAND = "command"  # or another key of the stage
    EVICTED = "evicted"
    EDITED = "edited"  # an input changed during the last run, so that its result did not count
    OWN_INPUT = "own_input"  # it writes a file that it reads
    FAILED = "failed"  # the last run with these inputs did not succeed
    UNCACHEABLE = "uncacheable"  # one of its inputs can't be compared
    STORE = "store"  # the store, or a result in it, can't be used
    DISABLED = "disabled"  # --no-cache


class Scope(StrEnum):
    """Which part of a stage's work a run does."""

    ALL = "all"
    CACHED = "cached"  # some or all tasks were skipped, since earlier results still hold: a success completes the stage
    ITEMS = "items"  # some of its items: those that failed before, or those of a shard; a success completes the stage
    # with arguments or items from the command line, which may select anything: it never completes the stage
    ARGUMENTS = "arguments"


class Shard(Struct, frozen=True, kw_only=True):
    """One of the parts that `--shard` splits a lane into, counted from 1.

    `split` identifies the whole split, which is the same for all its shards; "" before the split is made.
    """

    index: int
    count: int
    split: str = ""

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def format_lane(lane: str, shard: Shard | None) -> str:
    """Return the lane's name, with the shard if it is one."""
    return lane if shard is None else f"{lane} shard {shard}"


class Severity(StrEnum):
    """The severity of an SLA limit: breaking a critical one stops the lane."""

    CRITICAL = "critical"
    NORMAL = "normal"


class SlaLimit(Struct, frozen=True, kw_only=True):
    """A limit on a duration: a warning at `warn_seconds`, broken at `max_seconds`."""

    max_seconds: float
    warn_seconds: float
    critical: bool = False

    @property
    def severity(self) -> Severity:
        return Severity.CRITICAL if self.critical else Severity.NORMAL


class Measurement(Struct, frozen=True, kw_only=True):
    """The resource usage of one task, measured in its worker.

    `cpu_seconds` includes the task's descendants. `memory_peak_bytes` is the peak of the whole worker process; for a
    thread, the larger of its process's peak and that of its child processes. `run_delay_seconds` is time spent
    runnable without a core. `switches`, of a task in a thread that was measured in full: those of the thread.
    `samples`, of a command's last step: the monotonic times and the core time until then.
    """

    worker: str
    pid: int
    started_seconds: float
    ended_seconds: float
    cpu_seconds: float = 0.0
    run_delay_seconds: float = 0.0
    switches: Switches = NO_SWITCHES
    memory_peak_bytes: int = 0
    samples: tuple[tuple[float, CoreTime], ...] = ()


class RunningTask(Struct, frozen=True, kw_only=True):
    """A task that a pool runs now.

    `core_time`: of all its threads and descendants, from an arbitrary start, so that only differences are meaningful.
    `thread_run_seconds`: the part of it in a thread of this process, under the GIL. `sampled_seconds`: the monotonic
    time of the sample; None: just now; 0: no sample yet. `switches`: of a thread that is sampled on a busy machine.
    `children_sampled_seconds`: the monotonic time of the sample of its child processes, which may not have run yet;
    None: no sample has found any. `is_runnable`: its thread, whose state was read just before the sample, was on a core
    or waited for one.
    """

    label: str
    worker: str
    started_seconds: float
    cpu_seconds: float
    memory_bytes: int
    run_delay_seconds: float = 0.0
    switches: Switches = NO_SWITCHES
    core_time: CoreTime = NO_TIME
    thread_run_seconds: float = 0.0
    sampled_seconds: float | None = None
    children_sampled_seconds: float | None = None
    is_runnable: bool = False


class PoolStatistics(Struct, frozen=True, kw_only=True):
    """One pool at one moment. The numbers add up exactly while the pool is at rest.

    `live == busy + idle + draining` and `submitted == queued + busy + sum(finished.values())` at rest. Totals
    (`submitted`, `finished`, `busy_seconds`, `slot_seconds`, `cpu_seconds`, `run_delay_seconds`, `resizes`, `deaths`)
    only grow, and include running tasks so far. `finished` maps a Result's value to a count, `resizes` maps
    (direction, reason) to a count, `deaths` maps a cause to a count.
    """

    name: str
    target: int
    live: int
    busy: int
    idle: int
    starting: int
    draining: int
    queued: int
    oldest_queued_age_seconds: float
    submitted: int
    busy_seconds: float
    slot_seconds: float
    cpu_seconds: float
    run_delay_seconds: float
    epoch_timestamp_seconds: float
    finished: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    resizes: Mapping[tuple[str, str], int] = field(default_factory=lambda: MappingProxyType({}))
    deaths: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def __reduce__(self) -> tuple[Callable[..., PoolStatistics], tuple[object, ...]]:
        """Let a task of another process return it: a mappingproxy can't be pickled."""
        values = (getattr(self, name) for name in self.__struct_fields__)
        return _build_statistics, tuple(dict(each) if isinstance(each, Mapping) else each for each in values)


def _build_statistics(*values: Any) -> PoolStatistics:
    """Build statistics from the values of all fields, in order, as they were pickled."""
    frozen = (MappingProxyType(each) if isinstance(each, dict) else each for each in values)
    fields: dict[str, Any] = dict(zip(PoolStatistics.__struct_fields__, frozen, strict=True))
    return PoolStatistics(**fields)


class WorkerMemory(Struct, frozen=True, kw_only=True):
    """The current memory of one worker process, and its peak since the start of the process or of its last task."""

    now_bytes: int
    peak_bytes: int


class RunStarted(Struct, frozen=True, kw_only=True):
    """A run of a lane started. `partial`: the command line left out stages or items, or gave arguments to some.

    `tree_state`: a digest of the commit and of the files that differ from it; "": unknown. `deadline_seconds`,
    `predicted_seconds`: how long it may take and how long it should take; None without a deadline.
    """

    run_id: str
    lane: str
    strategy: Strategy
    started_seconds: float
    started_timestamp_seconds: float
    stages: tuple[str, ...]
    partial: bool = False
    shard: Shard | None = None
    tree_state: str = ""
    deadline_seconds: float | None = None
    predicted_seconds: float | None = None


class StageStarted(Struct, frozen=True, kw_only=True):
    """The first task of a stage started."""

    run_id: str
    lane: str
    stage: str
    number: int
    pool: str
    tasks: int
    started_seconds: float
    started_timestamp_seconds: float
    sla: SlaLimit | None = None
    scope: Scope = Scope.ALL


class ItemRecord(Struct, frozen=True, kw_only=True):
    """One item of a batch. `seconds`: its duration; None: unknown, because the batch failed.

    `long_tests`: the ids and seconds of tests that took a large part of the batch; `seconds` leaves them out.
    """

    item: str
    result: Result
    seconds: float | None
    long_tests: tuple[tuple[str, float], ...] = ()


class TaskRecord(Struct, frozen=True, kw_only=True):
    """One attempt of one task ended. `final`: no retry follows. `output` is the kept tail, without escapes.

    For a batch, `item` is the batch's name; `items`: its items, each with its result; `start_up_seconds`: the time of
    the command outside of its items, None if unknown; `cut_items`: the items of which other batches ran a part.

    `cache`: in a cached stage, why it was skipped (then `cached` is True) or ran; `cache_note`: the same as a line, ""
    if it was skipped. `saved_seconds`: how long a skipped task took when it ran.
    """

    run_id: str
    lane: str
    stage: str
    task: int
    item: str | None
    attempt: int
    final: bool
    result: Result
    message: str
    pool: str
    worker: str
    ready_seconds: float
    started_seconds: float
    ended_seconds: float
    started_timestamp_seconds: float
    cpu_seconds: float = 0.0
    run_delay_seconds: float = 0.0
    memory_peak_bytes: int = 0
    exit_code: int | None = None
    signal: int | None = None
    output: str = ""
    output_path: str | None = None
    items: tuple[ItemRecord, ...] = ()
    start_up_seconds: float | None = None
    cut_items: frozenset[str] = frozenset()
    scope: Scope = Scope.ALL
    cache: CacheReason | None = None
    cache_note: str = ""
    saved_seconds: float = 0.0

    @property
    def cached(self) -> bool:
        """Whether it was skipped, and this is the record of its earlier result."""
        return self.cache is CacheReason.UNCHANGED

    @property
    def could_not_start(self) -> bool:
        """Whether it ended without having run, for example because its program is not installed."""
        return self.result is Result.ERROR and self.exit_code is None and self.signal is None

    @property
    def duration_seconds(self) -> float:
        return max(0.0, self.ended_seconds - self.started_seconds)

    @property
    def queue_wait_seconds(self) -> float:
        return max(0.0, self.started_seconds - self.ready_seconds)


class TaskTiming(Struct, frozen=True, kw_only=True):
    """The times of one recorded attempt of a task. `started_seconds` is on any clock that the run's tasks share."""

    stage: str
    task: int
    started_seconds: float
    duration_seconds: float
    cpu_seconds: float = 0.0
    run_delay_seconds: float = 0.0
    gil_bound: bool = False

    @property
    def ended_seconds(self) -> float:
        return self.started_seconds + self.duration_seconds

    @property
    def runnable_ratio(self) -> float:
        """How many of its threads were runnable on average, on a core or waiting for one."""
        wall = self.duration_seconds
        return (self.cpu_seconds + self.run_delay_seconds) / wall if wall > 0 else 0.0


class SlaRecord(Struct, frozen=True, kw_only=True):
    """A run reached a limit. `stage` None: the lane's total. `broken` False: the warning."""

    run_id: str
    lane: str
    stage: str | None
    limit: SlaLimit
    broken: bool
    elapsed_seconds: float
    at_timestamp_seconds: float


class StageRecord(Struct, frozen=True, kw_only=True):
    """A stage ended, or was skipped (then `started_timestamp_seconds` is None and the duration 0 s).

    `advice`: how to make it faster, in one line, or "". `tasks_cached`: how many of its tasks were skipped;
    `cache_note`: why the first task of a cached stage that was not skipped ran. `first_attempts`: the first attempts
    that ended by themselves. `flaky_attempts`: the first attempts, of this run or earlier ones, that failed and have
    since passed with the same files; `flaky_items`: their items. `quarantined`: the quarantined items that failed, each
    with its owner and last day.
    """

    run_id: str
    lane: str
    stage: str
    number: int
    result: Result
    message: str
    pool: str
    tasks: int
    tasks_failed: int
    duration_seconds: float
    started_timestamp_seconds: float | None
    cpu_seconds: float = 0.0
    memory_peak_bytes: int = 0
    attempts: int = 0
    fastest_task_seconds: float = 0.0
    slowest_task_seconds: float = 0.0
    gil_bound: bool = False
    sla: SlaLimit | None = None
    warned: bool = False
    broken: bool = False
    advice: str = ""
    scope: Scope = Scope.ALL
    tasks_cached: int = 0
    saved_seconds: float = 0.0
    cache_note: str = ""
    first_attempts: int = 0
    flaky_attempts: int = 0
    flaky_items: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()

    @property
    def cached(self) -> bool:
        """Whether all its tasks were skipped."""
        return 0 < self.tasks_cached == self.tasks

    @property
    def has_cached(self) -> bool:
        """Whether tasks, or items of a batch, were skipped."""
        return self.tasks_cached > 0 or self.scope is Scope.CACHED

    @property
    def retries(self) -> int:
        """How many attempts were retries, once all tasks have run."""
        return max(0, self.attempts - (self.tasks - self.tasks_cached))

    @property
    def checked(self) -> bool:
        """Whether this stage counts as an SLA check: it has a limit, and ended by itself or broke the limit."""
        ended = self.result not in (Result.SKIP, Result.CANCELLATION) and self.scope is not Scope.CACHED
        return self.sla is not None and (ended or self.broken)


class Bottleneck(Struct, frozen=True, kw_only=True):
    """A reason why a run was slow. `stage` None: the whole lane. `kind` is from a closed set in `families`.

    `sentence` states the fact; `advice` is the change and its gain, "" if no change would help.
    """

    kind: str
    stage: str | None
    sentence: str
    advice: str = ""

    @property
    def text(self) -> str:
        return f"{self.sentence}; {self.advice}" if self.advice else self.sentence


class PoolUse(Struct, frozen=True, kw_only=True):
    """The use of one pool in a run: its size at the start and at its peak, and the reason of the last change."""

    name: str
    start_size: int
    peak_size: int
    reason: str
    busy_seconds: float
    slot_seconds: float


class RunRecord(Struct, frozen=True, kw_only=True):
    """A run ended. `reason` explains in words why it is not a success; `critical_sla`: it broke a critical limit.

    `sequential_seconds` is the sum of its tasks' durations without their waits for a core; `busy_ratio` is busy seconds
    over slot seconds.
    `failed_only`: it left out only stages or items that have already succeeded, so that its success is the lane's.
    `advice`: what would have made a run of a single stage faster, since it has no other stages to compare with.
    """

    run_id: str
    lane: str
    strategy: Strategy
    result: Result
    reason: str
    duration_seconds: float
    started_timestamp_seconds: float
    ended_timestamp_seconds: float
    stages: tuple[StageRecord, ...]
    sequential_seconds: float
    busy_ratio: float
    total: SlaLimit | None = None
    warned: bool = False
    broken: bool = False
    critical_sla: bool = False
    interrupted: bool = False
    bottlenecks: tuple[Bottleneck, ...] = ()
    advice: str = ""
    pools: tuple[PoolUse, ...] = ()
    abandoned: tuple[str, ...] = ()
    partial: bool = False
    failed_only: bool = False
    shard: Shard | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it ran the whole lane: all stages, with all items and without arguments."""
        return not (self.partial or self.failed_only)

    @property
    def reached_critical_total(self) -> bool:
        """Whether the lane broke its own critical limit first, not a stage's."""
        if self.total is None or not self.critical_sla:
            return False
        return self.reason == f"{self.lane} broke its critical total of {self.total.max_seconds:g} s"

    @property
    def has_cached(self) -> bool:
        """Whether a task or item was skipped, so that the duration says nothing about the whole lane."""
        return any(stage.has_cached for stage in self.stages)

    @property
    def saved_seconds(self) -> float:
        """How long the skipped tasks took when they ran."""
        return sum(stage.saved_seconds for stage in self.stages)

    @property
    def checked(self) -> bool:
        """Whether the lane's total counts as one SLA check."""
        ended = self.result is not Result.CANCELLATION and not self.has_cached
        return self.total is not None and (ended or self.broken)


class Decision(Struct, frozen=True, kw_only=True):
    """A decision of the controller about a pool, with its reason and figures.

    `terms` are for people; `situation` and `choice` are the complete input and output as JSON, for replay.
    """

    pool: str
    action: str  # up, down, hold
    reason: str
    old_size: int
    new_size: int
    at_timestamp_seconds: float
    terms: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    run_id: str | None = None
    situation: str = ""
    choice: str = ""


class LiveStage(Struct, frozen=True, kw_only=True):
    """A running stage, measured until now. `cpu_seconds` and `cores` are those of attempts that have not ended yet.

    `cores`: how many cores these have used, each on average since its start. `predicted_seconds`: the expected duration
    of the whole stage.
    """

    lane: str
    stage: str
    tasks: int
    tasks_ended: int
    started_timestamp_seconds: float
    cpu_seconds: float
    memory_bytes: int
    tasks_running: int
    sla: SlaLimit | None = None
    predicted_seconds: float | None = None
    elapsed_seconds: float = 0.0
    cores: float = 0.0

    @property
    def near_limit(self) -> bool:
        """Whether it has passed its warning but not its limit."""
        return self.sla is not None and self.sla.warn_seconds <= self.elapsed_seconds < self.sla.max_seconds

    @property
    def predicted_breach(self) -> bool:
        """Whether it is expected to exceed its limit."""
        return self.predicted_ratio is not None and self.predicted_ratio > 1.0

    @property
    def predicted_ratio(self) -> float | None:
        """Its expected duration over its limit; None: it has no limit or no expected duration."""
        predicted, sla = self.predicted_seconds, self.sla
        return None if predicted is None or sla is None else predicted / sla.max_seconds

    @property
    def predicted_end_timestamp_seconds(self) -> float | None:
        """When it is expected to end, by the clock at its start, as its deadline is."""
        return None if self.predicted_seconds is None else self.started_timestamp_seconds + self.predicted_seconds


class PoolControl(Struct, frozen=True, kw_only=True):
    """The control state of one pool. `mode` and `source` are from closed sets in `families`."""

    pool: str
    mode: str
    source: str
    floor: int
    ceiling: int
    recommended_size: int
    no_data: bool = False
    flapping: bool = False


class QueryCounts(Struct, frozen=True, kw_only=True):
    """Queries to Prometheus so far: their durations in seconds by bucket (the last is +Inf), and errors by kind."""

    buckets: tuple[int, ...] = ()
    seconds: float = 0.0
    errors: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


class ControlView(Struct, frozen=True, kw_only=True):
    """The controller's state for a scrape."""

    pools: tuple[PoolControl, ...] = ()
    queries: QueryCounts = field(default_factory=QueryCounts)


class LastReload(Struct, frozen=True, kw_only=True):
    """Whether the config was loaded when it was last read, and when it was last loaded: None if unknown."""

    successful: bool = True
    success_timestamp_seconds: float | None = None


Event = RunStarted | StageStarted | TaskRecord | SlaRecord | StageRecord | RunRecord | Decision
