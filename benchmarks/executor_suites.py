"""Run the tests of projects that use concurrent.futures with the standard executors and with ours in their place.

Usage: python benchmarks/executor_suites.py FOLDER [PROJECT...]

`executor_suites.json` lists source archives of the package index with their hashes, and the files of tests that use
executors. Each file runs twice in the project's own virtual environment. A test that ends differently is a fault,
unless `differs` gives the reason why it must; the exit code is 1 if there is a fault.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree  # nosec B405 # of files that our own pytest wrote

from real_projects import prepare, stop_search_for_settings

_ROOT = Path(__file__).resolve().parents[1]
_TEST_SECONDS = 120
_SUITE_SECONDS = 1200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("projects", nargs="*")
    flags = parser.parse_args()
    listed = json.loads(Path(__file__).with_suffix(".json").read_text())
    stop_search_for_settings(flags.folder)
    print("| project | tests | passed with the standard executors | with ours | differences |")
    print("|---|---|---|---|---|")
    good = True
    for name in flags.projects or listed:
        root = prepare(flags.folder.absolute(), name, listed[name])
        install_ours(root)
        good = compare(name, root, listed[name]) and good
    return 0 if good else 1


def install_ours(root: Path) -> None:
    """Install this package in a project's environment, unless it is there."""
    if (root / ".venv/bin/paropt-exporter").exists():
        return
    pip = [str(root / ".venv/bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "-e", str(_ROOT)], check=True)


def compare(name: str, root: Path, project: Mapping[str, Any]) -> bool:
    """Print one project's line and its unexpected differences; return whether there are none."""
    standard = run_suite(root, project, swapped=False)
    ours = run_suite(root, project, swapped=True)
    differences = {test: (standard.get(test), ours.get(test)) for test in standard | ours}
    differences = {test: pair for test, pair in differences.items() if pair[0] != pair[1]}
    reasons = {test: project.get("differs", {}).get(test) for test in differences}
    known = "; ".join(f"{test.rpartition('::')[2]}: {why}" for test, why in reasons.items() if why)
    faults = [test for test, why in reasons.items() if why is None]
    counts = [sum(result == "passed" for result in each.values()) for each in (standard, ours)]
    told = f"{len(faults)} faults" if faults else known or "none"
    print(f"| {name} {project['version']} | {len(standard)} | {counts[0]} | {counts[1]} | {told} |", flush=True)
    for test in faults:
        print(f"{test}: {differences[test][0]} with the standard executors, {differences[test][1]} with ours")
    return not faults and counts[0] > 0


def run_suite(root: Path, project: Mapping[str, Any], *, swapped: bool) -> dict[str, str]:
    """Run a project's tests; return the result of each: passed, skipped, failure or error."""
    report = root / f"{'ours' if swapped else 'standard'}.xml"
    report.unlink(missing_ok=True)
    command = [".venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-W", "ignore"]
    command += [f"--timeout={_TEST_SECONDS}", f"--junitxml={report}"]
    command += ["-p", "swapped_executors"] if swapped else []
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "VIRTUAL_ENV", "PAROPT"))}
    subprocess.run(
        [*command, *project["tests"]],
        cwd=root,
        env={**env, "PYTHONPATH": str(_ROOT / "benchmarks")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_SUITE_SECONDS,
        check=False,
    )
    return read_results(report)


def read_results(report: Path) -> dict[str, str]:
    """Return the result of each test of a JUnit report; none if pytest wrote no report."""
    if not report.exists():
        return {}
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):  # nosec B314 # our own pytest wrote it
        results = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        found[f"{case.get('classname')}::{case.get('name')}"] = results[0] if results else "passed"
    return found


if __name__ == "__main__":
    sys.exit(main())
