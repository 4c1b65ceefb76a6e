"""The reference page of metrics."""

from __future__ import annotations

from paropt_exporter import families
from paropt_exporter.autoscaling.explanation import BY_ACTION
from paropt_exporter.monitoring import reference


def test_every_family_has_its_entry_with_help_and_closed_values() -> None:
    page = reference.render_metrics(BY_ACTION)
    for family in families.FAMILIES:
        entry = page.partition(f"### {family.name}\n")[2].partition("\n#")[0]
        assert family.help in entry
        for values in families.CLOSED_VALUES.get(family, {}).values():
            assert all(f"`{value}`" in entry for value in values)


def test_reasons_of_decisions_have_the_meanings_that_explain_prints() -> None:
    """Grafana's panels and the metric show only the reasons' names."""
    lines = reference.render_metrics(BY_ACTION).splitlines()
    for clauses in BY_ACTION.values():
        for reason, clause in clauses.items():
            assert any(line.startswith(f"| `{reason}` | ") and clause in line for line in lines)
