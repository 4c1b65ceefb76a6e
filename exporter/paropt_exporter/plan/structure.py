"""The data of a plan: stages with their tasks and limits, and the bounds of the lane's size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct, field

from paropt_exporter.events import Scope, Shard, SlaLimit, Strategy
from paropt_exporter.executors.base import COMMANDS, RemoteTaskOptions
from paropt_exporter.plan.flakiness import Flakiness, OpenFailures


class Commands(Struct, frozen=True, kw_only=True):
    """Argument vectors that run one after another in one task. The first failure ends the task."""

    steps: tuple[tuple[str, ...], ...]


class Call(Struct, frozen=True, kw_only=True):
    """A call of a Python function, `module:function`. Dots after the colon reach into classes."""

    target: str
    arguments: tuple[str, ...] = ()


Work = Commands | Call


class PlannedTask(Struct, frozen=True, kw_only=True):
    """One task. `item` is its item, or None in a stage without items.

    A batch has all its items in `items` and its name in `item`; `items` is empty for any other task. `apart`: the parts
    of files that are separate items in any batch of the stage.
    """

    index: int
    item: str | None
    work: Work
    items: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()


class PlannedStage(Struct, frozen=True, kw_only=True):
    """One stage, ready to run.

    `skip` is the reason why it will not run, `fault` the reason why it can't ("" for none). A stage with a fault has no
    tasks and ends as an error; the others continue.

    Each of its tasks holds `slots` and `memory_bytes` while it runs. The stage holds its `locks` (or everything, if
    `exclusive`) from the start of its first task to the end of its last attempt. `expected_seconds`,
    `expected_task_seconds` and `fastest_task_seconds` are durations from the history (None: unknown) of the stage, its
    mean task and its fastest task; `failure_seconds` is that of its failures if its own is unknown, and
    `expected_cpu_demand` is the cores that a task wanted (None: unknown). `remaining_seconds` is the longest path from
    its start to the run's end.

    `template`: the commands with `{items}`, if its tasks are batches. `junit`: request a report with a result for each
    item. `scope`: which part of its work this run does; limits apply only to all of it. `is_split`: other shards run
    some of its items. `never_succeeded`: it ran before, without success. `remote`: how its tasks run on other hosts;
    None: they run on this one.

    `inputs` and `outputs` are patterns of `input_files`, relative to the config's folder; `inputs` None: the files that
    git does not ignore. `traces_inputs`: its inputs are the files that its commands are seen to use, and `inputs` count
    only where these can't be traced; `traced`: this run traces them; `allows_servers`: its results count although it
    connects to sockets. `cached`: skip the stage if nothing that it reads has changed; it then sees only its own
    variables, those that match `pass_env`, and a few standard ones. `needed_outputs`: the outputs of the stages that it
    needs, directly or not; `other_outputs`: those of all other stages, including stages that are not in the plan.
    `shared_output`: an output that another stage in neither relation may write, too; "" if there is none.
    `shared_by_items`: two of its items that may write the same file, even if one of them is not in the plan; "" if each
    has its own outputs.

    `quarantine`: the items whose failure does not fail the stage, each with its owner and last day.

    `flaky_retries`: how often a failure is retried that may be flaky, by the `flakiness` in earlier runs (None: it
    never was). `open_failures`: the failures of earlier runs with the same files.
    """

    number: int
    name: str
    tasks: tuple[PlannedTask, ...]
    needs: tuple[str, ...] = ()
    pool: str = COMMANDS
    retries: int = 0
    backoff_seconds: float = 1.0
    timeout_seconds: float | None = None
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    cwd: Path = Path()
    output_file: Path | None = None
    sla: SlaLimit | None = None
    locks: frozenset[str] = frozenset()
    exclusive: bool = False
    memory_bytes: int = 0
    slots: int = 1
    expected_seconds: float | None = None
    failure_seconds: float | None = None
    expected_task_seconds: float | None = None
    expected_cpu_demand: float | None = None
    fastest_task_seconds: float | None = None
    remaining_seconds: float = 0.0
    skip: str = ""
    fault: str = ""
    template: Commands | None = None
    junit: bool = False
    inputs: tuple[str, ...] | None = None
    traces_inputs: bool = False
    traced: bool = False
    allows_servers: bool = False
    outputs: tuple[str, ...] = ()
    cached: bool = False
    pass_env: tuple[str, ...] = ()
    needed_outputs: tuple[str, ...] = ()
    other_outputs: tuple[str, ...] = ()
    shared_output: str = ""
    shared_by_items: str = ""
    scope: Scope = Scope.ALL
    is_split: bool = False
    never_succeeded: bool = False
    remote: RemoteTaskOptions | None = None
    flaky_retries: int = 0
    quarantine: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    flakiness: Flakiness | None = None
    open_failures: OpenFailures | None = None


class Bounds(Struct, frozen=True, kw_only=True):
    """The bounds of a lane's size. `minimum == maximum` for a fixed size."""

    minimum: int
    maximum: int
    start: int

    @property
    def fixed(self) -> bool:
        return self.minimum == self.maximum


class Split(Struct, frozen=True, kw_only=True):
    """A lane's work, split into shards. `shards` has the stages of each, `loads_seconds` the work of each.

    `digest` identifies the split: it differs for other items or another history. `notes` are about stages and items
    that prevent an even split.
    """

    shards: tuple[tuple[PlannedStage, ...], ...]
    loads_seconds: tuple[float, ...]
    digest: str
    notes: tuple[str, ...] = ()


class Deadline(Struct, frozen=True, kw_only=True):
    """The seconds that a run may take, the seconds that it should take, and the stages that were left out for it."""

    seconds: float
    predicted_seconds: float
    left_out: tuple[str, ...]


class Plan(Struct, frozen=True, kw_only=True):
    """One lane, ready to run. `stages` are sorted by the longest remaining path, ties by number.

    `partial`: the command line left out stages or items, or gave some stages arguments. `failed_only`: --failed left
    out stages or items that have already succeeded. Neither run has a limit on its total. `split`: the whole split, if
    the plan is of one `shard`. `tree_state` identifies the files; "" if unknown. `choice`: a line that says which
    stages were chosen and left out, and why; "" if all were chosen. `default_limits`: the stages whose limit comes from
    a default lane; "" for the lane's total. `cores`: the cores by which the lane sizes itself; None: its size is fixed,
    or follows something else.
    """

    project: str
    lane: str
    strategy: Strategy
    workers: Bounds
    stages: tuple[PlannedStage, ...]
    total: SlaLimit | None = None
    fail_fast: bool = False
    root: Path = Path()
    notes: tuple[str, ...] = ()
    partial: bool = False
    failed_only: bool = False
    shard: Shard | None = None
    split: Split | None = None
    tree_state: str = ""
    choice: str = ""
    default_limits: frozenset[str] = frozenset()
    deadline: Deadline | None = None
    cores: float | None = None


class KnownItems(Struct, frozen=True, kw_only=True):
    """Measurements from a stage's earlier runs: the seconds of each item, and of a command's start.

    Long tests (`tests/test_a.py::test_b`) have their own entries, and their file's seconds exclude them.
    `seen_timestamp_seconds`: when each item was last measured.
    """

    seconds: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    start_up_seconds: float | None = None
    seen_timestamp_seconds: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


def compute_median(values: Sequence[float]) -> float:
    """Return the median of at least one value; the standard library's `statistics` would take 4 ms to load."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def compute_quantile(values: Sequence[float], ratio: float) -> float:
    """Return a quantile by nearest rank: the smallest value such that at least `ratio` of all values are no larger."""
    return sorted(values)[max(0, math.ceil(ratio * len(values) - 1e-9) - 1)]
