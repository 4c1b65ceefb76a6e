"""`--list`: the lanes, and the stages with what each does, in a line each."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from paropt_exporter.cli.formatting import plain, table
from paropt_exporter.config.units import duration_text

if TYPE_CHECKING:
    from paropt_exporter.config import Config, Lane, Stage

_LONGEST_DESCRIPTION = 100
_LANE_HEADERS = ("lane", "stages", "description")
_STAGE_HEADERS = ("number", "stage", "needs", "description")


def run(config: Config, *, lane: str | None, output: str, names_only: bool, stdout: TextIO) -> int:
    """Print lanes and stages as "text" or "json", or the names of the stages alone; returns 0.

    `lane`: only this one and its stages.
    """
    lanes = {name: chosen for name, chosen in config.lanes.items() if lane in (None, name)}
    stages = [stage for stage in config.stages if any(_has(chosen, stage) for chosen in lanes.values())]
    if output == "json":
        stdout.write(json.dumps(_as_json(config, lanes, stages), indent=2) + "\n")
    elif names_only:
        stdout.writelines(f"{plain(stage.name)}\n" for stage in stages)
    else:
        stdout.write("\n".join(_as_text(config, lanes, stages)) + "\n")
    return 0


def _as_text(config: Config, lanes: dict[str, Lane], stages: Sequence[Stage]) -> Iterator[str]:
    yield f"{plain(config.project)}: {config.path or 'no paropt.yml, built-in stages'}"
    yield ""
    yield from table(_LANE_HEADERS, [_lane_row(name, lane, stages) for name, lane in lanes.items()])
    yield ""
    yield from table(_STAGE_HEADERS, [_stage_row(stage) for stage in stages])
    yield from (f"note  {plain(note)}" for note in config.notes)


def _lane_row(name: str, lane: Lane, stages: Sequence[Stage]) -> tuple[str, ...]:
    return name, _members(lane, stages), _described(lane.description or _settings(lane))


def _stage_row(stage: Stage) -> tuple[str, ...]:
    return str(stage.number), stage.name, ", ".join(stage.needs) or "-", _described(stage.description or _work(stage))


def _as_json(config: Config, lanes: dict[str, Lane], stages: Sequence[Stage]) -> dict[str, object]:
    return {
        "project": config.project,
        "config": None if config.path is None else str(config.path),
        "lanes": [
            {
                "name": name,
                "description": lane.description,
                "strategy": lane.strategy.value,
                "stages": [stage.name for stage in stages if _has(lane, stage)],
            }
            for name, lane in lanes.items()
        ],
        "stages": [
            {
                "number": stage.number,
                "name": stage.name,
                "needs": [*stage.needs],
                "description": stage.description,
                "work": _work(stage),
            }
            for stage in stages
        ],
    }


def _has(lane: Lane, stage: Stage) -> bool:
    return lane.stages is None or stage.name in lane.stages


def _members(lane: Lane, stages: Sequence[Stage]) -> str:
    return "all" if lane.stages is None else str(sum(_has(lane, stage) for stage in stages))


def _settings(lane: Lane) -> str:
    limits = [f"{key} {duration_text(limit.max)}" for key, limit in (("sla", lane.sla), ("total", lane.total)) if limit]
    return ", ".join([lane.strategy.value, *limits])


def _work(stage: Stage) -> str:
    if stage.call is not None:
        return stage.call
    commands = (stage.run,) if stage.run is not None else stage.steps or ()
    return " && ".join(command if isinstance(command, str) else shlex.join(command) for command in commands)


def _described(text: str) -> str:
    line = plain(" ".join(text.split()))
    return line if len(line) <= _LONGEST_DESCRIPTION else f"{line[: _LONGEST_DESCRIPTION - 3]}..."
