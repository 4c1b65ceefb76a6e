"""How fast a lane is beside its commands one after another, GNU make -j and GNU parallel; what starting and tasks cost.

Each round runs every contender once, in turn, so that a machine whose speed drifts drifts for all; figures are medians
of the rounds' ratios. Usage: python benchmarks/lanes.py [ROUNDS]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

ROUNDS = 5
STARTS = 30  # of the interpreter, each some 10 ms: short runs need many
COST_ROUNDS = 3
MANY = 1000
COMMAND = Path(sys.executable).parent / "paropt-exporter"

_BURN = "import time\nwhile time.process_time() < {seconds}: pass"
# What the commands of a lane do, as (name, Python program): half of a real lane computes, half waits.
WORKLOADS: dict[str, list[str]] = {
    "5 that wait 1 s": ["import time; time.sleep(1)"] * 5,
    "6 that burn 0.5 s": [_BURN.format(seconds=0.5)] * 6,
    "4 that wait, 4 that burn": ["import time; time.sleep(1)", _BURN.format(seconds=0.5)] * 4,
    "uneven: 2 s and 8 of 0.25 s": ["import time; time.sleep(2)", *["import time; time.sleep(0.25)"] * 8],
    "100 short ones": ["pass"] * 100,
}


@dataclass(frozen=True, slots=True)
class Contender:
    """A command, the file that it reads in its folder, and its standard input."""

    command: tuple[str, ...]
    file: str
    content: str
    given: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    cores = len(os.sched_getaffinity(0))
    print(
        f"Lanes: medians of {rounds} rounds on {cores} cores; a ratio is the peer's time over ours, above 1 is faster"
    )
    print(f"{'commands':<30}{'ours':>9}  one after another   make -j{cores}   parallel   make -j (all)   parallel -j0")
    for name, programs in WORKLOADS.items():
        print(_row(name, programs, rounds, cores), flush=True)
    print()
    print(f"Start-up: {_startup():.2f}x of `python -c pass` (paropt-exporter --version; wanted: under 3)")
    print()
    print(f"CPU seconds of the whole process tree (wall seconds), medians of {COST_ROUNDS} rounds")
    for name, contenders in COSTS.items():
        print(_cost_row(name, contenders(cores)), flush=True)


def _row(name: str, programs: list[str], rounds: int, cores: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        contenders = _contenders(Path(folder), programs, cores)
        times: dict[str, list[float]] = {contender: [] for contender in contenders}
        for _ in range(rounds):
            for contender, run in contenders.items():
                times[contender].append(_timed(run))
    ours = times.pop("ours")
    cells = [f"{name:<30}{statistics.median(ours):>7.2f} s"]
    for contender, width in (("after", 19), ("make", 11), ("parallel", 11), ("make all", 16), ("parallel all", 15)):
        cells.append(f"{_ratio(times.get(contender), ours):>{width}}")
    return "".join(cells)


def _ratio(peer: list[float] | None, ours: list[float]) -> str:
    if peer is None:
        return "missing"
    return f"{statistics.median(theirs / own for theirs, own in zip(peer, ours, strict=True)):.2f}"


def _contenders(folder: Path, programs: list[str], cores: int) -> Mapping[str, Callable[[], None]]:
    for index, program in enumerate(programs):
        (folder / f"task{index}.py").write_text(program)
    scripts = [f"task{index}.py" for index in range(len(programs))]
    stages = "\n".join(
        f'  - {{number: {index + 2}, name: s{index}, run: ["{sys.executable}", {script}]}}'
        for index, script in enumerate(scripts)
    )
    (folder / "paropt.yml").write_text(f"stages:\n{stages}\n")
    rules = "\n".join(f"{script}.done:\n\t@{sys.executable} {script}" for script in scripts)
    targets = " ".join(f"{script}.done" for script in scripts)
    (folder / "Makefile").write_text(f".PHONY: all {targets}\nall: {targets}\n{rules}\n")
    address = "--web.listen-address=127.0.0.1:0"

    def one_after_another() -> None:
        for script in scripts:
            _run(folder, sys.executable, script)

    found: dict[str, Callable[[], None]] = {
        "ours": lambda: _run(folder, str(COMMAND), "--lane", "standard", "--once", address),
        "after": one_after_another,
    }
    if shutil.which("make"):
        found["make"] = lambda: _run(folder, "make", "-s", f"-j{cores}", "all")
        found["make all"] = lambda: _run(folder, "make", "-s", "-j", "all")
    if shutil.which("parallel"):
        found["parallel"] = lambda: _run(folder, "parallel", f"-j{cores}", sys.executable, ":::", *scripts)
        found["parallel all"] = lambda: _run(folder, "parallel", "-j0", sys.executable, ":::", *scripts)
    return found


def _cost_row(name: str, contenders: Mapping[str, Contender]) -> str:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        there = {peer: one for peer, one in contenders.items() if shutil.which(one.command[0])}
        for one in there.values():
            (folder / one.file).write_text(one.content)
        taken: dict[str, list[tuple[float, float]]] = {peer: [] for peer in there}
        for one in there.values():
            _cost(folder, one)  # fills caches: bytecode, the checked config, the history
        for _ in range(COST_ROUNDS):
            for peer, one in there.items():
                taken[peer].append(_cost(folder, one))
    cells = [f"{name:<30}", *(f"{peer} {_medians(taken.get(peer, []))}" for peer in contenders)]
    return "   ".join(cells)


def _medians(costs: list[tuple[float, float]]) -> str:
    if not costs:
        return "missing"
    cpu, wall = (statistics.median(values) for values in zip(*costs, strict=True))
    return f"{cpu:.2f} ({wall:.2f})"


def _cost(folder: Path, contender: Contender) -> tuple[float, float]:
    """Return the CPU seconds of a command with all that it waited for, and its wall seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    _run(folder, *contender.command, given=contender.given)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def _lane(stages: list[str]) -> Contender:
    command = (str(COMMAND), "--lane", "standard", "--once", "--web.listen-address=127.0.0.1:0")
    return Contender(command, "paropt.yml", "stages:\n" + "\n".join(f"  - {stage}" for stage in stages) + "\n")


def _make(count: int, cores: int) -> Contender:
    targets = " ".join(f"t{index}" for index in range(count))
    return Contender(
        ("make", "-s", f"-j{cores}", "all"), "Makefile", f".PHONY: all {targets}\nall: {targets}\n{targets}:\n\t@true\n"
    )


def _nox(count: int) -> Contender:
    session = (
        "@nox.session(python=False, name=f's{number}')\n    def check(session): session.run('true', external=True)"
    )
    return Contender(
        ("nox", "-s", *(f"s{number}" for number in range(count))),
        "noxfile.py",
        f"import nox\nfor number in range({count}):\n    {session}\n",
    )


def _one(cores: int) -> Mapping[str, Contender]:
    ours = _lane(["{number: 2, name: s, run: 'true'}"])
    no_cache = ("env", "XDG_CACHE_HOME=/dev/null")  # as in a fresh container: the config is checked again
    first = replace(ours, command=(*no_cache, *ours.command))
    return {"ours": ours, "first run": first, "make": _make(1, cores), "nox": _nox(1)}


def _many_stages(cores: int) -> Mapping[str, Contender]:
    stages = [f"{{number: {index + 2}, name: s{index}, run: 'true'}}" for index in range(MANY)]
    return {"ours": _lane(stages), "make": _make(MANY, cores), "nox": _nox(MANY)}


def _many_items(cores: int) -> Mapping[str, Contender]:
    items = ", ".join(f"i{index}" for index in range(MANY))
    given = "".join(f"i{index}\n" for index in range(MANY))
    xargs = Contender(("xargs", "-n1", f"-P{cores}", "true"), "unused", "", given)
    parallel = Contender(("parallel", f"-j{cores}", "true"), "unused", "", given)
    stage = f"{{number: 2, name: s, run: 'true {{item}}', items: {{list: [{items}]}}}}"
    return {"ours": _lane([stage]), "xargs": xargs, "parallel": parallel}


COSTS: dict[str, Callable[[int], Mapping[str, Contender]]] = {
    "one `true`": _one,
    "1,000 stages of `true`": _many_stages,
    "1,000 items of `true`": _many_items,
}


def _startup() -> float:
    commands = {"ours": [str(COMMAND), "--version"], "python": [sys.executable, "-c", "pass"]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(STARTS):
        for name, command in commands.items():
            times[name].append(_timed(partial(_run, Path(), *command)))
    return statistics.median(times["ours"]) / statistics.median(times["python"])


def _timed(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _run(folder: Path, *command: str, given: str = "") -> None:
    # Installed packages come with bytecode, which this variable would keep a checkout from writing.
    left_out = ("MAKE", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    # Without a timeout: with one, the library polls, and notices the end of a command up to 50 ms late.
    subprocess.run(
        command, cwd=folder, env=environment, input=given, text=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, check=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
