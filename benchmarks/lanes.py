"""How fast a lane is beside its commands one after another, GNU make -j and GNU parallel; how fast the command starts.

Each round runs every contender once, in turn, so that a machine whose speed drifts drifts for all; figures are medians
of the rounds' ratios. Usage: python benchmarks/lanes.py [ROUNDS]
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROUNDS = 5
STARTS = 30  # of the interpreter, each some 10 ms: short runs need many
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


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    cores = len(os.sched_getaffinity(0))
    print(
        f"Lanes: medians of {rounds} rounds on {cores} cores; a ratio is the peer's time over ours, above 1 is faster"
    )
    print(f"{'commands':<30}{'ours':>9}  one after another   make -j{cores}   parallel   make -j (all)   parallel -j0")
    for name, programs in WORKLOADS.items():
        print(_row(name, programs, rounds, cores), flush=True)
    print()
    print(f"Start-up: {_startup():.2f}x of `python -c pass` (paropt-exporter --version; wanted: under 3)")


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


def _startup() -> float:
    commands = {"ours": [str(COMMAND), "--version"], "python": [sys.executable, "-c", "pass"]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(STARTS):
        for name, command in commands.items():
            times[name].append(_timed(lambda command=command: _run(Path(), *command)))
    return statistics.median(times["ours"]) / statistics.median(times["python"])


def _timed(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _run(folder: Path, *command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, check=True, timeout=300,
    )  # fmt: skip


if __name__ == "__main__":
    main()
