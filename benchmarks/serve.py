"""Many runs beside one `paropt-exporter serve`, which is killed meanwhile, and so are some runs.

Usage: python benchmarks/serve.py [--projects 20] [--runs 40] [--tasks 4] [--seconds 0.3] [--kills 3]

Prints how many tasks computed at once (sampled in /proc), how long everything took beside the time that the tasks alone
need, the latency of scrapes, and what `serve` cost. Exit code 1 if promtool finds a fault, if a total differs from the
histories, or if more tasks than cores + 1 computed at once.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import ExitStack, closing
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from paropt_exporter import families  # noqa: E402
from paropt_exporter.clock import SystemClock  # noqa: E402
from paropt_exporter.history import History  # noqa: E402
from support.real_servers import program  # noqa: E402  # the tests' way to find programs

SPIN = "import sys, time\nuntil = time.process_time() + float(sys.argv[1])\nwhile time.process_time() < until: pass\n"
WAIT_SECONDS = 600.0
SCRAPE_TIMEOUT_SECONDS = 120.0  # forty interpreters that start on a busy machine
SAMPLE_SECONDS = 0.1
SCRAPE_SECONDS = 0.5
GATE = "go"  # a pipe: a run goes on when it gets a byte, and takes no CPU time before
HISTORY = Path(".paropt", "history.db")
LABELS = {family.name: family.labels for family in families.FAMILIES}
COMMAND = [str(Path(sys.executable).parent / "paropt-exporter")]


def main() -> None:
    flags = _parse_flags()
    with tempfile.TemporaryDirectory() as folder:
        raise SystemExit(_measure(flags, Path(folder)))


def _parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--projects", type=int, default=20)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--tasks", type=int, default=4, help="of each run")
    parser.add_argument("--seconds", type=float, default=0.3, help="of CPU time for each task")
    parser.add_argument("--kills", type=int, default=3, help="kill -9 of serve, and as many of runs")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _measure(flags: argparse.Namespace, folder: Path) -> int:
    projects = [_write_project(folder, number, flags) for number in range(flags.projects)]
    serve = Serve(folder)
    with ExitStack() as stack:
        stack.callback(serve.end)
        serve.start()
        return _run_lanes(flags, projects, serve, stack)


def _run_lanes(flags: argparse.Namespace, projects: list[Path], serve: Serve, stack: ExitStack) -> int:
    chance, cores, folder = random.Random(flags.seed), len(os.sched_getaffinity(0)), projects[0].parent
    os.mkfifo(folder / GATE)
    gate = os.open(folder / GATE, os.O_RDWR)
    stack.callback(os.close, gate)
    sampler, scraper = Sampler(str(folder / "spin.py")), Scraper(serve)
    began = time.monotonic()
    lanes = [_begin_run(projects[number % len(projects)], serve, stack) for number in range(flags.runs)]
    for watcher in (sampler, scraper):
        watcher.start()
    until = time.monotonic() + WAIT_SECONDS
    while serve.count_runs() < len(lanes) and time.monotonic() < until and all(lane.poll() is None for lane in lanes):
        time.sleep(SAMPLE_SECONDS)  # a run that starts while there is no server is on its own
    if early := [lane.args for lane in lanes if lane.poll() is not None]:
        print(f"{len(early)} runs ended before the others began:", *_read_messages(projects), sep="\n")
    print(f"{serve.count_runs():g} runs registered after {time.monotonic() - began:.1f} s")
    os.write(gate, bytes(len(lanes) + len(projects)))
    began = time.monotonic()
    killed = []
    for _ in range(flags.kills):
        time.sleep(flags.runs * flags.tasks * flags.seconds / cores / (flags.kills + 2))
        serve.kill()
        serve.start()
        if alive := [lane for lane in lanes if lane.poll() is None]:
            victim = chance.choice(alive)
            victim.kill()
            killed.append(victim)
    codes = [lane.wait(WAIT_SECONDS) for lane in lanes]
    elapsed = time.monotonic() - began
    for watcher in (sampler, scraper):
        watcher.stop()
    again = [_begin_run(project, serve, stack) for project in projects]  # they end the killed runs in the histories
    codes += [lane.wait(WAIT_SECONDS) for lane in again]
    page = serve.scrape()
    faults = [*_find_faults(page, projects), *_find_failures(codes, len(killed), len(lanes) + len(again))]
    cpu_seconds = serve.stop()
    ideal = (len(lanes) - len(killed) / 2) * flags.tasks * flags.seconds / cores
    print(
        f"{len(projects)} projects, {len(lanes)} runs at once on {cores} cores, {flags.kills} kills of serve, ", end=""
    )
    print(f"{len(killed)} of runs: {elapsed:.1f} s, {ideal:.1f} s of work for the cores")
    print(f"computing tasks at once: at most {sampler.most} (samples: {sampler.describe()})")
    print(f"scrapes: {scraper.describe()}; the page has {len(page.splitlines()):,} lines, {len(page) >> 10} kB")
    print(f"serve itself: {cpu_seconds:.2f} s of CPU time since its last start")
    alone = sum((project / "stderr.log").read_text().count("sizing alone") for project in projects)
    print(f"runs that went on alone, since it was silent or absent for too long: {alone}")
    if sampler.most > cores + 1:
        faults.append(f"{sampler.most} tasks computed at once on {cores} cores")
    print(*faults, sep="\n")
    return 1 if faults else 0


def _write_project(folder: Path, number: int, flags: argparse.Namespace) -> Path:
    project = folder / f"project-{number:02}"
    project.mkdir()
    (folder / "spin.py").write_text(SPIN)
    items = ", ".join(f'"{item}"' for item in range(flags.tasks))
    (project / "paropt.yml").write_text(
        f"project: project-{number:02}\nstages:\n  - {{number: 1, name: gate, shell: true, "
        f'run: "dd if={folder / GATE} bs=1 count=1 status=none"}}\n'
        f"  - {{number: 2, name: spin, needs: [gate], items: {{list: [{items}]}}, "
        f'run: ["{sys.executable}", "-S", "{folder / "spin.py"}", "{flags.seconds}", "{{item}}"]}}\n'
        "lanes: {standard: {stages: [gate, spin]}}\n"
    )
    return project


def _begin_run(project: Path, serve: Serve, stack: ExitStack) -> subprocess.Popen[bytes]:
    """Start a run; it is killed if it lives when the stack is closed."""
    lane = subprocess.Popen(
        [*COMMAND, "-q", "--once"], cwd=project, env=serve.environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=(project / "stderr.log").open("ab"),
    )  # fmt: skip
    stack.callback(_end, lane)
    return lane


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


class Serve:
    """The process under test."""

    def __init__(self, folder: Path) -> None:
        self.environment = {**os.environ, "PAROPT_SERVE": str(folder / "runtime")}
        self._folder = folder
        self._address = "127.0.0.1:0"
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self._folder / "serve.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*COMMAND, "serve", "--web.listen-address", self._address], env=self.environment, stderr=output
            )
        until = time.monotonic() + WAIT_SECONDS
        while "metrics at" not in log.read_text():
            if self._process.poll() is not None or time.monotonic() > until:
                raise SystemExit(log.read_text())
            time.sleep(0.02)
        self.url = log.read_text().split("metrics at ")[1].split(",")[0]
        self._address = self.url.removeprefix("http://").partition("/")[0]

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Kill it if it lives."""
        if self._process is not None:
            _end(self._process)

    def stop(self) -> float:
        """Stop it; return its CPU seconds."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(WAIT_SECONDS)
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def count_runs(self) -> float:
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.scrape())
            for sample in family.samples
            if sample.name == families.SERVE_RUNS.name
        )

    def scrape(self) -> str:
        with urllib.request.urlopen(self.url, timeout=SCRAPE_TIMEOUT_SECONDS) as answer:
            return str(answer.read().decode())


class Watcher(threading.Thread):
    """A thread that looks again and again until `stop`."""

    def __init__(self, pause_seconds: float) -> None:
        super().__init__(daemon=True)
        self._pause_seconds = pause_seconds
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(self._pause_seconds):
            self.look()

    def look(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        self._ended.set()
        self.join()


class Sampler(Watcher):
    """Counts the processes that compute."""

    def __init__(self, script: str) -> None:
        super().__init__(SAMPLE_SECONDS)
        self._script = script.encode()
        self._counts: list[int] = []

    def look(self) -> None:
        self._counts.append(sum(map(self._computes, Path("/proc").glob("[0-9]*"))))

    def _computes(self, process: Path) -> bool:
        try:
            return self._script in (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return False

    @property
    def most(self) -> int:
        return max(self._counts, default=0)

    def describe(self) -> str:
        return ", ".join(f"{self._counts.count(each)}x{each}" for each in sorted(set(self._counts)))


class Scraper(Watcher):
    """Scrapes twice a second, as long as there is a server."""

    def __init__(self, serve: Serve) -> None:
        super().__init__(SCRAPE_SECONDS)
        self._serve = serve
        self._seconds: list[float] = []

    def look(self) -> None:
        began = time.monotonic()
        try:
            self._serve.scrape()
        except OSError:
            return  # killed at this moment
        self._seconds.append(time.monotonic() - began)

    def describe(self) -> str:
        times = sorted(self._seconds)
        return f"{len(times)}, median {statistics.median(times):.3f} s, longest {times[-1]:.3f} s" if times else "none"


def _read_messages(projects: list[Path]) -> set[str]:
    return {line for project in projects for line in (project / "stderr.log").read_text().splitlines()}


def _find_faults(page: str, projects: list[Path]) -> list[str]:
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    faults = [checked.stdout + checked.stderr] if checked.returncode else []
    shown = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    for project in projects:
        with closing(
            History(project / HISTORY, project=project.name, clock=SystemClock(), for_reading=True)
        ) as history:
            stored, runs = history.load_totals().counters, history.load_runs(limit=1000)
        counted = 0.0
        for (name, values), total in stored.items():
            labels = {**dict(zip(LABELS[name], values, strict=True)), "project": project.name}
            found = shown.get((name, frozenset(labels.items())))
            counted += total if name == families.RUNS.name else 0.0
            if found != total:
                faults.append(f"{name} {labels}: {total} in the history, {found} on the page")
        if counted != len(runs) or not runs:
            faults.append(f"{project.name}: {len(runs)} runs in the history, {counted:g} counted")
    return faults


def _find_failures(codes: list[int], killed: int, count: int) -> list[str]:
    good = codes.count(0)
    return [] if good == count - killed else [f"{good} of {count - killed} runs succeeded: {sorted(set(codes))}"]


if __name__ == "__main__":
    main()
