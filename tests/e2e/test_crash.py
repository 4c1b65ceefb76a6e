"""The exporter is killed in the middle of a run, or runs beside another one: nothing is orphaned, nothing is lost."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from support import processes, projects
from support.command_scripts import wait_until_gone
from support.real_servers import HANG_SECONDS, eventually, run, serving

STAGES = """
    name: done_before, run: "echo >> done", shell: true
    name: broken_before, run: "test -e repaired", shell: true
    name: under_way, run: sh under_way.sh, needs: [done_before]
    name: in_python, call: "calls:nap", needs: [done_before]
    name: never_begun, run: "true", needs: [under_way]
"""
UNDER_WAY = """
test -e repaired && exit
(trap '' TERM HUP; echo $$ > shell; exec sleep 60) & sleep 60
"""
CALLS = """
    import os, pathlib, time
    def nap():
        pathlib.Path("napping").write_text(str(os.getpid()))
        if not pathlib.Path("repaired").exists():
            time.sleep(60)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one good run, and one whose exporter was killed while a grandchild and a worker process ran."""
    folder = projects.write(tmp_path_factory.mktemp("killed"), STAGES, calls=CALLS)
    (folder / "under_way.sh").write_text(UNDER_WAY)
    (folder / "repaired").touch()
    assert run(folder, "--once", "--strategy", "process", projects.ANY_PORT).returncode == 0
    (folder / "repaired").unlink()
    (folder / "napping").unlink()
    with serving(folder, projects.ANY_PORT, "--strategy", "process", "--workers", "4") as command:
        projects.pid_in(folder / "shell")
        projects.pid_in(folder / "napping")
        left = processes.in_folder(folder)
        assert len(left) >= 5  # exporter, shell, two sleeps, worker
        command.process.send_signal(signal.SIGKILL)
        command.process.communicate(timeout=HANG_SECONDS)
        assert wait_until_gone(left, 5.0) == []
    return folder


def test_kill_9_leaves_no_orphan_and_the_next_start_reports_it(killed: Path) -> None:
    assert processes.in_folder(killed) == []
    with serving(killed, projects.ANY_PORT, "--lane", "docs") as command:  # another lane: the history is the project's
        projects.whole_summary(command)
        samples = projects.scraped(projects.url(killed))
        command.stop()
    (told,) = (line for line in projects.messages(killed).splitlines() if "was interrupted" in line)
    assert "the run of standard that began 20" in told
    assert "under_way" in told
    assert "in_python" in told
    assert "done_before" not in told
    assert samples["paropt_runs_total", "docs", "failure"] == 1


def test_after_kill_9_totals_and_earlier_runs_are_intact(killed: Path) -> None:
    first, second = (one for one in projects.runs(killed) if one["lane"] == "standard")
    assert first["result"] == "success"
    assert (second["result"], second["interrupted"]) == ("cancellation", True)
    stages = projects.stages(second)
    assert stages["done_before"] == ("success", "")
    assert stages["broken_before"] == ("failure", "exit 1")
    assert {stage for stage, (result, _) in stages.items() if result == "cancellation"} >= {"under_way", "in_python"}


def test_failed_runs_only_interrupted_and_failed_stages_and_their_dependents(killed: Path) -> None:
    (killed / "repaired").touch()
    before = (killed / "done").read_text()
    again = run(killed, "--once", "--failed", "--strategy", "process", projects.ANY_PORT)
    assert again.returncode == 0, again.stdout + again.stderr
    assert projects.stages(projects.runs(killed)[-1]).keys() == {
        "broken_before",
        "under_way",
        "in_python",
        "never_begun",
    }
    assert (killed / "done").read_text() == before


def test_two_exporters_at_once_share_one_history_and_their_totals_add_up(tmp_path: Path) -> None:
    projects.write(
        tmp_path,
        'name: meets, run: "echo $$ >> here; until [ $(wc -l < here) -ge 2 ]; do sleep 0.02; done", shell: true',
    )
    (tmp_path / "here").touch()
    with (
        serving(tmp_path, "--once", projects.ANY_PORT) as one,
        serving(tmp_path, "--once", projects.ANY_PORT) as other,
    ):
        assert "standard succeeded" in one.summary()
        assert "standard succeeded" in other.summary()
        assert (one.process.wait(HANG_SECONDS), other.process.wait(HANG_SECONDS)) == (0, 0)
    assert [one["result"] for one in projects.runs(tmp_path)] == ["success", "success"]
    with serving(tmp_path, projects.ANY_PORT) as third:
        projects.whole_summary(third)
        assert projects.scraped(projects.url(tmp_path))["paropt_runs_total", "standard", "success"] == 3
        third.stop()


def test_history_that_a_stage_deletes_is_whole_again_at_the_end(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "true"\nname: cleans, run: "rm -rf .paropt", needs: [good]')
    ended = run(tmp_path, "--once", projects.ANY_PORT)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("the history was deleted or replaced while in use") == 1
    (one,) = projects.runs(tmp_path)
    assert projects.stages(one) == {"good": ("success", ""), "cleans": ("success", "")}


def test_damaged_history_is_set_aside_and_costs_the_past_alone(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "true"')
    damaged = tmp_path / ".paropt/history.db"
    damaged.parent.mkdir()
    damaged.write_bytes(b"garbage" * 1000)
    ended = run(tmp_path, "--once", projects.ANY_PORT)
    assert ended.returncode == 0, ended.stderr
    (told,) = (line for line in ended.stderr.splitlines() if "the history is damaged" in line)
    (kept,) = damaged.parent.glob("history.db.corrupt-*Z")
    assert str(kept) in told
    assert kept.read_bytes() == b"garbage" * 1000
    assert len(projects.runs(tmp_path)) == 1


def test_records_that_the_history_could_not_keep_are_counted(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "true"')
    (tmp_path / ".paropt").write_text("a file in the folder's place")
    with projects.served(tmp_path) as address:
        page = projects.scraped(address)
    assert page["paropt_observations_dropped_total", "history"] >= 4
    assert page["paropt_observations_dropped_total", "metrics"] == 0
    assert "exit code 3: history " in projects.messages(tmp_path)


def test_after_a_full_disk_was_freed_runs_end_with_0_and_no_total_falls(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "true"')
    counted = ("paropt_runs_total", "standard", "success")
    with serving(tmp_path, projects.ANY_PORT, "--every", "1s") as command:
        projects.whole_summary(command)
        # No file may grow any more: write(2) fails like on a full disk.
        before = resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
        eventually("a run that is not in the history", lambda: "exit code 3" in projects.messages(tmp_path))
        resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, before)
        eventually("the history goes on", lambda: "the history is writable again" in projects.messages(tmp_path))
        projects.whole_summary(command)
        shown = projects.scraped(projects.url(tmp_path))[counted]
        assert command.stop() in (0, 143)  # 143: in the middle of a run
    assert projects.messages(tmp_path).count("cannot write the history") == 1
    with projects.served(tmp_path) as address:
        assert projects.scraped(address)[counted] > shown
