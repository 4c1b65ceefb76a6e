"""Compares the lane that `init` proposes for real projects with `make -j2` over the same tools and with `pytest -n 2`.

Usage: python benchmarks/real_projects.py [--rounds 3] FOLDER [PROJECT...]

Fetches what `real_projects.json` lists (source archives from the package index, checked by hash) into FOLDER, with a
virtual environment for each, unless they are there. The ways run in turn, round after round; medians are printed with
their ratio to the better peer. The lane has run once before, so that it knows how long each item takes; what that first
run took stands in a column of its own. Whatever the tools find is no matter here: a project's findings are its own.

rich's archive has no tests: put those of its repository into FOLDER/rich/tests, or the project is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from paropt_exporter.config.detect import detect_stages

_TOOLS = ("pytest", "pytest-xdist", "ruff", "mypy")
_MOST_WALL, _MOST_CPU = 1.05, 1.15  # over the better peer's
_JOBS = 2
_EXPORTER = Path(sys.executable).with_name("paropt-exporter")


@dataclass(frozen=True, slots=True)
class Took:
    """Wall and CPU seconds of one command with all its children."""

    wall: float
    cpu: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("projects", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    listed = json.loads(Path(__file__).with_suffix(".json").read_text())
    print("medians in seconds; the ratios are to the better peer, `start` is the part of its time that our start takes")
    print(f"{'':<16}{'wall':^32} {'CPU':^24}{'ratio':^21}")
    names = f"{'lane':>8}{'first':>8}{'make':>8}{'-n 2':>8} {'lane':>8}{'make':>8}{'-n 2':>8}"
    print(f"{'project':<16}{names}{'wall':>7}{'CPU':>7}{'start':>7}")
    good = True
    for name in flags.projects or listed:
        root = prepare(flags.folder.absolute(), name, listed[name])
        good = measure(name, root, flags.rounds) and good
    return 0 if good else 1


def prepare(folder: Path, name: str, project: Mapping[str, Any]) -> Path:
    """Return the project's folder, fetched and with an environment in which its tests run."""
    root = folder / name
    if (root / ".venv/bin/pytest").exists():
        return root
    archives = folder / "archives"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wanted = f"{name}=={project['version']}"
    subprocess.run([*pip, "download", "--no-binary", name, "--no-deps", "-d", str(archives), wanted], check=True)
    stem = name.replace("-", "_")
    archive = next(path for path in archives.iterdir() if path.name.startswith((f"{name}-", f"{stem}-")))
    if hashlib.sha256(archive.read_bytes()).hexdigest() != project["sha256"]:
        raise SystemExit(f"{archive}: not the archive that was listed")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
        inner = packed.getnames()[0].partition("/")[0]
    (folder / inner).rename(root)
    subprocess.run([sys.executable, "-m", "venv", root / ".venv"], check=True)
    needs = [*_TOOLS, *project["needs"]]
    installing = [str(root / ".venv/bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*installing, "-e", root, *needs], check=True)
    return root


def measure(name: str, root: Path, rounds: int) -> bool:
    """Print one project's line; return whether it keeps the limits."""
    write_makefile(root)
    shutil.rmtree(root / ".paropt", ignore_errors=True)
    (root / "paropt.yml").unlink(missing_ok=True)
    run(root, [_EXPORTER, "init"])
    lane: list[str | Path] = [_EXPORTER, "--lane", "standard", "--once", "--web.listen-address", "127.0.0.1:0"]
    ways: dict[str, Sequence[str | Path]] = {
        "lane": lane,
        "make": ["make", "-k", f"-j{_JOBS}", "-f", "compared.mk"],
        "xdist": ["make", "-k", f"-j{_JOBS}", "-f", "compared.mk", f"XDIST=-n {_JOBS}"],
    }
    run(root, ways["make"])  # the tools' own caches are there from now on
    first = run(root, lane)
    took: dict[str, list[Took]] = {way: [] for way in ways}
    for turn in range(rounds):
        for way in sorted(ways, key=lambda way: (turn, way), reverse=turn % 2 == 1):
            took[way].append(run(root, ways[way]))
    start = median(run(root, [_EXPORTER, "plan"]).cpu for _ in range(rounds))
    wall = {way: median(one.wall for one in each) for way, each in took.items()}
    cpu = {way: median(one.cpu for one in each) for way, each in took.items()}
    peer = min(("make", "xdist"), key=lambda way: wall[way])
    ratios = wall["lane"] / wall[peer], cpu["lane"] / cpu[peer]
    print(
        f"{name:<16}{wall['lane']:>8.2f}{first.wall:>8.2f}{wall['make']:>8.2f}{wall['xdist']:>8.2f} "
        f"{cpu['lane']:>8.2f}{cpu['make']:>8.2f}{cpu['xdist']:>8.2f}"
        f"{ratios[0]:>7.2f}{ratios[1]:>7.2f}{start / wall[peer]:>7.2f}",
        flush=True,
    )
    return ratios[0] <= _MOST_WALL and ratios[1] <= _MOST_CPU


def write_makefile(root: Path) -> None:
    """Write the same tools as a makefile, each in one command; `XDIST` goes to pytest."""
    lines = ["all:"]
    for stage in detect_stages(root).stages:
        words = stage.run if isinstance(stage.run, tuple) else tuple(shlex.split(stage.run or ""))
        if "{items}" in words:
            assert stage.items is not None and stage.items.glob is not None
            words = tuple(Path(stage.items.glob).parts[0] if word == "{items}" else word for word in words)
        extra = " $(XDIST)" if Path(words[0]).name == "pytest" else ""
        lines += [f"all: {stage.name}", f"{stage.name}:", f"\t{shlex.join(words)}{extra}"]
    lines.append(f".PHONY: all {' '.join(stage.name for stage in detect_stages(root).stages)}")
    (root / "compared.mk").write_text("\n".join(lines) + "\n")


def run(root: Path, command: Sequence[str | Path]) -> Took:
    """Run one command in a project's folder, without output."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "PYTEST"))}
    env["PATH"] = os.pathsep.join(["/usr/local/bin", "/usr/bin", "/bin"])  # the tools are those of the project
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Took(time.monotonic() - began, used.ru_utime + used.ru_stime)


if __name__ == "__main__":
    sys.exit(main())
