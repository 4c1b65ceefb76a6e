"""Real servers and the installed command for end-to-end tests: on loopback, terminated by their pids."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

HANG_SECONDS = 60.0
_LOOK_AGAIN_SECONDS, _MOST_LOOK_AGAIN_SECONDS = 0.05, 0.25  # a look at a page costs both sides milliseconds
_FIRST_PORT, _END_OF_PORTS = 11_000, 32_000  # above the default port of each server, below Linux's ephemeral ports
_PARTS = 16
_RETURNED_PORTS: set[int] = set()
SET_BY_CI = ("CI", "GITHUB_ACTIONS", "PAROPT_CONFIG_FILE")
# For programs in Go: garbage collection takes a third of a short process's time; below the limit it never runs. Above
# it, as with 100,000 series, a server collects all the time: such a one needs Go's own settings.
GO_SETTINGS = {"GOGC": "off", "GOMEMLIMIT": "256MiB", "GOMAXPROCS": "1"}
RARE_COLLECTION = {**os.environ, **GO_SETTINGS}


def program(name: str) -> str:
    unpacked = Path.cwd() / ".tools/usr"
    found = shutil.which(name) or shutil.which(name, path=f"{unpacked / 'bin'}{os.pathsep}{unpacked / 'sbin'}")
    assert found, f"{name} is missing: run `make tools`"
    return found


# Before a command: root may enter any folder, unless it gives this up.
MORTAL = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all") if os.geteuid() == 0 else ()


def installed_command() -> str:
    return str(Path(sys.executable).parent / "paropt-exporter")


def free_port() -> int:
    """Return a port that nothing else takes until the server listens on it, and that was not returned before.

    It is below those that the system gives to clients, and in the part of this worker of pytest-xdist.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PARTS
    for port in random.SystemRandom().sample(range(_FIRST_PORT + worker, _END_OF_PORTS, _PARTS), 100):
        if port not in _RETURNED_PORTS and _is_free(port):
            _RETURNED_PORTS.add(port)
            return port
    raise AssertionError(f"none of 100 ports below {_END_OF_PORTS} is free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def environment(**more: str) -> dict[str, str]:
    """Return the environment for commands under test, without CI's variables, which change the command's behaviour."""
    return {name: value for name, value in os.environ.items() if name not in SET_BY_CI} | more


def eventually(what: str, look: Any) -> Any:
    """Poll until the answer is true: a real server sends no notification."""
    began, pause = time.monotonic(), Event()
    while (waited := time.monotonic() - began) < HANG_SECONDS:
        if answer := look():
            return answer
        pause.wait(min(max(_LOOK_AGAIN_SECONDS, waited / 20), _MOST_LOOK_AGAIN_SECONDS))
    raise AssertionError(f"never happened: {what}")


class Prometheus:
    """A real Prometheus, or a server with its API, that scrapes the targets four times a second."""

    def __init__(
        self,
        url: str,
        command: Sequence[str] = (),
        log: Path | None = None,
        variables: Mapping[str, str] = RARE_COLLECTION,
    ) -> None:
        self.url = url
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command
        self._log = log
        self._variables = variables

    def start(self, ready: str) -> None:
        """Start it, or restart it with its stored data."""
        assert self._log is not None
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._variables)
        eventually("the server is ready", lambda: _answers(f"{self.url}{ready}"))

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait(HANG_SECONDS)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(HANG_SECONDS)

    def query(self, expression: str) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{query}", timeout=HANG_SECONDS) as answer:
            body = json.load(answer)
        assert body["status"] == "success", body
        return list(body["data"]["result"])

    def value(self, expression: str) -> float:
        """Return the value of an expression with exactly one series."""
        (series,) = self.query(expression)
        return float(series["value"][1])

    def by(self, label: str, expression: str) -> dict[str, float]:
        return {series["metric"][label]: float(series["value"][1]) for series in self.query(expression)}

    def wait_for_scrape_after(self, moment: float) -> None:
        eventually(
            "a scrape", lambda: any(float(s["value"][1]) > moment for s in self.query('timestamp(up{job="paropt"})'))
        )


@contextmanager
def server(name: str, *flags: str, log: Path, healthy: str, status: int = 200) -> Iterator[None]:
    """Run one of Debian's servers until the block ends; it starts once the URL `healthy` answers `status`."""
    with log.open("wb") as output:
        process = subprocess.Popen([program(name), *flags], stdout=output, stderr=output, env=RARE_COLLECTION)
    try:
        eventually(f"{name} answers", lambda: _answers(healthy, status))
        yield
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)


@contextmanager
def webdav(folder: Path, *, token: str = "") -> Iterator[str]:
    """Run nginx as a store of files, which is a server of Bazel's HTTP cache; yield its URL.

    `token`: writes need it as a bearer token, reads don't.
    """
    for name in ("files", "temporary"):
        (folder / name).mkdir(parents=True)
    port = free_port()
    allowed = f"""if ($http_authorization != "Bearer {token}") {{ set $refused "$request_method"; }}""" if token else ""
    (folder / "nginx.conf").write_text(f"""
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log warn;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/temporary; proxy_temp_path {folder}/temporary/p;
  fastcgi_temp_path {folder}/temporary/f; uwsgi_temp_path {folder}/temporary/u; scgi_temp_path {folder}/temporary/s;
  client_max_body_size 100m;
  server {{
    listen 127.0.0.1:{port}; root {folder}/files; dav_methods PUT; create_full_put_path on;
    set $refused ""; {allowed} if ($refused = PUT) {{ return 403; }}
    location / {{ }}
  }}
}}
""")
    process = subprocess.Popen([program("nginx"), "-c", str(folder / "nginx.conf"), "-p", str(folder)])
    try:
        eventually("nginx listens", lambda: _listens(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def prometheus(
    folder: Path,
    targets: Sequence[str],
    *,
    alerting: Mapping[str, object] | None = None,
    variables: Mapping[str, str] = RARE_COLLECTION,
    **scrape: object,
) -> Iterator[Prometheus]:
    """`scrape`: more keys of the scrape config, such as `scheme` and `basic_auth`. `alerting`: more of the config."""
    config = {
        "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"},
        **(alerting or {}),
        "scrape_configs": [{"job_name": "paropt", "static_configs": [{"targets": list(targets)}], **scrape}],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.json").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.json'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    real = Prometheus(f"http://127.0.0.1:{port}", command, folder / "prometheus.log", variables)
    try:
        real.start("/-/ready")
        # It hands new targets to its scrapers every 5 s only: a short run would be over before.
        eventually("Prometheus knows its targets", lambda: len(real.query("up")) == len(targets))
        yield real
    finally:
        real.stop()


@contextmanager
def started_together(servers: Sequence[AbstractContextManager[Prometheus]]) -> Iterator[list[Prometheus]]:
    """Start servers at the same time: a Prometheus waits for five seconds until it scrapes its targets."""
    with ExitStack() as stack, ThreadPoolExecutor(len(servers)) as threads:
        yield list(threads.map(stack.enter_context, servers))


@contextmanager
def victoria_metrics(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """A real VictoriaMetrics that scrapes the targets four times a second."""
    config = {
        "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms"},
        "scrape_configs": [{"job_name": "paropt", "static_configs": [{"targets": list(targets)}]}],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scrape.json").write_text(json.dumps(config))
    port = free_port()
    command = [
        program("victoria-metrics"),
        f"-promscrape.config={folder / 'scrape.json'}",
        f"-storageDataPath={folder / 'data'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-memory.allowedBytes=64MB",
        "-loggerLevel=WARN",
    ]
    real = Prometheus(f"http://127.0.0.1:{port}", command, folder / "victoria.log")
    try:
        real.start("/health")
        yield real
    finally:
        real.stop()


def get(url: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=HANG_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:  # from Python 3.14 on, one that is dropped open warns
            return error.code, error.read().decode()


def ended(client: socket.socket) -> bool:
    """Return whether the other end has closed without an answer; with unread bytes this is a reset."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def _answers(url: str, status: int = 200) -> bool:
    try:
        return get(url)[0] == status
    except OSError:
        return False


def run(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command to its end."""
    return subprocess.run(
        [installed_command(), *arguments],
        cwd=folder,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


class Serving:
    """The installed command while it serves; `summary` waits for the end of its first run."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def summary(self) -> str:
        """Return the first line of the next summary on stdout."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=HANG_SECONDS)
        return self.process.returncode


@contextmanager
def serving(folder: Path, *arguments: str, command: Sequence[str] = (), **env: str) -> Iterator[Serving]:
    """Run the installed command, or another `command` in its place, until the block ends."""
    with (folder / "stderr.log").open("w") as log:
        process = subprocess.Popen(
            [*(command or (installed_command(),)), *arguments],
            cwd=folder,
            env=environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield Serving(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=HANG_SECONDS)
