"""Store decisions with their observations as JSON, and replay them with the current policy, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias, cast

from msgspec import Struct, convert
from msgspec.structs import replace

from paropt_exporter.autoscaling.policy.lane_size import LaneDecision, LaneObservation, LaneSizingState
from paropt_exporter.errors import INVALID_VALUE_ERRORS, ParoptError

if TYPE_CHECKING:
    from paropt_exporter.autoscaling.policy.pool_size import PoolDecision, PoolObservation
    from paropt_exporter.autoscaling.policy.query_size import QuerySizeDecision, QuerySizeObservation
    from paropt_exporter.autoscaling.policy.size_bounds import BoundsDecision, BoundsObservation

    Observation: TypeAlias = LaneObservation | PoolObservation | BoundsObservation | QuerySizeObservation
    PolicyDecision: TypeAlias = LaneDecision | PoolDecision | BoundsDecision | QuerySizeDecision

_POLICIES = "paropt_exporter.autoscaling.policy."
# Kind of observation in the history: its policy's module, class and function. A lane needs only the first one, so the
# others are imported when they replay a decision.
_KINDS = {
    "lane": ("lane_size", "LaneObservation", "decide_lane_size"),
    "pool": ("pool_size", "PoolObservation", "decide_pool_size"),
    "query": ("query_size", "QuerySizeObservation", "decide_query_size"),
    "bounds": ("size_bounds", "BoundsObservation", "decide_size_bounds"),
}
KINDS = tuple(_KINDS)  # decisions about a size first, about its bounds last
_KIND_OF_CLASS = {name: kind for kind, (_, name, _) in _KINDS.items()}

# Stages of each kind in a stored observation. With all 1,000 waiting stages, a decision took 105 kB instead of 11.
MOST_ENTRIES = 100


class UnknownObservation(ParoptError):
    """The current policy can't decide a recorded observation, since another version wrote it."""


class ReplayResult(Struct, frozen=True, kw_only=True):
    """A recorded decision and today's for the same observation, both as JSON.

    `left_out`: how many entries of the observation were not stored.
    """

    recorded: str
    today: str
    left_out: int = 0

    @property
    def same(self) -> bool:
        """Whether both are equal to the byte."""
        return self.recorded == self.today

    @property
    def agrees(self) -> bool:
        """Whether today's decision contains all that was recorded; a newer version may add keys."""
        try:
            return self.same or _contains(json.loads(self.today), json.loads(self.recorded))
        except INVALID_VALUE_ERRORS:  # the recorded decision was edited
            return False

    @property
    def is_comparable(self) -> bool:
        """Whether the stored part of the observation suffices: it is complete, or leads to the recorded decision."""
        return not self.left_out or self.agrees


def serialize_observation(observation: Observation) -> str:
    """Return an observation as one line of JSON; equal observations give equal lines.

    It has at most MOST_ENTRIES stages of each kind; `left_out` counts the others.
    """
    kind = _KIND_OF_CLASS[type(observation).__name__]
    if not isinstance(observation, LaneObservation):
        return _to_json({"kind": kind, "observation": observation})
    kept, left_out = _truncate_lane(observation)
    return _to_json({"kind": kind, "observation": kept} | ({"left_out": left_out} if left_out else {}))


def serialize_decision(decision: PolicyDecision) -> str:
    """Return a decision as one line of JSON; equal decisions give equal lines. It has at most MOST_ENTRIES stages."""
    if isinstance(decision, LaneDecision) and len(decision.state.stages) > MOST_ENTRIES:
        decision = replace(decision, state=_truncate_state(decision.state))
    return _to_json(decision)


def count_left_out(text: str) -> int:
    """Return how many entries of a recorded observation were not stored."""
    try:
        return sum(json.loads(text).get("left_out", {}).values())
    except INVALID_VALUE_ERRORS as error:
        raise UnknownObservation(f"this version does not know a recorded observation: {error}") from error


def _truncate_lane(observation: LaneObservation) -> tuple[LaneObservation, dict[str, int]]:
    """Return the observation with only the first entries of each field, and how many entries each field lost."""
    entries: dict[str, Sequence[object]] = {
        "waiting": observation.waiting,
        "running": observation.running,
        "stages": observation.stages,
        "states": observation.state.stages,
    }
    left_out = {name: len(each) - MOST_ENTRIES for name, each in entries.items() if len(each) > MOST_ENTRIES}
    if not left_out:
        return observation, {}
    kept = replace(
        observation,
        waiting=observation.waiting[:MOST_ENTRIES],
        running=observation.running[:MOST_ENTRIES],
        stages=observation.stages[:MOST_ENTRIES],
        state=_truncate_state(observation.state),
    )
    return kept, left_out


def _truncate_state(state: LaneSizingState) -> LaneSizingState:
    return replace(state, stages=state.stages[:MOST_ENTRIES])


def parse_observation(text: str) -> Observation:
    """Return a recorded observation. Raises UnknownObservation."""
    try:
        document = json.loads(text)
        module, name, _ = _KINDS[document["kind"]]
        observation: Observation = convert(document["observation"], getattr(import_module(_POLICIES + module), name))
    except INVALID_VALUE_ERRORS as error:
        raise UnknownObservation(f"this version does not know a recorded observation: {error}") from error
    return observation


def describe_decision(text: str) -> str:
    """Return the result of a recorded decision in words. Raises UnknownObservation."""
    try:
        decided = json.loads(text)
        to = (
            f"floor {decided['floor']}, ceiling {decided['ceiling']}"
            if "floor" in decided
            else f"size {decided['size']}"
        )
        return f"{decided['action']} ({decided['reason']}), {to}"
    except INVALID_VALUE_ERRORS as error:
        raise UnknownObservation(f"this version does not know a recorded decision: {error}") from error


def replay(observation: str, decision: str) -> ReplayResult:
    """Decide a recorded observation with the current policy. Raises UnknownObservation."""
    parsed, left_out = parse_observation(observation), count_left_out(observation)
    module, _, function = _KINDS[_KIND_OF_CLASS[type(parsed).__name__]]
    decide: Callable[[Observation], PolicyDecision] = getattr(import_module(_POLICIES + module), function)
    try:
        return ReplayResult(recorded=decision, today=serialize_decision(decide(parsed)), left_out=left_out)
    except INVALID_VALUE_ERRORS as error:
        raise UnknownObservation(f"a recorded observation has impossible values: {error}") from error


def _contains(larger: object, smaller: object) -> bool:
    """Return whether a JSON document contains all of another one, in the same places."""
    if isinstance(larger, dict) and isinstance(smaller, dict):
        return all(key in larger and _contains(larger[key], value) for key, value in smaller.items())
    if isinstance(larger, list) and isinstance(smaller, list):
        return len(larger) == len(smaller) and all(map(_contains, larger, smaller))
    return larger == smaller


def _to_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_to_dict)


def _to_dict(value: object) -> object:
    """Return a struct as a dict, without converting its values."""
    if isinstance(value, Mapping):
        return dict(value)
    return {name: getattr(value, name) for name in cast("Struct", value).__struct_fields__}
