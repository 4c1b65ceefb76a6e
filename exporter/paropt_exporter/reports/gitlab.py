"""GitLab's code quality report: the findings of all stages, which a merge request shows beside the lines.

Format: "Code Quality report format" of GitLab's documentation. Of several entries with the same fingerprint GitLab
keeps one, and by its fingerprint it recognizes an entry of an earlier report. So a fingerprint does not depend on the
line.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator

from msgspec import Struct

from paropt_exporter.findings import Finding, Level
from paropt_exporter.reports.model import FinishedRun, ReportedStage, find_repository_path
from paropt_exporter.terminal import visible

_SEVERITIES = {Level.ERROR: "major", Level.WARNING: "minor"}
_DEFAULT_CONFIG = "paropt.yml"


class _Entry(Struct, frozen=True, kw_only=True):
    check: str
    text: str
    path: str
    line: int = 1
    severity: str = "major"


def render(run: FinishedRun) -> bytes:
    """Return the report of a run: an entry for each finding, and one for each failure without findings."""
    seen: Counter[str] = Counter()
    found = [entry for stage in run.stages for entry in _iter_entries(run, stage)]
    if run.own_fault:
        lane = run.record.lane
        found.append(_Entry(check=lane, text=f"lane {lane}: {run.own_fault}", path=_find_config_path(run)))
    entries = [_to_json(entry, seen) for entry in found]
    return json.dumps(entries, indent=1).encode() + b"\n"


def _iter_entries(run: FinishedRun, stage: ReportedStage) -> Iterator[_Entry]:
    name, config = stage.record.stage, _find_config_path(run)
    for task in stage.failed_tasks:
        for finding in task.last.findings:
            yield _make_entry(finding, stage, run, config)
        if not task.last.findings:
            yield _Entry(check=name, text=f"{task.last.name}: {task.last.record.message}", path=config)
    if stage.record.result.bad and not stage.failed_tasks:
        yield _Entry(check=name, text=f"{name}: {stage.record.message}", path=config)


def _make_entry(finding: Finding, stage: ReportedStage, run: FinishedRun, config: str) -> _Entry:
    path = find_repository_path(finding.path, stage.folder, run.top)
    return _Entry(
        check=finding.rule or ("test" if finding.test else stage.record.stage),
        text=finding.message if path and not finding.test else finding.text,
        path=path or config,
        line=finding.line or 1 if path else 1,
        severity=_SEVERITIES[finding.level],
    )


def _find_config_path(run: FinishedRun) -> str:
    """Return the file at which a failure without a place is shown: the config, which defines its stage."""
    return find_repository_path(str(run.config or _DEFAULT_CONFIG), run.root, run.top) or _DEFAULT_CONFIG


def _to_json(entry: _Entry, seen: Counter[str]) -> dict[str, object]:
    same = "\0".join((entry.check, entry.text, entry.path))
    seen[same] += 1
    fingerprint = hashlib.sha256(f"{same}\0{seen[same]}".encode("utf-8", "replace")).hexdigest()[:32]
    return {
        "description": visible(entry.text),
        "check_name": visible(entry.check),
        "fingerprint": fingerprint,
        "severity": entry.severity,
        "location": {"path": entry.path, "lines": {"begin": entry.line}},
    }
