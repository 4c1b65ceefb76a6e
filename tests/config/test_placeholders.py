"""Items in a shell's line: quoted when they are put in, so they must not stand in quotes."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from itertools import product
from pathlib import Path

import pytest

from paropt_exporter import plan
from paropt_exporter.config.placeholders import find_unprotected
from paropt_exporter.plan import Commands
from support import configs

GOOD = [
    "lint {item}", "lint --file={item}", "cd 'a b' && lint \"$X\"/{items}", 'x="$(cat {item})"; echo "$x"',
    "echo $(cat {item})", "echo \\\" {item}", "echo '\\' {item}", "echo $((1 << 2)) {item}",
    "case $1 in a) lint {item};; esac",
    "lint {item} # it's \"good\"", "echo ${#x} $# a#b {item}", "echo \"it's\" {item}", "(cd x; lint {items})",
    "((echo a); echo b); lint {item}", "echo $((1 + (2 * 3))) {item}", "echo ${x[1]} {item}", "(a)#b\nlint {item}",
    "echo \\\\{item}", "[ -f {item} ] && lint {item}",
    "# it's\nlint {item}", "echo \"`date`\" {item}", "echo \"(\" {item}",
]  # fmt: skip
BAD = {
    "lint '{item}'": "quotes", 'lint "{item}"': "quotes", 'lint "$DIR/{items}"': "quotes",
    "sh -c 'lint {item}'": "quotes",
    "echo `cat {item}`": "backquotes", "cat <<E\n{item}\nE": "a here-document", "lint # {item}": "a comment",
    "#{item}\nlint": "a comment", "echo '\\' '{item}'": "quotes", 'echo "`cat \'{item}\'`"': "quotes",
    "echo \\{item}": "an escape", "(cd x)# {item}": "a comment", "(a)#b\n(c)# 'd' {item}": "a comment",
    "echo $((1 + {item}))": "an arithmetic expression",
    'echo "$(( ({item}) ))"': "an arithmetic expression", "((x = {item}))": "an arithmetic expression",
    "echo $((1 + $(cat {item})))": "an arithmetic expression", "echo $[{item}]": "an arithmetic expression",
    "echo ${x[a[1]+{item}]}": "an arithmetic expression",
    'x="$(cat "{item}")"': "quotes", "cat <<E\n$(cat {item})\nE": "a here-document", 'echo "\\" {item}"': "quotes",
}  # fmt: skip
HOSTILE = [
    "$(touch pwned)",
    "';touch pwned;'",
    "`touch pwned`",
    '";touch pwned;"',
    "a\ntouch pwned",
    "a\\`touch pwned`",
]


@pytest.mark.parametrize("line", GOOD)
def test_item_outside_of_quotes_is_protected(line: str) -> None:
    assert find_unprotected(line) is None


@pytest.mark.parametrize(("line", "around"), BAD.items())
def test_item_in_quotes_is_a_fault(tmp_path: Path, line: str, around: str) -> None:
    stage = configs.stage(run=json.dumps(line), shell="true", items="{list: [a]}")
    (fault,) = configs.faults(tmp_path, stage)
    assert f"is in {around}: each item is quoted already" in fault


@pytest.mark.parametrize(
    ("line", "program"),
    [
        ("sh -c 'lint {item}'", "sh"), ("timeout 5 /bin/bash -eo pipefail -c 'lint {item}'", "bash"),
        ("bash -c -e 'lint {item}'", "bash"), ("python3.12 -W error -c 'print(\"{item}\")'", "python3.12"),
        ("sh -cx 'lint {item}'", "sh"), ("tcsh -c 'lint {item}'", "tcsh"),
        ("perl -ne 'print \"{item}\"'", "perl"), ("perl -E 'say \"{item}\"'", "perl"),
        ("node --eval 'f(\"{item}\")'", "node"), ("nodejs -p 'f(\"{item}\")'", "nodejs"),
    ],
)  # fmt: skip
def test_item_in_a_script_is_a_fault(tmp_path: Path, line: str, program: str) -> None:
    for run, items in product((line, shlex.split(line)), ("{glob: '*'}", "{list: , glob: '*'}")):
        (fault,) = configs.faults(tmp_path, configs.stage(run=json.dumps(run), items=items))
        assert f"{{item}} is in a script of {program}: its name could be run as code" in fault


@pytest.mark.parametrize(
    "line",
    [
        "sh -c {item}", "sh -c 'lint \"$1\"' sh {item}", "sh -e tests/{item}", "bash run.sh -c a/{item}", "lint {item}",
        "python -O lint.py -c a/{item}", "python -m lint -c a/{item}", "perl -p lint.pl a/{item}",
    ],
)  # fmt: skip
def test_item_outside_of_a_script_is_no_fault(tmp_path: Path, line: str) -> None:
    assert configs.read(tmp_path, configs.stage(run=json.dumps(line), items="{glob: '*'}")).stages


@pytest.mark.parametrize("line", ["( " * 30_000 + "{item} " * 10_000, ")#" * 50_000, "<#" * 50_000])
def test_unusual_line_takes_no_time(line: str) -> None:
    began = time.process_time()
    assert find_unprotected(line) is None
    assert time.process_time() - began < 5


def test_item_of_a_list_may_be_in_a_script(tmp_path: Path) -> None:
    stage = configs.stage(run=json.dumps("sh -c 'lint {item}'"), items="{list: [a]}")
    assert len(configs.read(tmp_path, stage).stages) == 1


@pytest.mark.parametrize("line", [line for line in GOOD if "{item}" in line])
def test_item_name_never_runs_as_code(tmp_path: Path, line: str) -> None:
    """Run the lines in a real shell. `lint` does not exist."""
    stage = configs.stage(run=json.dumps(line), shell="true", items=f"{{list: {json.dumps(HOSTILE)}}}")
    tasks = plan.build_plan(configs.read(tmp_path, stage), "standard").stages[0].tasks
    works = [task.work for task in tasks]
    for work in works:
        assert isinstance(work, Commands)
        subprocess.run(work.steps[0], cwd=tmp_path, timeout=60, check=False, capture_output=True)
    assert len(works) == len(HOSTILE)
    assert not (tmp_path / "pwned").exists()
