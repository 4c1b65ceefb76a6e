"""The package gives what it promises, and loads only what is used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import paropt_exporter

HEAVY = {"pydantic", "yaml", "rich", "requests", "grafanalib", "prometheus_client", "cloudpickle", "psutil", "sqlite3"}


def modules_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after a statement."""
    script = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(ended.stderr.splitlines()[-1]))


@pytest.mark.parametrize("name", paropt_exporter.__all__)
def test_every_name_that_is_promised_is_there(name: str) -> None:
    assert getattr(paropt_exporter, name) is not None
    assert name in dir(paropt_exporter)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'paropt_exporter' has no attribute 'nope'"):
        _ = paropt_exporter.nope


def test_importing_the_package_loads_nothing_but_itself() -> None:
    loaded = modules_after("import paropt_exporter")
    assert {name for name in loaded if name.startswith("paropt_exporter")} == {
        "paropt_exporter",
        "paropt_exporter._version",
    }
    assert not loaded & HEAVY


def test_telling_the_version_loads_nothing_heavy() -> None:
    loaded = modules_after(
        "from contextlib import suppress\n"
        "from paropt_exporter.cli.main import main\n"
        "with suppress(SystemExit): main(['--version'])"
    )
    assert not loaded & HEAVY
    assert not loaded & {"logging", "typing", "concurrent.futures", "traceback"}


def test_a_worker_process_loads_only_the_standard_library_and_what_it_is_made_of() -> None:
    loaded = modules_after("import paropt_exporter.executors.worker.loop")
    ours = {name for name in loaded if name.startswith("paropt_exporter.")}
    assert not {
        name for name in ours if name.split(".")[1] not in ("executors", "events", "errors", "clock", "_version")
    }
    assert not loaded & HEAVY
