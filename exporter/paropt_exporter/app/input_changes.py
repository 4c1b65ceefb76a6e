"""The inputs of stages that have changed since the last look, and the stages that they affect."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paropt_exporter.cache.file_states import FileStates, UnusableFile, get_state
from paropt_exporter.changes import Changes
from paropt_exporter.input_files import (
    FoundFile,
    InputPatterns,
    NoGit,
    escape_pattern,
    join_pattern,
    list_git_files,
    walk_folder,
)
from paropt_exporter.plan.affected import find_dependents
from paropt_exporter.plan.implied_inputs import list_settings_and_recipes
from paropt_exporter.plan.stage_patterns import list_input_patterns, list_output_patterns

if TYPE_CHECKING:
    from paropt_exporter.config import Config, Stage

# Folders that tools fill by themselves. A file in them still counts if a stage's `inputs` name it, with the next scan.
QUIET_FOLDERS = frozenset(
    {
        ".git", ".hg", ".jj", ".svn", ".paropt", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache",
        ".hypothesis", ".tox", ".nox", ".venv", "venv", "node_modules",
    }
)  # fmt: skip


_FORMS_OF_HISTORY = (
    "{}", "{}-wal", "{}-shm", "{}-journal", "{}.lock", "{}.corrupt-*", "{}.functions.json", "{}.logs/**", "{}.runs/**",
    ".{}.*",
)  # fmt: skip


class InputChanges:
    """The inputs of some stages, as they were at the last scan.

    Outputs and the `file` of each stage are no inputs here: a stage would start itself. Not thread-safe.
    """

    def __init__(self, config: Config, stages: Sequence[Stage], own_files: Sequence[Path] = ()) -> None:
        """Read the inputs; blocks while large ones are read for the first time. `own_files` are no inputs either."""
        self._config = config
        self._stages = stages
        self._folder = str(config.root)
        self._patterns = {
            stage.name: None if stage.declared_inputs is None else _build_patterns(config, stage) for stage in stages
        }
        of_stages = [each for stage in config.stages for each in list_output_patterns(stage)]
        self._outputs = InputPatterns([*_list_own_patterns(config, own_files), *of_stages])
        self._files = FileStates(self._folder)
        self._known: dict[str, str] = {}
        self.scan()

    @property
    def count(self) -> int:
        """The number of files."""
        return len(self._known)

    def list_paths(self) -> frozenset[str]:
        """Return the paths of the files, as they were at the last scan."""
        return frozenset(self._known)

    def scan(self) -> frozenset[str]:
        """Return the paths whose content, kind or existence has changed since the last scan."""
        before = self._known
        try:
            self._known = self._read_states()
        except OSError:  # a folder vanished during the walk: the next scan sees what is left
            return frozenset()
        return frozenset(path for path, _ in before.items() ^ self._known.items())

    def find_affected(self, paths: frozenset[str]) -> dict[str, str]:
        """Return the stages that changed paths affect, each with the first of these paths.

        The config's file affects all stages; the path of a stage with another one is that.
        """
        config = "" if self._config.path is None else self._config.path.name
        by_config = dict.fromkeys((stage.name for stage in self._stages), config) if config in paths else {}
        changes = Changes(paths=paths - {config})
        found = {name: self._find_path(name, changes) for name in self._patterns}
        affected = {name: path for name, path in found.items() if path is not None}
        further = (name for name in find_dependents(self._config, affected) if name in self._patterns)
        dependents = dict.fromkeys(further, next(iter(affected.values()), ""))
        return {**by_config, **affected, **dependents}

    def is_quiet(self, path: str) -> bool:
        """Return whether events about a path are left to the next scan."""
        return not QUIET_FOLDERS.isdisjoint(path.split("/")) or self._outputs.matches(path)

    def _find_path(self, stage: str, changes: Changes) -> str | None:
        patterns = self._patterns[stage]
        return min(changes.paths, default=None) if patterns is None else changes.find_match(patterns)

    def _read_states(self) -> dict[str, str]:
        found: dict[str, os.stat_result] = {}
        for patterns in {patterns.patterns: patterns for patterns in self._patterns.values() if patterns}.values():
            found.update(patterns.find_readable_files(self._folder))
        if None in self._patterns.values():
            found.update(self._list_project_files())
        if self._config.path is not None:
            found.update(_stat_files(self._folder, [self._config.path.name]))
        kept = ((path, state) for path, state in found.items() if not self._outputs.matches(path))
        return {path: self._read_state(path, state) for path, state in kept}

    def _list_project_files(self) -> Iterable[FoundFile]:
        try:
            listed = list_git_files(self._folder)
        except NoGit:
            return [found for found in walk_folder(self._folder, ".") if not self.is_quiet(found[0])]
        return _stat_files(self._folder, [path for path in listed if not path.startswith("../")])

    def _read_state(self, path: str, state: os.stat_result) -> str:
        try:
            return get_state(self._files.take_snapshot([(path, state)])[path])
        except UnusableFile:
            return f"unreadable {state.st_mtime_ns}"


def _list_own_patterns(config: Config, own_files: Iterable[Path]) -> list[str]:
    """Return patterns of the files that this process writes, under each name that they have until they are complete.

    Those of the history are in a quiet folder, unless the config names another place.
    """
    top = os.path.realpath(config.root)

    def build(path: Path, *forms: str) -> list[str]:
        folder, name = os.path.split(os.path.relpath(os.path.realpath(path), top))
        return [join_pattern(folder, form.format(escape_pattern(name))) for form in forms]

    of_files = (pattern for path in own_files for pattern in build(path, "{}", ".{}.*"))
    return [*of_files, *build(config.history_path, *_FORMS_OF_HISTORY)]


def _build_patterns(config: Config, stage: Stage) -> InputPatterns:
    unnamed = map(escape_pattern, list_settings_and_recipes(config, stage))
    return InputPatterns((*list_input_patterns(stage), *unnamed))


def _stat_files(folder: str, paths: Iterable[str]) -> Iterable[FoundFile]:
    for path in paths:
        try:
            yield path, os.lstat(f"{folder}/{path}")  # of 50,000 paths, a `Path` of each takes as long as all else
        except OSError:
            continue
