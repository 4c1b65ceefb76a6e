"""What docs/endpoint.md shows is taken by the exporter and by promtool."""

from __future__ import annotations

import re
from pathlib import Path

from deployed import refusal
from paropt_exporter.exposition import web_config
from real_servers import program
from secured import Authority

PAGE = (Path(__file__).parent.parent / "docs/endpoint.md").read_text()
WEB_CONFIG, SCRAPE_CONFIG = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_web_config_is_taken_by_both(tmp_path: Path) -> None:
    Authority(tmp_path).issue("server")
    path = tmp_path / "web.yml"
    path.write_text(WEB_CONFIG)
    assert refusal(program("promtool"), "check", "web-config", path) == ""
    assert set(web_config.read(path).basic_auth_users) == {"prometheus"}


def test_the_scrape_config_is_taken_by_prometheus(tmp_path: Path) -> None:
    Authority(tmp_path)
    (tmp_path / "password").touch()
    path = tmp_path / "prometheus.yml"
    path.write_text(SCRAPE_CONFIG)
    assert refusal(program("promtool"), "check", "config", path) == ""
