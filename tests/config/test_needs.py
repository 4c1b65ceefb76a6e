"""Needs of stages through others that are not chosen."""

from __future__ import annotations

from paropt_exporter.config.needs import map_needs_among


def test_needs_lead_through_stages_that_are_not_chosen() -> None:
    needs = {"a": (), "b": ("a",), "c": ("b",), "d": ("c", "e"), "e": ()}
    assert map_needs_among({"a", "d", "e"}, needs) == {"a": (), "d": ("a", "e"), "e": ()}


def test_needs_keep_their_order_if_all_are_chosen() -> None:
    assert map_needs_among({"a", "b", "c"}, {"a": (), "b": (), "c": ("b", "a")})["c"] == ("b", "a")


def test_stage_that_the_config_lacks_has_no_needs() -> None:
    assert map_needs_among({"gone"}, {}) == {"gone": ()}


def test_stages_with_the_same_needs_share_one_tuple() -> None:
    """A million names in the plan otherwise, if 1,000 stages need a stage that is left out and needs 1,000 others."""
    needs = {"a": (), "b": (), "gate": ("a", "b"), "c": ("gate",), "d": ("gate",)}
    found = map_needs_among({"a", "b", "c", "d"}, needs)
    assert found["c"] is found["d"]
