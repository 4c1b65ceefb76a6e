"""What the stories are worth: a rule with a fault makes one of them fail."""

from __future__ import annotations

import pytest

from alert_stories.mutants import Bench, Mutant, Rule, mutants_of, rules

BENCH = Bench()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_changed_operator_limit_span_time_and_severity_is_noticed(rule: Rule) -> None:
    assert not BENCH.notices(Mutant(kind="none", fault="none", sound=rule, rule=rule))
    assert [f"{mutant.kind} {mutant.fault}" for mutant in BENCH.survivors(mutants_of(rule))] == []


def test_an_alert_has_mutants_of_every_kind() -> None:
    kinds = {mutant.kind for rule in rules() for mutant in mutants_of(rule)}
    assert kinds == {"operator", "number", "window", "for", "keep_firing_for", "severity"}
