"""Where the command serves: addresses that are free, taken, named by number 0 or of version 6, and when."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from support import processes, projects
from support.real_servers import eventually, get, run, serving

GOOD = 'name: good, run: "true"'
DEFAULT_PORT = 10178


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return projects.write(tmp_path, GOOD)


def test_port_0_prints_the_real_port(good: Path) -> None:
    with serving(good, projects.ANY_PORT) as command:
        summary = projects.whole_summary(command)
        url = projects.url(good)
        assert not url.endswith(":0/metrics")
        assert f"  metrics  {url}" in summary
        assert projects.scraped(url)["paropt_runs_total", "standard", "success"] == 1
        command.stop()


def take(listener: socket.socket, port: int) -> bool:
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        return False
    listener.listen()
    return True


def test_taken_default_port_moves_to_the_next_free_one_with_a_line(good: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(AssertionError):  # another program has it for good, which serves the test too
            eventually("runs of other tests have left the port", lambda: take(taken, DEFAULT_PORT))
        with serving(good) as command:
            projects.whole_summary(command)
            said = re.search(
                rf"port {DEFAULT_PORT} is in use, listening on 127\.0\.0\.1:(\d+)", projects.messages(good)
            )
            assert said
            assert int(said[1]) > DEFAULT_PORT
            assert projects.url(good) == f"http://127.0.0.1:{said[1]}/metrics"
            assert get(projects.url(good))[0] == 200
            command.stop()


def test_explicit_address_that_is_taken_is_one_line_and_exit_code_2(good: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run(good, "--once", f"--web.listen-address={address}")
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert address in line


@pytest.mark.parametrize(
    "address", ["nowhere.invalid:1", "127.0.0.1:99999", "127.0.0.1:http", "192.0.2.1:0", "::1", ""]
)
def test_unavailable_address_is_one_line_and_exit_code_2(good: Path, address: str) -> None:
    ended = run(good, "--once", f"--web.listen-address={address}")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert address in line


def test_ipv6_is_served_and_written_in_brackets(good: Path) -> None:
    with serving(good, "--web.listen-address=[::1]:0") as command:
        projects.whole_summary(command)
        url = projects.url(good)
        assert re.fullmatch(r"http://\[::1\]:\d+/metrics", url)
        assert get(url)[0] == 200
        command.stop()


def test_endpoint_answers_while_a_stage_runs_and_shows_it(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: long, run: "echo $$ > pid; exec sleep 60", shell: true, sla: 50')
    with serving(tmp_path, projects.ANY_PORT) as command:
        projects.pid_in(tmp_path / "pid")
        samples = projects.scraped(projects.url(tmp_path))
        assert samples["paropt_stage_running", "standard", "long"] == 1
        assert ("paropt_sla_deadline_timestamp_seconds", "standard", "long") in {key[:3] for key in samples}
        assert get(projects.url(tmp_path).replace("/metrics", "/-/healthy"))[0] == 200
        assert get(projects.url(tmp_path).replace("/metrics", "/-/ready"))[0] == 200
        command.stop()
    assert processes.in_folder(tmp_path) == []


def test_custom_path_is_served_and_shown(good: Path) -> None:
    with serving(good, projects.ANY_PORT, "--web.telemetry-path=/mine") as command:
        projects.whole_summary(command)
        assert projects.url(good).endswith("/mine")
        assert get(projects.url(good))[0] == 200
        assert get(projects.url(good).replace("/mine", "/metrics"))[0] == 404
        command.stop()


def test_port_is_free_again_at_once(good: Path) -> None:
    with serving(good, projects.ANY_PORT) as command:
        projects.whole_summary(command)
        url = projects.url(good)
        get(url)
        command.stop()
    port = url.split(":")[2].partition("/")[0]
    assert run(good, "--once", f"--web.listen-address=127.0.0.1:{port}").returncode == 0
