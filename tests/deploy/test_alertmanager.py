"""amtool accepts the routing example, and it routes each severity as documented."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from alert_stories.model import ALERTS
from paropt_exporter.monitoring.alerts.rules import Level
from support.alertmanagers import alertmanager
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


def test_notifications_say_what_fires_with_its_links(tmp_path: Path) -> None:
    def build_alert(stage: str, severity: str, **more: str) -> dict[str, object]:
        labels = {"alertname": "Paropt", "job": "ci", "project": "shop", "lane": "standard", "stage": stage}
        texts = {
            "summary": f"{stage} broke.",
            "description": f"Why {stage}.",
            "runbook_url": f"https://r.example/#{stage}",
        }
        return {"labels": {**labels, "severity": severity}, "annotations": texts, **more}

    with alertmanager(tmp_path, own_receivers=True, group_wait="0s", group_interval="1s") as manager:
        manager.post(build_alert("lint", "warning"))
        chat = manager.next().body["attachments"][0]
        assert chat["title"] == "firing: ci shop standard"
        assert chat["text"].strip() == "*lint broke.* Why lint.\n<https://r.example/#lint|runbook>"
        manager.post(build_alert("types", "critical"), build_alert("unit", "critical"))
        page = manager.next().body
        if page["payload"]["summary"] == "types broke.":  # the second came a moment later
            page = manager.next().body
        assert page["payload"]["summary"] == "types broke. And 1 more."
        assert page["payload"]["severity"] == "critical"
        both = "Why types. https://r.example/#types Why unit. https://r.example/#unit"
        assert page["payload"]["custom_details"]["alerts"].strip() == both
        manager.post(build_alert("types", "critical", endsAt="2020-01-01T00:00:00Z"))
        page = manager.next().body
        assert (page["event_action"], page["payload"]["summary"]) == ("trigger", "unit broke.")
        assert page["payload"]["custom_details"]["alerts"].strip() == "Why unit. https://r.example/#unit"
        manager.post(build_alert("unit", "critical", endsAt="2020-01-01T00:00:00Z"))
        page = manager.next().body
        assert (page["event_action"], page["payload"]["summary"]) == ("resolve", "unit broke.")


def test_an_outage_of_many_hosts_is_a_short_message(tmp_path: Path) -> None:
    """500 hosts were 150,000 characters, and Slack takes 40,000."""
    down = [
        {
            "labels": {
                "alertname": "ParoptExporterDown",
                "job": "ci",
                "severity": "warning",
                "instance": f"build-{host}",
            },
            "annotations": {"summary": f"build-{host} is down.", "description": "It was up."},
        }
        for host in range(500)
    ]
    with alertmanager(tmp_path, own_receivers=True, group_wait="2s", group_interval="1s") as manager:
        manager.post(*down)
        lines = manager.next().body["attachments"][0]["text"].strip().split("\n")
        assert [line.endswith("is down.* It was up.") for line in lines if line].count(True) == 10
        assert lines[-1] == "And 490 more."
        manager.post(*({**alert, "endsAt": "2020-01-01T00:00:00Z"} for alert in down[:12]))
        text = manager.next().body["attachments"][0]["text"]
        assert "And 478 more.\n*build-0 is down.* Resolved.\n" in text
        assert text.endswith("And 2 more resolved.")


def test_projects_of_one_job_are_notified_apart() -> None:
    """Most projects have a lane `standard`, and `serve` has many projects in one job."""
    assert {"job", "project", "lane"} <= {*load_yaml(CONFIG.read_text())["route"]["group_by"]}


@pytest.mark.parametrize("label", ["namespace", "team"])
def test_a_critical_alert_inhibits_no_warning_of_another_team(label: str, tmp_path: Path) -> None:
    """Alerts on error budgets have no instance: job, project and lane may be the same in two namespaces."""
    labels = {"alertname": "ParoptSlaErrorBudgetBurn", "job": "ci", "project": "shop", "lane": "standard"}
    critical, warning = {"severity": "critical", "long": "1h"}, {"severity": "warning", "long": "3d"}
    with alertmanager(tmp_path, group_wait="1s", group_interval="1s") as manager:
        manager.post(
            {"labels": labels | {label: "a"} | critical},
            {"labels": labels | {label: "a"} | warning},
            {"labels": labels | {label: "b"} | warning},
        )
        told = {told.receiver: told.body["alerts"] for told in (manager.next(), manager.next())}
        assert [alert["labels"][label] for alert in told["pager"]] == ["a"]
        assert [alert["labels"][label] for alert in told["chat"]] == ["b"]


@pytest.mark.parametrize("cause", ["ParoptStageFailing", "ParoptStageStuck", "ParoptSlaCriticalViolation"])
def test_a_stage_that_keeps_its_lane_from_succeeding_is_notified_alone(cause: str, tmp_path: Path) -> None:
    lane = {"job": "ci", "instance": "build-1", "project": "shop", "lane": "standard"}
    (severity,) = {condition.level.value for condition in ALERTS[cause].conditions}
    overdue = {"alertname": "ParoptLaneNotSucceeding", "severity": "warning"}
    with alertmanager(tmp_path, group_wait="1s", group_interval="1s") as manager:
        manager.post(
            {"labels": lane | {"alertname": cause, "severity": severity, "stage": "lint"}},
            {"labels": lane | overdue},
            {"labels": lane | overdue | {"instance": "build-2"}},
            {"labels": lane | overdue | {"lane": "nightly"}},
        )
        told = [
            (alert["labels"])
            for _ in range(3 if severity == "critical" else 2)
            for alert in manager.next().body["alerts"]
        ]
        places = [(labels["instance"], labels["lane"]) for labels in told if labels["alertname"] != cause]
        assert sorted(places) == [("build-1", "nightly"), ("build-2", "standard")]
        assert [labels["alertname"] for labels in told].count(cause) == 1
