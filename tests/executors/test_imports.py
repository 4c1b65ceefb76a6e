"""A module of the standard library that one worker imports is loaded in the next worker from the start."""

from __future__ import annotations

import importlib
import os
import random
import sys
from pathlib import Path

import pytest

from paropt_exporter import ProcessPool
from paropt_exporter.executors.worker import imports

ATTEMPTS = 200  # workers that may start before the fork server has found the time

TASK = """
import sys
had = {"colorsys", "sched"} & set(sys.modules), "helper" in sys.modules
import sched, helper
def look():
    import colorsys  # later than its module, but what the next worker has all the same
    return *had, colorsys.__file__, sched.__file__
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path with the task's module, a helper, and a module that shadows one of the library."""
    (tmp_path / "looking.py").write_text(TASK)
    (tmp_path / "helper.py").write_text("")
    (tmp_path / "sched.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("looking", "helper", "sched", "colorsys"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def _draw() -> float:
    return random.random()


def test_next_worker_has_the_modules_that_the_first_imported(modules: Path) -> None:
    look = importlib.import_module("looking").look
    for _ in range(ATTEMPTS):
        with ProcessPool(1) as pool:
            had, had_helper, colorsys, sched = pool.submit(look).result()
        assert not had_helper
        assert "sched" not in had
        assert sched == str(modules / "sched.py")
        assert Path(colorsys).parent != modules
        if had:
            break
    assert had == {"colorsys"}


def test_workers_draw_different_random_numbers() -> None:
    drawn = set()
    for _ in range(5):
        with ProcessPool(2) as pool:
            drawn |= {pool.submit(_draw).result() for _ in range(2)}
    assert len(drawn) == 10


def test_only_standard_library_modules_are_sent(modules: Path) -> None:
    for name in ("colorsys", "helper", "sched"):
        importlib.import_module(name)
    heard = imports.Imports()
    imports.send_names(heard.writing, ["colorsys", "helper", "sched", "json", "antigravity", "gone"])
    heard.read_names()
    assert heard.pending == ["colorsys", "json"]


def test_module_is_imported_once_and_a_failed_import_is_skipped() -> None:
    heard = imports.Imports()
    sys.modules.pop("colorsys", None)
    imports.send_names(heard.writing, ["json", "json"])
    os.write(heard.writing, b"colorsys json.nothing paropt_exporter.nothing json\n")
    heard.read_names()
    assert heard.pending == ["json", "colorsys", "json.nothing", "paropt_exporter.nothing"]
    assert [heard.import_next() for _ in range(4)] == [False, False, False, True]
    assert "colorsys" in sys.modules
    heard.read_names()
    assert heard.pending == []


def test_full_or_closed_pipe_loses_only_the_names() -> None:
    heard = imports.Imports()
    for _ in range(10_000):
        imports.send_names(heard.writing, ["json"])
    heard.read_names()
    assert heard.pending == ["json"]
    imports.send_names(1 << 20, ["json"])
