"""`sla`: propose limits from the durations of stages and lanes, and write them into paropt.yml on request."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, TextIO

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.cli.config_edit import write_config
from paropt_exporter.cli.formatting import (
    format_fitting_table,
    format_seconds,
    wrap_for_terminal,
)
from paropt_exporter.cli.streams import find_columns_of_terminal
from paropt_exporter.config.editing import Replacement
from paropt_exporter.config.units import format_duration
from paropt_exporter.config.values import ALL_STAGES, Sla
from paropt_exporter.errors import UsageError, format_count
from paropt_exporter.plan.structure import compute_quantile

if TYPE_CHECKING:
    from paropt_exporter.config import Config, Lane
    from paropt_exporter.history import History

FEWEST_RUNS = 5  # fewer runs say little about slow ones
MOST_RUNS = 100
_TOTAL = "(total)"
_HEADERS = ("lane", "stage", "runs", "median", "quantile", "limit now", "proposed")
_DISPENSABLE = ("median", "runs", "quantile", "lane")  # left out in this order until the table fits the terminal
_STEPS_SECONDS = ((10.0, 1), (120.0, 5), (600.0, 15), (math.inf, 60))  # (up to this duration, a multiple of this step)


class Rule(Struct, frozen=True, kw_only=True):
    """A limit is the durations' quantile (0 < q <= 1, by nearest rank) times 1 + `margin`."""

    quantile: float
    margin: float

    def compute_limit(self, durations: Sequence[float]) -> float | None:
        """Return the limit, rounded up, or None if there are too few runs."""
        if len(durations) < FEWEST_RUNS:
            return None
        wanted = compute_quantile(durations, self.quantile) * (1 + self.margin)
        step = next(step for most, step in _STEPS_SECONDS if wanted <= most)
        return float(step * max(1, math.ceil(wanted / step - 1e-9)))


class Proposal(Struct, frozen=True, kw_only=True):
    """The durations of a stage, or of the lane if `stage` is None, and the limit proposed for it."""

    lane: str
    stage: str | None
    durations: tuple[float, ...]
    now: Sla | None
    seconds: float | None

    @property
    def changes(self) -> bool:
        return self.seconds is not None and (self.now is None or self.now.max != self.seconds)


def run_sla(
    config: Config,
    history: History,
    *,
    lane: str | None,
    rule: Rule,
    write: bool,
    output: str,
    stdout: TextIO,
    stderr: TextIO,
) -> int:
    """Print the proposals for a lane, or for all lanes with runs, as "text" or "json". Returns 0.

    `write` also sets them in the config's file. Raises UsageError if there are no runs, or nothing to write.
    """
    names = [name for name in config.lanes if lane in (None, name)]
    proposals = [found for name in names for found in _propose(config, history, name, rule)]
    if not proposals:
        raise UsageError(f"no successful run{f' of lane {lane}' if lane else ''} is known: run a lane first")
    if output == "json":
        stdout.write(json.dumps([_proposal_to_json(each, rule) for each in proposals], indent=2) + "\n")
    else:
        lines = [*_format(proposals, rule, find_columns_of_terminal(stdout))]
        if config.path is not None and not write and any(each.changes for each in proposals):
            lines.append(f"--write sets them in {config.path.name}")
        stdout.write("\n".join(lines) + "\n")
    if write:
        changes = _build_changes(config, proposals)
        if not changes:
            raise UsageError("--write: there is nothing to change")
        write_config(config, {"lanes": changes}, by_hand="set the limits by hand")
        stderr.write(f"{config.path}: {format_count(sum(each.changes for each in proposals), 'limit')} set\n")
    return 0


def _propose(config: Config, history: History, name: str, rule: Rule) -> Iterator[Proposal]:
    lane = config.lanes[name]
    known = history.load_stage_durations(name, limit=MOST_RUNS)
    for stage in config.stages:
        durations = known.get(stage.name, ())
        if durations and lane.includes(stage):
            limit, now = rule.compute_limit(durations), lane.get_limit(stage)
            yield Proposal(lane=name, stage=stage.name, durations=durations, now=now, seconds=limit)
    if total := history.load_run_durations(name, limit=MOST_RUNS):
        yield Proposal(lane=name, stage=None, durations=total, now=lane.total, seconds=rule.compute_limit(total))


def _build_changes(config: Config, proposals: Sequence[Proposal]) -> dict[str, Any]:
    """Return the keys of the lanes to set."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(each.lane for each in proposals if each.changes):
        mine = [each for each in proposals if each.lane == name and each.changes]
        limits = {each.stage: _build_value(each) for each in mine if each.stage is not None}
        found[name] = {"sla": _build_limits(config.lanes[name], limits)} if limits else {}
        for total in mine:
            if total.stage is None:
                found[name]["total"] = _build_value(total)
    return found


def _build_limits(lane: Lane, limits: dict[str, object]) -> object:
    """Return a lane's limits with those of stages added. Its single limit, if any, becomes that of all other stages."""
    if isinstance(lane.sla, Mapping):
        return limits
    return Replacement({**({ALL_STAGES: _to_yaml(lane.sla)} if lane.sla is not None else {}), **limits})


def _build_value(proposal: Proposal) -> object:
    now = proposal.now
    assert proposal.seconds is not None  # changes have a limit
    return _to_yaml(Sla(max=proposal.seconds) if now is None else replace(now, max=proposal.seconds))


def _to_yaml(limit: Sla) -> object:
    """Return the shortest form of a limit for the file."""
    more = {"warn_at": limit.warn_at, "critical": limit.critical}
    defaults = Sla(max=limit.max)
    more = {key: value for key, value in more.items() if value != getattr(defaults, key)}
    return Replacement({"max": format_duration(limit.max), **more}) if more else format_duration(limit.max)


def _format(proposals: Sequence[Proposal], rule: Rule, columns: int | None) -> Iterator[str]:
    rows = [_format_row(each, rule) for each in proposals]
    yield from format_fitting_table(_HEADERS, rows, columns, dispensable=_DISPENSABLE)
    yield ""
    meaning = (
        f"proposed: the {100 * rule.quantile:g}% quantile (nearest rank) of up to {MOST_RUNS} latest successful runs, "
        f"plus {100 * rule.margin:g}%, rounded up"
    )
    yield from wrap_for_terminal(meaning, columns, 2)
    if any(each.seconds is None for each in proposals):
        yield f"none with fewer than {FEWEST_RUNS} successful runs"


def _format_row(each: Proposal, rule: Rule) -> tuple[str, ...]:
    return (
        each.lane,
        each.stage or _TOTAL,
        str(len(each.durations)),
        format_seconds(median(each.durations)),
        format_seconds(compute_quantile(each.durations, rule.quantile)),
        "-" if each.now is None else format_duration(each.now.max),
        "-" if each.seconds is None else format_duration(each.seconds),
    )


def _proposal_to_json(each: Proposal, rule: Rule) -> dict[str, object]:
    return {
        "lane": each.lane,
        "stage": each.stage,
        "runs": len(each.durations),
        "median_seconds": median(each.durations),
        "quantile": rule.quantile,
        "quantile_seconds": compute_quantile(each.durations, rule.quantile),
        "margin": rule.margin,
        "limit_seconds": None if each.now is None else each.now.max,
        "proposed_seconds": each.seconds,
    }
