"""Calls import changed modules of the project again."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from paropt_exporter.errors import CallNotFound
from paropt_exporter.executors import ProcessPool
from paropt_exporter.executors.calls import CallOutcome, run_call_in_process
from paropt_exporter.executors.project_modules import ProjectModules

HANG_SECONDS = 30.0
PACKAGE, FOLDER = "paropt_sample_shop", "paropt_sample_folder"  # the second one without __init__.py


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    files = {
        f"{PACKAGE}/__init__.py": "from .price import PRICE",
        f"{PACKAGE}/price.py": "PRICE = 1",
        f"{FOLDER}/tax.py": "TAX = 1",
        ".venv/lib/site-packages/paropt_sample_library.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (1e9, 1e9))
    monkeypatch.syspath_prepend(tmp_path / ".venv/lib/site-packages")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("paropt_sample_")]:
        del sys.modules[name]


def load(name: str, attribute: str) -> object:
    return getattr(importlib.import_module(name), attribute)


def test_change_of_one_module_lets_all_be_imported_again(root: Path) -> None:
    modules = ProjectModules()
    modules.forget_changed(str(root))
    library = importlib.import_module("paropt_sample_library")
    assert (load(PACKAGE, "PRICE"), load(f"{FOLDER}.tax", "TAX")) == (1, 1)
    modules.forget_changed(str(root))
    (root / PACKAGE / "price.py").write_text("PRICE = 20")
    (root / FOLDER / "tax.py").write_text("TAX = 20")
    modules.forget_changed(str(root))
    assert (load(PACKAGE, "PRICE"), load(f"{FOLDER}.tax", "TAX")) == (20, 20)
    assert importlib.import_module("paropt_sample_library") is library


def test_modules_without_a_change_stay(root: Path) -> None:
    modules = ProjectModules()
    package = importlib.import_module(PACKAGE)
    for _ in range(3):
        modules.forget_changed(str(root))
        (root / "other.py").write_text("1")
        (root / ".venv/lib/site-packages/paropt_sample_library.py").write_text("1")
    assert sys.modules[PACKAGE] is package


def test_change_between_two_looks_counts_for_a_module_that_was_imported_in_between(root: Path) -> None:
    """Whether it was imported before or after the change is unknown."""
    modules = ProjectModules()
    package = importlib.import_module(PACKAGE)
    (root / PACKAGE / "price.py").write_text("PRICE = 20")
    modules.forget_changed(str(root))
    assert load(PACKAGE, "PRICE") == 20 and sys.modules[PACKAGE] is not package


def test_deleted_module_can_no_longer_be_imported(root: Path) -> None:
    modules = ProjectModules()
    importlib.import_module(f"{PACKAGE}.price")
    modules.forget_changed(str(root))
    (root / PACKAGE / "price.py").unlink()
    modules.forget_changed(str(root))
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(PACKAGE)


class ClaimsToBeModule:
    """As a library of cffi does, which has no attributes of a module."""

    __slots__ = ()
    __class__ = ModuleType  # type: ignore[assignment]


def test_objects_that_only_claim_to_be_modules_are_left_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run with calls failed once a library had put one into `sys.modules`."""
    monkeypatch.setitem(sys.modules, "paropt_sample_claims", ClaimsToBeModule())
    ProjectModules().forget_changed(str(root))
    assert "paropt_sample_claims" in sys.modules


def test_projects_with_equal_names_of_modules_run_their_own_code(tmp_path: Path) -> None:
    """A worker of a cluster keeps its processes: the second project ran the code of the first one."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "paropt_sample_checks.py").write_text(f"def show(): print({name!r})")
    (tmp_path / "a/paropt_sample_helper.py").write_text("def show(): pass")
    with ProcessPool(1) as pool:

        def call(name: str, target: str) -> CallOutcome:
            return pool.submit(run_call_in_process, str(tmp_path / name), target, ()).result(HANG_SECONDS)

        outputs = [call(name, "paropt_sample_checks:show").output for name in "aba"]
        call("a", "paropt_sample_helper:show")
        with pytest.raises(CallNotFound):
            call("b", "paropt_sample_helper:show")
    assert outputs == ["a\n", "b\n", "a\n"]


def test_namespace_package_without_its_parent_is_left_alone(root: Path) -> None:
    """Some code removes modules from `sys.modules`. The path of such a package is then an error, in any call."""
    (root / FOLDER / "inner").mkdir()
    importlib.import_module(f"{FOLDER}.inner")
    del sys.modules[FOLDER]
    ProjectModules().forget_changed(str(root))
    assert f"{FOLDER}.inner" in sys.modules
