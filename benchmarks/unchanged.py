"""What a lane costs in which nothing has changed, beside turbo, go-task, make and nox on the same tree of files.

Each round runs every contender once, in turn, so that a machine whose speed drifts drifts for all; figures are medians.
`true` is our lane with a command that does nothing and has no `inputs`: a run that checks no file. nox has no cache: it
runs `true` too.

Usage: python benchmarks/unchanged.py FOLDER [ROUNDS]. FOLDER gets the peers, unless they are there: turbo by npm, nox
and go-task by pip. Peers that can't be installed are left out with a line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROUNDS = 9
COUNTS = (1_000, 10_000)
TASKS = 1_000
COMMAND = Path(sys.executable).parent / "paropt-exporter"
TURBO = "2.11.11"
PIP_PACKAGES = {"nox": "2026.10.20", "go-task-bin": "3.54.0"}  # npm's @go-task/cli downloads its program from elsewhere
_OURS = (str(COMMAND), "--lane", "standard", "--once", "--quiet", "--web.listen-address=127.0.0.1:0")
_OLD_SECONDS = 1_600_000_000
_SETTLED_SECONDS = 3.0  # an index trusts files that were this old when they were read


@dataclass(frozen=True, slots=True)
class Contender:
    """A command, and the files that it reads besides the tree."""

    command: tuple[str, ...]
    files: Mapping[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS)
    options = parser.parse_args()
    peers, rounds = options.folder.absolute(), options.rounds
    described = _describe_peers(peers)
    print(
        "One stage with nothing to do: CPU seconds of the whole process tree (wall seconds), times the CPU of `true`;"
    )
    print(f"medians of {rounds} rounds at a load of {os.getloadavg()[0]:.0f}; {described}", flush=True)
    for count in COUNTS:
        print(_measure_row(f"{count:,} files", count, _list_contenders(peers), rounds), flush=True)
    row = _measure_row(f"{TASKS:,} tasks", 0, {"true": _lane("'true'"), "ours": _lane_of_tasks()}, rounds)
    print(row, flush=True)


def _describe_peers(folder: Path) -> str:
    """Install the peers that are missing, and return their names and versions, or why there are none."""
    folder.mkdir(parents=True, exist_ok=True)
    named = ["make"]
    if not (folder / "venv/bin/python").exists():
        _run(folder, sys.executable, "-m", "venv", "venv")
    pip = (str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    for name, version in PIP_PACKAGES.items():
        done = subprocess.run((*pip, f"{name}=={version}"), cwd=folder, check=False, timeout=600)
        named.append(f"without {name}: pip failed" if done.returncode else f"{name} {version}")
    if shutil.which("npm") is None:
        return ", ".join(named) + "; turbo is left out: npm is missing"
    if not (folder / "package.json").exists():
        (folder / "package.json").write_text('{"private": true}\n')
    if not (folder / "node_modules/turbo").exists():
        npm = ("npm", "install", "--no-audit", "--no-fund", "--silent", "--save-exact", f"turbo@{TURBO}")
        subprocess.run(npm, cwd=folder, check=False, timeout=600)
    named.append(f"turbo {TURBO}" if (folder / "node_modules/turbo").exists() else "without turbo: npm failed")
    return ", ".join(named)


def _list_contenders(peers: Path) -> dict[str, Contender]:
    bins = peers / "venv/bin"
    turbo = {
        "package.json": json.dumps({"name": "tree", "packageManager": "npm@10.0.0", "scripts": {"lint": "true"}}),
        "package-lock.json": json.dumps({"name": "tree", "lockfileVersion": 3, "packages": {"": {"name": "tree"}}}),
        "turbo.json": json.dumps({"tasks": {"lint": {"inputs": ["src/**"], "outputs": []}}}),
    }
    task = "version: '3'\ntasks:\n  lint:\n    sources: ['src/**/*.py']\n    cmds: ['true']\n"
    make = "lint.done: $(shell find src -name '*.py')\n\t@true\n\t@touch lint.done\n"
    nox = "import nox\n@nox.session(python=False)\ndef lint(session): session.run('true', external=True)\n"
    return {
        "true": _lane("'true'"),
        "ours": _lane("'true', inputs: ['src/**']"),
        "turbo": Contender((str(_find_native_turbo(peers)), "run", "lint"), turbo),
        "go-task": Contender((str(bins / "task"), "lint"), {"Taskfile.yml": task}),
        "make": Contender(("make", "-s", "lint.done"), {"Makefile": make}),
        "nox": Contender((str(bins / "nox"), "-s", "lint"), {"noxfile.py": nox}),
    }


def _find_native_turbo(peers: Path) -> Path:
    """Return turbo's own program: the one in `.bin` starts Node first, which would be half of its figure."""
    scopes = peers / "node_modules"
    return next(iter(sorted(scopes.glob("@turbo/*/bin/turbo")) or sorted(scopes.glob("turbo-*/bin/turbo"))), scopes)


def _lane(stage: str) -> Contender:
    return Contender(_OURS, {"paropt.yml": f"stages:\n  - {{number: 2, name: lint, run: {stage}}}\n"})


def _lane_of_tasks() -> Contender:
    items = ", ".join(f"i{index}" for index in range(TASKS))
    return _lane(f"'true {{item}}', inputs: [paropt.yml], items: {{list: [{items}]}}")


def _measure_row(name: str, count: int, contenders: Mapping[str, Contender], rounds: int) -> str:
    taken: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="paropt-unchanged-") as place, _own_caches(Path(place)):
        runs = {peer: _prepare(Path(place, peer), one, count) for peer, one in contenders.items() if _is_there(one)}
        time.sleep(_SETTLED_SECONDS)  # not in a test: the trees must be older than what an index trusts
        for run in runs.values():
            run()
            run()  # the first one ran the command; the second one has all its caches
        for _ in range(rounds):
            for peer, run in runs.items():
                taken.setdefault(peer, []).append(run())
    return f"{name:<14}" + "   ".join(f"{peer} {_format(taken.get(peer), taken['true'])}" for peer in contenders)


def _format(costs: list[tuple[float, float]] | None, base: list[tuple[float, float]]) -> str:
    if costs is None:
        return "missing"
    cpu, wall = (statistics.median(values) for values in zip(*costs, strict=True))
    ratio = statistics.median(own[0] / other[0] for own, other in zip(costs, base, strict=True))
    return f"{cpu:.3f} ({wall:.2f}) {ratio:.2f}x"


def _is_there(contender: Contender) -> bool:
    return shutil.which(contender.command[0]) is not None


@contextmanager
def _own_caches(place: Path) -> Iterator[None]:
    """Let no contender see caches of its user, and leave none there."""
    before = {name: os.environ.get(name) for name in ("HOME", "XDG_CACHE_HOME", "TURBO_TELEMETRY_DISABLED", "CI")}
    os.environ.update(HOME=str(place), XDG_CACHE_HOME=f"{place}/cache", TURBO_TELEMETRY_DISABLED="1")
    os.environ.pop("CI", None)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _prepare(folder: Path, contender: Contender, count: int) -> Callable[[], tuple[float, float]]:
    """Write the tree as a repository with a commit, and return a function that measures the command in it."""
    for index in range(count):
        path = folder / f"src/pkg{index // 100:03}/module{index % 100:02}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"value = {index}\n" * 20)
        os.utime(path, (_OLD_SECONDS, _OLD_SECONDS))
    for name, content in contender.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (folder / ".gitignore").write_text(".paropt/\n.turbo/\n.task/\n.nox/\nnode_modules/\nlint.done\n")
    _run(folder, "git", "init", "--quiet")
    _run(folder, "git", "add", ".")
    _run(folder, "git", "-c", "user.name=x", "-c", "user.email=x@localhost", "commit", "--quiet", "-m", "tree")
    return lambda: _measure(folder, contender.command)


def _measure(folder: Path, command: tuple[str, ...]) -> tuple[float, float]:
    """Return the CPU seconds of a command with all that it waited for, and its wall seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    _run(folder, *command)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def _run(folder: Path, *command: str) -> None:
    # Installed packages come with bytecode, which this variable would keep a checkout from writing.
    left_out = ("MAKE", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=600,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}")


if __name__ == "__main__":
    main()
