"""The state of control that a lane, the control socket and the bounds controller share."""

from __future__ import annotations

from paropt_exporter.autoscaling.state import ControlState, Override, SizeBounds
from paropt_exporter.plan import Bounds


def test_bounds_of_a_changed_config_hold_from_the_next_run_on() -> None:
    state = ControlState(Bounds(minimum=1, maximum=8, start=2), ("commands",), source="local")
    state.reconfigure(Bounds(minimum=1, maximum=3, start=2), ("commands",))
    assert state.get_start_size(8) == 3
    state.set_size_bounds(SizeBounds(floor=1, ceiling=8))
    assert state.size_bounds == SizeBounds(floor=1, ceiling=3)


def test_size_by_queries_decided_for_another_config_keeps_to_the_bounds() -> None:
    """The bounds controller decides while the config is read again."""
    state = ControlState(Bounds(minimum=1, maximum=8, start=2), ("commands",), source="prometheus")
    state.reconfigure(Bounds(minimum=1, maximum=3, start=2), ("commands",))
    state.set_size_bounds(SizeBounds(floor=1, ceiling=8, query_size=8))
    assert state.size_bounds == SizeBounds(floor=1, ceiling=3, query_size=3)


def test_lane_that_is_paused_after_a_pin_keeps_its_size_until_resume() -> None:
    state = ControlState(Bounds(minimum=1, maximum=8, start=2), ("commands",), source="local")
    state.set_override(Override(mode="pin", size=12))
    state.set_override(Override(mode="pause"))
    state.set_override(Override(mode="pause"))
    assert state.get_start_size(4) == 12
    state.set_override(None)
    assert state.get_start_size(4) == 4
    state.set_override(Override(mode="pause"))
    assert state.get_start_size(4) == 4, "no run has shown its size since"
