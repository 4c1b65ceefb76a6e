"""Kill the exporter, its supervisor, its fork server or its workers at random while 2,000 tasks run.

Usage: python benchmarks/kills.py [--kills 100] [--tasks 2000] [--seconds 0.02] [--seed N] [--victims ...] [--under ...]

Each pair of a victim and a condition is a lane of its own, of commands and of calls in processes, whose tasks write
their beginnings and ends into a ledger. At the end of each: every task has settled exactly once, none began
more often than it has attempts, the totals are the sums of the rows, the history is undamaged, and no process is left.
The conditions: `plain`; `full`, a history on a disk that is full (a tmpfs, which only root can mount) from before the
first kill to the last tasks; `descriptors`, with 64 of them; `two`, with two exporters of one project at once. A killed
exporter starts again, and its runs are then shorter: as many tasks as there are to a kill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

COMMAND = Path(sys.executable).parent / "paropt-exporter"
VICTIMS = ("workers", "supervisor", "forkserver", "exporter")
CONDITIONS = ("plain", "full", "descriptors", "two")
DESCRIPTORS = 64
WORKERS = 4
HANG_SECONDS = 1800.0
ORPHAN_SECONDS = 5.0  # what an ended exporter leaves must be gone by then
_DISK_BYTES = 8 << 20
_WAIT_SECONDS = 0.02
# Names in `ps` of the processes that the exporter starts for itself.
_EXPOSED = {"workers": "began", "supervisor": "began commands", "forkserver": "began calls"}  # its tasks in the ledger
_SUPERVISOR, _FORKSERVER = "supervisor.event_loop", "forkserver"

CALLS = """
import os, time
def note(what, item):
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND)
    os.write(ledger, f"{what} calls {item}\\n".encode())
    os.close(ledger)
def work(item):
    note("began", item)
    time.sleep({seconds})
    note("ended", item)
"""
SHELL = "echo began commands {item} >> $LEDGER; sleep {seconds}; echo ended commands {item} >> $LEDGER"


@dataclass(kw_only=True)
class Lane:
    """A project whose exporters are to be killed, and the condition under which they run."""

    folder: Path
    tasks: int
    seconds: float  # that each task takes
    kills: int
    victim: str
    condition: str
    chance: random.Random
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    @property
    def history(self) -> Path:
        return self.folder / "disk/history.db"

    @property
    def exporters(self) -> int:
        return 2 if self.condition == "two" else 1


def main() -> None:
    flags = parse_flags()
    seed = flags.seed if flags.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"{flags.kills} kills over {flags.tasks} tasks, seed {seed}, load {os.getloadavg()[0]:.0f}", flush=True)
    wrong = 0
    for condition in flags.under:
        for victim in flags.victims:
            chance = random.Random(f"{seed} {condition} {victim}")
            with tempfile.TemporaryDirectory(dir="/tmp") as name:
                lane = Lane(
                    folder=Path(name), tasks=flags.tasks, seconds=flags.seconds, kills=flags.kills, victim=victim,
                    condition=condition, chance=chance,
                )  # fmt: skip
                began = time.monotonic()
                figures, faults = torment(lane)
            print(f"{condition}, {victim}: {figures}; {time.monotonic() - began:.0f} s", flush=True)
            print("".join(f"  WRONG: {fault}\n" for fault in faults), end="", flush=True)
            wrong += len(faults)
    print("nothing lost, nothing doubled, nothing left behind" if not wrong else f"{wrong} faults")
    sys.exit(1 if wrong else 0)


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=0.02, help="that each task takes")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS)
    parser.add_argument("--under", nargs="+", choices=CONDITIONS, default=CONDITIONS)
    return parser.parse_args()


def torment(lane: Lane) -> tuple[str, list[str]]:
    """Run the lane and kill; return figures and faults."""
    with ExitStack() as stack:
        (lane.folder / "disk").mkdir()
        fill = stack.enter_context(small_disk(lane.folder / "disk")) if lane.condition == "full" else None
        write_project(lane, tasks=2)
        run_once(lane)  # the history exists before the disk is full
        known = len(read_rows(lane, "SELECT run_id FROM runs"))
        lane.ledger.write_text("")
        repeated = lane.victim == "exporter"
        write_project(lane, tasks=max(2, lane.tasks // lane.kills) if repeated else lane.tasks)
        free = fill() if fill is not None else lambda: None
        killed = kill_exporters(lane, free) if repeated else kill_helpers(lane, free)
        faults = [*find_orphans(lane), *check_ledger(lane, known, whole=not repeated and lane.condition != "full")]
        begun = count_ledger(lane, "began")
        write_project(lane, tasks=2)
        run_once(lane)  # after the disk was freed; it also ends interrupted runs
        faults += check_history(lane)
        faults += find_orphans(lane)
    if killed < lane.kills:
        faults.append(f"only {killed} of {lane.kills} kills")
    return f"{killed} kills, {begun} attempts began", faults


def write_project(lane: Lane, *, tasks: int) -> None:
    listed = ", ".join(f'"{number}"' for number in range(tasks // 2))
    same = f"items: {{list: [{listed}]}}, retries: {{count: 100, backoff: 1ms}}"
    calls, command = (text.replace("{seconds}", f"{lane.seconds:g}") for text in (CALLS, SHELL))
    (lane.folder / "calls.py").write_text(calls)
    (lane.folder / "paropt.yml").write_text(
        f"project: kills\nhistory: {{path: disk/history.db, logs: false}}\n"
        f"lanes: {{standard: {{strategy: process, workers: {WORKERS}}}}}\nstages:\n"
        f'  - {{number: 2, name: commands, shell: true, run: "{command}", {same}}}\n'
        f'  - {{number: 3, name: calls, call: "calls:work", {same}}}\n'
    )
    lane.ledger.touch()


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[], Callable[[], None]]]:
    """Mount a small tmpfs; yield a function that fills it and returns one that frees it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)], check=True)

    def fill() -> Callable[[], None]:
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        return lambda: filler.unlink(missing_ok=True)

    try:
        yield fill
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def start(lane: Lane, *arguments: str) -> subprocess.Popen[bytes]:
    command = [str(COMMAND), "--lane", "standard", "--web.listen-address=127.0.0.1:0", *arguments]
    if lane.condition == "descriptors":
        command = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$0" "$@"', *command]
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | {"LEDGER": str(lane.ledger)}
    with (lane.folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=lane.folder, env=environment, stdout=log, stderr=log)
    lane.processes.append(process)
    return process


def run_once(lane: Lane) -> None:
    code = start(lane, "--once").wait(HANG_SECONDS)
    if code != 0:
        raise SystemExit(f"exit code {code}: {(lane.folder / 'log').read_text()[-2000:]}")


def kill_helpers(lane: Lane, free: Callable[[], None]) -> int:
    """Run all tasks once, in each exporter, and kill a process of the victim's kind after each few of them.

    A full disk is freed before the last tasks: totals of a process that ends before would have no place.
    """
    running = [start(lane, "--once") for _ in range(lane.exporters)]
    pause, killed, end = threading.Event(), 0, time.monotonic() + HANG_SECONDS
    total = lane.exporters * (lane.tasks // 2) * 2
    while any(process.poll() is None for process in running):
        begun = count_ledger(lane, "began")
        exposed = count_ledger(lane, _EXPOSED[lane.victim]) * (2 if lane.victim in ("supervisor", "forkserver") else 1)
        due = exposed >= (killed + 1) * total * 0.85 / lane.kills
        if begun > total * 0.9:
            free()
        if due and killed < lane.kills and (victims := find_victims(lane.victim, running)):
            with suppress(ProcessLookupError):
                os.kill(lane.chance.choice(victims), signal.SIGKILL)
                killed += 1
        if time.monotonic() > end:
            for process in running:
                process.kill()
            raise SystemExit(f"the lane hangs: {(lane.folder / 'log').read_text()[-2000:]}")
        pause.wait(_WAIT_SECONDS)
    free()
    allowed = (0, 3) if lane.condition == "full" else (0,)
    if wrong := [process.returncode for process in running if process.returncode not in allowed]:
        raise SystemExit(f"exit codes {wrong}: {(lane.folder / 'log').read_text()[-2000:]}")
    return killed


def find_victims(victim: str, exporters: list[subprocess.Popen[bytes]]) -> list[int]:
    found: list[int] = []
    for exporter in exporters:
        with suppress(psutil.Error):
            for helper in psutil.Process(exporter.pid).children():
                with suppress(psutil.Error):
                    words = " ".join(helper.cmdline())
                    kind = "supervisor" if _SUPERVISOR in words else "forkserver" if _FORKSERVER in words else ""
                    if kind == victim:
                        found.append(helper.pid)
                    elif kind and victim == "workers":
                        found += [child.pid for child in helper.children()]
    return found


def kill_exporters(lane: Lane, free: Callable[[], None]) -> int:
    """Start exporters that run the lane again and again, and kill one at a random moment."""
    running = {start(lane, "--every", "100ms") for _ in range(lane.exporters)}
    pause, end = threading.Event(), time.monotonic() + HANG_SECONDS
    for _ in range(lane.kills):
        before, more = count_ledger(lane, "began"), lane.chance.randint(1, 2 * max(2, lane.tasks // lane.kills))
        while count_ledger(lane, "began") < before + more:
            if time.monotonic() > end or any(process.poll() is not None for process in running):
                raise SystemExit(f"the lane does not go on: {(lane.folder / 'log').read_text()[-2000:]}")
            pause.wait(_WAIT_SECONDS)
        victim = lane.chance.choice(sorted(running, key=lambda process: process.pid))
        victim.kill()
        victim.wait(HANG_SECONDS)
        running.remove(victim)
        running.add(start(lane, "--every", "100ms"))
    free()
    for process in running:
        process.send_signal(signal.SIGTERM)
    for process in running:
        process.wait(HANG_SECONDS)
    return lane.kills


def count_ledger(lane: Lane, what: str) -> int:
    return sum(line.startswith(what) for line in lane.ledger.read_text().splitlines())


def find_orphans(lane: Lane) -> Iterator[str]:
    """Yield the processes in the project's folder that are still there after some seconds."""
    pause, end = threading.Event(), time.monotonic() + ORPHAN_SECONDS
    while (left := list_processes(lane.folder)) and time.monotonic() < end:
        pause.wait(_WAIT_SECONDS)
    for process in left:
        with suppress(psutil.Error):
            yield f"left behind: {process.pid} {' '.join(process.cmdline())[:200]}"


def list_processes(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd().startswith(str(folder)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def read_rows(lane: Lane, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(lane.history)) as connection:
        return connection.execute(query).fetchall()


def check_ledger(lane: Lane, known: int, *, whole: bool) -> Iterator[str]:
    """Compare the ledger with itself and, if the history has all of it, with the attempts there."""
    began: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    for line in lane.ledger.read_text().splitlines():
        what, _, task = line.partition(" ")
        (began if what == "began" else ended)[task] += 1
    for task, count in ended.items():
        if count > began[task]:
            yield f"{task} ended {count} times and began {began[task]} times"
    if lane.victim != "exporter":
        tasks = 2 * (lane.tasks // 2)
        if len(ended) != tasks or any(count < lane.exporters for count in ended.values()):
            yield f"{tasks} tasks, {len(ended)} ended"
    if not whole:
        return
    attempts = Counter(
        {
            f"{stage} {item}": count
            for stage, item, count in read_rows(
                lane,
                "SELECT stage, item, count(*) FROM tasks WHERE run_id IN "
                f"(SELECT run_id FROM runs WHERE sequence > {known}) GROUP BY 1, 2",
            )
        }
    )
    for task, count in began.items():
        if count > attempts[task]:
            yield f"{task} began {count} times in {attempts[task]} attempts"


def check_history(lane: Lane) -> Iterator[str]:
    """Check the file, that each task of each run settled once, and that the totals are the sums of the rows."""
    (damage,) = read_rows(lane, "PRAGMA integrity_check")
    if damage != ("ok",):
        yield f"the history is damaged: {damage}"
    if aside := [*lane.history.parent.glob("*.corrupt-*")]:
        yield f"the history was set aside: {aside}"
    if unended := read_rows(lane, "SELECT run_id FROM runs WHERE ended_ts IS NULL"):
        yield f"runs without an end: {unended}"
    unsettled = """
    SELECT run_id, stage, tasks, (SELECT count(*) FROM tasks WHERE tasks.run_id = stages.run_id
                                  AND tasks.stage = stages.stage AND final) AS settled
      FROM stages JOIN runs USING (run_id) WHERE tasks <> settled AND NOT interrupted AND runs.result = 'success'
    """
    for run_id, stage, tasks, settled in read_rows(lane, unsettled):
        yield f"run {run_id}: {settled} of {tasks} tasks of {stage} settled"
    twice = "SELECT run_id, stage, task FROM tasks WHERE final GROUP BY 1, 2, 3 HAVING count(*) > 1"
    for run_id, stage, task in read_rows(lane, twice):
        yield f"run {run_id}: task {task} of {stage} settled twice"
    yield from check_totals(lane)


def check_totals(lane: Lane) -> Iterator[str]:
    """Compare counters with rows. Attempts on a full disk have no rows: then counters may only be larger."""
    totals: Counter[str] = Counter()
    for family, labels, value in read_rows(lane, "SELECT family, labels, value FROM totals WHERE part = ''"):
        if family == "paropt_runs_total":
            totals[f"run {json.loads(str(labels))[-1]}"] += int(float(str(value)))
        elif family == "paropt_task_attempts_total":
            _, stage, result = json.loads(str(labels))
            totals[f"{stage} {result}"] += int(float(str(value)))
    rows: Counter[str] = Counter(
        {
            f"run {result}": int(str(count))
            for result, count in read_rows(lane, "SELECT result, count(*) FROM runs GROUP BY 1")
        }
    )
    for stage, result, count in read_rows(lane, "SELECT stage, result, count(*) FROM tasks GROUP BY 1, 2"):
        rows[f"{stage} {result}"] += int(str(count))
    larger = lane.condition == "full"
    for name in sorted({*totals, *rows}):
        if totals[name] < rows[name] or (totals[name] > rows[name] and not larger):
            yield f"{name}: {totals[name]} in the totals, {rows[name]} in the rows"
    if larger and lane.victim != "exporter":
        begun = count_ledger(lane, "began")
        counted = sum(count for name, count in totals.items() if not name.startswith("run "))
        if counted < begun:
            yield f"{begun} attempts began, {counted} are in the totals"


if __name__ == "__main__":
    main()
