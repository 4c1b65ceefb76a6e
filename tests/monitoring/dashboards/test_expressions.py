"""Run every query of dashboards, rules and runbook on a real Prometheus that has scraped runs of the demo lane."""

from __future__ import annotations

import json
import math
import re
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from paropt_exporter import families
from paropt_exporter.monitoring import dashboards
from paropt_exporter.monitoring.alerts import rule_files as alerts
from support.demo import ROOT, RULES, demo, rules
from support.deployed import check_queries
from support.generated import iter_panels
from support.real_servers import HANG_SECONDS, Prometheus, eventually, get
from support.yaml_documents import load_yaml

pytestmark = pytest.mark.timeout(4 * HANG_SECONDS)  # the first test waits for four runs of the demo and 300 queries
RIGHTLY_EMPTY = ROOT / "dashboards/rightly-empty.txt"
SELECTOR = re.compile(r"\b(?:paropt_|lane:|instance_\w+:)[\w:]+(?:\{[^}]*\})?")
PARTS = ("bucket", "sum", "count")
# A division by what counters did in a window, in which they may have done nothing.
COUNTER_DIVISOR = re.compile(
    r"/\s*\(*\s*(?:sum[^({]*(?:\([^)]*\)\s*)?\(+)?(?:rate|increase|sum_over_time)\(|/\s*\(*\w+:\w+:increase"
)
# The fine step, of half a scrape interval, skips no sample, and takes four times the evaluations.
LOOK_BACK_SECONDS, STEP_SECONDS, FINE_STEP_SECONDS = 60.0, 1.0, 0.25
# Grafana's values for its variables, with everything selected and a range of a minute.
GRAFANA_VALUES = {
    "$__range": "60s",
    "$__interval": RULES.rate_window or "",
    "$job": ".+",
    "$instance": ".+",
    "$project": ".*",
    '="$project"': '="demo"',  # of a variable that has one value
    "$lane": "standard",
    "$stage": ".*",
    "$pool": ".*",
}


@dataclass(frozen=True, slots=True)
class Question:
    """A query and its place."""

    where: str
    expression: str


def iter_questions() -> Iterator[Question]:
    for text in dashboards.render_dashboards(RULES).values():
        dashboard = json.loads(text)
        for panel in iter_panels(dashboard):
            for target in panel["targets"]:
                where = f"{dashboard['uid']}: {panel['title']} {target['refId']}"
                yield Question(where, target["expr"])
        for annotation in dashboard["annotations"]["list"]:
            yield Question(f"{dashboard['uid']}: annotation {annotation['name']}", annotation["expr"])


def iter_rule_questions() -> Iterator[Question]:
    """Yield recordings, the operands of alerts (alerts themselves are usually empty) and the runbook's queries."""
    for path, text in rules().items():
        for group in load_yaml(text)["groups"]:
            for rule in group["rules"]:
                name = rule.get("record") or rule["alert"]
                compared = [rule["expr"]] if "record" in rule else SELECTOR.findall(rule["expr"])
                for number, expression in enumerate(dict.fromkeys(compared)):
                    yield Question(f"{path}: {name} {number}", expression)
    for alert in alerts.build_alerts(RULES):
        for query in alert.diagnosis:
            yield Question(f"runbook: {alert.name}: {query.question}", query.expr)


def iter_variables() -> Iterator[tuple[str, str, str]]:
    """Yield the name, selector and label of each variable's query."""
    for text in dashboards.render_dashboards(RULES).values():
        for variable in json.loads(text)["templating"]["list"][1:]:
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
            assert found
            yield variable["name"], found[1], found[2]


@cache
def list_questions() -> tuple[Question, ...]:
    return (*iter_questions(), *iter_rule_questions())


def fill_template(expression: str) -> str:
    for name in sorted(GRAFANA_VALUES, key=len, reverse=True):
        expression = expression.replace(name, GRAFANA_VALUES[name])
    return expression


def load_empty_patterns() -> dict[str, str]:
    """Return the reason by regular expression, as the file lists them: `REGEX  # reason`."""
    lines = RIGHTLY_EMPTY.read_text().splitlines()
    pairs = (line.partition("  # ") for line in lines if line and not line.startswith("#"))
    return {pattern: reason for pattern, _, reason in pairs}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with demo(tmp_path_factory.mktemp("demo")) as server:
        yield server


@pytest.fixture(scope="module")
def answers(prometheus: Prometheus) -> dict[str, list[float]]:
    """The result values of all queries, by place.

    A short window may hold too few samples: the queries that should have a result are asked again, at a finer step.
    """
    found = {question.where: values(prometheus, question, STEP_SECONDS) for question in list_questions()}

    def have_results() -> bool:
        for question in find_unlisted(found):
            found[question.where] = values(prometheus, question, FINE_STEP_SECONDS)
        return not find_unlisted(found)

    with suppress(AssertionError):  # the test names those that never had one
        eventually("each query has a result", have_results)
    return found


def find_unlisted(found: Mapping[str, Sequence[float]]) -> list[Question]:
    """Return the queries without a result that are not listed as rightly empty."""
    known = load_empty_patterns()
    empty = [question for question in list_questions() if not found[question.where]]
    return [question for question in empty if not any(re.search(pattern, question.expression) for pattern in known)]


def values(server: Prometheus, question: Question, step_seconds: float) -> list[float]:
    """Return the results throughout the last minute: a limit that one run breaks is kept by the next."""
    now = time.time()
    parameters = {
        "query": fill_template(question.expression),
        "start": now - LOOK_BACK_SECONDS,
        "end": now,
        "step": step_seconds,
    }
    status, body = get(f"{server.url}/api/v1/query_range?{urllib.parse.urlencode(parameters)}")
    assert status == 200, f"{question.where}: {body}"
    return [float(value) for series in json.loads(body)["data"]["result"] for _, value in series["values"]]


def test_every_query_has_a_result_or_is_listed_with_a_reason(answers: dict[str, list[float]]) -> None:
    assert [f"{question.where}: {question.expression}" for question in find_unlisted(answers)] == []


def test_no_line_of_the_list_is_unused(answers: dict[str, list[float]]) -> None:
    asked = {question.expression: answers[question.where] for question in list_questions()}
    for pattern, reason in load_empty_patterns().items():
        found = [values for expression, values in asked.items() if re.search(pattern, expression)]
        assert found, pattern
        assert reason.startswith("unless ") or not all(found), pattern


def test_a_host_counts_once_however_many_projects_serve_has_on_it(tmp_path: Path) -> None:
    series: dict[str, str] = {}
    for name in ("shop", "wiki"):
        labels = f'{{job="paropt",instance="a",project="{name}"'
        series[f'paropt_build_info{labels},version="1",revision="2",python="3"}}'] = "1x40"
        series[f"paropt_host_cpus{labels}}}"] = "4x40"
        series[f'paropt_pool_cpu_seconds_total{labels},pool="commands"}}'] = "0+60x40"
    wanted = {
        "paropt-exporter: Which builds run? A": 1,
        "paropt-pools: How many cores do the pools use? B": 4,
        "runbook: ParoptLaneSaturated: Are there cores left (ratio in use of those allowed)?": 0.5,
    }
    asked = {
        one.where: fill_template(one.expression).replace(f"[{RULES.rate_window}]", "[5m]") for one in list_questions()
    }
    check_queries(tmp_path, series, [(f"sum({asked[each]})", "30m", {"{}": value}) for each, value in wanted.items()])


def test_exporter_that_ended_with_its_lane_is_not_missed(tmp_path: Path) -> None:
    where = "paropt-exporter: How many don't answer? A"
    (asked,) = [fill_template(one.expression) for one in list_questions() if one.where == where]
    series = {
        'up{job="paropt",instance="once"}': "1 0x9",
        'paropt_exporter_serves_on{job="paropt",instance="once",project="shop"}': "0 stale",
        'up{job="paropt",instance="down"}': "1 0x9",
        'paropt_exporter_serves_on{job="paropt",instance="down",project="shop"}': "1 stale",
    }
    check_queries(tmp_path, series, [(asked, "5m", {"{}": 1})])


def test_exporters_that_do_not_answer_are_listed_with_the_fault(tmp_path: Path) -> None:
    where = "paropt-exporter: Which don't answer? A"
    (asked,) = [fill_template(one.expression) for one in list_questions() if one.where == where]
    series = {
        'up{job="paropt",instance="well"}': "1x9",
        'paropt_exporter_serves_on{job="paropt",instance="well",project="shop"}': "1x9",
        'up{job="paropt",instance="once"}': "1 0x9",
        'paropt_exporter_serves_on{job="paropt",instance="once",project="shop"}': "0 stale",
        'up{job="paropt",instance="down"}': "1 0x9",
        'paropt_exporter_serves_on{job="paropt",instance="down",project="shop"}': "1 stale",
        'up{job="paropt",instance="gone"}': "1 stale",
        'paropt_exporter_serves_on{job="paropt",instance="gone",project="shop"}': "1 stale",
    }
    faults = {"down": ("no answer", 0), "gone": ("no target", 1)}
    samples = {
        f'{{job="paropt",instance="{instance}",fault="{fault}"}}': value for instance, (fault, value) in faults.items()
    }
    check_queries(tmp_path, series, [(asked, "5m", samples)])


def test_all_rows_of_a_long_table_of_broken_limits_have_a_severity(tmp_path: Path) -> None:
    """The duration and the limit of stages beyond the fifty that are listed would be rows of their own."""
    asked = {one.where: fill_template(one.expression) for one in list_questions()}
    listed, took, limit = (asked[f"paropt-overview: Which limits are broken? {letter}"] for letter in "ABC")
    series = {}
    for number in range(60):
        labels = f'job="paropt",instance="a",project="demo",lane="standard",stage="s{number}"'
        series[f'paropt_sla_breached{{{labels},severity="normal"}}'] = "1x9"
        series[f"paropt_stage_last_duration_seconds{{{labels}}}"] = "2x9"
        series[f"paropt_sla_limit_seconds{{{labels}}}"] = "1x9"
    place = "project, lane, stage, instance"
    rows = [f"count(({each}) and on ({place}) ({listed}))" for each in (listed, took, limit)]
    others = [f"({each}) unless on ({place}) ({listed})" for each in (took, limit)]
    nothing: dict[str, float] = {}
    check_queries(
        tmp_path, series, [*((each, "5m", {"{}": 50}) for each in rows), *((each, "5m", nothing) for each in others)]
    )


def test_critical_alert_is_listed_beside_many_warnings(tmp_path: Path) -> None:
    """The table has fifty rows: an outage of as many hosts hid the alert that pages."""
    where = "paropt-overview: Which alerts fire? A"
    (asked,) = [fill_template(one.expression) for one in list_questions() if one.where == where]
    given = 'alertstate="firing",job="paropt"'
    series = {
        f'ALERTS{{alertname="ParoptSlaViolation",severity="warning",{given},instance="h{number}",stage="a"}}': "1x9"
        for number in range(100)
    }
    series[f'ALERTS{{alertname="ParoptStageFailing",severity="critical",{given},instance="h7",stage="b"}}'] = "1x9"
    critical = '{alertname="ParoptStageFailing",severity="critical",instance="h7",place="b"}'
    check_queries(tmp_path, series, [(f"count({asked})", "5m", {"{}": 50}), (f"({asked}) > 1", "5m", {critical: 2})])


def test_pools_at_their_maximum_are_those_of_the_alert(tmp_path: Path) -> None:
    """ParoptPoolAtMaximum leaves out pools of a fixed size and those whose queue was empty a moment ago."""
    wheres = ("paropt-pools: How many are at their maximum? A", "paropt-pools: Which pools need attention? A")
    asked = {one.where: fill_template(one.expression) for one in list_questions()}
    count, table = (asked[where].replace(f"[{RULES.rate_window}]", "[5m]") for where in wheres)
    place = 'job="paropt",instance="a",project="demo"'
    sizes = {  # target, minimum, maximum, tasks that wait
        "fixed": (4, 4, 4, "9x9"),
        "full": (8, 1, 8, "9x9"),
        "growing": (4, 1, 8, "9x9"),
        "brief": (8, 1, 8, "9x2 0 9x9"),
    }
    series: dict[str, str] = {}
    for pool, (target, least, most, queue) in sizes.items():
        labels = f'{{{place},pool="{pool}"}}'
        named = {"size": target, "size_target": target, "size_min": least, "size_max": most}
        series |= {f"paropt_pool_{name}{labels}": f"{value}x9" for name, value in named.items()}
        series[f"paropt_pool_queue_depth{labels}"] = queue
    full = '{project="demo",pool="full",instance="a",trouble="at its maximum"}'
    check_queries(tmp_path, series, [(count, "5m", {"{}": 1}), (table, "5m", {full: 8})])


@pytest.mark.parametrize(
    ("success", "failure", "value"),
    [
        ("100x4 200x4", "0x9", 1),  # a whole run succeeded
        ("100x9", "0x4 1x4", 0),  # one failed
        ("100x9", "0x9", 1),  # one of some stages succeeded, which sets no success of the lane
        ("100x4 200x4", "1x9", 1),  # on another host
        ("_x9", "1x9", 0),  # none has ever succeeded
        ("_x9", "0x9", 1),  # nor any whole run, but one of some stages
    ],
)
def test_run_of_some_stages_does_not_make_a_lane_look_failed(
    tmp_path: Path, success: str, failure: str, value: int
) -> None:
    where = "paropt-lane: Did the last run succeed? A"
    (asked,) = [fill_template(one.expression) for one in list_questions() if one.where == where]
    place = 'job="paropt",instance="a",project="demo",lane="standard"'
    series = {
        f"paropt_run_last_success_timestamp_seconds{{{place}}}": success,
        f"paropt_run_last_completion_timestamp_seconds{{{place}}}": "100x4 200x4",
        f'paropt_stage_last_result{{{place},stage="lint",result="failure"}}': failure,
    }
    check_queries(tmp_path, series, [(asked, "9m", {"{}": value})])


def test_pushed_and_scraped_runs_share_the_rows_of_the_heatmap(tmp_path: Path) -> None:
    """The exporter's OpenMetrics page has le="1.0"; a Pushgateway and node_exporter write le="1"."""
    where = "paropt-lane: How do the runs' durations spread? A"
    (asked,) = [fill_template(one.expression) for one in list_questions() if one.where == where]
    place = 'job="paropt",project="demo",lane="standard"'
    series = {
        f'paropt_run_duration_seconds_bucket{{{place},instance="{instance}",le="{bound}"}}': "0+1x9"
        for instance, bounds in (("scraped", ("0.5", "1.0", "10.0")), ("pushed", ("0.5", "1", "10")))
        for bound in bounds
    }
    rows = {f'{{le="{bound}"}}': 10.0 for bound in ("0.5", "1", "10")}
    check_queries(tmp_path, series, [(asked.replace(f"[{RULES.rate_window}]", "[5m]"), "9m", rows)])


def test_no_query_divides_by_0_in_a_quiet_window() -> None:
    """0 / 0 is NaN: a lane without a run, or a pool whose first worker starts slowly, must have no value instead."""
    unguarded = [
        question.where
        for question in list_questions()
        if (found := COUNTER_DIVISOR.search(question.expression)) and "> 0" not in question.expression[found.end() :]
    ]
    assert unguarded == []


def test_every_value_is_finite(answers: dict[str, list[float]]) -> None:
    odd = {where: numbers for where, numbers in answers.items() if not all(map(math.isfinite, numbers))}
    assert odd == {}


def test_every_variable_has_values_to_choose_from(prometheus: Prometheus) -> None:
    for name, selector, label in dict.fromkeys(iter_variables()):
        query = urllib.parse.urlencode({"match[]": fill_template(selector)})
        status, body = get(f"{prometheus.url}/api/v1/label/{label}/values?{query}")
        assert status == 200
        assert json.loads(body)["data"], name


def test_targets_of_other_programs_do_not_count_as_exporters(prometheus: Prometheus) -> None:
    """With "All" chosen, `$job` is `.+`, which matches every target of a Prometheus."""
    assert prometheus.by("job", "up").keys() == {"paropt", "prometheus"}
    (question,) = [one for one in list_questions() if one.where == "paropt-exporter: When did exporters answer? B"]
    assert prometheus.value(fill_template(question.expression)) == 1


def test_no_counter_decreases(prometheus: Prometheus) -> None:
    """A counter that decreases slightly looks like a restart: its whole value then counts as an increase."""
    counters = [family.name for family in families.FAMILIES if family.kind is families.Kind.COUNTER]
    counters += [f"{f.name}_{part}" for f in families.FAMILIES for part in PARTS if f.kind is families.Kind.HISTOGRAM]
    fallen = {name: prometheus.query(f"resets({name}[2m]) > 0") for name in counters}
    assert {name: series for name, series in fallen.items() if series} == {}


def test_the_demos_violations_fire_with_complete_texts(prometheus: Prometheus) -> None:
    told = prometheus.by("alertname", 'max by (alertname) (max_over_time(ALERTS{alertstate="firing"}[1m]))')
    assert {"ParoptSlaViolation", "ParoptSlaCriticalViolation"} <= told.keys()
    active = json.loads(get(f"{prometheus.url}/api/v1/alerts")[1])["data"]["alerts"]
    texts = [text for alert in active for text in alert["annotations"].values()]
    assert texts
    assert [text for text in texts if "<no value>" in text or "<error" in text or "{{" in text] == []
