"""A metric is renamed in one line of `families.py`; `make generate` changes the name everywhere else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from paropt_exporter import families
from paropt_exporter.cli import generate
from paropt_exporter.monitoring.options import Options
from support.real_servers import RARE_COLLECTION, program
from support.yaml_documents import load_yaml

ROOT = Path(__file__).parents[2]
OLD, NEW = families.SLA_BREACHED.name, "paropt_sla_broken_by_now"
COPIED = ("exporter", "tests/alert_stories", "alerts", "dashboards", "deploy", "docs")
WRITTEN_BY_HAND = ("README.md", "CHANGELOG.md", "ARCHITECTURE.md", "docs/*.md", "deploy/**/*.y*ml", "deploy/**/*.md")


@pytest.fixture(scope="module")
def renamed_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with one changed line of `families.py`, and all files generated again."""
    copy = tmp_path_factory.mktemp("renamed")
    for name in COPIED:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__", ".*"))
    written = copy / "exporter/paropt_exporter/families.py"
    lines = written.read_text().splitlines(keepends=True)
    changed = [line.replace(f'"{OLD}"', f'"{NEW}"') for line in lines]
    assert sum(before != after for before, after in zip(lines, changed, strict=True)) == 1
    written.write_text("".join(changed))
    environment = {**os.environ, "PYTHONPATH": f"{copy / 'exporter'}:{copy / 'tests'}"}
    for module, *arguments in (("paropt_exporter", "generate", "--out", "."), ("alert_stories", ".")):
        subprocess.run([sys.executable, "-m", module, *arguments], cwd=copy, env=environment, check=True, timeout=100)
    return copy


def test_no_generated_file_has_the_old_name(renamed_repository: Path) -> None:
    before, after = _find_files_with(ROOT, OLD), _find_files_with(renamed_repository, NEW)
    assert _find_files_with(renamed_repository, OLD) == set()
    assert before == after
    assert {name.split("/")[0] for name in after} >= {"alerts", "dashboards", "docs"}


def test_the_rules_still_hold(renamed_repository: Path) -> None:
    checked = subprocess.run(
        [
            program("promtool"),
            "check",
            "rules",
            "--lint=all",
            "--lint-fatal",
            *map(str, (renamed_repository / "alerts").glob("*.yml")),
        ],
        env=RARE_COLLECTION,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    stories = load_yaml((renamed_repository / "alerts/tests/sla-1m.yml").read_text())
    stories["tests"] = [story for story in stories["tests"] if NEW in str(story["input_series"])]
    assert stories["tests"]
    written = renamed_repository / "alerts/played/sla.yml"  # as far from the rules as the others
    written.parent.mkdir()
    written.write_text(json.dumps(stories))  # JSON is YAML
    played = subprocess.run(
        [program("promtool"), "test", "rules", str(written)],
        env=RARE_COLLECTION,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert played.returncode == 0, played.stdout


def test_hand_written_files_name_only_exported_metrics() -> None:
    generated = {ROOT / path for path in _list_generated_files()}
    exported = {family.name for family in families.FAMILIES} | {"paropt_exporter"}
    for page in {page for pattern in WRITTEN_BY_HAND for page in ROOT.glob(pattern)} - generated:
        named = re.findall(r"(?<![\w:])paropt_[a-z_]+[a-z]\b(?![.*/_])", page.read_text())
        assert {re.sub("_(bucket|sum|count)$", "", name) for name in named} <= exported, page


@cache
def _list_generated_files() -> tuple[str, ...]:
    return tuple(generate.render_files((), Options()))


def _find_files_with(root: Path, name: str) -> set[str]:
    """Return the generated files that contain a name."""
    paths = [
        *_list_generated_files(),
        *(str(path.relative_to(root)) for path in root.glob("alerts/tests/*")),
    ]
    return {path for path in paths if re.search(rf"\b{name}\b", (root / path).read_text())}
