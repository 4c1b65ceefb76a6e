"""Texts of other programs that `fuzz` changes: output and reports of tools, answers of servers, files of projects."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from paropt_exporter import config as configs
from paropt_exporter.autoscaling.signals import client
from paropt_exporter.cache.digests import hash_bytes
from paropt_exporter.cache.entry import BadEntry, Entry, OutputFile, format_entry, parse_entry
from paropt_exporter.cache.remote import BadMessage, Digest, format_action_result, parse_action_result
from paropt_exporter.cli import init
from paropt_exporter.config import detect
from paropt_exporter.engine.item_results import read_report
from paropt_exporter.findings import choose_excerpt, find_findings
from paropt_exporter.task_logs.log_reader import DAMAGE_ERRORS, LogReader

# A name, a function that makes a text, and one that tries the file with it.
Kind = tuple[str, Callable[[random.Random], bytes], Callable[[Path], str]]
ITEMS = ("tests/test_a.py", "tests/test_b.py", "tests/test_c.py::test_z")
OUTPUTS = (
    "=========== FAILURES ===========\n____ test_a[x::y] ____\na.py:3: in x\nE   AssertionError: x\n"
    "===== short test summary info =====\nFAILED tests/a.py::T::test_a[x - y] - AssertionError: z\n"
    "ERROR tests/b.py - boom\n",
    f"{'=' * 70}\nFAIL: test_x (a.b.C.test_x) (i=1)\n{'-' * 70}\nTraceback (most recent call last):\n"
    '  File "/a/b.py", line 3, in x\n    foo\nValueError: x\n',
    "=== RUN   TestA\n    a_test.go:12: message\n--- FAIL: TestA (0.00s)\n    --- FAIL: TestA/b (0.00s)\n"
    "a.go:1:2: undefined: x\n",
    "test a::b ... FAILED\n---- a::b stdout ----\nthread 'a' (12) panicked at src/a.rs:1:2:\nfailed\n  left: 1\n"
    "failures:\n",
    " FAIL  a.test.ts > x\nAssertionError: x\n \u276f fn a.test.ts:1:2\n\u23af\u23af[1/2]\u23af\n",
    "FAIL src/a.js (5.2 s)\n  \u25cf a \u203a b\n\n    Expected: 1\n      at Object.<anonymous> (a.js:1:2)\n",
    "  2 failing\n\n  1) a\n       b:\n     Error: x\n      at Context.<anonymous> (a.js:1:2)\n",
    "\u2716 failing tests:\n\ntest at a.js:1:2\n\u2716 x (1.2ms)\n  Error: x\n",
    "TAP version 13\n1..1\nnot ok 1 - x\n  ---\n  error: |-\n    boom:\n    x\n  location: 'a.js:1:2'\n  ...\n",
    "a.py:1:2: error: x  [rule]\na.py:1:2: F401 [*] x\na.ts:3:5 - error TS2322: x (reportX)\na.ts(3,5): error TS1: x\n"
    "Would reformat: a.py\n--- a.py\n+++ a.py\n1 file would be reformatted\n"
    "::error title=r,file=/a.py,line=1,col=8::a.py:1:8: F401 x%0Ahelp\n --> a.py:1:2\na.js\n  1:2  error  msg  rule/x\n"
    ">> Issue: [B101:x] m\n   Severity: Low\n   Location: ./a.py:1:0\n",
)
REPORT = """\
<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" time="0.5" timestamp="2026-01-01T00:00:00">
<testcase classname="tests.test_a.T" name="test_x[1.2]" time="0.1"><failure message="m">text</failure></testcase>
<testcase classname="tests.test_b" name="test_y" time="nan"/>
<testcase classname="" name="tests.test_a" time="1e309"><error/></testcase>
</testsuite></testsuites>
"""
ANSWERS = (
    '{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1.5,"3"]}]},'
    '"warnings":["x"],"isPartial":true}',
    '{"status":"success","data":{"resultType":"scalar","result":[1.5,"NaN"]}}',
    '{"status":"error","errorType":"bad_data","error":"x"}',
)
LOG = """\
{"run": "20261128T", "lane": "standard"}
{"begin": 1, "stage": "unit", "task": 3, "label": "unit[3]", "item": "test_a.py", "attempt": 1}
{"of": 1, "bytes": 6}
hello

{"of": 1, "missing": 90000}
{"end": 1, "result": "failure", "message": "exit 1", "seconds": 1.25}
{"over": "failure"}
"""
# Each begins with its file's name: the rest goes into that file.
PROJECTS = (
    "tox.ini\n[testenv]\ncommands_pre = pip install x\nset_env = A=b\n  C={toxinidir}/x\nchange_dir = src\n"
    "commands =\n    pytest {posargs:-n auto tests} \\\n      -q\n    lint: ruff check .\n[pytest]\naddopts = -q\n",
    "noxfile.py\nARGS = ['-q']\n@nox.session\ndef tests(session):\n    args = session.posargs or ['tests']\n"
    "    session.run('pytest', *args, env={'A': 'b'})\n    session.run('mypy', f'--x={1}', 'src')\n",
    "Makefile\nA = $(B) x\nB := y\nlint: build\n\truff check $(A)\ntest: lint\n\tif true; then pytest -q; fi\n"
    "\t$(PYTHON) -m mypy src\nbuild:\n\techo x\n",
    "justfile\nx := 'a'\ntest *args='-q':\n    pytest {{args}}\nlint:\n    ruff check .\n",
    "Taskfile.yml\nversion: 3\ntasks:\n  test:\n    cmds: [pytest -q, {cmd: ruff check .}]\n  lint: ruff check .\n",
    "pyproject.toml\n[tool.pytest.ini_options]\naddopts='-q'\n[tool.tox.env.lint]\n"
    "commands=[['ruff','check',{replace='posargs',default=['.']}]]\n[tool.pdm.scripts]\n"
    "test={cmd=['pytest','-q'],env={A='b'}}\n[tool.poe.tasks]\nlint={sequence=['ruff check .',{cmd='mypy .'}]}\n",
    'package.json\n{"scripts":{"test":"vitest run","lint":"eslint ."},"packageManager":"npm@9"}\n',
    ".pre-commit-config.yaml\nrepos:\n- repo: x\n  hooks:\n  - {id: ruff, args: [--fix], files: '^(src|tests)/'}\n"
    "  - {id: mypy, entry: mypy --strict, pass_filenames: false}\n  - {id: other}\n",
    ".gitlab-ci.yml\ntest:\n  script: [pytest -q tests, mypy src]\n",
    "setup.cfg\n[tool:pytest]\naddopts = -q\n[mypy]\nfiles = src\n[flake8]\nmax-line-length=1\n",
)


MESSAGE = format_action_result(Digest("e" * 64, 9), [("dist/a", Digest("c" * 64, 3), True)])
ENTRY = Entry(
    key="a" * 64,
    stage="one",
    item=None,
    seconds=1.5,
    created_timestamp_seconds=1.0,
    output="b" * 64,
    files=(OutputFile("dist/a", "f", "c" * 64, 3), OutputFile("dist/l", "l", "a")),
    components=(("command", "x"),),
    listings=("d" * 64,),
)


def try_output(path: Path) -> str:
    text = path.read_bytes().decode("utf-8", "replace")
    choose_excerpt(text)
    found = find_findings(text)
    for finding in found:
        assert "\n" not in finding.text, finding
    return "accepted" if found else "refused"


def try_report(path: Path) -> str:
    report = read_report(path, ITEMS)
    if report is None:
        return "refused"
    for item in ITEMS:
        took = (report.items[item].seconds, *report.long_tests(item).values())
        assert all(-1e-6 <= seconds <= 1e7 for seconds in took), took
    return "accepted"


def try_answer(path: Path) -> str:
    try:
        client._parse_result(path.read_bytes(), "http://a")
    except client.QueryFailed as failed:
        assert "\n" not in str(failed), failed
        return "refused"
    return "accepted"


def try_log(path: Path) -> str:
    with path.open("rb") as file:
        reader = LogReader(file)
        try:
            attempts = reader.read_all()
            for attempt in attempts:
                reader.read_output(attempt)
        except DAMAGE_ERRORS:
            return "refused"
    return "accepted" if attempts else "refused"


def try_message(path: Path) -> str:
    try:
        parse_action_result(path.read_bytes())
    except BadMessage:
        return "refused"
    return "accepted"


def try_entry(path: Path) -> str:
    """Parse the content as an entry with the right digest, as a hostile server would send it."""
    content = path.read_bytes()
    try:
        parse_entry(hash_bytes(content).encode() + b"\n" + content)
    except BadEntry:
        return "refused"
    return "accepted"


def try_project(path: Path) -> str:
    """Let `init` propose stages for a project with this file; the paropt.yml must be valid."""
    name, _, content = path.read_bytes().partition(b"\n")
    names = {text.partition("\n")[0] for text in PROJECTS}
    root = path.parent / "project"
    (root / "tests").mkdir(parents=True, exist_ok=True)
    (root / "tests/test_a.py").touch()
    file = root / name.decode("ascii", "replace") if name.decode("ascii", "replace") in names else root / "tox.ini"
    file.write_bytes(content)
    try:
        detected = detect.detect_stages(root)
        init.write_file(root / "paropt.yml", init.render_config(detected, root))
        configs.read_config(root / "paropt.yml", root=root)
    finally:
        file.unlink()
    return "refused" if any("can't be parsed" in note for note in detected.notes) else "accepted"


def list_texts(mutate: Callable[[bytes, random.Random], bytes]) -> list[Kind]:
    """Return the kinds of texts of other programs."""

    def choose(bases: tuple[bytes, ...], rng: random.Random) -> bytes:
        return mutate(rng.choice(bases), rng)

    kinds: tuple[tuple[str, tuple[bytes, ...], Callable[[Path], str]], ...] = (
        ("outputs of tools", tuple(text.encode() for text in OUTPUTS), try_output),
        ("JUnit reports", (REPORT.encode(), REPORT.replace("utf-8", "utf-16").encode("utf-16")), try_report),
        ("answers of Prometheus", tuple(text.encode() for text in ANSWERS), try_answer),
        ("logs of runs", (LOG.encode(),), try_log),
        ("answers of a remote cache", (MESSAGE,), try_message),
        ("results of a remote cache", (format_entry(ENTRY).partition(b"\n")[2],), try_entry),
        ("projects", tuple(text.encode() for text in PROJECTS), try_project),
    )
    return [(kind, partial(choose, bases), try_one) for kind, bases, try_one in kinds]
