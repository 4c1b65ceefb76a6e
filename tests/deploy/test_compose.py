"""The compose stack is valid and pinned, listens locally only, and mounts existing files."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from paropt_exporter import config
from paropt_exporter.cli import generate
from paropt_exporter.config.units import parse_duration
from paropt_exporter.engine.time_limits import TERM_GRACE_SECONDS
from paropt_exporter.monitoring.options import Format, Options
from support.deployed import parsed, refusal, schema_faults
from support.real_servers import program
from support.yaml_documents import load_yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/compose"
SERVICES: dict[str, Any] = load_yaml((FOLDER / "compose.yml").read_text())["services"]
every_service = pytest.mark.parametrize("name", SERVICES)


def collect_mounts(name: str) -> dict[str, str]:
    """Return a service's mounts of this repository's files and folders, by path in the container."""
    pairs = [volume.split(":")[:2] for volume in SERVICES[name]["volumes"]]
    return {inside: outside for outside, inside in pairs if outside.startswith(".")}


def get_flag(name: str, flag_name: str) -> str:
    (value,) = [word.partition("=")[2] for word in SERVICES[name]["command"] if word.startswith(f"{flag_name}=")]
    return str(value)


def test_the_file_is_valid() -> None:
    assert schema_faults("compose-spec", FOLDER / "compose.yml") == ""


def has_compose() -> bool:
    """Say whether docker's compose plugin is installed: it validates a file without a daemon."""
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_compose(), reason="docker compose is not installed")
def test_docker_compose_accepts_the_file() -> None:
    command = ["docker", "compose", "--file", str(FOLDER / "compose.yml"), "config", "--quiet"]
    read = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")


@every_service
def test_images_are_pinned_and_ports_are_local(name: str) -> None:
    service = SERVICES[name]
    assert "build" in service or re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@every_service
def test_a_service_has_minimal_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


def test_the_exporter_has_time_to_end_its_commands() -> None:
    """They get 10 s between TERM and KILL; Docker kills a container 10 s after TERM by default."""
    assert parse_duration(SERVICES["exporter"]["stop_grace_period"]) > TERM_GRACE_SECONDS
    (command,) = re.findall(r"docker run [^`]*", (ROOT / "docs/deploy.md").read_text())
    (seconds,) = re.findall(r"--stop-timeout (\d+)", command)
    assert int(seconds) > TERM_GRACE_SECONDS


@every_service
def test_mounted_files_exist_and_are_read_only(name: str) -> None:
    for inside, outside in collect_mounts(name).items():
        assert (FOLDER / outside).exists(), outside
        assert f"{outside}:{inside}:ro" in SERVICES[name]["volumes"]


def test_the_exporters_command_is_valid_and_its_config_is_the_demos() -> None:
    parsed(SERVICES["exporter"]["command"])
    demo = (ROOT / "deploy/demo/paropt.yml").read_text()
    expected = demo.replace("http://127.0.0.1:9090", "http://prometheus:9090")
    assert (FOLDER / "paropt.yml").read_text() == expected, "copy it from deploy/demo/paropt.yml"
    assert config.read_config(FOLDER / "paropt.yml", root=FOLDER).project == "demo"


def test_prometheus_accepts_its_config_with_the_rules(tmp_path: Path) -> None:
    inside = get_flag("prometheus", "--config.file")
    text = (FOLDER / collect_mounts("prometheus")[inside]).read_text()
    rules = (FOLDER / collect_mounts("prometheus")["/etc/prometheus/rules"]).resolve()
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/rules", str(rules)))
    checked = subprocess.run(
        [program("promtool"), "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert len(re.findall(r"SUCCESS: \d+ rules found", checked.stdout)) == len([*rules.glob("*.yml")])


def test_prometheus_scrapes_and_alerts_existing_services() -> None:
    config_text = (FOLDER / "prometheus.yml").read_text()
    targets = re.findall(r'"([a-z]+):(\d+)"', config_text)
    assert {name for name, _ in targets} == {"exporter", "prometheus", "alertmanager"}
    for name, port in targets:
        assert [f"127.0.0.1:{port}:{port}"] == SERVICES[name]["ports"]


def test_alertmanager_accepts_its_config() -> None:
    inside = Path(get_flag("alertmanager", "--config.file"))
    file = FOLDER / collect_mounts("alertmanager")[str(inside.parent)] / inside.name
    assert refusal(program("amtool"), "check-config", file) == ""


def test_grafana_finds_its_data_source_and_every_dashboard() -> None:
    inside = collect_mounts("grafana")
    provisioning = FOLDER / inside["/etc/grafana/provisioning"]
    (source,) = load_yaml((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    generated = generate.render_files(["dashboards"], Options(format=Format.PROVISIONING))
    (provider,) = [text for path, text in generated.items() if path.endswith("paropt.yml")]
    assert (provisioning / "dashboards/paropt.yml").read_text() == provider, (
        "as `generate --format provisioning` has it"
    )
    (folder,) = [each["options"]["path"] for each in load_yaml(provider)["providers"]]
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == folder
    assert (FOLDER / inside[folder] / home.name).is_file()


def test_grafana_reads_nothing_but_dashboards() -> None:
    """It searches the folders below its own, too."""
    inside = "/var/lib/grafana/dashboards"
    outside = (FOLDER / collect_mounts("grafana")[inside]).resolve()
    hidden = {outside / Path(path).relative_to(inside) for path in SERVICES["grafana"]["tmpfs"] if inside in path}
    read = [path for path in outside.rglob("*.json") if not hidden & {*path.parents}]
    assert sorted(path.name for path in read) == ["exporter.json", "lane.json", "overview.json", "pools.json"]
    assert all("title" in load_yaml(path.read_text()) for path in read)
