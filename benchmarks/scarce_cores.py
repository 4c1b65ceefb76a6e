"""How many tasks compute at once where cores are scarce, and how long that takes beside make, parallel, a fixed size.

Each task notes its own begin and end; the most that overlap is counted after the fact. Each row runs first without a
history, then twice more with the history of the earlier runs, beside 0, 2 and 6 other programs that compute.
Usage: python benchmarks/scarce_cores.py [--no-peers] [--others N...] [ROUNDS] [ROW...]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

COMMAND = Path(sys.executable).parent / "paropt-exporter"
OTHERS = (0, 2, 6)
RUNS = 3
_NOTE = "NOTES"

# Sleeps. With a folder for meetings, as tests have it, a task sleeps until so many others do as must at once: a busy
# machine may start them later than the first one would wake up.
REST = """
def rest(seconds):
    folder, until = os.environ.get("MEETING"), time.monotonic() + 30
    if not folder:
        time.sleep(seconds)
        return
    open(f"{folder}/{time.monotonic_ns()}-{os.getpid()}", "w").close()
    while len(os.listdir(folder)) < int(os.environ["SLEEPERS"]) and time.monotonic() < until:
        time.sleep(0.5)  # seldom, since on a busy machine each wake-up counts as some demand for a core
"""

# A task: `python task.py KIND SECONDS` computes or sleeps for so long, and notes when it did.
TASK = f"""
import os, sys, time
{REST}
kind, seconds = sys.argv[1], float(sys.argv[2])
begin = time.monotonic()
if kind == "compute":
    while time.process_time() < seconds:
        pass
else:
    rest(seconds)
with open(os.environ["NOTES"], "a") as notes:
    notes.write(f"{{kind}} {{begin}} {{time.monotonic()}}\\n")
"""

CALLS = f"""
import os, time
{REST}
def _note(kind, begin):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{{kind}} {{begin}} {{time.monotonic()}}\\n")

def compute(item):
    begin, cpu = time.monotonic(), time.thread_time()
    while time.thread_time() - cpu < float(os.environ.get("COMPUTED_SECONDS", "0.4")):
        pass
    _note("compute", begin)

def sleep(item):
    begin = time.monotonic()
    rest(1)
    _note("sleep", begin)
"""

API = """
import subprocess, sys
from paropt_exporter import AdaptiveWorkerPool

with AdaptiveWorkerPool() as pool:
    for _ in range(16):
        pool.submit_stage(2, "compute", subprocess.run, [sys.executable, "task.py", "compute", "0.4"], check=True)
    sys.exit(not pool.wait_all()[0])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Work, and how many of its computing tasks may run at once; `sleepers` must all do so.

    `stages`: the lane's stages in YAML; `program`: a Python program instead. `commands`: the same for make and others.
    `seconds`: when the lane is interrupted. `limited`: a task that takes too long is ended, which fails the lane.
    """

    name: str
    most: int
    sleepers: int = 0
    stages: str = ""
    lane: str = "workers: auto"
    program: str = ""
    commands: Sequence[Sequence[str]] = ()
    seconds: float | None = None
    limited: bool = False


def stage(number: int, name: str, command: Sequence[str], count: int, more: str = "") -> str:
    items = ", ".join(map(str, range(count)))
    return f"  - {{number: {number}, name: {name}, run: {list(command)}, items: {{list: [{items}]}}{more}}}\n"


def _rows() -> tuple[Row, ...]:
    compute, sleep = [sys.executable, "task.py", "compute", "0.4"], [sys.executable, "task.py", "sleep", "1"]
    awk = "i=0; while (i < 9000000) i++"
    now = "$(cut -d' ' -f1 /proc/uptime)"
    noted = f"begin={now}; {{}}awk 'BEGIN {{{{ {{}} }}}}'; echo compute $begin {now} >> $NOTES"
    plain, nice = (["sh", "-c", noted.format(prefix, awk)] for prefix in ("", "nice -n 19 "))
    item = ["{item}"]
    return (
        Row(name="12 that compute", most=3, stages=stage(2, "compute", compute + item, 12), commands=[compute] * 12),
        Row(
            name="12 that compute, 8 that sleep", most=3, sleepers=8,
            stages=stage(2, "compute", compute + item, 12) + stage(3, "sleep", sleep + item, 8),
            commands=[compute] * 12 + [sleep] * 8,
        ),
        Row(name="12 awk", most=3, stages=stage(2, "awk", plain, 12), commands=[plain] * 12),
        Row(name="40 niced awk, at most 16", most=3, lane="workers: {max: 16}", stages=stage(2, "awk", nice, 40),
            commands=[nice] * 40),
        Row(name="2,000 niced awk, at most 16, the first 20 s", most=3, lane="workers: {max: 16}",
            stages=stage(2, "awk", nice, 2000), seconds=20),
        Row(
            name="14 calls that compute, 12 that sleep", most=3, sleepers=12,
            stages=f"  - {{number: 2, name: compute, call: 'calls:compute', items: {{list: {[*range(14)]}}}}}\n"
            f"  - {{number: 3, name: sleep, call: 'calls:sleep', items: {{list: {[*range(12)]}}}}}\n",
        ),
        Row(name="16 children of submit_stage", most=4, program=API, commands=[compute] * 16),
        Row(name="12 that compute for 1 s, ended after 6 s", most=3,
            stages=stage(2, "compute", [*compute[:-1], "1", *item], 12, ", timeout: 6s"), limited=True),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--others", type=int, nargs="+", default=OTHERS)
    parser.add_argument("rounds", type=int, nargs="?", default=1)
    parser.add_argument("names", nargs="*", metavar="row")
    flags = parser.parse_args()
    rounds, names = flags.rounds, flags.names
    cores = len(os.sched_getaffinity(0))
    print(
        f"{rounds} rounds of runs 1, 2, 3 on {cores} cores; a ratio is the peer's time over ours, above 1 is faster\n"
    )
    print("| work | others | computed at once, by run | slept at once | in time, fixed | make -j | parallel | fixed |")
    print("|---|---|---|---|---|---|---|---|")
    for row in _rows():
        if not names or any(name in row.name for name in names):
            for others in flags.others:
                print(_measured(row, others, rounds, cores, peers=not flags.no_peers), flush=True)


def _measured(row: Row, others: int, rounds: int, cores: int, *, peers: bool) -> str:
    computed, slept, times = list[list[int]](), list[int](), dict[str, list[float]]()
    in_time: dict[str, list[int]] = {"ours": [], "fixed": []}
    with beside(others):
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                lane = Lane(Path(folder), row)
                runs = [lane.run() for _ in range(RUNS)]
                computed.append([run.most["compute"] for run in runs])
                slept += [run.most["sleep"] for run in runs]
                times.setdefault("ours", []).append(runs[-1].seconds)
                in_time["ours"] += [run.tasks for run in runs]
                for peer, run in lane.peers(cores).items() if peers or row.limited else ():
                    measured = run()
                    times.setdefault(peer, []).append(measured.seconds)
                    if peer == "fixed":
                        in_time[peer].append(measured.tasks)
    good = max(map(max, computed)) <= row.most and min(slept) >= row.sleepers
    ours = times["ours"]
    ratios = [
        f"{median(theirs / own for theirs, own in zip(times[peer], ours, strict=True)):.2f}" if peer in times else "-"
        for peer in ("make", "parallel", "fixed")
    ]
    told = ", ".join(" ".join(map(str, runs)) for runs in computed)
    held = f"{min(slept)} of {row.sleepers}" if row.sleepers else "-"
    ended = f"{median(in_time['ours']):g}, {median(in_time['fixed']):g}" if row.limited else "-"
    return f"| {row.name} | {others} | {told}{'' if good else ' (!)'} | {held} | {ended} | {' | '.join(ratios)} |"


@dataclass(frozen=True, slots=True)
class Noted:
    """How long a run took, how many tasks of each kind overlapped at most, and how many ended by themselves."""

    seconds: float
    most: Counter[str]
    tasks: int


class Lane:
    """A row's work in a folder of its own. `meets`: its sleeping tasks wait until all of them sleep."""

    def __init__(self, folder: Path, row: Row, *, meets: bool = False) -> None:
        self._folder, self._row, self._meets = folder, row, meets
        (folder / "task.py").write_text(TASK)
        (folder / "calls.py").write_text(CALLS)
        (folder / "program.py").write_text(row.program)
        if row.stages:
            lanes = f"lanes:\n  standard: {{strategy: adaptive, {row.lane}, sla: 10m}}\n"
            (folder / "paropt.yml").write_text(f"{lanes}stages:\n{row.stages}")

    def run(self, *flags: str) -> Noted:
        """Run the row's lane, or its program."""
        if self._row.program:
            return self._noted([sys.executable, "program.py"])
        lane = [str(COMMAND), "--lane", "standard", "--once", "--web.listen-address=127.0.0.1:0"]
        return self._noted([*lane, *flags])

    def peers(self, cores: int) -> Mapping[str, Callable[[], Noted]]:
        """Return the same work under make, GNU parallel and the best fixed size, as far as they can do it."""
        found: dict[str, Callable[[], Noted]] = {}
        commands = [shlex.join(command) for command in self._row.commands]
        if commands and shutil.which("make"):
            names = [f"t{number}" for number in range(len(commands))]
            rules = "".join(
                f"{name}:\n\t@{line.replace('$', '$$')}\n" for name, line in zip(names, commands, strict=True)
            )
            (self._folder / "Makefile").write_text(f".PHONY: all {' '.join(names)}\nall: {' '.join(names)}\n{rules}")
            found["make"] = lambda: self._noted(["make", "-s", f"-j{cores}", "all"])
        if commands and shutil.which("parallel"):
            (self._folder / "commands").write_text("\n".join(commands) + "\n")
            found["parallel"] = lambda: self._noted(["parallel", f"-j{cores}", "-a", "commands"])
        if self._row.stages:
            found["fixed"] = lambda: self.run("--workers", str(cores + self._row.sleepers))
        return found

    def _noted(self, command: Sequence[str]) -> Noted:
        notes = self._folder / "notes"
        notes.unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        if self._meets:
            shutil.rmtree(self._folder / "meeting", ignore_errors=True)
            (self._folder / "meeting").mkdir()
            environment |= {"MEETING": str(self._folder / "meeting"), "SLEEPERS": str(self._row.sleepers)}
            environment["COMPUTED_SECONDS"] = "0.2"
        began = time.monotonic()
        process = subprocess.Popen(
            command, cwd=self._folder, env={**environment, _NOTE: str(notes)}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            code = process.wait(self._row.seconds or 600)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            code = process.wait(60)
        expected = {0} | ({128 + signal.SIGINT} if self._row.seconds else set()) | ({1} if self._row.limited else set())
        if code not in expected:
            raise subprocess.CalledProcessError(code, command)
        lines = notes.read_text().splitlines() if notes.exists() else []
        return Noted(time.monotonic() - began, most_at_once(lines), len(lines))


def most_at_once(notes: Sequence[str]) -> Counter[str]:
    """Return how many tasks of each kind overlapped at most, by lines of kind, begin and end."""
    turns = []
    for line in notes:
        kind, begin, end = line.split()
        turns += [(float(begin), 1, kind), (float(end), -1, kind)]
    most, now = Counter[str](), Counter[str]()
    for _, change, kind in sorted(turns):
        now[kind] += change
        most[kind] = max(most[kind], now[kind])
    return most


@contextlib.contextmanager
def beside(others: int) -> Iterator[None]:
    """Have so many programs of others compute meanwhile."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


if __name__ == "__main__":
    main()
