"""A changed paropt.yml while the lane runs again and again, and SIGHUP where there is no terminal."""

from __future__ import annotations

import os
import pty
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from support import projects
from support.real_servers import HANG_SECONDS, Serving, environment, eventually, installed_command, run

LINT = 'name: lint, run: "true"'
UNIT = f'{LINT}\nname: unit, run: "true", sla: 30s'
RELOADS = "paropt_exporter_config_reloads_total"
SUCCESSFUL = "paropt_config_last_reload_successful"
LOADED = "paropt_config_last_reload_success_timestamp_seconds"


def connect(folder: Path) -> sqlite3.Connection:
    eventually("there is a history", (folder / ".paropt/history.db").exists)
    return sqlite3.connect(folder / ".paropt/history.db", isolation_level=None)


@contextmanager
def service(folder: Path, *arguments: str) -> Iterator[Serving]:
    """The command as a service manager starts it: in a session of its own, without a terminal."""
    with (folder / "stderr.log").open("w") as log:
        process = subprocess.Popen(
            [installed_command(), projects.ANY_PORT, *arguments], cwd=folder, env=environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield Serving(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=HANG_SECONDS)


def replace_config(folder: Path, stages: str, *, lanes: str = "") -> None:
    """Write a new paropt.yml in the place of the old one, as editors do: another inode, whatever the clock says."""
    (folder / "new").mkdir(exist_ok=True)
    projects.write(folder / "new", stages, lanes=lanes)
    (folder / "new" / "paropt.yml").rename(folder / "paropt.yml")


def seen(url: str, name: str, *labels: str) -> float | None:
    return projects.scraped(url).get((name, *labels))


def runs_of(url: str, stage: str) -> float | None:
    return seen(url, "paropt_stage_runs_total", "standard", "success", stage)


def test_changed_config_is_in_force_from_the_next_run_on(tmp_path: Path) -> None:
    projects.write(tmp_path, LINT)
    with service(tmp_path, "--every", "200ms") as command:
        url = projects.url(tmp_path)
        assert runs_of(url, "unit") is None
        replace_config(tmp_path, UNIT)
        eventually("the new stage runs", lambda: (runs_of(url, "unit") or 0) >= 1)
        assert seen(url, RELOADS, "success") == 1
        assert seen(url, "paropt_sla_limit_seconds", "standard", "unit") == 30
        replace_config(tmp_path, LINT)
        eventually("the stage that is gone has no series", lambda: runs_of(url, "unit") is None)
        assert seen(url, "paropt_sla_limit_seconds", "standard", "unit") is None
        assert (runs_of(url, "lint") or 0) >= 1
        command.stop()
    assert "paropt.yml has changed: it applies from the next run on" in projects.messages(tmp_path)


def test_faulty_config_is_rejected_once_and_the_old_one_stays(tmp_path: Path) -> None:
    projects.write(tmp_path, LINT)
    with service(tmp_path, "--every", "200ms") as command:
        url = projects.url(tmp_path)
        replace_config(tmp_path, 'name: lint, runs: "true"')
        started = seen(url, LOADED)
        eventually("the fault is counted", lambda: seen(url, RELOADS, "failure") == 1)
        assert (seen(url, SUCCESSFUL), seen(url, LOADED)) == (0, started)
        before = runs_of(url, "lint") or 0
        eventually("the lane goes on", lambda: (runs_of(url, "lint") or 0) >= before + 2)
        assert seen(url, RELOADS, "failure") == 1
        replace_config(tmp_path, UNIT)
        eventually("the repaired config is loaded", lambda: seen(url, SUCCESSFUL) == 1)
        assert (seen(url, LOADED) or 0) > (started or 0) > 0
        command.stop()
    told = projects.messages(tmp_path)
    assert told.count("paropt.yml has changed and can't be used: the previous one stays in use") == 1
    assert "stages[0].runs: " in told


def test_config_without_the_lane_or_the_selected_stage_is_rejected(tmp_path: Path) -> None:
    projects.write(tmp_path, UNIT)
    with service(tmp_path, "--every", "200ms", "unit") as command:
        url = projects.url(tmp_path)
        replace_config(tmp_path, LINT)
        eventually("it is refused", lambda: seen(url, RELOADS, "failure") == 1)
        command.stop()
    assert "lane standard has no stage 'unit'" in projects.messages(tmp_path)


def test_config_waits_for_a_history_that_can_be_read(tmp_path: Path) -> None:
    projects.write(tmp_path, LINT)
    with service(tmp_path, "--every", "200ms") as command, closing(connect(tmp_path)) as history:
        url = projects.url(tmp_path)
        eventually("a run has ended", lambda: runs_of(url, "lint"))
        insert = "INSERT INTO totals VALUES ('demo', 'paropt_runs_total', '', 'x', '', 1)"
        history.execute(insert)
        replace_config(tmp_path, UNIT)
        eventually("it is refused", lambda: seen(url, RELOADS, "failure"))
        before = runs_of(url, "lint") or 0
        eventually("the lane goes on", lambda: (runs_of(url, "lint") or 0) >= before + 2)
        assert runs_of(url, "unit") is None
        history.execute("DELETE FROM totals WHERE labels = 'x'")
        eventually("the new stage runs", lambda: runs_of(url, "unit"))
        assert (seen(url, RELOADS, "success"), command.process.poll()) == (1, None)


def test_run_of_which_no_stage_fits_a_deadline_is_skipped(tmp_path: Path) -> None:
    projects.write(tmp_path, LINT)
    assert run(tmp_path, projects.ANY_PORT, "--once").returncode == 0
    with service(tmp_path, "--every", "200ms", "--deadline", "1h") as command:
        url = projects.url(tmp_path)
        replace_config(tmp_path, LINT.replace("lint", "renamed"))
        skipped = "this run is skipped: --deadline: no duration is known yet"
        eventually("the new stage has no duration", lambda: skipped in projects.messages(tmp_path))
        replace_config(tmp_path, LINT)
        before = runs_of(url, "lint") or 0
        eventually("the lane goes on", lambda: (runs_of(url, "lint") or 0) > before)
        assert command.stop() == 0


def test_run_whose_cache_has_a_wrong_setting_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAROPT_CACHE_URL", "cache:80")
    projects.write(tmp_path, LINT)
    with service(tmp_path, "--every", "200ms") as command:
        url = projects.url(tmp_path)
        replace_config(tmp_path, f"{LINT}, inputs: [src]")
        skipped = "this run is skipped: PAROPT_CACHE_URL: expected a URL"
        eventually("the new stage needs the cache", lambda: skipped in projects.messages(tmp_path))
        replace_config(tmp_path, LINT)
        before = runs_of(url, "lint") or 0
        eventually("the lane goes on", lambda: (runs_of(url, "lint") or 0) > before)
        assert command.stop() == 0


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_bounds_of_a_service_follow_its_cores(tmp_path: Path) -> None:
    projects.write(tmp_path, "name: lint, call: 'os:getpid'", lanes="lanes: {standard: {strategy: process}}")
    with service(tmp_path, "--every", "200ms") as command:
        url, labels = projects.url(tmp_path), ("paropt_pool_size_max", "processes")
        before = seen(url, *labels) or 0
        os.sched_setaffinity(command.process.pid, {min(os.sched_getaffinity(0))})
        eventually("the lane has the bounds of one core", lambda: (seen(url, *labels) or before) < before)
        assert seen(url, RELOADS, "success") == 0


def test_sections_that_a_process_keeps_are_named(tmp_path: Path) -> None:
    projects.write(tmp_path, LINT)
    with service(tmp_path, "--every", "200ms") as command:
        url = projects.url(tmp_path)
        replace_config(tmp_path, UNIT, lanes="web: {max_requests: 7}")
        eventually("it is read", lambda: seen(url, RELOADS, "success") == 1)
        replace_config(tmp_path, LINT)  # as the exporter was started
        eventually("it is read, too", lambda: seen(url, RELOADS, "success") == 2)
        command.stop()
    told = "web: changed too, but takes effect only when the exporter is restarted"
    assert projects.messages(tmp_path).count(told) == 1


def test_hangup_reads_the_config_of_a_service_at_once(tmp_path: Path) -> None:
    projects.write(tmp_path, LINT)
    with service(tmp_path, "--every", "1h") as command:
        url = projects.url(tmp_path)
        eventually("the first run has ended", lambda: runs_of(url, "lint") == 1)
        replace_config(tmp_path, UNIT)
        command.process.send_signal(signal.SIGHUP)
        eventually("the new stage's series is there before it ran", lambda: runs_of(url, "unit") == 0)
        assert runs_of(url, "lint") == 1
        assert command.stop() == 0


def test_hangup_during_a_run_of_a_service_does_not_end_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    projects.write(tmp_path, 'name: waits, run: "cat gate"')
    with service(tmp_path, "--every", "1h") as command:
        url = projects.url(tmp_path)
        with (tmp_path / "gate").open("w"):  # open once the stage reads it
            replace_config(tmp_path, UNIT)
            command.process.send_signal(signal.SIGHUP)
        eventually("the run has ended well", lambda: seen(url, "paropt_runs_total", "standard", "success") == 1)
        eventually("the config was read after it", lambda: seen(url, RELOADS, "success") == 1)
        assert command.stop() == 0


def test_terminal_that_is_closed_ends_the_lane(tmp_path: Path) -> None:
    projects.write(tmp_path, LINT)
    ours, theirs = pty.openpty()
    with (tmp_path / "stderr.log").open("w") as log:
        command = ["setsid", "--ctty", installed_command(), projects.ANY_PORT, "--every", "1h"]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdin=theirs, stdout=subprocess.DEVNULL, stderr=log
        )
    try:
        url = projects.url(tmp_path)
        eventually("the first run has ended", lambda: runs_of(url, "lint") == 1)
        os.close(theirs)
        os.close(ours)
        assert process.wait(HANG_SECONDS) == 0  # between two runs: the last one's exit code
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(HANG_SECONDS)


def test_rotated_log_of_a_service_is_continued_at_its_path(tmp_path: Path) -> None:
    projects.write(tmp_path, LINT)
    with service(tmp_path, "--every", "100ms") as command:
        projects.whole_summary(command)
        log, rotated = tmp_path / "stderr.log", tmp_path / "stderr.log.1"
        log.rename(rotated)
        eventually("the log is at its path again", log.exists)
        replace_config(tmp_path, UNIT)
        eventually("its lines are in the new file", lambda: "paropt.yml has changed" in log.read_text())
        assert "metrics at" in rotated.read_text()
