"""The examples for fleets pass promtool, and real servers of parts and a global one sum up their hosts."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from paropt_exporter import families
from paropt_exporter.config.units import LONGEST_NAME
from paropt_exporter.monitoring.alerts import recording, rule_files
from paropt_exporter.monitoring.options import Options
from support.deployed import check_queries, refusal
from support.http_servers import QuietHandler, run_http_server
from support.real_servers import Prometheus, eventually, free_port, program
from support.yaml_documents import load_yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/fleet"
GLOBAL_RULES = ROOT / "alerts/fleet/paropt-global.yml"
RULES = {
    "part.yml": ["alerts/paropt-recording.yml", "alerts/paropt-alerts.yml", "alerts/fleet/paropt-parts.yml"],
    "part-remote-write.yml": ["alerts/paropt-recording.yml", "alerts/fleet/paropt-parts.yml"],
    "global.yml": ["alerts/fleet/paropt-global.yml"],
    "kubernetes.yml": ["alerts/paropt-recording.yml", "alerts/paropt-alerts.yml"],
    "agent.yml": [],
}


def test_each_example_is_checked() -> None:
    assert {path.name for path in FOLDER.glob("*.yml")} == RULES.keys()


@pytest.mark.parametrize("name", RULES)
def test_promtool_accepts_the_example_with_its_rules_and_targets(name: str, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    (tmp_path / "rules").mkdir()
    for path in RULES[name]:
        shutil.copy(ROOT / path, tmp_path / "rules")
    text = (tmp_path / name).read_text().replace("/etc/prometheus/secrets", str(tmp_path))  # promtool wants the file
    # Debian builds promtool without Kubernetes' service discovery; the other keys are checked.
    text = re.sub(r"kubernetes_sd_configs: .*", "file_sd_configs: [{files: [targets/*.yml]}]", text)
    (tmp_path / "remote-write").write_text("secret")
    (tmp_path / name).write_text(text)
    agent = ["--agent"] if name == "agent.yml" else []
    assert refusal(program("promtool"), "check", "config", *agent, tmp_path / name) == ""


@pytest.mark.parametrize("name", [name for name, rules in RULES.items() if rules])
def test_alerts_of_an_example_reach_an_alertmanager(name: str) -> None:
    config = load_yaml((FOLDER / name).read_text())
    assert config["alerting"]["alertmanagers"]


@pytest.mark.parametrize("options", [Options(), Options(selector='job="ci"', rate_window="10m")])
def test_promtool_accepts_the_rules_of_a_fleet(options: Options, tmp_path: Path) -> None:
    for path, text in rule_files.render_fleet_rules(options).items():
        (tmp_path / Path(path).name).write_text(text)
        assert refusal(program("promtool"), "check", "rules", "--lint-fatal", tmp_path / Path(path).name) == ""


def test_sums_count_each_part_once_though_two_servers_scrape_it(tmp_path: Path) -> None:
    lane = 'project="shop",lane="standard"'
    series = [
        (f'lane:paropt_sla_checks:increase5m{{{lane},part="0",copy="a"}}', "3"),
        (f'lane:paropt_sla_checks:increase5m{{{lane},part="0",copy="b"}}', "4"),
        (f'lane:paropt_sla_checks:increase5m{{{lane},part="1",copy="a"}}', "6"),
        ('fleet:paropt_exporters:count{project="shop",part="0",copy="a"}', "10"),
        ('fleet:paropt_exporters:count{project="shop",part="1",copy="a"}', "20"),
        (f'fleet:paropt_run_interval_seconds:max{{{lane},part="0",copy="a"}}', "60"),
        (f'fleet:paropt_run_interval_seconds:max{{{lane},part="1",copy="a"}}', "600"),
        ('fleet:paropt_pool_busy_seconds:rate5m{pool="commands",part="0",copy="a"}', "1"),
        ('fleet:paropt_pool_busy_seconds:rate5m{pool="commands",part="1",copy="a"}', "2"),
        ('fleet:paropt_pool_slot_seconds:rate5m{pool="commands",part="0",copy="a"}', "2"),
        ('fleet:paropt_pool_slot_seconds:rate5m{pool="commands",part="1",copy="a"}', "4"),
    ]
    expected = {
        "global_lane:paropt_sla_checks:increase5m": (lane, 10),
        "global_fleet:paropt_exporters:count": ('project="shop"', 30),
        "global_fleet:paropt_parts:count": ("", 2),
        "global_fleet:paropt_run_interval_seconds:max": (lane, 600),
        "global_fleet:paropt_pool_busy_seconds_per_slot_seconds:ratio_rate5m": ('pool="commands"', 0.5),
    }
    check_queries(
        tmp_path,
        {name: f"{value}x9" for name, value in series},
        [(name, "5m", {f"{name}{{{labels}}}": value}) for name, (labels, value) in expected.items()],
        rules=[GLOBAL_RULES],
    )


def test_the_longest_name_is_within_the_limit_of_a_label() -> None:
    """Prometheus counts bytes, and refuses the whole page of a host with a longer value."""
    (scrape,) = load_yaml((FOLDER / "part.yml").read_text())["scrape_configs"]
    assert scrape["label_value_length_limit"] >= len(("\U0001f680" * LONGEST_NAME).encode())


@pytest.mark.parametrize("name", ["part.yml", "part-remote-write.yml"])
def test_parts_send_equal_alerts_from_both_servers_and_none_on_the_whole_fleet(name: str) -> None:
    config = load_yaml((FOLDER / name).read_text())
    assert config["global"]["external_labels"].keys() == {recording.PART, recording.COPY}
    equal, dropped = config["alerting"]["alert_relabel_configs"]
    assert equal == {"regex": recording.COPY, "action": "labeldrop"}
    assert (dropped["source_labels"], dropped["action"]) == (["alertname"], "drop")
    names = {alert.name for alert in rule_files.build_alerts(Options())}
    of_the_fleet = {name for name in names if re.fullmatch(dropped["regex"], name)}
    assert of_the_fleet == {"ParoptExporterAbsent", *find_global_alerts()}


def find_global_alerts() -> set[str]:
    rules = load_yaml(GLOBAL_RULES.read_text())
    return {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}


@pytest.mark.parametrize(("violations", "fires"), [((10, 0), False), ((10, 8), True)])
def test_an_error_budget_is_that_of_a_lane_over_all_parts(
    violations: tuple[int, int], fires: bool, tmp_path: Path
) -> None:
    """A fifth of one part's checks, which are a fiftieth of all, is not yet a page; a sixth of all is."""
    lane = 'job="ci",project="shop",lane="standard"'
    checks = (50, 450)  # of each part, in each span
    series = {
        f'lane:paropt_sla_{name}:increase{span}{{{lane},part="{part}",copy="a"}}': f"{counts[part]}x9"
        for span in ("5m", "1h")
        for name, counts in (("checks", checks), ("violations", (violations[0], violations[1] * 10)))
        for part in (0, 1)
    }
    series |= {f'fleet:paropt_run_interval_seconds:max{{{lane},part="0",copy="a"}}': "60x9"}
    firing = "count by (job, project, lane, part) (ALERTS{long='1h',alertstate='firing'})"
    check_queries(tmp_path, series, [(firing, "5m", {f"{{{lane}}}": 1} if fires else {})], rules=[GLOBAL_RULES])


def test_the_example_for_kubernetes_discovers_pods() -> None:
    """The keys and values of Prometheus' documentation, since promtool can't check them here."""
    (scrape,) = load_yaml((FOLDER / "kubernetes.yml").read_text())["scrape_configs"]
    assert scrape["kubernetes_sd_configs"] == [{"role": "pod", "namespaces": {"names": ["ci"]}}]
    labels = {label for rule in scrape["relabel_configs"] for label in rule["source_labels"]}
    assert all(label.startswith(("__meta_kubernetes_pod_", "__meta_kubernetes_namespace")) for label in labels)


def test_each_sum_of_a_lane_is_summed_over_the_parts() -> None:
    rendered = {**rule_files.render_rules(Options()), **rule_files.render_fleet_rules(Options())}
    records = {
        rule["record"]
        for text in rendered.values()
        for group in load_yaml(text)["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    below = {name for name in records if name.startswith(("lane:", "fleet:"))}
    assert below
    assert {f"global_{name}" for name in below} <= records


class _Page(QuietHandler):
    def do_GET(self) -> None:
        self.reply(f'{families.SERVES_ON.name}{{project="shop"}} 1\n'.encode())


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Nine servers: an address decides about the part."""
    with ExitStack() as stack:
        yield [f"127.0.0.1:{stack.enter_context(run_http_server(_Page))}" for _ in range(9)]


def test_real_servers_scrape_each_host_once_and_the_global_one_counts_them(hosts: list[str], tmp_path: Path) -> None:
    """All start at once, since a Prometheus waits for five seconds until it scrapes its targets."""
    ports = [free_port() for _ in range(2)]
    config = _read("global.yml", recording.GLOBAL_FILE)
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
    with ExitStack() as stack:
        parts = [_start_part(stack, tmp_path / f"part{part}", port, part, 2, hosts) for part, port in enumerate(ports)]
        server = _start(stack, tmp_path / "global", free_port(), config, [ROOT / "alerts/fleet/paropt-global.yml"])
        eventually("the parts have all hosts", lambda: sum(map(len, map(_find_hosts, parts))) == len(hosts))
        assert sorted(name for server in parts for name in _find_hosts(server)) == sorted(hosts)
        count = "global_fleet:paropt_exporters:count"
        eventually("all hosts are counted", lambda: [s["value"][1] for s in server.query(count)] == ["9"])
        eventually("both parts are counted", lambda: server.value("global_fleet:paropt_parts:count") == 2)


def _find_hosts(server: Prometheus) -> list[str]:
    return [series["metric"]["instance"] for series in server.query('up{job="paropt"} == 1')]


def _start_part(stack: ExitStack, folder: Path, port: int, part: int, count: int, hosts: list[str]) -> Prometheus:
    config = _read("part.yml", recording.PARTS_FILE)
    config["global"]["external_labels"]["part"] = str(part)
    (scrape,) = config["scrape_configs"]
    by_hash, keep = scrape["relabel_configs"]
    by_hash["modulus"], keep["regex"] = count, str(part)
    scrape["file_sd_configs"] = [{"files": ["targets.json"]}]
    folder.mkdir()
    (folder / "targets.json").write_text(json.dumps([{"targets": hosts}]))
    return _start(stack, folder, port, config, [ROOT / "alerts/fleet/paropt-parts.yml"])


def _read(name: str, rules: str) -> dict[str, Any]:
    """Return an example with intervals for a test."""
    config: dict[str, Any] = load_yaml((FOLDER / name).read_text())
    config["global"] |= {"scrape_interval": "250ms", "evaluation_interval": "250ms"}
    for scrape in config["scrape_configs"]:
        scrape["scrape_timeout"] = "250ms"
    config["rule_files"] = [f"rules/{rules}"]
    return config


def _start(stack: ExitStack, folder: Path, port: int, config: dict[str, Any], rules: list[Path]) -> Prometheus:
    folder.mkdir(exist_ok=True)
    (folder / "rules").mkdir()
    for path in rules:
        text = path.read_text().replace("interval: 1m", "interval: 250ms")
        (folder / "rules" / path.name).write_text(text)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        program("prometheus"), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    server = Prometheus(f"http://127.0.0.1:{port}", command, folder / "log")
    stack.callback(server.stop)
    server.start("/-/ready")
    return server


def test_the_supported_prometheus_has_no_native_histograms_with_our_buckets(tmp_path: Path) -> None:
    """docs/scale.md: no native histograms, since the queries can't follow."""
    job = {"job_name": "x", "convert_classic_histograms_to_nhcb": True, "static_configs": [{"targets": ["a:1"]}]}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
    version = subprocess.run([program("promtool"), "--version"], capture_output=True, text=True, timeout=60, check=True)
    refused = "convert_classic_histograms_to_nhcb not found" in refusal(
        program("promtool"), "check", "config", tmp_path / "prometheus.yml"
    )
    assert refused == version.stdout.startswith("promtool, version 2.")


def test_the_page_on_scale_has_the_numbers_of_the_families() -> None:
    series = importlib.import_module("fleet").count_listed()
    text = (ROOT / "docs/scale.md").read_text()
    assert f"{series.host} + {series.stage} x stages" in text
    found = re.search(r"Keep it above `(\d+) \+ (\d+) x stages`", text)
    assert found
    assert f"a host of 40 stages has {int(found[1]) + 40 * int(found[2]):,};" in (FOLDER / "part.yml").read_text()


def test_no_rule_or_panel_uses_the_buckets_that_the_page_on_scale_drops(tmp_path: Path) -> None:
    text = (ROOT / "docs/scale.md").read_text()
    (block,) = re.findall(r"```yaml\n(metric_relabel_configs:.*?)```", text, re.DOTALL)
    (drop,) = load_yaml(block)["metric_relabel_configs"]
    of_stages = [each for each in families.FAMILIES if each.kind is families.Kind.HISTOGRAM and "stage" in each.labels]
    buckets = {f"{family.name}_bucket" for family in of_stages}
    parts = [f"{family.name}{part}" for family in families.FAMILIES for part in ("", "_bucket", "_sum", "_count")]
    assert {name for name in parts if re.fullmatch(drop["regex"], name)} == buckets
    generated = [*(ROOT / "alerts").rglob("paropt-*.yml"), *(ROOT / "dashboards").glob("*.json")]
    assert [path.name for path in generated for name in buckets if name in path.read_text()] == []

    found = re.search(r"Keep it above `(\d+) \+ (\d+) x stages`", text)
    assert found
    host, stage = int(found[1]), int(found[2])
    kept = stage - len(buckets) * (len(families.BUCKETS_SECONDS) + 1)
    assert f"{host} + {kept} x stages: 300 hosts of 50 stages have {300 * (host + 50 * kept):,} series" in text
    assert f"instead of {300 * (host + 50 * stage):,}" in text

    job = {"job_name": "paropt", "metric_relabel_configs": [drop], "static_configs": [{"targets": ["a:1"]}]}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
    assert refusal(program("promtool"), "check", "config", tmp_path / "prometheus.yml") == ""
