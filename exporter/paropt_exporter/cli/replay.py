"""`replay`: run recorded situations through today's policy, and show where it would decide otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from paropt_exporter.autoscaling.decisions import (
    UNREADABLE,
    ReplayResult,
    UnknownObservation,
    describe_decision,
    replay,
)
from paropt_exporter.errors import UsageError

if TYPE_CHECKING:
    from paropt_exporter.events import Decision
    from paropt_exporter.history import History

EXIT_DIFFERENT = 1


def run(history: History, *, pool: str | None, since_seconds: float, output: str, stdout: TextIO) -> int:
    """Print what today's policy makes of the decisions since a moment of wall time; 1 if anything differs, else 0."""
    recorded = [
        decision for decision in history.decisions(pool=pool, since_seconds=since_seconds) if decision.situation
    ]
    if not recorded:
        raise UsageError("no decision to replay: none was recorded in that time (--since)")
    replayed = [(decision, _again(decision)) for decision in recorded]
    different = [(decision, again) for decision, again in replayed if again is None or not again.agrees]
    same = sum(again is not None and again.same for _, again in replayed)
    if output == "json":
        stdout.write(json.dumps(_as_json(len(recorded), same, different), indent=2) + "\n")
    else:
        stdout.write("\n".join(_lines(len(recorded), same, different)) + "\n")
    return EXIT_DIFFERENT if different else 0


def _again(decision: Decision) -> ReplayResult | None:
    try:
        return replay(decision.situation, decision.choice)
    except UnknownObservation:
        return None


def _lines(count: int, same: int, different: Sequence[tuple[Decision, ReplayResult | None]]) -> Iterator[str]:
    more = count - same - len(different)
    but = f"{more} the same but for what was not recorded yet, " if more else ""
    yield f"{count} decisions: {same} the same to the byte, {but}{len(different)} different"
    for decision, again in different:
        if again is None:
            yield f"  {_time(decision)} {decision.pool}: {_recorded(decision)} -> recorded by another version"
        else:
            yield f"  {_time(decision)} {decision.pool}: {_recorded(decision)} -> {describe_decision(again.today)}"


def _recorded(decision: Decision) -> str:
    try:
        return describe_decision(decision.choice)
    except UnknownObservation:
        return "unreadable"


def _as_json(count: int, same: int, different: Sequence[tuple[Decision, ReplayResult | None]]) -> dict[str, object]:
    return {
        "decisions": count,
        "same": same,
        "agreeing": count - same - len(different),
        "different": [
            {
                "timestamp": _time(decision),
                "pool": decision.pool,
                "recorded": _value(decision.choice),
                "today": None if again is None else json.loads(again.today),
            }
            for decision, again in different
        ],
    }


def _value(choice: str) -> object:
    try:
        return json.loads(choice)
    except UNREADABLE:
        return None


def _time(decision: Decision) -> str:
    return datetime.fromtimestamp(decision.at_timestamp_seconds, UTC).isoformat(timespec="seconds")
