"""The cache as a user has it: the command, real stages, summary, plan --why, history, log and metrics."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import projects
from support.in_process import call_command
from support.real_servers import environment, eventually, installed_command, run, serving

STAGES = """
    name: lint, run: "cat src/a.py; echo linted", shell: true, inputs: [src/**]
    name: build, run: "mkdir -p dist; cp src/a.py dist/out; echo built", shell: true, inputs: [src/**], outputs: [dist]
    name: use, run: "cat dist/out", shell: true, inputs: [README], needs: [build]
    name: deploy, run: "echo deployed >> log.txt", shell: true, inputs: [src/**], cache: never
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PAROPT_CACHE_DIR", str(tmp_path / "store"))
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "src/a.py").write_text("one\n")
    yield projects.write(folder, STAGES)


def run_once(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    done = run(folder, "--once", projects.ANY_PORT, *flags)
    assert done.returncode == 0, done.stderr
    return done


def test_second_run_skips_and_reports_it_everywhere(project: Path) -> None:
    first = run_once(project)
    assert "lint" in first.stdout and "no result in the cache yet" in first.stdout
    second = run_once(project)
    assert "4 stages, 3 cached (saved " in second.stdout
    assert "lint cached: took" in second.stderr
    assert (project / "log.txt").read_text() == "deployed\n" * 2  # `cache: never` ran twice
    assert "linted" in call_command(project, "log", "lint").stdout
    shown = json.loads(run_once(project, "--output", "json").stdout)
    stages = {stage["stage"]: stage for stage in shown["stages"]}
    assert stages["lint"]["tasks_cached"] == 1 and stages["lint"]["saved_seconds"] > 0
    assert stages["deploy"]["tasks_cached"] == 0


def test_unchanged_item_brings_back_no_older_output_of_another_one(project: Path) -> None:
    """`out/1*` matches the output of item 10 too: the result of item 1 restored what item 10 had written before."""
    command = "mkdir -p out; cat src/{item} > out/{item}.txt"
    keys = "shell: true, items: {list: ['10', '1']}, inputs: ['src/{item}'], outputs: ['out/{item}*']"
    projects.write(project, f"""name: make, run: "{command}", {keys}""")
    (project / "src/1").write_text("one")
    for content in ("old", "new", "new"):
        (project / "src/10").write_text(content)
        done = run_once(project)
        assert (project / "out/10.txt").read_text() == content
    assert "its items 1 and 10 may both write out/10*: give each its own outputs" in " ".join(done.stdout.split())


def test_plan_says_on_which_running_stages_a_hit_depends(project: Path) -> None:
    """`use` reads what `build` writes, so that it may run although its files are unchanged before the run."""
    run_once(project)
    assert "cached     use: saves " in (planned := call_command(project, "plan", "--why").stdout)
    assert "unless" not in planned
    (project / "src/a.py").write_text("two\n")
    planned = call_command(project, "plan", "--why").stdout
    assert re.search(r"^cached     use: saves \S+ s, unless build changes its outputs$", planned, re.MULTILINE)


def test_saved_seconds_of_test_files_include_the_start_of_pytest(project: Path) -> None:
    for name in "ab":
        (project / f"test_{name}.py").write_text("def test(): pass\n")
    projects.write(
        project,
        f'name: unit, run: "{sys.executable} -m pytest -q {{items}}", items: {{list: [test_a.py, test_b.py]}}, '
        'inputs: ["{item}"]',
    )
    first, second = (json.loads(run_once(project, "--output", "json", "-j1").stdout)["stages"][0] for _ in range(2))
    assert second["tasks_cached"] == second["task_count"]
    assert second["saved_seconds"] >= 0.9 * first["duration_seconds"]


def test_changed_input_runs_with_one_line_why(project: Path) -> None:
    run_once(project)
    (project / "src/a.py").write_text("two\n")
    planned = run(project, "plan", "--why")
    assert "runs       lint: src/a.py changed" in planned.stdout
    assert "cached     use: saves" in planned.stdout  # with the output of build as it is now
    again = run_once(project)
    assert "lint succeeded" in again.stderr and "(src/a.py changed)" in again.stderr
    assert "(dist/out changed)" in again.stderr
    assert (project / "dist/out").read_text() == "two\n"


def test_plan_with_reasons_expects_no_time_of_a_cached_stage(project: Path) -> None:
    projects.write(
        project,
        """
        name: slow, run: sleep 0.5, inputs: [src/**]
        name: quick, run: echo, cache: never
        """,
    )
    run_once(project)
    expected = [call_command(project, "plan", *flags).stdout for flags in ((), ("--why",))]
    assert [re.findall(r"slow .*?(cached|[\d.]+ s)", text)[0] for text in expected][1] == "cached"
    whole, left = (float(re.findall(r"one after another ([\d.]+) s", text)[0]) for text in expected)
    assert left < whole


def test_go_task_166_and_1305_plan_writes_no_state(project: Path) -> None:
    for command in (("plan", "--why"), ("--dry-run",), ("check",)):
        assert call_command(project, *command).returncode == 0
    assert not (project.parent / "store").exists()
    assert "no result in the cache yet" in run_once(project).stdout


def test_no_cache_runs_all_stages(project: Path) -> None:
    run_once(project)
    again = run_once(project, "--no-cache")
    assert "cached (saved" not in again.stdout and "--no-cache" in again.stdout


def test_cached_stage_sees_only_its_own_variables(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "not to be seen")
    monkeypatch.setenv("SEEN", "1")
    projects.write(project, """name: lint, run: "env", inputs: [src/**], pass_env: [SEEN], env: {OWN: "2"}""")
    run_once(project)
    printed = call_command(project, "log", "lint").stdout
    assert "SEEN=1" in printed and "OWN=2" in printed and "SECRET" not in printed
    assert "not to be seen" not in printed
    monkeypatch.setenv("SECRET", "another value")
    assert "1 cached" in run_once(project).stdout
    monkeypatch.setenv("SEEN", "2")
    assert "env SEEN changed" in run_once(project).stdout


def test_results_do_not_hold_the_values_of_variables(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEN", "very-secret-value")
    projects.write(project, """name: lint, run: "true", inputs: [src/**], pass_env: [SEEN]""")
    run_once(project)
    kept = [path for path in (project.parent / "store").rglob("*") if path.is_file()]
    assert kept
    assert [path for path in kept if b"very-secret-value" in path.read_bytes()] == []


def test_interrupted_stage_runs_again(project: Path) -> None:
    projects.write(project, """name: lint, run: "echo x > began; exec sleep 60", shell: true, inputs: [src/**]""")
    with serving(project, "--once", projects.ANY_PORT) as command:
        eventually("the stage runs", lambda: (project / "began").exists())
        command.process.send_signal(signal.SIGINT)
        assert command.process.wait(30) == 130
    planned = call_command(project, "plan", "--why")
    assert "runs       lint: it failed in its last run" in planned.stdout


def test_cache_commands_show_shrink_and_check_the_store(project: Path) -> None:
    run_once(project)
    facts = json.loads(run(project, "cache", "info", "--output", "json").stdout)
    assert facts["folder"] == os.environ["PAROPT_CACHE_DIR"]
    assert facts["results"] == 3 and 0 < facts["size_bytes"] < facts["limit_bytes"] == 5_000_000_000
    assert "results   3" in call_command(project, "cache", "info").stdout
    assert "0 damaged" in call_command(project, "cache", "verify").stdout
    contents = [path for path in (project.parent / "store/v1/cas").rglob("*") if path.is_file()]
    contents[0].write_bytes(b"damaged")
    checked = run(project, "cache", "verify")
    assert checked.returncode == 1 and f"damaged, removed: {contents[0]}" in checked.stdout
    contents[1].write_bytes(b"damaged")
    checked = run(project, "cache", "verify", "--output", "json")
    assert checked.returncode == 1 and json.loads(checked.stdout)["damaged"] == [str(contents[1])]
    pruned = json.loads(call_command(project, "cache", "prune", "--output", "json").stdout)
    assert pruned == {"removed_files": 0, "removed_bytes": 0}
    assert "removed 0 files" in call_command(project, "cache", "prune").stdout
    assert "removed" in run(project, "cache", "prune", "--all").stdout
    assert json.loads(call_command(project, "cache", "info", "--output", "json").stdout)["size_bytes"] == 0
    assert call_command(project, "cache", "info", "--all").returncode == 2


def test_invalid_size_of_the_store_is_one_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAROPT_CACHE_SIZE", "much")
    done = run(project, "--once", projects.ANY_PORT)
    assert (done.returncode, done.stderr.count("PAROPT_CACHE_SIZE: expected a size")) == (2, 1)


def test_store_in_the_way_costs_a_miss_and_one_line(project: Path) -> None:
    (project.parent / "store").write_text("")
    done = run_once(project)
    assert "lint" in done.stdout and "the cache is not used" in done.stdout


def test_result_whose_file_could_not_be_written_is_not_kept(project: Path) -> None:
    """It was a hit after that, which restored the part that a full disk had taken."""
    projects.write(project, 'name: told, run: "echo told", file: told.txt, inputs: [src/**]')
    (project / "told.txt").mkdir()
    assert "cannot write the output to" in run_once(project).stderr
    (project / "told.txt").rmdir()
    assert "told cached" not in run_once(project).stderr
    assert (project / "told.txt").read_text() == "told\n"
    (project / "told.txt").unlink()
    assert "told cached" in run_once(project).stderr
    assert (project / "told.txt").read_text() == "told\n"


def test_read_only_store_serves_hits_and_a_miss_costs_no_result(project: Path) -> None:
    """Also root, which may write anywhere else, has to obey the permissions here."""
    run_once(project)
    folders = [folder for folder in (project.parent / "store").rglob("*") if folder.is_dir()]
    for folder in folders:
        folder.chmod(0o500)
    try:
        assert "4 stages, 3 cached (saved " in run_without_power(project).stdout
        (project / "src/a.py").write_text("two\n")
        missed = run_without_power(project)
        assert "linted" in call_command(project, "log", "lint").stdout
        (line,) = [line for line in missed.stderr.splitlines() if "lint: not cached" in line]
        assert "the result is not kept: Permission denied" in line
        assert (project / "dist/out").read_text() == "two\n"
    finally:
        for folder in folders:
            folder.chmod(0o700)


def run_without_power(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command once, as a user for whom permissions count."""
    mortal = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*mortal, installed_command(), "--once", projects.ANY_PORT],
        cwd=folder, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done
