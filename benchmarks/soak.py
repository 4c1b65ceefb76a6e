"""Minutes of a lane whose stages fail in every way, under scrapes, slow clients and a Prometheus that comes and goes.

Usage: python benchmarks/soak.py [SECONDS] [SEED]. The seed is printed and gives the same lane again. At the end the
counters on the page equal the history, every stage has exactly one result a run, and threads, descriptors, memory and
processes are back where they were. Exits with 1 and says what is wrong otherwise.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

SECONDS = 120.0
COMMAND = Path(sys.executable).parent / "paropt-exporter"
STAGES = 24
_SCRAPE_SECONDS = 0.1
_START_SECONDS = 60.0
_LEAST_SAMPLES = 5  # in a fifth of the time
_MEMORY_GROWTH_BYTES = 24 << 20  # caches fill in the first runs; a leak of a task's output a run would pass this soon

CALLS = """
import os, signal, time
def fine(): time.sleep(0.01)
def burns():
    end = time.process_time() + 0.05
    while time.process_time() < end: pass
def fails(): raise ValueError("as planned")
def dies(): os.kill(os.getpid(), signal.SIGKILL)
def exits(): os._exit(3)
"""

# What a stage may do; the strategy is `process`, so that calls may die.
KINDS = (
    'run: "true"',
    'run: "sleep 0.05"',
    'run: "false"',
    'run: "kill -9 $$", shell: true',
    'run: "sleep 60 & exit 0", shell: true',
    'run: "sleep 60", timeout: 200ms',
    "run: \"trap '' TERM; echo deaf; exit 1\", shell: true, retries: {count: 1, backoff: 10ms}",
    'run: "no-such-program"',
    'run: "head -c 2000000 /dev/zero"',
    'run: "test -n {item}", items: {list: [a, b, c, d]}',
    'call: "calls:fine"',
    'call: "calls:burns"',
    'call: "calls:fails"',
    'call: "calls:dies"',
    'call: "calls:exits"',
)


ANSWERS = (
    (b'{"status": "success", "data": {"resultType": "vector", "result": []}}', 200),
    (b'{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "NaN"]}]}}', 200),
    (b'{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "4"]}]}}', 200),
    (b'{"status": "error", "errorType": "timeout", "error": "query timed out"}', 503),
    (b'{"status": "succ', 200),
    (b"<html>sign in</html>", 200),
    (b"", 500),
)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 32)
    print(f"soak of {seconds:.0f} s, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with free_port() as prometheus:
            write_lane(folder, random.Random(seed), prometheus)
        faults = soak(folder, seconds, random.Random(seed), prometheus)
    print("\n".join(faults) if faults else "nothing lost, nothing left behind")
    sys.exit(1 if faults else 0)


def write_lane(folder: Path, chance: random.Random, prometheus: int) -> None:
    (folder / "calls.py").write_text(CALLS)
    lines = []
    for number in range(2, STAGES + 2):
        needs = f", needs: [s{chance.randrange(2, number)}]" if number > 4 and chance.random() < 0.3 else ""
        lock = ", locks: [one]" if chance.random() < 0.2 else ""
        lines.append(f"  - {{number: {number}, name: s{number}, {chance.choice(KINDS)}{needs}{lock}, sla: 1}}")
    lane = "lanes:\n  standard: {strategy: process, workers: 6, sla: 1, total: 1m}\n"
    url = f"http://127.0.0.1:{prometheus}"
    feedback = f"feedback: {{prometheus: {{url: '{url}'}}, interval: 1s, mode: act}}\n"
    (folder / "paropt.yml").write_text(f"{lane}{feedback}stages:\n" + "\n".join(lines) + "\n")


def soak(folder: Path, seconds: float, chance: random.Random, prometheus: int) -> list[str]:
    with exporter(folder) as (process, port):
        await_answer(port)
        stop = threading.Event()
        clients = [threading.Thread(target=drip, args=(port, stop)) for _ in range(4)]
        clients.append(threading.Thread(target=come_and_go, args=(prometheus, chance, stop)))
        for client in clients:
            client.start()
        samples = list(watch(process.pid, port, seconds))
        stop.set()
        for client in clients:
            client.join()
        page = scrape(port)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    return [
        *compare(folder, page),
        *grown(samples),
        *(f"left behind: process {pid}" for pid in left_behind(folder)),
    ]


@contextmanager
def free_port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


@contextmanager
def exporter(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with free_port() as port:
        pass
    command = [str(COMMAND), "--lane", "standard", "--every", "1", f"--web.listen-address=127.0.0.1:{port}"]
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | {"PAROPT_SOAK": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield process, port
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def await_answer(port: int) -> None:
    pause, end = threading.Event(), time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        with suppress(OSError):
            scrape(port)
            return
        pause.wait(_SCRAPE_SECONDS)
    raise SystemExit(f"the exporter does not answer within {_START_SECONDS:.0f} s")


def watch(pid: int, port: int, seconds: float) -> Iterator[tuple[int, int, int]]:
    """Scrape ten times a second, and yield threads, descriptors and memory once a second."""
    process = psutil.Process(pid)
    pause, end, due = threading.Event(), time.monotonic() + seconds, 0.0
    while time.monotonic() < end:
        pause.wait(_SCRAPE_SECONDS)
        with suppress(OSError):
            scrape(port)
        if time.monotonic() >= due:
            due = time.monotonic() + 1.0
            yield process.num_threads(), process.num_fds(), process.memory_info().rss


def drip(port: int, stop: threading.Event) -> None:
    """Be a slow client: half a request, a byte at a time."""
    while not stop.is_set():
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            for byte in b"GET /metrics HTTP/1.1\r\n":
                client.send(bytes([byte]))
                if stop.wait(0.2):
                    return


def come_and_go(port: int, chance: random.Random, stop: threading.Event) -> None:
    """Be a Prometheus that answers now this, now that, and is not there half of the time."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body, status = chance.choice(ANSWERS)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) + chance.choice((0, 0, 100))))  # at times more than comes
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 -- the library's name

        def log_message(self, *_: object) -> None:
            """Keep the soak's output to itself."""

    while not stop.is_set():
        with ThreadingHTTPServer(("127.0.0.1", port), Answer) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            stop.wait(2)
            server.shutdown()
            thread.join()
        stop.wait(2)


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def compare(folder: Path, page: str) -> Iterator[str]:
    """Hold the page against the history; a run may end between the two, so the page may lag by one."""
    found = subprocess.run(
        [COMMAND, "history", "--output", "json", "--limit", "100000"], cwd=folder, capture_output=True, check=True
    )
    runs = [run for run in json.loads(found.stdout) if run["result"] != "cancellation"]
    on_page: Counter[str] = Counter()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name in ("paropt_runs_total", "paropt_stage_runs_total"):
                on_page[sample.name] += int(sample.value)
    stages = sum(len(run["stage_metrics"]) for run in runs)
    print(f"{len(runs)} runs, {stages} stage results in history; on the page {dict(on_page)}")
    if not len(runs) - 1 <= on_page["paropt_runs_total"] <= len(runs):
        yield f"runs: {on_page['paropt_runs_total']} on the page, {len(runs)} in history"
    if any(len({stage["stage_name"] for stage in run["stage_metrics"]}) != STAGES for run in runs):
        yield "a run without a result for each of its stages"


def grown(samples: list[tuple[int, int, int]]) -> Iterator[str]:
    """Compare the last fifth with the second (the first fills caches), at their lowest: running tasks come and go."""
    fifth = len(samples) // 5
    if fifth < _LEAST_SAMPLES:
        return  # too short to tell growth from a beginning
    early, late = samples[fifth : 2 * fifth], samples[-fifth:]
    for place, what, room in ((0, "threads", 2), (1, "descriptors", 8), (2, "bytes of memory", _MEMORY_GROWTH_BYTES)):
        before, after = min(sample[place] for sample in early), min(sample[place] for sample in late)
        print(f"{what}: {before} early, {after} late")
        if after > before + room:
            yield f"{what} grew from {before} to {after}"


def left_behind(folder: Path) -> list[int]:
    """Return the processes that still carry the soak's variable in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("PAROPT_SOAK") == str(folder):
                found.append(process.pid)
    return found


if __name__ == "__main__":
    main()
