"""Every way in which a config file can be wrong, each told with its place: the table "Config" of the faults."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paropt_exporter import config
from paropt_exporter.config.checks import Machine, cross_check
from paropt_exporter.config.faults import MOST_FAULTS
from paropt_exporter.config.units import LARGEST_FILE_BYTES
from paropt_exporter.errors import ConfigError
from support import configs, golden

BOMB = "x-a: &a [0,0,0,0,0,0,0,0,0,0]\n" + "".join(
    f"x-{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_all_faults_of_a_file_are_reported_at_once_with_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(golden.FOLDER)
    with pytest.raises(ConfigError) as caught:
        config.read_config(Path("faults.yml"), root=Path())
    golden.assert_is_golden(str(caught.value) + "\n", "faults.txt")


def test_aliases_that_multiply_are_rejected_and_not_expanded(tmp_path: Path) -> None:
    told = configs.faults(tmp_path, BOMB + configs.stage())
    assert told == [
        "paropt.yml:1:1: file: with its aliases expanded the file has more than 1,000,000 values, the limit"
    ]


@pytest.mark.parametrize("merged", ["- {<<: *a}\n" * 2000, f"- {{<<: [{'*a,' * 2000}]}}\n"], ids=["mappings", "list"])
def test_merges_that_multiply_are_rejected_and_not_expanded(tmp_path: Path, merged: str) -> None:
    """A file of 1 MB with many keys merged into many mappings took all memory."""
    keys = ", ".join(f"k{number}: 1" for number in range(1000))
    assert configs.faults(tmp_path, f"x-a: &a {{{keys}}}\nstages:\n{merged}") == [
        "paropt.yml:1:1: file: with its aliases expanded the file has more than 1,000,000 values, the limit"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages:\n- {number: 1, name: a, run: " + "a" * 200_000 + "}\n", "2:29: stages[0].run: a text of 200,000 "),
        (f"x-a: &a {'a ' * 50_000}\nstages: [{'*a, ' * 1000}]\n", "1:1: file: with its aliases expanded"),
    ],
    ids=["word", "aliases"],
)
def test_text_that_takes_hours_to_split_is_rejected(tmp_path: Path, text: str, message: str) -> None:
    (told,) = configs.faults(tmp_path, text)
    assert told.startswith(f"paropt.yml:{message}")


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\n" * 5000,
        "".join(f"k{number}: 1\n" for number in range(5000)) + configs.stage(),
        f"lanes: {{standard: {{sla: {{{', '.join(f's{number}: 1s' for number in range(5000))}}}}}}}\n"
        + configs.stage(),
    ],
    ids=["repeated keys", "unknown keys", "limits of unknown stages"],
)
def test_search_for_faults_ends_after_1_000_of_a_kind(tmp_path: Path, text: str) -> None:
    """A file of 4 MB may have 600,000, and took minutes."""
    assert len(configs.faults(tmp_path, text)) == MOST_FAULTS


def test_value_that_contains_itself_is_rejected(tmp_path: Path) -> None:
    assert "contains itself" in configs.faults(tmp_path, "stages: &a [*a]\n")[0]


def test_repeated_key_is_reported_at_its_second_place(tmp_path: Path) -> None:
    told = configs.faults(tmp_path, configs.stage() + "web: {}\nweb: {}\n")
    assert told == ["paropt.yml:4:1: web: the key 'web' is given twice (first in line 3)"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "1:1: file: the file is empty"),
        (b"# nothing\n", "1:1: file: the file is empty"),
        (b"stages:\n\t- a\n", "2:1: file: the indentation contains a tab"),
        (b"\xff\xfes\x00t\x00", "1:1: file: the file is UTF-16"),
        (b"project: caf\xe9\n", "1:13: file: byte 0xe9 is not UTF-8"),
        (b"project: a\nb\x00: 1\n", "2:2: file: control character U+0000"),
        (b"project: a\x1b[31m\n", "1:11: file: control character U+001B"),
        (b"stages: [\n", "2:1: file: invalid YAML"),
        (b"a: *b\n", "1:4: file: invalid YAML"),
        (b"run: pytest: x\n", "in this context: quote a value with ': ' in it, and indent keys alike"),
        (b"s: {run: pytest {items}}\n", "while parsing a flow mapping: quote a value with {, }, [, ] or a comma in it"),
        (b"s:\n  - a: 1\n   b: 2\n", "while parsing a block collection: indent the keys of an entry alike"),
        (b"run: {items} -q\n", "while parsing a block mapping: quote the whole value, and indent keys alike"),
        (b"glob: *.py\n", "while scanning an alias: quote a value that begins with *"),
        (b"run: @x\n", "cannot start any token, while scanning for the next token: quote a value that begins with @"),
        (b"web: {}\n---\nweb: {}\n", "2:1: file: a second document"),
        (b"- a\n", "1:1: file: expected a mapping, found a list"),
        (b"word\n", "1:1: file: expected a mapping, found another text (not shown"),
        (b"? [a, b]\n: 1\n", "1:3: file: a key must be a word, found a list"),
        (b"[" * 100_000, "invalid YAML"),
        (b"web: " + b"[" * 60 + b"]" * 60 + b"\n", "nested deeper than 50 levels"),
        (b"project: !!python/object/apply:os.system ['true']\n", "1:10: project: the tag"),
        (b"project: !!python/name:os.system x\n", "1:10: project: the tag"),
        (b"project: !mine x\n", "1:10: project: the tag '!mine' is not allowed"),
        (b"project: !!int x\n", "1:10: project: 'x' does not fit its tag"),
        (b"web: {max_requests: " + b"9" * 5000 + b"}\n", "1:21: web.max_requests: a number of 5000 characters"),
        (b"web: {<<: 5}\n", "1:11: web.'<<': only mappings can be merged"),
        (b"x: {}\n<<<<<<< HEAD\nweb: {}\n=======\n", "paropt.yml:2:1: file: a merge conflict begins here: resolve it"),
        (b"s:\n  -\xc2\xa0a: 1\n    b: 2\n", "2:4: file: the indentation contains the character U+00A0: YAML allows"),
        (b"\xc2\xa0a: b: c\n", "1:1: file: the indentation contains the character U+00A0: YAML allows only spaces"),
        (b"s:\n  -a: 1\n   b: 2\n", "in this context: put a space after the dash"),
        (b'x: "a\nb: c\n', "1:4: file: invalid YAML: found unexpected end of stream, while scanning a quoted scalar: "),
        (b'x: "\\d"\n', "use single quotes, in which a backslash is a plain character"),
        (b"[tool]\na = 1\n", "a config is YAML and begins with a key, such as stages:"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_unreadable_bytes_get_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    told = configs.faults(tmp_path, content)
    assert message in told[0], told


@pytest.mark.parametrize("size", [LARGEST_FILE_BYTES + 1, 10_000_000])
def test_file_that_is_too_large_is_rejected_with_the_bound(tmp_path: Path, size: int) -> None:
    told = configs.faults(tmp_path, b"#" * size)
    assert told == ["paropt.yml:1:1: file: the file is larger than 4 MB, the limit"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "yes"}, "stages[0].name: expected a string, found the boolean true (YAML reads `yes` as a boolean"),
        ({"name": "on"}, "YAML reads `on` as a boolean"),
        ({"timeout": "no"}, "stages[0].timeout: expected a duration"),
        ({"timeout": "-5"}, "expected a duration above 0, found -5"),
        ({"timeout": ".nan"}, "found nan"),
        ({"timeout": "-.inf"}, "found -inf"),
        ({"timeout": "99999y"}, "too long"),
        ({"timeout": "9" * 200}, "too long"),
        ({"timeout": "1:30"}, "expected a duration like 30s, 5m"),
        ({"run": ""}, "stages[0]: the stage does nothing"),
        ({"run": "null"}, "stages[0].run: the stage does nothing: run is empty"),
        ({"run": "''"}, "stages[0].run: expected some text"),
        ({"run": "[]"}, "stages[0].run: the command is empty"),
        ({"run": "{}"}, "stages[0].run: expected a string, found a mapping"),
        ({"inputs": "[{item}]"}, "inputs[0]: expected a string, found a mapping: put a text that begins with { in"),
        ({"run": "\"echo 'x\""}, "stages[0].run: the line can't be split into words"),
        ({"run": "a | b"}, "add `shell: true`"),
        ({"run": "[a]", "shell": "true"}, "stages[0].run: shell: true needs a string"),
        ({"run": "'a {item}'"}, "the stage has no items for {item}"),
        ({"call": "a:b"}, "stages[0].call: only one of run, call and steps"),
        ({"run": "", "call": '"a:b\\n"'}, "stages[0].call: expected module:function"),
        ({"run": "", "call": "a:b", "cwd": "x"}, "stages[0].cwd: 'cwd' works for commands only"),
        ({"run": "", "steps": "[]"}, "stages[0].steps: the list is empty"),
        ({"items": "{}"}, "stages[0].items: exactly one of list, glob, command and changed; found none"),
        (
            {"items": "[a]"},
            "stages[0].items: expected a mapping like {list: [a, b]} or {glob: tests/test_*.py}, found a",
        ),
        (
            {"items": "{command: 'ls | sort'}", "run": "'x {item}'"},
            "stages[0].items.command: only a shell understands '|': write `[sh, -c, ...]`",
        ),
        ({"run": "'a && b'"}, "only a shell understands '&&': add `shell: true`, or use `steps`"),
        ({"items": "{list: [a], glob: b}"}, "found list and glob"),
        ({"items": "{glob: , allow_empty: true}"}, "glob, command and changed; found an empty glob"),
        ({"items": "{list: []}", "run": "'x {item}'"}, "stages[0].items.list: the list is empty"),
        ({"items": "{list: [yes]}"}, "stages[0].items.list[0]: expected a string"),
        ({"retries": "-1"}, "stages[0].retries: expected a number of at least 0, found -1"),
        ({"retries": "{count: 1.5}"}, "stages[0].retries.count: expected a whole number"),
        ({"sla": "{max: 5s, warn_at: 80}"}, "stages[0].sla.warn_at: expected a number of at most 1, found 80"),
        ({"sla": "[5]"}, "stages[0].sla: expected a duration, or a mapping of max, warn_at and critical, found a list"),
        ({"needs": "[one]"}, "stages[0].needs[0]: a stage can't need itself"),
        ({"needs": "{one: two}"}, "expected a list, found a mapping: begin each entry with a dash"),
        ({"needs": "[onee]"}, "unknown stage 'onee': did you mean 'one'?"),
        ({"env": "{A: yes}"}, "stages[0].env.A: expected a string, found the boolean true"),
        ({"env": "{'A=B': x}"}, "expected the name of an environment variable"),
        ({"memory": "2G"}, "expected a size like 2GiB or 500MB, or a number of bytes, found '2G': did you mean '2GB'?"),
        ({"timeout": "5min"}, "or a number of seconds, found '5min': did you mean '5m'?"),
        ({"sla": "{max: 5s, warn_at: 80%}"}, "expected a number, found '80%': it is a ratio of the limit, such as 0.8"),
        ({"run": "", "steps": "[{run: a}]"}, "steps[0]: expected a string, found a mapping: write the command itself"),
        ({"run": "pytest $@"}, "stages[0].run: a command has no $@: write {args} for the arguments after --"),
        ({"run": "'pytest \"$@\"'"}, "stages[0].run: a command has no $@: write {args} for the arguments after --"),
        ({"fail-fast": "true"}, "unknown key 'fail-fast': it is a key of a lane, so put it into one of `lanes`"),
        ({"memory": "1000TiB"}, "are more than the machine has"),
        ({"number": "true"}, "stages[0].number: expected a whole number, found the boolean true"),
        ({"name": '"a\\nb"'}, "is not a name"),
        ({"name": "x" * 101}, "a name has at most 100 characters, this one has 101"),
        ({"tmeout": "5"}, "stages[0].tmeout: unknown key 'tmeout': did you mean 'timeout'?"),
        ({"cmd": "x"}, "stages[0].cmd: unknown key 'cmd': did you mean 'run'?"),
        ({"run": "", "cmd": "x"}, "stages[0].cmd: unknown key 'cmd': did you mean 'run'?"),
        ({"run": "", "script": "[x, y]"}, "stages[0].script: unknown key 'script': did you mean 'steps'?"),
        ({"run": "cd web && make"}, "only a shell understands '&&': add `shell: true`, or put the folder into `cwd`"),
        ({"run": "", "call": "checks.slow"}, "module:function, found 'checks.slow': did you mean 'checks:slow'?"),
        ({"shell": "bash"}, "expected true or false, found 'bash': `true` means /bin/sh; for another shell"),
        ({"fail_fast": "true"}, "unknown key 'fail_fast': it is a key of a lane, so put it into one of `lanes`"),
        ({"only": "[main]"}, "unknown key 'only': stages have no conditions: "),
        ({"env": "{A: }"}, "env.A: expected a string, found nothing: write '' for an empty one"),
        ({"sla": "{max: 5s, warning: 0.9}"}, "stages[0].sla.warning: unknown key 'warning': did you mean 'warn_at'?"),
        ({"env": "{A: true}"}, "env.A: expected a string, found the boolean true: quote it if you mean the word"),
        ({"parallel": "true"}, "unknown key 'parallel': leave it out: all stages run in parallel"),
        ({"allow_failure": "true"}, "unknown key 'allow_failure': to ignore a failure, end the command"),
        ({"env": "[A=x]"}, "stages[0].env: expected a mapping like {LOG: debug}, found a list"),
        ({"depends_on": "[x]"}, "stages[0].depends_on: unknown key 'depends_on': did you mean 'needs'?"),
        ({"dependsOn": "[x]"}, "stages[0].dependsOn: unknown key 'dependsOn': did you mean 'needs'?"),
        ({"set_env": "{A: x}"}, "stages[0].set_env: unknown key 'set_env': did you mean 'env'?"),
        ({"file": '"a\\0b"'}, "stages[0].file: a NUL character is not allowed"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_value_of_a_stage_is_reported_at_its_place(tmp_path: Path, keys: dict[str, str], message: str) -> None:
    told = configs.faults(tmp_path, configs.stage(**keys))
    assert len(told) == 1, told
    assert told[0].startswith("paropt.yml:2:")
    assert message in told[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lint: {script: ruff}", "lint: unknown key 'lint': put it under `stages`, as `- {name: lint, run: ...}`"),
        ("fail-fast: true", "fail-fast: unknown key 'fail-fast': 'fail_fast' is a key of a lane, so put "),
        ("push: http://a", 'push: expected a mapping like {url: "http://127.0.0.1:9091"}, found \'http://a\''),
        ("push: http://me:secret@a", "found another text (not shown: it may be a secret)"),
        ("feedback: {prometheus: http://me:secret@a}", "found another text (not shown: it may be a secret)"),
        ("history: false", "history: expected a mapping like {path: .paropt/history.db, keep: 1000}, found the "),
        ("web: {port: 9000}", "web.port: unknown key 'port': did you mean 'listen_address'?"),
        ("web: {listen_address: 9000}", "listen_address: expected host:port, :port or [ipv6]:port, found '9000': did "),
        ("web: {listen_address: 99999}", "expected host:port, :port or [ipv6]:port, found '99999': a port is at most"),
        ("web: {listen_address: ':99999'}", "or [ipv6]:port, found ':99999': a port is at most 65535"),
        ("lanes: {a: {workers: 2-8}}", "of min, max and start, found '2-8': did you mean {min: 2, max: 8}?"),
        ("lanes: {a: {workers: '4'}}", "of min, max and start, found '4': did you mean 4?"),
        ("lanes: {a: {workers: Auto}}", "of min, max and start, found 'Auto': did you mean auto?"),
    ],
    ids=str,
)  # fmt: skip
def test_value_in_another_form_is_one_fault_that_shows_ours(tmp_path: Path, text: str, message: str) -> None:
    """A port was "expected a list", a Pushgateway's URL "expected a mapping"."""
    (told,) = configs.faults(tmp_path, f"{text}\n{configs.stage()}")
    assert message in told


@pytest.mark.parametrize("workers", ["8-2", "1-1001", "'9999'"])
def test_invalid_number_of_workers_is_no_suggestion(tmp_path: Path, workers: str) -> None:
    """8-2 was "did you mean {min: 8, max: 2}?", which is refused, too."""
    (told,) = configs.faults(tmp_path, f"lanes: {{a: {{workers: {workers}}}}}\n{configs.stage()}")
    assert told.endswith(f"of min, max and start, found '{workers.strip(chr(39))}'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: {a: x}", "stages: expected a list, found a mapping: write each as `- {name: a, run: ...}`"),
        ("stages: {name: a, run: x}", "stages: expected a list, found a mapping: begin each entry with a dash"),
        ("stages: [{lint: x}]", "stages[0]: the name of a stage is a value: write {name: lint, run: ...}"),
        ("stages: [{lint: {run: x}}]", "stages[0]: the name of a stage is a value: write {name: lint, run: ...}"),
        ("stages: [mypy .]", "stages[0]: expected a mapping like {name: lint, run: ruff check .}, found 'mypy .'"),
        ("[{name: a, run: x}]", "file: expected a mapping, found a list: put it under `stages:`"),
    ],
    ids=str,
)  # fmt: skip
def test_stages_in_the_form_of_another_runner_are_one_fault_with_our_form(
    tmp_path: Path, text: str, message: str
) -> None:
    (told,) = configs.faults(tmp_path, text)
    assert told.partition(" ")[2] == message


@pytest.mark.parametrize(
    ("stage", "messages"),
    [
        ("{Name: a, Run: x}", ["unknown key 'Name': did you mean 'name'?", "unknown key 'Run': did you mean 'run'?"]),
        ("{id: a, cmd: x}", ["unknown key 'id': did you mean 'name'?", "unknown key 'cmd': did you mean 'run'?"]),
        ("{cmd: x}", ["the key 'name' is missing", "unknown key 'cmd': did you mean 'run'?"]),
    ],
)
def test_stage_with_other_keys_in_place_of_ours_gets_the_right_ones(
    tmp_path: Path, stage: str, messages: list[str]
) -> None:
    """The advice was `{name: Name, run: ...}`."""
    told = "\n".join(configs.faults(tmp_path, f"stages: [{stage}]"))
    assert [message for message in messages if message not in told] == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("pip freeze >requirements.txt", "'>'"), ("make 2>/dev/null", "'2>'"), ("make &>log", "'&>'"),
        ("cat <a.txt", "'<'"), ("echo a; echo b", "';'"), ("server &", "'&'"), ("a&&b", "'&&'"), ("a || b", "'||'"),
        ("ruff check\nmypy", "a line break"), ("pytest \\\n  -q", "a line break"),
    ],
)  # fmt: skip
def test_shell_syntax_without_a_shell_is_a_fault(tmp_path: Path, line: str, found: str) -> None:
    """Otherwise its words would be arguments: the first command succeeds and writes no requirements.txt."""
    (told,) = configs.faults(tmp_path, configs.stage(run=json.dumps(line)))
    assert f"stages[0].run: only a shell understands {found}: " in told and "add `shell: true`" in told


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("echo $HOME", "$HOME"), ("pytest $ARGS -q", "$ARGS"), ("echo a${HOME}", "${HOME}"), ("ls ~/x", "~/x"),
        ("echo $(date +%s)", "$(date +%s)"), ("echo `date`", "`date`"), ("ls ~", "~"),
    ],
)  # fmt: skip
def test_word_that_only_a_shell_replaces_is_a_fault(tmp_path: Path, line: str, found: str) -> None:
    """Otherwise `pytest $ARGS` would look for a file of that name; `check` alone warned of it, but no run."""
    (told,) = configs.faults(tmp_path, configs.stage(run=json.dumps(line)))
    assert f"stages[0].run: only a shell replaces {found}: add `shell: true`, or put it in single quotes" in told
    assert configs.read(tmp_path, configs.stage(run=json.dumps(line), shell="true"))


@pytest.mark.parametrize(
    "line",
    [
        "echo '$HOME' \"$HOME\" \\$HOME", "ls a~ 5$ ~x/y~", "awk '{print $1}' a.txt", "grep x$ a.txt",
        "find . -exec echo {} \\;", "grep '|' a.txt", 'grep ">" a.txt', "sh -c 'a && b > c'", 'python -c "a; b"',
        "pip install ruff>=0.9", "curl http://localhost/?a=1&b=2", "pytest -k a|b", "python -c 'a\nb'", "ruff check\n",
        "pytest -q\n  --cov=shop", "sh -c 'pytest \"$@\"' sh a",
        'echo "\\" > c"',
    ],
)  # fmt: skip
def test_quoted_shell_syntax_needs_no_shell(tmp_path: Path, line: str) -> None:
    assert configs.read(tmp_path, configs.stage(run=json.dumps(line))).stages[0].run == line


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("lanes: {standard: {strategy: treads}}", "sequential, dask, found 'treads': did you mean 'thread'?"),
        ("lanes: {a: {workers: 1001}}", "lanes.a.workers: expected a number of at most 1000"),
        ("lanes: {a: {workers: {min: 4, max: 2}}}", "lanes.a.workers: expected min <= start <= max, found 4, 2"),
        ("lanes: {a: {workers: fast}}", "lanes.a.workers: expected auto, a number of workers, or a mapping"),
        ("lanes: {a: {strategy: sequential, workers: 4}}", "sequential runs one task at a time"),
        ("lanes: {a: {stages: [two]}}", "lanes.a.stages[0]: unknown stage 'two'"),
        ("lanes: {a: {stages: []}}", "lanes.a.stages: the list is empty"),
        ("env: {A: x}", "env: unknown key 'env': it is a key of a stage, so put it into one of `stages`"),
        (
            "lanes: {a: {stages: [{name: b, run: x}]}}",
            "lanes.a.stages[0]: expected a string, found a mapping: name a stage here, and write it under the `stages`",
        ),
        ("lanes: {a: [one]}", "lanes.a: expected a mapping like {workers: auto, stages: [lint, tests]}, found a list"),
        ("lanes: [{name: a}]", "lanes: expected a mapping like {quick: {stages: [lint]}}, found a list"),
        ("parallel: 4", "parallel: unknown key 'parallel': 'workers' is a key of a lane, so put it into one of"),
        ("tasks: {}", "tasks: unknown key 'tasks': did you mean 'stages'?"),
        (".a: {}", "unknown key '.a': keys that begin with x- may hold values for YAML's anchors"),
        ("lanes: {auto: {}}", "lanes.auto: 'auto' is reserved for --lane auto"),
        ("lanes: {a: {total: 1e400}}", "lanes.a.total"),
        ("push: {url: 'http://me:s3cret@gateway'}", "push.url: a URL with a password would be logged"),
        ("push: {url: 'http://gateway/?token=s3cret'}", "push.url: a URL with a query would be logged"),
        (
            "feedback: {prometheus: {url: 'http://prometheus/x?token=s3cret'}}",
            "feedback.prometheus.url: a URL with a query would be logged",
        ),
        (
            "feedback: {prometheus: {url: 'http://prometheus/#s3cret'}}",
            "feedback.prometheus.url: a URL with a query would be logged",
        ),
        ("push: {basic_auth: {username: me}}", "push.basic_auth: give exactly one of password_file and password_env"),
        (
            "push: {bearer_token_file: a, basic_auth: {username: me, password_env: P}}",
            "push.basic_auth: bearer_token_file is given too",
        ),
        ("feedback: {source: prometheus}", "feedback.source: source 'prometheus' needs a Prometheus"),
        (
            "feedback: {prometheus: {url: 'http://a'}, signals: {q: {query: up, use: load, target: yes}}}",
            "feedback.signals.q.target: expected a number, found the boolean true (YAML reads `yes` as a boolean",
        ),
        (
            "feedback: {prometheus: {url: 'http://a'}, signals: {q: {query: up, use: load, target: 5s}}}",
            "feedback.signals.q.target: expected a number, found '5s'",
        ),
        ("feedback: {mode: advice}", "feedback.mode: expected act or advise, found 'advice': did you mean 'advise'?"),
        ("feedback: {prometheus: {url: localhost}}", "feedback.prometheus.url: expected a URL"),
        (
            "feedback: {prometheus: {url: 'http://a'}, signals: {s: {query: x, use: load, target: .inf}}}",
            "feedback.signals.s.target: expected a finite number",
        ),
        (
            "feedback: {prometheus: {url: 'http://a'}, signals: {s: {query: 'sum(rate(x[5m])', use: load, target: 1}}}",
            "feedback.signals.s.query: invalid PromQL: ) is missing",
        ),
        ('web: {listen_address: ":10178\\n"}', "web.listen_address: expected host:port"),
        ('web: {telemetry_path: "/metrics\\n"}', "web.telemetry_path: expected a path like /metrics"),
        ("push: {headers: {a b: x}}", "push.headers.'a b': expected the name of a header like X-Scope-OrgID"),
        ("push: {headers: {'X-A:': x}}", "expected the name of a header like X-Scope-OrgID"),
        ("push: {header_files: {X-ä: x}}", "expected the name of a header like X-Scope-OrgID"),
        ("push: {headers: {X-A: ä}}", "push.headers.X-A: expected one line of ASCII text without spaces around it"),
        ('push: {headers: {X-A: "a\\nb"}}', "push.headers.X-A: expected one line of ASCII text"),
        ("feedback: {prometheus: {url: 'http://a', headers: {X-A: ' a'}}}", "headers.X-A: expected one line of ASCII"),
        ("push: {url: 'http://[::1'}", "push.url: expected a URL like http://127.0.0.1:9090, found 'http://[::1'"),
        ("push: {url: 'http://gateway:99999'}", "push.url: expected a URL"),
        ("feedback: {prometheus: {url: 'http://:9090'}}", "feedback.prometheus.url: expected a URL"),
        ("feedback: {prometheus: {url: 'http://server:0'}}", "feedback.prometheus.url: expected a URL"),
        ('push: {url: "http://gateway\\n"}', "push.url: expected a URL"),
        ('dask: {scheduler: "tcp://127.0.0.1:8786\\n"}', "dask.scheduler: expected tcp://host:port or tls://host:port"),
        ("web: {listen_address: [':99999']}", "web.listen_address[0]: expected host:port"),
        ("web: {telemetry_path: /-/healthy}", "web.telemetry_path: expected a path like /metrics, other than"),
        ("web: {telemetry_path: /-/ready}", "web.telemetry_path: expected a path like /metrics"),
        ("web: {telemetry_path: metrics}", "web.telemetry_path: expected a path like /metrics"),
        ("dask: {scheduler: 'sched:8786'}", "dask.scheduler: expected tcp://host:port or tls://host:port, found"),
        ("dask: {scheduler: 'tcp://sched:8786'}", "dask.scheduler: without TLS, anyone who reaches the scheduler runs"),
        ("dask: {scheduler: 'tls://sched:8786'}", "dask.scheduler: tls:// needs certificates: add `tls:"),
        ("dask: {file: a.json, cluster: 'm:f'}", "dask.cluster: file is given too: give one of them"),
        ("dask: {cluster: m}", "dask.cluster: expected module:function, found 'm'"),
        ("dask: {tls: {ca: a, cert: b}}", "dask.tls: the key 'key' is missing"),
        ("dask: {pass_env: ['A=B']}", "expected the name of an environment variable"),
        ("dask: {upload: {max: lots}}", "dask.upload.max"),
        ("history: {keep: 0}", "history.keep: expected a number of at least 1"),
        ("project: 5y'", "project: \"5y'\" is not a name"),
    ],
)  # fmt: skip
def test_wrong_value_of_a_section_is_reported_at_its_place(tmp_path: Path, section: str, message: str) -> None:
    told = configs.faults(tmp_path, configs.stage() + section + "\n")
    assert len(told) == 1, told
    assert told[0].startswith("paropt.yml:3:")
    assert message in told[0]


def test_repeated_numbers_and_names_refer_to_the_first_stage(tmp_path: Path) -> None:
    told = configs.faults(tmp_path, configs.stage() + "- {number: 1, name: one, run: x}\n")
    assert told == [
        "paropt.yml:3:12: stages[1].number: 1 is also the number of stages[0]",
        "paropt.yml:3:21: stages[1].name: 'one' is also the name of stages[0]",
    ]


def test_every_cycle_of_needs_is_reported_once(tmp_path: Path) -> None:
    needs = {"a": "b", "b": "a", "c": "d", "d": "e", "e": "c", "f": "e"}
    lines = [
        f"- {{number: {n}, name: {name}, run: x, needs: [{need}]}}" for n, (name, need) in enumerate(needs.items())
    ]
    told = configs.faults(tmp_path, "stages:\n" + "\n".join(lines))
    assert [fault.split(": ", 2)[2] for fault in told] == [
        "the needs form a cycle: a -> b -> a",
        "the needs form a cycle: c -> d -> e -> c",
    ]


def test_checks_across_stages_run_beside_wrong_single_values(tmp_path: Path) -> None:
    told = configs.faults(tmp_path, configs.stage(timeout="soon", needs="[absent]"))
    assert len(told) == 2, told


def test_slots_and_memory_beyond_lane_and_machine_are_faults() -> None:
    value = {
        "lanes": {
            "a": {"workers": 2},
            "b": {"workers": 2, "stages": ["small"]},
            "c": {"strategy": "sequential"},
            "d": {"workers": 1},  # runs any stage
        },
        "stages": [
            {"number": 1, "name": "wide", "run": "x", "slots": 3, "memory": "2GiB"},
            {"number": 2, "name": "small", "run": "x", "slots": 2, "memory": "1GiB"},
        ],
    }
    told = [
        (fault.location, fault.message) for fault in cross_check(value, Machine(cores=2, memory_bytes=lambda: 1 << 30))
    ]
    assert told == [
        (
            ("stages", 0, "memory"),
            "2,147,483,648 bytes are more than the machine has (1,073,741,824): the stage could never start",
        ),
        (("stages", 0, "slots"), "3 slots are more than the most workers of lane a (2): it could never start"),
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "it is a directory"),
        (lambda path: path.symlink_to("nowhere"), "it is a link to nothing"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
        (lambda path: None, "there is no such file"),
    ],
)
def test_path_of_another_kind_is_named_by_its_kind(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "paropt.yml"
    make(path)
    with pytest.raises(ConfigError, match=message) as caught:
        config.read_config(path, root=tmp_path)
    assert caught.value.faults[0].startswith(f"{path}:1:1: file: ")


@contextmanager
def _without_rights() -> Iterator[None]:
    """Act as an unprivileged user if the tests run as root, which file modes don't stop."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_unreadable_file_reports_the_permission(tmp_path: Path) -> None:
    path = tmp_path / "paropt.yml"
    path.write_text(configs.stage())
    config.read_config(path, root=tmp_path)
    path.chmod(0)
    with _without_rights(), pytest.raises(ConfigError, match="no permission to read it"):
        config.read_config(path, root=tmp_path)


def test_link_into_a_closed_folder_reports_the_permission(tmp_path: Path) -> None:
    path = tmp_path / "paropt.yml"
    path.symlink_to(tmp_path / "closed/paropt.yml")
    (tmp_path / "closed").mkdir(0o000)
    with _without_rights(), pytest.raises(ConfigError, match="no permission to read it"):
        config.load_config(path, root=tmp_path, environ={})


@pytest.mark.parametrize("other", ["out/log.txt", "./out/log.txt", "out/../out//log.txt"])
def test_one_file_for_two_stages_is_a_fault(tmp_path: Path, other: str) -> None:
    stages = [
        {"number": 1, "name": "one", "run": "x", "file": "out/log.txt"},
        {"number": 2, "name": "two", "run": "x", "file": other},
    ]
    (told,) = configs.faults(tmp_path, json.dumps({"stages": stages}))
    assert told.endswith(f"stages[1].file: {other!r} is also the file of stages[0]: each stage needs its own")


def test_long_names_are_cut_where_known_ones_are_listed(tmp_path: Path) -> None:
    names = ", ".join(f"{{number: {number}, name: {'a' * 3000}{number}, run: x}}" for number in range(20))
    found = configs.faults(tmp_path, f"lanes: {{standard: {{sla: {{two: 5s}}}}}}\nstages: [{names}]")
    assert max(map(len, found)) < 2000


def test_keys_of_a_section_are_listed_before_those_it_shares(tmp_path: Path) -> None:
    (fault,) = configs.faults(tmp_path, configs.stage() + "push: {zzz: 1}\n")
    assert "unknown key 'zzz': choose from url, fail, job, instance, timeout, bearer_token_file, " in fault


@pytest.mark.parametrize(
    ("file", "owner"),
    [
        ("paropt.yml", "the config"),
        ("logs/../paropt.yml", "the config"),
        ("link.txt", "the config"),
        (".paropt/history.db", "a file of the history"),
        (".paropt/out.txt", "in the exporter's own folder"),
        ("runs.db-wal", "a file of the history"),
        ("runs.db.logs/lint", "a file of the history"),
        ("runs.db.functions.json", "a file of the history"),
    ],
)
def test_stage_can_not_empty_the_config_or_the_history(tmp_path: Path, file: str, owner: str) -> None:
    """With `file: paropt.yml`, a run replaced the config by its output."""
    (tmp_path / "link.txt").symlink_to("paropt.yml")
    history = "history: {path: runs.db}\n" if file.startswith("runs") else ""
    assert configs.faults(tmp_path, history + configs.stage(file=file)) == [
        f"paropt.yml:{3 if history else 2}:3: stages[0].file: '{file}' is {owner}, and each run empties the file of a "
        "stage: name another one"
    ]


def test_file_of_a_stage_may_share_the_historys_prefix(tmp_path: Path) -> None:
    read = configs.read(tmp_path, "history: {path: out/runs}\n" + configs.stage(file="out/runs.txt"))
    assert [stage.file for stage in read.stages] == ["out/runs.txt"]
