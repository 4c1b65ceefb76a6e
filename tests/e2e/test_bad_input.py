"""Nonsense on the command line, in the config and from the work: one clear error, never a traceback."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from support import projects
from support.in_process import call_command
from support.real_servers import HANG_SECONDS, run, serving

GOOD = 'name: good, run: "true"'


def assert_one_line(ended: object, *words: str) -> None:
    assert ended.returncode == 2, ended  # type: ignore[attr-defined]  # a CompletedProcess
    lines = ended.stderr.splitlines()  # type: ignore[attr-defined]  # a CompletedProcess
    assert len(lines) == 1, lines
    assert all(word in lines[0] for word in words), lines


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "--lane", "nope"], ["'nope'", "docs, standard, heavy"]),
        (["check", "--lane", "nope"], ["'nope'", "docs, standard, heavy"]),
        (["history", "--lane", "standrad"], ["'standrad'", "did you mean 'standard'?", "docs, standard, heavy"]),
        (["history", "--compare", "one", "other"], ["'one'", "the latest are"]),
        (["history", "--limit", "0"], ["'0'"]),
        (["generate", "nope"], ["'nope'", "schema"]),
        (["generate"], ["alerts, fleet", "--out DIR"]),  # it would replace a project's own docs/runbook.md
        (["sla", "--lane", "nope"], ["'nope'", "docs, standard, heavy"]),
        (["sla", "--quantile", "2"], ["--quantile", "'2'", "over 0 and at most 1"]),
        (["sla", "--margin", "-1"], ["--margin"]),
        (["sla", "--write"], ["--write", "nothing to change"]),
        (["nope"], ["'nope'", "--help"]),
        (["--strategy", "magic"], ["'magic'", "adaptive"]),
        (["--workers", "0"], ["--workers", "'0'"]),
        (["--workers", ""], ["--workers"]),
        (["--workers", "4-2"], ["--workers"]),
        (["--every", "0"], ["--every", "above 0"]),
        (["--every", "-5m"], ["--every"]),
        (["--every", "nan"], ["--every", "'nan'"]),
        (["--every", "soon"], ["--every", "'soon'"]),
        (["--once", "--every", "5m"], ["--every", "--once"]),
        (["--once", "--web.linger", "inf"], ["--web.linger"]),
        (["--web.max-requests", "none"], ["--web.max-requests"]),
        (["--web.max-requests", "100001"], ["--web.max-requests", "'100001'", "0 to 100000"]),
        (["--fail-fast", "--keep-going"], ["--keep-going", "--fail-fast"]),
        (["--log.level", "loud"], ["'loud'", "debug"]),
        (["--log.format", "xml"], ["'xml'", "logfmt"]),
        (["--output", "yaml"], ["'yaml'", "json"]),
        (["--lan", "docs"], ["--lan:", "--lane?"]),
        (["--affected="], ["--affected: the commit is empty"]),
    ],
    ids=" ".join,
)
def test_faulty_flag_is_one_line_with_the_remedy(project: Path, arguments: list[str], words: list[str]) -> None:
    assert_one_line(call_command(project, *arguments), *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lane", "stanard"], ["'stanard'", "docs, standard, heavy"]),
        (["--lane", ""], ["docs, standard, heavy"]),
        (["--web.max-requests", "0", "--lane", "stanard"], ["'stanard'", "docs, standard, heavy"]),
        (["--web.telemetry-path", "metrics"], ["'metrics'", "/metrics"]),
        (["--failed", "--lane", "heavy"], ["--failed", "heavy"]),
        (["--config.file", "nope.yml"], ["nope.yml"]),
        (["--config.file", ""], ["--config.file"]),
        (["--push.url", ""], ["--push.url: the URL is empty"]),
        (["--frob"], ["--frob"]),
    ],
    ids=" ".join,
)
def test_lane_that_cannot_start_is_one_line_with_the_remedy(
    project: Path, arguments: list[str], words: list[str]
) -> None:
    assert_one_line(run(project, projects.ANY_PORT, *arguments), *words)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one run behind it."""
    folder = projects.write(tmp_path_factory.mktemp("project"), GOOD)
    assert run(folder, "--once", projects.ANY_PORT).returncode == 0
    return folder


def test_config_named_by_the_environment_that_is_missing_says_so(project: Path) -> None:
    assert_one_line(call_command(project, "check", PAROPT_CONFIG_FILE="nope.yml"), "PAROPT_CONFIG_FILE", "nope.yml")


BROKEN = b"""\
stages:
  - {number: 1, name: one, rum: "true"}
  - {number: 1, name: two, run: "true", timeout: .nan}
  - {number: 3, name: three, run: "true", needs: [fuor]}
"""


def test_every_command_reports_all_faults_of_the_config_at_their_places(tmp_path: Path) -> None:
    (tmp_path / "paropt.yml").write_bytes(BROKEN)
    for ended in (run(tmp_path, "--once"), *(call_command(tmp_path, each) for each in ("check", "plan", "history"))):
        assert ended.returncode == 2, ended.args
        lines = (ended.stderr + ended.stdout).splitlines()
        assert len([line for line in lines if re.match(r"paropt\.yml:\d+:\d+: stages", line)]) >= 4, ended
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "content",
    [b"\x00\x01\x02", b"a: [1", b"\xff\xfe\xfa", b"- one\n- two\n", b"stages: !!python/object:os.system {}", b"a: *b",
     b"\t", b"stages: {", b"a: 1\na: 2\n"],
    ids=repr,
)  # fmt: skip
def test_file_that_is_not_a_config_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "paropt.yml").write_bytes(content)
    ended = call_command(tmp_path, "plan")
    assert ended.returncode == 2
    assert re.match(r"paropt\.yml:\d+:\d+: ", ended.stderr)
    assert "Traceback" not in ended.stderr


def test_dangling_link_and_a_folder_are_no_config(tmp_path: Path) -> None:
    (tmp_path / "paropt.yml").symlink_to("gone.yml")
    assert_one_line(run(tmp_path, "--once"), "paropt.yml")
    (tmp_path / "paropt.yml").unlink()
    (tmp_path / "paropt.yml").mkdir()
    assert_one_line(run(tmp_path, "--once"), "paropt.yml", "directory")


def test_fifty_megabytes_of_output_are_cut_shown_at_the_end_and_whole_in_the_file(tmp_path: Path) -> None:
    line = "x" * 99
    script = f"import sys\nprint('{line}\\n' * 500_000 + 'the end')\nsys.exit(1)\n"
    (tmp_path / "flood.py").write_text(script)
    projects.write(tmp_path, f'name: flood, run: ["{sys.executable}", flood.py], file: flood.log')
    ended = run(tmp_path, "--once", projects.ANY_PORT)
    assert ended.returncode == 1, ended.stderr
    assert len(ended.stderr) < 20_000
    assert "the end\n---" in ended.stderr
    assert "flood.log" in ended.stderr
    assert (tmp_path / "flood.log").stat().st_size == 500_000 * 100 + len("the end\n")


def test_verbose_shows_the_output_of_every_task(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: quiet, run: "seq 1 300", shell: true')
    quiet = run(tmp_path, "--once", projects.ANY_PORT)
    assert "\n299\n" not in quiet.stderr
    loud = run(tmp_path, "--once", "--verbose", projects.ANY_PORT)
    assert "\n1\n2\n3\n" in loud.stderr
    assert "\n299\n300\n---" in loud.stderr


def test_output_that_is_not_utf_8_or_one_endless_line_is_shown(tmp_path: Path) -> None:
    projects.write(
        tmp_path,
        r"""
        name: latin, run: "printf 'caf\\351 \\000 end\\n'; exit 1", shell: true
        name: long_line, run: "head -c 3000000 /dev/zero | tr '\\0' y; exit 1", shell: true
        """,
    )
    ended = run(tmp_path, "--once", projects.ANY_PORT)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert re.search(r"caf\S+ .*end", ended.stdout)
    assert max(map(len, ended.stdout.splitlines())) < 300


def test_items_with_spaces_quotes_and_newlines_stay_one_argument(tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text("import sys\nopen('seen', 'a').write(repr(sys.argv[1:]) + '\\n')\n")
    items = r"""items: {list: ["a b", "c'd", "e\nf", "$(touch owned)"]}"""
    projects.write(
        tmp_path,
        f"""
        name: plain, run: "{sys.executable} show.py {{item}}", {items}
        name: shelled, run: "{sys.executable} show.py {{item}}", shell: true, {items}
        """,
    )
    ended = run(tmp_path, "--once", "--workers", "2", projects.ANY_PORT)
    assert ended.returncode == 0, ended.stderr
    expected = ["a b", "c'd", "e\nf", "$(touch owned)"]
    assert sorted((tmp_path / "seen").read_text().splitlines()) == sorted(repr([item]) for item in expected * 2)
    assert not (tmp_path / "owned").exists()


def test_config_changed_during_a_lane_takes_effect_at_the_next_start(tmp_path: Path) -> None:
    stages = """
        name: first, run: "echo $$ > began; until test -e changed; do sleep 0.02; done", shell: true
        name: second, run: "touch second", needs: [first]
    """
    projects.write(tmp_path, stages)
    with serving(tmp_path, "--once", projects.ANY_PORT) as command:
        projects.pid_in(tmp_path / "began")
        (tmp_path / "paropt.yml").write_text("stages: [nonsense")
        (tmp_path / "changed").touch()
        assert "standard succeeded" in command.summary()
        assert command.process.wait(HANG_SECONDS) == 0
    assert (tmp_path / "second").exists()
    assert_one_line(run(tmp_path, "--once"), "paropt.yml:", "invalid YAML")
