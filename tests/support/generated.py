"""The generated files of this repository: to read them costs less than to render them.

`tests/cli/test_generate.py` shows that they are up to date.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from support.yaml_documents import load_yaml

ROOT = Path(__file__).parents[2]
ALERTS = ("alerts/paropt-recording.yml", "alerts/paropt-alerts.yml")


def load_dashboards() -> dict[str, Any]:
    """Return the dashboards by path below the repository."""
    return {str(path.relative_to(ROOT)): json.loads(path.read_text()) for path in (ROOT / "dashboards").glob("*.json")}


def iter_panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the panels of a dashboard, also those of closed rows, without the rows."""
    for panel in dashboard["panels"]:
        yield from panel["panels"] if panel["type"] == "row" else (panel,)


@cache
def load_rule_groups() -> dict[str, tuple[dict[str, Any], ...]]:
    """Return the recordings and alerts by the names of their groups, in order."""
    return {
        group["name"]: tuple(group["rules"])
        for path in ALERTS
        for group in load_yaml((ROOT / path).read_text())["groups"]
    }
