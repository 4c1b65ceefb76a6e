"""Choose the stages that a change affects, by their inputs."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from paropt_exporter.changes import ChangeFinder, Changes, UnknownChange
from paropt_exporter.config.needs import find_reachable
from paropt_exporter.errors import UsageError, join_names
from paropt_exporter.files import is_file
from paropt_exporter.input_files import InputPatterns, join_pattern
from paropt_exporter.plan.implied_inputs import find_implied_change
from paropt_exporter.plan.stage_graph import map_dependents
from paropt_exporter.plan.stage_patterns import list_input_patterns

if TYPE_CHECKING:
    from paropt_exporter.config import Config, Stage

_NO_INPUTS = "no inputs: always runs"
_NO_MATCH = "its inputs match no file: always runs"
_NO_WALK = "its inputs can't be listed: always runs"
_NEEDED = "needed"


class AffectedStages(Struct, frozen=True, kw_only=True):
    """The stages to run, each with the reason, and the stages to leave out, in the order of the config."""

    reasons: Mapping[str, str]
    left_out: tuple[str, ...]
    changes: Changes

    def describe(self) -> str:
        """Return one line that names both kinds of stages, with each reason once."""
        count = len(self.changes.paths)
        files = "1 file differs" if count == 1 else f"{count} files differ"
        line = f"--affected: {files} from {self.changes.base}: runs "
        by_reason: dict[str, list[str]] = {}
        for name, why in self.reasons.items():
            by_reason.setdefault(why, []).append(name)
        line += join_names([f"{join_names(names)} ({why})" for why, names in by_reason.items()]) or "nothing"
        if not self.left_out:
            return line
        return f"{line}; leaves out {join_names(self.left_out)}: no input changed"


def find_affected(config: Config, stages: Sequence[Stage], find: ChangeFinder) -> AffectedStages:
    """Return those of the stages that are affected. Raises UsageError if the changes are unknown."""
    try:
        return choose_affected(config, stages, find.changes)
    except UnknownChange as error:
        is_stage = any(find.ref == stage.name for stage in config.stages)
        hint = f"; to run the stage {find.ref}, write it before --affected" if is_stage else ""
        raise UsageError(f"--affected: {error}{hint}") from None


def choose_affected(config: Config, stages: Sequence[Stage], changes: Changes) -> AffectedStages:
    """Return the stages that a change affects, with the stages that they need.

    A stage is affected if a changed file is one of its inputs, which need not name all of them (`implied_inputs`), if
    it has no inputs or they match no file, or if it needs an affected stage that has outputs or a `file`, directly or
    not. With `cache: true` and no inputs, all files of the project are its inputs. A changed config affects all stages.
    """
    reasons = _find_reasons(config, stages, changes)
    needs = {stage.name: stage.needs for stage in stages}
    needed = find_reachable(reasons, lambda name: (need for need in needs[name] if need in needs))
    reasons = {**dict.fromkeys(needed, _NEEDED), **reasons}
    ordered = {stage.name: reasons[stage.name] for stage in stages if stage.name in reasons}
    left_out = tuple(stage.name for stage in stages if stage.name not in reasons)
    return AffectedStages(reasons=ordered, left_out=left_out, changes=changes)


def find_dependents(config: Config, affected: Collection[str]) -> dict[str, str]:
    """Return the further stages that may read a file of an affected stage, each with the need that leads to it.

    These are all that need a stage with outputs or a `file`, directly or indirectly, as in the cache's keys.
    """
    dependents = map_dependents({stage.name: stage.needs for stage in config.stages})
    waiting = [stage.name for stage in config.stages if stage.name in affected and (stage.outputs or stage.file)]
    seen, found = {*waiting}, dict[str, str]()
    for name in waiting:  # the list grows during the loop
        for dependent in dependents[name]:
            if dependent in seen:
                continue
            seen.add(dependent)
            waiting.append(dependent)
            if dependent not in affected:
                found[dependent] = name
    return found


def find_affected_by_file(config: Config, stage: Stage, changes: Changes) -> str | None:
    """Return the reason why a change affects a stage by itself, or None."""
    if config.path is not None and config.path.name in changes.paths:
        return f"{config.path.name} changed"
    if stage.declared_inputs is None and stage.cache == "always":  # as in the cache, its inputs are the project's files
        first = min((path for path in changes.paths if not path.startswith("../")), default=None)
        first = first or find_implied_change(config, stage, changes)
        return None if first is None else _format_path(first)
    if stage.declared_inputs is None:
        return _NO_INPUTS
    patterns = InputPatterns(list_input_patterns(stage))
    if (path := changes.find_match(patterns) or find_implied_change(config, stage, changes)) is not None:
        return _format_path(path)
    root = os.fspath(config.root)
    with suppress(OSError):  # a folder that can't be read may contain files
        if not patterns.has_file(root) and not _needs_outputs(config, stage):
            return _NO_MATCH
    try:
        links = [*patterns.iter_links(root, patterns.find_readable_files(root))] if changes.paths else []
    except OSError:  # a folder has vanished
        return _NO_WALK
    linked = _find_linked_match(links, patterns, changes)
    return None if linked is None else _format_path(linked)


def _needs_outputs(config: Config, stage: Stage) -> bool:
    """Return whether another stage may write a stage's inputs, so that a fresh checkout lacks them."""
    needs = {each.name: each.needs for each in config.stages}
    producers = {each.name for each in config.stages if each.outputs or each.file}
    return not producers.isdisjoint(find_reachable(stage.needs, lambda name: needs.get(name, ())))


def find_changed_items(pattern: str, changes: Changes, *, root: Path, cwd: str | None) -> tuple[str, ...]:
    """Return the changed files that exist and match a glob, relative to the stage's folder, sorted."""
    patterns = InputPatterns((join_pattern(cwd or ".", pattern),))
    folder = root / (cwd or ".")
    matching = filter(patterns.matches, changes.paths)
    there = [path for path in matching if is_file(root / path) or (root / path).is_symlink()]
    found = sorted(os.path.relpath(root / path, folder) for path in there)
    return tuple(f"./{name}" if name.startswith("-") else name for name in found)


def _find_linked_match(links: Sequence[tuple[str, str]], patterns: InputPatterns, changes: Changes) -> str | None:
    """Return the first changed path to which one of the links leads; None if there is none."""
    return next((path for path in sorted(changes.paths) if _is_linked(path, links, patterns)), None)


def _is_linked(path: str, links: Sequence[tuple[str, str]], patterns: InputPatterns) -> bool:
    return any(
        path == target or (path.startswith(f"{target}/") and patterns.matches(link + path[len(target) :]))
        for link, target in links
    )


def _find_reasons(config: Config, stages: Sequence[Stage], changes: Changes) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for stage in stages:
        if (why := find_affected_by_file(config, stage, changes)) is not None:
            reasons[stage.name] = why
    further = find_dependents(config, reasons)
    return reasons | {stage.name: f"needs {further[stage.name]}" for stage in stages if stage.name in further}


def _format_path(path: str) -> str:
    return path.encode(errors="surrogateescape").decode(errors="replace").replace("\n", "?")
