"""The reference page of metrics."""

from __future__ import annotations

from pathlib import Path

from paropt_exporter import catalogue
from paropt_exporter.generate import reference

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_committed_reference_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference.render(), "run: make generate"


def test_every_family_has_its_entry_with_help_and_closed_values() -> None:
    page = reference.render()
    for family in catalogue.FAMILIES:
        entry = page.partition(f"### {family.name}\n")[2].partition("\n#")[0]
        assert family.help in entry
        for values in catalogue.CLOSED_VALUES.get(family, {}).values():
            assert all(f"`{value}`" in entry for value in values)
