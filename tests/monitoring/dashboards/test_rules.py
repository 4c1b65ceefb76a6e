"""The rules of Grafana's dashboard-linter, which is a program in Go, and our own conventions for dashboards."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from paropt_exporter import families as names
from support.generated import iter_panels, load_dashboards

FILES = load_dashboards()
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# The units of Grafana's list that the dashboards use.
UNITS = {"locale", "short", "percentunit", "s", "bytes", "ops"}
OPTIONAL = {"project", "lane", "stage", "pool"}
_SELECTOR = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\{[^}]*\}")
_OF_DASK = re.compile(r"\bdask_scheduler_\w+")
_BARE_METRIC = re.compile(r"(?<!:)\b(ALERTS|paropt_\w+|process_\w+|python_\w+|scrape_\w+|up)\b(?![{:])")

each_dashboard = pytest.mark.parametrize("dashboard", FILES.values(), ids=FILES.keys())


PANELS = [panel for dashboard in FILES.values() for panel in iter_panels(dashboard)]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]


def get_variables(dashboard: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


@each_dashboard
def test_the_data_source_is_a_variable(dashboard: dict[str, Any]) -> None:
    first = dashboard["templating"]["list"][0]
    assert (first["name"], first["label"], first["type"], first["query"]) == (
        "datasource",
        "Data source",
        "datasource",
        "prometheus",
    )


@each_dashboard
@pytest.mark.parametrize("name", ["job", "instance"])
def test_job_and_instance_allow_one_several_or_all(dashboard: dict[str, Any], name: str) -> None:
    variable = get_variables(dashboard)[name]
    assert (variable["label"], variable["type"]) == (name.capitalize(), "query")
    assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".+")
    assert variable["current"]["value"] == ["$__all"]


@pytest.mark.parametrize("name", ["overview", "lane"])
def test_jobs_and_instances_of_pushed_lanes_can_be_chosen(name: str) -> None:
    """A Pushgateway has a lane's series, and none of an exporter."""
    variables = get_variables(FILES[f"dashboards/{name}.json"])
    assert all(names.STAGE_INFO.name in variables[label]["query"] for label in ("job", "instance"))


@each_dashboard
def test_variables_refresh_with_the_time_range(dashboard: dict[str, Any]) -> None:
    for variable in dashboard["templating"]["list"][1:]:
        assert variable["refresh"] == 2
        assert variable["datasource"] == DATASOURCE
        assert re.fullmatch(r"label_values\(\w+(\{.+\})?, \w+\)", variable["query"])


@each_dashboard
def test_all_of_an_optional_label_includes_its_absence(dashboard: dict[str, Any]) -> None:
    values = {name: one.get("allValue") for name, one in get_variables(dashboard).items() if one.get("includeAll")}
    assert {values[name] for name in OPTIONAL & values.keys()} <= {".*"}


def test_the_lanes_dashboard_shows_one_lane_of_one_project() -> None:
    variables = get_variables(FILES["dashboards/lane.json"])
    assert [name for name, one in variables.items() if name in OPTIONAL and not one["multi"]] == ["project", "lane"]


@each_dashboard
def test_a_dashboard_has_a_stable_uid_and_links_to_the_others(dashboard: dict[str, Any]) -> None:
    assert dashboard["uid"].startswith("paropt-")
    assert dashboard["tags"] == ["paropt"]
    assert dashboard["editable"] is False
    assert dashboard["refresh"] == "30s"
    (link,) = dashboard["links"]
    assert (link["type"], link["tags"], link["keepTime"], link["includeVars"]) == ("dashboards", ["paropt"], True, True)


def test_marks_are_of_alerts_that_notify() -> None:
    (marks,) = FILES["dashboards/overview.json"]["annotations"]["list"]
    assert 'severity!="info"' in marks["expr"]


def test_marks_are_of_chosen_projects_and_hosts_or_of_alerts_without_these_labels() -> None:
    dashboard = FILES["dashboards/overview.json"]
    (marks,) = dashboard["annotations"]["list"]
    for name in get_variables(dashboard).keys() - {"datasource"}:
        assert f'{name}=~"${name}|"' in marks["expr"]


def test_the_tables_and_bars_of_lanes_open_the_lanes_dashboard() -> None:
    """A link names the series' project and lane, and keeps the data source, the host and the time shown."""
    links = [
        (panel["title"], link["url"])
        for panel in iter_panels(FILES["dashboards/overview.json"])
        for fields in [panel["fieldConfig"]]
        for link in [
            *fields["defaults"].get("links", ()),
            *(
                link
                for override in fields["overrides"]
                for change in override["properties"]
                if change["id"] == "links"
                for link in change["value"]
            ),
        ]
    ]
    assert len(links) > 5
    for title, url in links:
        address, _, query = url.partition("?")
        assert address == f"/d/{FILES['dashboards/lane.json']['uid']}"
        assert {"${datasource:queryparam}", "${job:queryparam}", "${__url_time_range}"} <= {*query.split("&")}, title
        assert re.search(r"var-project=\$\{__\w+\.\w+\.[Pp]roject:percentencode\}", query), title
        assert re.search(r"var-lane=\$\{__\w+\.\w+\.[Ll]ane:percentencode\}", query), title
        assert "instance" in query, title


def test_a_missing_value_has_no_colour_of_a_threshold() -> None:
    """A stage without a limit was green, like one that keeps it."""
    (table,) = [panel for panel in PANELS if panel["title"] == "How does each stage do?"]
    (change,) = [
        change["value"]
        for override in table["fieldConfig"]["overrides"]
        if override["matcher"]["options"] == "Of its limit"
        for change in override["properties"]
        if change["id"] == "mappings"
    ]
    result = {"color": "text", "index": 0, "text": "no limit"}
    assert change == [{"type": "special", "options": {"match": "null+nan", "result": result}}]


def test_a_chart_of_recorded_faults_says_that_it_needs_the_rules() -> None:
    """Without the rules it said "none seen", whatever failed."""
    charts = [panel for panel in PANELS if "instance_stage:" in panel["targets"][0]["expr"]]
    assert len(charts) == 4
    assert {panel["fieldConfig"]["defaults"]["noValue"] for panel in charts} == {"none, or no rules"}


def test_no_series_of_faults_is_green() -> None:
    """The failures of the first stage were green, as successes are elsewhere."""
    charts = [
        panel
        for panel in PANELS
        if panel["type"] == "timeseries"
        and re.search(r"instance_stage:|_deaths_|_dropped_|_errors_|predicted_breach", panel["targets"][0]["expr"])
    ]
    assert len(charts) == 9
    for panel in charts:
        fields = panel["fieldConfig"]
        colours = [change["value"]["fixedColor"] for each in fields["overrides"] for change in each["properties"]]
        assert fields["defaults"]["color"].get("fixedColor") == "red" or {*colours} == {"red", "orange"}, panel["title"]


@each_dashboard
def test_an_import_needs_no_input(dashboard: dict[str, Any]) -> None:
    text = json.dumps(dashboard)
    assert "__inputs" not in text
    assert "DS_PROMETHEUS" not in text


@each_dashboard
def test_panels_have_unique_numbers_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    numbered = [*dashboard["panels"], *(panel for row in dashboard["panels"] for panel in row.get("panels", ()))]
    places = [panel["gridPos"] for panel in numbered]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len({*cells}) == len(cells)
    ends = {max(x for x, y in cells if y == row) for _, row in cells}
    assert ends == {23}, "a line ends early: its panels must divide Grafana's 24 columns evenly"
    assert len({panel["id"] for panel in numbered}) == len(numbered)


def test_panels_ask_one_question_and_give_advice() -> None:
    for panel in PANELS:
        assert panel["title"].endswith("?"), panel["title"]
        assert len(panel["description"]) > 40, panel["title"]
        assert panel["datasource"] == DATASOURCE, panel["title"]
        assert panel["targets"], panel["title"]


def test_panels_have_units() -> None:
    for panel in PANELS:
        fields = panel["fieldConfig"]
        changes = [change for override in fields["overrides"] for change in override["properties"]]
        given = {fields["defaults"]["unit"], *(change["value"] for change in changes if change["id"] == "unit")}
        assert given <= UNITS, panel["title"]


def test_limits_are_drawn_as_dashed_lines() -> None:
    """A series with the legend of a limit must not look like a measurement."""
    for panel in PANELS:
        limits = {
            target["refId"]
            for target in panel["targets"]
            if panel["type"] == "timeseries" and re.search(r"limit$|warning$|m[ai][xn]imum$", target["legendFormat"])
        }
        dashed = {
            override["matcher"]["options"]
            for override in panel["fieldConfig"]["overrides"]
            if any(change["id"] == "custom.lineStyle" for change in override["properties"])
        }
        assert limits <= dashed, panel["title"]


def test_every_selector_has_job_and_instance() -> None:
    for expression in EXPRESSIONS:
        if _OF_DASK.search(expression):  # its scheduler is a target of its own, with another job
            continue
        selectors = _SELECTOR.findall(expression)
        assert selectors, expression
        for selector in selectors:  # an alert may lack the labels
            assert re.search(r'job=~"\$job\|?"', selector), expression
            assert re.search(r'instance=~"\$instance\|?"', selector), expression
        without_strings = re.sub(r'"[^"]*"', '""', expression)
        assert _BARE_METRIC.findall(without_strings) == [], expression


def test_metrics_that_all_programs_have_are_read_of_exporters_only() -> None:
    """With "All" chosen, `$job` is `.+`, which matches every target of a Prometheus."""
    common = r"(?<!unless on \(job, instance\) )\b(?:process_\w+|python_\w+|scrape_\w+|up)\{[^}]*\}([^{]*)"
    for expression in EXPRESSIONS:
        for rest in re.findall(common, expression):
            assert re.match(r"(?:\[[^]]+\](?: @ end\(\))?\))? and on \(job, instance\) ", rest), expression


def test_counters_are_queried_as_increases() -> None:
    for expression in EXPRESSIONS:
        selectors = _SELECTOR.findall(expression)
        counters = [selector for selector in selectors if selector.partition("{")[0].endswith("_total")]
        window = r"\[(?:\$__rate_interval|\$__range)\](?: @ end\(\))?"
        grown = re.findall(rf"(?:rate|increase)\((\w+_total\{{[^}}]*\}}){window}\)", expression)
        assert counters == grown, expression
        assert "irate" not in expression, expression
        windows = re.findall(r"\brate\([^[]+\[([^]]+)\]", expression)
        assert all(window == "$__rate_interval" for window in windows), expression


def test_charts_that_count_have_no_shorter_interval_than_a_rate_window() -> None:
    """The heatmap had points every 15 s, so that each run was in four to six cells."""
    counting = [
        panel
        for panel in PANELS
        for target in panel["targets"]
        if not target["instant"] and re.search(r"\bincrease\([^@]+\[\$__rate_interval\]\)", target["expr"])
    ]
    assert len(counting) > 5
    assert [panel["title"] for panel in counting if panel.get("interval") != "5m"] == []


def test_charts_of_all_projects_or_hosts_show_only_the_first() -> None:
    """With 500 projects, a line for each lane would be a thousand lines."""
    charts = [panel for panel in PANELS if panel["type"] == "timeseries"]
    of_many = [
        t["expr"] for panel in charts for t in panel["targets"] if re.search(r"by \((project|instance)", t["expr"])
    ]
    assert of_many
    assert [expression for expression in of_many if not re.search(r"\b(topk|bottomk)\(", expression)] == []


def test_charts_choose_their_series_once() -> None:
    """`topk` of each point's values chooses others at each point: a chart of five hosts showed all of them."""
    chosen = [
        (panel["title"], choice)
        for panel in PANELS
        for target in panel["targets"]
        if not target["instant"]
        for choice in re.findall(r"\b(?:topk|bottomk)\(.+", target["expr"])
    ]
    assert chosen
    assert [title for title, choice in chosen if not re.search(r"\[\$__range\] @ end\(\)", choice)] == []


def test_lanes_and_stages_of_several_projects_are_shown_apart() -> None:
    """Most projects have a lane `standard`; only the dashboard of one lane shows a single project."""
    of_all = [dashboard for dashboard in FILES.values() if dashboard["uid"] != "paropt-lane"]
    for panel in (panel for dashboard in of_all for panel in iter_panels(dashboard) if panel["type"] != "stat"):
        for target in panel["targets"]:
            for listed in re.findall(r"\bby \(([^)]*lane[^)]*)\)", target["expr"]):
                assert "project" in listed, panel["title"]


@each_dashboard
def test_a_variable_restricts_every_query_with_its_label(dashboard: dict[str, Any]) -> None:
    """After a stage is selected, no panel may show all stages."""
    chosen = OPTIONAL & get_variables(dashboard).keys()
    for panel in iter_panels(dashboard):
        for target in panel["targets"]:
            grouped = ", ".join(re.findall(r"by \(([^)]*)\)", target["expr"])).split(", ")
            for label in {*grouped} & chosen:  # an alert may lack the label
                assert re.search(rf'{label}=~?"\${label}\|?"', target["expr"]), panel["title"]


@each_dashboard
def test_a_variable_of_one_value_is_no_regular_expression(dashboard: dict[str, Any]) -> None:
    """Grafana escapes the values of the others only: of a project `c++` or `shop (old)` no panel had an answer."""
    text = json.dumps(dashboard)
    for name, variable in get_variables(dashboard).items():
        several = variable.get("multi") or variable.get("includeAll")
        assert bool(several) or f'=~\\"${name}' not in text, name
