"""Time every panel and every rule at 500 hosts of 100 stages, on a real Prometheus with synthetic series.

The series are written as blocks, by family, in the numbers that such hosts export; only families that are asked for.
It is a bad day: all stages of all hosts run at once, and one in ten fails, breaks its limit and holds its lane up.
Each query is asked as Grafana would: over the time that its dashboard shows at first, with the panel's points. Its
cost is the CPU time that the server took: on a machine with nothing else to do the answer is there at least that fast,
and a busy machine does not change it.

    python benchmarks/scale.py [--hosts 500] [--stages 100] [--scrape 60]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from zlib import crc32

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from paropt_exporter import families  # noqa: E402
from paropt_exporter.config.units import parse_duration  # noqa: E402
from paropt_exporter.families import Family, Kind  # noqa: E402
from support.generated import iter_panels  # noqa: E402
from support.real_servers import eventually, free_port, program  # noqa: E402  # the tests' way to find and start servers

SCRAPE_SECONDS = 60
EVALUATION_SECONDS = 15  # as the deployments of this repository have it, for groups that name no interval
BROKEN_OF = 10
LOOK_BACK_SECONDS = 300  # of Prometheus itself
MOST_SECONDS = 7 * 3600  # queries over weeks read recorded series, which are few
PROJECT, LANE, POOLS = "shop", "standard", ("commands", "threads", "processes")
PER_FILE_LINES = 8_000_000
SLOWEST_SECONDS = 1.0
SHOWN = 20
LOOK_AGAIN_SECONDS = 1.0
FOREIGN = {
    "up": 1.0,
    "scrape_duration_seconds": 0.02,
    "scrape_samples_post_metric_relabeling": 5000.0,
    "process_start_time_seconds": 1.0,
    "process_open_fds": 40.0,
    "process_max_fds": 1024.0,
    "process_cpu_seconds_total": 5.0,
    "process_resident_memory_bytes": 5e7,
    "python_gc_collections_total": 9.0,
}
FLAGS = {family.name for family in families.FAMILIES if family.help.startswith("1 ")}
ALWAYS_UP = {family.name for family in (families.STAGE_RUNNING, families.RUN_IN_PROGRESS, families.SERVES_ON)}
FAULT = re.compile(
    r'="(failure|error|timeout|cancellation|skip|normal|critical|slow|uneven|gil_bound|under_used|saturated)"'
)
SHOWN_FAULTS = {"failure", "normal", "slow"}  # set on broken stages: one of each closed set
WHERE = re.compile(r'(?:instance|stage)="[^"]*"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The hosts that are played, each with one lane of so many stages."""

    hosts: int
    stages: int
    scrape_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running Prometheus."""

    url: str
    pid: int

    def cpu_seconds(self) -> float:
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What an answer took: `cpu_seconds` of the server, `wall_seconds` on this machine as it is."""

    query: Asked
    cpu_seconds: float
    wall_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One query: where it stands, the span in seconds that it is asked over (0: this moment), and its points.

    `group`: of a rule: its group with the seconds between two evaluations.
    """

    where: str
    expression: str
    span_seconds: int = 0
    points: int = 1
    group: tuple[str, float] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description="Time every panel and rule on synthetic series.")
    parser.add_argument("--hosts", type=int, default=500)
    parser.add_argument("--stages", type=int, default=100)
    parser.add_argument("--scrape", type=int, default=SCRAPE_SECONDS, help="seconds between two samples of a series")
    parser.add_argument("--keep", type=Path, help="keep the blocks in this folder, and use those that are there")
    arguments = parser.parse_args()
    asked = [*panels(arguments.scrape), *rules()]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        fleet = Fleet(hosts=arguments.hosts, stages=arguments.stages, scrape_seconds=arguments.scrape)
        end = write_blocks(folder, asked, fleet)
        with prometheus(folder) as server:
            costs = sorted((cost(server, query, end) for query in asked), key=lambda c: -c.cpu_seconds)
    report(costs)


def panels(scrape_seconds: int) -> Iterator[Asked]:
    for path in sorted((ROOT / "dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        hours = int(re.fullmatch(r"now-(\d+)h", dashboard["time"]["from"])[1])  # type: ignore[index]
        for panel in iter_panels(dashboard):
            shortest = parse_duration(panel["interval"]) if panel.get("interval") else 1.0
            points = min(panel["maxDataPoints"], int(hours * 3600 / shortest))
            for target in panel["targets"]:
                yield Asked(
                    where=f"{path.stem}: {panel['title']} {target['refId']}",
                    expression=filled(target["expr"], hours, points, scrape_seconds),
                    span_seconds=0 if target["instant"] else hours * 3600,
                    points=1 if target["instant"] else points,
                )


def rules() -> Iterator[Asked]:
    for path in sorted((ROOT / "alerts").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            every = parse_duration(group["interval"]) if "interval" in group else float(EVALUATION_SECONDS)
            for rule in group["rules"]:
                name = rule.get("record") or rule.get("alert")
                yield Asked(where=f"rule {name}", expression=rule["expr"], group=(group["name"], every))


def filled(expression: str, hours: int, points: int, scrape_seconds: int) -> str:
    """Put in what Grafana does with everything chosen; its rate interval is at least four scrapes."""
    interval = max(4 * scrape_seconds, hours * 3600 // points + scrape_seconds)
    values = {
        "$__rate_interval": f"{interval}s",
        "$__interval": f"{hours * 3600 // points}s",
        "$__range": f"{hours}h",
        "$job": ".+",
        "$instance": ".+",
        "$project": ".*",
        '="$project"': f'="{PROJECT}"',  # of a variable that has one value
        "$lane": LANE,
        "$stage": ".*",
        "$pool": ".*",
    }
    for name in sorted(values, key=len, reverse=True):
        expression = expression.replace(name, values[name])
    return expression


def write_blocks(folder: Path, asked: list[Asked], fleet: Fleet) -> int:
    """Write every family that a query names, for as long as a query looks back; return the end of the time."""
    done = folder / "end"
    if done.exists():
        return int(done.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    end = int(time.time()) // fleet.scrape_seconds * fleet.scrape_seconds
    looked_back = looks_back(asked)
    for name, kind, series in named_series(set(looked_back), fleet):
        begin = end - min(looked_back[name], MOST_SECONDS)
        times = range(begin // fleet.scrape_seconds * fleet.scrape_seconds, end, fleet.scrape_seconds)
        write_family(folder, name, kind, series, times)
    done.write_text(str(end))
    return end


def looks_back(asked: list[Asked]) -> dict[str, int]:
    """Return by how many seconds queries look back at the longest, for each word that stands in one."""
    found: dict[str, int] = {}
    for query in asked:
        windows = re.findall(r"\[(\w+)", query.expression)
        seconds = query.span_seconds + max(map(int, map(parse_duration, windows)), default=0) + LOOK_BACK_SECONDS
        for word in re.findall(r"[a-z_:][a-zA-Z0-9_:]*", query.expression):
            found[word] = max(seconds, found.get(word, 0))
    return found


def named_series(words: set[str], fleet: Fleet) -> Iterator[tuple[str, str, list[str]]]:
    """Yield name, type and label sets of each metric that is among the words."""
    targets = [f'job="paropt",instance="host{number}.example:10178"' for number in range(fleet.hosts)]
    for family in families.FAMILIES:
        parts = ("bucket", "sum", "count") if family.kind is Kind.HISTOGRAM else ("",)
        for part in parts:
            name = f"{family.name}_{part}" if part else family.name
            if name in words:
                own = [*label_sets(family, part, fleet.stages)]
                kind = "gauge" if family.kind is Kind.GAUGE else "counter"
                yield name, kind, [f"{{{target},{labels}}}" for target, labels in product(targets, own)]
    for name in FOREIGN.keys() & words:
        yield name, "counter" if name.endswith("_total") else "gauge", [f"{{{target}}}" for target in targets]
    for name in sorted(word for word in words if word.startswith("instance_lane:")):
        labels = f'project="{PROJECT}",lane="{LANE}"'
        yield name, "gauge", [f"{{{target},{labels}}}" for target in targets]


def label_sets(family: Family, part: str, stages: int) -> Iterator[str]:
    """Yield every set of labels that one host has, as text."""
    closed = families.CLOSED_VALUES.get(family, {})
    open_values = {
        "project": (PROJECT,),
        "lane": (LANE,),
        "stage": tuple(f"stage_{number}" for number in range(stages)),
        "pool": POOLS if "stage" not in family.labels else POOLS[:1],
        "number": ("1",),
        "observer": ("history", "metrics", "screen"),
        "version": ("1.0.0",),
        "python": ("3.11.7",),
        "revision": ("abc1234",),
        "holder": (PROJECT,),
    }
    values = [
        [f'{label}="{value}"' for value in closed.get(label) or open_values[label]] for label in family.label_names
    ]
    if part == "bucket":
        bounds = [*(f"{bound:g}" for bound in families.BUCKETS_SECONDS), "+Inf"]
        values.append([f'le="{bound}"' for bound in bounds])
    sets = (",".join(labels) for labels in product(*values))
    if family is families.CONTROL_MODE:  # a pool has one mode, not all
        return (labels for labels in sets if 'mode="act",source="both"' in labels)
    if family is families.CACHE_LOOKUPS:  # there is one reason to skip a task, and others to run it
        return (labels for labels in sets if ('result="hit"' in labels) == ('reason="unchanged"' in labels))
    if family is families.CONTROL_DECISIONS:  # each action has reasons of its own
        return (labels for labels in sets if _decision(labels))
    return sets


def _decision(labels: str) -> bool:
    action, reason = re.findall(r'(?:action|reason)="(\w+)"', labels)
    return reason in families.DECISION_REASONS[action]


def write_family(folder: Path, name: str, kind: str, series: list[str], times: range) -> None:
    """Turn one family's series into blocks; a file of text is no longer than a disk and promtool bear."""
    per_file = max(1, PER_FILE_LINES // len(times))
    text = folder / "series.txt"
    declared = name.removesuffix("_total") if kind == "counter" else name
    declared = "" if re.search(r"_(bucket|sum|count)$", name) else f"# TYPE {declared} {kind}\n"
    for first in range(0, len(series), per_file):
        with text.open("w") as out:
            out.write(declared)
            for number, labels in enumerate(series[first : first + per_file]):
                value = course(name, kind, labels, number)
                out.writelines(f"{name}{labels} {value(at)} {at}\n" for at in times)
            out.write("# EOF\n")
        command = [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", "--quiet", text, folder / "data"]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    text.unlink()


def course(name: str, kind: str, labels: str, number: int) -> Callable[[int], float]:
    """Return a series' samples by time: counters grow now and then, limits are constant, the rest moves.

    Broken hosts and stages have faults, healthy ones have none.
    """
    fault = FAULT.search(labels)
    shows = is_broken(labels) and (fault is None or fault[1] in SHOWN_FAULTS)
    if name in FLAGS:
        up = name in ALWAYS_UP or (not is_broken(labels) if '="success"' in labels else shows)
        return lambda _: float(up)
    if kind == "counter":
        often_seconds = 300 + number % 7 * 60
        return lambda at: at // often_seconds if shows or fault is None else 0
    if name in FOREIGN:
        return lambda _: FOREIGN[name]
    if name == families.SLA_DEADLINE.name:
        return lambda at: at + 100 + number % 100
    if name.endswith("_timestamp_seconds"):
        return lambda at: at - number % 100
    return lambda at: 60 if "limit" in name else (number * 7 + at // 600) % 11 / 10


def is_broken(labels: str) -> bool:
    """Whether the stage, on this host, is one of those that fail, break their limit and hold their lane up."""
    return crc32("".join(WHERE.findall(labels)).encode()) % BROKEN_OF == 0


@contextmanager
def prometheus(folder: Path) -> Iterator[Server]:
    config, port = folder / "prometheus.yml", free_port()
    config.write_text("global: {scrape_interval: 1m}\n")
    command = [
        program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=10y", "--log.level=error",
        "--query.max-samples=500000000",
    ]  # fmt: skip
    server = subprocess.Popen(command)
    try:
        url = f"http://127.0.0.1:{port}"
        eventually("Prometheus is ready", lambda: is_ready(url))
        while overlapping(folder / "data"):  # blocks of the same time are merged in its first minutes
            time.sleep(LOOK_AGAIN_SECONDS)
        yield Server(url=url, pid=server.pid)
    finally:
        server.terminate()
        server.wait()


def overlapping(data: Path) -> bool:
    spans = sorted((meta["minTime"], meta["maxTime"]) for meta in map(read_json, data.glob("*/meta.json")))
    return any(later[0] < earlier[1] for earlier, later in pairwise(spans))


def read_json(path: Path) -> dict[str, int]:
    return dict(json.loads(path.read_text()))


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def cost(server: Server, query: Asked, end: int) -> Cost:
    """Return what the query takes, the better of two: the first may read the blocks from the disk."""
    return min((ask(server, query, end) for _ in range(2)), key=lambda found: found.cpu_seconds)


def ask(server: Server, query: Asked, end: int) -> Cost:
    if query.span_seconds:
        begin = end - query.span_seconds
        step = query.span_seconds / query.points
        path, parameters = "query_range", {"query": query.expression, "start": begin, "end": end, "step": step}
    else:
        path, parameters = "query", {"query": query.expression, "time": end}
    cpu_before, began = server.cpu_seconds(), time.perf_counter()
    address = f"{server.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(address, timeout=120) as answer:
        answer.read()
    wall_seconds = time.perf_counter() - began
    return Cost(query=query, cpu_seconds=server.cpu_seconds() - cpu_before, wall_seconds=wall_seconds)


def report(costs: list[Cost]) -> None:
    report_queries(costs)
    report_groups(costs)


def report_groups(costs: list[Cost]) -> None:
    """Print what one evaluation of each group takes: its rules are evaluated one after the other."""
    print("  CPU s   wall s  every s  group")
    for name, every in sorted({found.query.group for found in costs if found.query.group}):
        own = [found for found in costs if found.query.group == (name, every)]
        cpu, wall = sum(found.cpu_seconds for found in own), sum(found.wall_seconds for found in own)
        print(f"{cpu:7.2f}  {wall:7.2f}  {every:7.0f}  {name}")


def report_queries(costs: list[Cost]) -> None:
    print("  CPU s   wall s  query")
    for found in costs[:SHOWN]:
        print(f"{found.cpu_seconds:7.2f}  {found.wall_seconds:7.2f}  {found.query.where}")
    slow = sum(found.cpu_seconds >= SLOWEST_SECONDS for found in costs)
    print(f"{len(costs)} queries, {slow} of them take {SLOWEST_SECONDS:g} s or longer")


if __name__ == "__main__":
    main()
