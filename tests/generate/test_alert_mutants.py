"""What the stories are worth: a rule with a fault makes one of them fail."""

from __future__ import annotations

import pytest

from alert_stories.mutants import Bench, Mutant, Rule, mutants_of, rules

# A span on one side of an `and`, longer than that on the other, changes nothing: `make mutants` counts those too.
_WORTH_NOTICING = ("operator", "number", "for", "keep_firing_for", "severity")

BENCH = Bench()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_changed_operator_limit_time_and_severity_is_noticed(rule: Rule) -> None:
    assert not BENCH.notices(Mutant(kind="none", fault="none", sound=rule, rule=rule))
    faulty = [mutant for mutant in mutants_of(rule) if mutant.kind in _WORTH_NOTICING]
    assert [f"{mutant.kind} {mutant.fault}" for mutant in BENCH.survivors(faulty)] == []


def test_an_alert_has_mutants_of_every_kind() -> None:
    kinds = {mutant.kind for rule in rules() for mutant in mutants_of(rule)}
    assert kinds == {*_WORTH_NOTICING, "window"}
