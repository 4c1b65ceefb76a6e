"""`history merge`: join the histories and reports of shards, and check that they were parts of one split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from paropt_exporter.cli import PROGRAM
from paropt_exporter.cli.formatting import format_count, format_line
from paropt_exporter.errors import EXIT_FAILED, HistoryError, UsageError

if TYPE_CHECKING:
    from paropt_exporter.history import History
    from paropt_exporter.history.merging import ShardRun, Source

_MOST_NAMED = 10


def run(history: History, project: str, paths: Sequence[Path], *, stdout: TextIO, stderr: TextIO) -> int:
    """Merge the files into the history. Returns 0, 1 if shards don't fit together, or 3 if a file can't be used.

    A file that can't be used is reported, and the others are merged.
    """
    from paropt_exporter.history.merging import read_source

    if any(path.absolute() == history.path.absolute() or _is_same(path, history.path) for path in paths):
        raise UsageError(f"history merge: {history.path} is the history itself: name the files of the shards")
    sources: list[Source] = []
    code = 0
    for path in paths:
        try:
            sources.append(read_source(path, project))
        except HistoryError as error:
            stderr.write(f"{PROGRAM}: left out: {format_line(str(error))}\n")
            code = error.exit_code
    merged = history.merge(sources)
    stdout.write(
        f"merged {format_count(len(sources), 'file')} into {history.path}: "
        f"{format_count(merged.runs, 'new run')}, durations of {format_count(merged.items, 'item')}\n"
    )
    unended = sum(source.unended for source in sources)
    if unended:
        stderr.write(f"{PROGRAM}: left out {format_count(unended, 'run')} without an end\n")
    faults = [*_iter_faults([run for source in sources for run in source.find_shard_runs()])]
    for fault in faults:
        stderr.write(f"{PROGRAM}: {fault}\n")
    return code or (EXIT_FAILED if faults else 0)


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _iter_faults(runs: Sequence[ShardRun]) -> Iterator[str]:
    """Yield a line for each lane whose shards, the last ones of each file, are not all parts of one split."""
    lanes: dict[str, dict[tuple[str, int], set[int]]] = defaultdict(lambda: defaultdict(set))
    for one in runs:
        lanes[one.lane][one.split, one.count].add(one.index)
    for lane, splits in lanes.items():
        if len(splits) > 1:
            yield (
                f"the shards of lane {format_line(lane)} are of different splits, so items may have run in none or "
                f"twice: give all shards the same history and the same files ({_format_splits(splits)})"
            )
            continue
        (((split, count), indexes),) = splits.items()
        missing = sorted({*range(1, count + 1)} - indexes)
        if missing:
            named = ", ".join(map(str, missing[:_MOST_NAMED])) + (", …" if len(missing) > _MOST_NAMED else "")
            yield f"lane {format_line(lane)}: no file has shard {named} of {count} of split {format_line(split)}"


def _format_splits(splits: Mapping[tuple[str, int], set[int]]) -> str:
    parts = [
        f"{format_line(split)}: {', '.join(f'{index}/{count}' for index in sorted(indexes)[:_MOST_NAMED])}"
        for (split, count), indexes in splits.items()
    ]
    return "; ".join(parts[:_MOST_NAMED])
