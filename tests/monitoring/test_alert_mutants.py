"""The alert stories: each rule passes its own, and a rule with a fault fails one of them."""

from __future__ import annotations

import pytest

from alert_stories.mutants import MutantTester, Rule, build_mutants
from support.generated import load_rule_groups

GROUPS = load_rule_groups()


@pytest.mark.parametrize("rules", GROUPS.values(), ids=GROUPS)
def test_rules_of_a_group_pass_all_their_stories_and_each_mutant_fails_one(rules: tuple[Rule, ...]) -> None:
    survivors = MutantTester().find_survivors(rules)
    assert [f"{mutant.name}: {mutant.kind} {mutant.fault}" for mutant in survivors] == []


def test_an_alert_has_mutants_of_every_kind() -> None:
    kinds = {mutant.kind for rules in GROUPS.values() for rule in rules for mutant in build_mutants(rule)}
    assert kinds == {"operator", "number", "window", "for", "keep_firing_for", "severity"}
