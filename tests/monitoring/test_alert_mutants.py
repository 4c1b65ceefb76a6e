"""Mutation tests of the alert stories: a rule with a fault makes one of them fail."""

from __future__ import annotations

import pytest

from alert_stories.mutants import Mutant, MutantTester, Rule, build_mutants, load_rules

TESTER = MutantTester()


@pytest.mark.parametrize("rule", load_rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_mutant_of_a_rule_is_detected(rule: Rule) -> None:
    unchanged = Mutant(kind="none", fault="none", sound=rule, rule=rule)
    survivors = TESTER.find_survivors([unchanged, *build_mutants(rule)])
    assert [f"{mutant.kind} {mutant.fault}" for mutant in survivors] == ["none none"]


def test_an_alert_has_mutants_of_every_kind() -> None:
    kinds = {mutant.kind for rule in load_rules() for mutant in build_mutants(rule)}
    assert kinds == {"operator", "number", "window", "for", "keep_firing_for", "severity"}
