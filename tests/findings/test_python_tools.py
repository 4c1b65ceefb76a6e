"""What is found in the real output of the tools that this project's own venv has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paropt_exporter.findings import Finding, Level, choose_excerpt, find_findings

_TESTS = """
import pytest

def test_passes(): pass

def test_sum():
    assert 1 + 1 == 3

class TestParameters:
    @pytest.mark.parametrize("text", ["a b - c", "x::y"])
    def test_each(self, text):
        raise ValueError("a message that is longer than the eighty columns of a terminal and must not be cut: " + text)

@pytest.fixture
def broken(): raise RuntimeError("no database")

def test_with_broken_fixture(broken): pass
"""
_UNITTESTS = """
import unittest

class Sums(unittest.TestCase):
    def test_equal(self):
        self.assertEqual(1, 2)
    def test_raises(self):
        try:
            {}["x"]
        except KeyError as error:
            raise ValueError("no x") from error
    def test_parts(self):
        with self.subTest(part=1):
            self.assertEqual(1, 5)
"""
_FAULTY = """import os
import subprocess


def double(number: int) -> str:
    return number


subprocess.call("ls " + double(2), shell=True)
"""


def run(folder: Path, *command: str, code: int = 1) -> str:
    environment = {**os.environ, "PYTEST_ADDOPTS": "", "COLUMNS": "80", "CI": ""}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == code or (command[0] == "pytest" and done.returncode == 2)
    return done.stdout


def run_pytest(folder: Path, *flags: str, code: int = 1) -> str:
    return run(folder, "pytest", "-q", "-p", "no:cacheprovider", *flags, code=code)


@pytest.fixture
def tests_folder(tmp_path: Path) -> Path:
    (tmp_path / "test_a.py").write_text(_TESTS, encoding="utf-8")
    return tmp_path


def faulty(folder: Path) -> Path:
    (folder / "faulty.py").write_text(_FAULTY, encoding="utf-8")
    return folder


@pytest.mark.parametrize("style", ["long", "short"])
def test_pytest_names_each_test_with_its_whole_message_and_line(tests_folder: Path, style: str) -> None:
    message = "ValueError: a message that is longer than the eighty columns of a terminal and must not be cut: "
    assert find_findings(run_pytest(tests_folder, f"--tb={style}")) == (
        Finding(message="assert (1 + 1) == 3", path="test_a.py", line=7, test="test_a.py::test_sum"),
        Finding(
            message=message + "a b - c",
            path="test_a.py",
            line=12,
            test="test_a.py::TestParameters::test_each[a b - c]",
        ),
        Finding(message=message + "x::y", path="test_a.py", line=12, test="test_a.py::TestParameters::test_each[x::y]"),
        Finding(
            message="RuntimeError: no database", path="test_a.py", line=15, test="test_a.py::test_with_broken_fixture"
        ),
    )


def test_pytest_without_tracebacks_still_names_the_tests(tests_folder: Path) -> None:
    found = find_findings(run_pytest(tests_folder, "--tb=no"))
    assert [finding.test for finding in found][0::3] == ["test_a.py::test_sum", "test_a.py::test_with_broken_fixture"]
    assert found[0].message == "assert (1 + 1) == 3"


def test_failures_after_the_cut_beginning_of_an_output_keep_message_and_line(tmp_path: Path) -> None:
    """A suite writes 64 KiB of failures if many tests fail, and then no finding had a line or its whole message."""
    text = "a message that is longer than the eighty columns of a terminal and must not be cut"
    test = f"def test_sum():\n    raise ValueError({text!r})\n"
    for name in "abcde":
        (tmp_path / f"test_{name}.py").write_text(test)
    output = run_pytest(tmp_path)
    of_third = output.index("test_c.py:2: ValueError")
    cut = f"[about 1,000 bytes before this are left out]\n{output[of_third:]}"
    beginnings = [("test_a.py", None), ("test_b.py", None), ("test_c.py", None), ("test_d.py", 2), ("test_e.py", 2)]
    assert [((each.test or "").partition("::")[0], each.line) for each in find_findings(cut)] == beginnings
    shown = choose_excerpt(cut)
    assert shown[:2] == [f"test_{name}.py::test_sum: ValueError: {text}" for name in "de"]
    assert shown[2].startswith("test_a.py::test_sum: ValueError: a mess") and shown[3:] == ["… 2 more"]


def test_failure_of_a_test_whose_tear_down_fails_too_has_its_own_message(tmp_path: Path) -> None:
    broken = "import pytest\n@pytest.fixture\ndef broken():\n    yield\n    raise RuntimeError('locked')\n"
    (tmp_path / "test_a.py").write_text(f"{broken}def test_sum(broken):\n    assert 1 == 2\n")
    shown = choose_excerpt(run_pytest(tmp_path))
    assert shown == ["test_a.py::test_sum: assert 1 == 2", "test_a.py::test_sum: RuntimeError: locked"]


def test_pytest_without_a_summary_names_the_tests_by_their_sections(tests_folder: Path) -> None:
    found = find_findings(run_pytest(tests_folder, "-rN"))
    assert [finding.test for finding in found] == [
        "test_with_broken_fixture",
        "test_sum",
        "TestParameters.test_each[a b - c]",
        "TestParameters.test_each[x::y]",
    ]


@pytest.mark.parametrize(
    "summary",
    [
        "SUBFAILED[size] (n=0) test_a.py::test_sizes - assert 0 == 1\n"
        "SUBFAILED(text='a - b') test_a.py::test_sizes - assert 2 == 1\n"
        "FAILED test_a.py::test_sizes - contains 2 failed subtests\n"
        "SUBFAILED[in - T] test_a.py::T::test_of_unittest[x] - ValueError: no\n",
        "[size] (n=0) SUBFAIL test_a.py::test_sizes - assert 0 == 1\n"
        "(text='a - b') SUBFAIL test_a.py::test_sizes - assert 2 == 1\n"
        "[in - T] SUBFAIL test_a.py::T::test_of_unittest[x] - ValueError: no\n",
    ],
    ids=["pytest 9", "pytest-subtests"],
)
def test_each_failed_subtest_is_named_with_its_own_message_and_line(summary: str) -> None:
    """The summary named only the test, without a place, and left out subtests of unittest beside other failures."""
    output = f"""\
=================================== FAILURES ===================================
____________________________ test_sizes [size] (n=0) ___________________________
E       assert 0 == 1
test_a.py:5: AssertionError
___________________________ test_sizes (text='a - b') __________________________
E       assert 2 == 1
test_a.py:7: AssertionError
__________________________________ test_sizes __________________________________
contains 2 failed subtests
_______________________ T.test_of_unittest[x] [in - T] _________________________
E       ValueError: no
test_a.py:9: ValueError
=========================== short test summary info ============================
{summary}3 failed in 0.02s
"""
    assert [(found.text, found.line) for found in find_findings(output)] == [
        ("test_a.py::test_sizes [size] (n=0): assert 0 == 1", 5),
        ("test_a.py::test_sizes (text='a - b'): assert 2 == 1", 7),
        ("test_a.py::T::test_of_unittest[x] [in - T]: ValueError: no", 9),
    ]


@pytest.mark.parametrize("style", ["native", "line"])
def test_other_tracebacks_of_pytest_give_each_test_its_own_line(tmp_path: Path, style: str) -> None:
    """With `--tb=line` the last error had the place of a failure in another file."""
    body = "import pytest\n\n@pytest.fixture\ndef broken(): raise OSError('no file')\n\ndef test_a(broken): pass\n"
    (tmp_path / "test_a.py").write_text(body, encoding="utf-8")
    (tmp_path / "test_b.py").write_text("def test_b():\n    assert 1 == 2\n", encoding="utf-8")
    found = {each.test: (each.path, each.line) for each in find_findings(run_pytest(tmp_path, f"--tb={style}"))}
    assert found["test_b.py::test_b"] == (str(tmp_path / "test_b.py"), 2)
    expected = (str(tmp_path / "test_a.py"), 4) if style == "native" else (None, None)
    assert found["test_a.py::test_a"] == expected


def test_group_of_exceptions_is_named_with_its_first_one_and_its_line(tmp_path: Path) -> None:
    body = "def fail(): raise ValueError('inner')\n\ndef test_group():\n    try:\n        fail()\n"
    body += "    except ValueError as error:\n        raise ExceptionGroup('tasks', [error, KeyError('x')]) from None\n"
    (tmp_path / "test_g.py").write_text(body, encoding="utf-8")
    (found,) = find_findings(run_pytest(tmp_path))
    assert found.text == "test_g.py::test_group: ExceptionGroup: tasks (2 sub-exceptions): ValueError: inner"
    assert (found.path, found.line) == (str(tmp_path / "test_g.py"), 1)


@pytest.fixture
def doctests_folder(tmp_path: Path) -> Path:
    body = 'def double(n):\n    """\n    >>> double(1)\n    2\n    >>> double(2)\n    4\n    """\n    return 3\n'
    body += 'def halve(n):\n    """\n    >>> halve(1)\n    """\n    return n / 0\n'
    (tmp_path / "shop.py").write_text(body, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("flags", [(), ("--tb=short",), ("--doctest-continue-on-failure",)])
def test_doctests_of_pytest_are_named_with_example_and_line(doctests_folder: Path, flags: tuple[str, ...]) -> None:
    """They were "failed", without a place: the title of their section is not their id."""
    path = str(doctests_folder / "shop.py")
    assert find_findings(run_pytest(doctests_folder, "--doctest-modules", "shop.py", *flags)) == (
        Finding(message="double(1): expected 2, got 3", path=path, line=3, test="shop.py::shop.double"),
        Finding(
            message="halve(1): ZeroDivisionError('division by zero')",
            path=path,
            line=11,
            test="shop.py::shop.halve",
        ),
    )


def test_items_of_a_plugin_have_message_and_line_whatever_their_title_is(tmp_path: Path) -> None:
    body = "import pytest\n\nclass Item(pytest.Item):\n    def runtest(self):\n        assert 0, 'x' * 90\n"
    body += (
        "    def reportinfo(self): return self.path, 0, 'a case'\n\nclass File(pytest.File):\n    def collect(self):\n"
    )
    body += "        yield Item.from_parent(self, name='one')\n\ndef pytest_collect_file(file_path, parent):\n"
    body += "    return File.from_parent(parent, path=file_path) if file_path.name == 'conftest.py' else None\n"
    (tmp_path / "conftest.py").write_text(body, encoding="utf-8")
    (found,) = find_findings(run_pytest(tmp_path))
    assert found.text == "conftest.py::one: AssertionError: " + "x" * 90
    assert (found.path, found.line) == ("conftest.py", 5)


def test_doctests_of_python_are_named_with_example_and_line(doctests_folder: Path) -> None:
    path = str(doctests_folder / "shop.py")
    assert choose_excerpt(run(doctests_folder, "doctest", path)) == [
        f"{path}:3: double(1): expected 2, got 3",
        f"{path}:5: double(2): expected 4, got 3",
        f"{path}:11: halve(1): ZeroDivisionError: division by zero",
    ]


def test_output_of_a_failing_test_gives_no_place_and_hides_no_other_test(tmp_path: Path) -> None:
    body = "def test_d():\n    print('=== part ===')\n    print('test_d.py:99: UserWarning: old')\n    assert False\n"
    (tmp_path / "test_d.py").write_text(f"{body}\ndef test_e():\n    assert 0\n", encoding="utf-8")
    assert [found.line for found in find_findings(run_pytest(tmp_path))] == [4, 7]


def test_crash_of_the_interpreter_is_named_with_the_line_of_the_project(tmp_path: Path) -> None:
    """The excerpt showed the outermost frames, which are pytest's."""
    body = "import os, signal\n\ndef crash(): os.kill(os.getpid(), signal.SIGSEGV)\n\n"
    body += "def test_e(): pass\n\ndef test_f(): crash()\n"
    (tmp_path / "test_f.py").write_text(body, encoding="utf-8")
    output = run_pytest(tmp_path, code=-signal.SIGSEGV)
    assert choose_excerpt(output) == [f"{tmp_path / 'test_f.py'}:3: Segmentation fault"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            "FAIL Required test coverage of 100.0% not reached. Total coverage: 75.00%",
            "Required test coverage of 100.0% not reached. Total coverage: 75.00%",
        ),
        (
            "ERROR: Coverage failure: total of 75 is less than fail-under=100",
            "Coverage failure: total of 75 is less than fail-under=100",
        ),
        ("pytest: error: unrecognized arguments: --cov", "pytest: error: unrecognized arguments: --cov"),
    ],
)
def test_sentence_with_the_reason_is_shown_rather_than_the_ends_of_the_output(line: str, found: str) -> None:
    assert choose_excerpt(f"....  [100%]\n\nName  Cover\nshop.py  75%\n{line}\n150 passed in 2.62s\n") == [found]


def test_timeout_by_which_pytest_timeout_ends_the_process_is_named_with_the_line() -> None:
    output = """\
+++++++++++++++++++++++++++++++++++ Timeout ++++++++++++++++++++++++++++++++++++
~~~~~~~~~~~~~~~~~~~~~~~~ Stack of server (140419061905088) ~~~~~~~~~~~~~~~~~~~~~
  File "/work/server.py", line 9, in serve
    self.socket.accept()
~~~~~~~~~~~~~~~~~~~~~ Stack of MainThread (140419061905984) ~~~~~~~~~~~~~~~~~~~~
  File "/work/.venv/bin/pytest", line 8, in <module>
    sys.exit(console_main())
  File "/work/test_g.py", line 3, in test_slow
    event.wait()
  File "/usr/lib/python3.12/threading.py", line 629, in wait
    signaled = self._cond.wait(timeout)
+++++++++++++++++++++++++++++++++++ Timeout ++++++++++++++++++++++++++++++++++++
"""
    assert choose_excerpt(output) == ["/work/test_g.py:3: pytest-timeout ended the process"]


def test_pytest_that_cannot_import_a_module_names_the_missing_module(tmp_path: Path) -> None:
    (tmp_path / "test_b.py").write_text("import not_there\n", encoding="utf-8")
    (found,) = find_findings(run_pytest(tmp_path))
    assert found.text == "test_b.py: ModuleNotFoundError: No module named 'not_there'"
    assert (found.path, found.line) == ("test_b.py", 1)


@pytest.mark.parametrize("style", ["long", "short"])
def test_code_that_pytest_cannot_compile_is_named_with_its_place(tmp_path: Path, style: str) -> None:
    """The message was `File "shop.py", line 2`, and the place was the line of the import."""
    (tmp_path / "shop.py").write_text("x = 1\ny = (\n", encoding="utf-8")
    (tmp_path / "test_b.py").write_text("import os\n\nimport shop\n", encoding="utf-8")
    (tmp_path / "test_c.py").write_text("def test_c():\n  x = 1\n   y = 2\n", encoding="utf-8")
    imported, own = find_findings(run_pytest(tmp_path, f"--tb={style}"))
    assert imported.text == "test_b.py: SyntaxError: '(' was never closed (shop.py, line 2)"
    assert (imported.path, imported.line) == (str(tmp_path / "shop.py"), 2)
    assert own.text == "test_c.py: IndentationError: unexpected indent (test_c.py, line 3)"
    assert (own.path, own.line) == (str(tmp_path / "test_c.py"), 3)


def test_conftest_that_pytest_cannot_import_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import os\nimport shop\n", encoding="utf-8")
    assert choose_excerpt(run_pytest(tmp_path, code=4)) == [
        "conftest.py:2: ModuleNotFoundError: No module named 'shop'"
    ]


def test_lines_that_a_failing_test_printed_are_no_findings(tmp_path: Path) -> None:
    body = 'def test_print():\n    print("app.py:3: error: not real")\n    assert False\n'
    (tmp_path / "test_c.py").write_text(body, encoding="utf-8")
    assert choose_excerpt(run_pytest(tmp_path)) == ["test_c.py::test_print: assert False"]


def test_unittest_names_tests_with_docstrings_groups_and_unexpected_successes(tmp_path: Path) -> None:
    """With a docstring, or a group, a test was "failed", without a place."""
    body = "import unittest\n\nclass T(unittest.TestCase):\n    def test_doc(self):\n        'Adding works.'\n"
    body += "        self.assertEqual(1, 2)\n    def test_group(self):\n"
    body += "        raise ExceptionGroup('g', [ValueError('x'), KeyError('y')])\n"
    body += "    @unittest.expectedFailure\n    def test_passes(self): pass\n"
    (tmp_path / "sums.py").write_text(body, encoding="utf-8")
    assert {(found.test, found.message, found.line) for found in find_findings(run(tmp_path, "unittest", "sums"))} == {
        ("sums.T.test_doc", "AssertionError: 1 != 2", 6),
        ("sums.T.test_group", "ExceptionGroup: g (2 sub-exceptions): ValueError: x", 8),
        ("sums.T.test_passes", "unexpected success", None),
    }


def test_unittest_names_each_test_with_the_exception_that_ended_it(tmp_path: Path) -> None:
    (tmp_path / "sums.py").write_text(_UNITTESTS, encoding="utf-8")
    assert find_findings(run(tmp_path, "unittest", "sums")) == (
        Finding(message="ValueError: no x", path=str(tmp_path / "sums.py"), line=11, test="sums.Sums.test_raises"),
        Finding(message="AssertionError: 1 != 2", path=str(tmp_path / "sums.py"), line=6, test="sums.Sums.test_equal"),
        Finding(
            message="AssertionError: 1 != 5",
            path=str(tmp_path / "sums.py"),
            line=14,
            test="sums.Sums.test_parts (part=1)",
        ),
    )


@pytest.mark.parametrize("style", ["full", "concise", "grouped"])
def test_ruff_names_rule_and_place_in_each_of_its_formats(tmp_path: Path, style: str) -> None:
    output = run(faulty(tmp_path), "ruff", "check", "--isolated", "--no-cache", "--output-format", style, ".")
    assert find_findings(output) == (
        Finding(message="`os` imported but unused", path="faulty.py", line=1, column=8, rule="F401"),
    )


def test_ruff_findings_beyond_the_third_are_counted(tmp_path: Path) -> None:
    (tmp_path / "many.py").write_text("".join(f"import module_{n}\n" for n in range(55)), encoding="utf-8")
    shown = choose_excerpt(run(tmp_path, "ruff", "check", "--isolated", "--no-cache", "--select", "F", "."))
    assert shown == [
        "many.py:1:8: `module_0` imported but unused [F401]",
        "many.py:2:8: `module_1` imported but unused [F401]",
        "many.py:3:8: `module_2` imported but unused [F401]",
        "… 52 more",
    ]


def test_ruff_format_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x   =  1\n", encoding="utf-8")
    (found,) = find_findings(run(tmp_path, "ruff", "format", "--isolated", "--no-cache", "--check", "."))
    assert (found.path, found.line) == ("a.py", 1)
    assert "reformatted" in found.message


@pytest.fixture(scope="module")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all calls of mypy: without one, each checks the types of the standard library for two CPU seconds."""
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.parametrize("flags", [(), ("--show-column-numbers",)])
def test_mypy_names_message_and_rule(tmp_path: Path, mypy_cache: Path, flags: tuple[str, ...]) -> None:
    output = run(faulty(tmp_path), "mypy", f"--cache-dir={mypy_cache}", *flags, "faulty.py")
    (found,) = find_findings(output)
    assert found.message == 'Incompatible return value type (got "int", expected "str")'
    assert (found.path, found.line, found.rule) == ("faulty.py", 6, "return-value")


@pytest.mark.parametrize("form", ["txt", "custom"])  # `init` writes stages with the latter
def test_bandit_tells_severe_findings_from_warnings(tmp_path: Path, form: str) -> None:
    found = find_findings(run(faulty(tmp_path), "bandit", "-q", "-f", form, "-r", "."))
    path = "./faulty.py" if form == "txt" else str(tmp_path / "faulty.py")
    assert [(finding.rule, finding.path, finding.line, finding.level) for finding in found] == [
        ("B404", path, 2, Level.WARNING),
        ("B602", path, 9, Level.ERROR),
    ]
    assert all("LOW" not in finding.message and "HIGH" not in finding.message for finding in found)


def test_traceback_names_the_projects_own_frame(tmp_path: Path) -> None:
    """The innermost frame is one of importlib or of a package, in which the project has nothing to correct."""
    (tmp_path / "script.py").write_text("import importlib\nimportlib.import_module('no_such')\n", encoding="utf-8")
    output = run(tmp_path, "script")
    assert 'File "<frozen importlib' in output
    assert choose_excerpt(output) == [f"{tmp_path / 'script.py'}:2: ModuleNotFoundError: No module named 'no_such'"]


def test_crash_of_an_installed_command_is_in_its_package() -> None:
    """Its script in the environment's `bin` has nothing but the call, and a script of the project stays its own."""
    output = """Traceback (most recent call last):
  File "{}/bin/deptry", line 8, in <module>
    sys.exit(deptry())
  File "/work/.venv/lib/python3.11/site-packages/deptry/core.py", line 86, in build
    raise NoRequirements
deptry.exceptions.NoRequirements: No file called 'pyproject.toml' found.
"""
    message = "deptry.exceptions.NoRequirements: No file called 'pyproject.toml' found."
    assert choose_excerpt(output.format("/work/.venv")) == [
        f"/work/.venv/lib/python3.11/site-packages/deptry/core.py:86: {message}"
    ]
    assert choose_excerpt(output.format("/work")) == [f"/work/bin/deptry:8: {message}"]


def test_traceback_after_a_prompt_is_found(tmp_path: Path) -> None:
    """A stage's standard input is empty, and the summary named its prompt and the word Traceback as the reason."""
    (tmp_path / "script.py").write_text("input('name? ')\n", encoding="utf-8")
    output = run(tmp_path, "script")
    assert output.startswith("name? Traceback")
    assert choose_excerpt(output) == [f"{tmp_path / 'script.py'}:1: EOFError: EOF when reading a line"]


def test_a_traceback_of_no_known_tool_gives_its_last_exception(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("def work():\n    raise OSError('no room')\n\nwork()\n", encoding="utf-8")
    output = run(tmp_path, "script")
    assert choose_excerpt(output) == [f"{tmp_path / 'script.py'}:2: OSError: no room"]


def test_wrapped_messages_of_mypy_are_joined() -> None:
    output = """\
src/a.py:1: error: Returning Any from function declared to return
"CertParamType | None"  [no-any-return]
        return x
        ^~~~~~~~
src/a.py:2: error: Unused "type: ignore" comment\x20
[unused-ignore]
    x  # type: ignore
src/a.py:3: error: No rule
Found 3 errors in 1 file (checked 1 source file)
"""
    assert [found.text for found in find_findings(output)] == [
        'src/a.py:1: Returning Any from function declared to return "CertParamType | None" [no-any-return]',
        'src/a.py:2: Unused "type: ignore" comment [unused-ignore]',
        "src/a.py:3: No rule",
    ]


def test_each_failed_hook_of_pre_commit_is_named() -> None:
    """The excerpt had the first hook's dots and the last lines, or only the findings of a linter."""
    output = """\
trim trailing whitespace.................................................Failed
- hook id: trailing-whitespace
- exit code: 1
- files were modified by this hook

Fixing a.py

check yaml...........................................(no files to check)Skipped
mypy.....................................................................Failed
- hook id: mypy
- exit code: 1

a.py:1: error: Incompatible types in assignment  [assignment]
Found 1 error in 1 file (checked 1 source file)

end of files.............................................................Failed
- hook id: end-of-file-fixer
- files were modified by this hook
ruff.....................................................................Passed
"""
    assert choose_excerpt(output) == [
        "Fixing a.py [trailing-whitespace]",
        "a.py:1: Incompatible types in assignment [assignment]",
        "failed or changed files [end-of-file-fixer]",
    ]


def test_hooks_of_pre_commit_that_passed_are_no_findings() -> None:
    """With `verbose: true` their output and duration are shown, too."""
    output = """\
format...................................................................Passed
- hook id: format
- duration: 0.02s

2 files left unchanged

mypy.....................................................................Failed
- hook id: mypy
- duration: 0.5s
- exit code: 1

a.py:1: error: Incompatible types in assignment  [assignment]

yaml.................................................(no files to check)Skipped
- hook id: yaml
"""
    assert choose_excerpt(output) == ["a.py:1: Incompatible types in assignment [assignment]"]


def test_annotations_for_github_are_read() -> None:
    output = """\
::error title=ruff (F401),file=/work/a.py,line=1,col=8,endLine=1,endColumn=10::a.py:1:8: F401 `os` unused%0A  help: `os`
::warning file=b.js,line=3,col=2::Missing semicolon
::group::tests
"""
    first, second = find_findings(output)
    assert first == Finding(message="`os` unused", path="a.py", line=1, column=8, rule="F401")
    assert second == Finding(message="Missing semicolon", path="b.js", line=3, column=2, level=Level.WARNING)


def test_superscript_digit_is_no_line_number() -> None:
    (found,) = find_findings("::error file=a.py,line=\N{SUPERSCRIPT TWO},col=1::unused import\n")
    assert found == Finding(message="unused import", path="a.py", column=1)


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("would reformat /work/a.py\n\nOh no!\n1 file would be reformatted.\n", ["/work/a.py: would reformat"]),
        ("error: cannot format a.py: Cannot parse: 1:4: def\n", ["a.py: cannot format"]),
        ("ERROR: /work/a.py Imports are incorrectly sorted and/or formatted.\n",
         ["/work/a.py: Imports are incorrectly sorted and/or formatted"]),
        ("--- a.py\n+++ a.py\n@@ -1 +1 @@\n-x=1\n+x = 1\n\n1 file would be reformatted\n", ["a.py: would reformat"]),
        ("--- a.py\n+++ a.py\n@@ -1 +1 @@\n-x=1\n+x = 1\n", []),
    ],
)  # fmt: skip
def test_files_that_a_formatter_would_change_are_found(output: str, found: list[str]) -> None:
    assert [each.text for each in find_findings(output)] == found


def test_errors_of_pyrefly_are_found() -> None:
    output = """\
 INFO Checking project configured at `/work/pyrefly.toml`
ERROR Returned type `Literal['a']` is not assignable to declared return type `int` [bad-return]
 --> c.py:3:12
  |
3 |     return "a"
  |            ^^^
 INFO 1 error
"""
    (found,) = find_findings(output)
    assert found.text == (
        "c.py:3:12: Returned type `Literal['a']` is not assignable to declared return type `int` [bad-return]"
    )


def test_internal_error_of_pytest_is_named_with_its_place(tmp_path: Path) -> None:
    """A plug-in that fails: the summary showed the dots of the tests before, and the number of those that passed."""
    (tmp_path / "conftest.py").write_text("def pytest_runtest_logreport(report):\n    raise KeyError('x')\n")
    (tmp_path / "test_a.py").write_text("def test_a(): pass\n")
    output = run(tmp_path, "pytest", "-q", code=3)
    assert [found.text for found in find_findings(output)] == [
        f"{tmp_path}/conftest.py:2: INTERNALERROR: KeyError: 'x'"
    ]


@pytest.mark.parametrize(
    "between",
    [
        "The above exception was the direct cause of the following exception:",
        "During handling of the above exception, another exception occurred:",
    ],
)
def test_last_exception_of_a_chain_is_the_message(between: str) -> None:
    """The first one was shown, at the place of the last one."""
    output = f"""=================================== FAILURES ===================================
__________________________________ test_chain __________________________________
tests/test_a.py:5: in load
    inner()
tests/test_a.py:2: in inner
    return {{}}["x"]
E   KeyError: 'x'

{between}
tests/test_a.py:9: in test_chain
    load()
src/load.py:7: in load
    raise ValueError("config has no x") from e
E   ValueError: config has no x
E   in app.ini
=========================== short test summary info ============================
FAILED tests/test_a.py::test_chain - ValueError: con...
"""
    message = "ValueError: config has no x"
    assert find_findings(output) == (
        Finding(message=message, path="tests/test_a.py", line=9, test="tests/test_a.py::test_chain"),
    )


def test_long_name_of_a_test_has_its_message_and_place() -> None:
    """pytest writes only one or two underscores beside it, and no message in its last lines."""
    name = "TestExportOfOrders::test_an_order_without_any_items_is_left_out_of_the_export"
    longer = f"{name}_each_night"
    sections = "".join(
        f"""{sides} {each.replace("::", ".")} {sides}

self = <tests.test_export.{each}>

tests/test_export.py:{line}: in test
    check()
_ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _
>       assert {line} == 2
E       assert {line} == 2

tests/test_export.py:{line}: AssertionError
"""
        for sides, each, line in (("__", name, 7), ("_", longer, 9))
    )
    output = f"""=================================== FAILURES ===================================
{sections}=========================== short test summary info ============================
FAILED tests/test_export.py::{name}
FAILED tests/test_export.py::{longer}
"""
    assert find_findings(output) == (
        Finding(message="assert 7 == 2", path="tests/test_export.py", line=7, test=f"tests/test_export.py::{name}"),
        Finding(message="assert 9 == 2", path="tests/test_export.py", line=9, test=f"tests/test_export.py::{longer}"),
    )


def test_failures_without_a_message_come_last() -> None:
    output = """[about 57,000 characters before]
tests/test_b.py:169: in test_b
>       assert 1 == 2
E       assert 1 == 2

tests/test_b.py:170: AssertionError
=========================== short test summary info ============================
FAILED tests/test_a.py::test_a_whose_part_of_the_output_is_missing
FAILED tests/test_b.py::test_b - assert 1 == 2
"""
    assert choose_excerpt(output) == [
        "tests/test_b.py::test_b: assert 1 == 2",
        "tests/test_a.py::test_a_whose_part_of_the_output_is_missing: failed",
    ]


def test_pytest_instafail_has_whole_messages_and_places() -> None:
    """It shows each failure where it happens, without a heading of all of them."""
    output = f"""\
{" test session starts ":=^80}
collected 2 items

test_b.py F

{" test_plain ":_^80}

    def test_plain():
>       assert {{"a": 1, "b": [1, 2]}} == {{"a": 1, "b": [1, 3]}}
E       AssertionError: assert {{'a': 1, 'b': [1, 2]}} == {{'a': 1, 'b': [1, 3]}}

test_b.py:4: AssertionError

test_b.py .

{" short test summary info ":=^80}
FAILED test_b.py::test_plain - AssertionError: assert {{'a': 1, 'b': [1, 2]}} =...
{" 1 failed, 1 passed in 0.05s ":=^80}
"""
    message = "AssertionError: assert {'a': 1, 'b': [1, 2]} == {'a': 1, 'b': [1, 3]}"
    assert find_findings(output) == (Finding(message=message, path="test_b.py", line=4, test="test_b.py::test_plain"),)


def test_trial_names_the_failure_of_a_deferred() -> None:
    ruler = "=" * 79
    output = f"""\
{ruler}
[ERROR]
Traceback (most recent call last):
Failure: twisted.internet.defer.TimeoutError: <T testMethod=test_d> (test_d) still running at 2.0 secs

tt.T.test_d
{ruler}
[ERROR]
Traceback (most recent call last):
Failure: builtins.RuntimeError: async

tt.T.test_e
{"-" * 79}
Ran 2 tests in 2.003s
"""
    assert choose_excerpt(output) == [
        "tt.T.test_d: twisted.internet.defer.TimeoutError: <T testMethod=test_d> (test_d) still running at 2.0 secs",
        "tt.T.test_e: RuntimeError: async",
    ]


def test_trial_names_failed_tests() -> None:
    """Only the last traceback was found, without the name of its test."""
    output = f"""test_tw
  T
    test_eq ...                                                          [FAIL]

{"=" * 79}
[FAIL]
Traceback (most recent call last):
  File "/app/test_tw.py", line 5, in test_eq
    self.assertEqual(1, 2)
  File "/v/lib/python3.11/site-packages/twisted/trial/_synctest.py", line 433, in assertEqual
    super().assertEqual(first, second, msg)
twisted.trial.unittest.FailTest: not equal:
a = 1
b = 2

test_tw.T.test_eq
{"=" * 79}
[ERROR]
Traceback (most recent call last):
  File "/app/test_tw.py", line 9, in helper
    return d["k"]
builtins.KeyError: 'k'

test_tw.T.test_def
test_tw.T.test_def2
{"-" * 79}
Ran 3 tests in 0.008s

FAILED (failures=1, errors=2)
"""
    assert [(finding.text, finding.line) for finding in find_findings(output)] == [
        ("test_tw.T.test_eq: twisted.trial.unittest.FailTest: not equal:", 5),
        ("test_tw.T.test_def: KeyError: 'k'", 9),
        ("test_tw.T.test_def2: KeyError: 'k'", 9),
    ]


def test_behave_names_failed_scenarios_with_their_messages() -> None:
    """The summary showed the numbers of steps and the duration."""
    output = """Feature: Cart # features/cart.feature:1

  Scenario: Add tea     # features/cart.feature:2
    Given an empty cart # features/steps/s.py:3
    Then the total is 3 # features/steps/s.py:7
      ASSERT FAILED: total is 2

  Scenario: Add nothing # features/cart.feature:7
    Given an empty cart # features/steps/s.py:3

  Scenario Outline: many -- @1.1 kinds  # features/cart.feature:18
    When I add milk                     # features/steps/s.py:5
      Traceback (most recent call last):
        File "/v/lib/python3.11/site-packages/behave/model.py", line 1991, in run
          match.run(runner.context)
        File "features/steps/s.py", line 6, in b
          def b(c, what): c.t += P[what]
                                 ~^^^^^^
      KeyError: 'milk'

    Then the total is 1                 # None


Failing scenarios:
  features/cart.feature:2  Add tea
  features/other.feature:3  not in the output above

Errored scenarios:
  features/cart.feature:18  many -- @1.1 kinds\x20

0 features passed, 1 failed, 0 skipped
Took 0min 0.082s
"""
    assert [finding.text for finding in find_findings(output)] == [
        "features/cart.feature:2 Add tea: total is 2",
        "features/other.feature:3 not in the output above: failed",
        "features/cart.feature:18 many -- @1.1 kinds: KeyError: 'milk'",
    ]


def test_behave_names_failed_steps_if_its_formatter_does_not_name_scenarios_above() -> None:
    output = """--------------------------------------------------------------------------------
FAILURE in step 'the total is 3' (features/cart.feature:5):
ASSERT FAILED: total is 2
--------------------------------------------------------------------------------

Failing scenarios:
  features/cart.feature:2  Add tea
"""
    (finding,) = find_findings(output)
    assert finding.text == "features/cart.feature:5 the total is 3: total is 2"


def test_robot_framework_names_failed_tests_with_their_suites() -> None:
    """The summary showed the paths of the reports."""
    output = """==============================================================================
Robot                                                                         \x20
==============================================================================
Robot.Cart :: Carts                                                           \x20
==============================================================================
Add Tea                                                               | FAIL |
2 != 3
------------------------------------------------------------------------------
Works                                                                 | PASS |
------------------------------------------------------------------------------
Multi                                                                 | FAIL |
first line
second line
------------------------------------------------------------------------------
Robot.Cart :: Carts                                                   | FAIL |
3 tests, 1 passed, 2 failed
==============================================================================
Robot                                                                 | FAIL |
3 tests, 1 passed, 2 failed
==============================================================================
Report:  /app/report.html
"""
    assert [finding.text for finding in find_findings(output)] == [
        "Robot.Cart > Add Tea: 2 != 3",
        "Robot.Cart > Multi: first line",
    ]
