"""Run the demo lane under Debian's Prometheus and Alertmanager on this machine: `make stack`; Ctrl-C ends all of it.

    work.py <- paropt-exporter <- Prometheus (rules of alerts/) -> Alertmanager (deploy/alertmanager) -> this program

The demo, both databases and all caches are in a temporary folder.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SCRAPE_INTERVAL = "5s"
LANE_INTERVAL = "10s"
READY_SECONDS = 30.0
STOP_SECONDS = 20.0  # the exporter gives its commands 10 s between TERM and KILL
_LOOK_AGAIN_SECONDS = 0.1

Ended = SimpleQueue[str]  # why the stack ends: the name of a program that is gone, "" for a signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The port of each program, on 127.0.0.1."""

    exporter: int
    prometheus: int
    alertmanager: int
    webhook: int

    def address(self, name: str) -> str:
        return f"127.0.0.1:{getattr(self, name)}"


def main() -> int:
    """Start all programs, print their addresses, and wait for the end; return 1 if a program exits by itself."""
    ended: Ended = SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.put(""))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="paropt-stack-")))
        server = stack.enter_context(notified())
        ports = Ports(**free_ports("exporter", "prometheus", "alertmanager"), webhook=server)
        write_configs(folder, ports)
        for name, command in commands(folder, ports).items():
            stack.enter_context(running(name, command, folder, ended))
        if all(is_ready(name, ports, ended) for name in ("alertmanager", "prometheus", "exporter")):
            tell(ports)
        gone = ended.get()
        if gone:
            print(f"{gone} has ended by itself; the end of its log:\n{tail(folder / f'{gone}.log')}", file=sys.stderr)
        return 1 if gone else 0


def free_ports(*names: str) -> dict[str, int]:
    """Return a free port for each name; all are bound until the last is chosen, so that they differ."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return {name: probe.getsockname()[1] for name, probe in zip(names, probes, strict=True)}


def write_configs(folder: Path, ports: Ports) -> None:
    """Write the compose stack's configs, with the addresses of this one."""
    demo = folder / "demo"
    shutil.copytree(ROOT / "deploy/demo", demo, ignore=shutil.ignore_patterns(".paropt", "run-count", "crashed-*"))
    config = demo / "paropt.yml"
    config.write_text(config.read_text().replace("127.0.0.1:9090", ports.address("prometheus")))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(prometheus_config(ports)))
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(alertmanager_config(ports)))


def prometheus_config(ports: Ports) -> dict[str, Any]:
    text = (ROOT / "deploy/compose/prometheus.yml").read_text()
    for name, port in (("exporter", 10178), ("prometheus", 9090), ("alertmanager", 9093)):
        text = text.replace(f"{name}:{port}", ports.address(name))
    config: dict[str, Any] = yaml.safe_load(text)
    config["global"] = {"scrape_interval": SCRAPE_INTERVAL, "evaluation_interval": SCRAPE_INTERVAL}
    config["rule_files"] = [str(ROOT / "alerts/*.yml")]
    return config


def alertmanager_config(ports: Ports) -> dict[str, Any]:
    """Return the routing example; this program receives all notifications."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "deploy/alertmanager/alertmanager.yml").read_text())
    config.pop("global", None)  # addresses and passwords of real receivers
    config.pop("templates", None)
    here = {"webhook_configs": [{"url": f"http://{ports.address('webhook')}/", "send_resolved": True}]}
    config["receivers"] = [
        {"name": receiver["name"], **(here if len(receiver) > 1 else {})} for receiver in config["receivers"]
    ]
    return config


def commands(folder: Path, ports: Ports) -> dict[str, Sequence[str]]:
    """Return the commands in the order of their start; they are stopped in reverse."""
    return {
        "alertmanager": [
            program("prometheus-alertmanager"),
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address={ports.address('alertmanager')}",
            "--cluster.listen-address=",
        ],
        "prometheus": [
            program("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address={ports.address('prometheus')}",
        ],
        "exporter": [
            str(Path(sys.executable).with_name("paropt-exporter")),
            f"--config.file={folder / 'demo/paropt.yml'}",
            f"--every={LANE_INTERVAL}",
            f"--web.listen-address={ports.address('exporter')}",
        ],
    }


def program(name: str) -> str:
    """Return the path of one of Debian's programs; raises SystemExit with advice if it is missing."""
    found = shutil.which(name) or shutil.which(name, path=str(ROOT / ".tools/usr/bin"))
    if found is None:
        sys.exit(f"{name} is not here: `make tools` gets it from Debian, and `make stack` does so by itself")
    return found


@contextmanager
def running(name: str, command: Sequence[str], folder: Path, ended: Ended) -> Iterator[None]:
    """Run a program with its output in a file, in its own session, since Ctrl-C is for this program alone."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
        )
    stopping = threading.Event()

    def watch() -> None:
        process.wait()
        if not stopping.is_set():
            ended.put(name)

    watcher = threading.Thread(target=watch, name=f"watch-{name}")
    watcher.start()
    try:
        yield
    finally:
        stopping.set()
        process.terminate()
        watcher.join(STOP_SECONDS)
        process.kill()
        watcher.join()


def is_ready(name: str, ports: Ports, ended: Ended) -> bool:
    """Wait until a program responds; return False and end the stack on a timeout or if the user has stopped it."""
    waited = threading.Event()
    for _ in range(round(READY_SECONDS / _LOOK_AGAIN_SECONDS)):
        if not ended.empty():
            return False
        if answers(f"http://{ports.address(name)}/-/ready"):
            return True
        waited.wait(_LOOK_AGAIN_SECONDS)
    ended.put(name)
    return False


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def tell(ports: Ports) -> None:
    print(
        f"Prometheus    http://{ports.address('prometheus')}/alerts\n"
        f"Alertmanager  http://{ports.address('alertmanager')}\n"
        f"exporter      http://{ports.address('exporter')}/metrics\n"
        f"dashboards    dashboards/*.json, for a Grafana whose data source is http://{ports.address('prometheus')}\n"
        "The lane runs every 10 s; what Alertmanager would send stands below. Ctrl-C ends all of it.",
        flush=True,
    )


@contextmanager
def notified() -> Iterator[int]:
    """Receive Alertmanager's notifications on a port, which is yielded, and print a line for each alert."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for alert in body["alerts"]:
                print(notification(body["receiver"], alert), flush=True)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="notifications")
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def notification(receiver: str, alert: dict[str, Any]) -> str:
    labels = alert["labels"]
    about = " ".join(f"{name}={labels[name]}" for name in ("lane", "stage", "pool") if name in labels)
    return f"{alert['status']:8} -> {receiver}: {labels['alertname']} ({labels['severity']}) {about}"


def tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-5:])


if __name__ == "__main__":
    sys.exit(main())
