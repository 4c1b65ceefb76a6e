"""`pin`, `pause` and `resume` on real lanes."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from support.in_process import call_command
from support.projects import ANY_PORT, scraped, url, write
from support.real_servers import eventually, run, serving

LANES = """
lanes:
  standard: {workers: {min: 1, max: 16, start: 2}}
  fixed: {workers: 2}
  serial: {strategy: sequential}
"""
# Tasks that wait for a file: they run until the test has seen enough.
WAITING = """
name: waits, run: "sh -c 'until [ -e go ]; do sleep 0.05; done'", items: {list: [a, b, c, d, e, f, g, h]}
"""


def running(address: str) -> float:
    page = scraped(address)  # without the pool at first
    return sum(page.get(("paropt_pool_workers", "commands", state), 0) for state in ("busy", "draining"))


def target(address: str) -> float:
    return scraped(address).get(("paropt_pool_size_target", "commands"), 0)


def sockets(folder: Path) -> list[Path]:
    return [*(folder / ".paropt" / "control").glob("*.sock")]


def test_lane_that_runs_takes_a_pin_and_sizes_itself_again_after_resume(tmp_path: Path) -> None:
    write(tmp_path, WAITING, lanes=LANES)
    with serving(tmp_path, ANY_PORT) as command:
        address = url(tmp_path)
        eventually("all tasks wait at once", lambda: target(address) == 8)
        pinned = run(tmp_path, "pin", "commands", "3")
        assert (pinned.returncode, pinned.stderr) == (0, "")
        assert pinned.stdout == "lane standard pinned at 3 until resume (pools: commands)\n"
        eventually("the pool is at the pin", lambda: target(address) == 3)
        page = scraped(address)
        assert page["paropt_control_mode_info", "pin", "commands", "local"] == 1
        assert page["paropt_control_decisions_total", "down", "commands", "pinned"] == 1
        assert running(address) == 8, "running tasks are not interrupted"
        run(tmp_path, "resume")
        eventually("the pool is as large as its tasks need", lambda: target(address) == 8)
        (tmp_path / "go").touch()
        assert "standard succeeded" in command.summary()
        command.stop()
    assert sockets(tmp_path) == []


def test_pin_beats_a_fixed_size_and_resume_restores_it(tmp_path: Path) -> None:
    write(tmp_path, WAITING, lanes=LANES)
    with serving(tmp_path, ANY_PORT, "--lane", "fixed") as command:
        address = url(tmp_path)
        eventually("two tasks wait", lambda: running(address) == 2)
        assert call_command(tmp_path, "pin", "5").returncode == 0
        eventually("five tasks wait", lambda: running(address) == 5)
        call_command(tmp_path, "resume")
        eventually("the size is the config's", lambda: target(address) == 2)
        command.stop(signal.SIGINT)


def test_orders_reach_the_lane_that_they_name_past_the_socket_of_a_killed_one(tmp_path: Path) -> None:
    write(tmp_path, WAITING, lanes=LANES)
    with serving(tmp_path, ANY_PORT) as killed:
        eventually("it takes orders", lambda: sockets(tmp_path))
        killed.stop(signal.SIGKILL)
    refused = call_command(tmp_path, "pause")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "no exporter runs in" in refused.stderr
    with serving(tmp_path, ANY_PORT, "--lane", "serial") as command:
        eventually("the lane runs", lambda: running(url(tmp_path)) == 1)
        assert len(sockets(tmp_path)) == 1, "the dead one's is removed"
        refused = call_command(tmp_path, "pin", "4", "--lane", "serial")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "strategy sequential has no size" in refused.stderr
        command.stop(signal.SIGINT)


def test_lane_whose_socket_was_removed_takes_orders_again_from_its_next_run_on(tmp_path: Path) -> None:
    """`git clean -fdx` removes it: `pin` found no lane until the lane was started again."""
    write(tmp_path, 'name: quick, run: "true"', lanes=LANES)
    with serving(tmp_path, ANY_PORT, "--every", "100ms") as command:
        eventually("it takes orders", lambda: sockets(tmp_path))
        shutil.rmtree(tmp_path / ".paropt" / "control", ignore_errors=True)  # its next run may begin meanwhile
        eventually("it takes orders again", lambda: sockets(tmp_path))
        assert call_command(tmp_path, "pin", "5").returncode == 0
        command.stop()
    assert sockets(tmp_path) == []
