"""Keep what a decision was made from, so that it can be made again: situations and choices as JSON, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from paropt_exporter.autoscaling.policy.lane_size import RunSituation, RunStep, decide_run
from paropt_exporter.autoscaling.policy.pool_size import StreamSituation, StreamStep, decide_stream
from paropt_exporter.autoscaling.policy.prometheus_size import TargetSituation, TargetStep, decide_target
from paropt_exporter.autoscaling.policy.size_bounds import BandSituation, BandStep, decide_band
from paropt_exporter.errors import ParoptError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Situation: TypeAlias = RunSituation | StreamSituation | BandSituation | TargetSituation
Choice: TypeAlias = RunStep | StreamStep | BandStep | TargetStep

_KINDS: dict[str, tuple[type[Any], Callable[[Any], Choice]]] = {
    "run": (RunSituation, decide_run),
    "stream": (StreamSituation, decide_stream),
    "band": (BandSituation, decide_band),
    "target": (TargetSituation, decide_target),
}


# What reading and deciding raise where somebody changed what was recorded.
UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError)


class UnknownSituation(ParoptError):
    """A recorded situation is of another version: today's policy can't decide it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A decision made again. `same`: to the byte; `agrees`: in all that was recorded, of which today there is more."""

    recorded: str
    today: str

    @property
    def same(self) -> bool:
        return self.recorded == self.today

    @property
    def agrees(self) -> bool:
        try:
            return self.same or _holds(json.loads(self.today), json.loads(self.recorded))
        except UNREADABLE:  # somebody changed what was recorded
            return False


def written_situation(situation: Situation) -> str:
    """Return a situation as one line of JSON, always the same for the same situation."""
    kind = next(name for name, (cls, _) in _KINDS.items() if isinstance(situation, cls))
    return _json({"kind": kind, "seen": situation})


def written_choice(choice: Choice) -> str:
    """Return a choice as one line of JSON, always the same for the same choice."""
    return _json(choice)


def read_situation(situation: str) -> Situation:
    """Return a recorded situation. Raises UnknownSituation."""
    from pydantic import ValidationError

    try:
        document = json.loads(situation)
        seen: Situation = _reader(document["kind"]).validate_json(_json(document["seen"]))
    except (*UNREADABLE, ValidationError) as error:
        raise UnknownSituation(f"a recorded situation that this version does not know: {error}") from error
    return seen


@cache
def _reader(kind: str) -> TypeAdapter[Any]:
    """Return what reads situations of a kind; to make it takes longer than to read ten."""
    from pydantic import TypeAdapter

    cls, _ = _KINDS[kind]
    return TypeAdapter(cls)


def read_choice_size(choice: str) -> str:
    """Return what a recorded choice comes to, in words. Raises UnknownSituation."""
    try:
        chosen = json.loads(choice)
        to = f"floor {chosen['floor']}, ceiling {chosen['ceiling']}" if "floor" in chosen else f"size {chosen['size']}"
        return f"{chosen['action']} ({chosen['reason']}), {to}"
    except UNREADABLE as error:
        raise UnknownSituation(f"a recorded choice that this version does not know: {error}") from error


def replay(situation: str, choice: str) -> Replayed:
    """Decide a recorded situation by today's policy. Raises UnknownSituation."""
    seen = read_situation(situation)
    decide = next(decide for cls, decide in _KINDS.values() if isinstance(seen, cls))
    try:
        return Replayed(recorded=choice, today=written_choice(decide(seen)))
    except UNREADABLE as error:
        raise UnknownSituation(f"a recorded situation that can't have been: {error}") from error


def _holds(larger: object, smaller: object) -> bool:
    """Whether all of a JSON document is in another at the same places."""
    if isinstance(larger, dict) and isinstance(smaller, dict):
        return all(key in larger and _holds(larger[key], value) for key, value in smaller.items())
    if isinstance(larger, list) and isinstance(smaller, list):
        return len(larger) == len(smaller) and all(map(_holds, larger, smaller))
    return larger == smaller


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_shallow)


def _shallow(value: object) -> object:
    """Return a dataclass or a mapping as a dict of its own values, which asdict() would copy one by one."""
    if isinstance(value, Mapping):
        return dict(value)
    return {name: getattr(value, name) for name in _field_names(cast("Hashable", type(value)))}


@cache
def _field_names(cls: Hashable) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cast("type[Any]", cls)))
