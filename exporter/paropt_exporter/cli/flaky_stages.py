"""`history --flaky`: list the stages that failed and passed with the same files, the most flaky first."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from msgspec import to_builtins

from paropt_exporter.cli.formatting import format_count, format_line, format_table
from paropt_exporter.plan.flakiness import FLAKY_RUNS
from paropt_exporter.plan.quarantine import describe_quarantine, find_today, is_over

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from paropt_exporter.config import Config
    from paropt_exporter.config.values import Quarantine
    from paropt_exporter.history import History
    from paropt_exporter.plan import Flakiness

_HEADERS = ("lane", "stage", "first attempts", "flaky", "ratio", "95 % interval", "last", "items")
_SHOWN_ITEMS = 3


def run(history: History, config: Config, *, lane: str | None, output: str, stdout: TextIO) -> int:
    """Print the flaky stages of a lane or of all lanes as "text" or "json", and the quarantines. Returns 0."""
    found = history.load_flakiness(lane)
    ordered = dict(sorted(found.items(), key=lambda each: (-each[1].interval[0], each[0])))
    if output == "json":
        entries = [_to_json(place, flaky, _list_quarantines(config, place[1])) for place, flaky in ordered.items()]
        text = json.dumps(entries, indent=2) + "\n"
    else:
        text = _format(ordered, lane) + _format_quarantines(config)
    stdout.write(text)
    return 0


def _format(found: Mapping[tuple[str, str], Flakiness], lane: str | None) -> str:
    where = f" of lane {lane}" if lane else ""
    if not found:
        return f"no stage{where} has failed and passed with the same files in its last {FLAKY_RUNS} runs\n"
    heading = f"{format_count(len(found), 'flaky stage')}{where}, by the last {FLAKY_RUNS} runs of each lane"
    return "\n".join([heading, "", *format_table(_HEADERS, [_build_row(*each) for each in found.items()]), ""])


def _list_quarantines(config: Config, stage: str) -> list[Quarantine]:
    return [each for one in config.stages if one.name == stage for each in one.quarantine]


def _format_quarantines(config: Config) -> str:
    """Return a line for each item in quarantine, also of those whose quarantine is over."""
    found = [(stage.name, each) for stage in config.stages for each in stage.quarantine]
    if not found:
        return ""
    today = find_today()
    lines = [
        f"  {stage} {format_line(each.item)}: {format_line(describe_quarantine(each))}"
        f"{', which is over' if is_over(each, today) else ''}"
        for stage, each in found
    ]
    return "\n".join(["", "in quarantine", *lines, ""])


def _build_row(place: tuple[str, str], flaky: Flakiness) -> tuple[str, ...]:
    low, high = flaky.interval
    items = sorted(flaky.items)
    more = f" and {len(items) - _SHOWN_ITEMS} more" if len(items) > _SHOWN_ITEMS else ""
    return (
        *place,
        str(flaky.first_attempts),
        str(flaky.flaky_attempts),
        f"{flaky.ratio:.1%}",
        f"{low:.1%} to {high:.1%}",
        _format_time(flaky.last_timestamp_seconds),
        format_line(", ".join(items[:_SHOWN_ITEMS]) + more),
    )


def _format_time(timestamp_seconds: float | None) -> str:
    return "" if timestamp_seconds is None else f"{datetime.fromtimestamp(timestamp_seconds).astimezone():%Y-%m-%d}"


def _to_json(place: tuple[str, str], flaky: Flakiness, quarantines: Sequence[Quarantine]) -> dict[str, object]:
    low, high = flaky.interval
    return {
        "lane": place[0],
        "stage": place[1],
        "first_attempts": flaky.first_attempts,
        "flaky_attempts": flaky.flaky_attempts,
        "ratio": flaky.ratio,
        "ratio_low": low,
        "ratio_high": high,
        "last_timestamp_seconds": flaky.last_timestamp_seconds,
        "items": sorted(flaky.items),
        "quarantine": [to_builtins(each) for each in quarantines],
    }
