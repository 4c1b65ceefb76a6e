"""The installed command as people and CI systems use it: flags, help, repetition, JSON, locales and pipes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from support import projects
from support.in_process import call_command
from support.real_servers import HANG_SECONDS, environment, eventually, installed_command, run, serving

GOOD = 'name: good, run: "echo hello"'
C_LOCALE = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return projects.write(tmp_path, GOOD)


def shell(folder: Path, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which $P is the command, once, on any port."""
    command = f"{installed_command()} --once {projects.ANY_PORT}"
    return subprocess.run(
        ["bash", "-c", f'P="{command}"; {script}'],
        cwd=folder, env=environment(**env), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=HANG_SECONDS, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", [[], ["init"], ["check"], ["plan"], ["generate"], ["history"]])
def test_every_command_has_help(tmp_path: Path, command: list[str]) -> None:
    shown = call_command(tmp_path, *command, "--help", COLUMNS="20")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "--config.file" in shown.stdout


@pytest.mark.parametrize("command", [(), ("plan",)])
def test_help_has_no_escapes_where_colors_are_forced(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Python 3.14 colours the help of argparse, and our streams show escapes as text."""
    shown = call_command(tmp_path, *command, "--help", FORCE_COLOR="1")
    assert shown.stdout.startswith("usage: paropt-exporter ")
    assert "x1b" not in shown.stdout


def test_module_and_command_report_the_same_version(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "paropt_exporter", "--version"], capture_output=True, text=True, check=True
    )
    assert told.stdout == run(tmp_path, "--version").stdout
    assert re.fullmatch(r"paropt-exporter \d+\.\d+\.\d+\S*\n", told.stdout)


@pytest.mark.parametrize(
    "arguments", [["plan"], ["check"], ["--list"], ["history"], ["plan", "--help"], ["--frob"], ["log", "--lane", "x"]]
)
def test_call_in_the_process_of_a_test_has_the_result_of_the_command(good: Path, arguments: list[str]) -> None:
    """`call_command` stands for the command in other tests."""
    called, ran = call_command(good, *arguments), run(good, *arguments)
    assert (called.returncode, called.stdout, called.stderr) == (ran.returncode, ran.stdout, ran.stderr)


def test_quiet_run_prints_the_summary_alone(good: Path) -> None:
    (good / "below").mkdir()
    ran = run(good / "below", "-q", projects.ANY_PORT, CI="true")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("standard succeeded")
    with serving(good, "-q", projects.ANY_PORT) as command:
        assert "  metrics  http://" in projects.whole_summary(command)
        assert projects.messages(good) == ""


def test_once_names_no_closed_endpoint(good: Path) -> None:
    ended = run(good, "--once", projects.ANY_PORT)
    assert (ended.returncode, "http://" in ended.stdout) == (0, False)


@pytest.mark.parametrize(
    "order", [["--config.file", "elsewhere.yml", "plan"], ["plan", "--config.file", "elsewhere.yml"]]
)
def test_global_flags_stand_before_or_after_a_command(good: Path, order: list[str]) -> None:
    (good / "paropt.yml").rename(good / "elsewhere.yml")
    shown = call_command(good, *order)
    assert shown.returncode == 0
    assert "echo hello" in shown.stdout


@pytest.mark.parametrize("order", [["--lane", "docs", "plan"], ["plan", "--lane", "docs"]])
def test_lane_is_given_before_or_after_a_command(good: Path, order: list[str]) -> None:
    assert "docs" in call_command(good, *order).stdout.splitlines()[0]


def test_lane_auto_picks_the_lane_from_the_git_diff_and_says_why(good: Path) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    (good / "README.md").write_text("one\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], cwd=good, check=True, timeout=HANG_SECONDS)
    (good / "README.md").write_text("two\n")
    ended = run(good, "--lane", "auto", "--once", projects.ANY_PORT)
    assert ended.stdout.startswith("docs succeeded")
    assert re.search(r"lane docs: .*(docs|documentation|README)", ended.stderr)


def test_json_output_is_one_document_on_stdout(good: Path) -> None:
    ended = run(good, "--once", "--output", "json", projects.ANY_PORT)
    document = json.loads(ended.stdout)
    assert (document["lane"], document["result"]) == ("standard", "success")
    assert [stage["stage"] for stage in document["stages"]] == ["good"]


def test_ci_implies_once_and_says_so_in_a_line(good: Path) -> None:
    ended = run(good, projects.ANY_PORT, CI="true")
    assert ended.returncode == 0
    assert (
        len([line for line in ended.stderr.splitlines() if "CI is set: exiting after the lane (--no-once" in line]) == 1
    )


def test_no_once_serves_on_under_ci(good: Path) -> None:
    with serving(good, "--no-once", projects.ANY_PORT, CI="true") as command:
        projects.whole_summary(command)
        assert projects.scraped(projects.url(good))["paropt_runs_total", "standard", "success"] == 1
        assert command.process.poll() is None
        assert command.stop() == 0


def lasting(folder: Path, seconds: float) -> Path:
    return projects.write(folder, f'name: lasting, call: "calls:last", items: {{list: ["{seconds}"]}}', calls="""
        import time
        def last(seconds):
            began = time.monotonic()
            time.sleep(float(seconds))
            with open("times", "a") as times:
                times.write(f"{began} {time.monotonic()}\\n")
    """)  # fmt: skip


def times_of(folder: Path, count: int) -> list[tuple[float, float]]:
    def look() -> list[list[str]] | None:
        lines = (folder / "times").read_text().splitlines() if (folder / "times").exists() else []
        return [line.split() for line in lines] if len(lines) >= count else None

    return [(float(began), float(ended)) for began, ended in eventually(f"{count} runs", look)]


def test_every_repeats_from_start_to_start(tmp_path: Path) -> None:
    lasting(tmp_path, 0.5)
    with serving(tmp_path, "--every", "600ms", projects.ANY_PORT) as command:
        times = times_of(tmp_path, 5)
        command.stop()
    gaps = [began - ended for (_, ended), (began, _) in pairwise(times)]
    assert min(gaps) < 0.6, "the interval does not begin at the end of a run, after which it would pass as a whole"
    assert times[4][0] - times[0][0] > 1.9, "four intervals take 2.4 seconds, less the delay of the first run"


def test_every_never_overlaps_runs_that_last_longer(tmp_path: Path) -> None:
    lasting(tmp_path, 0.5)
    with serving(tmp_path, "--every", "200ms", projects.ANY_PORT) as command:
        times = times_of(tmp_path, 3)
        command.stop()
    assert all(ended <= began for (_, ended), (began, _) in pairwise(times))


def test_output_is_ascii_where_the_locale_is(good: Path) -> None:
    ended = run(good, "--once", projects.ANY_PORT, **C_LOCALE)
    assert ended.returncode == 0
    assert ended.stdout.startswith("standard succeeded - 1 stage, 1 task in ")
    assert run(good, "plan", **C_LOCALE).returncode == 0
    assert run(good, "history", **C_LOCALE).returncode == 0


def test_words_that_the_locale_cannot_write_reach_a_command_in_utf_8(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: spelled, run: "mkdir häß→"')
    ended = run(tmp_path, "--once", projects.ANY_PORT, **C_LOCALE)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "häß→").is_dir()


@pytest.mark.parametrize(
    "script",
    ["$P | head -1", "$P | true", "$P 2>&1 | head -1", "$P >&-", "$P 2>&-", "$P <&- >&- 2>&-", "$P 2>/dev/full"],
)
def test_stream_without_a_reader_does_not_affect_the_run(good: Path, script: str) -> None:
    ended = shell(good, f"set -o pipefail; {script}")
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception" not in ended.stderr
    assert projects.runs(good)[-1]["result"] == "success"


def test_summary_that_cannot_be_written_ends_with_3_and_says_so(good: Path) -> None:
    ended = shell(good, "$P >/dev/full")
    assert ended.returncode == 3
    assert "the summary could not be written" in ended.stderr
    assert projects.runs(good)[-1]["result"] == "success"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["--version", "--help", "plan", "completion bash", "generate schema"])
def test_full_disk_exits_3_with_one_line(good: Path, arguments: str, unbuffered: str) -> None:
    """The script of `completion` is larger than the buffer of the stream."""
    ended = shell(good, f"PYTHONUNBUFFERED={unbuffered} {installed_command()} {arguments} >/dev/full")
    assert ended.returncode == 3
    assert ended.stderr == "paropt-exporter: cannot write to standard output: No space left on device\n"


def test_error_after_output_that_cannot_be_written_has_no_traceback(good: Path) -> None:
    (good / "alerts").touch()
    ended = shell(good, f"PYTHONUNBUFFERED= {installed_command()} generate schema alerts >/dev/full")
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "paropt-exporter: generate: cannot write alerts/paropt-recording.yml: File exists: choose another --out",
        "paropt-exporter: cannot write to standard output: No space left on device",
    ]


def test_history_into_a_reader_that_leaves_has_no_traceback(good: Path) -> None:
    run(good, "--once", projects.ANY_PORT)
    ended = shell(good, f"{installed_command()} history --output json | true")
    assert ended.stderr == ""


@pytest.mark.parametrize(
    "setting",
    ["env -u HOME PYTHONOPTIMIZE=2 NO_COLOR=1 COLUMNS=20", "env HOME=/nonexistent TERM=dumb"],
)
def test_bare_environment_is_enough(good: Path, setting: str) -> None:
    ended = shell(good, f"{setting} $P")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("standard succeeded")
    assert "\x1b" not in ended.stdout + ended.stderr


def test_tight_umask_is_enough(good: Path) -> None:
    ended = shell(good, "umask 077; $P && $P")
    assert ended.returncode == 0, ended.stderr
    assert len(projects.runs(good)) == 2


def test_read_only_folder_costs_the_history_and_the_exit_code_but_not_the_work(good: Path) -> None:
    good.chmod(0o555)
    mortal = "setpriv --bounding-set=-dac_override" if os.geteuid() == 0 else ""  # root may write anywhere else
    ended = shell(good, f"{mortal} $P")
    assert ended.returncode == 3, ended.stderr
    assert ended.stdout.startswith("standard succeeded")
    warning, last = (line for line in ended.stderr.splitlines() if "history" in line)
    assert ".paropt" in warning
    assert "exit code 3: history " in last
    assert "choose another place (history: {path: FILE})" in last
    assert last == ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [("--once", projects.ANY_PORT), ("plan",), ("check",)])
def test_project_without_stages_gets_the_first_steps(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = run(tmp_path, *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    said = ended.stderr.splitlines()
    assert "no stage to run: write stages into paropt.yml (paropt-exporter init makes one)" in said[0] + said[-2]
    assert "unit_tests, integration_tests, security_scan left out: the project has no known tool for it" in ended.stderr


def test_list_without_stages_names_the_first_step(tmp_path: Path) -> None:
    """It was a table without rows."""
    lines = call_command(tmp_path, "--list").stdout.splitlines()
    assert "no stage to run: write stages into paropt.yml (paropt-exporter init makes one)" in lines
    assert not any(line.startswith("number") for line in lines)


def test_missing_built_in_stages_are_listed_once(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("lint:\n\ttrue\n")
    with serving(tmp_path, projects.ANY_PORT, "--every", "100ms") as command:
        for _ in range(3):
            projects.whole_summary(command)
        command.stop()
    assert projects.messages(tmp_path).count("unit_tests left out") == 1


def test_stage_that_is_skipped_says_so_once(tmp_path: Path) -> None:
    projects.write(
        tmp_path, 'name: none, run: "x {item}", items: {glob: "*.none", allow_empty: true}\nname: good, run: "true"'
    )
    ended = run(tmp_path, "--once", projects.ANY_PORT)
    assert ended.stderr.count("none skipped: no items: nothing matches *.none") == 1, ended.stderr


def test_with_json_logs_every_line_on_stderr_is_json(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: bad, run: "echo no; exit 1", shell: true')
    ended = run(tmp_path, "--once", "--log.format", "json", projects.ANY_PORT)
    logged = [json.loads(line) for line in ended.stderr.splitlines()]
    assert any("bad failed" in line["msg"] for line in logged)
    (stage,) = (line for line in logged if line.get("event") == "stage_ended")
    assert (stage["stage"], stage["result"]) == ("bad", "failure")


def test_lingering_without_an_end_is_rejected(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "true"')
    ended = run(tmp_path, "--web.linger", "1s", projects.ANY_PORT)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)


def test_stage_whose_glob_matches_nothing_fails_its_run(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: none, run: "x {item}", items: {glob: "*.none"}\nname: good, run: "true"')
    ended = run(tmp_path, "--once", projects.ANY_PORT)
    assert ended.returncode == 1
    assert "stages[0]: items: nothing matches *.none: correct the glob, or write allow_empty: true" in ended.stdout


def test_items_command_runs_once_for_each_run(tmp_path: Path) -> None:
    items = "items: {command: [sh, -c, 'echo one; echo >> asked']}"
    projects.write(tmp_path, f'name: work, run: "true {{item}}", {items}')
    for runs in (1, 2):
        assert run(tmp_path, "--once", projects.ANY_PORT).returncode == 0
        assert (tmp_path / "asked").read_text() == "\n" * runs


def test_command_that_repeats_failures_names_the_config_of_the_run(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: bad, run: "false"')
    (tmp_path / "paropt.yml").rename(tmp_path / "an other.yml")
    ended = run(tmp_path, "--once", "--config.file", "an other.yml", projects.ANY_PORT)
    (again,) = (line for line in ended.stdout.splitlines() if line.startswith("  again"))
    assert again.endswith("paropt-exporter --lane standard --once --config.file 'an other.yml' --failed")


def test_lingering_endpoint_says_until_when(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "true"')
    with serving(tmp_path, projects.ANY_PORT) as command:
        assert projects.whole_summary(command).splitlines()[-1].endswith("/metrics until Ctrl-C")
        command.stop()
    ended = run(tmp_path, "--once", "--web.linger", "100ms", projects.ANY_PORT)
    assert ended.stdout.splitlines()[-1].endswith("/metrics until a scrape, at most 0.1 s")
