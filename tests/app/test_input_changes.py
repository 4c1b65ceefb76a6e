"""Changed inputs are found by content, whatever else lies in the project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from paropt_exporter.app.input_changes import InputChanges
from paropt_exporter.config import read_config
from support import projects
from support.real_servers import HANG_SECONDS, MORTAL

_SCAN = """
import pathlib, sys
from paropt_exporter.app.input_changes import InputChanges
from paropt_exporter.config import read_config
config = read_config(pathlib.Path("paropt.yml"), root=pathlib.Path())
inputs = InputChanges(config, config.stages)
pathlib.Path("src/a.py").write_text("2")
print(sorted(inputs.scan()))
"""


def test_folder_that_this_user_may_not_read_hides_no_change_of_others(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: lint, run: "true", inputs: ["**/*.py"]')
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("1")
    (tmp_path / "closed").mkdir(0o000)
    ran = subprocess.run(
        [*MORTAL, sys.executable, "-c", _SCAN], cwd=tmp_path, capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert ran.stdout == "['src/a.py']\n", ran.stderr


def test_changed_item_in_a_folder_affects_its_stage(tmp_path: Path) -> None:
    projects.write(
        tmp_path,
        'name: each, run: "true {item}", items: {glob: "src/*.py"}, inputs: ["{item}"], outputs: ["{item}.log"]',
    )
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("1")
    config = read_config(tmp_path / "paropt.yml", root=tmp_path)
    inputs = InputChanges(config, config.stages)
    (tmp_path / "src/a.py.log").write_text("1")
    assert inputs.scan() == frozenset()
    (tmp_path / "src/a.py").write_text("2")
    assert inputs.find_affected(inputs.scan()) == {"each": "src/a.py"}


@pytest.mark.parametrize(
    "path",
    [
        "out/paropt_a.prom", "out/.paropt_a.prom.0a1b", "data/h[1].db", "data/h[1].db-wal", "data/h[1].db.lock",
        "data/h[1].db.logs/20261201T070115-8765c2.log", "data/h[1].db.runs/20261201T070115-8765c2.lock",
        "data/h[1].db.functions.json", "data/.h[1].db.functions.json.0a1b",
    ],
)  # fmt: skip
def test_files_that_the_exporter_writes_are_no_inputs(tmp_path: Path, path: str) -> None:
    projects.write(tmp_path, "name: all, run: 'true'", lanes="history: {path: 'data/h[1].db'}")
    config = read_config(tmp_path / "paropt.yml", root=tmp_path)
    (tmp_path / path).parent.mkdir(parents=True)
    inputs = InputChanges(config, config.stages, [tmp_path / "out/paropt_a.prom"])
    (tmp_path / path).write_text("1")
    assert (inputs.scan(), inputs.is_quiet(path)) == (frozenset(), True)
    (tmp_path / path.partition("/")[0] / "h[1].db.txt").write_text("1")
    assert len(inputs.scan()) == 1


@pytest.mark.parametrize("path", ["pyproject.toml", "web/justfile", "web/app/.python-version"])
def test_settings_and_recipes_that_inputs_need_not_name_affect_a_stage(tmp_path: Path, path: str) -> None:
    """As in the cache: with other rules of ruff, `--watch` went on to say that the stage had passed."""
    stages = 'name: lint, run: just lint --report=out.txt, cwd: ./web/app, inputs: ["*.js"]'
    projects.write(tmp_path, stages)
    (tmp_path / "web/app").mkdir(parents=True)
    config = read_config(tmp_path / "paropt.yml", root=tmp_path)
    inputs = InputChanges(config, config.stages)
    (tmp_path / "web/app/out.txt").write_text("1")  # a stage may write the other files that it names
    assert inputs.scan() == frozenset()
    (tmp_path / path).write_text("1")
    assert inputs.find_affected(inputs.scan()) == {"lint": path}


def test_stages_that_may_read_a_written_file_follow_its_writer(tmp_path: Path) -> None:
    """`--watch` went on to say that they had passed. `file` is an output, and outputs reach indirect needs."""
    projects.write(
        tmp_path,
        """
name: build, run: "true", inputs: [a.txt], file: build.log
name: smoke, run: "true", inputs: [b.txt], needs: [build]
name: publish, run: "true", inputs: [build.log], needs: [smoke]
""",
    )
    (tmp_path / "a.txt").write_text("1")
    config = read_config(tmp_path / "paropt.yml", root=tmp_path)
    build, _, publish = config.stages
    assert InputChanges(config, config.stages).find_affected(frozenset({"a.txt"})).keys() == {
        "build", "smoke", "publish",
    }  # fmt: skip
    assert InputChanges(config, [build, publish]).find_affected(frozenset({"a.txt"})).keys() == {"build", "publish"}
