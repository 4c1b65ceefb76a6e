"""`check` finds the modules of calls without importing them, since it must be safe in untrusted projects."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from paropt_exporter.cli.check import check_call

RUNS = "import pathlib; pathlib.Path(__file__).with_name('ran').touch()\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in (
        ("plain.py", RUNS),
        ("pkg/__init__.py", RUNS),
        ("pkg/inner.py", RUNS),
        ("pkg/deep/__init__.py", RUNS),
        ("pkg/deep/leaf.py", RUNS),
        ("space/nested/leaf.py", RUNS),
        ("moving/__init__.py", f"{RUNS}__path__.append('/elsewhere')\n"),
        ("json/__init__.py", RUNS),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    "target",
    [
        "plain:f",
        "pkg:f",
        "pkg.inner:f",
        "pkg.deep.leaf:f",
        "space.nested.leaf:f",
        "moving.anything:f",
        "os.path:join",
        "xml.dom.minidom:parse",
        "concurrent.futures:wait",
        "sys:exit",
    ],
)
def test_existing_module_is_found_and_not_run(root: Path, target: str) -> None:
    before = {*sys.modules}, [*sys.path]
    assert [*check_call(target, root)] == []
    assert ({*sys.modules}, sys.path) == before
    assert not [*root.rglob("ran")]


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ("gone:f", "gone"),
        ("plain.inner:f", "plain.inner"),
        ("pkg.gone:f", "pkg.gone"),
        ("pkg.deep.gone.leaf:f", "pkg.deep.gone"),
        ("space.gone:f", "space.gone"),
    ],
)
def test_first_missing_part_is_named(root: Path, target: str, missing: str) -> None:
    assert [*check_call(target, root)] == [
        f"there is no module {missing!r} for {target}: correct the name, or install it"
    ]
    assert not [*root.rglob("ran")]
