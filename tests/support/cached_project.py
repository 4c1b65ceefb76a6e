"""A project whose stages are Python functions, run by the real engine with the real cache and a store of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paropt_exporter.cache.open_cache import CacheSetup
from paropt_exporter.cache.remote import RemoteCache
from paropt_exporter.cache.result_store import Store
from paropt_exporter.cache.stage_cache import StageCache
from paropt_exporter.clock import SystemClock
from paropt_exporter.engine.inbox import QueueInbox
from paropt_exporter.engine.interfaces import RunningAttempt
from paropt_exporter.engine.outcome import Outcome
from paropt_exporter.engine.run import Run
from paropt_exporter.engine.workers import PoolAttempt
from paropt_exporter.events import CacheReason, Measurement, PoolUse, Result, RunningTask, StageRecord, TaskRecord
from paropt_exporter.executors.commands.command_pool import CommandPool
from paropt_exporter.plan import Commands, Plan, PlannedStage, PlannedTask, order_stages
from paropt_exporter.plan.stage_environment import build_command_environment
from paropt_exporter.testing import Recorder
from support import lanes

Work = Callable[[Path, Mapping[str, str], PlannedTask], str]


class Failed(Exception):
    """A stage's function fails."""


class Stopped(Exception):
    """A stage's function was interrupted."""


@dataclass
class _Done:
    pool: str
    label: str
    result: Outcome
    future: Future[object]
    started_seconds: float | None

    def stop(self, grace_seconds: float) -> None:
        """Do nothing: it has ended."""

    def give_up(self) -> None:
        """Do nothing: it has ended."""

    def outcome(self) -> Outcome:
        return self.result


@dataclass
class FunctionWorkers:
    """Workers that call a stage's function in the engine's thread. `ran` has the labels of all calls."""

    root: Path
    work: Mapping[str, Work]
    environ: Mapping[str, str]
    ran: list[str] = field(default_factory=list)

    def start(self, stage: PlannedStage, task: PlannedTask, label: str) -> RunningAttempt:
        self.ran.append(label)
        clock = SystemClock()
        began = clock.monotonic()
        result, output, message = Result.SUCCESS, "", ""
        try:
            output = self.work[stage.name](self.root, self.environ, task)
        except Failed as error:
            result, message = Result.FAILURE, str(error)
        except Stopped:
            result = Result.CANCELLATION
        measured = Measurement(worker="w", pid=1, started_seconds=began, ended_seconds=clock.monotonic())
        done: Future[object] = Future()
        done.set_result(None)
        path = str(stage.output_file) if stage.output_file is not None else None
        outcome = Outcome(result=result, message=message, output=output, output_path=path, measurement=measured)
        return _Done("commands", label, outcome, done, began)

    def choose_pool(self, stage: PlannedStage, task: PlannedTask) -> str:
        return "commands"

    def get_pool_size(self, pool: str) -> int:
        return 8

    def running(self) -> tuple[RunningTask, ...]:
        return ()

    def get_pool_uses(self) -> tuple[PoolUse, ...]:
        return ()

    def is_gil_bound(self, stage: str) -> bool:
        return False

    def get_abandoned_calls(self) -> tuple[str, ...]:
        return ()


@dataclass
class CommandWorkers(FunctionWorkers):
    """Workers that run the commands of stages that have no function, traced if the engine asks for it."""

    pool: CommandPool | None = None

    def start(self, stage: PlannedStage, task: PlannedTask, label: str) -> RunningAttempt:
        if stage.name in self.work:
            return super().start(stage, task, label)
        self.ran.append(label)
        assert self.pool is not None and isinstance(task.work, Commands)
        env = build_command_environment(stage, self.environ)
        future = self.pool.submit_commands(label, task.work.steps, cwd=stage.cwd, env=env, traced=stage.traced)
        pool = self.pool
        return PoolAttempt(
            "commands", label, future, lambda grace: pool.stop(future, grace_seconds=grace), pool.end_supervisor
        )


@dataclass
class Ran:
    """The result of a run: its stages and tasks, the functions that were called, and the lines that were shown."""

    stages: dict[str, StageRecord]
    tasks: list[TaskRecord]
    called: list[str]
    said: list[str]

    def is_cached(self, stage: str) -> bool:
        return self.stages[stage].cached

    def get_reason(self, stage: str) -> CacheReason | None:
        return next(task.cache for task in self.tasks if task.stage == stage)

    def get_output(self, stage: str) -> str:
        return "".join(task.output for task in self.tasks if task.stage == stage)


class CachedProject:
    """A folder with files. `work` has the functions of its stages by name."""

    def __init__(
        self,
        root: Path,
        store: Path,
        *,
        work: Mapping[str, Work],
        environ: Mapping[str, str] | None = None,
        trusts_after_seconds: float = 2.0,
    ):
        """`trusts_after_seconds`: the age from which the times of a file show each later change."""
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.store = Store(store)
        self.work = dict(work)
        self.environ = {"PATH": f"{root}/bin:/bin", "HOME": "/home/user", **(environ or {})}
        self.says: list[str] = []
        self.own_files: list[Path] = []  # those that the exporter writes
        self._shift_ns = round((2.0 - trusts_after_seconds) * 1e9)

    def write(self, **contents: str) -> None:
        """Write files whose names have `__` for each slash and `_DOT_` for the dot."""
        for name, content in contents.items():
            self.write_file(name.replace("__", "/").replace("_DOT_", "."), content)

    def write_file(self, name: str, content: str, *, mode: int | None = None) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        if mode is not None:
            path.chmod(mode)

    def build_stage(
        self, name: str, *, item: str | None = None, words: tuple[str, ...] = (), **fields: Any
    ) -> PlannedStage:
        items, command = fields.pop("items", (item,)), fields.pop("command", (name, *words))
        tasks = tuple(
            PlannedTask(index=index, item=each, work=Commands(steps=((*command, *([each] if each else [])),)))
            for index, each in enumerate(items)
        )
        fields.setdefault("inputs", ("src/**",))
        fields.setdefault("cached", True)
        fields.setdefault("cwd", self.root)
        return PlannedStage(number=fields.pop("number", 1), name=name, tasks=tasks, **fields)

    def run(
        self,
        *stages: PlannedStage,
        no_cache: bool = False,
        limit_bytes: int | None = None,
        remote: RemoteCache | None = None,
        pool: CommandPool | None = None,
        find_refusal: Callable[[], str] | None = None,
        **fields: Any,
    ) -> Ran:
        """Run the stages once, as a process of their own would: nothing but the store and its index is kept."""
        cache = self.build_cache(limit_bytes=limit_bytes, no_cache=no_cache, remote=remote, find_refusal=find_refusal)
        try:
            return self.run_with(cache, *stages, pool=pool, **fields)
        finally:
            cache.close()

    def build_cache(
        self,
        *,
        no_cache: bool = False,
        limit_bytes: int | None = None,
        remote: RemoteCache | None = None,
        find_refusal: Callable[[], str] | None = None,
    ) -> StageCache:
        """Return the cache of a process; the caller closes it."""
        setup = CacheSetup(
            root=self.root,
            store=Store(self.store.folder, limit_bytes=limit_bytes or self.store.limit_bytes),
            project="demo",
            environ=self.environ,
            clock=SystemClock(),
            say=lambda line: self.says.append(line),
            reads=not no_cache,
            remote=remote,
            own_files=self.own_files,
            read_clock_ns=lambda: time.time_ns() + self._shift_ns,
            find_refusal=find_refusal,
        )
        return StageCache(setup)

    def run_with(self, cache: StageCache, *stages: PlannedStage, pool: CommandPool | None = None, **fields: Any) -> Ran:
        """Run the stages once more in a process whose earlier runs had this cache."""
        plan: Plan = lanes.plan(*order_stages([*stages]), root=self.root, **fields)
        self.says = []
        recorder = Recorder()
        workers = CommandWorkers(self.root, self.work, self.environ, pool=pool)
        cache.begin_run()
        try:
            Run(
                plan,
                run_id="r1",
                workers=workers,
                emit=recorder.observe,
                inbox=QueueInbox(SystemClock()),
                clock=SystemClock(),
                memory_bytes=1 << 30,
                cache=cache,
            ).execute()
        finally:
            cache.end_run()
        records = {record.stage: record for record in recorder.of(StageRecord)}
        return Ran(records, recorder.of(TaskRecord), workers.ran, self.says)


def print_sources(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
    """Return all files in `src` with their contents: a stage that reads them."""
    paths = sorted(path for path in (root / "src").rglob("*") if path.is_file())
    return "".join(f"{path.relative_to(root)}: {path.read_text()}\n" for path in paths)
