"""Runs that end before a scrape, seen through Debian's Pushgateway, node_exporter and Prometheus."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from paropt_exporter.exposition import sinks
from support import projects
from support.http_servers import QuietHandler, run_http_server
from support.real_servers import (
    Prometheus,
    eventually,
    free_port,
    get,
    installed_command,
    prometheus,
    run,
    server,
    serving,
    started_together,
)
from support.secured import PASSWORD, Authority, hashed, web_config

OUTCOME = 'name: checks, run: "test -e good"'
SUCCESS = "paropt_run_last_success_timestamp_seconds"
COMPLETION = "paropt_run_last_completion_timestamp_seconds"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose only stage succeeds while the file `good` is there."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "good").touch()
    return projects.write(folder, OUTCOME)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway for all tests: each pushes to groups of its own."""
    log = tmp_path_factory.mktemp("gateway") / "log"
    address = f"127.0.0.1:{free_port()}"
    url = f"http://{address}"
    # Debian's build would store the pushes in a file of the system, and serve them in the next test.
    flags = (f"--web.listen-address={address}", "--log.level=warn", "--persistence.file=")
    with server("prometheus-pushgateway", *flags, log=log, healthy=f"{url}/-/ready"):
        yield url


def once(project: Path, *arguments: str, **env: str) -> int:
    return run(project, "--once", projects.ANY_PORT, *arguments, **env).returncode


def forget(project: Path) -> None:
    """Take the history away, as a CI job has none of the job before."""
    for entry in (project / ".paropt").iterdir():
        if entry.is_file():
            entry.unlink()


def test_failed_run_leaves_the_last_success_in_the_gateway(project: Path, gateway: str) -> None:
    arguments = ("--push.url", gateway, "--push.instance", "runner")
    assert once(project, *arguments) == 0
    first = projects.scraped(f"{gateway}/metrics")
    where = ("runner", "paropt", "standard")
    assert first[SUCCESS, *where] == first[COMPLETION, *where]
    (project / "good").unlink()
    forget(project)
    assert once(project, *arguments) == 1
    second = projects.scraped(f"{gateway}/metrics")
    assert second[SUCCESS, *where] == first[SUCCESS, *where]
    assert second[COMPLETION, *where] > first[COMPLETION, *where]
    assert second["paropt_stage_last_result", *where, "failure", "checks"] == 1
    assert not [key for key in second if key[0].startswith("paropt_pool_")]


def test_limit_that_is_gone_leaves_the_gateway(tmp_path: Path, gateway: str) -> None:
    """A lane without limits has no families of SLAs, and an alert on a broken limit would never resolve."""
    arguments = ("--lane", "limited", "--push.url", gateway, "--push.fail")
    lanes = "lanes: {limited: {workers: 1}}"
    for limit, kept in ((", sla: 1ms", True), ("", False)):
        projects.write(tmp_path, f'name: checks, run: "true"{limit}', lanes=lanes)
        assert once(tmp_path, *arguments) == 0
        names = {key[0] for key in projects.scraped(f"{gateway}/metrics") if "limited" in key}
        assert ("paropt_sla_breached" in names) is kept
        assert SUCCESS in names


@pytest.mark.parametrize("name", ["a lane", "ünï+%", "..", "a?b#c&d"])
def test_lane_of_any_name_has_a_group_of_its_own(tmp_path: Path, gateway: str, name: str) -> None:
    projects.write(tmp_path, 'name: good, run: "true"', lanes=f"lanes: {{'{name}': {{workers: 1}}}}")
    assert once(tmp_path, "--lane", name, "--push.url", gateway, "--push.fail") == 0
    assert (SUCCESS, os.uname().nodename, "paropt", name) in projects.scraped(f"{gateway}/metrics")


def test_failed_push_is_reported_and_changes_no_exit_code(project: Path) -> None:
    ended = run(project, "--once", projects.ANY_PORT, f"--push.url=http://127.0.0.1:{free_port()}")
    assert ended.returncode == 0
    assert "not delivered" in ended.stderr
    assert "Connection refused" in ended.stderr


def test_push_that_fails_is_exit_code_3_where_that_was_asked_for(project: Path) -> None:
    assert once(project, f"--push.url=http://127.0.0.1:{free_port()}", "--push.fail") == 3


def test_push_that_fails_is_counted(project: Path) -> None:
    with projects.served(project, f"--push.url=http://127.0.0.1:{free_port()}") as url:
        samples = eventually("a count", lambda: _counted(url))
        assert samples["paropt_deliveries_total", "failure", "pushgateway"] == 1


def _counted(url: str) -> dict[tuple[str, ...], float] | None:
    samples = projects.scraped(url)
    return samples if samples["paropt_deliveries_total", "failure", "pushgateway"] else None


@pytest.mark.parametrize(
    "arguments",
    [("--push.url=gateway",), ("--push.url=http://me:s3cret@gateway",), ("--push.fail",), ("--textfile=gone",)],
)
def test_impossible_push_or_textfile_is_one_line_before_anything_runs(
    project: Path, arguments: tuple[str, ...]
) -> None:
    ended = run(project, "--once", projects.ANY_PORT, *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert "s3cret" not in line


def test_interrupted_run_is_pushed_too(tmp_path: Path, gateway: str) -> None:
    projects.write(tmp_path, 'name: long, run: "echo $$ > pid; exec sleep 60", shell: true')
    with serving(tmp_path, projects.ANY_PORT, "--push.url", gateway) as command:
        projects.pid_in(tmp_path / "pid")
        assert command.stop() == 143
    samples = projects.scraped(f"{gateway}/metrics")
    assert samples["paropt_runs_total", os.uname().nodename, "paropt", "standard", "cancellation"] == 1


def test_push_works_with_tls_and_a_password_and_logs_no_secret(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("server")
    tls = "tls_server_config: {cert_file: server.pem, key_file: server.key}"
    web = web_config(tmp_path, f"{tls}\nbasic_auth_users: {{ci: {hashed()}}}")
    project = tmp_path / "project"
    project.mkdir()
    login = "basic_auth: {username: ci, password_env: SECRET}, tls: {ca_file: ../ca.pem}"
    projects.write(project, 'name: good, run: "true"', lanes=f"push: {{{login}}}")
    port = free_port()
    flags = (f"--web.listen-address=127.0.0.1:{port}", f"--web.config.file={web}", "--persistence.file=")
    healthy = f"http://127.0.0.1:{port}/"  # answered with 400, since it is not TLS: that is enough
    with server("prometheus-pushgateway", *flags, log=tmp_path / "gateway.log", healthy=healthy, status=400):
        for secret, code in ((PASSWORD, 0), ("wr0ng", 3)):
            arguments = (f"--push.url=https://127.0.0.1:{port}", "--push.fail", "--log.level=debug")
            ended = run(project, "--once", projects.ANY_PORT, *arguments, SECRET=secret)
            assert ended.returncode == code, ended.stderr
            assert secret not in ended.stderr
    assert "401 Unauthorized" in ended.stderr


@contextmanager
def node_exporter(folder: Path, log: Path) -> Iterator[str]:
    """Run node_exporter with the textfiles of a folder; yield the address of its page."""
    address = f"127.0.0.1:{free_port()}"
    flags = (
        f"--web.listen-address={address}",
        f"--collector.textfile.directory={folder}",
        "--collector.disable-defaults",
        "--collector.textfile",
    )
    url = f"http://{address}/metrics"
    with server("prometheus-node-exporter", *flags, log=log, healthy=url):
        yield url


def test_node_exporter_collects_the_textfiles_of_two_versions(tmp_path: Path) -> None:
    """Their help texts may differ, until each lane has run after an upgrade."""
    for lane, text in (("docs", "The old text."), ("standard", "The new text.")):
        page = f'# HELP {SUCCESS} {text}\n# TYPE {SUCCESS} gauge\n{SUCCESS}{{lane="{lane}"}} 1\n'
        sinks.write_textfile(tmp_path / f"{lane}.prom", page.encode())
    with node_exporter(tmp_path, tmp_path / "log") as url:
        assert {key[1] for key in projects.scraped(url) if key[0] == SUCCESS} == {"docs", "standard"}


def test_node_exporter_collects_the_textfiles_of_two_lanes(project: Path, tmp_path: Path) -> None:
    collected = tmp_path / "collected"
    collected.mkdir()
    for lane in ("docs", "standard"):
        assert once(project, "--lane", lane, "--textfile", str(collected)) == 0
    with node_exporter(collected, tmp_path / "node_exporter.log") as url:
        samples = projects.scraped(url)
        assert {key[1] for key in samples if key[0] == SUCCESS} == {"docs", "standard"}
        assert samples["node_textfile_scrape_error",] == 0
        (project / "good").unlink()
        forget(project)
        assert once(project, "--lane", "docs", "--textfile", str(collected)) == 1
        after = projects.scraped(url)
        assert after[SUCCESS, "docs"] == samples[SUCCESS, "docs"]
        assert after["paropt_stage_last_result", "docs", "failure", "checks"] == 1


def test_runs_that_overlap_write_the_totals_of_both(tmp_path: Path) -> None:
    """Two runs of a cron job. The one that started first ends last; lower totals would look like a restart."""
    again = f"test -e inner || (touch inner && {installed_command()} --once --textfile .)"
    projects.write(tmp_path, f'name: checks, run: "{again}", shell: true')
    assert once(tmp_path, "--textfile", ".") == 0
    written = projects.samples((tmp_path / "paropt_demo_standard.prom").read_text())
    assert written["paropt_runs_total", "standard", "success"] == 2
    assert written["paropt_stage_duration_seconds_count", "standard", "checks"] == 2
    assert written["paropt_stage_progress_ratio", "standard", "checks"] == 1


def test_page_that_arrives_after_that_of_a_later_run_is_pushed_again(project: Path) -> None:
    """The gateway takes the first push only when a second run has ended and pushed its own totals."""
    pages: list[str] = []

    class Gateway(QuietHandler):
        def do_PUT(self) -> None:
            page = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if not begun.is_set():
                begun.set()
                assert once(project, "--push.fail", "--push.url", url) == 0
            pages.append(page)
            self.reply()

    begun = Event()
    with run_http_server(Gateway) as port:
        url = f"http://127.0.0.1:{port}"
        assert once(project, "--push.fail", "--push.url", url) == 0
    totals = [projects.samples(page)["paropt_runs_total", "standard", "success"] for page in pages]
    assert totals == [2, 1, 2]


@dataclass(frozen=True, slots=True)
class Scrapers:
    """A Prometheus that scrapes a port, and another one that scrapes the gateway."""

    port: int
    of_port: Prometheus
    of_gateway: Prometheus


@pytest.fixture(scope="module")
def scrapers(gateway: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scrapers]:
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    # A scrape that Prometheus gives up after it was answered ends the run, too: none takes a second.
    slow = prometheus(folder / "slow", [f"127.0.0.1:{port}"], scrape_interval="1s", scrape_timeout="1s")
    pushed = prometheus(folder / "pushed", [gateway.removeprefix("http://")], honor_labels=True)
    with started_together([slow, pushed]) as started:
        yield Scrapers(port, *started)


def test_lingering_run_ends_once_prometheus_has_its_final_values(project: Path, scrapers: Scrapers) -> None:
    ended = run(project, "--once", "--web.linger=10m", f"--web.listen-address=127.0.0.1:{scrapers.port}")
    assert ended.returncode == 0
    stored = f"last_over_time({SUCCESS}[1m]) > 0"
    eventually("Prometheus has stored its last scrape", lambda: scrapers.of_port.query(stored))


def test_lingering_run_without_a_scrape_ends_after_its_time(project: Path) -> None:
    assert once(project, "--web.linger=100ms") == 0


def test_gateway_is_scraped_by_prometheus_with_the_labels_of_the_group(
    project: Path, gateway: str, scrapers: Scrapers
) -> None:
    assert once(project, "--push.url", gateway, "--push.instance", "scraped") == 0
    query = f'{SUCCESS}{{instance="scraped"}}'
    (series,) = eventually("the pushed values", lambda: scrapers.of_gateway.query(query))
    labels = {"job": "paropt", "instance": "scraped", "project": "demo", "lane": "standard"}
    assert {name: series["metric"][name] for name in labels} == labels
    assert get(f"{gateway}/-/healthy")[0] == 200
