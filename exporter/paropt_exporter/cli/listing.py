"""`--list`: print lanes and stages, one line each."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from paropt_exporter.cli.formatting import (
    format_cut_table,
    format_line,
    join_lines,
    wrap_for_terminal,
)
from paropt_exporter.cli.streams import find_columns_of_terminal
from paropt_exporter.config.locate import find_projects_below, has_config
from paropt_exporter.config.placeholders import ARGS, ITEM, ITEMS
from paropt_exporter.config.units import format_duration
from paropt_exporter.config.values import ALL_STAGES
from paropt_exporter.errors import format_count
from paropt_exporter.plan import describe_missing_stages

if TYPE_CHECKING:
    from paropt_exporter.config import Config, Lane, Stage

_LANE_HEADERS = ("lane", "stages", "description")
_STAGE_HEADERS = ("number", "stage", "needs", "description")


def run(
    config: Config,
    *,
    lane: str | None,
    output: str,
    names_only: bool,
    stdout: TextIO,
    items: Mapping[str, int] | None = None,
) -> int:
    """Print lanes and stages as "text" or "json", or only the names of the stages. Returns 0.

    `lane`: print only this lane and its stages. `items`: print only these stages, which are from a plan, with their
    numbers of items.
    """
    lanes = {name: chosen for name, chosen in config.lanes.items() if lane in (None, name)}
    stages = [
        stage
        for stage in config.stages
        if any(chosen.includes(stage) for chosen in lanes.values()) and (items is None or stage.name in items)
    ]
    if output == "json":
        found = _to_json(config, lanes, stages)
        stdout.write(json.dumps(found if items is None else {**found, "items": dict(items)}, indent=2) + "\n")
    elif names_only:
        stdout.writelines(f"{format_line(stage.name)}\n" for stage in stages)
    else:
        columns = find_columns_of_terminal(stdout)
        stdout.write("\n".join(_format_text(config, lanes, stages, items or {}, columns)) + "\n")
    return 0


def _format_text(
    config: Config, lanes: dict[str, Lane], stages: Sequence[Stage], items: Mapping[str, int], columns: int | None
) -> Iterator[str]:
    yield f"{format_line(config.project)}: {config.path or 'no paropt.yml, built-in stages'}"
    yield ""
    lane_rows = [_build_lane_row(name, lane, stages) for name, lane in lanes.items()]
    yield from format_cut_table(_LANE_HEADERS, lane_rows, columns, dispensable=())
    yield ""
    if config.stages:
        stage_rows = [_build_stage_row(stage, items) for stage in stages]
        yield from format_cut_table(_STAGE_HEADERS, stage_rows, columns, dispensable=("needs", "number"))
    else:
        yield from wrap_for_terminal(describe_missing_stages(config), columns, 2)
    for note in config.notes:
        yield from wrap_for_terminal(f"note  {format_line(note)}", columns, 6)
    if projects := [str(folder) for folder in find_projects_below(config.root) if has_config(config.root / folder)]:
        yield f"projects below  {format_line(', '.join(projects))}"


def _build_lane_row(name: str, lane: Lane, stages: Sequence[Stage]) -> tuple[str, ...]:
    return (
        name,
        _count_members(lane, stages),
        join_lines(lane.description or _format_settings(lane)),
    )


def _build_stage_row(stage: Stage, items: Mapping[str, int]) -> tuple[str, ...]:
    described = join_lines(stage.description or _format_work(stage))
    count = items.get(stage.name, 0)
    return (
        str(stage.number),
        stage.name,
        ", ".join(stage.needs) or "-",
        f"{format_count(count, 'item')}: {described}" if count else described,
    )


def _to_json(config: Config, lanes: dict[str, Lane], stages: Sequence[Stage]) -> dict[str, object]:
    return {
        "project": config.project,
        "config": None if config.path is None else str(config.path),
        "lanes": [
            {
                "name": name,
                "description": lane.description,
                "strategy": lane.strategy.value,
                "stages": [stage.name for stage in stages if lane.includes(stage)],
            }
            for name, lane in lanes.items()
        ],
        "stages": [
            {
                "number": stage.number,
                "name": stage.name,
                "needs": [*stage.needs],
                "description": stage.description,
                "work": _format_work(stage),
            }
            for stage in stages
        ],
    }


def _count_members(lane: Lane, stages: Sequence[Stage]) -> str:
    return "all" if lane.stages is None else str(sum(lane.includes(stage) for stage in stages))


def _format_settings(lane: Lane) -> str:
    sla = lane.sla.get(ALL_STAGES) if isinstance(lane.sla, Mapping) else lane.sla
    limits = [f"{key} {format_duration(limit.max)}" for key, limit in (("sla", sla), ("total", lane.total)) if limit]
    return ", ".join([lane.strategy.value, *limits])


def _format_work(stage: Stage) -> str:
    if stage.call is not None:
        return stage.call
    return " && ".join(each if isinstance(each, str) else _join_words(each) for each in stage.commands)


def _join_words(words: Sequence[str]) -> str:
    """Return the words as a shell would read them, with placeholders as they are in a config."""
    return " ".join(word if word in (ARGS, ITEM, ITEMS) else shlex.quote(word) for word in words)
