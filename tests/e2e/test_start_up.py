"""A plain run imports few modules, since importing is most of the CPU time of a short lane."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import projects
from support.processes import run_python

# Each took at least 0.2 ms of the CPU time of a lane of one `true`, which takes about 110 ms. `engine.what_if` is not
# among them: on a slow machine a run may load it, for advice.
HEAVY = frozenset(
    {
        "argparse", "asyncio", "cloudpickle", "ctypes", "dataclasses", "email", "encodings.idna", "glob", "gzip",
        "hashlib", "heapq", "hmac", "html", "http", "importlib.metadata", "multiprocessing", "pickle",
        "platform", "prometheus_client", "psutil", "pydantic", "queue", "random", "requests", "rich",
        "secrets", "selectors", "shutil", "signal", "socket", "ssl",
        "statistics", "subprocess", "tempfile", "typing_extensions", "unicodedata", "urllib.request", "yaml",
        "paropt_exporter.cli.flags", "paropt_exporter.config.model", "paropt_exporter.executors.adaptive.routing",
        "paropt_exporter.executors.calls", "paropt_exporter.executors.thread_calls",
        "paropt_exporter.executors.threads.thread_pool", "paropt_exporter.exposition.server",
        "paropt_exporter.exposition.sinks",
        "paropt_exporter.history.recovery", "paropt_exporter.metrics.client", "paropt_exporter.metrics.formats",
        "paropt_exporter.plan.batches",
    }
)  # fmt: skip
HEAVY -= {"glob"} if sys.version_info >= (3, 13) else set()  # there pathlib loads it
HEAVY -= {"dataclasses"} if sys.version_info[:2] == (3, 14) else set()  # there traceback loads it
# The supervisor needs none of these, and they take most of the time of loading.
LATER = frozenset(
    {
        "sqlite3", "paropt_exporter.app.exporter", "paropt_exporter.autoscaling", "paropt_exporter.engine.run",
        "paropt_exporter.executors.threads", "paropt_exporter.exposition", "paropt_exporter.history",
        "paropt_exporter.metrics", "paropt_exporter.task_logs",
    }
)  # fmt: skip
# The first command need not wait for these.
AFTER_FIRST_COMMAND = frozenset(
    {
        "json", "paropt_exporter.autoscaling.controller", "paropt_exporter.autoscaling.decisions",
        "paropt_exporter.autoscaling.lane_observer", "paropt_exporter.autoscaling.policy",
    }
)  # fmt: skip
SUPERVISOR_START = "os.posix_spawn"
CONTROL_THREAD = "paropt-control"  # starts just before the first task; it loads modules 30 ms later
# Writes the modules that were loaded at an audit event, at the start of a thread of that name, or at the end ("").
PROGRAM = """
import atexit, sys
path, name, *sys.argv[1:] = sys.argv[1:]
from paropt_exporter.cli.main import main
loaded = []
def note(at, _=None):
    if at == name:
        loaded.append(sorted(sys.modules))
def note_thread(*_):
    sys.setprofile(None)
    note(threading.current_thread().name)
sys.addaudithook(note)
if name:  # with it, the end of the command loads more modules
    import threading
    threading.setprofile(note_thread)
def write():
    names = loaded[-1] if loaded else sorted(sys.modules)
    import json  # only now: a run loads it late
    with open(path, "w") as file:
        json.dump(names, file)
atexit.register(write)
sys.exit(main())
"""

# Writes for each garbage collection since the start of `main` whether the modules of a run were loaded.
COLLECTIONS = """
import atexit, gc, json, sys
path, *sys.argv[1:] = sys.argv[1:]
from paropt_exporter.cli.main import main
seen = []
gc.callbacks.append(lambda phase, _: seen.append("paropt_exporter.app.exporter" in sys.modules))
atexit.register(lambda: open(path, "w").write(json.dumps(seen)))
main()
"""


def list_modules(folder: Path, *arguments: str, at: str = "") -> set[str]:
    """Run the command and return the modules that it has imported. The first one checks the config and keeps it.

    `at`: only those that it had imported at an audit event, or when a thread of that name started.
    """
    shown = folder / "modules.json"
    done = run_python(
        PROGRAM, str(shown), at, *arguments, cwd=folder, env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(shown.read_text()))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    projects.write(tmp_path, 'name: one, run: "true"\nname: two, run: "echo two", needs: [one]')
    return tmp_path


@pytest.mark.parametrize("arguments", [("--once", projects.ANY_PORT), ("--list",)], ids=["run", "list"])
def test_an_unchanged_config_is_run_and_listed_without_heavy_modules(project: Path, arguments: tuple[str, ...]) -> None:
    first = list_modules(project, *arguments)
    assert "pydantic" in first  # to check the config
    assert sorted(HEAVY & list_modules(project, *arguments)) == []


def test_the_supervisor_starts_before_most_modules_load(project: Path) -> None:
    loaded = list_modules(project, "--once", projects.ANY_PORT)
    early = list_modules(project, "--once", projects.ANY_PORT, at=SUPERVISOR_START)
    assert sorted(LATER & loaded) == sorted(LATER)
    assert sorted(LATER & early) == []


def test_the_first_command_does_not_wait_for_later_modules(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: one, run: "true"')
    list_modules(tmp_path, "--once", projects.ANY_PORT)
    early = list_modules(tmp_path, "--once", projects.ANY_PORT, at=CONTROL_THREAD)
    assert [name for name in AFTER_FIRST_COMMAND if importlib.util.find_spec(name) is None] == []
    assert sorted(AFTER_FIRST_COMMAND & early) == []


def test_no_garbage_is_collected_while_modules_load(project: Path) -> None:
    shown = project / "collections.json"
    command = [sys.executable, "-c", COLLECTIONS, str(shown), "--once", projects.ANY_PORT]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert False not in json.loads(shown.read_text())


def test_a_cached_stage_is_skipped_without_heavy_modules(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: one, run: "true", inputs: ["src/*.py"]')
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").symlink_to(os.__file__)  # an old file: young ones are read again
    assert "hashlib" in list_modules(tmp_path, "--once", projects.ANY_PORT)
    loaded = list_modules(tmp_path, "--once", projects.ANY_PORT)
    assert sorted((HEAVY | {"json", "paropt_exporter.cache.result_keeper"}) & loaded) == []
    assert "paropt_exporter.cache.stage_cache" in loaded


def test_a_traced_stage_runs_without_heavy_modules(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: one, run: "true", inputs: [auto, "src/*.py"]')
    list_modules(tmp_path, "--once", projects.ANY_PORT)
    loaded = list_modules(tmp_path, "--once", projects.ANY_PORT)
    assert HEAVY & loaded <= {"hashlib", "hmac"}  # for the keyed digests of variables that a kept result has
    assert "paropt_exporter.cache.traced_results" in loaded


def test_the_version_needs_next_to_nothing(project: Path) -> None:
    loaded = list_modules(project, "--version")
    assert loaded & {"enum", "re", "typing"} == set()
    assert {name for name in loaded if name.startswith("paropt_exporter.")} <= {
        "paropt_exporter._version", "paropt_exporter.cli", "paropt_exporter.cli.main", "paropt_exporter.cli.streams",
        "paropt_exporter.lazy_patterns", "paropt_exporter.platform_check", "paropt_exporter.terminal",
    }  # fmt: skip


def test_an_unchanged_host_config_is_read_without_heavy_modules(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = project / "host.yml"
    host.write_text(
        'servers: [{url: "https://push.example.org", bearer_token_file: token}]\nallow: [{repository: /srv}]\n'
    )
    host.chmod(0o600)
    monkeypatch.setenv("PAROPT_HOST_CONFIG", str(host))
    arguments = ("--once", projects.ANY_PORT)
    assert "pydantic" in list_modules(project, *arguments)
    assert list_modules(project, *arguments) & HEAVY == set()
