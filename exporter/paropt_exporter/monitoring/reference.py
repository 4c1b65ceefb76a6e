"""Render the reference of all metrics, `docs/metrics.md`, and the runbook of all alerts, `docs/runbook.md`."""

from __future__ import annotations

from collections.abc import Iterator

from paropt_exporter import families
from paropt_exporter.families import Family
from paropt_exporter.monitoring.alerts import rule_files
from paropt_exporter.monitoring.alerts.rules import Alert, Condition
from paropt_exporter.monitoring.options import Options

_METRICS_INTRODUCTION = f"""\
# Metrics

Made from `exporter/paropt_exporter/families.py` by `make generate`; a change here is lost with the next one.

Every metric has the label `project`: the config's `project`, or the name of the config's folder. The values of other
labels come from the config, or are listed below. Counters, histograms and 0/1 gauges of known label sets start at 0;
timestamps are absent until they are known. Only stages and lanes with a limit have the metrics of SLAs. A flag is 1 for
what its name says: `…_successful` if all is well, `…_failing` if it is not.

Totals marked *resumes* continue from the run history when the exporter restarts. The others start with the process, at
`{families.POOL_EPOCH.name}`. The history commits a total before it is exported.

Labels and metrics correspond to OpenTelemetry's semantic conventions for CI/CD:
"""
_OPENTELEMETRY = (
    ("`lane`", "`cicd.pipeline.name`"),
    ("`stage`", "`cicd.pipeline.task.name`"),
    ("`result` of a run", "`cicd.pipeline.result`"),
    ("`result` of a stage or task", "`cicd.pipeline.task.run.result`"),
    ("a run's id (in the history, never a label)", "`cicd.pipeline.run.id`"),
    (f"`{families.RUN_DURATION.name}`", "`cicd.pipeline.run.duration`"),
    (f"`{families.RUN_IN_PROGRESS.name}`", "`cicd.pipeline.run.active`"),
)
_RESULTS = (
    ("success", "exit code 0, or no exception"),
    ("failure", "non-zero exit or exception"),
    ("error", "could not start, killed by a signal, or its worker died"),
    ("timeout", "reached its time limit"),
    (
        "cancellation",
        "stopped by the exporter (fail-fast, a critical SLA, `--deadline`, a signal), or interrupted by its death",
    ),
    ("skip", "never started"),
)
_RUN_RESULTS = (
    "A run is a `failure` if a stage failed, erred or timed out, or if a critical SLA was broken, and a `cancellation`",
    "if it was interrupted, or if `--deadline` left out or stopped stages. An attempt of a task is never a `skip`.",
    "",
    f"`{families.RUN_DURATION.name}` has only whole runs: no cancellations, no runs of some stages, of failed items or",
    "with arguments ([table](daily.md#what-narrowed-runs-leave-in-history-and-metrics)), none with a",
    "[cached](cache.md) task.",
)
_CHAPTERS = {  # by the first family of each chapter, in the order of `families`
    families.BUILD_INFO: "Build",
    families.RUNS: "Runs",
    families.STAGE_DURATION: "Stages",
    families.TASK_DURATION: "Tasks",
    families.POOL_WORKERS: "Pools",
    families.SLA_LIMIT: "SLAs",
    families.BOTTLENECK: "Bottlenecks",
    families.CONTROL_RECOMMENDED: "Control",
    families.HOST_MEMORY: "Host and exporter",
    families.SERVE_HISTORY_READABLE: "Serve",
}
_FROM_CONFIG = {
    "lane": "the config's lanes",
    "stage": "the config's stages",
    "pool": "the lane's pools: `commands`, `threads`, `processes`, `dask`",
    "number": "the stage's number",
    "version": "this package's version",
    "python": "the interpreter's version",
    "revision": "the git commit of a checkout, otherwise `unknown`",
    "observer": "`history`, `metrics`, `logs`, `reports`, `screen`",
    "holder": "the projects that are registered with `serve`",
}
_RUNBOOK_INTRODUCTION = """\
# Runbook

Made from `exporter/paropt_exporter/monitoring/alerts/` by `make generate`; a change here is lost with the next one.

Each alert has its meaning, impact, diagnosis and mitigation. The queries cover all lanes and hosts; add matchers like
`{lane="standard"}` to narrow them. [alerts.md](alerts.md) describes how to install the alerts and how they behave.
"""


def render_metrics() -> str:
    """Return the page."""
    blocks = [
        _METRICS_INTRODUCTION,
        *_iter_table_rows(("here", "OpenTelemetry"), _OPENTELEMETRY),
        "",
        "## Results",
        "",
        *_iter_table_rows(("result", "meaning"), tuple((f"`{name}`", meaning) for name, meaning in _RESULTS)),
        "",
        *_RUN_RESULTS,
        "",
        "## Buckets",
        "",
        "All histograms have these bounds, in seconds, and +Inf:",
        ", ".join(f"{bound:g}" for bound in families.BUCKETS_SECONDS) + ".",
    ]
    return "\n".join([*blocks, *_iter_families()]) + "\n"


def _iter_families() -> Iterator[str]:
    for family in families.FAMILIES:
        if family in _CHAPTERS:
            yield from ("", f"## {_CHAPTERS[family]}")
        resumes = ", resumes" if family.resumes else ""
        yield from ("", f"### {family.name}", "", f"{family.kind.value.capitalize()}{resumes}. {family.help}")
        if family.labels:
            yield from ("", *(f"* `{label}`: {_format_values(family, label)}" for label in family.labels))


def _format_values(family: Family, label: str) -> str:
    closed = families.CLOSED_VALUES.get(family, {}).get(label)
    return ", ".join(f"`{value}`" for value in closed) if closed else _FROM_CONFIG[label]


def _iter_table_rows(headers: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    for cells in (headers, ("---",) * len(headers), *rows):
        yield f"| {' | '.join(cells)} |"


def render_runbook(options: Options) -> str:
    """Return the page."""
    return "\n".join([_RUNBOOK_INTRODUCTION, *_iter_contents(options), *_iter_entries(options)]) + "\n"


def _iter_contents(options: Options) -> Iterator[str]:
    yield from ("| alert | severity | summary |", "| --- | --- | --- |")
    for alert in rule_files.build_alerts(options):
        levels = ", ".join(dict.fromkeys(condition.level.value for condition in alert.conditions))
        yield f"| [{alert.name}](#{alert.name.lower()}) | {levels} | {alert.summary} |"


def _iter_entries(options: Options) -> Iterator[str]:
    for alert in rule_files.build_alerts(options):
        yield from ("", f"## {alert.name}", "", f"{alert.summary} {_format_severities(alert)}", "")
        yield from (f"**Meaning.** {alert.meaning}", "", f"**Impact.** {alert.impact}", "", "**Diagnosis.**", "")
        for query in alert.diagnosis:
            yield from (f"* {query.question}", "  ```promql", f"  {query.expr}", "  ```")
        yield from ("", "**Mitigation.**", "", *(f"* {step}" for step in alert.mitigation))


def _format_severities(alert: Alert) -> str:
    return " ".join(_format_severity(condition) for condition in alert.conditions)


def _format_severity(condition: Condition) -> str:
    labels = dict(condition.labels)
    spans = f" over {labels['long']} and {labels['short']}" if "long" in labels else ""
    hold = f" after {condition.hold}" if condition.hold else ""
    return f"Severity {condition.level.value}{spans}{hold}."
