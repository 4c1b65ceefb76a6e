"""`generate`: render the files that are generated from the code, by kind, and write them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TextIO

from msgspec.structs import replace

from paropt_exporter.errors import UsageError
from paropt_exporter.monitoring.options import Format, Options, require_whole_minutes

Files = Mapping[str, str]  # content by path below the output folder
_KUBERNETES_FOLDER = PurePosixPath("deploy/kubernetes/base/generated")


def run(kinds: Sequence[str], out: Path | None, options: Options, *, stdout: TextIO) -> int:
    """Write the files of the given kinds, or of all, below `out`. Files that are up to date are not rewritten.

    Raises UsageError if neither is given: all kinds, in the current folder, could overwrite a project's
    docs/runbook.md.
    """
    if not kinds and out is None:
        raise UsageError(f"generate: name what to write ({', '.join(KINDS)}), or add --out DIR to write everything")
    for name, text in render_files(kinds, options).items():
        _write_file((out or Path()) / name, text, stdout)
    return 0


def _write_file(path: Path, text: str, stdout: TextIO) -> None:
    try:
        is_current = path.is_file() and path.read_bytes() == text.encode()
        if not is_current:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"generate: cannot write {path}: {error.strerror}: choose another --out") from None
    print(f"{path} is up to date" if is_current else f"wrote {path}", file=stdout)


def render_files(kinds: Iterable[str], options: Options) -> dict[str, str]:
    """Return the files of some kinds, or of all kinds if none is given; raises UsageError for an unknown kind."""
    wanted = tuple(kinds) or tuple(KINDS)
    for kind in wanted:
        if kind not in KINDS:
            raise UsageError(f"generate: cannot generate {kind!r}; choose from {', '.join(KINDS)}")
    return {path: text for kind in wanted for path, text in KINDS[kind](options).items()}


def _render_schema(_: Options) -> Files:
    from paropt_exporter.monitoring import schema
    from paropt_exporter.reports import run_document

    return {
        "docs/paropt.schema.json": schema.render_schema(),
        "docs/host-config.schema.json": schema.render_host_schema(),
        "docs/run.schema.json": schema.render_document_schema(run_document.Run, run_document.TITLE),
    }


def _render_docs(options: Options) -> Files:
    from paropt_exporter.autoscaling.explanation import BY_ACTION
    from paropt_exporter.monitoring import reference

    metrics = reference.render_metrics(BY_ACTION)
    return {"docs/metrics.md": metrics, "docs/runbook.md": reference.render_runbook(options)}


def _render_alerts(options: Options) -> Files:
    from paropt_exporter.monitoring.alerts import rule_files

    require_whole_minutes(options)
    return rule_files.render_rules(options)


def _render_fleet(options: Options) -> Files:
    from paropt_exporter.monitoring.alerts import rule_files

    require_whole_minutes(options)
    return rule_files.render_fleet_rules(options)


def _render_dashboards(options: Options) -> Files:
    from paropt_exporter.monitoring import dashboards

    return dashboards.render_dashboards(options)


def _render_kubernetes_objects(options: Options) -> Files:
    """Return the PrometheusRules and ConfigMaps of the Kubernetes base, regardless of the format in the options.

    The other files of the base contain no metric names and are not generated.
    """
    wrapped = replace(options, format=Format.PROMETHEUS_OPERATOR)
    texts = {**_render_alerts(wrapped), **_render_dashboards(wrapped)}
    return {str(_KUBERNETES_FOLDER / PurePosixPath(path).name): text for path, text in texts.items()}


# Each imports its modules when it is called: the schema doesn't need grafanalib, which is slow to import.
KINDS: Mapping[str, Callable[[Options], Files]] = {
    "alerts": _render_alerts,
    "fleet": _render_fleet,
    "schema": _render_schema,
    "docs": _render_docs,
    "dashboards": _render_dashboards,
    "deploy": _render_kubernetes_objects,
}
