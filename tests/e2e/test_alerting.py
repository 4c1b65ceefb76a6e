"""An alert's whole way: a limit breaks, Prometheus' rule fires, Alertmanager tells somebody, a good run ends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest
import yaml

from paropt_exporter.monitoring.alerts import rule_files
from paropt_exporter.monitoring.options import Options
from support import projects
from support.alertmanagers import Alertmanager, alertmanager, told_by
from support.real_servers import Prometheus, eventually, prometheus, serving
from support.yaml_documents import load_yaml

RUNBOOK = "https://wiki.example.org/paropt/runbook"
GRAFANA = "https://grafana.example.org"
SLOW_WHILE_THERE = "run: \"sh -c 'test ! -e slow || sleep 2'\""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The generated rules, but that a failing stage alerts and a broken limit resolves at once: a quarter of an hour is
    long for a test, and so is the minute between two looks at most groups.
    """
    folder = tmp_path / "rules"
    folder.mkdir()
    for name, text in rule_files.render_rules(Options(runbook_url=RUNBOOK, grafana_url=GRAFANA)).items():
        content = load_yaml(text)
        for group in content["groups"]:
            group.pop("interval", None)
            for rule in group["rules"]:
                if rule.get("alert") == "ParoptStageFailing":
                    rule.pop("for")
                if rule.get("alert", "").endswith("SlaViolation"):
                    del rule["keep_firing_for"]
        (folder / Path(name).name).write_text(yaml.safe_dump(content))
    return folder / "*.yml"


@contextmanager
def watched(
    folder: Path, rules: Path, *, every: str = "3s", group_wait: str = "1s"
) -> Iterator[tuple[Prometheus, Alertmanager]]:
    """Run the project's lane again and again, with a Prometheus and an Alertmanager that look at it."""
    running = alertmanager(folder / "alertmanager", group_wait=group_wait, group_interval="1s")
    with serving(folder, projects.ANY_PORT, f"--every={every}"), running as told:
        target = projects.url(folder).removeprefix("http://").removesuffix("/metrics")
        with prometheus(folder / "prometheus", [target], alerting=told_by(told.address, rules)) as real:
            yield real, told


def lane_dashboard(labels: dict[str, str]) -> str:
    """Return the dashboard's address with the alert's labels as its variables."""
    names = ("job", "instance", "project", "lane", "stage")
    return f"{GRAFANA}/d/paropt-lane?{urlencode({f'var-{name}': labels[name] for name in names})}"


def test_broken_limits_notify_once_and_resolve_with_the_next_good_run(tmp_path: Path, rules: Path) -> None:
    limit = "sla: {max: 1s, warn_at: 1}"
    folder = projects.write(
        tmp_path, f"name: lint, {SLOW_WHILE_THERE}, {limit}\nname: unit, {SLOW_WHILE_THERE}, {limit}"
    )
    (folder / "slow").touch()
    with watched(folder, rules) as (_, told):
        fired = told.next()
        assert (fired.receiver, fired.body["status"]) == ("chat", "firing")
        assert fired.body["groupLabels"] == {"job": "paropt", "project": "demo", "lane": "standard"}
        both = {("ParoptSlaViolation", "lint"), ("ParoptSlaViolation", "unit")}
        assert both <= fired.alerts.keys()
        for key in both:
            notes = fired.alerts[key]["annotations"]
            assert notes["runbook_url"] == f"{RUNBOOK}#paroptslaviolation"
            assert notes["dashboard_url"] == lane_dashboard(fired.alerts[key]["labels"])
            assert "its limit of 1s" in notes["description"]
        (folder / "slow").unlink()
        resolved: set[tuple[str, str]] = set()
        while not both <= resolved:
            again = told.next()
            assert again.receiver == "chat"
            resolved |= {key for key, alert in again.alerts.items() if alert["status"] == "resolved"}


def test_critical_limit_pages_and_inhibits_the_warnings_of_its_stage(tmp_path: Path, rules: Path) -> None:
    folder = projects.write(tmp_path, f"name: scan, {SLOW_WHILE_THERE}, sla: {{max: 1s, warn_at: 1, critical: true}}")
    (folder / "slow").touch()
    # Groups of rules are evaluated at different times: the warning may come before the alert that inhibits it.
    with watched(folder, rules, every="1m", group_wait="5s") as (real, told):
        fired = told.next()
        assert (fired.receiver, fired.body["status"]) == ("pager", "firing"), fired.alerts
        assert fired.alerts.keys() == {("ParoptSlaCriticalViolation", "scan")}
        # Stopped at its limit, the stage has failed as well, which by itself is a warning.
        warned = 'ALERTS{alertname="ParoptStageFailing", severity="warning", alertstate="firing", stage="scan"}'
        eventually("Prometheus fires the warning", lambda: real.query(warned))
        eventually("Alertmanager keeps it back", lambda: told.states().get("ParoptStageFailing") == "suppressed")
        assert told.states()["ParoptSlaCriticalViolation"] == "active"
        assert told.nothing_arrived()
