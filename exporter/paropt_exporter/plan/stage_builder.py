"""Build a stage of a plan from a stage of the config: its tasks, commands, environment, limits, inputs and outputs."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, assert_never

from paropt_exporter.config.needs import find_reachable, map_needs_among
from paropt_exporter.config.placeholders import ARGS, ITEM, ITEMS, SHELL, split_line
from paropt_exporter.config.virtual_environment import build_environment
from paropt_exporter.events import Scope, Strategy
from paropt_exporter.executors.base import COMMANDS, DASK, PROCESSES, THREADS, RemoteTaskOptions
from paropt_exporter.lazy_patterns import compile_later
from paropt_exporter.plan.structure import Call, Commands, PlannedStage, PlannedTask, Work

if TYPE_CHECKING:
    from paropt_exporter.changes import ChangeFinder
    from paropt_exporter.config import Config, Lane, Stage
    from paropt_exporter.config.values import Items

_PLACEHOLDER = compile_later(re.escape(ITEM) + "|" + re.escape(ARGS))


def choose_pool(stage: Stage, strategy: Strategy) -> str:
    """Return the pool of a stage. Unless the strategy determines the pool, the engine may use another one for calls."""
    if strategy is Strategy.DASK and not stage.local:
        return DASK
    if stage.call is None:
        return COMMANDS
    match strategy:
        case Strategy.PROCESS:
            return PROCESSES
        case Strategy.THREAD | Strategy.HYBRID | Strategy.ADAPTIVE | Strategy.SEQUENTIAL | Strategy.DASK:
            return THREADS
        case _:
            assert_never(strategy)


def is_cached(stage: Stage) -> bool:
    """Return whether an unchanged stage is skipped. A call never is, since it sees the state of this process."""
    return stage.call is None and (stage.cache == "always" or (stage.cache == "auto" and stage.inputs is not None))


def takes_arguments(stage: Stage) -> bool:
    """Return whether a stage's commands contain `{args}`."""
    return _contains(stage, ARGS)


class StageBuilder:
    """Builds the stages of one plan. `names`: the stages in it. `today`: the date that ends quarantines.

    `changes`: the changed files, for stages with such items; None: determine them when the first stage needs them.
    """

    def __init__(
        self,
        config: Config,
        lane: Lane,
        strategy: Strategy,
        *,
        names: Collection[str],
        changes: ChangeFinder | None,
        today: str,
    ) -> None:
        self._config = config
        self._root = config.root
        self._lane = lane
        self._strategy = strategy
        self._names = names
        self._changes = changes
        self._today = today
        self._environments: dict[Path, dict[str, str]] = {}  # by folder

    def build(self, stage: Stage, arguments: tuple[str, ...]) -> PlannedStage:
        """Return the stage, with `arguments` in place of `{args}`. Runs the command of its items."""
        folder = self._config.get_folder(stage)
        env = {**self._find_environment(folder), **stage.env}
        template = _build_template(stage, arguments)
        tasks, skip, fault = self._build_tasks(stage, template, arguments, folder, env)
        limit = None if arguments else self._lane.get_limit(stage)
        needed_outputs, other_outputs = self._find_outputs_of_others(stage) if is_cached(stage) else ((), ())
        pool = choose_pool(stage, self._strategy)
        outputs = _join_patterns(stage, stage.outputs)
        return PlannedStage(
            number=stage.number,
            name=stage.name,
            tasks=tasks,
            needs=self._needs_in_plan[stage.name],
            pool=pool,
            retries=stage.retries.count,
            flaky_retries=stage.retries.flaky,
            quarantine=_select_quarantined(stage, self._today),
            backoff_seconds=stage.retries.backoff,
            timeout_seconds=stage.timeout,
            env=MappingProxyType(env),
            cwd=folder,
            output_file=self._root / stage.file if stage.file else None,
            sla=limit.to_limit() if limit else None,
            locks=frozenset(stage.locks),
            exclusive=stage.exclusive,
            memory_bytes=0 if pool == DASK else stage.memory or 0,
            slots=stage.slots,
            skip=skip,
            fault=fault,
            template=template,
            junit=template is not None and _can_request_report(template, folder, self._root, env),
            inputs=None if stage.declared_inputs is None else _join_patterns(stage, stage.declared_inputs),
            traces_inputs=stage.traces_inputs and pool != DASK,
            allows_servers=stage.cache == "always",
            outputs=outputs,
            cached=is_cached(stage),
            pass_env=stage.pass_env,
            needed_outputs=needed_outputs,
            other_outputs=other_outputs,
            shared_output=self._shared_outputs.get(stage.name, "") if is_cached(stage) else "",
            shared_by_items=_describe_shared_outputs(stage.items, outputs, tasks, folder) if is_cached(stage) else "",
            scope=Scope.ARGUMENTS if arguments else Scope.ALL,
            remote=self._build_remote_options(stage) if pool == DASK else None,
        )

    def _find_environment(self, folder: Path) -> dict[str, str]:
        """Return the variables of the virtual environment for a folder, which many stages have in common."""
        if folder not in self._environments:
            self._environments[folder] = build_environment(folder, os.environ)
        return self._environments[folder]

    def _build_tasks(
        self, stage: Stage, template: Commands | None, arguments: tuple[str, ...], folder: Path, env: dict[str, str]
    ) -> tuple[tuple[PlannedTask, ...], str, str]:
        """Return a stage's tasks, the reason why it is skipped, and the reason why it can't run ("" for none)."""
        if stage.items is None:
            return (PlannedTask(index=0, item=None, work=_build_work(stage, None, arguments)),), "", ""
        # Here, as below, since few stages have items.
        from paropt_exporter.plan.items import ItemsError, describe_missing_items, describe_no_items

        place = self._config.places.get(stage.name, "")
        where = f"{place}: " if place else ""
        try:
            items = self._find_items(stage, stage.items, folder, env)
        except ItemsError as error:
            return (), "", f"{where}{error}"
        if not items and (stage.items.allow_empty or stage.items.changed is not None):
            return (), f"no items: {describe_no_items(stage.items)}", ""
        if not items:
            return (), "", f"{where}{describe_missing_items(stage.items)}"
        if template is not None:  # a single batch, until the order of the stages is known
            from paropt_exporter.plan import batches

            return (batches.build_task(template, 0, items),), "", ""
        each = [_build_work(stage, item, arguments) for item in items]
        return tuple(PlannedTask(index=n, item=items[n], work=work) for n, work in enumerate(each)), "", ""

    def _find_items(self, stage: Stage, items: Items, folder: Path, env: dict[str, str]) -> tuple[str, ...]:
        from paropt_exporter.plan.items import ItemsError, find_items

        if items.changed is None:
            return find_items(items, cwd=folder, env=env)
        from paropt_exporter.changes import ChangeFinder, UnknownChange
        from paropt_exporter.plan.affected import find_changed_items

        if self._changes is None:
            self._changes = ChangeFinder(self._root)  # for all stages: git takes 20 ms or more
        try:
            return find_changed_items(items.changed, self._changes.changes, root=self._root, cwd=stage.cwd)
        except UnknownChange as error:
            raise ItemsError(f"items: {error}") from None

    def _build_remote_options(self, stage: Stage) -> RemoteTaskOptions:
        """Return the options of tasks on other hosts, which receive only named variables of this process."""
        passed = {name: os.environ[name] for name in self._config.dask.pass_env if name in os.environ}
        folder = self._config.get_folder(stage)
        programs = self._find_environment(folder).get("PATH", "").partition(os.pathsep)[0]
        root = os.path.abspath(self._root)  # noqa: PTH100 -- a link stays as it is named
        return RemoteTaskOptions(
            folder=stage.cwd or "",
            env=MappingProxyType({**passed, **stage.env}),
            slots=stage.slots,
            memory_bytes=stage.memory or 0,
            outputs=_join_patterns(stage, stage.outputs),
            programs=os.path.relpath(programs, root) if programs.startswith(root + os.sep) else programs,
        )

    def _find_outputs_of_others(self, stage: Stage) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return a stage's `needed_outputs` and `other_outputs`, which don't depend on the command line's selection.

        Outputs that the stage's own inputs name with `{item}` are left out: each task reads only its item's file, and
        one new file must not run all of them.
        """
        needed = find_reachable(stage.needs, lambda name: self._needs.get(name, ())) - {stage.name}
        written, known = self._written.items(), needed | {stage.name}
        by_item = _list_inputs_by_item(stage)
        return (
            tuple(each for name, patterns in written if name in needed for each in patterns if each not in by_item),
            tuple(chain.from_iterable(patterns for name, patterns in written if name not in known)),
        )

    @cached_property
    def _shared_outputs(self) -> Mapping[str, str]:
        from paropt_exporter.plan.shared_outputs import map_shared_outputs  # here, as below: few stages have outputs

        return map_shared_outputs(self._config.stages)

    @cached_property
    def _needs(self) -> Mapping[str, Sequence[str]]:
        return {stage.name: stage.needs for stage in self._config.stages}

    @cached_property
    def _needs_in_plan(self) -> Mapping[str, tuple[str, ...]]:
        return map_needs_among(self._names, self._needs)

    @cached_property
    def _written(self) -> Mapping[str, Sequence[str]]:
        """The patterns of all files that each stage of the config may write, without stages that write none."""
        writers = [stage for stage in self._config.stages if stage.outputs or stage.file]
        if not writers:
            return {}
        from paropt_exporter.plan.stage_patterns import list_written

        return {stage.name: list_written(stage) for stage in writers}


def _select_quarantined(stage: Stage, today: str) -> Mapping[str, str]:
    if not stage.quarantine:
        return MappingProxyType({})
    from paropt_exporter.plan.quarantine import select_quarantined  # here: few stages have one

    return select_quarantined(stage, today)


def _can_request_report(template: Commands, folder: Path, root: Path, env: Mapping[str, str]) -> bool:
    from paropt_exporter.plan import pytest_support  # here: most stages have no items

    return pytest_support.can_request_report(template, folder, root, env)


def _describe_shared_outputs(
    items: Items | None, outputs: Sequence[str], tasks: Sequence[PlannedTask], folder: Path
) -> str:
    """Return two items that may write the same file. If items are changed files, unchanged ones count as well."""
    if items is None or not outputs:
        return ""
    from paropt_exporter.input_files import InputPatterns
    from paropt_exporter.plan.item_outputs import describe_shared_outputs

    names = [item for task in tasks for item in task.items or (task.item,) if item is not None]
    if items.changed is not None:
        with suppress(OSError):
            found = InputPatterns((items.changed,)).find_readable_files(os.fspath(folder))
            names += [f"./{path}" if path.startswith("-") else path for path, _ in found]  # the form that items have
    return describe_shared_outputs(outputs, names)


def _list_inputs_by_item(stage: Stage) -> frozenset[str]:
    """Return the patterns of inputs that belong to single items, with wildcards in place of the item."""
    patterns = [each for each in stage.inputs or () if ITEM in each and not each.startswith("!")]
    if not patterns:
        return frozenset()
    from paropt_exporter.plan.stage_patterns import join_for_any_item

    return frozenset(join_for_any_item(stage, patterns))


def _join_patterns(stage: Stage, patterns: Sequence[str]) -> tuple[str, ...]:
    """Return patterns relative to the config's folder instead of the stage's."""
    if not patterns:
        return ()
    from paropt_exporter.plan.stage_patterns import join_patterns

    return join_patterns(stage, patterns)


def _build_template(stage: Stage, arguments: tuple[str, ...]) -> Commands | None:
    """Return the commands with `{items}`; None if a task has at most one item."""
    if stage.items is None or not _contains(stage, ITEMS):
        return None
    return _build_commands(stage, None, arguments)


def _contains(stage: Stage, placeholder: str) -> bool:
    return any(
        placeholder in part
        for command in stage.commands
        for part in ((command,) if isinstance(command, str) else command)
    )


def _build_work(stage: Stage, item: str | None, arguments: tuple[str, ...]) -> Work:
    if stage.call is not None:
        return Call(target=stage.call, arguments=() if item is None else (item,))
    return _build_commands(stage, item, arguments)


def _build_commands(stage: Stage, item: str | None, arguments: tuple[str, ...]) -> Commands:
    return Commands(
        steps=tuple(_build_words(command, item, arguments, shell=stage.shell) for command in stage.commands)
    )


def _build_words(
    command: str | tuple[str, ...], item: str | None, arguments: tuple[str, ...], *, shell: bool
) -> tuple[str, ...]:
    """Return an argument vector with the item and the arguments in place of `{item}` and `{args}`.

    The line is split first, so that an item stays one word. Both placeholders are replaced at once, so that a value
    with a placeholder in it stays as it is.
    """
    if isinstance(command, str) and shell:
        quoted = {ARGS: shlex.join(arguments)} | ({} if item is None else {ITEM: shlex.quote(item)})
        return (*SHELL, _PLACEHOLDER.sub(lambda found: quoted.get(found[0], found[0]), command))
    words = split_line(command) if isinstance(command, str) else command
    filled: list[str] = []
    for word in words:
        if word == ARGS:
            filled += arguments
        else:
            filled.append(word if item is None else word.replace(ITEM, item))
    return tuple(filled)
