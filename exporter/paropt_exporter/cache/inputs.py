"""The files that a task's result depends on, with their current states."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain

from msgspec import Struct, field

from paropt_exporter.cache.file_states import ABSENT, FileStates, Snapshot, UnusableFile, get_state
from paropt_exporter.cache.walk_records import Record, is_unchanged, list_paths
from paropt_exporter.input_files import (
    ITEM,
    FoundFile,
    InputPatterns,
    NoGit,
    WalkedFolder,
    escape_pattern,
    fill_item,
    list_git_files,
    walk_folder,
)
from paropt_exporter.plan.implied_inputs import iter_named_paths, iter_settings
from paropt_exporter.plan.structure import Commands, PlannedStage, PlannedTask

_PYTHON_SOURCES, _MODULES = (".py", ".pyi", ".pyx"), (".so", ".py", ".pyi")
_KERNEL_FOLDERS = ("/proc/", "/sys/", "/dev/")


class StageInputs(Struct, frozen=True):
    """The files of a stage: those that all its tasks share, and further ones of single tasks, by index.

    `walked` has the folders that were read for the patterns of `roots`; None if git listed the files.
    """

    shared: Snapshot
    own: Mapping[int, Snapshot] = field(default_factory=dict)
    walked: Sequence[WalkedFolder] | None = None
    roots: Sequence[str] = ()

    def list_paths(self) -> Iterator[str]:
        yield from self.shared
        for each in self.own.values():
            yield from each


class RecordedInputs(Struct, frozen=True):
    """The files of a stage if its record still holds: the digest of their list, and the files of single tasks."""

    listing: str
    own: Mapping[int, Snapshot]

    def list_paths(self) -> Iterator[str]:
        """Yield the paths of single tasks' files. None of the others is an output: such files are in no record."""
        for each in self.own.values():
            yield from each


def read_inputs(states: FileStates, stage: PlannedStage, tasks: Sequence[PlannedTask]) -> StageInputs:
    """Return the states of all files that the tasks depend on. Raises UnusableFile."""
    folder = states.folder
    walked: list[WalkedFolder] = []
    written = InputPatterns(list_written(stage, folder))
    try:
        shared = _find_shared(folder, stage, walked)
        own = {task.index: _find_own(folder, stage, task, written) for task in tasks}
    except OSError as error:
        raise UnusableFile(f"{error.filename} can't be read: {error.strerror}") from None
    except NoGit as error:
        raise UnusableFile(f"{error}: name its `inputs`") from None
    _check_matches(folder, stage, shared)
    missing = dict.fromkeys((path for path, state in shared.items() if state is None), ABSENT)
    there = [(path, state) for path, state in shared.items() if state is not None]
    return StageInputs(
        shared={**states.take_snapshot(there), **missing},
        own=_take_own(states, own, shared),
        walked=None if stage.inputs is None else walked,
        roots=[root for patterns in _list_shared_patterns(stage) for root in patterns.list_roots()],
    )


def expect_outputs(
    folder: str, stage: PlannedStage, tasks: Sequence[PlannedTask], inputs: StageInputs, expected: Mapping[str, str]
) -> StageInputs:
    """Return the inputs as they will be once the outputs of needed stages are in place.

    `expected`: the states of these outputs by path; ABSENT's for files that will be removed.
    """
    shared = _expect(inputs.shared, _list_shared_patterns(stage), expected)
    own = {
        task.index: _expect(inputs.own.get(task.index, {}), _list_own_patterns(folder, stage, task), expected)
        for task in tasks
    }
    besides = {
        index: {path: entry for path, entry in found.items() if path not in shared} for index, found in own.items()
    }
    return StageInputs(shared=shared, own={index: found for index, found in besides.items() if found})


def _expect(snapshot: Snapshot, patterns: Sequence[InputPatterns], expected: Mapping[str, str]) -> Snapshot:
    found = dict(snapshot)
    for path, state in expected.items():
        if state == get_state(ABSENT):
            found.pop(path, None)
        elif path in found or any(each.could_find(path) for each in patterns):
            found[path] = (0, 0, 0, 0, 0, state)
    return found


def read_recorded_inputs(
    states: FileStates, record: Record, stage: PlannedStage, tasks: Sequence[PlannedTask]
) -> RecordedInputs | None:
    """Return the states of all files that the tasks depend on; None if the record is outdated. Raises UnusableFile."""
    folder = states.folder
    settings = _find_settings(folder, get_relative_cwd(folder, stage))
    if not is_unchanged(record, folder, settings):
        return None
    written = InputPatterns(list_written(stage, folder))
    try:
        own = {task.index: _find_own(folder, stage, task, written) for task in tasks}
    except OSError:
        return None
    shared = {*list_paths(record)} if any(own.values()) else set()
    return RecordedInputs(record[0], _take_own(states, own, shared))


def _take_own(
    states: FileStates, own: Mapping[int, Mapping[str, os.stat_result]], shared: Container[str]
) -> dict[int, Snapshot]:
    """Return the states of single tasks' files, for tasks that have files besides the shared ones."""
    besides = {
        index: [(path, state) for path, state in found.items() if path not in shared] for index, found in own.items()
    }
    return {index: states.take_snapshot(found) for index, found in besides.items() if found}


def _check_matches(folder: str, stage: PlannedStage, found: Iterable[str]) -> None:
    """Raise UnusableFile if the stage's inputs match no file and it reads no outputs of stages that it needs.

    No edit would ever run it again.
    """
    if not stage.inputs or stage.traces_inputs or stage.needed_outputs or any(ITEM in each for each in stage.inputs):
        return
    patterns = InputPatterns(stage.inputs)
    if not any(map(patterns.matches, found)):
        cwd = get_relative_cwd(folder, stage)
        where = "" if cwd == "." else f": they begin in its folder, {cwd}"
        raise UnusableFile(f"its `inputs` match no file{where}")


def _find_shared(folder: str, stage: PlannedStage, walked: list[WalkedFolder]) -> dict[str, os.stat_result | None]:
    found: dict[str, os.stat_result | None] = {}
    if stage.inputs is None:
        found.update(_find_git_files(folder, stage))
    for patterns in _list_shared_patterns(stage):
        found.update(patterns.find_files(folder, walked))
    found.update(_find_settings(folder, get_relative_cwd(folder, stage)))
    return found


def _list_shared_patterns(stage: PlannedStage) -> list[InputPatterns]:
    """Return the patterns of the files that all tasks read: the stage's inputs, and outputs of stages that it needs."""
    shared = [pattern for pattern in stage.inputs or () if ITEM not in pattern or pattern.startswith("!")]
    found = InputPatterns(shared), InputPatterns(stage.needed_outputs, are_outputs=True)
    return [each for each in found if each.patterns]


def _find_own(folder: str, stage: PlannedStage, task: PlannedTask, written: InputPatterns) -> dict[str, os.stat_result]:
    """Return the files of one task: those that patterns with its item match, and those that its command names.

    `written`: the files that the stage writes, for all of its items.
    """
    found: dict[str, os.stat_result] = {}
    for patterns in _list_own_patterns(folder, stage, task):
        found.update(patterns.find_files(folder))
    found.update(_iter_named_files(folder, stage, task, written))
    return found


def _list_own_patterns(folder: str, stage: PlannedStage, task: PlannedTask) -> list[InputPatterns]:
    patterns = [pattern for pattern in stage.inputs or () if ITEM in pattern and not pattern.startswith("!")]
    if not patterns:
        return []
    items = task.items or ((task.item,) if task.item is not None else ())
    # An item may be a part of a file: `test_a.py::test_b`.
    names = dict.fromkeys(name for item in items for name in (item, item.partition("::")[0]))
    cwd = get_relative_cwd(folder, stage)
    return [InputPatterns(fill_item((*patterns, *_list_left_out(stage)), name, cwd)) for name in names]


def _list_left_out(stage: PlannedStage) -> list[str]:
    return [pattern for pattern in stage.inputs or () if pattern.startswith("!")]


def _iter_named_files(
    folder: str, stage: PlannedStage, task: PlannedTask, written: InputPatterns
) -> Iterator[FoundFile]:
    """Yield the files that are words of a task's commands or variables, such as a script, except its outputs.

    The file in which `make lint` or `npm run lint` finds its command counts too, as a command in the config does.
    Files outside of the project count if they are regular ones: others are places for output, such as /dev/stdout. The
    programs among them count as tools.
    """
    assert isinstance(task.work, Commands)
    programs = {step[0] for step in task.work.steps if step}
    lines = chain(task.work.steps, [tuple(stage.env.values())])
    for word, path in iter_named_paths(folder, get_relative_cwd(folder, stage), lines):
        if path.startswith(_KERNEL_FOLDERS):
            continue
        full = os.path.join(folder, path)
        try:
            state = os.lstat(full)
        except (OSError, ValueError):
            continue
        if path.startswith(("/", "../")) and (word in programs or not os.path.isfile(full)):
            continue
        # First: few words are files, and matching the patterns of thousands of outputs takes longer than asking the
        # disk.
        if (stat.S_ISREG(state.st_mode) or stat.S_ISLNK(state.st_mode)) and not written.matches(path):
            yield path, state


def _find_git_files(folder: str, stage: PlannedStage) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yield the files that git does not ignore, and ignored modules beside Python files, without untracked outputs of
    this and unrelated stages.
    """
    written = InputPatterns((*list_written(stage, folder), *stage.other_outputs))
    skipped: set[str] = set()
    listed = list_git_files(folder)
    if written.patterns:
        tracked = set(list_git_files(folder, untracked=False))
        skipped = {path for path in listed if path not in tracked and written.matches(path)}
    for path, state in _find_ignored_modules(folder, listed):
        if not written.matches(path):
            yield path, state
    for path in listed:
        if path in skipped:
            continue
        try:
            state = os.lstat(os.path.join(folder, path))
        except (FileNotFoundError, NotADirectoryError):
            yield path, None
            continue
        if stat.S_ISDIR(state.st_mode):
            yield from walk_folder(folder, path)  # a submodule, or a repository in the repository
        else:
            yield path, state
            if stat.S_ISLNK(state.st_mode) and os.path.isdir(os.path.join(folder, path)):
                yield from walk_folder(folder, path)


def _find_ignored_modules(folder: str, listed: Sequence[str]) -> Iterator[FoundFile]:
    """Yield compiled and generated modules (`fast.so`, `shop_pb2.py`) beside Python files, which git usually ignores.

    Tests import them, so a rebuild is a change, even if the sources had changed earlier.
    """
    known = frozenset(listed)
    sources = (path for path in listed if path.endswith(_PYTHON_SOURCES))
    for place in dict.fromkeys(map(posixpath.dirname, sources)):
        try:
            with os.scandir(os.path.join(folder, place)) as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith(_MODULES))
        except (FileNotFoundError, NotADirectoryError):
            continue  # git tracks files in it that are deleted
        for path in (posixpath.join(place, name) for name in names):
            if path not in known:
                yield path, os.lstat(os.path.join(folder, path))


def list_written(stage: PlannedStage, folder: str) -> tuple[str, ...]:
    """Return the patterns of all files that a stage writes, relative to `folder`, with each item filled in."""
    fixed = [pattern for pattern in stage.outputs if ITEM not in pattern] + list_output_file(stage, folder)
    each = [pattern for pattern in stage.outputs if ITEM in pattern]
    if each:
        for task in stage.tasks:
            for item in task.items or ((task.item,) if task.item is not None else ()):
                fixed += fill_item(each, item, get_relative_cwd(folder, stage))
    return tuple(fixed)


def list_output_file(stage: PlannedStage, folder: str) -> list[str]:
    """Return the pattern of the file for a stage's output; empty if there is none."""
    return [escape_pattern(posixpath.relpath(stage.output_file, folder))] if stage.output_file is not None else []


def _find_settings(folder: str, cwd: str) -> Iterator[FoundFile]:
    """Yield the settings of tools for a stage that runs in `cwd`."""
    for path in iter_settings(cwd):
        try:
            state = os.lstat(os.path.join(folder, path))
        except OSError:
            continue
        if not stat.S_ISDIR(state.st_mode):
            yield path, state


def get_relative_cwd(folder: str, stage: PlannedStage) -> str:
    """Return the folder in which a stage's commands run, relative to the absolute `folder`."""
    return _find_relative_path(os.fspath(stage.cwd), folder)


@lru_cache(maxsize=1 << 10)  # each of thousands of items asks for its stage's folder
def _find_relative_path(path: str, folder: str) -> str:
    return posixpath.relpath(path, folder)


def find_own_input(stage_outputs: Sequence[str], inputs: StageInputs | RecordedInputs) -> str | None:
    """Return a file that is both an input and an output of a stage, or None."""
    if not stage_outputs:
        return None
    written = InputPatterns(tuple(stage_outputs))
    return next((path for path in inputs.list_paths() if written.matches(path)), None)


def find_changed_file(before: Snapshot, after: Snapshot) -> str | None:
    """Return a file whose state or times differ, or None. A file that was rewritten with its old content differs."""
    if before == after:
        return None
    return next(path for path in sorted({**before, **after}) if before.get(path) != after.get(path))
