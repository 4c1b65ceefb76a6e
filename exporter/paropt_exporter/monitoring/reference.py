"""Write the reference page of every metric, `docs/metrics.md`, from the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

from paropt_exporter import families
from paropt_exporter.families import Family

_INTRODUCTION = f"""\
# Metrics

Made from `exporter/paropt_exporter/families.py` by `make generate`; a change here is lost with the next one.

Every metric carries the label `project`: the config's `project`, or the name of the config's folder. Label values come
only from sets that the config or the tables below close. Counters, histograms and 0/1 gauges of every known label set
are there from the start at 0; timestamps are absent until they are known. The families of SLA limits are there for
stages and lanes that have a limit.

Totals marked *resumes* go on from the run history when the exporter starts again; the others begin with the process,
and `{families.POOL_EPOCH.name}` says when. The history commits a total before it is exported.

Names follow OpenTelemetry's semantic conventions for CI/CD where those have one:
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
    ("success", "ended well"),
    ("failure", "non-zero exit or exception"),
    ("error", "could not start, killed by a signal, or its worker died"),
    ("timeout", "ran into its time limit"),
    ("cancellation", "stopped by the exporter: fail-fast, a critical SLA, a signal, or found interrupted at a start"),
    ("skip", "never started"),
)
_RUN_RESULTS = (
    "A run is a `failure` if a stage failed, erred or timed out, or a critical SLA broke, and a `cancellation` if it",
    "was interrupted. An attempt of a task is never a `skip`.",
)
_CHAPTERS = {  # by the family that a chapter begins with, in the catalogue's order
    families.BUILD_INFO: "Build",
    families.RUNS: "Runs",
    families.STAGE_DURATION: "Stages",
    families.TASK_DURATION: "Tasks",
    families.POOL_WORKERS: "Pools",
    families.SLA_LIMIT: "SLAs",
    families.BOTTLENECK: "Bottlenecks",
    families.CONTROL_RECOMMENDED: "Control",
    families.HOST_MEMORY: "Host and exporter",
}
_FROM_CONFIG = {
    "lane": "the config's lanes",
    "stage": "the config's stages",
    "pool": "the lane's pools: `commands`, `threads`, `processes`",
    "number": "the stage's number",
    "version": "this package's version",
    "python": "the interpreter's version",
    "revision": "the git commit of a checkout, else `unknown`",
    "observer": "`history`, `metrics` and what else listens",
}


def render() -> str:
    """Return the whole page."""
    blocks = [
        _INTRODUCTION,
        *_table(("here", "OpenTelemetry"), _OPENTELEMETRY),
        "",
        "## Results",
        "",
        *_table(("result", "meaning"), tuple((f"`{name}`", meaning) for name, meaning in _RESULTS)),
        "",
        *_RUN_RESULTS,
        "",
        "## Buckets",
        "",
        "All histograms have these bounds, in seconds, and +Inf:",
        ", ".join(f"{bound:g}" for bound in families.BUCKETS_SECONDS) + ".",
    ]
    return "\n".join([*blocks, *_described()]) + "\n"


def _described() -> Iterator[str]:
    for family in families.FAMILIES:
        if family in _CHAPTERS:
            yield from ("", f"## {_CHAPTERS[family]}")
        resumes = ", resumes" if family.resumes else ""
        yield from ("", f"### {family.name}", "", f"{family.kind.value.capitalize()}{resumes}. {family.help}")
        if family.labels:
            yield from ("", *(f"* `{label}`: {_values(family, label)}" for label in family.labels))


def _values(family: Family, label: str) -> str:
    closed = families.CLOSED_VALUES.get(family, {}).get(label)
    return ", ".join(f"`{value}`" for value in closed) if closed else _FROM_CONFIG[label]


def _table(headers: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    for cells in (headers, ("---",) * len(headers), *rows):
        yield f"| {' | '.join(cells)} |"
