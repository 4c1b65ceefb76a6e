"""The command under a web config and under systemd's socket, scraped by Debian's Prometheus."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paropt_exporter import families
from support import projects
from support.real_servers import (
    HANG_SECONDS,
    environment,
    eventually,
    free_port,
    get,
    installed_command,
    prometheus,
    run,
    serving,
)
from support.secured import PASSWORD, Authority, hashed, web_config

TLS = "tls_server_config: {cert_file: server.pem, key_file: server.key}"


def test_prometheus_scrapes_over_tls_with_a_password(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    projects.write(project, 'name: good, run: "true"')
    authority = Authority(tmp_path)
    authority.issue("server")
    config = web_config(tmp_path, f"{TLS}\nbasic_auth_users: {{prometheus: {hashed()}}}\n")
    port = free_port()
    with (
        prometheus(
            tmp_path / "prometheus",
            [f"127.0.0.1:{port}"],
            scheme="https",
            tls_config={"ca_file": str(authority.file)},
            basic_auth={"username": "prometheus", "password": PASSWORD},
        ) as real,
        serving(project, f"--web.listen-address=127.0.0.1:{port}", f"--web.config.file={config}") as command,
    ):
        eventually("a scrape", lambda: real.query('up{job="paropt"} == 1'))
        assert eventually("the run", lambda: real.query('paropt_runs_total{result="success"} == 1'))
        assert projects.whole_summary(command).endswith(f"  metrics  https://127.0.0.1:{port}/metrics until Ctrl-C\n")
        command.stop()
    assert PASSWORD not in projects.messages(project)


def test_faulty_web_config_is_reported_with_places_and_nothing_runs(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "touch ran"')
    web_config(tmp_path, "tls_server_config: {cert: x}\nbasic_auth_users: {alice: s3cret}")
    ended = run(tmp_path, "--once", projects.ANY_PORT, "--web.config.file=web.yml")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert [line.partition(": ")[0] for line in ended.stderr.splitlines()] == ["web.yml:1:27", "web.yml:2:27"]
    assert "s3cret" not in ended.stderr
    assert not (tmp_path / "ran").exists()


def test_config_names_the_web_config_from_its_own_folder(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "true"', lanes="web: {config_file: conf/web.yml}")
    (tmp_path / "conf").mkdir()
    Authority(tmp_path / "conf").issue("server")
    web_config(tmp_path / "conf", TLS)
    with serving(tmp_path, projects.ANY_PORT) as command:
        assert "https://127.0.0.1:" in projects.whole_summary(command)
        command.stop()


def test_page_says_whether_the_changed_web_config_was_refused(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "true"')
    key = (families.WEB_CONFIG_RELOAD_SUCCESSFUL.name,)
    web_config(tmp_path, "http_server_config: {headers: {X-Frame-Options: deny}}")
    with projects.served(tmp_path, "--web.config.file=web.yml") as address:
        assert projects.scraped(address)[key] == 1
        web_config(tmp_path, "http_server_config: {}")
        assert projects.scraped(address)[key] == 0
        web_config(tmp_path, "http_server_config: {headers: {X-Frame-Options: sameorigin}}")
        assert projects.scraped(address)[key] == 1


def test_socket_that_systemd_opened_is_served(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "env > env", shell: true')
    with socket.create_server(("127.0.0.1", 0)) as listener, activated(tmp_path, listener) as process:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"
        samples = eventually("the run", lambda: _succeeded(url))
        assert samples["paropt_runs_total", "standard", "success"] == 1
        process.terminate()
        assert process.wait(HANG_SECONDS) == 0
    assert "LISTEN_" not in (tmp_path / "env").read_text()


def _succeeded(url: str) -> dict[tuple[str, ...], float] | None:
    samples = projects.scraped(url)
    return samples if samples["paropt_runs_total", "standard", "success"] else None


@contextmanager
def activated(folder: Path, listener: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
    """Start the command as systemd does: the socket is descriptor 3, and the variables tell whose it is."""
    script = (
        f"import os, sys; os.dup2({listener.fileno()}, 3)\n"
        "os.execve(sys.argv[1], sys.argv[1:], os.environ | {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, installed_command(), "--web.systemd-socket"],
        cwd=folder,
        env=environment(),
        pass_fds=(listener.fileno(),),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(HANG_SECONDS)


def test_no_socket_from_systemd_is_one_line(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "true"')
    for arguments in (("--web.systemd-socket",), ("--web.systemd-socket", projects.ANY_PORT)):
        ended = run(tmp_path, "--once", *arguments, LISTEN_PID="1", LISTEN_FDS="1")
        assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)


def test_endpoint_on_every_interface_is_reached_on_this_one(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: good, run: "true"')
    with serving(tmp_path, f"--web.listen-address=:{free_port()}") as command:
        projects.whole_summary(command)
        assert get(projects.url(tmp_path))[0] == 200
        command.stop()
