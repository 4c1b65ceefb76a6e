"""Request JUnit reports from pytest, and find the tests that it can run separately from their file."""

from __future__ import annotations

import errno
import os
import re
import shlex
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from paropt_exporter import files
from paropt_exporter.config.placeholders import ITEMS, SHELL
from paropt_exporter.lazy_patterns import compile_later
from paropt_exporter.plan.structure import Commands, KnownItems

VARIABLE = "PYTEST_ADDOPTS"  # pytest reads it after its configuration and before its command line
FOLDER_PREFIX = "paropt-reports-"  # of folders with reports
_LONGEST_CONFIGURATION_BYTES = 1 << 18
_PYTEST = compile_later(r"(?<![\w.-])(pytest|py\.test)(?![\w.-])")
# Also in a cluster such as `-qx`, but not in the value of a short option (`-kx`).
_AGAINST = compile_later(
    r"--junit-?xml|no:junitxml|--exitfirst|--maxfail|--session-timeout|--stepwise|--sw\b"
    r"|(?<![\w-])-[^\s\-kmpncrWo]*x"
)
# Programs that may run pytest as another user or in other folders, so that it can't write the report to our folder.
_ELSEWHERE = compile_later(
    r"(?<![\w.-])(?:sudo|doas|su|su-exec|gosu|runuser|setpriv|setuidgid|chpst|capsh|chroot|unshare|nsenter|bwrap|firejail"
    r"|docker|podman|nerdctl|systemd-run|systemd-nspawn|ssh|kubectl|flatpak-spawn|machinectl)(?![\w.-])"
)
_OWN_NAME = r"[^\s;&|]*[{$]"  # of a file: the item or a variable of the shell is in it, such as $$
_MEASURES_COVERAGE = compile_later(r"(?<!\S)--cov(?![\w-])")
_SHARES_NO_COVERAGE = compile_later(
    rf"(?<!\S)(?:--no-cov(?!\S)|-p[ =]?no:(?:pytest_)?cov\b)|\bCOVERAGE_FILE={_OWN_NAME}"
)
_TEMPORARY_FOLDER = compile_later(rf"(?<!\S)--basetemp(?![\w-]|[= ]{_OWN_NAME})")
# Set by an outer exporter whose pytest runs this one: our pytest must not write to its report.
_OUTER = compile_later(rf"'?--junitxml=[^\s']*/{FOLDER_PREFIX}[^\s']*'?")
_SHELL_OPERATOR = compile_later(r"[;|`\n)]|(?<!>)&(?!>)")


def find_shared_options(command: str, folders: Iterable[Path], env: Mapping[str, str]) -> Iterator[str]:
    """Yield the options by which several pytests at once disturb each other: `--cov` and `--basetemp`.

    They may be in the command, in PYTEST_ADDOPTS, or in pytest's configuration in one of the folders. A name of its own
    for each pytest's file or folder is no disturbance.
    """
    if not _PYTEST.search(command):
        return
    texts = [command, env.get(VARIABLE, "")]
    with suppress(OSError):  # its options are unknown
        texts += [read_addopts(folder) for folder in folders]
    options = " ".join(texts)
    if _MEASURES_COVERAGE.search(options) and not _SHARES_NO_COVERAGE.search(options):
        yield "--cov"
    if _TEMPORARY_FOLDER.search(options):
        yield "--basetemp"


def can_request_report(template: Commands, folder: Path, root: Path, env: Mapping[str, str]) -> bool:
    """Return whether the last step calls pytest, and whether a report is possible and useful.

    A report is not possible if the project writes one already, if pytest runs as another user or in a container, or if
    it stops at the first failure, since the report would lack the tests that did not run. It is not useful if commands
    follow pytest: the exit code is theirs, and a retry of the failed items would hide the other items from them.
    """
    calls = [step for step in template.steps if _calls_pytest(step)]
    if len(calls) != 1 or calls[0] is not template.steps[-1] or not _passes_items_to_pytest(calls[0]):
        return False
    if _ELSEWHERE.search(" ".join(calls[0])):
        return False
    texts = [" ".join(calls[0]), _OUTER.sub("", env.get(VARIABLE, os.environ.get(VARIABLE, "")))]
    try:
        texts += [read_addopts(place) for place in dict.fromkeys((folder, root))]
    except OSError:
        return False  # its options are unknown
    return not any(_AGAINST.search(text) for text in texts)


def request_report(env: Mapping[str, str], report: Path) -> dict[str, str]:
    """Return the environment with pytest's option to write its report to a file."""
    own = _OUTER.sub("", env.get(VARIABLE, "")).strip()
    return {**env, VARIABLE: f"{own} {shlex.quote(f'--junitxml={report}')}".lstrip()}


def _calls_pytest(step: tuple[str, ...]) -> bool:
    if step[:2] == SHELL:
        return _PYTEST.search(step[2]) is not None
    return any(Path(word).name in ("pytest", "py.test") for word in step)


def _passes_items_to_pytest(step: tuple[str, ...]) -> bool:
    """Return whether pytest gets the items; in a shell's line it must be the last command."""
    if step[:2] != SHELL:
        return ITEMS in step
    last = _SHELL_OPERATOR.split(step[2])[-1]
    return ITEMS in last and _PYTEST.search(last) is not None


def read_addopts(folder: Path) -> str:
    """Return the command-line options in pytest's configuration of a folder.

    Raises OSError if a file can't be read or is too long for a configuration.
    """
    from paropt_exporter.config.tool_options import read_tool_options

    def read(name: str) -> str:
        try:
            text = files.read_start(folder / name, limit_bytes=_LONGEST_CONFIGURATION_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        if len(text) > _LONGEST_CONFIGURATION_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return text.decode(errors="replace")

    return read_tool_options("pytest", read).get("addopts", "")


if TYPE_CHECKING:
    import ast

_MOST_BYTES = 1 << 20  # longer test files are not cut
_PLAIN_BASES = frozenset({"object", "TestCase", "IsolatedAsyncioTestCase"})
_MAKES_NAMES = frozenset({"globals", "locals", "vars", "setattr", "exec", "eval"})
# Marks of tests that need others in their file: pytest-dependency, pytest-order, pytest's own example, pytest-xdist.
_NEEDS_OTHERS = compile_later(r"\bmark\.(?:dependency|order|incremental|xdist_group)\b")
_CHANGES_CONTENT = frozenset(
    {"append", "add", "extend", "insert", "update", "setdefault", "pop", "popitem", "remove", "discard", "clear"}
)
_MAY_HIDE_TESTS = compile_later(r"\b(?:__test__|allow_module_level|importorskip|SkipTest|collect_ignore)\b")


def find_unchanged_parts(
    folder: Path, items: Sequence[str], known: KnownItems, *, least_seconds: float
) -> dict[str, list[str]]:
    """Return the measured long tests of files that have not changed since, so that no name is out of date.

    Only tests are included that pytest can deselect without deselecting others, and that take at least `least_seconds`.
    """
    found = _find_long_tests(items, known, least_seconds)
    unchanged = {file: parts for file, parts in found.items() if not _has_changed(folder / file, parts, known)}
    each = {file: find_separable_tests(folder / file, parts) for file, parts in unchanged.items()}
    return {file: parts for file, parts in each.items() if parts}


def find_defined_parts(
    folder: Path, items: Sequence[str], known: KnownItems, *, least_seconds: float
) -> dict[str, list[str]]:
    """Return the same for files that may have changed, but only tests that the file certainly has.

    The result depends on the contents of the files and on the durations, but not on the times of the files, which
    differ between checkouts.
    """
    found = _find_long_tests(items, known, least_seconds)
    each = {file: find_separable_tests(folder / file, parts, certain=True) for file, parts in found.items()}
    return {file: sorted(parts) for file, parts in each.items() if parts}


def _find_long_tests(items: Sequence[str], known: KnownItems, least_seconds: float) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    wanted = frozenset(items)
    for name, seconds in known.seconds.items():
        file, separator, _ = name.partition("::")
        if separator and file in wanted and name not in wanted and seconds >= least_seconds:
            found.setdefault(file, []).append(name)
    return found


def add_kept_parts(known: KnownItems, items: Sequence[str], parts: Mapping[str, Sequence[str]]) -> KnownItems:
    """Add the seconds of the long tests that stay in their files to the seconds of these files."""
    seconds, wanted = dict(known.seconds), frozenset(items)
    for name, took in known.seconds.items():
        file, separator, _ = name.partition("::")
        if separator and file in wanted and file in seconds and name not in wanted and name not in parts.get(file, ()):
            seconds[file] += took
    return replace(known, seconds=seconds)


def _has_changed(file: Path, parts: Sequence[str], known: KnownItems) -> bool:
    try:
        changed = file.stat().st_mtime
    except OSError:
        return True
    return any(known.seen_timestamp_seconds.get(part, 0.0) <= changed for part in parts)


def find_separable_tests(file: Path, tests: Iterable[str], *, certain: bool = False) -> list[str]:
    """Return the tests whose ids are not the beginning of another test's id, or none if the file can't be parsed.

    `--deselect` applies to all ids with a prefix: `file::T::test_run` also leaves out `file::T::test_run_twice`, which
    no other command would run. Conditional definitions and inherited tests count, too, since earlier reports may lack
    them. A file with marks by which tests need each other is not cut, either, nor is one in which a test changes a
    variable of its module or class, since another test may read it.

    `certain`: only tests that pytest certainly collects, since it runs nothing at all if one named test is missing.
    """
    import ast

    try:
        source = files.read_start(file, limit_bytes=_MOST_BYTES + 1).decode()
        if len(source) > _MOST_BYTES or _NEEDS_OTHERS.search(source) or (certain and _MAY_HIDE_TESTS.search(source)):
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in strings, which pytest reports
            module = ast.parse(source)
        if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(module)):
            return []
        if _makes_names(module) or _shares_state(module):
            return []
        named = [test for test in tests if _is_separable(module, source, test.split("::")[1:])]
        return [test for test in named if not certain or _is_certain(module, source, test.split("::")[1:])]
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):  # such as deeply nested decorators
        return []


def _makes_names(module: ast.Module) -> bool:
    """Return whether code outside of the tests may define tests under computed names."""
    import ast

    left: list[ast.AST] = [module]
    while left:
        node = left.pop()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _MAKES_NAMES:
            return True
        if isinstance(node, ast.ClassDef) and any(keyword.arg == "metaclass" for keyword in node.keywords):
            return True
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            left += node.decorator_list
        else:
            left += ast.iter_child_nodes(node)
    return False


def _shares_state(module: ast.Module) -> bool:
    """Return whether a test changes a variable of the module or of a class, or any function has a global variable."""
    import ast

    names: set[str] = set()
    for statement in module.body:
        if isinstance(statement, ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names.update(each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name))
    for node in ast.walk(module):
        if isinstance(node, ast.Global):
            return True
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            inside = [*ast.walk(node)]
            own = {each.id for each in inside if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
            own |= {each.arg for each in inside if isinstance(each, ast.arg)}
            if any(_changes_any(each, names - own) for each in inside):
                return True
    return False


def _changes_any(node: ast.AST, names: Collection[str]) -> bool:
    """Return whether a node changes an attribute, an element or the content of a named object or of a test's class."""
    import ast

    if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
        place = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES_CONTENT:
        place = node.func.value
    else:
        return False
    while isinstance(place, ast.Attribute | ast.Subscript):
        if isinstance(place, ast.Attribute) and place.attr == "__class__":
            return True
        place = place.value
    if isinstance(place, ast.Call):
        return isinstance(place.func, ast.Name) and place.func.id == "type"
    return isinstance(place, ast.Name) and place.id in names


def _find_scope(module: ast.Module, classes: Sequence[str]) -> ast.Module | ast.ClassDef | None:
    """Return the innermost of these nested classes, or None if they are not plain definitions."""
    import ast

    scope: ast.Module | ast.ClassDef = module
    for name in classes:
        found = [node for node in scope.body if isinstance(node, ast.ClassDef) and node.name == name]
        if len(found) != 1 or found[0].decorator_list or not all(map(_is_plain, found[0].bases)):
            return None
        scope = found[0]
    return scope


def _is_separable(module: ast.Module, source: str, names: Sequence[str]) -> bool:
    *classes, function = names
    scope = _find_scope(module, classes)
    return (
        scope is not None
        and bool(_find_functions(scope, function))
        and re.search(rf"\b{re.escape(function)}\w", source) is None
    )


def _is_certain(module: ast.Module, source: str, names: Sequence[str]) -> bool:
    """Return whether no other statement uses the name of a separable test, and whether its class can have tests."""
    import ast

    *classes, function = names
    uses, definitions = (len(re.findall(rf"{before}\b{re.escape(function)}\b", source)) for before in ("", r"\bdef\s+"))
    rebound = any(re.search(rf"\b{re.escape(name)}\s*=[^=]|\bdel\b.*\b{re.escape(name)}\b", source) for name in classes)
    if uses != definitions or rebound:
        return False
    for depth in range(len(classes) + 1):
        scope = _find_scope(module, classes[:depth])
        if scope is None or (depth and any(_find_functions(scope, name) for name in ("__init__", "__new__"))):
            return False
    return scope is not None and not any(
        "fixture" in ast.unparse(decorator)
        for found in _find_functions(scope, function)
        for decorator in found.decorator_list
    )


def _find_functions(scope: ast.Module | ast.ClassDef, name: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    import ast

    return [
        node for node in scope.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]


def _is_plain(base: ast.expr) -> bool:
    import ast

    return (isinstance(base, ast.Name) and base.id in _PLAIN_BASES) or (
        isinstance(base, ast.Attribute) and base.attr in _PLAIN_BASES
    )
