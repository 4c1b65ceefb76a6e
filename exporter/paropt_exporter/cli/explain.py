"""`explain`: why a pool has its size, as sums that can be done again by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from paropt_exporter.autoscaling.decisions import UNREADABLE, UnknownObservation
from paropt_exporter.errors import UsageError

if TYPE_CHECKING:
    from paropt_exporter.events import Decision
    from paropt_exporter.history import History

_Key = tuple[str, str, bool]  # pool, kind, whether it is a hold
_KINDS = ("run", "stream", "target", "band")  # what decides a size first, what decides its bounds last


def run(history: History, *, pool: str | None, output: str, stdout: TextIO) -> int:
    """Print the last move and the latest decision of each kind for a pool, or for all; returns 0.

    Raises UsageError if no decision about the pool is known.
    """
    latest = _latest(history.decisions())
    pools = tuple(dict.fromkeys(name for name, _, _ in latest))
    if not latest:
        raise UsageError("no decision yet: run a lane whose workers are not a fixed number")
    if pool is not None and pool not in pools:
        raise UsageError(f"no decision about a pool {pool!r}; there are {', '.join(pools)}")
    chosen = [latest[key] for key in sorted(latest, key=_order) if pool in (None, key[0])]
    if output == "json":
        stdout.write(json.dumps([_json(decision) for decision in chosen], indent=2) + "\n")
    else:
        stdout.write("\n".join(line for decision in chosen for line in _lines(decision)) + "\n")
    return 0


def _latest(decisions: Sequence[Decision]) -> dict[_Key, Decision]:
    """Return the last move for each pool and kind, and the last hold where it is younger."""
    latest: dict[_Key, Decision] = {}
    for decision in decisions:
        holds = decision.action == "hold"
        latest[decision.pool, _kind(decision), holds] = decision
        if not holds:
            latest.pop((decision.pool, _kind(decision), True), None)
    return latest


def _kind(decision: Decision) -> str:
    try:
        return str(json.loads(decision.situation)["kind"]) if decision.situation else ""
    except UNREADABLE:
        return ""


def _order(key: _Key) -> tuple[str, int, bool]:
    pool, kind, holds = key
    return pool, _KINDS.index(kind) if kind in _KINDS else len(_KINDS), holds


def _lines(decision: Decision) -> Iterator[str]:
    from paropt_exporter.autoscaling.explanation import explained, headline

    yield f"{headline(decision)}  ({_time(decision)})"
    try:
        yield from [f"    {line}" for line in explained(decision)]
    except (UnknownObservation, *UNREADABLE):
        yield "    its terms can't be told: another version recorded them, or somebody changed them"


def _json(decision: Decision) -> dict[str, object]:
    return {
        "pool": decision.pool,
        "timestamp": _time(decision),
        "action": decision.action,
        "reason": decision.reason,
        "old_size": decision.old_size,
        "new_size": decision.new_size,
        "run_id": decision.run_id,
        "terms": dict(decision.terms),
        "situation": _value(decision.situation),
        "choice": _value(decision.choice),
    }


def _value(recorded: str) -> object:
    """Return what was recorded as JSON; null where there is nothing or it can't be read."""
    try:
        return json.loads(recorded) if recorded else None
    except UNREADABLE:
        return None


def _time(decision: Decision) -> str:
    return datetime.fromtimestamp(decision.at_timestamp_seconds, UTC).isoformat(timespec="seconds")
