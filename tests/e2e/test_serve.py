"""`paropt-exporter serve`: one page for all projects, exact totals after kill -9, and one budget of cores."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from paropt_exporter.serve.messages import Registration, encode
from support import projects
from support.real_servers import HANG_SECONDS, environment, eventually, free_port, get, installed_command, run
from support.serve_process import ServeProcess, begin_run, check_page, serve, sum_series

QUICK = 'name: quick, run: "true"'
# Each task appends a line at its start and its end; O_APPEND writes of a line are atomic. It computes for so many
# seconds, but at least until the file of its fourth argument exists.
SPIN = """
import os, sys, time
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
os.write(log, b"+\\n")
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until or not os.path.exists(sys.argv[4]):
    pass
os.write(log, b"-\\n")
"""
CORES = 2


@pytest.fixture
def two_cores() -> Iterator[None]:
    """Let this process and its children use two cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:CORES])
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServeProcess]:
    with serve(tmp_path) as process:
        yield process


def project(folder: Path, name: str, stages: str = QUICK) -> Path:
    (folder / name).mkdir()
    return projects.write(folder / name, stages, project=name, spin=SPIN)


def spinning(log: Path, *, tasks: int = 3, seconds: float = 0.3, until: Path = Path("/")) -> str:
    items = ", ".join(f'"{number}"' for number in range(tasks))
    command = f'[python3, spin.py, "{log}", "{seconds}", "{{item}}", "{until}"]'
    return f"name: spin, run: {command}, items: {{list: [{items}]}}"


def most_at_once(log: Path) -> int:
    running = most = 0
    for line in log.read_text().splitlines():
        running += 1 if line == "+" else -1
        most = max(most, running)
    return most


def test_run_leaves_the_port_to_serve_and_its_totals_are_on_the_page(tmp_path: Path, served: ServeProcess) -> None:
    one = project(tmp_path, "one")
    ran = run(one, **served.environment)
    assert ran.returncode == 0, ran.stderr
    assert f"metrics at {served.url}, by `paropt-exporter serve`" in ran.stderr
    page = served.page()
    check_page(page)
    assert sum_series(page, "paropt_runs_total", project="one", result="success") == 1
    assert sum_series(page, "paropt_task_duration_seconds_count", project="one", stage="quick") == 1
    assert sum_series(page, "paropt_pool_tasks_finished_total", project="one", result="success") == 1
    assert sum_series(page, "paropt_stage_last_result", project="one", result="success") == 1
    assert sum_series(page, "paropt_serve_runs", project="one") == 0


def test_lane_with_an_interval_registers_with_a_serve_that_starts_later(tmp_path: Path) -> None:
    one = project(tmp_path, "one")
    (tmp_path / "runtime").mkdir(mode=0o700)
    late = ServeProcess(tmp_path / "runtime")
    with begin_run(one, late, "--every", "100ms", "--web.listen-address", "127.0.0.1:0"), ExitStack() as stack:
        eventually("a run has ended", lambda: [*one.glob(".paropt/logs/*.log")])
        late.start()
        stack.callback(late.stop)
        eventually("it registers", lambda: late.value("paropt_serve_runs", project="one") == 1)
        eventually("its state comes", lambda: late.value("paropt_run_interval_seconds", project="one") == 0.1)


def test_stalled_stderr_of_serve_delays_neither_its_page_nor_its_end(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    port = free_port()
    serving = ServeProcess(tmp_path / "serve")
    process = subprocess.Popen(
        [installed_command(), "serve", "--web.listen-address", f"127.0.0.1:{port}"],
        env=environment(**serving.environment), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writer,
    )  # fmt: skip
    os.close(writer)
    try:
        eventually("serve answers", lambda: answers(port))
        assert get(f"http://127.0.0.1:{port}/metrics")[0] == 200
        process.terminate()
        assert process.wait(HANG_SECONDS) == 0
    finally:
        process.kill()
        process.wait(HANG_SECONDS)
        os.close(reader)


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_openmetrics_page_ends_as_the_format_demands(tmp_path: Path, served: ServeProcess) -> None:
    run(project(tmp_path, "one"), **served.environment)
    answer = subprocess.run(
        ["curl", "-sS", "-H", "Accept: application/openmetrics-text; version=1.0.0", served.url],
        capture_output=True, text=True, timeout=HANG_SECONDS, check=True,
    )  # fmt: skip
    assert answer.stdout.endswith("# EOF\n")
    assert "# TYPE paropt_runs counter" in answer.stdout


def test_two_runs_side_by_side_count_together(tmp_path: Path, served: ServeProcess) -> None:
    one = project(tmp_path, "one", "name: gate, run: \"sh -c 'while [ ! -e go ]; do sleep 0.1; done'\"")
    with begin_run(one, served) as first, begin_run(one, served) as second:
        eventually("both runs are on the page", lambda: served.value("paropt_serve_runs", project="one") == 2)
        # Both pools are one series: their sizes add up.
        eventually("both tasks run", lambda: served.value("paropt_pool_workers", project="one", state="busy") == 2)
        check_page(served.page())
        (one / "go").touch()
        assert (first.wait(HANG_SECONDS), second.wait(HANG_SECONDS)) == (0, 0)
    page = served.page()
    assert sum_series(page, "paropt_runs_total", project="one", result="success") == 2
    assert sum_series(page, "paropt_pool_tasks_finished_total", project="one", result="success") == 2
    assert sum_series(page, "paropt_pool_workers", project="one") == 0


def test_checkouts_of_one_project_are_summed(tmp_path: Path, served: ServeProcess) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        run(projects.write(tmp_path / folder, QUICK), **served.environment)
    page = served.page()
    check_page(page)
    assert sum_series(page, "paropt_runs_total", project="demo", result="success") == 2


def test_killed_serve_comes_back_with_the_same_totals_and_runs(tmp_path: Path, served: ServeProcess) -> None:
    one = project(tmp_path, "one", f"{QUICK}\nname: gate, run: \"sh -c 'while [ ! -e go ]; do sleep 0.1; done'\"")
    with begin_run(one, served) as lane:
        eventually("the first stage has ended", lambda: served.value("paropt_stage_runs_total", stage="quick") == 1)
        before = served.value("paropt_task_attempts_total", project="one")
        served.kill()
        served.start_again()
        page = served.page()  # the first one
        assert sum_series(page, "paropt_task_attempts_total", project="one") == before
        assert sum_series(page, "paropt_serve_runs", project="one") == 1
        assert sum_series(page, "paropt_run_in_progress", project="one") == 1
        served.kill()  # and the run ends without it
        (one / "go").touch()
        assert lane.wait(HANG_SECONDS) == 0
    served.start_again()
    page = served.page()
    check_page(page)
    assert sum_series(page, "paropt_runs_total", project="one", result="success") == 1
    assert sum_series(page, "paropt_stage_runs_total", project="one", result="success") == 2


def test_killed_run_is_counted_once_and_frees_its_cores(tmp_path: Path, two_cores: None) -> None:
    with serve(tmp_path) as served:
        hog = project(tmp_path, "hog", spinning(tmp_path / "hog.log", tasks=CORES, seconds=60.0))
        waiting = project(tmp_path, "waiting", spinning(tmp_path / "log", tasks=1, seconds=0.1))
        with begin_run(hog, served) as lane:
            eventually("it has all cores", lambda: served.value("paropt_serve_cores_held", project="hog") > 1.5)
            with begin_run(waiting, served) as other:
                eventually(
                    "the other one waits for it",
                    lambda: served.value("paropt_serve_cores_awaited", project="waiting", holder="hog") > 0,
                )
                shown = run(tmp_path, "serve", "status", **served.environment).stdout
                assert f"s for hog (pid {lane.pid})" in shown
                lane.kill()
                assert other.wait(HANG_SECONDS) == 0
        assert served.value("paropt_serve_runs") == 0
        assert served.value("paropt_serve_wait_seconds_total", project="waiting") > 0
        (hog / "paropt.yml").write_text((hog / "paropt.yml").read_text().replace('"60.0"', '"0"'))
        assert run(hog, **served.environment).returncode == 0
        page = served.page()
    check_page(page)
    assert sum_series(page, "paropt_runs_total", project="hog", result="cancellation") == 1
    assert sum_series(page, "paropt_runs_total", project="hog", result="success") == 1


def test_computing_tasks_of_all_runs_are_at_most_one_more_than_the_cores(tmp_path: Path, two_cores: None) -> None:
    log, all_are_back = tmp_path / "log", tmp_path / "all-are-back"
    with serve(tmp_path) as served, ExitStack() as stack:
        # No run may end before the others have begun.
        stages = spinning(log, tasks=CORES, seconds=0.2, until=all_are_back)
        folders = [project(tmp_path, f"p{number}", stages) for number in range(2)]
        lanes = [stack.enter_context(begin_run(folder, served, "--once")) for folder in (*folders, *folders)]
        eventually("all have registered", lambda: served.value("paropt_serve_runs") == len(lanes))
        eventually("the first task runs", log.exists)
        served.kill()
        served.start_again()
        eventually("all are back", lambda: served.value("paropt_serve_runs") == len(lanes))
        all_are_back.touch()
        assert [lane.wait(HANG_SECONDS) for lane in lanes] == [0] * len(lanes)
        page = served.page()
    assert log.read_text().count("-") == len(lanes) * CORES
    assert most_at_once(log) <= CORES + 1
    check_page(page)
    assert sum_series(page, "paropt_runs_total", result="success") == len(lanes)
    assert sum_series(page, "paropt_task_attempts_total", result="success") == len(lanes) * CORES


def test_stopped_serve_delays_no_run_and_has_its_totals_later(tmp_path: Path, served: ServeProcess) -> None:
    one = project(tmp_path, "one")
    assert run(one, **served.environment).returncode == 0
    served.signal(signal.SIGSTOP)
    ran = run(one, **served.environment)
    served.signal(signal.SIGCONT)
    assert ran.returncode == 0, ran.stderr
    assert "`paropt-exporter serve` does not answer: sizing alone until it does" in ran.stderr
    assert served.value("paropt_runs_total", project="one", result="success") == 2


def test_run_whose_serve_is_stopped_goes_on_alone(tmp_path: Path, two_cores: None) -> None:
    with serve(tmp_path) as served:
        log = tmp_path / "log"
        one = project(tmp_path, "one", f'{spinning(log, tasks=1, seconds=1)}\nname: next, run: "true", needs: [spin]')
        with begin_run(one, served) as lane:
            eventually("its task runs", log.exists)
            served.signal(signal.SIGSTOP)
            assert lane.wait(HANG_SECONDS) == 0


def test_run_with_an_address_of_its_own_keeps_its_port(tmp_path: Path, served: ServeProcess) -> None:
    one = project(tmp_path, "one", "name: gate, run: \"sh -c 'while [ ! -e go ]; do sleep 0.1; done'\"")
    with begin_run(one, served, projects.ANY_PORT, "--once"):
        eventually("it is registered", lambda: served.value("paropt_serve_runs", project="one") == 1)
        log = next(one.glob("*.log"))
        assert "by `paropt-exporter serve`" not in log.read_text()
        (one / "go").touch()


def test_second_serve_is_refused_with_one_line(served: ServeProcess) -> None:
    second = run(served.runtime.parent, "serve", "--web.listen-address=127.0.0.1:0", **served.environment)
    assert served.process is not None
    other = f"another `paropt-exporter serve` (pid {served.process.pid})"
    assert (second.returncode, second.stderr) == (2, f"paropt-exporter: {other} already serves {served.runtime}\n")
    assert get(served.url)[0] == 200


def test_port_in_use_is_refused_with_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = run(tmp_path, "serve", "--web.listen-address", address, PAROPT_SERVE=str(tmp_path / "runtime"))
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"paropt-exporter: cannot listen on '{address}': Address already in use")
    assert refused.stderr.count("\n") == 1


def test_folder_in_which_others_can_write_is_refused_and_not_used(tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    runtime.chmod(0o777)
    refused = run(tmp_path, "serve", "--web.listen-address=127.0.0.1:0", PAROPT_SERVE=str(runtime))
    assert refused.returncode == 2
    assert refused.stderr == f"paropt-exporter: {runtime}: other users can write in it: chmod go-w {runtime}\n"
    with socket.socket(socket.AF_UNIX) as trap:
        trap.bind(str(runtime / "serve.sock"))
        trap.listen()
        ran = run(project(tmp_path, "one"), "--once", "--web.listen-address=127.0.0.1:0", PAROPT_SERVE=str(runtime))
        assert ran.returncode == 0, ran.stderr
        trap.settimeout(0)
        with pytest.raises(BlockingIOError):
            trap.accept()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_serve_with_0_and_no_socket(tmp_path: Path, number: signal.Signals) -> None:
    with serve(tmp_path) as served:
        served.signal(number)
        assert served.process is not None
        assert served.process.wait(HANG_SECONDS) == 0
        assert not (served.runtime / "serve.sock").exists()


def test_hangup_ends_nothing(tmp_path: Path, served: ServeProcess) -> None:
    served.signal(signal.SIGHUP)
    assert run(project(tmp_path, "one"), **served.environment).returncode == 0
    assert served.value("paropt_runs_total", project="one", result="success") == 1


def test_repeating_run_stays_registered_between_its_lanes(tmp_path: Path, served: ServeProcess) -> None:
    one = project(tmp_path, "one")
    with begin_run(one, served, "--every", "1h") as lane:
        eventually("it has run", lambda: served.value("paropt_runs_total", project="one", result="success") == 1)
        assert served.value("paropt_serve_runs", project="one") == 1
        assert served.value("paropt_run_interval_seconds", project="one") == 3600
        lane.send_signal(signal.SIGTERM)
        assert lane.wait(HANG_SECONDS) == 0


def test_relative_folder_is_one_line(tmp_path: Path) -> None:
    for command in ("serve", "serve status"):
        refused = run(tmp_path, *command.split(), PAROPT_SERVE="runtime")
        message = "paropt-exporter: PAROPT_SERVE=runtime: expected the absolute path of a folder\n"
        assert (refused.returncode, refused.stderr) == (2, message)
    assert list(tmp_path.iterdir()) == []


def test_status_without_serve_is_one_line(tmp_path: Path) -> None:
    shown = run(tmp_path, "serve", "status", PAROPT_SERVE=str(tmp_path))
    assert shown.returncode == 2
    assert shown.stderr == (
        f"paropt-exporter: `paropt-exporter serve` is not running for this user (in {tmp_path}): start it\n"
    )


def test_socket_of_a_dead_serve_costs_a_run_nothing(tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        served.kill()
        ran = run(project(tmp_path, "one"), "--once", "--web.listen-address=127.0.0.1:0", **served.environment)
        assert ran.returncode == 0, ran.stderr


def test_serve_takes_the_socket_of_systemd(tmp_path: Path) -> None:
    with serve_on_systemd_socket(tmp_path / "runtime") as url:
        assert get(url)[0] == 200


def test_scrape_that_waits_for_the_start_of_serve_finds_all_projects(tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        assert run(project(tmp_path, "one"), **served.environment).returncode == 0
    gone = encode(Registration(project="gone", root="/gone", history="/gone/history.db"))
    for number in range(1000):  # which take longer to load than the endpoint
        (served.runtime / "projects" / f"{number}.json").write_bytes(gone)
    with serve_on_systemd_socket(served.runtime) as url:
        status, page = get(url)
    assert (status, sum_series(page, "paropt_runs_total", project="one", result="success")) == (200, 1)


@contextmanager
def serve_on_systemd_socket(runtime: Path) -> Iterator[str]:
    """Start `serve` as the socket unit does: descriptor 3 listens, and the variables name its process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"
        script = f'exec 3<&{listener.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" serve --web.systemd-socket'
        process = subprocess.Popen(
            ["bash", "-c", script, installed_command()],
            env=environment(PAROPT_SERVE=str(runtime)),
            pass_fds=(listener.fileno(),),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        yield url
    finally:
        process.terminate()
        assert process.wait(HANG_SECONDS) == 0


@pytest.mark.parametrize("removed", ["serve.sock", "."])
def test_run_finds_a_serve_whose_folder_was_cleaned(tmp_path: Path, served: ServeProcess, removed: str) -> None:
    """A cleaner of /tmp removes old files, and a logout the whole runtime folder."""
    folder = project(tmp_path, "shop")
    run(folder, "--once", **served.environment)
    if removed == ".":
        shutil.rmtree(served.runtime)
    else:
        (served.runtime / removed).unlink()
    eventually("its socket is back", lambda: (served.runtime / "serve.sock").exists())
    assert "1 project" in run(tmp_path, "serve", "status", **served.environment).stdout
    run(folder, "--once", **served.environment)
    assert served.value("paropt_runs_total", project="shop", result="success") == 2
    served.kill()
    served.start_again()
    assert served.value("paropt_runs_total", project="shop", result="success") == 2
