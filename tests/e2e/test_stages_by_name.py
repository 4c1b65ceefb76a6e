"""Runs of selected stages, with arguments, and their effect on later runs, by the real command."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import projects
from support.in_process import call_command
from support.real_servers import run

STAGES = """
    name: lint, run: "echo lint {args}"
    name: unit, shell: true, run: "echo unit {args} >> ran.txt; test ! -e broken", needs: [lint]
    name: items, shell: true, run: "echo {item} >> items.txt; test ! -e bad_{item}", items: {list: [a, b, c]}
    name: plan, run: "echo stage plan"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return projects.write(tmp_path, STAGES)


def ran(folder: Path, *arguments: str, code: int = 0) -> str:
    ended = run(folder, projects.ANY_PORT, "--once", *arguments)
    assert ended.returncode == code, ended.stderr
    return ended.stdout + ended.stderr


def stages_of_last_run(folder: Path) -> set[str]:
    return set(projects.stages(projects.runs(folder)[-1]))


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("words", "stages"),
    [
        (["unit"], {"lint", "unit"}),
        (["--only", "unit"], {"unit"}),
        (["-s", "u*", "-s", "plan"], {"lint", "unit", "plan"}),
        (["3"], {"items"}),
        (["--skip", "*i*"], {"plan"}),
    ],
)
def test_run_has_the_stages_that_the_command_line_names(project: Path, words: list[str], stages: set[str]) -> None:
    ran(project, *words)
    assert stages_of_last_run(project) == stages


def test_named_stage_runs_in_the_first_lane_that_chooses_it_if_standard_does_not(tmp_path: Path) -> None:
    lanes = "lanes: {standard: {stages: [lint]}, tools: {stages: [unit, plan]}, later: {stages: [plan]}}"
    folder = projects.write(tmp_path, STAGES, lanes=lanes)
    ran(folder, "unit")
    ran(folder, "--stage", "plan")
    ran(folder, "lint")
    assert [(one["lane"], *sorted(projects.stages(one))) for one in projects.runs(folder)] == [
        ("tools", "lint", "unit"), ("tools", "plan"), ("standard", "lint"),
    ]  # fmt: skip
    assert "lane tools of" in call_command(folder, "--dry-run", "plan*").stdout


def test_arguments_reach_the_command(project: Path) -> None:
    ran(project, "unit", "--", "-k", "a b")
    assert lines(project / "ran.txt") == ["unit -k a b"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["unti"], "lane standard has no stage 'unti' (did you mean 'unit'?); it has lint, unit, items, plan"),
        (["hsitory"], "(did you mean the command 'history'?)"),
        (["other.yml"], "(did you mean --config.file other.yml?)"),
        (["init_db"], "has no stage 'init_db' (did you mean the command 'init'?)"),
        (["eheck"], "lane standard has no stage 'eheck'; it has lint, unit, items, plan (--help lists the commands)"),
        (["history", "2026"], "there is no action '2026': to show one run, write --run 2026 (see paropt-exporter"),
        (["plan", "--zzz"], "there is no flag --zzz (see paropt-exporter plan --help)"),
        (["items", "--", "-x"], "-- -x: no stage of items takes arguments: write {args} in its command"),
    ],
)
def test_misspelled_word_is_one_line_and_leaves_no_files(project: Path, words: list[str], said: str) -> None:
    ended = run(project, projects.ANY_PORT, "--once", *words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (project / ".paropt").exists()


def test_failed_runs_only_failed_items_and_lists_the_others(project: Path) -> None:
    (project / "bad_b").touch()
    ran(project, code=1)
    (project / "items.txt").unlink()
    again = ran(project, "--failed", code=1)
    assert lines(project / "items.txt") == ["b"]
    assert "--failed runs items (1 failed item only); leaves out lint, unit, plan, which succeeded" in again
    (project / "bad_b").unlink()
    ran(project, "--failed")
    assert "--failed: nothing to run: no stage of lane standard failed when it last ran" in ran(project, "--failed")


def test_run_of_one_stage_leaves_the_others_failed(project: Path) -> None:
    (project / "broken").touch()
    ran(project, code=1)
    ran(project, "lint")
    (project / "broken").unlink()
    ran(project, "--failed")
    assert stages_of_last_run(project) == {"unit"}


def test_stage_that_passed_with_arguments_is_still_failed(project: Path) -> None:
    (project / "broken").touch()
    ran(project, code=1)
    (project / "broken").unlink()
    ran(project, "unit", "--", "-k", "x")
    assert "--failed runs unit" in ran(project, "--failed")


def test_run_of_an_item_changes_no_result_of_its_stage(project: Path) -> None:
    (project / "bad_b").touch()
    ran(project, code=1)
    (project / "items.txt").unlink()
    assert "again    paropt-exporter --lane standard --once --stage 'items[b]'\n" in ran(project, "items[b]", code=1)
    ran(project, "items[a]")
    assert lines(project / "items.txt") == ["b", "a"]
    assert "--failed runs items (1 failed item only)" in ran(project, "--failed", code=1)


def test_summary_repeats_a_narrowed_run(project: Path) -> None:
    (project / "broken").touch()
    assert "again    paropt-exporter --lane standard --once --stage unit --failed" in ran(project, "unit", code=1)
    repeated = "again    paropt-exporter --lane standard --once --stage unit -- -k 'a b'"
    assert repeated in ran(project, "unit", "--", "-k", "a b", code=1)


def test_narrowed_run_keeps_the_series_of_the_other_stages(project: Path) -> None:
    out = project / "textfile"
    out.mkdir()
    ran(project)
    ran(project, "lint", "--textfile", str(out))
    (page,) = (path.read_text() for path in out.iterdir())
    samples = projects.samples(page)
    assert samples["paropt_stage_runs_total", "standard", "success", "unit"] == 1
    assert samples["paropt_stage_runs_total", "standard", "success", "lint"] == 2
    assert samples["paropt_run_duration_seconds_count", "standard"] == 1


@pytest.mark.parametrize(("first", "succeeded"), [((), True), (("unit",), False)])
def test_repeated_failures_are_a_success_of_a_lane_whose_other_stages_have_run(
    project: Path, first: tuple[str, ...], succeeded: bool
) -> None:
    (project / "broken").touch()
    ran(project, *first, code=1)
    (project / "broken").unlink()
    out = project / "textfile"
    out.mkdir()
    ran(project, "--failed", "--textfile", str(out))
    (page,) = (path.read_text() for path in out.iterdir())
    assert ("paropt_run_last_success_timestamp_seconds{" in page) == succeeded
    assert ("paropt_run_last_duration_seconds{" in page) == (not first)


def test_list_names_lanes_and_stages_and_runs_nothing(project: Path) -> None:
    listed = run(project, "--list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [line for line in listed.stdout.splitlines() if line.split()[:2] == ["2", "unit"]]
    assert call_command(project, "--list", "-q").stdout.split() == ["lint", "unit", "items", "plan"]
    assert not (project / ".paropt").exists()


def test_list_of_selected_stages_has_only_these(project: Path) -> None:
    assert call_command(project, "--list", "-q", "unit").stdout.split() == ["lint", "unit"]
    assert call_command(project, "--list", "-q", "unit", "--only").stdout.split() == ["unit"]
    assert call_command(project, "--list", "-q", "--skip", "unit").stdout.split() == ["lint", "items", "plan"]
    unknown = call_command(project, "--list", "untt")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "no stage 'untt' (did you mean 'unit'?)" in unknown.stderr


def test_dry_run_is_the_plan_of_the_named_stages(project: Path) -> None:
    shown = run(project, "unit", "--dry-run", "-j", "3", "--", "-k", "x")
    assert shown.returncode == 0
    assert "3 workers" in shown.stdout
    assert "unit -k x" in shown.stdout
    assert "items" not in shown.stdout
    assert not (project / "ran.txt").exists()


def test_quiet_shows_failures_and_the_summary_only(project: Path) -> None:
    assert len(run(project, projects.ANY_PORT, "--once", "-q", "lint").stderr.splitlines()) == 0
    (project / "broken").touch()
    shown = run(project, projects.ANY_PORT, "--once", "-q", "unit")
    assert "unit failed after" in shown.stderr
    assert "lint succeeded" not in shown.stderr


def test_plan_says_that_a_stage_never_succeeded(project: Path) -> None:
    (project / "broken").touch()
    ran(project, "unit", code=1)
    row = next(line for line in call_command(project, "plan").stdout.splitlines() if line.split()[2:3] == ["unit"])
    assert "never succeeded" in row


def test_failed_again_and_again_ends_with_the_last_failure(project: Path) -> None:
    (project / "broken").touch()
    ran(project, "unit", code=1)
    (project / "broken").unlink()
    ended = run(project, projects.ANY_PORT, "unit", "--failed", "--every", "100ms")
    assert ended.returncode == 0, ended.stderr
    assert "--failed: nothing to run" in ended.stderr
