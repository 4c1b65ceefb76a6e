"""Records an hour of real decisions under changing load and faults, and decides each of them again.

Three lanes run under the installed command: one whose bounds a real Prometheus moves (`shop`), one whose size it alone
decides (`alone`), one that keeps a deadline (`deadline`); beside them three executors are steered as streams
(`streams`). Loads change each minute; Prometheus is stopped and killed, signals vanish and turn into NaN, people pin
and pause, exporters are killed. Then `paropt-exporter replay` must find every decision the same to the byte.

Usage: python benchmarks/record_hour.py [SECONDS] [FOLDER]     FOLDER gets the histories, and RECORDING in short
       python benchmarks/record_hour.py --decide-again FILE    rewrites a recording's choices by today's policy
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from threading import Event, Lock, Thread

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from paropt_exporter import ProcessPool, ThreadPool  # noqa: E402  # the tests' servers lie on a path of their own
from paropt_exporter.autoscaling.decisions import replay  # noqa: E402
from paropt_exporter.autoscaling.pool_controller import PoolController, PoolSettings  # noqa: E402
from paropt_exporter.clock import SystemClock  # noqa: E402
from paropt_exporter.events import Decision  # noqa: E402
from paropt_exporter.history import History  # noqa: E402
from simulation.work import Rate, bursts, poisson, saw_tooth  # noqa: E402
from support.real_servers import Prometheus, environment, free_port, installed_command, prometheus  # noqa: E402
from support.signal_server import SignalServer, signal_server  # noqa: E402

HOUR_SECONDS = 3600.0
RECORDING = "recorded-hour.jsonl.gz"
LARGEST_RECORDING_BYTES = 300_000
SEED = 2026
LOAD_CHANGES = 60  # in an hour
MOST_WORKERS = 16
LONGEST_PAUSE_SECONDS = 3.0  # one that lasts longer than a second and this was no pause: we were stopped

SHOP = """
project: shop
lanes: {{standard: {{workers: {{min: 1, max: 16}}}}}}
stages:
  - {{number: 1, name: naps, run: "sleep {{item}}", items: {{command: "sh items.sh"}}}}
  - {{number: 2, name: burns, call: "calls:burn", items: {{list: [a, b, c]}}}}
  - {{number: 3, name: last, run: "sleep 0.2", needs: [burns], items: {{list: [a, b, c, d, e, f]}}}}
feedback:
  prometheus: {{url: "{url}", timeout: 2s}}
  signals:
    broker: {{query: broker_messages, use: load, target: 20}}
    database: {{query: max(database_busy_ratio), use: limit, target: 0.8}}
"""
ALONE = """
project: alone
lanes: {{standard: {{workers: {{min: 1, max: 16}}}}}}
stages: [{{number: 1, name: naps, run: "sleep 2{{item}}", items: {{command: "sh items.sh"}}}}]
feedback: {{prometheus: {{url: "{url}", timeout: 2s}}, source: prometheus}}
"""
DEADLINE = """
project: deadline
lanes: {{standard: {{workers: {{min: 1, max: 16}}, total: 45s}}}}
stages: [{{number: 1, name: naps, run: "sleep 3{{item}}", items: {{command: "sh items.sh"}}}}]
feedback: {{objective: deadline}}
"""
LANES = {"shop": SHOP, "alone": ALONE, "deadline": DEADLINE}
ITEMS = "seq -f .%03g $(cat load)\n"
CALLS = "def burn(_):\n    return sum(range(1_000_000))\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", nargs="?", type=float, default=HOUR_SECONDS)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--decide-again", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.decide_again is not None:
        decide_again(options.decide_again)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended then, too
    with ExitStack() as stack:
        temporary = options.folder or stack.enter_context(tempfile.TemporaryDirectory())
        folder = Path(temporary).resolve()
        record(folder, options.seconds)
        kept = summarize(folder)
        same = [replayed(folder / name) for name in (*LANES, "streams")]
        write(folder / RECORDING, thinned(kept))
    sys.exit(0 if all(same) else 1)


# Recording.


class Awake:
    """Time as it passes while we run: where everything was stopped for a while, nothing is behind afterwards."""

    def __init__(self, stop: Event) -> None:
        self.seconds = 0.0
        self._stop = stop

    def wait_until(self, moment: float) -> bool:
        """Return whether the recording was stopped before the moment came."""
        while self.seconds < moment and not self._stop.is_set():
            before = time.monotonic()
            self._stop.wait(min(1.0, moment - self.seconds))
            self.seconds += min(time.monotonic() - before, LONGEST_PAUSE_SECONDS)
        return self._stop.is_set()


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What faults can be done to."""

    folder: Path
    server: Prometheus
    signals: SignalServer
    lanes: dict[str, Lane]


class Lane:
    """The installed command in a folder of its own, restarted at will."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [installed_command(), "--every=5s", f"--web.listen-address=127.0.0.1:{self._port}"],
                cwd=self._folder, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60.0)
            self._process = None

    def order(self, *last_signals: str) -> None:
        command = [installed_command(), *last_signals]
        subprocess.run(command, cwd=self._folder, env=environment(), stdout=subprocess.DEVNULL, check=True, timeout=60)

    def load(self, tasks: int) -> None:
        (self._folder / "load").write_text(f"{tasks}\n")


def record(folder: Path, seconds: float) -> None:
    """Let it all happen; the histories are then in the folder."""
    ports = {name: free_port() for name in LANES}
    with ExitStack() as stack:
        signals = stack.enter_context(signal_server(broker_messages=60.0, database_busy_ratio=0.5))
        targets = [*(f"127.0.0.1:{port}" for port in ports.values()), signals.address]
        server = stack.enter_context(
            prometheus(folder / "prometheus", targets, scrape_interval="5s", scrape_timeout="4s")
        )
        lanes = {name: stack.enter_context(lane(folder / name, ports[name], server.url)) for name in LANES}
        stack.enter_context(streams(folder / "streams", seconds))
        live(World(folder=folder, server=server, signals=signals, lanes=lanes), seconds)


@contextmanager
def lane(folder: Path, port: int, url: str) -> Iterator[Lane]:
    folder.mkdir(parents=True)
    (folder / "paropt.yml").write_text(LANES[folder.name].format(url=url))
    (folder / "items.sh").write_text(ITEMS)
    (folder / "calls.py").write_text(CALLS)
    started = Lane(folder, port)
    started.load(4)
    started.start()
    try:
        yield started
    finally:
        started.end(signal.SIGTERM)


def live(world: World, seconds: float) -> None:
    """Do each thing when its time has come; times are parts of the whole."""
    awake = Awake(Event())
    for part, name, act in sorted([*faults(world), *load_changes(world)], key=lambda each: each[0]):
        awake.wait_until(part * seconds)
        print(f"{awake.seconds:6.0f} s  {name}", flush=True)
        act()
    awake.wait_until(seconds)


def faults(world: World) -> Iterator[tuple[float, str, Callable[[], object]]]:
    server, values, shop, alone = world.server, world.signals.values, world.lanes["shop"], world.lanes["alone"]
    yield 0.15, "Prometheus stands still", lambda: server.signal(signal.SIGSTOP)
    yield 0.21, "Prometheus goes on", lambda: server.signal(signal.SIGCONT)
    yield 0.30, "Prometheus is killed", lambda: server.signal(signal.SIGKILL)
    yield 0.36, "Prometheus is back", lambda: server.start("/-/ready")
    yield 0.42, "the broker's signal is gone", lambda: values.pop("broker_messages")
    yield 0.48, "the broker's signal is NaN", lambda: values.update(broker_messages=float("nan"))
    yield 0.52, "the broker's signal is back", lambda: values.update(broker_messages=200.0)
    yield 0.56, "the database is overloaded", lambda: values.update(database_busy_ratio=1.2)
    yield 0.62, "the database has room", lambda: values.update(database_busy_ratio=0.3)
    yield 0.66, "shop is pinned", lambda: shop.order("pin", "5")
    yield 0.69, "shop is steered again", lambda: shop.order("resume")
    yield 0.70, "alone is paused", lambda: alone.order("pause")
    yield 0.73, "alone is steered again", lambda: alone.order("resume")
    for name in ("shop", "alone"):
        yield 0.78, f"{name} is killed", partial(world.lanes[name].end, signal.SIGKILL)
        yield 0.79, f"{name} is started again", world.lanes[name].start


def load_changes(world: World) -> Iterator[tuple[float, str, Callable[[], object]]]:
    chance = random.Random(SEED)
    for number in range(LOAD_CHANGES):
        tasks = {name: chance.choice((1, 4, 12, 40)) for name in world.lanes}
        messages = chance.choice((5.0, 60.0, 130.0, 250.0))
        yield (
            number / LOAD_CHANGES,
            f"{tasks} tasks, {messages:g} messages",
            partial(change_load, world, tasks, messages),
        )


def change_load(world: World, tasks: dict[str, int], messages: float) -> None:
    for name, count in tasks.items():
        world.lanes[name].load(count)
    if world.signals.values.get("broker_messages", 0.0) > 0:  # neither gone nor NaN
        world.signals.values["broker_messages"] = messages


@contextmanager
def streams(folder: Path, seconds: float) -> Iterator[None]:
    """Steer three executors: tasks that wait, tasks behind one lock, tasks that compute."""
    folder.mkdir(parents=True)
    (folder / "paropt.yml").write_text("project: streams\nstages: [{number: 1, name: none, run: 'true'}]\n")
    one_at_a_time, stop = Lock(), Event()

    def locked() -> None:
        with one_at_a_time:
            time.sleep(0.1)  # the work itself, not a wait for something

    with (
        closing(History(folder / ".paropt/history.db", project="streams", clock=SystemClock())) as history,
        ThreadPool(1, name="naps") as naps,
        ThreadPool(1, name="locked") as locks,
        ProcessPool(1, name="computing") as processes,
        PoolController(
            [PoolSettings(pool=pool, floor=1, ceiling=MOST_WORKERS) for pool in (naps, locks, processes)],
            emit=history.observe,
        ),
    ):
        group: Sequence[tuple[Callable[[], object], Rate]] = (
            (lambda: naps.submit(time.sleep, 0.3), saw_tooth(1.0, 25.0, period=seconds / 6)),
            (lambda: locks.submit(locked), bursts(3.0, 14.0, every=seconds / 5, lasting=seconds / 50)),
            (
                lambda: processes.submit(sum, range(4_000_000)),
                bursts(0.5, 4.0, every=seconds / 8, lasting=seconds / 40),
            ),
        )
        threads = [
            Thread(target=arrive, args=(submit, poisson(rate, seconds, SEED + number), stop), name=f"load-{number}")
            for number, (submit, rate) in enumerate(group)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def arrive(submit: Callable[[], object], moments: Iterator[float], stop: Event) -> None:
    awake = Awake(stop)
    for moment in moments:
        if awake.wait_until(moment):
            return
        submit()


# What was recorded, and again.


def summarize(folder: Path) -> list[dict[str, object]]:
    """Print the decisions and return them; an observation shared by several pools once, with their names."""
    kept: list[dict[str, object]] = []
    for name in (*LANES, "streams"):
        with closing(History(folder / name / ".paropt/history.db", project=name, clock=SystemClock())) as history:
            decisions = [decision for decision in history.load_decisions() if decision.situation]
        reasons = Counter(f"{decision.action} {decision.reason}" for decision in decisions)
        told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        print(f"{name}: {len(decisions)} decisions: {told}", flush=True)
        kept += [entry(name, [*same]) for _, same in groupby(decisions, key=lambda each: each.situation)]
    return kept


def entry(project: str, decisions: Sequence[Decision]) -> dict[str, object]:
    first = decisions[0]
    return {
        "project": project,
        "pools": [decision.pool for decision in decisions],
        "action": first.action,
        "reason": first.reason,
        "timestamp_seconds": first.at_timestamp_seconds,
        "situation": first.situation,
        "choice": first.choice,
    }


def replayed(folder: Path) -> bool:
    """Print what the command makes of a history, and return whether it decided the same."""
    command = [installed_command(), "replay", "--since=1d"]
    again = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    print(f"{folder.name}: replay: {again.stdout or again.stderr}".rstrip(), flush=True)
    return again.returncode == 0


def thinned(entries: Sequence[dict[str, object]]) -> Sequence[dict[str, object]]:
    """Return every n-th entry, with the smallest n by which the recording is not too large."""
    step = next(step for step in range(1, len(entries) + 1) if len(packed(entries[::step])) <= LARGEST_RECORDING_BYTES)
    print(f"{len(entries)} situations, of which each {step}. is kept", flush=True)
    return entries[::step]


def packed(entries: Sequence[dict[str, object]]) -> bytes:
    lines = "".join(json.dumps(each, sort_keys=True) + "\n" for each in entries)
    return gzip.compress(lines.encode(), mtime=0)


def write(path: Path, entries: Sequence[dict[str, object]]) -> None:
    path.write_bytes(packed(entries))
    print(f"{path}: {len(entries)} entries, {path.stat().st_size} bytes", flush=True)


def decide_again(path: Path) -> None:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines]
    again = [replay(each["situation"], each["choice"]) for each in entries]
    same, agreeing = sum(one.same for one in again), sum(one.agrees for one in again)
    print(
        f"{same} the same to the byte, {agreeing - same} but for what was not recorded yet, {len(again) - agreeing} not"
    )
    for each, one in zip(entries, again, strict=True):
        each["choice"] = one.today
    write(path, entries)


if __name__ == "__main__":
    main()
