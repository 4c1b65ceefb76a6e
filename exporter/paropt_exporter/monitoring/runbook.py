"""Write the runbook, `docs/runbook.md`: one heading for each alert, from what the alert's own entry says."""

from __future__ import annotations

from collections.abc import Iterator

from paropt_exporter.monitoring.alerts import files
from paropt_exporter.monitoring.alerts.rules import Alert, Condition
from paropt_exporter.monitoring.options import Options

_INTRODUCTION = """\
# Runbook

Made from `exporter/paropt_exporter/monitoring/alerts/` by `make generate`; a change here is lost with the next one.

One heading for each alert: what it means, whom it hurts, how to find the cause, what to do. The queries ask about all
lanes and hosts at once; add matchers (`{lane="standard"}`) to ask about one. How alerts are put to use, and how fast
they come, stands in [alerts.md](alerts.md).
"""


def render(options: Options) -> str:
    """Return the whole page."""
    return "\n".join([_INTRODUCTION, *_contents(options), *_entries(options)]) + "\n"


def _contents(options: Options) -> Iterator[str]:
    yield from ("| alert | severity | says |", "| --- | --- | --- |")
    for alert in files.alerts(options):
        levels = ", ".join(dict.fromkeys(condition.level.value for condition in alert.conditions))
        yield f"| [{alert.name}](#{alert.name.lower()}) | {levels} | {alert.summary} |"


def _entries(options: Options) -> Iterator[str]:
    for alert in files.alerts(options):
        yield from ("", f"## {alert.name}", "", f"{alert.summary} {_when(alert)}", "")
        yield from (f"**Meaning.** {alert.meaning}", "", f"**Impact.** {alert.impact}", "", "**Diagnosis.**", "")
        for query in alert.diagnosis:
            yield from (f"* {query.question}", "  ```promql", f"  {query.expr}", "  ```")
        yield from ("", "**Mitigation.**", "", *(f"* {step}" for step in alert.mitigation))


def _when(alert: Alert) -> str:
    return " ".join(_severity(condition) for condition in alert.conditions)


def _severity(condition: Condition) -> str:
    spans = f" over {condition.labels[0][1]} and {condition.labels[1][1]}" if condition.labels else ""
    hold = f" after {condition.hold}" if condition.hold else ""
    return f"Severity {condition.level.value}{spans}{hold}."
