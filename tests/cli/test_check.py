"""`check` finds the faults that would prevent a lane from running."""

from __future__ import annotations

import io
import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from paropt_exporter import files
from paropt_exporter.cache import traced_results
from paropt_exporter.cache.misses import Notes
from paropt_exporter.cache.result_store import open_store
from paropt_exporter.cli import check
from paropt_exporter.errors import UsageError
from paropt_exporter.input_files import InputPatterns
from support import configs
from support.processes import run_python


def _check(folder: Path, content: str, lane: str | None = None) -> tuple[int, str, str]:
    path = folder / "paropt.yml"
    path.write_text(content)
    out, err = io.StringIO(), io.StringIO()
    code = check.run(path, folder, lane=lane, stdout=out, stderr=err)
    return code, out.getvalue().replace(f"{folder}/", ""), err.getvalue().replace(f"{folder}/", "")


def test_sound_config_gets_one_line(tmp_path: Path) -> None:
    assert _check(tmp_path, configs.stage(run="sh -c true")) == (0, "paropt.yml: 3 lanes, 1 stage: no faults\n", "")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_are_wrapped_between_words_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns broke them within words, unlike the same faults of a run."""
    monkeypatch.setenv("COLUMNS", "60")
    (tmp_path / "test_a.py").touch()
    path, err = tmp_path / "paropt.yml", _Terminal()
    path.write_text(
        "stages: [{name: unit, run: 'pytest -q {item}', items: [test_a.py, test_a.py]}, {name: b, run: 'a; b'}]"
    )
    assert check.run(path, tmp_path, lane=None, stdout=io.StringIO(), stderr=err) == 2
    whole = err.getvalue().replace("\n  ", " ")
    assert "only a shell understands ';': add `shell: true`, or use `steps`" in whole
    assert all(len(line) <= 60 for line in err.getvalue().splitlines() if str(tmp_path) not in line)


def test_all_faults_of_the_config_are_reported(tmp_path: Path) -> None:
    code, out, err = _check(tmp_path, configs.stage(timeout="x", slots="y"))
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "2 faults"


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("folder", "history folder: folder is not a regular file: move it away; "),
        ("text/history.db", "history: text is a file: name a path in a folder"),
        ("text", "history text: not a database; choose another file, or move it away"),
        ("newer.db", "history newer.db: written by a newer paropt-exporter (schema 99, "),
    ],
)
def test_path_that_can_hold_no_history_is_a_fault(tmp_path: Path, path: str, fault: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("a text, no database\n")
    with closing(sqlite3.connect(tmp_path / "newer.db")) as newer:
        newer.executescript("CREATE TABLE runs (run_id TEXT); PRAGMA user_version = 99;")
    content = f"history: {{path: {path}}}\n{configs.stage(run='sh -c true')}"
    code, out, err = _check(tmp_path, content)
    assert (code, out, err.splitlines()[-1]) == (2, "", "1 fault")
    assert err.startswith(f"paropt.yml: {fault}")


def test_folder_of_the_history_that_denies_access_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".paropt").mkdir()
    monkeypatch.setattr(files, "find_denied_listing", lambda folder: "denied" * (folder.name == ".paropt"))
    code, _, err = _check(tmp_path, configs.stage(run="sh -c true"))
    assert (code, err.splitlines()) == (
        2,
        [
            "paropt.yml: history .paropt/history.db: cannot read .paropt (denied); fix its permissions or choose "
            "another file",
            "1 fault",
        ],
    )


@pytest.mark.parametrize("content", [None, b"SQLite format 3\0 and then nothing that makes sense"])
def test_history_that_a_run_creates_or_repairs_is_no_fault(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.db").write_bytes(content)
    assert _check(tmp_path, f"history: {{path: a.db}}\n{configs.stage(run='sh -c true')}")[0] == 0
    assert [path.name for path in tmp_path.glob("a.db*")] == ["a.db"] * (content is not None)


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"run": "no-such-program"}, "'no-such-program' is not on PATH: install it, or correct the command"),
        ({"run": "A=1 true"}, "'A=1' is not on PATH: set variables under `env`, or add `shell: true`"),
        (
            {"run": "source x", "env": "{PATH: /nowhere}"},
            "'source' is not on PATH: only bash knows it: write `.` instead, and add `shell: true`",
        ),
        (
            {"run": "[echo a, echo b]"},
            "'echo a' is not on PATH: a list has the words of one command; several commands are `steps`",
        ),
        ({"run": "./missing"}, "there is no program './missing': install it, or correct the path"),
        ({"run": "./folder"}, "'./folder' is a directory: name a program"),
        ({"run": "./plain"}, "'./plain' is not executable: chmod +x it"),
        ({"run": "'true'", "file": "."}, "file: . is a folder: name a file in it"),
        ({"run": "'true'", "cwd": "gone"}, "cwd: there is no folder gone: create it, or correct the path"),
        ({"run": "sh", "env": "{PATH: /nowhere}"}, "'sh' is not on PATH: install it, or correct the command"),
        (
            {"run": "", "steps": "['true', no-such-program]"},
            "'no-such-program' is not on PATH: install it, or correct the command",
        ),
        (
            {"run": "'sh {item}'", "items": "{command: no-lister}"},
            "'no-lister' is not on PATH: install it, or correct the command",
        ),
        (
            {"run": "", "call": "no_such_module:f"},
            "there is no module 'no_such_module' for no_such_module:f: correct the name, or install it",
        ),
        (
            {"run": "", "call": "no_such.module:f"},
            "there is no module 'no_such' for no_such.module:f: correct the name, or install it",
        ),
        (
            {"run": "", "call": "check_broken.inner:f"},
            "there is no module 'check_broken.inner' for check_broken.inner:f: correct the name, or install it",
        ),
    ],
)
def test_missing_program_is_reported_at_its_stage(tmp_path: Path, keys: dict[str, str], fault: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").touch()
    (tmp_path / "check_broken").mkdir()
    (tmp_path / "check_broken/__init__.py").write_text("raise ValueError('at import')\n")
    code, out, err = _check(tmp_path, configs.stage(**keys))
    assert (code, out) == (2, "")
    assert err == f"paropt.yml:2:3: stages[0]: {fault}\n1 fault\n"


def test_program_is_looked_up_from_the_stages_folder_and_path(tmp_path: Path) -> None:
    (tmp_path / "sub/bin").mkdir(parents=True)
    (tmp_path / "sub/bin/tool").write_text("#!/bin/sh\n")
    (tmp_path / "sub/bin/tool").chmod(0o755)
    assert _check(tmp_path, configs.stage(run="bin/tool", cwd="sub"))[0] == 0
    assert _check(tmp_path, configs.stage(run="tool", cwd="sub", env="{PATH: bin}"))[0] == 0
    assert _check(tmp_path, configs.stage(run="tool", env="{PATH: bin}"))[0] == 2


def test_programs_of_the_projects_virtual_environment_are_found(tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/tool").write_text("#!/bin/sh\n")
    (tmp_path / ".venv/bin/tool").chmod(0o755)
    assert _check(tmp_path, configs.stage(run="tool"))[0] == 0


def test_module_of_the_configs_folder_is_found_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "check_unrun.py").write_text("raise SystemExit('was run')\n")
    before = [*sys.path]
    assert _check(tmp_path, configs.stage(run="", call="check_unrun:f"))[0] == 0
    assert "check_unrun" not in sys.modules
    assert sys.path == before


def test_line_for_a_shell_is_left_to_the_shell(tmp_path: Path) -> None:
    assert _check(tmp_path, configs.stage(run="'no-such-program | x'", shell="true"))[0] == 0


def test_more_slots_than_workers_get_a_warning(tmp_path: Path) -> None:
    code, _, err = _check(tmp_path, configs.stage(run="sh -c true", slots="4"))
    assert code == 0
    assert err == ("warning: stage 'one' needs 4 slots, and fails in lane docs (2 workers): raise workers there\n")
    assert _check(tmp_path, configs.stage(run="sh -c true", slots="2"))[2] == ""


@pytest.mark.parametrize(
    ("run", "warned"),
    [
        ("'pytest -q {item}'", "pytest"), ("'python3 -m pytest {item}'", "pytest"), ("[ruff, check, '{item}']", "ruff"),
        ("'pytest -q {items}'", ""), ("'sh {item}'", ""), ("'sh -c true {item} pytest'", ""),
        ("'pytest -q --browser={item}'", ""),
    ],
)  # fmt: skip
def test_multi_file_program_started_for_each_item_gets_a_warning(tmp_path: Path, run: str, warned: str) -> None:
    _, _, err = _check(tmp_path, configs.stage(run=run, items="{list: [a, b]}"))
    told = f"warning: stage 'one' starts {warned} for each item: with {{items}} it takes several, and starts once"
    assert (told in err) if warned else ("warning" not in err)


@pytest.mark.parametrize(
    ("keys", "warned"),
    [
        ({"run": "'true'"}, True), ({"run": "", "steps": "['true', [sh, '-c', x]]"}, True),
        ({"run": "'true {item}'"}, False), ({"run": "", "steps": "['true', [sh, a, '{items}']]"}, False),
        ({"run": "", "call": "os:getpid"}, False),
    ],
    ids=str,
)  # fmt: skip
def test_items_that_no_command_names_get_a_warning(tmp_path: Path, keys: dict[str, str], warned: bool) -> None:
    _, _, err = _check(tmp_path, configs.stage(**keys, items="{list: [a, b]}"))
    told = "warning: stage 'one' runs the same for each item: put {item} or {items} into its command\n"
    assert err == (told if warned else "")


@pytest.mark.parametrize(
    ("keys", "written", "likely"),
    [
        ({"run": "'true {posargs:tests}'"}, "{posargs:tests}", "{args}"),
        ({"run": "'true {{.CLI_ARGS}}'"}, "{{.CLI_ARGS}}", "{args}"),
        ({"run": "['true', '{arg}']"}, "{arg}", "{args}"),
        ({"run": "'true {itmes}'", "items": "{list: [a]}"}, "{itmes}", "{items}"),
        ({"run": "'true {args} {} {time} {print}'"}, "", ""),
        ({"run": "'true ${args} {item}'", "items": "{list: [a]}", "shell": "true"}, "", ""),
        ({"run": "'true {args:tests}'"}, "{args:tests}", "{args}"),
        ({"run": "'true {{ args }}'"}, "{{ args }}", "{args}"),
        ({"run": "'true {posargs:-x tests} | wc'", "shell": "true"}, "{posargs:-x tests}", "{args}"),
    ],
)
def test_placeholder_that_is_none_of_ours_gets_a_warning(
    tmp_path: Path, keys: dict[str, str], written: str, likely: str
) -> None:
    """tox's {posargs} went to pytest as it is, and `check` found no fault."""
    code, _, err = _check(tmp_path, configs.stage(**keys))
    told = f"warning: stage 'one': {written} is passed as written: did you mean {likely}?\n"
    assert (code, err) == (0, told if written else "")


@pytest.mark.parametrize("shell", ["true", "false"])
@pytest.mark.parametrize(
    "line",
    [
        """true --format '{{.Args}}'""",
        """true -o go-template='{{.items}}'""",
        """true '{items:.list}'""",
        """true '{{ args }}' {{ packages }}""",
        """true '{items: .list, args: .words}'""",
        """true -c 'for arg in "ab": print(f"{arg}")'""",
        """true -c "for item in 'ab': print(f'{item:>10}')" """,
        """true --set-json 'job={args: [a]}'""",
        """true -c 'echo ${args:-tests} ${arg}'""",
    ],
)
def test_braces_of_other_programs_get_no_warning(tmp_path: Path, line: str, shell: str) -> None:
    """As of docker, kubectl, jq, Python, helm and sh: fields of them were "did you mean {args}?"."""
    assert _check(tmp_path, configs.stage(run=json.dumps(line), shell=shell))[::2] == (0, "")


def test_braces_of_a_here_document_get_no_warning(tmp_path: Path) -> None:
    code, _, err = _check(tmp_path, configs.stage(run=json.dumps("true <<E\nprint(f'{arg}')\nE\n"), shell="true"))
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("theirs", "needs", "warned"),
    [
        ("dist", "[]", True), ("dist/js/**", "[]", True), ("'d*'", "[]", True), ("dist", "[one]", False),
        ("dist2", "[]", False), ("other/dist", "[]", False),
    ],
)  # fmt: skip
def test_stages_with_outputs_in_common_get_a_warning(tmp_path: Path, theirs: str, needs: str, warned: bool) -> None:
    two = f"- {{number: 2, name: two, run: 'true', inputs: [paropt.yml], outputs: [{theirs}], needs: {needs}}}\n"
    _, _, err = _check(tmp_path, configs.stage(run="'true'", inputs="[paropt.yml]", outputs="[dist]") + two)
    assert ("stage 'one': outputs: another stage may write dist, too, so it is not cached" in err) is warned
    assert err.count("another stage may write") == 2 * warned


def test_items_with_outputs_in_common_get_a_warning(tmp_path: Path) -> None:
    keys = {"run": "'true {item}'", "inputs": "['{item}']", "items": "{list: [paropt.yml]}"}
    told = "warning: stage 'one': outputs: its tasks share out/*, so none is cached: put {item} into it\n"
    assert _check(tmp_path, configs.stage(**keys, outputs="['out/*']"))[2] == told
    assert _check(tmp_path, configs.stage(**keys, outputs="['out/{item}', '!out/*.log']"))[2] == ""
    assert _check(tmp_path, configs.stage(**keys, outputs="['out/*']", cache="never"))[2] == ""


def test_item_that_is_listed_twice_gets_a_warning(tmp_path: Path) -> None:
    keys = {"run": "'true {item}'", "items": "{list: [3.10, 3.9, 3.10]}"}
    told = "warning: stage 'one': items: '3.10' is listed twice, so it runs twice under one name\n"
    assert _check(tmp_path, configs.stage(**keys))[::2] == (0, told)


def test_two_items_that_may_write_one_file_get_a_warning(tmp_path: Path) -> None:
    for name in ("1", "10"):
        (tmp_path / name).touch()
    why = "its items 1 and 10 may both write out/10*, so it is not cached: give each its own, such as {item}/**"
    told = f"stage 'one': outputs: {why}"
    for items in ("{list: ['1', '10']}", "{glob: 1*}", "{changed: 1*}"):
        keys = {"run": "'true {item}'", "inputs": "['{item}']", "items": items}
        assert _check(tmp_path, configs.stage(**keys, outputs="['out/{item}*']"))[2] == f"warning: {told}\n"
        assert _check(tmp_path, configs.stage(**keys, outputs="['out/{item}/*']"))[2] == ""


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("ls *.py", "*.py"), ("ls -l 'a' sub/?.py", "sub/?.py"), ("ls '*.py'", ""), ("sh -c 'ls *.py'", ""),
        ("ls *.md", ""), ("[ls, '*.py', $HOME]", ""),
    ],
)  # fmt: skip
def test_glob_with_files_that_only_a_shell_would_replace_gets_a_warning(tmp_path: Path, line: str, word: str) -> None:
    for name in ("a.py", "sub/b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    run = line if line.startswith("[") else json.dumps(line)
    code, _, err = _check(tmp_path, configs.stage(run=run))
    told = f"warning: stage 'one': no shell replaces {word}: add `shell: true`, or quote it"
    assert code == 0
    assert err.startswith(told) if word else err == ""
    if word:
        assert _check(tmp_path, configs.stage(run=run, shell="true"))[2] == ""


def test_glob_among_links_that_lead_to_each_other_takes_no_time(tmp_path: Path) -> None:
    for name in "abcdefghij":
        (tmp_path / name).symlink_to(".")
    code, _, err = _check(tmp_path, configs.stage(run=f"ls {'*/' * 12}a*"))
    assert (code, err.startswith("warning: stage 'one': no shell replaces */*/")) == (0, True)


@pytest.mark.parametrize(
    ("script", "before", "name"),
    [
        ("pytest; code=$?; ./clean; exit $code", "code=$?", "code"),
        ('pytest\nrc="$?"\n./clean\nexit $rc', "rc=$?", "rc"),
        ("pytest; test $? -eq 5", "test $? -eq 5", "code"),
        ('pytest\nif [ "$?" -ne 0 ]; then\n  ./clean\nelse\n  ./next\nfi', "if [ $? -ne 0 ]", "code"),
        ("pytest\ncase $? in 0|5) ;; *) ./clean ;; esac", "case $? in", "code"),
    ],
)
def test_status_that_a_failure_never_reaches_gets_a_warning(
    tmp_path: Path, script: str, before: str, name: str
) -> None:
    code, _, err = _check(tmp_path, configs.stage(run=json.dumps(script), shell="true"))
    told = f"a failure ends the script before `{before}`: write `|| {name}=$?` after the command"
    assert (code, err) == (0, f"warning: stage 'one': {told}\n")


@pytest.mark.parametrize(
    "script",
    [
        "code=0; pytest || code=$?; ./clean; exit $code", "set +e; pytest; code=$?; exit $code",
        "set -x +eu\npytest\ncode=$?", "set +o errexit\npytest\ncode=$?",
        "if pytest; then code=0; else code=$?; fi; exit $code", "echo 'a; code=$?'",
        "if pytest; then :\nelse\n  code=$?\nfi",
        "trap 'code=$?; ./clean; exit $code' EXIT; pytest", "pytest # ; code=$?", "pytest; exit $?",
        "pytest || {\n  code=$?\n  ./clean\n  exit $code\n}", "if ! pytest\nthen\n  [ $? -ne 0 ]\nfi",
        "pytest || [ $? -eq 5 ]",
    ],
)  # fmt: skip
def test_status_that_a_failure_reaches_gets_no_warning(tmp_path: Path, script: str) -> None:
    code, _, err = _check(tmp_path, configs.stage(run=json.dumps(script), shell="true"))
    assert (code, err) == (0, "")


def test_script_of_many_empty_lines_takes_no_time(tmp_path: Path) -> None:
    code, _, err = _check(tmp_path, configs.stage(run=json.dumps(f"true{chr(10) * 100_000}code=$?"), shell="true"))
    assert (code, "a failure ends the script" in err) == (0, True)


@pytest.mark.parametrize(
    ("script", "warned"),
    [
        ("pytest -q | tee log", True), ("set -e\npytest 2>&1 | tee log", True), ("mypy . | sort | tail -20", True),
        ("cd web && npm test | cat", True), ("pytest | grep passed", False), ("git log | tail -1", False),
        ("pytest || tail log", False), ("set -o pipefail; pytest | tee log", False), ("echo a | tee log", False),
        ("pytest -k 'a | tee b'", False), ("tail -1 log | grep passed", False), ("pytest -q # | tee", False),
    ],
)  # fmt: skip
def test_pipe_that_hides_a_failure_gets_a_warning(tmp_path: Path, script: str, warned: bool) -> None:
    """The exit code is that of the last command: failed tests would be green."""
    _, _, err = _check(tmp_path, configs.stage(run=json.dumps(script), shell="true"))
    assert ("` has no effect: leave it out (`file` keeps the output)" in err) == warned


@pytest.mark.skipif(Path("/bin/sh").resolve().name != "dash", reason="/bin/sh may know it")
def test_syntax_that_the_shell_does_not_know_gets_a_warning(tmp_path: Path) -> None:
    """dash runs `pytest &> log` in the background, so its failure would not count."""
    code, _, err = _check(tmp_path, configs.stage(run="true &> log", shell="true"))
    remedy = "write `> FILE 2>&1`, or let bash run it: [bash, -c, '…'], without `shell: true`"
    assert (code, err) == (0, f"warning: stage 'one': /bin/sh does not know `&>` on this machine: {remedy}\n")


@pytest.mark.parametrize(("value", "warned"), [("$HOME/bin:/bin", True), ("~/bin", True), ("/bin:a~", False)])
def test_variable_in_the_value_of_a_variable_gets_a_warning(tmp_path: Path, value: str, warned: bool) -> None:
    """The value itself is not shown: it may be a password."""
    _, _, err = _check(tmp_path, configs.stage(run="/bin/sh", env=f"{{A: '{value}'}}"))
    told = "warning: stage 'one': env.A: its value is used as written, without a shell: set it in the command\n"
    assert err == (told if warned else "")


@pytest.mark.parametrize("value", ["$A", "${A}"])
@pytest.mark.parametrize(("cache", "remedy"), [("never", "leave it out"), ("true", "write `pass_env: [A]` instead")])
def test_variable_set_to_itself_gets_a_warning_that_says_how_to_pass_it(
    tmp_path: Path, value: str, cache: str, remedy: str
) -> None:
    _, _, err = _check(tmp_path, configs.stage(run="/bin/sh", env=f"{{A: '{value}'}}", cache=cache))
    assert f"env.A: its value is used as written, without a shell: {remedy}" in err


def test_call_that_a_thread_can_not_stop_gets_a_warning(tmp_path: Path) -> None:
    (tmp_path / "check_called.py").touch()
    code, _, err = _check(tmp_path, configs.stage(run="", call="check_called:f", timeout="5m"))
    assert code == 0
    assert err.startswith(
        "warning: stage 'one' in lane docs, standard: a Python function in a thread can't be stopped at its timeout"
    )
    _, _, err = _check(tmp_path, configs.stage(run="", call="check_called:f", sla="{max: 5s, critical: true}"))
    assert "can't be stopped at its critical SLA" in err
    assert _check(tmp_path, configs.stage(run="", call="check_called:f", timeout="5m"), lane="heavy")[2] == ""


def test_only_the_stages_of_the_lane_asked_for_count(tmp_path: Path) -> None:
    content = (
        configs.stage(run="no-such-program") + "- {number: 2, name: two, run: sh}\nlanes: {short: {stages: [two]}}\n"
    )
    assert _check(tmp_path, content, lane="short") == (0, "paropt.yml: 1 lane, 1 stage: no faults\n", "")
    assert _check(tmp_path, content)[0] == 2


def test_unknown_lane_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown lane 'x': choose from docs, standard, heavy"):
        _check(tmp_path, configs.stage(), lane="x")


def test_without_a_file_the_built_in_stages_are_checked_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Makefile").write_text("lint:\n\ttrue\n")
    (tmp_path / "make").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    out = io.StringIO()
    assert check.run(None, tmp_path, lane=None, stdout=out, stderr=io.StringIO()) == 0
    assert out.getvalue().splitlines()[-1] == "no paropt.yml, built-in stages: 3 lanes, 1 stage: no faults"
    assert "unit_tests left out" in out.getvalue()


def test_folder_with_nothing_to_run_is_a_fault(tmp_path: Path) -> None:
    err = io.StringIO()
    assert check.run(None, tmp_path, lane=None, stdout=io.StringIO(), stderr=err) == 2
    assert err.getvalue().splitlines()[-2].startswith("no paropt.yml: no stage to run: write stages into paropt.yml")


def test_file_without_stages_names_its_key(tmp_path: Path) -> None:
    """`init`, which the message named before, refuses to overwrite a file."""
    config = tmp_path / "paropt.yml"
    config.write_text("history: {keep: 10}\n")
    err = io.StringIO()
    assert check.run(config, tmp_path, lane=None, stdout=io.StringIO(), stderr=err) == 2
    fault = err.getvalue().splitlines()[-2]
    assert fault.endswith(
        "no stage to run: list some under `stages` in paropt.yml, each as `- {name: lint, run: ruff check .}`"
    )


FAULTY = """\
lanes: {mine: {strategy: fast}, short: {stages: [sound]}}
web: {config_file: web.yml}
stages:
- {number: 1, name: sound, run: no-such-program}
- {number: 2, name: wrong, run: another-one, timeout: soon}
- {number: 3, name: unsplit, run: "third-one 'x"}
- {number: 4, name: waits, run: fourth-one, needs: [absent]}
"""


def test_missing_programs_are_reported_beside_faults_of_the_file(tmp_path: Path) -> None:
    code, out, err = _check(tmp_path, FAULTY)
    assert (code, out) == (2, "")
    places = [line.partition(": ")[0] for line in err.splitlines()]
    assert places[:-1] == [
        *("paropt.yml:1:26", "paropt.yml:5:55", "paropt.yml:6:35", "paropt.yml:7:53"),
        *("paropt.yml:4:3", "paropt.yml:7:3"),
        "web.yml:1:1",
    ], err
    assert "'no-such-program' is not on PATH" in err
    assert "'fourth-one' is not on PATH" in err


def test_faulty_lane_reports_only_its_own_faults(tmp_path: Path) -> None:
    code, _, err = _check(tmp_path, FAULTY, lane="mine")
    assert code == 2
    assert "is not on PATH" not in err


def test_file_that_is_not_yaml_has_one_fault(tmp_path: Path) -> None:
    code, _, err = _check(tmp_path, "stages: [")
    assert (code, err.splitlines()[-1]) == (2, "1 fault")


def test_faults_of_the_web_config_are_reported_too(tmp_path: Path) -> None:
    content = configs.stage(run="sh -c true") + "web: {config_file: web.yml}\n"
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: a, key_file: b}")
    assert "TLS: a: cannot read it" in _check(tmp_path, content)[2]
    (tmp_path / "web.yml").write_text("basic_auth_users: {alice: s3cret}\nx: 1")
    code, _, err = _check(tmp_path, content)
    assert (code, err.splitlines()[-1]) == (2, "2 faults")
    (tmp_path / "web.yml").write_text("")
    assert _check(tmp_path, content)[0] == 0


@pytest.mark.parametrize(
    ("run", "client"),
    [
        ("make -j8 all", "make"),
        ("[make, -C, lib, --jobs=4]", "make"),
        ("make all", ""),
        ("make --jobserver-style=fifo", ""),
    ],
)
def test_build_with_its_own_jobs_gets_a_warning_under_a_jobserver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: str, client: str
) -> None:
    (tmp_path / "make").write_text("#!/bin/sh\necho GNU Make 4.4.1\n")
    (tmp_path / "make").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    stages = configs.stage(run=run)
    code, _, err = _check(tmp_path, stages + "feedback: {jobserver: true}\n")
    told = f"warning: stage 'one': {client} with -j takes no part in the jobserver: leave -j out" if client else ""
    assert (code, err[: len(told) or None]) == (0, told)
    assert _check(tmp_path, stages)[2] == ""


@pytest.mark.parametrize(
    ("run", "addopts", "told"),
    [
        ("sh pytest {items}", "--cov=shop --basetemp=tmp", ["coverage to the same file", "the folder of --basetemp"]),
        ("sh pytest --cov {item}", "", ["coverage to the same file"]),
        ("sh pytest --no-cov {items}", "--cov=shop", []),
        ("sh pytest -p no:cov {items}", "--cov shop", []),
        ("sh pytest {items}", "--cov-report=term", []),
        ("sh pytest-like {items}", "--cov", []),
        ("sh pytest --basetemp tmp/{item} {item}", "", []),
        ("sh pytest --basetemp=tmp {item}", "", ["the folder of --basetemp"]),
        ("COVERAGE_FILE=.coverage.$$ sh pytest --basetemp=/tmp/$$ {items}", "--cov", []),
        ("COVERAGE_FILE=coverage sh pytest {items}", "--cov", ["coverage to the same file"]),
    ],
)
def test_pytest_options_that_batches_would_share_get_a_warning(
    tmp_path: Path, run: str, addopts: str, told: list[str]
) -> None:
    """With a limit for the coverage each batch failed; --basetemp failed with FileExistsError by chance."""
    (tmp_path / "pyproject.toml").write_text(f"[tool.pytest.ini_options]\naddopts = '{addopts}'\n")
    (tmp_path / "pytest").touch()
    (tmp_path / "pytest-like").touch()
    code, _, err = _check(tmp_path, configs.stage(run=f"'{run}'", shell="true", items="{list: [a.py, b.py]}"))
    assert code == 0
    assert [text for text in ("coverage to the same file", "the folder of --basetemp") if text in err] == told


def test_glob_that_matches_nothing_is_a_fault(tmp_path: Path) -> None:
    config = configs.stage(run="'sh {item}'", items="{glob: 'nothing/*.py'}")
    code, _, err = _check(tmp_path, config)
    assert code == 2
    assert err.splitlines()[0] == (
        "paropt.yml:2:3: stages[0]: items: nothing matches nothing/*.py: correct the glob, or write allow_empty: true"
    )
    assert _check(tmp_path, config.replace("'}", "', allow_empty: true}"))[0] == 0


def test_items_command_is_not_run(tmp_path: Path) -> None:
    assert _check(tmp_path, configs.stage(run="'sh {item}'", items="{command: touch asked}"))[0] == 0
    assert not (tmp_path / "asked").exists()


def test_first_hundred_of_many_faults_are_shown(tmp_path: Path) -> None:
    stages = "".join(f"- {{number: {number}, name: s{number}, run: x, timeout: y}}\n" for number in range(300))
    _, _, err = _check(tmp_path, f"stages:\n{stages}")
    lines = [line for line in err.splitlines() if not line.startswith("warning")]
    assert lines[99].startswith("paropt.yml:101:")
    assert lines[100].startswith("… and ")
    assert len(lines) == 102


def test_read_that_the_patterns_leave_out_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAROPT_CACHE_DIR", str(tmp_path / "store"))
    store = open_store(os.environ)
    store.prepare()
    for name in ("src/a.py", "src/b.txt", "conftest.py", "dist/out"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    reads = ("src/a.py", "src/b.txt", "src/gone.txt", "conftest.py", "dist/out")
    Notes(store.last_folder, "demo").save_reads("one", reads)
    content = configs.stage(run="sh -c true", inputs="['src/*.py']", outputs="[dist]")
    code, _, err = _check(tmp_path, f"project: demo\n{content}")
    why = "its last traced run read src/b.txt, which no pattern matches: add it, or let `auto` find it"
    assert (code, err) == (0, f"warning: stage 'one': inputs: {why}\n")


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ({"run": "sh tools/check.sh"}, "tools/check.sh"),
        ({"run": "sh check.sh", "cwd": "tools"}, "tools/check.sh"),
        ({"run": "python3 -m tools.check"}, "tools/check.py"),
        ({"run": "make check"}, "Makefile"),
        ({"run": "make -C tools check"}, "tools/Makefile"),
        ({"run": "sh -c true", "env": "{SETTINGS: tools/settings.ini}"}, "tools/settings.ini"),
        ({"run": "'sh {item}'", "items": "{glob: tools/*.sh}"}, "tools/check.sh"),
        ({"run": "'sh {item}'", "items": "{list: [check.sh]}", "cwd": "tools"}, "tools/check.sh"),
    ],
)
def test_read_of_a_file_that_the_command_names_is_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], read: str
) -> None:
    """Such files count without a pattern. One with the same name in another folder does not."""
    monkeypatch.setenv("PAROPT_CACHE_DIR", str(tmp_path / "store"))
    store = open_store(os.environ)
    store.prepare()
    for name in ("src/a.py", "tools/check.sh", "check.sh", read):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    content = f"project: demo\n{configs.stage(inputs='[src]', **fields)}"
    Notes(store.last_folder, "demo").save_reads("one", [read])
    assert "traced run" not in _check(tmp_path, content)[2]
    Notes(store.last_folder, "demo").save_reads("one", ["check.sh", read])
    assert "its last traced run read check.sh, which no pattern matches" in _check(tmp_path, content)[2]


def test_input_that_matches_nothing_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("")
    content = configs.stage(run="sh -c true", inputs="['src/**', 'scr/**', '{item}']", items="{list: [a]}")
    code, _, err = _check(tmp_path, content.replace("sh -c true", "'sh -c {item}'"))
    assert code == 0
    assert err == ("warning: stage 'one': inputs: nothing matches scr/**: correct it, unless the file comes later\n")


def test_warning_of_an_unmatched_input_names_the_folder_of_the_stage(tmp_path: Path) -> None:
    (tmp_path / "services/a").mkdir(parents=True)
    (tmp_path / "services/a/x.py").write_text("")
    _, _, err = _check(tmp_path, configs.stage(run="sh -c true", cwd="services/a", inputs="['services/a/**']"))
    why = "nothing matches services/a/** in services/a: correct it, unless the file comes later"
    assert err == f"warning: stage 'one': inputs: {why}\n"


def test_output_of_a_needed_stage_may_be_missing_as_an_input(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")
    config = """
stages:
  - {name: raw, run: "sh -c {item}", items: {list: [a, b]}, inputs: [a.py], outputs: ["raw/{item}.csv"]}
  - {name: join, run: sh -c true, needs: [raw], inputs: [raw/*.csv], outputs: [joined]}
  - {name: report, run: sh -c true, needs: [join], inputs: [joined/all.csv, raw/a.csv]}
"""
    code, _, err = _check(tmp_path, config)
    assert (code, err) == (0, "")


def test_folder_and_program_that_another_stage_makes_are_no_faults(tmp_path: Path) -> None:
    """In a fresh checkout, `check` refused lanes that ran."""
    (tmp_path / "a.c").touch()
    config = """
stages:
  - {name: build, run: "true", inputs: [a.c], outputs: [build]}
  - {name: use, run: bin/app --test, cwd: build, needs: [build]}
  - {name: run, run: build/bin/app, needs: [build]}
"""
    assert _check(tmp_path, config)[0] == 0
    code, _, err = _check(tmp_path, config.replace("[build]}", "[dist]}", 1))
    assert code == 2
    assert "cwd: there is no folder build" in err and "there is no program 'build/bin/app'" in err


def test_history_that_git_sees_is_named(tmp_path: Path) -> None:
    """Each run changes it, so that `cache: true` skips no stage, and `--affected` always runs those."""
    config = "history: {path: ci/history.db}\nstages: [{name: a, run: 'true'}]\n"
    assert _check(tmp_path, config)[2] == ""  # no repository
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    warning = "warning: history.path: git does not ignore ci/history.db, which each run changes: add ci/history.db* to "
    assert _check(tmp_path, config)[2].replace("\n  ", " ").startswith(warning)
    (tmp_path / ".gitignore").write_text("ci/history.db*\n")
    assert _check(tmp_path, config)[2] == ""
    assert _check(tmp_path, config.replace("ci/", "../"))[2] == ""


def test_items_that_another_stage_writes_are_named(tmp_path: Path) -> None:
    """They are found before the run: of files that it adds or removes, some are missed and others are gone."""
    use = "  - {name: use, run: 'cat {item}', cwd: out, items: {glob: '*.txt'}, needs: [make]}\n"
    make = "  - {name: make, run: 'true', inputs: ['*.py'], outputs: ['out/*.txt']}\n"
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.txt").write_text("")
    told = "stage 'use': items: another stage may write *.txt, but items are found before the run"
    assert told in _check(tmp_path, f"stages:\n{make}{use}")[2]
    assert told not in _check(tmp_path, f"stages:\n{make.replace('out/', 'other/')}{use}")[2]


@pytest.mark.parametrize(
    ("needs", "inputs", "warned"),
    [("", "out/a.txt", True), ("", "out", True), ("", "other", False), ("needs: [raw]", "out/a.txt", False)],
)
def test_reader_of_outputs_that_does_not_need_their_stage_gets_a_warning(
    tmp_path: Path, needs: str, inputs: str, warned: bool
) -> None:
    """In make and DVC the file fixes the order; here both started at once, and the reader found no file."""
    for name in ("a.py", "out/a.txt", "other"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    config = f"""
stages:
  - {{name: raw, run: sh -c true, inputs: [a.py], outputs: [out/a.txt]}}
  - {{name: report, run: sh -c true, inputs: [{inputs}], {needs}}}
"""
    _, _, err = _check(tmp_path, config)
    told = "stage 'report': inputs: stage 'raw' may write out/a.txt meanwhile: add `needs: [raw]`"
    assert err == (f"warning: {told}\n" if warned else "")


def test_reader_and_writer_that_no_lane_has_both_get_no_warning(tmp_path: Path) -> None:
    config = """
lanes: {docs: {stages: [raw]}, standard: {stages: [report]}, heavy: {stages: [report]}}
stages:
  - {name: raw, run: sh -c true, cache: true, outputs: [out/a.txt]}
  - {name: report, run: sh -c true, inputs: [out]}
"""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b.txt").touch()
    assert _check(tmp_path, config)[2] == ""
    assert "may write out/a.txt" in _check(tmp_path, config.replace("[raw]", "[raw, report]"))[2]


@pytest.mark.parametrize("inputs", ["['out/*']", "['gone/{}/**']", "['out/*', '!out/{}']"])
def test_inputs_of_a_long_chain_are_compared_with_few_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: str
) -> None:
    """With 300 stages `check` took 4 s of CPU time, and 10 s with 1,000 stages whose inputs match no file."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").touch()
    lines = ["stages:"]
    for index in range(60):
        keys = f"inputs: {inputs.format(index)}, outputs: ['out/{index}'], needs: [{f's{index - 1}' * (index > 0)}]"
        lines.append(f"  - {{name: s{index}, run: sh -c true, {keys}}}")
    compared: list[str] = []
    matches = InputPatterns.matches

    def count(patterns: InputPatterns, path: str) -> bool:
        compared.append(path)
        return matches(patterns, path)

    monkeypatch.setattr(InputPatterns, "matches", count)
    assert _check(tmp_path, "\n".join(lines))[0] == 0
    assert len(compared) < 60 * 10, "each input with each output"


def test_warnings_of_stages_that_may_write_an_input_have_a_fixed_order(tmp_path: Path) -> None:
    lines = ["stages:", "  - {name: report, run: sh -c true, inputs: [., '!out/d']}"]
    lines += [f"  - {{name: {name}, run: sh -c true, cache: true, outputs: [out/{name}]}}" for name in "dbca"]
    _, _, err = _check(tmp_path, "\n".join(lines))
    assert re.findall(r"stage '(.)' may write", err) == ["a", "b", "c"]


def test_second_check_of_a_file_loads_no_validator(tmp_path: Path) -> None:
    """It took twice as long as a run of one short stage: pydantic validated the file and rendered its schema again."""
    (tmp_path / "paropt.yml").write_text(
        "# yaml-language-server: $schema=.paropt/paropt.schema.json\nstages:\n  - {number: 1, name: a, run: 'true'}\n"
    )
    script = "import sys; from paropt_exporter.cli.main import main; print(main(['check']), 'pydantic' in sys.modules)"
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    printed = [run_python(script, cwd=tmp_path, env=environment).stdout for _ in range(2)]
    assert [text.splitlines()[-1] for text in printed] == ["0 True", "0 False"]
    assert (tmp_path / ".paropt/paropt.schema.json").exists()


def test_stages_without_traced_runs_cost_no_list_of_all_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each of 5,000 stages `check` listed the outputs of all: 25 s of CPU time."""
    listed: list[object] = []
    monkeypatch.setattr(traced_results, "InputPatterns", listed.append)
    assert _check(tmp_path, configs.stage(inputs="[paropt.yml]", outputs="[out]"))[0] == 0
    assert not listed
