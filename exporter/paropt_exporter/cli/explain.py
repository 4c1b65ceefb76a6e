"""`explain`: show why a pool has its size. `replay`: decide recorded observations again with today's policy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from paropt_exporter.autoscaling.decisions import (
    KINDS,
    ReplayResult,
    UnknownObservation,
    describe_decision,
    replay,
)
from paropt_exporter.cli.formatting import format_time, wrap_for_terminal
from paropt_exporter.cli.streams import find_columns_of_terminal
from paropt_exporter.errors import INVALID_VALUE_ERRORS, UsageError, format_count

if TYPE_CHECKING:
    from paropt_exporter.events import Decision
    from paropt_exporter.history import History

_Key = tuple[str, str, bool]  # pool, kind, and whether the action is hold
EXIT_DIFFERENT = 1  # of `replay`
_INDENT = 21  # of the continuation lines of a sentence, which begins with a time


def run_explain(history: History, *, pool: str | None, output: str, stdout: TextIO) -> int:
    """Print the last change and the latest decision of each kind for a pool, or for all pools. Returns 0.

    A sentence for each decision comes first, then the calculations, both in the order of time. Raises UsageError if
    there is no decision about the pool.
    """
    latest = _find_latest(history.load_decisions())
    pools = tuple(dict.fromkeys(name for name, _, _ in latest))
    if not latest:
        raise UsageError("no decision yet: run a lane whose workers are not a fixed number")
    if pool is not None and pool not in pools:
        raise UsageError(f"no decision about a pool {pool!r}: choose from {', '.join(pools)}")
    chosen = [latest[key] for key in sorted(latest, key=_sort_key) if pool in (None, key[0])]
    chosen.sort(key=lambda decision: decision.at_timestamp_seconds)
    if output == "json":
        stdout.write(json.dumps([_decision_to_json(decision) for decision in chosen], indent=2) + "\n")
    else:
        columns = find_columns_of_terminal(stdout)
        sentences = [part for each in chosen for part in wrap_for_terminal(_format_sentence(each), columns, _INDENT)]
        sums = [
            part
            for decision in chosen
            for line in _explain_decision(decision)
            for part in wrap_for_terminal(line, columns, len(line) - len(line.lstrip()) + 4)
        ]
        stdout.write("\n".join([*sentences, "", *sums]) + "\n")
    return 0


def _find_latest(decisions: Sequence[Decision]) -> dict[_Key, Decision]:
    """Return the last change for each pool and kind, and the last hold if it is younger."""
    latest: dict[_Key, Decision] = {}
    for decision in decisions:
        holds = decision.action == "hold"
        latest[decision.pool, _read_kind(decision), holds] = decision
        if not holds:
            latest.pop((decision.pool, _read_kind(decision), True), None)
    return latest


def _read_kind(decision: Decision) -> str:
    try:
        return str(json.loads(decision.situation)["kind"]) if decision.situation else ""
    except INVALID_VALUE_ERRORS:
        return ""


def _sort_key(key: _Key) -> tuple[str, int, bool]:
    pool, kind, holds = key
    return pool, KINDS.index(kind) if kind in KINDS else len(KINDS), holds


def _explain_decision(decision: Decision) -> Iterator[str]:
    from paropt_exporter.autoscaling.explanation import format_headline, iter_explanation

    yield f"{format_headline(decision)}  ({format_time(decision.at_timestamp_seconds)})"
    try:
        yield from [f"    {line}" for line in iter_explanation(decision)]
    except (UnknownObservation, *INVALID_VALUE_ERRORS):
        yield "    its terms can't be read: another version recorded them, or they were edited"


def _format_sentence(decision: Decision) -> str:
    from paropt_exporter.autoscaling.explanation import format_sentence

    return f"{format_time(decision.at_timestamp_seconds)}  {format_sentence(decision)}"


def _decision_to_json(decision: Decision) -> dict[str, object]:
    return {
        "pool": decision.pool,
        "timestamp": _format_utc(decision),
        "action": decision.action,
        "reason": decision.reason,
        "old_size": decision.old_size,
        "new_size": decision.new_size,
        "run_id": decision.run_id,
        "terms": dict(decision.terms),
        "situation": _parse_recorded(decision.situation),
        "choice": _parse_recorded(decision.choice),
    }


def _parse_recorded(recorded: str) -> object:
    """Return recorded JSON, or None if it is missing or unreadable."""
    try:
        return json.loads(recorded) if recorded else None
    except INVALID_VALUE_ERRORS:
        return None


def _format_utc(decision: Decision) -> str:
    return datetime.fromtimestamp(decision.at_timestamp_seconds, UTC).isoformat(timespec="seconds")


def run_replay(history: History, *, pool: str | None, since_seconds: float, output: str, stdout: TextIO) -> int:
    """Print how today's policy decides observations since a wall time. Returns 1 if a decision differs, otherwise 0."""
    recorded = [
        decision for decision in history.load_decisions(pool=pool, since_seconds=since_seconds) if decision.situation
    ]
    if not recorded:
        raise UsageError("no decision to replay: none was recorded in that time (--since)")
    replayed = [(decision, _replay_decision(decision)) for decision in recorded]
    comparable = [(decision, again) for decision, again in replayed if again is None or again.is_comparable]
    different = [(decision, again) for decision, again in comparable if again is None or not again.agrees]
    same = sum(again is not None and again.same for _, again in comparable)
    partial = len(replayed) - len(comparable)
    if output == "json":
        stdout.write(json.dumps(_replay_to_json(len(recorded), same, partial, different), indent=2) + "\n")
    else:
        stdout.write("\n".join(_format_replay(len(recorded), same, partial, different)) + "\n")
    return EXIT_DIFFERENT if different else 0


def _replay_decision(decision: Decision) -> ReplayResult | None:
    try:
        return replay(decision.situation, decision.choice)
    except UnknownObservation:
        return None


def _format_replay(
    count: int, same: int, partial: int, different: Sequence[tuple[Decision, ReplayResult | None]]
) -> Iterator[str]:
    more = count - same - partial - len(different)
    but = f"{more} identical except for fields that were not recorded, " if more else ""
    yield f"{format_count(count, 'decision')}: {same} identical, {but}{len(different)} different"
    if partial:
        yield f"  {partial} can't be compared: the history has only a part of their stages"
    for decision, again in different:
        today = "recorded by another version" if again is None else describe_decision(again.today)
        moment = format_time(decision.at_timestamp_seconds)
        yield f"  {moment} {decision.pool}: {_read_recorded_size(decision)} -> {today}"


def _read_recorded_size(decision: Decision) -> str:
    try:
        return describe_decision(decision.choice)
    except UnknownObservation:
        return "unreadable"


def _replay_to_json(
    count: int, same: int, partial: int, different: Sequence[tuple[Decision, ReplayResult | None]]
) -> dict[str, object]:
    return {
        "decisions": count,
        "same": same,
        "agreeing": count - same - partial - len(different),
        "partial": partial,
        "different": [
            {
                "timestamp": _format_utc(decision),
                "pool": decision.pool,
                "recorded": _parse_recorded(decision.choice),
                "today": None if again is None else json.loads(again.today),
            }
            for decision, again in different
        ],
    }
