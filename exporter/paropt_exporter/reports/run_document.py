"""The objects of the JSON document of a run, which `--report json=FILE` and `--output json` write.

The string below a key describes it in the document's JSON Schema, which `monitoring.schema` renders. Durations are in
seconds, timestamps in seconds since 1970, and memory in bytes.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from paropt_exporter.events import Result, Scope, Strategy
from paropt_exporter.findings import Level

TITLE = "The run of a lane, as --report json=FILE and --output json write it"
VERSION = 1  # of the format: raise it if a key is renamed, removed, or changes its meaning


class Finding(Struct, frozen=True, kw_only=True):
    """A place and a message in the output of an attempt."""

    message: str
    """What the tool reported."""
    path: str | None
    """The file, as the tool wrote it: absolute, or relative to the folder of the stage."""
    line: int | None
    """The line, from 1."""
    column: int | None
    """The column, from 1."""
    rule: str | None
    """The tool's name for the kind of finding, such as F401."""
    test: str | None
    """The id of the failing test."""
    level: Level
    """Whether the tool reported an error or a warning."""


class Attempt(Struct, frozen=True, kw_only=True):
    """One attempt of a task."""

    attempt: int
    """The number of the attempt, from 1; later ones are retries."""
    result: Result
    """How the attempt ended."""
    message: str
    """Why it did not succeed, in one line; empty for a success."""
    worker: str
    """The worker that ran it."""
    pool: str
    """The pool of this worker."""
    started_timestamp_seconds: float
    """When it started."""
    duration_seconds: float
    """From its start to its end."""
    queue_wait_seconds: float
    """How long it was ready before it started."""
    cpu_seconds: float
    """The CPU time of its processes."""
    run_delay_seconds: float
    """How long its threads waited for a core."""
    memory_peak_bytes: int
    """The peak of its memory."""
    exit_code: int | None
    """The exit code of a command that ended by itself, otherwise null."""
    signal: int | None
    """The number of the signal that ended the command, otherwise null."""
    output_file: str | None
    """The file of the stage's key `file`, if the whole output is in it."""
    findings: list[Finding]
    """What its output reports; up to 200, and up to 5,000 in a run."""


class Item(Struct, frozen=True, kw_only=True):
    """An item of a batch."""

    item: str
    """The item."""
    result: Result
    """Its last result."""
    duration_seconds: float | None
    """How long it took; null if it is unknown, or if its earlier result still holds."""


class Task(Struct, frozen=True, kw_only=True):
    """A task with its attempts."""

    task: int
    """The number of the task within its stage, from 0."""
    item: str | None
    """Its item, or the name of its batch; null if the stage has no items."""
    result: Result
    """The result of its last attempt; if it was skipped since nothing had changed, that of the earlier run."""
    cached: bool
    """Whether it was skipped since nothing had changed."""
    items: list[Item]
    """The items of a batch."""
    attempts: list[Attempt]
    """Its attempts in this run, the first one first; none if it was skipped since nothing had changed."""


class Limit(Struct, frozen=True, kw_only=True):
    """A limit on a duration."""

    max_seconds: float
    """The limit, which is broken from this duration on."""
    warn_seconds: float
    """The duration from which on there is a warning."""
    critical: bool
    """Whether breaking it stops the lane."""


class Stage(Struct, frozen=True, kw_only=True):
    """A stage as it ended."""

    stage: str
    """The name of the stage."""
    number: int
    """Its number."""
    result: Result
    """How it ended."""
    message: str
    """Why it did not succeed, in one line; empty for a success."""
    pool: str
    """The pool that ran its tasks."""
    started_timestamp_seconds: float | None
    """When its first task started; null if none did, as in a skipped stage or if nothing had changed."""
    duration_seconds: float
    """From the start of its first task to the end of the last one."""
    cpu_seconds: float
    """The CPU time of all its attempts."""
    memory_peak_bytes: int
    """The highest peak of one of its attempts."""
    scope: Scope
    """Whether it ran all of its work, the part that was not cached, failed items or those of a shard (`items`), or
    items or arguments of the command line (`arguments`).
    """
    task_count: int
    """How many tasks it has."""
    tasks_failed: int
    """How many of them ended without a success; tasks that never started are not counted."""
    attempt_count: int
    """How many attempts ran, retries included."""
    tasks_cached: int
    """How many tasks were skipped since nothing had changed."""
    saved_seconds: float
    """How long the skipped tasks took when they ran."""
    cache_note: str
    """Why a cached stage ran; empty if it did not."""
    first_attempts: int
    """How many first attempts ended by themselves."""
    flaky_attempts: int
    """How many first attempts, of this run or of earlier ones, failed and have since passed with the same files."""
    flaky_items: list[str]
    """The items of these attempts."""
    quarantined: list[str]
    """The items that failed in quarantine, each with its owner and last day."""
    sla: Limit | None
    """Its limit; null if it has none."""
    sla_warned: bool
    """Whether it reached the warning."""
    sla_broken: bool
    """Whether it reached the limit."""
    advice: str
    """How to make it faster, in one line; empty if nothing is known."""
    tasks: list[Task] | UnsetType = UNSET
    """Its tasks. Only in the report."""


class ReachedLimit(Struct, frozen=True, kw_only=True):
    """A limit, or its warning, that was reached during the run."""

    stage: str | None
    """The stage; null: the whole lane."""
    limit: Limit
    """The limit."""
    broken: bool
    """Whether the limit itself was reached, or only its warning."""
    elapsed_seconds: float
    """The duration until then."""
    at_timestamp_seconds: float
    """When it was reached."""


class Pool(Struct, frozen=True, kw_only=True):
    """The use of a pool."""

    name: str
    """The name of the pool."""
    start_size: int
    """Its workers at the start of the run."""
    peak_size: int
    """The most workers that it had."""
    reason: str
    """The reason of the last change."""
    busy_seconds: float
    """How long its workers ran tasks, in total."""
    slot_seconds: float
    """How long its workers existed, in total."""


class Decision(Struct, frozen=True, kw_only=True):
    """A decision about the size of a pool."""

    pool: str
    """The pool."""
    action: Literal["up", "down", "hold"]
    """Whether the pool grew, shrank or kept its size."""
    reason: str
    """The reason, as in the metric paropt_control_decisions_total."""
    old_size: int
    """Workers before."""
    new_size: int
    """Workers from then on."""
    at_timestamp_seconds: float
    """When it was made."""


class Bottleneck(Struct, frozen=True, kw_only=True):
    """A reason why the run was slow."""

    kind: str
    """The kind, as in the metrics paropt_bottleneck and paropt_lane_bottleneck."""
    stage: str | None
    """The stage; null: the whole lane."""
    sentence: str
    """What was slow."""
    advice: str
    """What would help, and how much; empty if nothing would."""


class Run(Struct, frozen=True, kw_only=True):
    """A run that has ended."""

    version: int
    """The version of this format: it changes if a key is renamed, removed, or changes its meaning."""
    run_id: str
    """The id of the run, as in `history`."""
    lane: str
    """The lane."""
    shard: str | None
    """The part of the lane that ran, such as 2/5; null: all of it."""
    split: str | None
    """The id of the split into shards, which is the same for all of them."""
    strategy: Strategy
    """The strategy of the lane."""
    partial: bool
    """Whether the command line left out stages or items, or gave arguments to some."""
    result: Result
    """How the run ended."""
    reason: str
    """Why it did not succeed, in one line; empty for a success."""
    interrupted: bool
    """Whether it was stopped by Ctrl-C or a signal."""
    started_timestamp_seconds: float
    """When it started."""
    ended_timestamp_seconds: float
    """When it ended."""
    duration_seconds: float
    """From its start to its end."""
    sequential_seconds: float
    """How long its tasks would have taken one after another: the sum of their durations, without waits for a core."""
    speedup: float | None
    """How many times as long they would have taken; null if none ran."""
    busy_ratio: float
    """The part of their time that the workers of all pools were busy, from 0 to 1."""
    total: Limit | None
    """The limit of the whole lane; null if it has none."""
    sla_warned: bool
    """Whether the run reached the warning of this limit."""
    sla_broken: bool
    """Whether the run reached this limit."""
    advice: str
    """How to make a run of a single stage faster, in one line; empty if nothing is known."""
    stages: list[Stage]
    """Its stages, in the order of their numbers."""
    pools: list[Pool]
    """The pools that ran tasks."""
    bottlenecks: list[Bottleneck]
    """Why it was slow."""
    project: str | UnsetType = UNSET
    """The project. Only in the report."""
    log: str | UnsetType | None = UNSET
    """The file with the whole output of its tasks; null if it was not kept. Only in the report."""
    slas: list[ReachedLimit] | UnsetType = UNSET
    """The warnings and limits that were reached, in this order. Only in the report."""
    decisions: list[Decision] | UnsetType = UNSET
    """The decisions about the sizes of pools. Only in the report."""
