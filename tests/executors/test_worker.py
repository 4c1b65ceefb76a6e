"""A worker process imports few modules."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import paropt_exporter
from support.processes import run_python

ALLOWED = {
    "paropt_exporter",
    "paropt_exporter._version",
    "paropt_exporter.errors",
    "paropt_exporter.executors",
    "paropt_exporter.executors.procfs",
    "paropt_exporter.executors.worker",
    "paropt_exporter.executors.worker.forkserver",
    "paropt_exporter.executors.worker.imports",
    "paropt_exporter.executors.worker.loop",
    "paropt_exporter.executors.worker.main_module",
    "paropt_exporter.executors.worker.mp_context",
    "paropt_exporter.executors.worker.orphans",
    "paropt_exporter.executors.worker.payload",
    "paropt_exporter.executors.worker.pickle_buffers",
    "paropt_exporter.executors.worker.pickle_cache",
    "paropt_exporter.executors.worker.shared_memory",
    "paropt_exporter.executors.worker.wire",
}


def test_worker_imports_the_standard_library_and_few_own_modules() -> None:
    code = "import paropt_exporter.executors.worker.forkserver, sys; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(paropt_exporter.__file__).parents[1])}
    before = _modules("import sys; print(*sys.modules)", environment)
    found = _modules(code, environment) - before
    ours = {name for name in found if name.partition(".")[0] == "paropt_exporter"}
    assert ours <= ALLOWED
    distributor = {"_missing_stdlib_info"}  # of Python 3.15, for messages about modules that it was built without
    assert {name.partition(".")[0] for name in found - ours} <= sys.stdlib_module_names | distributor


def _modules(code: str, environment: dict[str, str]) -> set[str]:
    found = run_python(code, env=environment, check=True)
    return set(found.stdout.split())
