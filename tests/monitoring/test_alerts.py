"""The generated rules pass promtool and the checks of pint; stories cover each alert."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import alert_stories.files
from alert_stories.model import ALERTS, Shows
from paropt_exporter import families
from paropt_exporter.cli import generate
from paropt_exporter.cli.flags import build_parser
from paropt_exporter.families import Kind
from paropt_exporter.monitoring.alerts import rule_files
from paropt_exporter.monitoring.options import Format, Options
from support.deployed import check_queries, refusal
from support.generated import load_dashboards, load_rule_groups
from support.real_servers import program
from support.yaml_documents import load_yaml

ROOT = Path(__file__).parents[2]
TESTS = sorted((ROOT / "alerts/tests").iterdir())
RULES = [rule for rules in load_rule_groups().values() for rule in rules]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
EXPRESSIONS = [rule["expr"] for rule in RULES]
RUNBOOK = [query.expr for alert in ALERTS.values() for query in alert.diagnosis]

QUERIES = tuple(dict.fromkeys([*EXPRESSIONS, *RUNBOOK]))


def test_the_committed_promtool_tests_are_up_to_date() -> None:
    committed = {str(path.relative_to(ROOT)): path.read_text() for path in TESTS}
    assert committed == alert_stories.files.render_tests(), "run: make generate"


def test_promtool_confirms_files_of_each_kind() -> None:
    """test_alert_mutants.py runs the stories of all files, each with its own rules: with all it takes far longer."""
    paths = [path for path in TESTS if path.name in ("empty.yml", "lanes-5m.yml", "recording-1m.yml")]
    assert len(paths) == 3
    assert refusal(program("promtool"), "test", "rules", *paths) == ""


def test_each_alert_has_stories_of_firing_silence_restart_and_no_data() -> None:
    empty, stories = (ROOT / "alerts/tests/empty.yml").read_text(), alert_stories.files.iter_stories()
    for name in ALERTS:
        told = [story for story in stories if story.alert == name]
        assert {story.shows for story in told} == set(Shows), name
        assert f"alertname: {name}" in empty
        for story in told:
            assert any(story.then.values()) == (story.shows is not Shows.SILENCE), name


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(selector='job="ci",instance=~"build-.*",env!="dev"', sla_target=0.9995, rate_window="10m"),
        Options(selector=r'job=~"a\\.b|(c|d)+" , env="\"quoted\" \\ é"'),
        Options(
            rate_window="30m", runbook_url="https://wiki.example.org/runbook", grafana_url="https://g.example.org/"
        ),
    ],
)
def test_promtool_accepts_the_rules_of_any_options(options: Options, tmp_path: Path) -> None:
    for name, text in rule_files.render_rules(options).items():
        (tmp_path / Path(name).name).write_text(text)
    assert refusal(program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *tmp_path.iterdir()) == ""


def test_alerts_keep_labels_that_relabelling_gives_to_projects(tmp_path: Path) -> None:
    """Alertmanager routes by them, such as to the team of a project on a page of `serve`."""
    stories = load_yaml((ROOT / "alerts/tests/sla-15s.yml").read_text())
    stories["rule_files"] = [
        write_alerts(tmp_path, *{test["alert_rule_test"][0]["alertname"] for test in stories["tests"]})
    ]
    for story in stories["tests"]:
        for given in story["input_series"]:
            given["series"] = given["series"].replace("{", '{team="retail", ', 1)
        for expected in story["alert_rule_test"]:
            for alert in expected["exp_alerts"]:
                alert["exp_labels"]["team"] = "retail"
    (tmp_path / "stories.yml").write_text(yaml.safe_dump(stories))
    assert refusal(program("promtool"), "test", "rules", tmp_path / "stories.yml") == ""


def write_alerts(folder: Path, *names: str) -> str:
    """Write a file of rules with these alerts only: promtool evaluates all rules of a file. Return its name."""
    rules = [rule for rule in RULES if rule.get("alert") in names]
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "some", "rules": rules}]}))
    return "rules.yml"


def test_no_rule_of_a_lane_or_stage_names_the_labels_that_it_keeps() -> None:
    """`sum by (lane)` would lose a user's labels; on the right of `group_left` they are not taken."""
    for path in ("alerts/paropt-recording.yml", "alerts/paropt-alerts.yml"):
        for group in load_yaml((ROOT / path).read_text())["groups"]:
            for rule in group["rules"]:
                left = rule["expr"].partition("group_left ()")[0]
                assert not re.search(r"\b(sum|min|max|avg|count|quantile|topk) by\b", left), rule["expr"]


def test_the_selector_is_in_every_query_of_scraped_series() -> None:
    for text in rule_files.render_rules(Options(selector='env="prod"')).values():
        for group in load_yaml(text)["groups"]:
            for rule in group["rules"]:
                names = re.findall(r"\b(?:[a-z_]+:)?paropt_[\w:]+(\{[^}]*\})?", rule["expr"])
                assert names
                assert all('env="prod"' in matchers for matchers in names), rule["expr"]


def test_a_lane_level_recording_is_queried_without_instance() -> None:
    alerts = rule_files.render_rules(Options(selector='job="ci",instance=~"build-.*"'))["alerts/paropt-alerts.yml"]
    assert 'lane:paropt_sla_checks:increase1h{job="ci"} >= 100' in alerts
    assert 'instance_pool:paropt_pool_busy_seconds_per_slot_seconds:ratio_rate5m{job="ci",instance=~' in alerts


def test_rules_for_kubernetes_equal_the_plain_ones() -> None:
    plain = rule_files.render_rules(Options())
    operator = rule_files.render_rules(Options(format=Format.PROMETHEUS_OPERATOR))
    configmap = rule_files.render_rules(Options(format=Format.CONFIGMAP))
    for path, text in plain.items():
        rules, name = load_yaml(text), Path(path).name
        wrapped, mapped = load_yaml(operator[path]), load_yaml(configmap[path])
        assert (wrapped["kind"], wrapped["spec"]) == ("PrometheusRule", rules)
        assert (mapped["kind"], load_yaml(mapped["data"][name])) == ("ConfigMap", rules)
        assert wrapped["metadata"]["name"] == mapped["metadata"]["name"] == name.removesuffix(".yml")


def test_the_budget_derives_from_the_sla_target() -> None:
    alerts = rule_files.render_rules(Options(sla_target=0.999))["alerts/paropt-alerts.yml"]
    assert "> 14.4 * 0.001\n" in alerts
    assert "The target allows 0.1 %." in alerts
    assert "0.01\n" not in alerts.partition("ParoptStageFailing")[0]


def test_each_alert_has_a_complete_runbook_entry() -> None:
    for name, alert in ALERTS.items():
        assert re.fullmatch(r"Paropt([A-Z][a-z]+)+", name)
        assert "{{" not in alert.summary, name
        assert alert.summary.endswith("."), name
        assert alert.title.endswith("."), name
        assert re.search(r"\{\{ \$labels\.\w+ \}\}", alert.description), name
        assert all(text.strip() for text in (alert.meaning, alert.impact, *alert.mitigation)), name
        assert alert.diagnosis, name
        assert alert.mitigation, name


def test_each_title_names_its_stage_lane_or_pool_and_the_project() -> None:
    for name, alert in ALERTS.items():
        named = set(re.findall(r"\$labels\.(\w+)", alert.title))
        of = next((label for label in ("stage", "pool", "lane") if label in alert.link), None)
        assert named >= ({of, "project"} if of else {"job"}) or named >= {"project", "instance"}, name


def test_the_title_of_a_broken_limit_has_its_duration() -> None:
    for name, alert in ALERTS.items():
        assert ("humanizeDuration" in alert.title) == ("humanizeDuration" in alert.description), name


def test_each_alert_links_to_a_dashboard_that_has_its_variables() -> None:
    boards = {board["uid"]: board for board in load_dashboards().values()}
    for name, alert in ALERTS.items():
        variables = {variable["name"] for variable in boards[alert.board.value]["templating"]["list"]}
        assert set(alert.link) <= variables, name


def test_each_alerts_link_leads_to_its_heading_in_the_runbook() -> None:
    page = (ROOT / "docs/runbook.md").read_text()
    annotations = collect_annotations(Options(runbook_url="https://wiki.example.org/r"))
    for name, alert in ALERTS.items():
        entry = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        for part in ("**Meaning.**", "**Impact.**", "**Diagnosis.**", "**Mitigation.**"):
            assert part in entry, name
        assert all(query.expr in entry for query in alert.diagnosis), name
        assert annotations[name]["runbook_url"] == f"https://wiki.example.org/r#{name.lower()}"


def collect_annotations(options: Options) -> dict[str, dict[str, str]]:
    """Return each alert's annotations by name; conditions of an alert differ in their description only."""
    groups = load_yaml(rule_files.render_rules(options)["alerts/paropt-alerts.yml"])["groups"]
    return {rule["alert"]: rule["annotations"] for group in groups for rule in group["rules"]}


def test_an_alert_links_only_to_addresses_that_the_user_gives() -> None:
    assert all(notes.keys() == {"summary", "description"} for notes in collect_annotations(Options()).values())
    stuck = collect_annotations(Options(grafana_url="https://g.example.org/"))["ParoptStageStuck"]
    assert stuck.keys() == {"summary", "description", "dashboard_url"}
    dashboard = "https://g.example.org/d/paropt-lane?var-job={{ urlquery $labels.job }}&var-instance="
    assert stuck["dashboard_url"].startswith(dashboard)


def test_links_between_runbook_entries_are_valid() -> None:
    page = (ROOT / "docs/runbook.md").read_text()
    anchors = {f"#{heading.lower()}" for heading in re.findall(r"^## (\w+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\((#[^)]+)\)", page)) == anchors


@pytest.mark.parametrize("interval_minutes", [1, 2, 5, 10, 30])
def test_a_lane_without_success_alerts_after_the_stage_that_fails(interval_minutes: int, tmp_path: Path) -> None:
    """Alertmanager then keeps the lane's alert back, since the stage is its cause."""
    place = 'job="ci",instance="a",project="shop",lane="standard"'
    runs = range(0, 180, interval_minutes)  # ends in minutes; the first one succeeds
    rounds = [sum(end <= minute for end in runs) for minute in range(181)]
    series = {
        f'paropt_stage_failing{{{place},stage="lint"}}': [int(ended > 1) for ended in rounds],
        f'paropt_runs_total{{{place},result="failure"}}': [ended - 1 for ended in rounds],
        f"paropt_run_last_success_timestamp_seconds{{{place}}}": [0 for _ in rounds],
        f"paropt_run_interval_seconds{{{place}}}": [60 * interval_minutes for _ in rounds],
    }
    lane, stage = (
        f'ALERTS{{alertname="{name}",alertstate="firing"}}'
        for name in ("ParoptLaneNotSucceeding", "ParoptStageFailing")
    )
    expected: list[tuple[str, str, dict[str, float]]] = [
        (f"{lane} unless on (lane) {stage}", f"{minute}m", {}) for minute in range(1, 181)
    ]
    check_queries(
        tmp_path,
        {name: " ".join(map(str, values)) for name, values in series.items()},
        [*expected, (f"count({lane})", "180m", {"{}": 1})],
        rules=[write_alerts(tmp_path, "ParoptLaneNotSucceeding", "ParoptStageFailing")],
    )


@pytest.mark.parametrize("window", [None, "1m"])
def test_checks_count_once_at_whatever_moment_between_two_scrapes_a_lane_ends(
    window: str | None, tmp_path: Path
) -> None:
    """Lanes that run every five minutes, one for each 15 s in which they can end, and a scrape each minute.

    Between the last scrape of a window and the first of the next window, four of them had no check at all.
    """
    step_seconds, interval_seconds, last_seconds = 15, 300, 5400
    recorded = {f"lane:paropt_sla_checks:increase{span}": checks for span, checks in (("30m", 6), ("1h", 12))}
    needed = ["instance_lane:paropt_sla_checks:increase5m", "lane:paropt_sla_checks:increase5m", *recorded]
    texts = rule_files.render_rules(Options(rate_window=window)).values()
    groups = [group for text in texts for group in load_yaml(text)["groups"]]
    rules = [rule for group in groups for rule in group["rules"] if rule.get("record") in needed]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "lanes", "rules": rules}]}))
    series = {
        f'paropt_sla_checks_total{{job="ci",project="shop",lane="{end}",stage="lint"}}': " ".join(
            str((second - end) // interval_seconds + 1) if second % 60 == 30 else "_"
            for second in range(0, last_seconds + 1, step_seconds)
        )
        for end in range(0, interval_seconds, step_seconds)
    }
    lanes = {"{}": interval_seconds // step_seconds}
    expected = [
        (f"count(abs({name} - {checks}) < 0.5)", f"{last_seconds}s", lanes) for name, checks in recorded.items()
    ]
    check_queries(tmp_path, series, expected, interval=f"{step_seconds}s", rules=["rules.yml"])


def test_alerts_compare_and_never_test_absence() -> None:
    for rule in (rule for rule in RULES if "alert" in rule):
        assert re.search(r"[<>]|==", rule["expr"]), rule["expr"]
        assert "absent" not in rule["expr"]
        assert "vector(0)" not in rule["expr"]


def test_queries_use_only_exported_or_recorded_series() -> None:
    exported = {
        f"{family.name}{part}"
        for family in families.FAMILIES
        for part in (("_bucket", "_sum", "_count") if family.kind is Kind.HISTOGRAM else ("",))
    }
    for expr in QUERIES:
        names = set(re.findall(r"\b(?:[a-z_]+:)?paropt_[\w:]+", expr))
        assert names <= exported | RECORDED, expr
        assert names or "up" in expr, expr


@pytest.mark.parametrize("window", ["60s", "1m", "4m", "5m", "300s", "7m", "30m", "1800s"])
def test_queried_recordings_exist_for_every_window(window: str) -> None:
    texts = rule_files.render_rules(Options(rate_window=window)).values()
    rules = [rule for text in texts for group in load_yaml(text)["groups"] for rule in group["rules"]]
    recorded = [(rule["record"], *rule.get("labels", {}).items()) for rule in rules if "record" in rule]
    asked = {name for rule in rules for name in re.findall(r"\b(?:lane|instance_\w+):[\w:]+", rule["expr"])}
    assert len(set(recorded)) == len(recorded)
    assert asked <= {name for name, *_ in recorded}


def test_queries_group_and_join_by_existing_labels() -> None:
    known = {label for family in families.FAMILIES for label in family.label_names} | {
        *("job", "instance", "le"),
        *("pod", "container", "endpoint"),  # of targets from Kubernetes' service discovery
    }
    for expr in QUERIES:
        for listed in re.findall(r"\b(?:by|without|on|ignoring|group_left) \(([^)]*)\)", expr):
            assert {label.strip() for label in listed.split(",") if label.strip()} <= known, expr


def test_the_runbook_keeps_projects_apart() -> None:
    """Most projects have a lane `standard` and a stage `unit_tests`: their sum belongs to no project."""
    for expr in RUNBOOK:
        for listed in re.findall(r"\bby \(([^)]*)\)", expr):
            labels = set(listed.split(", "))
            assert "project" in labels or not labels & {"lane", "stage", "pool"}, expr


def test_ratios_of_the_runbook_have_an_answer_if_two_servers_send_the_same_targets() -> None:
    """Each series is there twice then, with a label of its server: matched by other labels alone, it is an error."""
    assert [expr for expr in RUNBOOK if re.search(r"/ on \([^)]*\) (?!group_left)", expr)] == []


def test_rates_are_of_counters_and_counters_only_in_rates() -> None:
    """A total by itself only grows. One is right: whether a lane has ended twice since it was first scraped."""
    counters = {family.name for family in families.FAMILIES if family.kind is Kind.COUNTER}
    for expr in QUERIES:
        for function, name in re.findall(r"(\w+)\((paropt_\w+)(?:\{[^}]*\})?\[", expr):
            rising = name in counters or name.endswith(("_bucket", "_sum", "_count"))
            assert (function in ("rate", "increase")) == rising or name == families.RUNS.name, expr
        bare = re.findall(r"\b(paropt_\w+)(?:\{[^}]*\})?(?!\[|\w|\{)", expr)
        assert not set(bare) & counters, expr


def test_every_query_of_the_runbook_is_valid(tmp_path: Path) -> None:
    rules = [{"record": f"runbook:query{number}", "expr": expr} for number, expr in enumerate(RUNBOOK)]
    (tmp_path / "runbook.yml").write_text(yaml.safe_dump({"groups": [{"name": "runbook", "rules": rules}]}))
    assert refusal(program("promtool"), "check", "rules", tmp_path / "runbook.yml") == ""


def test_recordings_are_named_by_level_metric_and_operations() -> None:
    assert all(re.fullmatch(r"[a-z_]+:paropt_[a-z_]+:[a-z0-9_]+", name) for name in RECORDED)


def test_every_command_of_the_runbook_is_valid() -> None:
    page = (ROOT / "docs/runbook.md").read_text()
    commands = {line.removeprefix("paropt-exporter ") for line in re.findall(r"`(paropt-exporter [^`]+)`", page)}
    assert commands
    for command in commands:
        build_parser().parse_args(command.split())


def test_alerts_are_one_kind_of_generated_files() -> None:
    assert {*generate.render_files(["alerts"], Options())} == {
        "alerts/paropt-recording.yml",
        "alerts/paropt-alerts.yml",
    }
