"""A lane on a Dask cluster has the results of a local one, and leaves no process, however it ends."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from support import projects
from support.command_scripts import BURNER
from support.dask_clusters import DaskCluster
from support.network_namespaces import Network, find_obstacle
from support.real_servers import HANG_SECONDS, eventually, run, serving

LANES = """
    lanes:
      near: {strategy: process, workers: 2}
      far: {strategy: dask, workers: {min: 1, max: 2}}
"""
STAGES = """
    name: passes, run: "echo passed", file: out/passes.txt
    name: fails, run: "sh -c 'echo why; exit 3'"
    name: killed, run: "sh -c 'kill -9 $$'"
    name: missing, run: no-such-program
    name: slow, run: sleep 30, timeout: 300ms
    name: late, run: sleep 0.3, sla: 100ms
    name: again, run: "sh -c 'test -e tried || { touch tried; exit 1; }'", retries: {count: 1, backoff: 0}
    name: works, call: "checks:works"
    name: raises, call: "checks:raises"
    name: dies, call: "checks:dies"
    name: each, run: "echo {item}", items: {list: [a, b, c]}
    name: after, run: "true", needs: [passes]
    name: never, run: "true", needs: [fails]
    name: here, run: "true", local: true
"""
CHECKS = """
    import os, signal

    def works(): print("worked")
    def raises(): raise ValueError("wrong")
    def dies(): os.kill(os.getpid(), signal.SIGKILL)
"""


def read_rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / ".paropt/history.db")) as database:
        return database.execute(query).fetchall()


def run_lane(folder: Path, lane: str, stages: str = STAGES, lanes: str = LANES) -> dict[str, list[tuple[object, ...]]]:
    """Run a lane in a folder of its own; return what its history says, without times."""
    folder.mkdir()
    (folder / "burn.py").write_text(BURNER)
    projects.write(folder, stages, lanes=lanes, checks=CHECKS)
    done = run(folder, "--lane", lane, "--once")
    assert done.returncode == 1, done.stderr
    return {
        "tasks": read_rows(
            folder,
            "SELECT stage, task, attempt, item, final, result, exit_code, signal, output FROM tasks ORDER BY 1, 2, 3",
        ),
        "stages": read_rows(
            folder, "SELECT stage, tasks, result, message, tasks_failed, attempts, broken FROM stages ORDER BY stage"
        ),
        "sla": read_rows(folder, "SELECT stage, broken, max, warn, critical FROM sla ORDER BY stage, broken"),
        "run": read_rows(folder, "SELECT result, reason, broken FROM runs"),
    }


def hide_folders(rows: list[tuple[object, ...]]) -> list[tuple[str, ...]]:
    """Return rows without the folders of Python files and without decimal numbers."""
    return [tuple(re.sub(r"\d+\.\d+|/\S*/(?=\w+\.py)", "", str(value)) for value in row) for row in rows]


def test_lane_on_a_local_cluster_has_the_records_of_a_local_run(tmp_path: Path) -> None:
    near, far = run_lane(tmp_path / "near", "near"), run_lane(tmp_path / "far", "far")
    same = [tuple(str(value).replace(str(tmp_path / "near"), "") for value in row) for row in near["tasks"]]
    assert [tuple(str(value).replace(str(tmp_path / "far"), "") for value in row) for row in far["tasks"]] == same
    assert {key: far[key] for key in ("sla", "run")} == {key: near[key] for key in ("sla", "run")}
    assert [row for row in far["stages"] if row[0] != "dies"] == [row for row in near["stages"] if row[0] != "dies"]
    assert (tmp_path / "far/out/passes.txt").read_text() == "passed\n"
    pools = read_rows(tmp_path / "far", "SELECT stage, pool FROM stages WHERE stage IN ('here', 'passes', 'works')")
    assert sorted(pools) == [("here", "commands"), ("passes", "dask"), ("works", "dask")]


def test_lane_on_hosts_of_their_own_has_the_records_of_a_local_run(tmp_path: Path) -> None:
    if obstacle := find_obstacle():
        pytest.skip(obstacle)
    network, cluster, used = Network(), DaskCluster(tmp_path), tmp_path / "used"
    stages = STAGES.replace("tried", str(tmp_path / "tried")) + f"    name: burns, run: python3 -S burn.py 0.5 {used}"
    try:
        cluster.start_scheduler(host=network.address)
        for name in ("one", "two"):
            cluster.start_worker(name, namespace=network.add_host(), folder=name)
        near = run_lane(tmp_path / "near", "near", stages)
        assert_cpu_of_the_burner(tmp_path / "near", used)
        (tmp_path / "tried").unlink()
        lanes = f'{LANES}\n    dask: {{scheduler: "{cluster.address}", insecure: true}}\n'
        far = run_lane(tmp_path / "far", "far", stages, lanes)
        assert_cpu_of_the_burner(tmp_path / "far", used)
    finally:
        cluster.close()
        network.close()
    assert hide_folders(far["tasks"]) == hide_folders(near["tasks"])
    assert {key: far[key] for key in ("sla", "run")} == {key: near[key] for key in ("sla", "run")}
    assert (tmp_path / "far/out/passes.txt").read_text() == "passed\n"
    workers = {row[0] for row in read_rows(tmp_path / "far", "SELECT worker FROM tasks WHERE pool = 'dask'")}
    assert {str(worker).rpartition("/")[2] for worker in workers} == {"one", "two"}


def assert_cpu_of_the_burner(folder: Path, report: Path) -> None:
    """Compare the lane's measurement with the burner's own."""
    used = float(report.read_text())
    assert read_rows(folder, "SELECT cpu FROM tasks WHERE stage = 'burns'") == [(pytest.approx(used, rel=0.1),)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl_c", "kill_9"])
def test_end_of_the_exporter_leaves_no_process_of_the_cluster(tmp_path: Path, number: signal.Signals) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    projects.write(tmp_path, f"name: hangs, run: \"sh -c 'echo $$ > {fifo}; exec sleep 300'\"", lanes=LANES)
    with serving(tmp_path, projects.ANY_PORT, "--lane", "far") as command:
        task = psutil.Process(int(fifo.read_text()))
        others = psutil.Process(command.process.pid).children(recursive=True)
        command.process.send_signal(number)
        command.process.wait(HANG_SECONDS)
        _, alive = psutil.wait_procs([task, *others], timeout=HANG_SECONDS)
        assert alive == []
    if number is signal.SIGINT:
        assert command.process.returncode == 128 + signal.SIGINT
        assert read_rows(tmp_path, "SELECT result FROM tasks") == [("cancellation",)]


ELASTIC_LANES = """
    lanes:
      far: {{strategy: dask, workers: {{min: 1, max: 8}}}}
    dask: {{cluster: "clusters:make", shared: "{folder}"}}
"""
CLUSTERS = """
from distributed import LocalCluster

def make():
    return LocalCluster(n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None, protocol="tcp://")
"""
WAVE = "sh -c 'touch {name}-{{item}}; until [ $(ls | grep -c ^{name}-) -ge 8 ]; do sleep 0.1; done'"


def test_controller_grows_a_cluster_from_1_to_8_and_back_without_ending_a_busy_worker(tmp_path: Path) -> None:
    """Eight tasks wait for each other, then one runs alone until the others' workers have ended, then eight again."""
    (tmp_path / "clusters.py").write_text(CLUSTERS)
    os.mkfifo(tmp_path / "go")
    stages = (
        f'name: first, items: {{list: [1, 2, 3, 4, 5, 6, 7, 8]}}, run: "{WAVE.format(name="first")}"',
        "name: alone, needs: [first], run: cat go",
        f'name: second, items: {{list: [1, 2, 3, 4, 5, 6, 7, 8]}}, needs: [alone], run: "{WAVE.format(name="second")}"',
    )
    projects.write(tmp_path, "\n".join(stages), lanes=ELASTIC_LANES.format(folder=tmp_path))
    with serving(tmp_path, projects.ANY_PORT, "--lane", "far") as command:
        address = projects.url(tmp_path)

        def count_workers() -> float:
            page = projects.scraped(address)
            return sum(page.get(("paropt_pool_workers", "dask", state), 0.0) for state in ("busy", "idle", "draining"))

        eventually("eight workers", lambda: count_workers() == 8)
        eventually("one worker is left", lambda: count_workers() == 1)
        (tmp_path / "go").write_text("")
        assert "succeeded" in command.summary()
        assert projects.scraped(address).get(("paropt_pool_worker_deaths_total", "lost", "dask"), 0.0) == 0
        assert command.stop() == 0
    assert read_rows(tmp_path, "SELECT DISTINCT attempt, result FROM tasks") == [(1, "success")]


def test_scheduler_that_does_not_answer_is_one_line_before_the_run(tmp_path: Path) -> None:
    lanes = (
        LANES
        + """
    dask: {scheduler: "tcp://127.0.0.1:9"}
    """
    )
    projects.write(tmp_path, 'name: a, run: "true"', lanes=lanes)
    done = run(tmp_path, "--lane", "far", "--once")
    assert done.returncode == 2
    assert "dask.scheduler: no answer from tcp://127.0.0.1:9: ConnectionRefusedError" in done.stderr.splitlines()[-1]
    assert read_rows(tmp_path, "SELECT count(*) FROM runs") == [(0,)]
