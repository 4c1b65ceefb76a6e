"""Minutes of random faults over lanes, pools, a cluster, the endpoint, the history and control, all at once.

Usage: python benchmarks/soak.py [SECONDS] [SEED]. The seed is printed and replays the lane and the faults.

A lane whose stages fail in every way runs again and again, under scrapes, slow clients and a Prometheus that comes and
goes. Meanwhile orders pin, pause and resume it, commands read its history and locks hold it up, second exporters of the
project run beside it and are killed, and so are its workers, supervisor and fork server. Beside it `soak_pools.py` and,
in a long soak, `soak_signals.py` and `soak_cluster.py` (if Dask is there) do the same to pools without a lane. At the
end every stage has exactly one result a run, totals equal the rows and the page, the history is undamaged, and threads,
descriptors, memory and processes are back where they were. Exits with 1 and says what is wrong otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from kills import find_victims

SECONDS = 180.0
LONG_SECONDS = 60.0  # from here on signals and the cluster are part of it
COMMAND = Path(sys.executable).parent / "paropt-exporter"
RUN_ONCE = (str(COMMAND), "--lane", "standard", "--once", "--web.listen-address=127.0.0.1:0")
HISTORY = ".paropt/history.db"
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


# Orders, and commands that read: none may fail, and none may end with a traceback.
ORDERS = (("pin", "2"), ("pin", "6"), ("pause",), ("resume",))
READERS = (
    ("history",),
    ("history", "--flaky"),
    ("history", "--what-if", "8"),
    ("history", "--output", "json"),
    ("explain",),
    ("log",),
    ("plan",),
)
_ORDER_SECONDS, _READ_SECONDS, _LOCK_SECONDS, _KILL_SECONDS, _SECOND_SECONDS = 1.0, 1.0, 0.5, 1.0, 3.0
_HELD_SECONDS = 0.2  # a tenth of the time for which an exporter waits for the history
_NO_SUCH_ORDER = 1  # e.g. no exporter runs yet
_HANG_SECONDS = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", nargs="?", type=float, default=SECONDS)
    parser.add_argument("seed", nargs="?", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    seconds, seed = options.seconds, options.seed
    print(f"soak of {seconds:.0f} s, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as name, beside(seconds, seed) as others:
        folder = Path(name)
        with free_port() as prometheus:
            write_lane(folder, random.Random(seed), prometheus)
        faults = [*soak(folder, seconds, seed, prometheus), *others()]
    print("\n".join(faults) if faults else "nothing lost, nothing left behind")
    sys.exit(1 if faults else 0)


@contextmanager
def beside(seconds: float, seed: int) -> Iterator[Callable[[], Iterator[str]]]:
    """Run the soaks of pools without a lane; yield a function that waits for them and yields their faults."""
    commands = [["soak_pools.py", f"{seconds:g}", str(seed)]]
    if seconds >= LONG_SECONDS:
        commands.append(["soak_signals.py", f"{seconds:g}", str(seed)])
    if seconds >= LONG_SECONDS and find_spec("distributed") is not None:
        commands.append(["soak_cluster.py", str(int(seconds)), str(int(seconds / 20)), "0"])
    running = [
        (name, subprocess.Popen([sys.executable, str(Path(__file__).with_name(name)), *rest], stdout=-1, text=True))
        for name, *rest in commands
    ]

    def wait() -> Iterator[str]:
        for name, process in running:
            said, _ = process.communicate(timeout=_HANG_SECONDS + 10 * seconds)
            print(said, end="", flush=True)
            if process.returncode:
                yield f"{name}: exit code {process.returncode}"

    try:
        yield wait
    finally:
        for _, process in running:
            if process.poll() is None:
                process.kill()
                process.wait()


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


def soak(folder: Path, seconds: float, seed: int, prometheus: int) -> list[str]:
    with exporter(folder) as (process, port):
        await_answer(port)
        stop, wrong = threading.Event(), list[str]()
        clients = [threading.Thread(target=drip, args=(port, stop)) for _ in range(4)]
        clients.append(threading.Thread(target=come_and_go, args=(prometheus, random.Random(seed), stop)))
        disturbers: tuple[tuple[float, Callable[[random.Random], object]], ...] = (
            (_ORDER_SECONDS, lambda chance: wrong.extend(order(folder, process.pid, chance))),
            (_READ_SECONDS, lambda chance: wrong.extend(read_history(folder, chance))),
            (_LOCK_SECONDS, lambda _: hold_history(folder)),
            (_KILL_SECONDS, lambda chance: kill_helper(process, chance)),
            (_SECOND_SECONDS, lambda chance: run_second(folder, chance)),
        )
        for number, (pause_seconds, disturb) in enumerate(disturbers):
            arguments = (disturb, pause_seconds, random.Random(f"{seed} {number}"), stop)
            clients.append(threading.Thread(target=repeat, args=arguments))
        for client in clients:
            client.start()
        samples = list(watch(process.pid, port, seconds))
        stop.set()
        for client in clients:
            client.join()
        page = scrape(port)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    run_to_end(folder)
    return [
        *wrong,
        *compare(folder, page),
        *check_history(folder),
        *grown(samples),
        *(f"left behind: process {pid}" for pid in left_behind(folder)),
    ]


def repeat(
    disturb: Callable[[random.Random], object], pause_seconds: float, chance: random.Random, stop: threading.Event
) -> None:
    while not stop.wait(pause_seconds * 2 * chance.random()):
        disturb(chance)


def order(folder: Path, pid: int, chance: random.Random) -> list[str]:
    """Pin, pause or resume the lane. An exporter that is busy may answer late; nothing else may go wrong."""
    return list(find_faults(folder, (*chance.choice(ORDERS), "--pid", str(pid)), allowed=(0, _NO_SUCH_ORDER)))


def read_history(folder: Path, chance: random.Random) -> list[str]:
    """Run a command that reads; `history` ends with 1 if the throughput has fallen, `explain` with 2 at first."""
    faults = find_faults(folder, chance.choice(READERS), allowed=(0, 1))
    return [fault for fault in faults if "no decision yet" not in fault]


def find_faults(folder: Path, arguments: tuple[str, ...], *, allowed: tuple[int, ...]) -> Iterator[str]:
    ended = subprocess.run(
        [COMMAND, *arguments], cwd=folder, env=environment(folder), capture_output=True, text=True, check=False,
        timeout=_HANG_SECONDS,
    )  # fmt: skip
    if ended.returncode not in allowed or "internal error" in ended.stderr or "Traceback" in ended.stderr:
        yield f"{' '.join(arguments)}: exit code {ended.returncode}: {ended.stderr[-500:]}"


def hold_history(folder: Path) -> None:
    """Hold the lock that every writer needs for a moment."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(folder / HISTORY, timeout=0.1)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        threading.Event().wait(_HELD_SECONDS)


def kill_helper(process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """Kill a worker, more rarely the supervisor or the fork server."""
    victims = find_victims(chance.choice(("workers", "workers", "supervisor", "forkserver")), [process])
    if victims:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(victims), signal.SIGKILL)


def run_second(folder: Path, chance: random.Random) -> None:
    """Run the lane in a second exporter, and kill it at a random moment of its run."""
    with (folder / "log").open("ab") as log:
        second = subprocess.Popen([*RUN_ONCE], cwd=folder, env=environment(folder), stdout=log, stderr=log)
    with suppress(subprocess.TimeoutExpired):
        second.wait(3 * chance.random())
    second.kill()
    second.wait()


def run_to_end(folder: Path) -> None:
    """Run the lane once more: the start ends the runs of killed exporters."""
    subprocess.run(
        RUN_ONCE, cwd=folder, env=environment(folder), capture_output=True, check=False, timeout=_HANG_SECONDS
    )


def check_history(folder: Path) -> Iterator[str]:
    """Compare the totals with the rows."""
    with closing(sqlite3.connect(folder / HISTORY)) as connection:
        (damage,) = connection.execute("PRAGMA integrity_check").fetchone()
        if damage != "ok":
            yield f"the history is damaged: {damage}"
        (unended,) = connection.execute("SELECT count(*) FROM runs WHERE ended_ts IS NULL").fetchone()
        if unended:
            yield f"{unended} runs without an end"
        for family, table in (("paropt_runs_total", "runs"), ("paropt_task_attempts_total", "tasks")):
            total = "SELECT coalesce(sum(value), 0) FROM totals WHERE family = ? AND part = ''"
            (counted,) = connection.execute(total, (family,)).fetchone()
            (rows,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            print(f"{table}: {rows} rows, {counted:.0f} in the totals")
            if counted != rows:
                yield f"{family} is {counted:.0f}, but there are {rows} rows"


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
    # By default glibc gives threads heaps of their own, which free blocks between used ones fill for minutes.
    env = environment(folder) | {"MALLOC_ARENA_MAX": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        yield process, port
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of the commands, by which `left_behind` finds their processes."""
    return {key: value for key, value in os.environ.items() if key != "CI"} | {"PAROPT_SOAK": str(folder)}


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

        do_GET = do_POST

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
    """Compare the page of the first exporter with the history, which has the runs of the second ones too."""
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
    if not runs or on_page["paropt_runs_total"] > len(runs):
        yield f"runs: {on_page['paropt_runs_total']} on the page, {len(runs)} in history"
    whole = STAGES * on_page["paropt_runs_total"]
    if not whole <= on_page["paropt_stage_runs_total"] <= whole + STAGES:  # a run may be under way
        yield f"{on_page['paropt_stage_runs_total']} stage results on the page"
    if any(len({stage["stage_name"] for stage in run["stage_metrics"]}) != STAGES for run in runs):
        yield "a run without a result for each of its stages"


def grown(samples: list[tuple[int, int, int]]) -> Iterator[str]:
    """Compare the last fifth with the second (the first fills caches), each at its lowest."""
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
