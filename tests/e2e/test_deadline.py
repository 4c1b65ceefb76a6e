"""`--deadline` with the installed command."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from support import projects
from support.in_process import call_command
from support.real_servers import HANG_SECONDS, eventually, run, serving


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stage `slow` took 3 s in a run, and takes until `release` exists from then on."""
    folder = tmp_path_factory.mktemp("recorded") / "project"
    folder.mkdir()
    wait = "test -e ran || { touch ran; sleep 3; exit 0; }; touch started; until test -e release; do sleep 0.05; done"
    projects.write(folder, f'name: quick, run: "true"\nname: slow, run: "{wait}", shell: true')
    assert run(folder, "--once", projects.ANY_PORT).returncode == 0
    return folder


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(recorded, tmp_path / recorded.name)


def find_deadline(folder: Path) -> str:
    """Return a deadline with time for `quick` and not for both, however busy the machine was in the first run."""
    planned = json.loads(call_command(folder, "plan", "--output", "json").stdout)["stages"]
    expected = {stage["name"]: stage["expected_seconds"] for stage in planned}
    return f"{round(1000 * (expected['quick'] + expected['slow'] / 2))}ms"


def test_lane_that_fits_ends_with_0(folder: Path) -> None:
    (folder / "release").touch()
    ran = run(folder, "--once", projects.ANY_PORT, "--deadline", "1h")
    assert ran.returncode == 0, ran.stderr
    assert "--deadline 3600 s: 2 of 2 stages" in ran.stderr


def test_run_without_some_stages_is_not_green(folder: Path) -> None:
    deadline = find_deadline(folder)
    ran = run(folder, "--once", projects.ANY_PORT, "--deadline", deadline, "-j1")
    assert ran.returncode == 5, ran.stderr
    seconds = int(deadline.removesuffix("ms")) / 1000
    assert f"standard incomplete: no time for slow before the deadline of {seconds:g} s" in ran.stdout
    last = projects.runs(folder)[-1]
    assert (last["result"], last["partial"], set(projects.stages(last))) == ("cancellation", True, {"quick"})


def test_run_without_some_stages_names_the_command_that_runs_them(folder: Path) -> None:
    """It named --failed, after which nothing had failed."""
    ran = run(folder, "--once", projects.ANY_PORT, "--deadline", find_deadline(folder), "-j1")
    assert ran.stdout.endswith("  again    paropt-exporter --lane standard --once\n")


def test_failure_wins_over_left_out_stages(folder: Path) -> None:
    deadline, config = find_deadline(folder), (folder / "paropt.yml").read_text()
    (folder / "paropt.yml").write_text(config.replace('run: "true"', 'run: "false"'))
    assert run(folder, "--once", projects.ANY_PORT, "--deadline", deadline, "-j1").returncode == 1


def test_prediction_is_on_the_page_from_the_start_and_the_deadline_stops_the_run(folder: Path) -> None:
    with serving(folder, projects.ANY_PORT, "--deadline", "5s") as command:
        eventually("the slow stage runs", (folder / "started").exists)
        page = projects.scraped(projects.url(folder))
        deadline = page["paropt_run_deadline_timestamp_seconds", "standard"]
        assert deadline - 5 < page["paropt_run_predicted_end_timestamp_seconds", "standard"] < deadline
        eventually("the deadline stops it", lambda: "slow ended after" in projects.messages(folder))
        eventually(
            "the run has ended",
            lambda: projects.scraped(projects.url(folder))["paropt_run_in_progress", "standard"] == 0,
        )
        page = projects.scraped(projects.url(folder))
        assert not [key for key in page if key[0] in {"paropt_run_deadline_timestamp_seconds",
                                                      "paropt_run_predicted_end_timestamp_seconds"}]  # fmt: skip
        command.process.send_signal(signal.SIGTERM)
        assert command.process.wait(HANG_SECONDS) == 5


def test_plan_shows_the_chosen_stages(folder: Path) -> None:
    planned = call_command(folder, "--dry-run", "--deadline", find_deadline(folder), "-j1", "--output", "json")
    assert [stage["name"] for stage in json.loads(planned.stdout)["stages"]] == ["quick"]
    assert "leaves out slow: no time" in planned.stderr


def test_plan_counts_on_cached_results_as_the_run_would(tmp_path: Path) -> None:
    """With --no-cache it took their stages for skipped."""
    projects.write(tmp_path, 'name: quick, run: "true"\nname: slow, run: sleep 0.5, inputs: [paropt.yml]')
    assert run(tmp_path, "--once", projects.ANY_PORT).returncode == 0
    flags = ("--dry-run", "--deadline", "200ms", "--output", "json")
    for more, planned in ((), {"quick", "slow"}), (("--no-cache",), {"quick"}):
        stages = json.loads(call_command(tmp_path, *flags, *more).stdout)["stages"]
        assert {stage["name"] for stage in stages} == planned


def test_deadline_without_a_known_duration_is_one_line(tmp_path: Path) -> None:
    projects.write(tmp_path, "name: a, run: 'true'")
    ran = run(tmp_path, "--once", projects.ANY_PORT, "--deadline", "60s")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "run the lane once without it" in ran.stderr
    ran = run(tmp_path, "--once", projects.ANY_PORT, "--deadline", "soon")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
