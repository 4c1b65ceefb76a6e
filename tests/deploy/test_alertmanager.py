"""amtool accepts the routing example, and it routes each severity as documented."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from alert_stories.model import ALERTS
from paropt_exporter.monitoring.alerts.rules import Level
from support.real_servers import program
from support.yaml_documents import load_yaml

RECEIVERS = {Level.CRITICAL: "pager", Level.WARNING: "chat", Level.INFO: "nowhere"}
CONFIG = Path(__file__).parents[2] / "deploy/alertmanager/alertmanager.yml"


def run_amtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("amtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_amtool_accepts_the_routing() -> None:
    checked = run_amtool("check-config", str(CONFIG))
    assert checked.returncode == 0, checked.stderr


ROUTED = [(name, level) for name, alert in ALERTS.items() for level in {each.level for each in alert.conditions}]


@pytest.mark.parametrize(("alert", "level"), sorted(ROUTED))
def test_an_alert_is_routed_by_severity(alert: str, level: Level) -> None:
    labels = (f"alertname={alert}", f"severity={level.value}", "job=ci", "lane=standard", "stage=unit_tests")
    wanted = f"--verify.receivers={RECEIVERS[level]}"
    routed = run_amtool("config", "routes", "test", f"--config.file={CONFIG}", wanted, *labels)
    assert routed.returncode == 0, routed.stdout


def test_info_alerts_are_not_sent() -> None:
    (nowhere,) = (one for one in load_yaml(CONFIG.read_text())["receivers"] if one["name"] == "nowhere")
    assert nowhere == {"name": "nowhere"}


def test_inhibitions_name_existing_alerts() -> None:
    named = re.findall(r"Paropt\w+", CONFIG.read_text().partition("inhibit_rules:")[2].partition("receivers:")[0])
    assert named
    assert set(named) <= set(ALERTS)


def test_projects_of_one_job_are_notified_apart() -> None:
    """Most projects have a lane `standard`, and `serve` has many projects in one job."""
    assert load_yaml(CONFIG.read_text())["route"]["group_by"] == ["job", "project", "lane"]
