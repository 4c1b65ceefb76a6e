"""Read the flag `--report`: which reports are asked for, and where each goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paropt_exporter.errors import UsageError

JUNIT, GITHUB, GITLAB, JSON, TRACE, OTLP, NONE = KINDS = ("junit", "github", "gitlab", "json", "trace", "otlp", "none")
_WITH_FILE = (JUNIT, GITLAB, JSON, TRACE)


@dataclass(frozen=True, slots=True)
class ReportOption:
    """A report that is asked for. `path` is absolute; None for a report that goes to no file."""

    kind: str
    path: Path | None = None

    def __str__(self) -> str:
        return self.kind if self.path is None else f"{self.kind}={self.path}"


def parse(texts: Sequence[str], environment: Mapping[str, str]) -> tuple[ReportOption, ...]:
    """Return the reports that `--report` asks for, once for each text; UsageError for what can't be meant.

    On GitHub's runners, which set GITHUB_ACTIONS, `github` is among them unless `none` is.
    """
    options = [_parse_option(text) for text in texts]
    wanted = [option for option in dict.fromkeys(options) if option.kind != NONE]
    for path in (paths := [option.path for option in wanted if option.path is not None]):
        if paths.count(path) > 1:
            raise UsageError(f"--report: two reports would go to {path}: give each its own file")
    here = environment.get("GITHUB_ACTIONS") == "true"
    if here and not any(option.kind in (NONE, GITHUB) for option in options):
        wanted.append(ReportOption(GITHUB))
    return tuple(wanted)


def _parse_option(text: str) -> ReportOption:
    kind, equals, name = text.partition("=")
    if kind not in KINDS:
        raise UsageError(f"--report: there is no kind {kind!r}; there are {', '.join(KINDS)}")
    if kind not in _WITH_FILE:
        if equals:
            raise UsageError(f"--report: {kind} goes to no file: give --report {kind}")
        return ReportOption(kind)
    if not name:
        raise UsageError(f"--report: {kind} needs a file: --report {kind}=FILE")
    path = Path(name).absolute()
    if path.is_dir():
        raise UsageError(f"--report: {name} is a folder: name a file")
    return ReportOption(kind, path)
