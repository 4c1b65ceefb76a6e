"""The examples of docs/deploy.md are valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from support.deployed import parsed, refusal
from support.real_servers import program
from support.yaml_documents import load_yaml

PAGE_PATH = Path(__file__).parents[2] / "docs/deploy.md"
BASE = PAGE_PATH.parents[1] / "deploy/kubernetes/base"
PAGE = PAGE_PATH.read_text()
OVERLAY, SCRAPE_CONFIG = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_commands_are_valid() -> None:
    lines = re.findall(r"`(paropt-exporter [^`]*)`", PAGE)
    assert lines
    for line in lines:
        parsed(shlex.split(line)[1:])


def test_the_overlay_changes_existing_objects() -> None:
    base = load_yaml((BASE / "kustomization.yaml").read_text())
    overlay = load_yaml(OVERLAY)
    assert {each["name"] for each in overlay["configMapGenerator"]} == {
        each["name"] for each in base["configMapGenerator"]
    }
    (image,) = overlay["images"]
    workloads = [load_yaml((BASE / f"{name}.yaml").read_text()) for name in ("deployment", "cronjob")]
    assert all(f"'image': '{image['name']}'" in str(workload) for workload in workloads)


def test_prometheus_accepts_the_scrape_config(tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(SCRAPE_CONFIG)
    assert refusal(program("promtool"), "check", "config", tmp_path / "prometheus.yml") == ""
