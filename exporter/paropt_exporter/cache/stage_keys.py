"""The keys of a stage's parts by its files, tools and variables at one moment, and the sums of the parts' results."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.cache.digests import hash_bytes
from paropt_exporter.cache.entry import Entry
from paropt_exporter.cache.file_states import FileStates, Snapshot, UnusableFile
from paropt_exporter.cache.inputs import (
    RecordedInputs,
    StageInputs,
    expect_outputs,
    find_changed_file,
    find_own_input,
    get_relative_cwd,
    list_output_file,
    list_written,
    read_inputs,
    read_recorded_inputs,
)
from paropt_exporter.cache.keys import FORMAT, StageKey, TaskKey, build_listing
from paropt_exporter.cache.misses import Miss
from paropt_exporter.cache.tools import Tools, find_environment
from paropt_exporter.cache.walk_records import build_record
from paropt_exporter.engine.interfaces import CachedTask, StageLookup, UncachedTask
from paropt_exporter.events import CacheReason, Scope
from paropt_exporter.input_files import ITEM, InputPatterns, escape_pattern, fill_item
from paropt_exporter.plan.stage_environment import build_command_environment, select_keyed_variables
from paropt_exporter.plan.structure import Commands, PlannedStage, PlannedTask

_NO_STATES: Mapping[str, str] = MappingProxyType({})


class StagePart(Struct, frozen=True, eq=False):  # each is one object: the hash of a long command would cost more
    """A part of a stage with its own result: a task, or one item of a batch. `owner`: the index of its task."""

    task: PlannedTask
    owner: int


class StageReading(Struct, frozen=True, kw_only=True):
    """A stage's parts with their keys. `listings` has the lists of files by digest.

    With recorded inputs it lacks the list of the shared files, which suffices for hits, but not for tasks that run. A
    stage with traced inputs has weak keys (`path_sets`), without any list.
    """

    stage: PlannedStage
    parts: tuple[StagePart, ...]
    inputs: StageInputs | RecordedInputs
    tools: Mapping[str, str]
    keys: Mapping[StagePart, TaskKey]
    listings: Mapping[str, bytes]

    @property
    def is_recorded(self) -> bool:
        return isinstance(self.inputs, RecordedInputs)

    @property
    def has_results_by_item(self) -> bool:
        """Whether its parts share no output."""
        return len(self.parts) > 1 and all(ITEM in pattern for pattern in self.stage.outputs)

    def list_digests(self) -> list[str]:
        return [key.digest for key in self.keys.values()]


class StageReader:
    """Reads the keys of stages, and compares inputs with an earlier reading. Only one thread may use it at a time."""

    def __init__(
        self,
        root: Path,
        states: FileStates,
        environ: Mapping[str, str],
        secret: bytes,
        own_files: Iterable[Path] = (),
    ) -> None:
        """`own_files`: the files that the exporter itself writes. Stages without named inputs don't depend on them."""
        self._root = root
        self._states = states
        self._environ = environ
        self._secret = secret
        top = os.path.realpath(root)
        self._own_files = tuple(escape_pattern(os.path.relpath(os.path.realpath(path), top)) for path in own_files)

    def read(self, stage: PlannedStage, expected: Mapping[str, str] = _NO_STATES) -> StageReading:
        """Return the keys of a stage's parts. Raises UnusableFile if one of its inputs has no comparable state.

        `expected`: the states of outputs of needed stages that are not yet in place, for a preview.
        """
        self._check_outputs(stage)
        parts, tools = list_parts(stage), self._identify_tools(stage)
        inputs = self._read_inputs(stage, parts)
        if expected and not stage.traces_inputs:
            inputs = expect_outputs(os.fspath(self._root), stage, [part.task for part in parts], inputs, expected)
        listings: dict[str, bytes] = {}
        if stage.traces_inputs:
            keys = self._build_keys(stage, parts, tools, "", {})
            return StageReading(stage=stage, parts=parts, inputs=inputs, tools=tools, keys=keys, listings=listings)
        shared = _add_listing(listings, inputs.shared)
        own = {index: _add_listing(listings, snapshot) for index, snapshot in inputs.own.items()}
        keys = self._build_keys(stage, parts, tools, shared, own)
        reading = StageReading(stage=stage, parts=parts, inputs=inputs, tools=tools, keys=keys, listings=listings)
        if inputs.walked is not None and self.find_own_input(reading) is None:
            folder = os.fspath(self._root)
            record = build_record(folder, shared, inputs.walked, inputs.roots, inputs.shared)
            if record is not None:
                self._states.keep_record(self._name_record(stage), record, inputs.shared)
        return reading

    def read_recorded(self, stage: PlannedStage) -> StageReading | None:
        """Return the keys of a stage if its record of shared files still holds, otherwise None.

        Raises UnusableFile.
        """
        record = self._states.find_record(self._name_record(stage))
        if record is None:
            return None
        self._check_outputs(stage)
        parts, tools = list_parts(stage), self._identify_tools(stage)
        inputs = read_recorded_inputs(self._states, record, stage, [part.task for part in parts])
        if inputs is None:
            return None
        listings: dict[str, bytes] = {}
        own = {index: _add_listing(listings, snapshot) for index, snapshot in inputs.own.items()}
        keys = self._build_keys(stage, parts, tools, inputs.listing, own)
        return StageReading(stage=stage, parts=parts, inputs=inputs, tools=tools, keys=keys, listings=listings)

    def _check_outputs(self, stage: PlannedStage) -> None:
        """Raise UnusableFile if the stage's outputs can't be restored.

        If several tasks or stages write files of the same pattern, the result of one would include the others' files,
        as they were at that time.
        """
        if stage.shared_output:
            raise UnusableFile(f"another stage may write {stage.shared_output}, too: give each its own outputs")
        has_items = any(task.items or task.item is not None for task in stage.tasks)
        is_split = len(stage.tasks) > 1 or stage.scope is Scope.ITEMS or (stage.scope is Scope.ARGUMENTS and has_items)
        shared = [pattern for pattern in stage.outputs if ITEM not in pattern and not pattern.startswith("!")]
        if is_split and shared:
            raise UnusableFile(f"its tasks share the outputs {shared[0]}: put {ITEM} into them")
        if stage.shared_by_items:
            raise UnusableFile(f"{stage.shared_by_items}: give each its own outputs, such as {ITEM}/**")
        root = os.fspath(self._root)
        written = map(posixpath.normpath, list_written(stage, root) if stage.outputs else ())
        if outside := next((pattern for pattern in written if pattern.startswith(("/", "../"))), None):
            if outside.startswith(f"{root}/"):
                raise UnusableFile(
                    f"its output {outside} is an absolute path: use items relative to the stage's folder"
                )
            raise UnusableFile(f"its output {outside} is outside of the project, and is not restored")
        if stage.output_file is None:
            return
        if len(stage.tasks) > 1:
            raise UnusableFile("the output of several tasks goes into one file: leave `file` out")
        path = posixpath.relpath(stage.output_file, self._root)
        if path.startswith("../"):
            raise UnusableFile(f"its output goes to {path}, and no file outside of the project is restored")

    def _name_record(self, stage: PlannedStage) -> str:
        """Return a name for the stage's record, which differs if walks or outputs differ."""
        written = list_written(stage, os.fspath(self._root))
        return repr((FORMAT, stage.inputs, stage.needed_outputs, os.fspath(stage.cwd), written))

    def _build_keys(
        self,
        stage: PlannedStage,
        parts: Sequence[StagePart],
        tools: Mapping[str, str],
        shared: str,
        own: Mapping[int, str],
    ) -> dict[StagePart, TaskKey]:
        """Return the keys of parts.

        `shared`: the digest of the list of shared files; `own`: those of the lists of single parts, by index.
        """
        stage_key = StageKey(
            cwd=get_relative_cwd(os.fspath(self._root), stage),
            outputs=(*stage.outputs, *list_output_file(stage, os.fspath(self._root))),
            variables=select_keyed_variables(stage, self._environ),
            tools=tools,
            secret=self._secret,
            search_path=self._find_search_path(stage) if stage.traces_inputs else "",
        )
        if stage.traces_inputs:
            return {part: stage_key.build(part.task, ()) for part in parts}
        return {
            part: stage_key.build(part.task, (shared, own[part.task.index]) if part.task.index in own else (shared,))
            for part in parts
        }

    def find_own_input(self, reading: StageReading) -> Miss | None:
        """Return why a stage that writes one of its own inputs has no result; None if it does not."""
        path = find_own_input(list_written(reading.stage, os.fspath(self._root)), reading.inputs)
        return None if path is None else Miss(CacheReason.OWN_INPUT, f"it writes its own input {path}: leave that out")

    def find_changes(self, reading: StageReading) -> dict[StagePart, Miss]:
        """Return the parts whose results don't count since inputs changed after a reading, each with the reason."""
        stage, before = reading.stage, reading.inputs
        assert isinstance(before, StageInputs)
        try:
            now = self._read_inputs(stage, reading.parts)
            if (path := find_changed_file(before.shared, now.shared)) is not None:
                return dict.fromkeys(reading.parts, _build_edited(path))
            if self._identify_tools(stage) != reading.tools:
                return dict.fromkeys(reading.parts, _build_edited("a tool"))
        except UnusableFile as error:
            return dict.fromkeys(reading.parts, Miss(CacheReason.UNCACHEABLE, str(error)))
        indexes = ((part, part.task.index) for part in reading.parts)
        own = ((part, find_changed_file(before.own.get(index, {}), now.own.get(index, {}))) for part, index in indexes)
        return {part: _build_edited(path) for part, path in own if path is not None}

    def _read_inputs(self, stage: PlannedStage, parts: Sequence[StagePart]) -> StageInputs:
        if stage.traces_inputs:  # its inputs are known only after it has run
            return StageInputs({})
        if stage.inputs is None and self._own_files:
            stage = replace(stage, other_outputs=(*stage.other_outputs, *self._own_files))
        return read_inputs(self._states, stage, [part.task for part in parts])

    def _identify_tools(self, stage: PlannedStage) -> dict[str, str]:
        variables = build_command_environment(stage, self._environ)
        steps = dict.fromkeys(chain.from_iterable(map(_iter_steps_without_items, stage.tasks)))
        tools = Tools(self._root, self._states, variables.get("HOME", ""))
        path, environment = variables.get("PATH", os.defpath), find_environment(variables)
        conda = find_environment(variables, "CONDA_PREFIX")
        root = os.fspath(self._root)
        version = variables.get("PYENV_VERSION")
        return {
            **tools.identify(
                steps, cwd=stage.cwd, path=path, environment=environment, conda=conda, python_version=version
            ),
            **tools.identify_node_packages(
                get_relative_cwd(root, stage), lambda: InputPatterns(list_written(stage, root))
            ),
        }

    def _find_search_path(self, stage: PlannedStage) -> str:
        return build_command_environment(stage, self._environ).get("PATH", os.defpath)


def _iter_steps_without_items(task: PlannedTask) -> Iterator[tuple[str, ...]]:
    """Yield the commands of a task without the words that are items, of which thousands would be looked up on PATH."""
    items = frozenset(task.items or (task.item,))
    for step in task.work.steps if isinstance(task.work, Commands) else ():
        yield (*step[:1], *(word for word in step[1:] if word not in items))


def _build_edited(name: str) -> Miss:
    return Miss(CacheReason.EDITED, f"{name} changed during the run")


def list_parts(stage: PlannedStage) -> tuple[StagePart, ...]:
    """Return the parts of a stage that have their own results.

    The items of a batch are such parts, since each run may cut other batches, unless an output, such as the stage's
    `file`, belongs to a whole batch.
    """
    parts: list[StagePart] = []
    by_item = stage.output_file is None and all(ITEM in pattern for pattern in stage.outputs)
    for task in stage.tasks:
        if stage.template is None or not task.items or not by_item:
            parts.append(StagePart(replace(task, index=len(parts)), task.index))
            continue
        from paropt_exporter.plan.batches import build_task  # here: few stages have batches

        for item in task.items:
            parts.append(StagePart(build_task(stage.template, len(parts), (item,), task.apart), task.index))
    return tuple(parts)


def group_parts(parts: Iterable[StagePart]) -> dict[int, list[StagePart]]:
    """Return the parts of each task by its index."""
    grouped: dict[int, list[StagePart]] = {}
    for part in parts:
        grouped.setdefault(part.owner, []).append(part)
    return grouped


def list_outputs(stage: PlannedStage, task: PlannedTask, root: Path) -> tuple[str, ...]:
    """Return the patterns of a task's outputs, with the file of its output."""
    folder = os.fspath(root)
    patterns: list[str] = []
    for item in (task.items or (task.item,)) if stage.outputs else ():
        patterns += fill_item(stage.outputs, item, get_relative_cwd(folder, stage))
    return tuple(dict.fromkeys([*patterns, *list_output_file(stage, folder)]))


def _add_listing(listings: dict[str, bytes], snapshot: Snapshot) -> str:
    content = build_listing(snapshot)
    digest = hash_bytes(content)
    listings[digest] = content
    return digest


class KeptTask(Struct, frozen=True):
    """A kept result, and its output."""

    entry: Entry
    output: str


def miss_all(stage: PlannedStage, why: Miss) -> StageLookup:
    """Return a lookup in which all tasks run, for one reason."""
    missed = UncachedTask(reason=why.reason, note=why.text)
    return StageLookup(hits={}, misses={task.index: missed for task in stage.tasks}, note=why.text)


def sum_up(reading: StageReading, found: Mapping[StagePart, KeptTask | Miss]) -> StageLookup:
    """Return which tasks are skipped and which run, from the results of their parts."""
    hits: dict[int, CachedTask] = {}
    misses: dict[int, UncachedTask] = {}
    narrowed: dict[int, tuple[str, ...]] = {}
    saved_seconds = 0.0
    for owner, group in groupby(reading.parts, key=lambda part: part.owner):
        parts = [(part, found[part]) for part in group]
        results = [result for _, result in parts if isinstance(result, KeptTask)]
        missed = [(part, why) for part, why in parts if isinstance(why, Miss)]
        if not missed:
            hits[owner] = _merge_results(results)
            continue
        why = missed[0][1]
        misses[owner] = UncachedTask(reason=why.reason, note=why.text)
        if results:
            narrowed[owner] = tuple(item for part, _ in missed for item in part.task.items)
            saved_seconds += sum(result.entry.seconds for result in results)
    return StageLookup(
        hits=hits,
        misses=misses,
        narrowed=narrowed,
        saved_seconds=saved_seconds,
        note=_describe_misses(found),
        traces=reading.stage.traces_inputs,
    )


def _merge_results(results: Sequence[KeptTask]) -> CachedTask:
    """Return the result of a task from those of its parts, including each output once."""
    outputs = {result.entry.output: result.output for result in results}
    return CachedTask(output="".join(outputs.values()), seconds=sum(each.entry.seconds for each in results))


def _describe_misses(found: Mapping[StagePart, KeptTask | Miss]) -> str:
    missed = [(part, why) for part, why in found.items() if isinstance(why, Miss)]
    if not missed:
        return ""
    (part, why), *others = missed
    item = part.task.item
    same_for_all = len(missed) == len(found) and all(other.text == why.text for _, other in others)
    named = why.text if item is None or same_for_all or why.text.startswith(item) else f"{item}: {why.text}"
    more = f" (and {len(others)} more)" if others and not same_for_all else ""
    unchanged = len(found) - len(missed)
    return f"{unchanged} of {len(found)} items unchanged; {named}{more}" if unchanged else f"{named}{more}"
