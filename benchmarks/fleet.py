"""Plan a fleet of hosts that each run an exporter, and play one: 1,000 targets under one real Prometheus.

    python benchmarks/fleet.py series                       # the arithmetic, from the families and a real page
    python benchmarks/fleet.py play [--hosts 1000] [--stages 5] [--interval 15] [--minutes 5]

`series` prints how many series a host exports, by the number of its stages, and what fleets of 10, 1,000 and 100,000
hosts need. `play` renders the page of a real run, and one process serves it on loopback as that of each host, with
counters that grow. A real Prometheus scrapes them and evaluates the rules; then each panel of the dashboards is asked.
Memory, CPU time and the durations of rules and queries are those of that Prometheus.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

import scale
from paropt_exporter import families
from paropt_exporter.families import Family, Kind

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.real_servers import environment, eventually, free_port, installed_command, program  # noqa: E402

BYTES_A_SAMPLE = 1.5  # on disk; Prometheus' documentation says 1 to 2
DAYS = 15  # Prometheus' own retention
SECONDS_A_DAY = 86_400
HOSTS = (10, 1_000, 100_000)
MOST_SERIES = 4_000_000  # of one Prometheus, roughly: 13 GB at the measured bytes a series


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many series a host exports: some, and some more for each of its stages."""

    host: int
    stage: int

    def of(self, stages: int) -> int:
        return self.host + self.stage * stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("series")
    play = commands.add_parser("play")
    play.add_argument("--hosts", type=int, default=1000)
    play.add_argument("--stages", type=int, default=5)
    play.add_argument("--interval", type=int, default=15)
    play.add_argument("--minutes", type=float, default=5.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.command == "series":
            report_series(Path(folder))
        else:
            report_play(Path(folder), arguments)


def report_series(folder: Path) -> None:
    listed = count_listed()
    pages = {stages: count_samples(render_page(folder / str(stages), stages)) for stages in (1, 5, 20)}
    slope, rest = divmod(pages[20] - pages[5], 15)
    measured = Count(host=pages[5] - 5 * slope, stage=slope)
    print(f"catalogue, everything set: {listed.host} + {listed.stage} x stages")
    print(f"page of a real run:        {measured.host} + {measured.stage} x stages" + (" (about)" if rest else ""))
    print("pages: " + ", ".join(f"{stages} stages {count} series" for stages, count in pages.items()))
    print("| hosts x 5 stages | series | samples/s at 15 s | at 60 s | memory | disk, 15 days at 15 s | servers |")
    print("|---|---|---|---|---|---|---|")
    for hosts in HOSTS:
        series = hosts * measured.of(5)
        disk = series / 15 * SECONDS_A_DAY * DAYS * BYTES_A_SAMPLE
        print(
            f"| {hosts:,} | {series:,} | {series / 15:,.0f} | {series / 60:,.0f} "
            f"| {series * read_bytes_a_series() / 1e9:,.2f} GB | {disk / 1e9:,.1f} GB "
            f"| {max(1, round(series / MOST_SERIES))} |"
        )


def read_bytes_a_series() -> float:
    """Return the memory of a series in bytes, as `play` measured it (docs/scale.md)."""
    path = ROOT / "docs/scale.md"
    found = re.search(r"([\d,]+) bytes a series", path.read_text() if path.exists() else "")
    return float(found[1].replace(",", "")) if found else 2300.0


def count_listed() -> Count:
    """Return the number of series that the catalogue allows: one lane, the pools of `scale.py`, all closed values.

    Those of `paropt-exporter serve` are few, and do not grow with stages.
    """
    host = stage = 0
    for family in families.FAMILIES:
        if family in families.SERVE_FAMILIES:
            continue
        ones = [count_family(family, stages) for stages in (1, 2)]
        stage += ones[1] - ones[0]
        host += 2 * ones[0] - ones[1]
    return Count(host=host, stage=stage)


def count_family(family: Family, stages: int) -> int:
    parts = ("bucket", "sum", "count") if family.kind is Kind.HISTOGRAM else ("",)
    return sum(sum(1 for _ in scale.label_sets(family, part, stages)) for part in parts)


def count_samples(page: str) -> int:
    return sum(1 for line in page.splitlines() if line and not line.startswith("#"))


def render_page(folder: Path, stages: int) -> str:
    """Return the page of a real exporter after a run of some stages, with limits on them."""
    folder.mkdir()
    lines = [f"  - {{number: {number}, name: stage_{number}, run: 'true'}}" for number in range(1, stages + 1)]
    lanes = "lanes: {standard: {sla: 60s, total: 15m}}"
    (folder / "paropt.yml").write_text("\n".join(["project: shop", lanes, "stages:", *lines, ""]))
    address = f"127.0.0.1:{free_port()}"
    command = [installed_command(), "--web.listen-address", address, "--quiet"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        done = re.compile(r'^paropt_runs_total\{[^}]*result="success"[^}]*\} 1(\.0)?$', re.MULTILINE)
        found: str = eventually("the run is on the page", lambda: _find_page(f"http://{address}/metrics", done))
        return found
    finally:
        process.terminate()
        process.wait(60)


def _find_page(url: str, done: re.Pattern[str]) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            page = str(answer.read().decode())
    except OSError:
        return None
    return page if done.search(page) else None


class Pages:
    """Serves one page as that of each host. Counters grow by the number of scrapes of all hosts.

    The last label of each host is the target's own, so that one page serves all: Prometheus adds `instance`.
    """

    def __init__(self, page: str) -> None:
        counters = {family.name for family in families.FAMILIES if family.kind is not Kind.GAUGE}
        self._parts: list[tuple[bytes, float | None]] = []
        for line in page.splitlines():
            name = re.split(r"[{ ]", line, maxsplit=1)[0]
            grows = not line.startswith("#") and re.sub(r"_(bucket|sum|count)$", "", name) in counters
            text, _, value = line.rpartition(" ")
            self._parts.append((f"{text} ".encode(), float(value)) if grows else (f"{line}\n".encode(), None))
        self._steps = [self._render(step) for step in range(16)]
        self.scrapes = 0

    def _render(self, step: int) -> bytes:
        body = b"".join(text if value is None else text + f"{value + step}\n".encode() for text, value in self._parts)
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.scrapes += 1
                writer.write(self._steps[int(time.monotonic() / 60) % len(self._steps)])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@contextmanager
def serve(pages: Pages) -> Iterator[int]:
    """Serve in a thread until the block ends; yield the port."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(pages.answer, "127.0.0.1", 0, backlog=2048))
    thread = threading.Thread(target=loop.run_forever, name="pages", daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def report_play(folder: Path, arguments: argparse.Namespace) -> None:
    page = render_page(folder / "project", arguments.stages)
    pages = Pages(page)
    with serve(pages) as port, prometheus(folder, port, arguments) as server:
        began, pause = time.monotonic(), threading.Event()
        pause.wait(2 * arguments.interval)  # all series exist from then on
        started, cpu, scrapes = time.monotonic(), server.cpu_seconds(), pages.scrapes
        pause.wait(max(60.0, 60 * arguments.minutes - (started - began)))
        elapsed = time.monotonic() - started
        cores = (server.cpu_seconds() - cpu) / elapsed
        samples = (pages.scrapes - scrapes) * count_samples(page) / elapsed
        series, memory = read_head_series(server), psutil.Process(server.pid).memory_info().rss
        up = ask_number(server, 'sum(up{job="paropt"})')
        late = ask_number(server, 'quantile(0.99, scrape_duration_seconds{job="paropt"})')
        print(f"{arguments.hosts} hosts x {arguments.stages} stages every {arguments.interval} s: {up:.0f} are up")
        print(f"{count_samples(page)} samples a page, {series:,} series in the head, {samples:,.0f} samples/s")
        print(f"memory {memory / 1e9:.2f} GB, {memory / series:,.0f} bytes a series; {cores:.2f} cores")
        print(f"scrapes: 99 % within {late:.3f} s")
        end = int(time.time()) - arguments.interval
        # Without targets the server does nothing else, and the CPU time of a query is its own.
        (folder / "targets.json").write_text("[]")
        eventually("the scrapes end", lambda: not count_scrapes(pages, pause))
        report_rules(server, end)
        report_queries(server, arguments.interval, end)
        peak = psutil.Process(server.pid).memory_info().rss
        print(f"memory after the queries {peak / 1e9:.2f} GB")


def count_scrapes(pages: Pages, pause: threading.Event) -> int:
    """Return how many scrapes there are in a few seconds."""
    before = pages.scrapes
    pause.wait(5.0)
    return pages.scrapes - before


def read_head_series(server: scale.Server) -> int:
    with urllib.request.urlopen(f"{server.url}/api/v1/status/tsdb", timeout=120) as answer:
        return int(json.load(answer)["data"]["headStats"]["numSeries"])


@contextmanager
def prometheus(folder: Path, port: int, arguments: argparse.Namespace) -> Iterator[scale.Server]:
    """Run Prometheus with the rules and the targets until the block ends."""
    targets = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"__metrics_path__": f"/{number}", "instance": f"host{number}"}}
        for number in range(arguments.hosts)
    ]
    (folder / "targets.json").write_text(json.dumps(targets))
    own = free_port()
    config = {
        "global": {"scrape_interval": f"{arguments.interval}s", "evaluation_interval": "15s"},
        "rule_files": [str(ROOT / "alerts/*.yml")],
        "scrape_configs": [
            {"job_name": "prometheus", "static_configs": [{"targets": [f"127.0.0.1:{own}"]}]},
            {"job_name": "paropt", "file_sd_configs": [{"files": ["targets.json"]}], "sample_limit": 5000},
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    command = [
        program("prometheus"), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{own}", "--log.level=error",
    ]  # fmt: skip
    process = subprocess.Popen(command)
    try:
        url = f"http://127.0.0.1:{own}"
        eventually("Prometheus is ready", lambda: scale.is_ready(url))
        yield scale.Server(url=url, pid=process.pid)
    finally:
        process.terminate()
        process.wait(300)  # it writes its head to the disk


def ask_number(server: scale.Server, expression: str) -> float:
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{server.url}/api/v1/query?{query}", timeout=120) as answer:
        found: Sequence[Mapping[str, Sequence[str]]] = json.load(answer)["data"]["result"]
    return float(found[0]["value"][1]) if found else 0.0


def report_rules(server: scale.Server, end: int) -> None:
    """Print the CPU time of one evaluation of each group, by its queries, and how many cores all of them keep busy."""
    costs = [scale.ask(server, asked, end) for asked in scale.rules()]
    scale.report_groups(costs)
    cores = sum(cost.cpu_seconds / cost.query.group[1] for cost in costs if cost.query.group is not None)
    faults = ask_number(server, "sum(increase(prometheus_rule_evaluation_failures_total[10m]))")
    print(f"rules: {cores:.3f} cores for all of them; {faults:.0f} evaluations failed")


def report_queries(server: scale.Server, interval: int, end: int) -> None:
    """Ask each panel over the time that there is."""
    costs = [scale.ask(server, asked, end) for asked in scale.panels(interval)]
    costs.sort(key=lambda found: -found.cpu_seconds)
    for found in costs[:8]:
        print(f"{found.cpu_seconds:7.2f} CPU s {found.wall_seconds:7.2f} s  {found.query.where}")
    cpu = [found.cpu_seconds for found in costs]
    print(f"{len(costs)} panel queries: median {median(cpu):.2f}, all {sum(cpu):.1f} CPU s")


if __name__ == "__main__":
    os.environ.pop("CI", None)
    main()
