"""The patterns of a stage's inputs, outputs and items, relative to the config's folder instead of the stage's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from paropt_exporter.input_files import ANY_PATH, ITEM, escape_pattern, find_pattern_fault, join_pattern

if TYPE_CHECKING:
    from paropt_exporter.config import Stage
    from paropt_exporter.config.values import Items


def join_patterns(stage: Stage, patterns: Iterable[str]) -> tuple[str, ...]:
    """Return patterns of a stage relative to the config's folder."""
    return tuple(join_pattern(stage.cwd or ".", pattern) for pattern in patterns)


def join_for_any_item(stage: Stage, patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns with wildcards for any path in place of the item."""
    filled = dict.fromkeys(pattern.replace(ITEM, path) for pattern in patterns for path in ANY_PATH)
    return join_patterns(stage, filled)


def list_written(stage: Stage) -> tuple[str, ...]:
    """Return the patterns of all files that a stage may write, for any item."""
    return (*join_for_any_item(stage, stage.outputs), *_list_file(stage))


def list_input_patterns(stage: Stage) -> tuple[str, ...]:
    """Return a stage's inputs for all of its items, relative to the config's folder."""
    # An item in a pattern that leaves files out would leave out those of all items.
    patterns = [pattern for pattern in stage.declared_inputs or () if not (pattern.startswith("!") and ITEM in pattern)]
    filled = (each for pattern in patterns for each in _fill_any_item(pattern, stage.items, unknown=ANY_PATH))
    return join_patterns(stage, filled)


def list_output_patterns(stage: Stage) -> tuple[str, ...]:
    """Return the files that a stage writes for all of its items, and its `file`, relative to the config's folder."""
    # An unknown item counts as any name, but not any path: with that, `{item}` would make every file an output.
    filled = (each for pattern in stage.outputs for each in _fill_any_item(pattern, stage.items, unknown=("*",)))
    return (*join_patterns(stage, filled), *_list_file(stage))


def list_item_patterns(stage: Stage) -> tuple[str, ...]:
    """Return the patterns of a stage's items, relative to the config's folder; none if a command prints them."""
    if stage.items is None:
        return ()
    return join_patterns(stage, _fill_any_item(ITEM, stage.items, unknown=()))


def _fill_any_item(pattern: str, items: Items | None, *, unknown: Sequence[str]) -> Iterator[str]:
    """Yield patterns for all items of a stage: with each item of a list, with the items' glob, or with `unknown`."""
    if ITEM not in pattern or items is None:
        yield pattern
    elif items.list is not None:
        names = dict.fromkeys(name for item in items.list for name in (item, item.partition("::")[0]))
        yield from (pattern.replace(ITEM, escape_pattern(name)) for name in names)
    elif (glob := items.glob or items.changed) and not glob.startswith("!") and find_pattern_fault(glob) is None:
        yield pattern.replace(ITEM, glob)
        if pattern.endswith(ITEM):  # an item that is a folder
            yield f"{pattern.replace(ITEM, glob)}/**"
    else:
        yield from (pattern.replace(ITEM, name) for name in unknown)


def _list_file(stage: Stage) -> tuple[str, ...]:
    """Return the pattern of the file for a stage's output, if there is one."""
    return (escape_pattern(stage.file),) if stage.file else ()
