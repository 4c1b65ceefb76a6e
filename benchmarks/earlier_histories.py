"""Write a small history with each earlier version of the code, as the SQL that tests/history/earlier has of it.

Each commit that changed the schema is unpacked from git and runs a lane of its own, twice: its command writes the
history, not today's. Then it opens a history of today's version: it must refuse with one line, and change nothing.

    python benchmarks/earlier_histories.py
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from contextlib import closing
from io import BytesIO
from pathlib import Path

from paropt_exporter.history.database import VERSION

ROOT = Path(__file__).parents[1]
OUT = ROOT / "tests/history/earlier"
# The commits that changed the schema, by the version that they gave it. Two branches used the number 4. Version 1 is
# of dd5f0e6, which had no command yet: it is represented by its last commit.
COMMITS = {
    "1": "ff6c700",
    "2": "12f68ff",
    "3": "4ac2e06",
    "4": "def02e8",
    "4-items": "a499543",
    "4-failed-items": "52b5077",
    "5": "fdccbd7",
    "6": "4fb5b42",
    "7": "8b457d9",
    "8": "c4d946e",
}
CONFIG = """
project: shop
lanes: {standard: {strategy: process, workers: 2, total: 1m}}
stages:
  - {number: 2, name: lint, run: "true"}
  - {number: 3, name: unit, run: "test {item} != b", items: {list: [a, b, c]}, retries: 1, sla: 30s}
  - {number: 4, name: types, run: "echo wrong; exit 3", shell: true}
  - {number: 5, name: scan, run: "true", needs: [types]}
"""
# Batches of items, and with them the items' durations, came with one of the two versions 4.
BATCHES = "  - {number: 6, name: batches, run: \"sh -c 'exit 1' {items}\", items: {list: [a, b, c]}}\n"
WITHOUT_BATCHES = ("1", "2", "3", "4")
# From version 1 on there is a command that runs a lane once; its name and flags have not changed.
RUN = ("-m", "paropt_exporter", "--lane", "standard", "--once", "--web.listen-address=127.0.0.1:0")
_HANG_SECONDS = 60.0


def main() -> None:
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        today = write_history(ROOT / "exporter", folder / "today", CONFIG + BATCHES)
        for version, commit in COMMITS.items():
            package = unpack(commit, folder / f"code-{version}")
            config = CONFIG if version in WITHOUT_BATCHES else CONFIG + BATCHES
            history = write_history(package, folder / f"project-{version}", config)
            (OUT / f"{version}.sql").write_text(dump(history))
            said = "" if version == str(VERSION) else refuse(package, today)
            print(f"version {version} ({commit}): {said}", flush=True)


def unpack(commit: str, folder: Path) -> Path:
    archive = subprocess.run(["git", "archive", commit, "exporter"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder / "exporter"


def write_history(package: Path, project: Path, config: str) -> Path:
    """Run the lane twice with the code of a package; return the history."""
    project.mkdir(parents=True)
    (project / "paropt.yml").write_text(config)
    for _ in range(2):
        ended = run(package, project)
        if ended.returncode != 1 or not (project / ".paropt/history.db").exists():
            raise SystemExit(f"exit code {ended.returncode} of {package}: {ended.stderr}")
    return project / ".paropt/history.db"


def run(package: Path, project: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, *RUN]
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=_HANG_SECONDS, check=False
    )


def dump(history: Path) -> str:
    with closing(sqlite3.connect(history)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        return "\n".join([*connection.iterdump(), f"PRAGMA user_version = {version};", ""])


def refuse(package: Path, history: Path) -> str:
    """Have earlier code run a lane on today's history, and return its answer."""
    before = digest(history)
    ended = run(package, history.parents[1])
    said = [line for line in ended.stderr.splitlines() if "newer" in line]
    same = "unchanged" if digest(history) == before else "CHANGED"
    return f"exit code {ended.returncode}, {same}: {' / '.join(said)}"


def digest(history: Path) -> str:
    """Return a digest of the history's content: its pages may move while it is read."""
    with closing(sqlite3.connect(history)) as connection:
        return hashlib.sha256("\n".join(connection.iterdump()).encode()).hexdigest()


if __name__ == "__main__":
    main()
