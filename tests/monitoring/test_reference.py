"""The reference page of metrics."""

from __future__ import annotations

from paropt_exporter import families
from paropt_exporter.monitoring import reference


def test_every_family_has_its_entry_with_help_and_closed_values() -> None:
    page = reference.render_metrics()
    for family in families.FAMILIES:
        entry = page.partition(f"### {family.name}\n")[2].partition("\n#")[0]
        assert family.help in entry
        for values in families.CLOSED_VALUES.get(family, {}).values():
            assert all(f"`{value}`" in entry for value in values)
