"""Split a real project's test suite into shards after one recorded run, beside pytest-split on the same suite.

Usage: python benchmarks/shards.py [--shards 5] [--project attrs] [--items tests|files] [--rounds 2]
                                   [--no-peer] [--folder FOLDER]

The suite is one of `real_projects.json`, or a longer one of `shards.json`, fetched as `make real` does. It runs once
without a record, since the first run in a new folder writes byte code and tables, which later runs read. Then both
record one run, and run each of their shards, one after another, in one process at a time. The time is CPU time, of
all processes of a shard, which a busy machine hardly changes, the least of some rounds; the wall time is printed
beside it. The figure is how much less the fastest shard took than the slowest one. Items are tests, as pytest-split
has them, which each shard lists by collecting the suite; or they are files, which are cut at their long tests.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import real_projects
from real_projects import Took

_EXPORTER = Path(sys.executable).with_name("paropt-exporter")
_MOST_PERCENT = 10.0
_CONFIG = """\
project: {name}
lanes: {{standard: {{strategy: sequential}}}}
stages:
  - number: 1
    name: unit_tests
    run: ".venv/bin/pytest -q -p no:cacheprovider {{items}}"
    items: {items}
"""
_SUITE = (".venv/bin/pytest", "-q", "-p", "no:cacheprovider")
_LIST_TESTS = ".venv/bin/pytest --collect-only -q -p no:cacheprovider | sed -n 's/\\[.*//; /^[^ ].*::/p' | uniq"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shards", type=int, default=5)
    parser.add_argument("--project", default="attrs")
    parser.add_argument("--items", choices=("tests", "files"), default="tests")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--no-peer", dest="peer", action="store_false")
    parser.add_argument("--folder", type=Path, default=Path("build/real-projects"))
    flags = parser.parse_args()
    lists = (Path(real_projects.__file__), Path(__file__))
    listed = {
        name: project for path in lists for name, project in json.loads(path.with_suffix(".json").read_text()).items()
    }
    if flags.project not in listed:
        parser.error(f"unknown project {flags.project}: choose from {', '.join(sorted(listed))}")
    root = real_projects.prepare(flags.folder.absolute(), flags.project, listed[flags.project])
    pip = [str(root / ".venv/bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "pytest-split"], check=True)
    real_projects.run(root, _SUITE)
    ours = measure_ours(root, flags.project, flags.items, flags.shards, flags.rounds)
    theirs = measure_theirs(root, flags.shards, flags.rounds) if flags.peer else []
    print(f"| {flags.shards} shards of {flags.project} | each shard, CPU s | wall s | difference, CPU | wall |")
    print("|---|---|---|---|---|")
    for name, took in ((f"--shard, items are {flags.items}", ours), ("pytest-split", theirs))[: 1 + flags.peer]:
        cpu, wall = ([getattr(one, kind) for one in took] for kind in ("cpu", "wall"))
        print(f"| {name} | {_join(cpu)} | {_join(wall)} | {_compare(cpu):.1f} % | {_compare(wall):.1f} % |")
    failed = [sum(not one.succeeded for one in took) for took in (ours, theirs)]
    if flags.peer and failed[0] != failed[1]:  # a suite may have tests that fail on this Python
        print(f"{failed[0]} of our shards failed, and {failed[1]} of pytest-split's")
        return 1
    return 0 if _compare([one.cpu for one in ours]) <= _MOST_PERCENT else 1


def measure_ours(root: Path, name: str, items: str, count: int, rounds: int) -> list[Took]:
    """Run the lane once, then each shard from that history."""
    command = ["sh", "-c", _LIST_TESTS]
    listing = json.dumps({"command": command} if items == "tests" else {"list": list_files(root, command)})
    (root / "paropt.yml").write_text(_CONFIG.format(name=name, items=listing))
    shutil.rmtree(root / ".paropt", ignore_errors=True)
    lane: list[str | Path] = [_EXPORTER, "--once", "--web.listen-address", "127.0.0.1:0"]
    real_projects.run(root, lane)
    took = measure_shards(root, [[*lane, "--shard", f"{index}/{count}"] for index in range(1, count + 1)], rounds)
    subprocess.run([_EXPORTER, "history", "merge"], cwd=root, check=True, stdout=subprocess.DEVNULL)
    return took


def list_files(root: Path, command: Sequence[str]) -> list[str]:
    """Return the files of the tests that the command lists: a glob may find files that the suite ignores."""
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    return sorted({test.partition("::")[0] for test in listed.split()})


def measure_theirs(root: Path, count: int, rounds: int) -> list[Took]:
    """Record the durations with pytest-split, then run each group by `least_duration`, its longest-first algorithm."""
    (root / ".test_durations").unlink(missing_ok=True)
    real_projects.run(root, [*_SUITE, "--store-durations"])
    group = [*_SUITE, "--splitting-algorithm", "least_duration", "--splits", str(count), "--group"]
    return measure_shards(root, [[*group, str(index)] for index in range(1, count + 1)], rounds)


def measure_shards(root: Path, commands: Sequence[Sequence[str | Path]], rounds: int) -> list[Took]:
    """Run each command once a round, and return for each the round that took the least CPU time."""
    each = [[real_projects.run(root, command) for command in commands] for _ in range(rounds)]
    return [min(took, key=lambda one: one.cpu) for took in zip(*each, strict=True)]


def _compare(seconds: list[float]) -> float:
    """Return the difference of the slowest and the fastest in percent of the slowest."""
    return 100 * (max(seconds) - min(seconds)) / max(seconds)


def _join(seconds: list[float]) -> str:
    return ", ".join(f"{one:.1f}" for one in seconds)


if __name__ == "__main__":
    sys.exit(main())
