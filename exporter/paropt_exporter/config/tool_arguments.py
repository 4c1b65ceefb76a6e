"""Tell the arguments that decide what a tool checks from those that only change its output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from paropt_exporter.config.command_files import Words

# The options of pytest for its output, an end at the first failure, and processes of pytest-xdist.
_PYTEST_REPORTS = re.compile(
    r"(?:-[vqlx]+|-[rn]\w*|--(?:verbose|quiet|showlocals|exitfirst|ff|failed-first|lf|last-failed|nf|new-first"
    r"|full-trace|no-header|no-summary|self-contained-html|tb|durations|durations-min|color|junit-?xml|junit-prefix"
    r"|html|report-log|basetemp|maxfail|verbosity|numprocesses|maxprocesses|dist))(?![\w-])"
    r"|(?:-o|--override-ini) (?:console_output_style|log_cli|verbosity_\w+)="
)
_PYTEST_REPORTS_AND_COVERAGE = re.compile(
    rf"{_PYTEST_REPORTS.pattern}"
    r"|--(?:no-cov|no-cov-on-fail|cov|cov-(?:branch|append|reset|report|config|context|fail-under))(?![\w-])"
)
_PYTEST_WITH_VALUE = re.compile(
    r"-[rno]|--(?:override-ini|tb|durations|durations-min|color|junit-?xml|junit-prefix|html|report-log|basetemp"
    r"|maxfail|verbosity|numprocesses|maxprocesses|dist|cov|cov-(?:report|config|context|fail-under))"
)
_SELECTIONS = ("-m", "-k", "--deselect", "--ignore", "--ignore-glob")
_REPORT_OF_MYPY = r"--(?:[a-z]+(?:-[a-z]+)?-report|junit-xml)"  # such as --html-report DIR
_MYPY_REPORTS = re.compile(rf"{_REPORT_OF_MYPY}(?![\w-])")
_MYPY_WITH_VALUE = re.compile(
    rf"{_REPORT_OF_MYPY}|--(?:config-file|cache-dir|python-version|python-executable|platform|exclude)"
    r"|--(?:enable|disable)-error-code|--follow-imports"
)


def iter_arguments(arguments: Words, with_value: re.Pattern[str]) -> Iterator[Words]:
    """Yield the arguments one by one: an option whose value is the next word together with that.

    `with_value` matches the names of such options. A word that begins with a dash is no value.
    """
    at = 0
    while at < len(arguments):
        takes_word = with_value.fullmatch(arguments[at]) and not "".join(arguments[at + 1 : at + 2]).startswith("-")
        yield arguments[at : at + (2 if takes_word else 1)]
        at += 2 if takes_word else 1


def drop_options(arguments: Words, dropped: re.Pattern[str], with_value: re.Pattern[str]) -> Words:
    """Return the arguments without options. `dropped` matches the beginnings of these with their values."""
    each = iter_arguments(arguments, with_value)
    return tuple(chain.from_iterable(words for words in each if not dropped.match(" ".join(words))))


def find_option(arguments: Words, *names: str) -> str | None:
    """Return the value of the first option with one of the names, or None."""
    for word, *after in iter_arguments(arguments, re.compile("|".join(names))):
        name, _, value = word.partition("=")
        if name in names:
            return "".join(after) or value
    return None


def drop_pytest_reports(arguments: Words, *, keep_coverage: bool) -> Words:
    """Return pytest's arguments without those for reports, an end at the first failure, and processes of pytest-xdist.

    Measuring coverage takes time and decides nothing, unless there is a limit for it (`keep_coverage`).
    """
    dropped = _PYTEST_REPORTS if keep_coverage else _PYTEST_REPORTS_AND_COVERAGE
    return drop_options(arguments, dropped, _PYTEST_WITH_VALUE)


def selects_tests(arguments: Words) -> bool:
    """Return whether pytest's arguments select tests by names, marks or paths that are left out."""
    return any(word.partition("=")[0] in _SELECTIONS or re.match(r"-[mk]\S", word) for word in arguments)


def drop_mypy_reports(arguments: Words) -> Words:
    return drop_options(arguments, _MYPY_REPORTS, _MYPY_WITH_VALUE)


def names_mypy_targets(arguments: Words) -> bool:
    """Return whether a word is neither an option nor an option's value, as in `--config-file mypy.ini`."""
    return any(not word.startswith("-") for word, *_ in iter_arguments(arguments, _MYPY_WITH_VALUE))
