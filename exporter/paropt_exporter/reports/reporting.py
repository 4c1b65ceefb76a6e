"""Make the reports of each run once it has ended, and remember which could not be made."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from paropt_exporter import files
from paropt_exporter.errors import DeliveryError
from paropt_exporter.events import Event, RunRecord
from paropt_exporter.plan import Plan
from paropt_exporter.reports import options
from paropt_exporter.reports.collecting import Collector
from paropt_exporter.reports.model import FinishedRun
from paropt_exporter.reports.options import ReportOption

log = logging.getLogger(__name__)


class RunReport(Protocol):
    """A report that goes to no file."""

    def prepare(self, plan: Plan) -> Plan:
        """Return the plan that is about to run, with the variables that the report adds to its environment."""

    def report(self, run: FinishedRun) -> None:
        """Report a run that has ended. Raises OSError or DeliveryError."""


class Reports:
    """An observer that gathers a run's events, from which `write` makes the reports after the run's end.

    Guarantees: a file is written whole or not at all; a report that fails is one line of the log and hinders no other.
    """

    def __init__(
        self,
        wanted: Sequence[ReportOption],
        *,
        config: Path | None,
        top: Path,
        others: Mapping[str, RunReport] | None = None,
    ) -> None:
        """`others`: the reports that go to no file, by their kind. `top`: the repository's top folder."""
        self._wanted = wanted
        self._others = others or {}
        self._collector = Collector(config=config, top=top)

    def begin(self, plan: Plan) -> Plan:
        """Begin with the run of a plan; return the plan with the variables that reports add."""
        for report in self._others.values():
            plan = report.prepare(plan)
        self._collector.begin(plan)
        return plan

    def observe(self, event: Event) -> None:
        if self._wanted:
            self._collector.observe(event)

    def write(self, record: RunRecord, *, log_path: Path | None) -> tuple[str, ...]:
        """Make each report of a run that has ended; return why files could not be written."""
        run = self._collector.finish(record, log=log_path) if self._wanted else None
        if run is None:
            return ()
        return tuple(fault for option in self._wanted if (fault := self._make_report(option, run)))

    def _make_report(self, option: ReportOption, run: FinishedRun) -> str:
        """Make one report; return why its file could not be written, or ""."""
        try:
            if option.path is not None:
                write_file(option.path, _render(option.kind, run))
            elif option.kind in self._others:
                self._others[option.kind].report(run)
        except (OSError, DeliveryError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            if option.path is not None:
                return f"the report {option} could not be written: {why}"
            log.warning("a report was not made", extra={"report": str(option), "err": why})
        return ""


def _render(kind: str, run: FinishedRun) -> bytes:
    """Return the content of a report that goes to a file; its module loads only now."""
    from paropt_exporter.reports import gitlab, junit, run_json, trace

    renderers = {
        options.JUNIT: junit.render,
        options.GITLAB: gitlab.render,
        options.JSON: run_json.render,
        options.TRACE: trace.render,
    }
    return renderers[kind](run)


def write_file(path: Path, content: bytes) -> None:
    """Write a report by renaming, with its folders. Raises OSError, also for what is there and is no regular file."""
    target = path.resolve() if path.is_symlink() else path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # as the system words it, the report itself would be there
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target.parent)) from None
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        raise files.UnexpectedFileType(errno.EINVAL, "it is there and is not a file", str(path))
    files.replace_file(target, content)
