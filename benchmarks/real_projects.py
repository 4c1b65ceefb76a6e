"""Run the lane that `init` proposes for real projects, and the projects' own commands: the verdicts must be the same.

Usage: python benchmarks/real_projects.py [--rounds 3] FOLDER [PROJECT...]

Fetches what `real_projects.json` lists (source archives from the package index, checked by hash) into FOLDER, with a
virtual environment for each, unless they are there. `own` has the commands of the project's tox.ini, noxfile, Makefile
and pre-commit hooks for each stage; the file that `init` writes is not edited. The first run of the lane is judged:
every stage must succeed where all own commands do, and fail where one of them fails; other stages must succeed.

Then the lane and four peers, which run the own commands, take turns, round after round: one command after another,
`make -j2`, `make -j2` with `pytest -n 2`, and `tox -p` with an environment for each stage. tox only starts commands:
its environments exist before and are empty, the programs come from the project's virtual environment. Medians are
printed with the lane's ratio to the fastest peer. `--rounds 0` compares the verdicts only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
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

_TOOLS = ("pytest", "pytest-xdist", "ruff", "mypy")
_JOBS = 2
_EXPORTER = Path(sys.executable).with_name("paropt-exporter")


@dataclass(frozen=True, slots=True)
class Took:
    """Wall and CPU seconds of one command with all its children, and whether it ended with 0."""

    wall: float
    cpu: float
    succeeded: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("projects", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    listed = json.loads(Path(__file__).with_suffix(".json").read_text())
    if unknown := set(flags.projects) - set(listed):
        parser.error(f"not in real_projects.json: {', '.join(sorted(unknown))}")
    folder = flags.folder.absolute()
    stop_search_for_settings(folder)
    tox = prepare_tox(folder)
    columns = ["project", "own verdict", "lane's"]
    if flags.rounds:
        columns += ["lane", *build_peers(tox), "wall ratio", "CPU ratio"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    good = True
    for name in flags.projects or listed:
        root = prepare(folder, name, listed[name])
        good = measure(name, root, listed[name]["own"], build_peers(tox), flags.rounds) and good
    return 0 if good else 1


def stop_search_for_settings(folder: Path) -> None:
    """Write empty settings into the folder: pytest, ruff and mypy look for them in all folders above a project."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("pytest.ini", "[pytest]\n"), ("ruff.toml", ""), ("mypy.ini", "[mypy]\n")):
        (folder / name).write_text(text)


def prepare_tox(folder: Path) -> Path:
    """Return the path of tox, installed into an environment of its own, since it needs projects that are measured."""
    tox = folder / "tox/bin/tox"
    if not tox.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "tox"], check=True)
        pip = [str(folder / "tox/bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "tox>=4"], check=True)
    return tox


def build_peers(tox: Path) -> dict[str, Sequence[str | Path]]:
    """Return the command of each peer by the heading of its column."""
    make = ["make", "-k", "-f", "compared.mk"]
    return {
        "one after another": [*make, "-j1"],
        f"make -j{_JOBS}": [*make, f"-j{_JOBS}"],
        f"and pytest -n {_JOBS}": [*make, f"-j{_JOBS}", f"XDIST=-n {_JOBS}"],
        "tox -p": [tox, "-q", "-c", "compared.ini", "run-parallel"],
    }


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


def measure(
    name: str, root: Path, own: Mapping[str, Sequence[str]], peers: Mapping[str, Sequence[str | Path]], rounds: int
) -> bool:
    """Print one project's line; return whether the verdicts agree."""
    write_makefile(root, own)
    write_tox_config(root, own)
    shutil.rmtree(root / ".paropt", ignore_errors=True)
    (root / "paropt.yml").unlink(missing_ok=True)
    expected = {stage: all(run(root, shlex.split(line)).succeeded for line in lines) for stage, lines in own.items()}
    run(root, [_EXPORTER, "init"])
    lane: list[str | Path] = [_EXPORTER, "--lane", "standard", "--once", "--web.listen-address", "127.0.0.1:0"]
    code = run(root, [*lane, "--report", f"json={root / 'report.json'}"]).succeeded
    found = read_verdicts(root / "report.json")
    more = all(succeeded for stage, succeeded in found.items() if stage not in expected)
    agree = more and found.items() >= expected.items() and code is all(expected.values())
    verdicts = f"| {name} | {format_verdict(expected)} | {'the same' if agree else format_verdict(found)} |"
    if rounds == 0:
        print(verdicts, flush=True)
        return agree
    run(root, [*peers["tox -p"], "--notest"])
    contenders: dict[str, Sequence[str | Path]] = {"lane": lane, **peers}
    took: dict[str, list[Took]] = {contender: [] for contender in contenders}
    for turn in range(rounds):
        for contender in list(contenders)[:: -1 if turn % 2 else 1]:
            took[contender].append(run(root, contenders[contender]))
    wrong = [
        contender
        for contender, each in took.items()
        if any(one.succeeded is not all(expected.values()) for one in each)
    ]
    wall = {contender: median(one.wall for one in each) for contender, each in took.items()}
    cpu = {contender: median(one.cpu for one in each) for contender, each in took.items()}
    fastest = min(peers, key=lambda peer: wall[peer])
    cells = [
        *(f"{wall[contender]:.1f} s{' (another verdict)' if contender in wrong else ''}" for contender in contenders),
        f"{wall['lane'] / wall[fastest]:.2f}",
        f"{cpu['lane'] / cpu[fastest]:.2f}",
    ]
    print(f"{verdicts} {' | '.join(cells)} |", flush=True)
    return agree


def read_verdicts(report: Path) -> dict[str, bool]:
    """Return whether each stage of a run succeeded."""
    return {each["stage"]: each["result"] == "success" for each in json.loads(report.read_text())["stages"]}


def format_verdict(verdicts: Mapping[str, bool]) -> str:
    failed = [stage for stage, succeeded in verdicts.items() if not succeeded]
    return f"{', '.join(failed)} failed" if failed else "green"


def write_makefile(root: Path, own: Mapping[str, Sequence[str]]) -> None:
    """Write the own commands as a makefile, a target for each stage; `XDIST` goes to pytest."""
    lines = [f".PHONY: all {' '.join(own)}", f"all: {' '.join(own)}"]
    for stage, commands in own.items():
        lines.append(f"{stage}:")
        lines += [f"\t{command}{' $(XDIST)' if command.startswith('pytest') else ''}" for command in commands]
    (root / "compared.mk").write_text("\n".join(lines) + "\n")


def write_tox_config(root: Path, own: Mapping[str, Sequence[str]]) -> None:
    """Write the own commands for tox, an environment for each stage, with the project's programs on PATH."""
    lines = ["[tox]", "no_package = true", f"env_list = {', '.join(own)}"]
    lines += ["[testenv]", "skip_install = true", "allowlist_externals = *", "pass_env = *", "ignore_errors = true"]
    for stage, commands in own.items():
        lines += [f"[testenv:{stage}]", "commands ="]
        lines += [f"  {re.sub('^python ', '{tox_root}/.venv/bin/python ', command)}" for command in commands]
    (root / "compared.ini").write_text("\n".join(lines) + "\n")


def run(root: Path, command: Sequence[str | Path]) -> Took:
    """Run one command in a project's folder with its virtual environment on PATH, without output."""
    dropped = ("MAKE", "PYTEST", "VIRTUAL_ENV")
    env = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    folders = [] if command[0] == _EXPORTER else [str(root / ".venv/bin")]  # the lane finds them by itself
    env["PATH"] = os.pathsep.join([*folders, "/usr/local/bin", "/usr/bin", "/bin"])
    program = shutil.which(command[0], path=env["PATH"]) or command[0]
    began = time.monotonic()
    process = subprocess.Popen(
        [program, *command[1:]],
        cwd=root,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Took(time.monotonic() - began, used.ru_utime + used.ru_stime, process.returncode == 0)


if __name__ == "__main__":
    sys.exit(main())
