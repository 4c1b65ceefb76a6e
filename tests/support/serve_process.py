"""`paropt-exporter serve` as a process, and runs that register with it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from paropt_exporter.exposition.renderer import PageSource
from support.in_process import call_command
from support.metric_pages import render_page
from support.real_servers import HANG_SECONDS, environment, eventually, get, installed_command, program

ANY_ADDRESS = "127.0.0.1:0"


class ServeProcess:
    """A `serve` with its runtime folder; it can be killed and started again."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self._log = runtime.parent / f"{runtime.name}.log"

    @property
    def environment(self) -> dict[str, str]:
        return {"PAROPT_SERVE": str(self.runtime)}

    def start(self, *flags: str, address: str = ANY_ADDRESS) -> None:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [installed_command(), "serve", "--web.listen-address", address, *flags],
                env=environment(**self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        found = eventually("serve tells its address", lambda: re.search(r"metrics at (http\S+),", self.messages()))
        self.url = found[1]

    def start_again(self) -> None:
        """Start it at the same address, so that Prometheus would find it."""
        self.start(address=self.url.removeprefix("http://").partition("/")[0])

    def messages(self) -> str:
        return self._log.read_text()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(HANG_SECONDS)

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            return self.process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def page(self) -> str:
        status, page = get(self.url)
        assert status == 200, page
        return page

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the series with these labels."""
        return sum_series(self.page(), name, **labels)

    def status(self) -> Mapping[str, Any]:
        shown = call_command(self.runtime.parent, "serve", "status", "--output", "json", **self.environment)
        assert shown.returncode == 0, shown.stderr
        return dict(json.loads(shown.stdout))


def sum_series(page: str, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def check_page(page: str) -> None:
    """Fail if promtool finds a fault in the page."""
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"], input=page, capture_output=True, text=True, timeout=HANG_SECONDS,
        check=False,
    )  # fmt: skip
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, ""), checked.stdout + checked.stderr


def render_text(page: PageSource) -> str:
    return render_page(page).decode()


@contextmanager
def serve(folder: Path, *flags: str) -> Iterator[ServeProcess]:
    """Run `serve` until the block ends."""
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    served = ServeProcess(runtime)
    served.start(*flags)
    try:
        yield served
    finally:
        served.stop()


@contextmanager
def begin_run(folder: Path, served: ServeProcess, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a run that finds `serve`; it is killed if it lives when the block ends."""
    with (folder / f"{os.urandom(4).hex()}.log").open("w") as log:
        process = subprocess.Popen(
            [installed_command(), *arguments],
            cwd=folder,
            env=environment(**served.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(HANG_SECONDS)
