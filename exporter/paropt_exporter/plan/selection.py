"""Select stages of a lane, or some of their items, with or without the stages that they need."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain, islice
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.config.lanes import STANDARD
from paropt_exporter.config.needs import find_reachable
from paropt_exporter.errors import UsageError

if TYPE_CHECKING:
    from paropt_exporter.config import Stage

_MOST_LISTED = 20  # names in an error message; a lane may have 10,000 stages
_MOST_COMPARED = 500
_LEAST_SIMILAR = 0.7  # at 0.6, `cache` would be suggested for `watch`
# First words of other runners' command lines, and what to write instead.
_WORDS_OF_OTHERS = {
    "run": "leave it out: `paropt-exporter STAGE` runs a stage",
    "all": "leave it out: without a stage the whole lane runs", "list": "did you mean --list?",
    "ls": "did you mean --list?", "help": "did you mean --help?", "version": "did you mean --version?",
    "watch": "did you mean --watch?", "once": "did you mean --once?", "affected": "did you mean --affected?",
    "rerun": "did you mean --failed?",
    "status": "did you mean the command 'history'?", "graph": "did you mean the command 'plan'?",
    "validate": "did you mean the command 'check'?", "clean": "did you mean the command 'cache prune'?",
}  # fmt: skip
# Names that others give to the built-in stages, which `init` writes.
_BUILT_IN = {
    "lint": "quality_gates", "style": "quality_gates", "format": "quality_gates", "fmt": "quality_gates",
    "types": "type_checking", "typecheck": "type_checking", "typing": "type_checking", "mypy": "type_checking",
    "pytest": "unit_tests", "e2e": "integration_tests", "audit": "security_scan",
}  # fmt: skip
_GLOB_CHARACTERS = frozenset("*?[")


class Selection(Struct, frozen=True, kw_only=True):
    """The stages to run. A pattern is a name, a number, a glob or `NAME[ITEM]`; without `patterns` the whole lane runs.

    `skipped`, without items, overrides `patterns`. Needed stages are left out if they are skipped, and all of them with
    `with_needs=False`. Errors also suggest `commands`, since a pattern may be a misspelled command.
    """

    patterns: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    with_needs: bool = True
    commands: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.patterns or self.skipped)

    def keep_stages(self, names: Iterable[str], stages: Sequence[Stage]) -> Selection:
        """Return the selection of the named stages alone, with the items that this one selects of them."""
        items = self.find_items(stages)
        patterns = [[f"{name}[{item}]" for item in items.get(name, ())] or [name] for name in names]
        return Selection(patterns=tuple(chain.from_iterable(patterns)), with_needs=False)

    def drop_items(self, stages: Sequence[Stage]) -> Selection:
        """Return the selection of the same stages with all of their items."""
        whole = (next(iter(_find_matches(each, stages)), each) if is_of_item(each) else each for each in self.patterns)
        return replace(self, patterns=tuple(whole))

    def find_items(self, stages: Sequence[Stage]) -> dict[str, list[str]]:
        """Return the selected items, names or globs, of the stages of which not all items are selected."""
        items: dict[str, list[str]] = {}
        if not any(map(is_of_item, self.patterns)):
            return items
        whole = {name for pattern in self.patterns for name in _find_whole(pattern, stages)}
        for pattern in self.patterns:
            name, _, item = pattern[:-1].partition("[")
            if is_of_item(pattern) and name not in whole and not _find_whole(pattern, stages):
                items.setdefault(name, []).append(item)
        return items


def is_of_item(pattern: str) -> bool:
    """Return whether a pattern has the form of one for an item: `NAME[ITEM]`. A glob may have it too."""
    return pattern.endswith("]") and 0 < pattern.find("[") < len(pattern) - 2


class Selected(Struct, frozen=True, kw_only=True):
    """The stages to run in the order of the config. `named` excludes those selected only as needs."""

    stages: tuple[Stage, ...]
    named: frozenset[str]


def select_stages(
    stages: Sequence[Stage],
    selection: Selection,
    *,
    lane: str,
    known: Sequence[Stage],
    lanes_of: Mapping[str, Sequence[str]],
) -> Selected:
    """Return the selected stages of a lane.

    `known`: all stages of the config, since stages of other lanes may be skipped, too. `lanes_of`: the lanes of each.
    Raises UsageError with all patterns that select nothing, or if no stage is left.
    """
    if not selection.with_needs and not selection.patterns:
        raise UsageError(
            "--only needs the name of a stage, whose needs it leaves out (paropt-exporter --list shows the names)"
        )
    unknown = [pattern for pattern in selection.patterns if not _find_matches(pattern, stages)]
    unknown_skips = [pattern for pattern in selection.skipped if not _find_whole(pattern, known)]
    if unknown or unknown_skips:
        raise UsageError(_describe_unknown([*unknown, *unknown_skips], stages, selection.commands, lane, lanes_of))
    skipped = {name for pattern in selection.skipped for name in _find_whole(pattern, stages)}
    wanted = {name for pattern in selection.patterns for name in _find_matches(pattern, stages)}
    if not selection.patterns:
        kept = {stage.name for stage in stages} - skipped
    elif selection.with_needs:
        kept = _add_needs(stages, wanted - skipped, without=skipped)
    else:
        kept = wanted - skipped
    if not kept:
        raise UsageError(f"no stage is left to run in lane {lane}: --skip leaves out all that were selected")
    named = kept & wanted if selection.patterns else kept
    return Selected(stages=tuple(stage for stage in stages if stage.name in kept), named=frozenset(named))


def has_all(patterns: Iterable[str], stages: Sequence[Stage]) -> bool:
    """Return whether each pattern selects at least one of the stages."""
    return all(_find_matches(pattern, stages) for pattern in patterns)


def _find_matches(pattern: str, stages: Sequence[Stage]) -> list[str]:
    """Return the names that a pattern selects, or that of the stage of which it selects an item."""
    named = _find_whole(pattern, stages)
    if not named and is_of_item(pattern):
        named = [stage.name for stage in stages if stage.name == pattern.partition("[")[0]]
    return named


def _find_whole(pattern: str, stages: Sequence[Stage]) -> list[str]:
    """Return the names that a pattern selects: an equal name, otherwise an equal number, otherwise a glob's matches."""
    named = [stage.name for stage in stages if stage.name == pattern]
    if not named and pattern.isdecimal():
        named = [stage.name for stage in stages if str(stage.number) == pattern]
    if not named and _GLOB_CHARACTERS & set(pattern):
        named = [stage.name for stage in stages if fnmatchcase(stage.name, pattern)]
    return named


def _add_needs(stages: Sequence[Stage], wanted: Collection[str], *, without: Collection[str]) -> set[str]:
    needs = {stage.name: stage.needs for stage in stages}
    return find_reachable(wanted, lambda name: (need for need in needs[name] if need in needs and need not in without))


def _describe_unknown(
    patterns: Sequence[str],
    stages: Sequence[Stage],
    commands: Sequence[str],
    lane: str,
    lanes_of: Mapping[str, Sequence[str]],
) -> str:
    """Return an error message with the patterns that select nothing, suggestions, and the stages of the lane."""
    names = [stage.name for stage in stages]
    hints = {pattern: _suggest_name(pattern, names, commands, lanes_of) for pattern in patterns}
    missing = ", ".join(f"no stage {pattern!r}{hint}" for pattern, hint in hints.items())
    more = "" if all(hints.values()) or not commands else " (--help lists the commands)"
    return f"lane {lane} has {missing}; it has {', '.join(_iter_shown_names(names))}{more}"


def _suggest_name(
    pattern: str, names: Sequence[str], commands: Sequence[str], lanes_of: Mapping[str, Sequence[str]]
) -> str:
    if other := lanes_of.get(pattern):
        return f" (lane {STANDARD if STANDARD in other else other[0]} has it)"
    known = [*names, *(command for command in commands if command[0] == pattern[:1])]  # `lint` is no misspelled `init`
    from difflib import get_close_matches  # here: for errors only

    if is_of_item(pattern) and pattern.partition("[")[0] in names:
        return " (--skip leaves out whole stages)"
    if _BUILT_IN.get(pattern) in names:
        return f" (did you mean {_BUILT_IN[pattern]!r}?)"
    if sum(name.startswith(f"{pattern}_") for name in names) > 1:  # such as a stage for each project below
        return f" (did you mean '{pattern}_*'?)"
    parts = [name for name in names if name.startswith(pattern)]
    parts += [name for name in names if any(part.startswith(pattern) for part in name.replace("-", "_").split("_"))]
    if commands and not parts and pattern in _WORDS_OF_OTHERS:
        return f" ({_WORDS_OF_OTHERS[pattern]})"
    if commands and not parts and pattern.endswith((".yml", ".yaml")):
        return f" (did you mean --config.file {pattern}?)"
    if commands and not parts and any(pattern in lanes for lanes in lanes_of.values()):
        return f" (it is a lane: --lane {shlex.quote(pattern)})"
    near = parts or (
        get_close_matches(pattern, known, n=1, cutoff=_LEAST_SIMILAR) if len(known) <= _MOST_COMPARED else []
    )
    if not near:
        return ""
    return f" (did you mean the command {near[0]!r}?)" if near[0] not in names else f" (did you mean {near[0]!r}?)"


def _iter_shown_names(names: Sequence[str]) -> Iterator[str]:
    yield from islice(names, _MOST_LISTED)
    if len(names) > _MOST_LISTED:
        yield f"and {len(names) - _MOST_LISTED} more"
