"""Options of dashboards, and their formats for Grafana."""

from __future__ import annotations

import json

import pytest

from paropt_exporter.monitoring import dashboards
from paropt_exporter.monitoring.options import Format, Options
from support.generated import iter_panels
from support.yaml_documents import load_yaml


@pytest.fixture(scope="module")
def plain() -> dict[str, str]:
    return dashboards.render_dashboards(Options())


def test_the_selector_is_in_every_query_variable_and_annotation() -> None:
    for path, text in dashboards.render_dashboards(Options(selector='env="prod"')).items():
        dashboard = json.loads(text)
        queries = [target["expr"] for panel in iter_panels(dashboard) for target in panel["targets"]]
        queries += [variable["query"] for variable in dashboard["templating"]["list"][1:]]
        queries += [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
        for query in queries:
            assert query.count('{env="prod"') == query.count("{") > 0, (path, query)


def test_the_rate_window_replaces_grafanas() -> None:
    text = "".join(dashboards.render_dashboards(Options(rate_window="10m")).values())
    assert "[10m]" in text
    assert "$__rate_interval" not in text


def test_the_given_data_source_is_the_variables_default() -> None:
    for text in dashboards.render_dashboards(Options(datasource_uid="prom-1")).values():
        first = json.loads(text)["templating"]["list"][0]
        assert first["current"] == {"selected": True, "text": "prom-1", "value": "prom-1"}


def test_the_sla_target_is_in_thresholds_and_budget() -> None:
    text = dashboards.render_dashboards(Options(sla_target=0.999))["dashboards/overview.json"]
    assert "/ 0.001, 0)" in text
    assert '"value": 0.999' in text


def test_provisioning_adds_the_provider_file(plain: dict[str, str]) -> None:
    files = dashboards.render_dashboards(Options(format=Format.PROVISIONING))
    (provider,) = load_yaml(files.pop("provisioning/dashboards/paropt.yml"))["providers"]
    assert files == plain
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


@pytest.mark.parametrize("form", [Format.CONFIGMAP, Format.PROMETHEUS_OPERATOR])
def test_a_config_map_has_the_sidecars_label_and_the_same_dashboard(form: Format, plain: dict[str, str]) -> None:
    files = dashboards.render_dashboards(Options(format=form))
    assert len(files) == len(plain)
    for path, text in files.items():
        config_map = load_yaml(text)
        assert config_map["kind"] == "ConfigMap"
        assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
        (content,) = config_map["data"].values()
        assert content == plain[path.replace(".configmap.yml", ".json")]
        assert len(text.encode()) < 1 << 20, "Kubernetes takes no larger object"
