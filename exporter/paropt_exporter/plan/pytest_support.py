"""Ask pytest for a JUnit report by a variable of its environment, if that is sure to change nothing else."""

from __future__ import annotations

import ast
import errno
import os
import re
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from paropt_exporter import files
from paropt_exporter.plan.batches import ITEMS, SHELL
from paropt_exporter.plan.structure import Commands

VARIABLE = "PYTEST_ADDOPTS"  # read by pytest between its configuration and its command line
FOLDER_PREFIX = "paropt-reports-"  # of the folders of reports
_LONGEST_CONFIGURATION_BYTES = 1 << 18
_PYTEST = re.compile(r"(?<![\w.-])(pytest|py\.test)(?![\w.-])")
# A cluster such as `-qx` too; after a short option that takes a value (`-k x`), the letters are that value.
_AGAINST = re.compile(
    r"--junit-?xml|no:junitxml|--exitfirst|--maxfail|--session-timeout|--stepwise|--sw\b"
    r"|(?<![\w-])-[^\s\-kmpncrWo]*x"
)
# What they start may be another user, or see other folders, who can't write a report where we would read it.
_ELSEWHERE = re.compile(
    r"(?<![\w.-])(?:sudo|doas|su|su-exec|gosu|runuser|setpriv|setuidgid|chpst|capsh|chroot|unshare|nsenter|bwrap|firejail"
    r"|docker|podman|nerdctl|systemd-run|systemd-nspawn|ssh|kubectl|flatpak-spawn|machinectl)(?![\w.-])"
)
# Of an exporter around this one, whose pytest runs us: what our own pytest writes is not its report.
_OUTER = re.compile(rf"'?--junitxml=[^\s']*/{FOLDER_PREFIX}[^\s']*'?")
_SHELL_OPERATOR = re.compile(r"[;|`\n)]|(?<!>)&(?!>)")


def can_request_report(template: Commands, folder: Path, root: Path, env: Mapping[str, str]) -> bool:
    """Say whether the last step visibly calls pytest, and nothing speaks against a report.

    Against it: a report that somebody else reads, which must go where it goes now; another user or place to run in,
    from where pytest could not write it, and would fail; an end at the first failure, after
    which the report is silent about all tests that did not run; and commands after pytest, since the task's exit code
    is then theirs, and a retry of the failed items would hide the other items from them.
    """
    calls = [step for step in template.steps if _calls_pytest(step)]
    if len(calls) != 1 or calls[0] is not template.steps[-1] or not _passes_items_to_pytest(calls[0]):
        return False
    if _ELSEWHERE.search(" ".join(calls[0])):
        return False
    texts = [" ".join(calls[0]), _OUTER.sub("", env.get(VARIABLE, os.environ.get(VARIABLE, "")))]
    try:
        texts += [_read_addopts(place) for place in dict.fromkeys((folder, root))]
    except OSError:
        return False  # what it says is unknown
    return not any(_AGAINST.search(text) for text in texts)


def request_report(env: Mapping[str, str], report: Path) -> dict[str, str]:
    """Return the environment in which pytest writes its report to a file, beside all that it does otherwise."""
    own = _OUTER.sub("", env.get(VARIABLE, "")).strip()
    return {**env, VARIABLE: f"{own} {shlex.quote(f'--junitxml={report}')}".lstrip()}


def _calls_pytest(step: tuple[str, ...]) -> bool:
    if step[:2] == SHELL:
        return _PYTEST.search(step[2]) is not None
    return any(Path(word).name in ("pytest", "py.test") for word in step)


def _passes_items_to_pytest(step: tuple[str, ...]) -> bool:
    """Say whether pytest gets the items, in a shell's line as its last command."""
    if step[:2] != SHELL:
        return ITEMS in step
    last = _SHELL_OPERATOR.split(step[2])[-1]
    return ITEMS in last and _PYTEST.search(last) is not None


def _read_addopts(folder: Path) -> str:
    """Return the options that the configuration in a folder adds to pytest's command line.

    Raises OSError if a file is there that can't be read, or is longer than a configuration.
    """
    from paropt_exporter.config.pytest_options import read_pytest_options

    def read(name: str) -> str:
        try:
            text = files.read_start(folder / name, limit_bytes=_LONGEST_CONFIGURATION_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        if len(text) > _LONGEST_CONFIGURATION_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return text.decode(errors="replace")

    return read_pytest_options(read).get("addopts", "")


_MOST_BYTES = 1 << 20  # a test file that is longer stays whole
_PLAIN_BASES = frozenset({"object", "TestCase", "IsolatedAsyncioTestCase"})
_MAKES_NAMES = re.compile(r"\b(?:globals|locals|vars|setattr|exec|eval)\s*\(|\bmetaclass\b")


def find_separable_tests(file: Path, tests: Iterable[str]) -> list[str]:
    """Return the tests whose ids no other test of the file can begin with; none, if the file can't be understood.

    Conditional definitions and inherited tests count too: they may be absent from every report up to now.
    """
    try:
        source = files.read_start(file, limit_bytes=_MOST_BYTES + 1).decode()
        if len(source) > _MOST_BYTES or _MAKES_NAMES.search(source):
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings: pytest tells of those
            module = ast.parse(source)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return []
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(module)):
        return []
    return [test for test in tests if _is_separable(module, source, test.split("::")[1:])]


def _is_separable(module: ast.Module, source: str, names: Sequence[str]) -> bool:
    *classes, function = names
    scope: ast.Module | ast.ClassDef = module
    for name in classes:
        found = [node for node in scope.body if isinstance(node, ast.ClassDef) and node.name == name]
        if len(found) != 1 or found[0].decorator_list or not all(map(_is_plain, found[0].bases)):
            return False
        scope = found[0]
    defined = any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function for node in scope.body
    )
    return defined and re.search(rf"\b{re.escape(function)}\w", source) is None


def _is_plain(base: ast.expr) -> bool:
    return (isinstance(base, ast.Name) and base.id in _PLAIN_BASES) or (
        isinstance(base, ast.Attribute) and base.attr in _PLAIN_BASES
    )
