"""Everything that can be generated: what it is called on the command line, and the files that it consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from paropt_exporter.errors import UsageError
from paropt_exporter.monitoring.options import Options

Files = Mapping[str, str]  # path below the folder asked for -> whole text


def render(kinds: Iterable[str], options: Options) -> dict[str, str]:
    """Return the files of the kinds named, of all kinds if none is; UsageError for a kind that is not there."""
    wanted = tuple(kinds) or tuple(KINDS)
    for kind in wanted:
        if kind not in KINDS:
            raise UsageError(f"generate: cannot generate {kind!r}; there are {', '.join(KINDS)}")
    return {path: text for kind in wanted for path, text in KINDS[kind](options).items()}


def _schema(_: Options) -> Files:
    from paropt_exporter.monitoring import schema

    return {"docs/paropt.schema.json": schema.render()}


def _docs(options: Options) -> Files:
    from paropt_exporter.monitoring import reference, runbook

    return {"docs/metrics.md": reference.render(), "docs/runbook.md": runbook.render(options)}


def _alerts(options: Options) -> Files:
    from paropt_exporter.monitoring.alerts import files

    return files.render(options)


def _dashboards(options: Options) -> Files:
    from paropt_exporter.monitoring import dashboards

    return dashboards.render(options)


def _deploy(options: Options) -> Files:
    from paropt_exporter.monitoring import deploy

    return deploy.render(options)


# Each loads what it needs when it is asked: grafanalib is no part of the time that a schema takes.
KINDS: Mapping[str, Callable[[Options], Files]] = {
    "alerts": _alerts,
    "schema": _schema,
    "docs": _docs,
    "dashboards": _dashboards,
    "deploy": _deploy,
}
# Every file that matches is generated: one that no kind makes any more is a leftover.
OWNED = ("alerts/*.yml", "dashboards/*.json", "deploy/kubernetes/base/generated/*")
