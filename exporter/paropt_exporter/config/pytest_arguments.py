"""Tell the arguments that decide which tests pytest runs, and how, from those that only change its output."""

from __future__ import annotations

import re

from paropt_exporter.config.command_files import Words

_REPORTS = re.compile(
    r"-[vqlx]+|--(verbose|quiet|showlocals|exitfirst|ff|failed-first|lf|last-failed|nf|new-first|full-trace|no-header"
    r"|no-summary|self-contained-html)"
)
_REPORTS_WITH_VALUE = re.compile(
    r"(-r|-n|--tb|--durations|--durations-min|--color|--junit-?xml|--junit-prefix|--html|--report-log|--basetemp|--maxfail"
    r"|--verbosity|--numprocesses|--maxprocesses|--dist)"
)
_OUTPUT_SETTINGS = re.compile(r"(console_output_style|log_cli|verbosity_\w+)=")
_ATTACHED = re.compile(r"-[rn]\w+")
_COVERAGE = re.compile(r"--(no-cov|cov-branch|cov-append|cov-reset|no-cov-on-fail)")
_COVERAGE_WITH_VALUE = re.compile(r"--cov(-report|-config|-context|-fail-under)?")
_SELECTIONS = ("-m", "-k", "--deselect", "--ignore", "--ignore-glob")


def drop_reports(arguments: Words, *, keep_coverage: bool) -> Words:
    """Return pytest's arguments without those for reports, an end at the first failure, and processes of pytest-xdist.

    Measuring coverage takes time and decides nothing, unless there is a limit for it (`keep_coverage`).
    """
    kept: list[str] = []
    at = 0
    while at < len(arguments):
        if arguments[at] in ("-o", "--override-ini") and _OUTPUT_SETTINGS.match(" ".join(arguments[at + 1 : at + 2])):
            at += 2
            continue
        name, has_value, _ = arguments[at].partition("=")
        dropped, takes_word = _classify(name, keep_coverage=keep_coverage)
        if not dropped:
            kept.append(arguments[at])
        at += 1
        if dropped and takes_word and not has_value and at < len(arguments) and not arguments[at].startswith("-"):
            at += 1
    return tuple(kept)


def _classify(name: str, *, keep_coverage: bool) -> tuple[bool, bool]:
    """Return whether to drop an option, and whether it may take the next word."""
    if _COVERAGE.fullmatch(name) or _COVERAGE_WITH_VALUE.fullmatch(name):
        return not keep_coverage, _COVERAGE_WITH_VALUE.fullmatch(name) is not None
    takes_word = _REPORTS_WITH_VALUE.fullmatch(name) is not None
    return takes_word or bool(_REPORTS.fullmatch(name) or _ATTACHED.fullmatch(name)), takes_word


def selects_tests(arguments: Words) -> bool:
    """Return whether pytest's arguments select tests by names, marks or paths that are left out."""
    return any(word.partition("=")[0] in _SELECTIONS or re.match(r"-[mk]\S", word) for word in arguments)
