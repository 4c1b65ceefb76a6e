"""Find the items that are in quarantine today: until the last day, a failure of one does not fail its stage."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from paropt_exporter.clock import SystemClock

if TYPE_CHECKING:
    from paropt_exporter.config import Config
    from paropt_exporter.config.values import Quarantine, Stage


def find_today() -> str:
    """Return today's date in UTC, in ISO 8601."""
    from datetime import UTC, datetime  # here: few stages have a quarantine

    return datetime.fromtimestamp(SystemClock().wall(), UTC).date().isoformat()


def select_quarantined(stage: Stage, today: str) -> Mapping[str, str]:
    """Return the quarantined items of a stage, with the owner and the last day of each."""
    return {each.item: describe_quarantine(each) for each in stage.quarantine if not is_over(each, today)}


def is_over(quarantine: Quarantine, today: str) -> bool:
    """Return whether the last day of a quarantine is over."""
    return quarantine.until < today  # dates of ISO 8601 sort as texts


def describe_quarantine(quarantine: Quarantine) -> str:
    return f"{quarantine.owner}, until {quarantine.until}"


def list_quarantine_faults(config: Config, items: Mapping[str, Collection[str]], today: str) -> Sequence[str]:
    """Return a line for each quarantine of the stages in `items` that is over or matches none of the stage's items.

    Of a stage whose items are changed files, a quarantined one may be unchanged.
    """
    lines: list[str] = []
    for stage in config.stages:
        lists_all = stage.items is not None and stage.items.changed is None
        for each in stage.quarantine if stage.name in items else ():
            if is_over(each, today):
                lines.append(
                    f"{stage.name}: the quarantine of {each.item} ended on {each.until}: its failures count again "
                    f"({each.owner})"
                )
            elif lists_all and items[stage.name] and each.item not in items[stage.name]:
                lines.append(f"{stage.name}: the quarantine of {each.item} matches none of its items ({each.owner})")
    return lines
