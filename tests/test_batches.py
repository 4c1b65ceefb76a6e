"""How the items of a stage become batches."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
from msgspec.structs import replace

from paropt_exporter import host, plan
from paropt_exporter.config.placeholders import ITEMS
from paropt_exporter.plan import Commands, KnownItems, PlannedStage, pytest_support, start_up
from paropt_exporter.plan.batches import ConcurrentStages, build_arguments, build_task, cut_batches, cut_stage
from support import configs, lanes


def _built(folder: Path, stage: str, *, workers: int = 2, known: KnownItems | None = None) -> plan.PlannedStage:
    read = configs.read(folder, stage)
    bounds = plan.Bounds(minimum=workers, maximum=workers, start=workers)
    known_items = {"one": known} if known is not None else {}
    shares = {"one": 1e-3}  # it waits, so that this machine's cores are no bound
    return plan.build_plan(
        read,
        "standard",
        plan.PlanOptions(workers=bounds),
        earlier=plan.EarlierRuns(items=known_items, cpu_demands=shares),
    ).stages[0]


def _steps(stage: plan.PlannedStage) -> list[tuple[tuple[str, ...], ...]]:
    return [task.work.steps for task in stage.tasks if isinstance(task.work, Commands)]


def _cut(known: dict[str, float], *, start_up: float = 0.1, workers: int = 2) -> list[tuple[str, ...]]:
    return cut_batches(
        [*known], KnownItems(seconds=known, start_up_seconds=start_up), workers=workers, beside=ConcurrentStages()
    )


def test_items_become_arguments_of_their_own(tmp_path: Path) -> None:
    stage = _built(tmp_path, configs.stage(run="'x {items} -- y'", items="{list: ['a b', \"it's\"]}"), workers=1)
    assert _steps(stage) == [(("x", "a b", "it's", "--", "y"),)]
    assert [(task.item, task.items) for task in stage.tasks] == [("a b +1", ("a b", "it's"))]


def test_items_are_quoted_for_a_shell(tmp_path: Path) -> None:
    stage = _built(
        tmp_path, configs.stage(run="'printf %s, {items}'", shell="true", items="{list: ['a b', '$(id)']}"), workers=1
    )
    (words,) = _steps(stage)[0]
    assert subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout == "a b,$(id),"


def test_unknown_items_go_out_in_two_rounds_the_second_smaller() -> None:
    items = [f"t{number}" for number in range(24)]
    batches = cut_batches(items, KnownItems(), workers=2, beside=ConcurrentStages())
    assert [len(batch) for batch in batches] == [9, 9, 3, 3]
    assert sorted(chain(*batches)) == sorted(items)


def test_known_items_are_packed_to_end_together() -> None:
    assert _cut({"a": 1.0, "b": 3.0, "c": 2.0, "d": 2.0}) == [("a", "b"), ("c", "d")]


def test_starts_that_outweigh_the_gain_leave_one_batch() -> None:
    brief = {"a": 0.1, "b": 0.1}
    assert _cut(brief, start_up=0.5) == [("a", "b")]
    assert _cut(brief, start_up=0.01) == [("a",), ("b",)]


def test_unknown_item_counts_as_the_mean_of_the_known() -> None:
    known = KnownItems(seconds={"a": 4.0, "b": 2.0, "c": 0.0}, start_up_seconds=0.1)
    assert cut_batches(["a", "b", "c", "new"], known, workers=2, beside=ConcurrentStages()) == [
        ("a", "c"),
        ("b", "new"),
    ]


def test_one_worker_gets_one_batch() -> None:
    assert _cut({"a": 9.0, "b": 9.0}, workers=1) == [("a", "b")]


def test_stage_without_batches_or_items_is_unchanged(tmp_path: Path) -> None:
    plain = lanes.stage("plain", tasks=2)
    batched = _built(tmp_path, configs.stage(run="'x {items}'", items="{list: [a]}"))
    for stage in (plain, replace(batched, tasks=())):
        assert cut_stage(stage, (stage,), KnownItems(), cores=2, demand=1.0, most_workers=2) is stage


def test_longer_stage_beside_it_leaves_one_worker_for_one_batch() -> None:
    known = KnownItems(seconds={"a": 2.0, "b": 2.0}, start_up_seconds=0.5)
    assert cut_batches(["a", "b"], known, workers=2, beside=ConcurrentStages(before=(9.0,))) == [("a", "b")]


@pytest.mark.parametrize(("demand", "most_workers", "batches"), [(0.0, 32, 2), (1.0, 32, 1), (0.0, 2, 1)])
def test_stage_that_waits_leaves_all_cores_for_batches(demand: float, most_workers: int, batches: int) -> None:
    """It takes a worker only if their number, and not the cores, bounds how many tasks run at once."""
    template = Commands(steps=(("test", ITEMS),))
    tests = PlannedStage(number=2, name="tests", template=template, tasks=(build_task(template, 0, ["a", "b"]),))
    network = PlannedStage(number=1, name="network", tasks=(), expected_seconds=9.0, expected_cpu_demand=demand)
    known = KnownItems(seconds={"a": 2.0, "b": 2.0}, start_up_seconds=0.5)
    cut = cut_stage(tests, (network, tests), known, cores=2, demand=1.0, most_workers=most_workers)
    assert len(cut.tasks) == batches


@pytest.mark.parametrize("seed", range(20))
def test_each_item_is_in_one_batch_and_keeps_its_order(seed: int) -> None:
    rng = random.Random(seed)
    items = [f"t{number:04}" for number in range(rng.randint(1, 2000))]
    seconds = {item: rng.expovariate(1.0) for item in items if rng.random() < 0.7}
    batches = cut_batches(items, KnownItems(seconds=seconds), workers=rng.randint(1, 64), beside=ConcurrentStages())
    assert sorted(chain(*batches)) == items
    assert all([*batch] == sorted(batch) for batch in batches)


def test_no_command_is_longer_than_the_system_takes(tmp_path: Path) -> None:
    item = "x" * 1000
    count = os.sysconf("SC_ARG_MAX") // 1000 + 10
    (tmp_path / "items").write_text("".join(f"{item}{number:06}\n" for number in range(count)))
    stage = _built(tmp_path, configs.stage(run="'true {items}'", items="{command: cat items}"), workers=1)
    assert len(stage.tasks) > 1
    assert sum(len(task.items) for task in stage.tasks) == count
    for steps in _steps(stage):
        subprocess.run(steps[0], timeout=60, check=True)


def test_shells_line_is_no_longer_than_one_argument_may_be(tmp_path: Path) -> None:
    (tmp_path / "items").write_text("".join(f"item-{number:06}\n" for number in range(20_000)))
    stage = _built(tmp_path, configs.stage(run="'true {items}'", shell="true", items="{command: cat items}"), workers=1)
    assert sum(len(task.items) for task in stage.tasks) == 20_000
    for steps in _steps(stage):
        subprocess.run(steps[0], timeout=60, check=True)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"run": "'x --file={items}'"}, "becomes several words, so it must be a word of its own"),
        ({"run": "'{items} x'"}, "is in the program's place"),
        ({"run": "'x {item} {items}'"}, "a stage can't use both {item} and {items}"),
    ],
)
def test_items_that_can_not_become_arguments_are_faults(tmp_path: Path, keys: dict[str, str], message: str) -> None:
    (fault,) = configs.faults(tmp_path, configs.stage(items="{list: [a]}", **keys))
    assert message in fault


def test_items_without_the_key_are_a_fault(tmp_path: Path) -> None:
    (fault,) = configs.faults(tmp_path, configs.stage(run="'x {items}'"))
    assert "the stage has no items for {items}" in fault


@pytest.mark.parametrize(
    ("run", "asks"),
    [
        ("pytest -q {items}", True), (".venv/bin/pytest {items}", True), ("python -m pytest {items}", True),
        ("pytest -x {items}", False), ("pytest --maxfail=3 {items}", False), ("pytest --junitxml=a {items}", False),
        ("ruff check {items}", False), ("my-pytest-like {items}", False), ("pytest -qx {items}", False),
        ("sudo -Eu ci pytest {items}", False), ("docker run -e PYTEST_ADDOPTS x pytest {items}", False),
        ("setpriv --reuid=1 pytest {items}", False), ("timeout 9 su-do/pytest {items}", True),
        ("pytest -k x {items}", True), ("pytest -vkx {items}", True), ("pytest --session-timeout=9 {items}", False),
    ],
)  # fmt: skip
def test_only_visible_pytest_gets_a_request_for_a_report(tmp_path: Path, run: str, asks: bool) -> None:
    assert _built(tmp_path, configs.stage(run=f"'{run}'", items="{list: [a]}")).junit is asks


@pytest.mark.parametrize(
    ("line", "asks"),
    [
        ("cd a && pytest -q {items} > log 2>&1", True), ("pytest {items}; lint {items}", False),
        ("pytest {items} && lint {items}", False), ("pytest {items} | tee log", False),
        ("echo $(pytest {items})", False), ("for i in {items}; do pytest $i; done", False),
        ("pytest {items}\nlint", False), ("pytest {items} & wait", False), ("lint {items}; pytest a", False),
    ],
)  # fmt: skip
def test_shell_line_gets_a_request_for_a_report_only_if_pytest_ends_it(tmp_path: Path, line: str, asks: bool) -> None:
    stage = configs.stage(run=json.dumps(line), items="{list: [a]}", shell="true")
    assert _built(tmp_path, stage).junit is asks


@pytest.mark.parametrize(("steps", "asks"), [(["lint", "pytest {items}"], True), (["pytest {items}", "lint"], False)])
def test_steps_after_pytest_prevent_a_report(tmp_path: Path, steps: list[str], asks: bool) -> None:
    assert _built(tmp_path, configs.stage(run="", steps=json.dumps(steps), items="{list: [a]}")).junit is asks


@pytest.mark.parametrize("name", ["pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"])
def test_pipe_in_place_of_pytests_configuration_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert not _built(tmp_path, configs.stage(run="'pytest {items}'", items="{list: [a]}")).junit


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("[tool.pytest.ini_options]\nx = " + "[" * 50_000, True), ("pytest." * 30_000 + "b = 1", True),
        ("'='." + "pytest." * 30_000 + "b = 1", True),
        (("'\u2028'." + "pytest." * 99) * 300 + "b = 1", True),
        ("a" * 250_000 + "\npytest", True),
        ("#" * (1 << 18) + "\n", False),
    ],
    ids=["deep", "long key", "long quoted key", "separators", "long word", "long"],
)  # fmt: skip
def test_hostile_pyproject_costs_no_time(tmp_path: Path, text: str, asks: bool) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    began = time.process_time()
    assert _built(tmp_path, configs.stage(run="'pytest {items}'", items="{list: [a]}")).junit is asks
    assert time.process_time() - began < 5


def test_hostile_ini_file_costs_no_time(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\na" + " " * 250_000 + "b\naddopts = -x\n")
    began = time.process_time()
    assert not _built(tmp_path, configs.stage(run="'pytest {items}'", items="{list: [a]}")).junit
    assert time.process_time() - began < 5


def test_exporter_in_a_test_asks_for_reports_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = pytest_support.request_report(
        {"PYTEST_ADDOPTS": "-ra"}, tmp_path / f"{pytest_support.FOLDER_PREFIX}abc" / "1.xml"
    )
    monkeypatch.setenv("PYTEST_ADDOPTS", outer["PYTEST_ADDOPTS"])
    assert _built(tmp_path, configs.stage(run="'pytest {items}'", items="{list: [a]}")).junit
    assert pytest_support.request_report(outer, Path("/b.xml")) == {"PYTEST_ADDOPTS": "-ra --junitxml=/b.xml"}


def test_report_that_the_project_writes_itself_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --junitxml=ours.xml\n")
    assert not _built(tmp_path, configs.stage(run="'pytest {items}'", items="{list: [a]}")).junit


_LONG = {"a.py": 1.0, "a.py::test_x": 6.0, "a.py::T::test_y": 5.0, "b.py": 1.0}
_PARTS = {"a.py": ["a.py::test_x", "a.py::T::test_y"]}


def test_file_that_takes_most_of_the_time_is_cut_at_its_long_tests() -> None:
    known = KnownItems(seconds=_LONG, start_up_seconds=0.5)
    batches = cut_batches(["a.py", "b.py"], known, workers=2, beside=ConcurrentStages(), parts=_PARTS)
    assert batches == [("a.py::test_x", "b.py"), ("a.py", "a.py::T::test_y")]


def test_file_is_left_whole_where_cutting_it_gains_little() -> None:
    known = KnownItems(seconds={**_LONG, "b.py": 12.0}, start_up_seconds=0.5)
    assert cut_batches(["a.py", "b.py"], known, workers=2, beside=ConcurrentStages(), parts=_PARTS) == [
        ("a.py",),
        ("b.py",),
    ]


def test_rest_of_a_cut_file_deselects_the_parts_in_other_batches() -> None:
    apart = ["a.py::test_x", "a.py::T::test_y"]
    assert build_arguments(["a.py", "a.py::T::test_y", "b.py"], apart) == ("a.py", "b.py", "--deselect", "a.py::test_x")
    assert build_arguments(["a.py::test_x"], apart) == ("a.py::test_x",)
    assert build_arguments(["b.py"], apart) == ("b.py",)


def test_each_test_of_a_cut_file_runs_once(tmp_path: Path) -> None:
    bodies = "\n".join(f"def test_{name}():\n    open('ran', 'a').write('{name}\\n')\n" for name in ("x", "z", "y"))
    (tmp_path / "test_a.py").write_text(bodies)
    known = KnownItems(
        seconds={"test_a.py": 1.0, "test_a.py::test_x": 6.0, "test_a.py::test_y": 5.0},
        start_up_seconds=0.1,
        seen_timestamp_seconds={"test_a.py::test_x": 4e9, "test_a.py::test_y": 4e9},
    )
    command = f"'{sys.executable} -m pytest -q -p no:cacheprovider {{items}}'"
    stage = _built(tmp_path, configs.stage(run=command, items="{glob: test_*.py}"), known=known)
    assert [set(task.items) for task in stage.tasks] == [{"test_a.py::test_x"}, {"test_a.py", "test_a.py::test_y"}]
    for steps in _steps(stage):
        subprocess.run(steps[0], cwd=tmp_path, timeout=60, check=True, stdout=subprocess.DEVNULL)
    assert sorted((tmp_path / "ran").read_text().split()) == ["x", "y", "z"]


@pytest.mark.parametrize(
    "source",
    [
        "def test_x(): pass\nif True:\n    def test_x_too(): pass\n",
        "def test_x(): pass\nfrom other import test_x_too\n",
        "def test_x(): pass\nfrom other import *\n",
        "def test_x(): pass\nglobals()['test' + '_x_too'] = test_x\n",
        "from other import test_x\n",
        "def test_x(:\n",
        "from other import Base\nclass T(Base):\n    def test_x(self): pass\n",
        "from other import add\n@add\nclass T:\n    def test_x(self): pass\n",
    ],
    ids=["condition", "import", "star", "globals", "imported", "syntax", "base class", "decorator"],
)
def test_file_whose_other_tests_may_begin_like_a_long_one_is_not_cut(tmp_path: Path, source: str) -> None:
    """pytest's --deselect takes each id that begins like the one that is named: the other would never run."""
    (tmp_path / "test_a.py").write_text(source)
    name = "T::test_x" if "class T" in source else "test_x"
    known = KnownItems(
        seconds={"test_a.py": 6.0, f"test_a.py::{name}": 6.0},
        start_up_seconds=0.1,
        seen_timestamp_seconds={f"test_a.py::{name}": 4e9},
    )
    stage = _built(tmp_path, configs.stage(run="'pytest {items}'", items="{glob: test_*.py}"), known=known)
    assert [task.items for task in stage.tasks] == [("test_a.py",)]


def test_long_test_that_stays_counts_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_x(): pass\ndef test_x_too(): pass\n")
    known = KnownItems(
        seconds={"test_a.py": 0.1, "test_a.py::test_x": 6.0, "test_b.py": 3.0, "test_c.py": 3.0}, start_up_seconds=0.1
    )
    items = "{list: [test_a.py, test_b.py, test_c.py]}"
    stage = _built(tmp_path, configs.stage(run="'pytest {items}'", items=items), known=known)
    assert [task.items for task in stage.tasks] == [("test_a.py",), ("test_b.py", "test_c.py")]


def test_methods_of_plain_classes_are_cut_off(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("import unittest\nclass T(unittest.TestCase):\n    def test_x(self): pass\n")
    known = KnownItems(
        seconds={"test_a.py": 6.0, "test_a.py::T::test_x": 6.0},
        start_up_seconds=0.1,
        seen_timestamp_seconds={"test_a.py::T::test_x": 4e9},
    )
    stage = _built(tmp_path, configs.stage(run="'pytest {items}'", items="{glob: test_*.py}"), known=known)
    assert len(stage.tasks) == 2


def test_tests_may_use_functions_that_could_define_tests_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(
        "def test_x():\n    setattr(test_x, 'a', 1)\n    exec('class T(metaclass=M): 1')\n"
    )
    assert pytest_support.find_separable_tests(tmp_path / "test_a.py", ["test_a.py::test_x"]) == ["test_a.py::test_x"]


def test_file_of_tests_that_need_each_other_is_not_cut(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("import pytest\n@pytest.mark.dependency()\ndef test_x(): pass\n")
    assert pytest_support.find_separable_tests(tmp_path / "test_a.py", ["test_a.py::test_x"]) == []


@pytest.mark.parametrize(
    ("changes", "cut"),
    [
        ("STATE['user'] = 1", False),
        ("STATE.users.append(1)", False),
        ("del STATE.user", False),
        ("T.user = 1", False),
        ("type(self).user = 1", False),
        ("self.__class__.users += 1", False),
        ("global STATE; STATE = 1", False),
        ("self.user = STATE['user'] = 1", False),
        ("self.user = STATE['user']", True),
        ("STATE = {}; STATE['user'] = 1", True),
        ("os.environ['USER'] = STATE", True),
    ],
)
def test_file_is_not_cut_if_a_test_changes_a_variable_for_others(tmp_path: Path, changes: str, cut: bool) -> None:
    """A later test that read the variable passed until the file was cut in the second run."""
    (tmp_path / "test_a.py").write_text(
        f"import os\nSTATE = {{}}\nclass T:\n    def test_y(self):\n        {changes}\ndef test_x(): pass\n"
    )
    found = pytest_support.find_separable_tests(tmp_path / "test_a.py", ["test_a.py::test_x"])
    assert found == (["test_a.py::test_x"] if cut else [])


@pytest.mark.parametrize("line", ["exec('def test_x_too(): pass')", "class T(metaclass=M): pass"])
def test_file_with_other_code_that_may_define_tests_stays_whole(tmp_path: Path, line: str) -> None:
    (tmp_path / "test_a.py").write_text(f"def test_x(): pass\n{line}\n")
    assert pytest_support.find_separable_tests(tmp_path / "test_a.py", ["test_a.py::test_x"]) == []


def test_file_that_has_changed_since_is_not_cut(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").touch()
    seconds = {"test_a.py": 1.0, "test_a.py::test_x": 6.0}
    known = KnownItems(seconds=seconds, start_up_seconds=0.1, seen_timestamp_seconds={"test_a.py::test_x": 1.0})
    stage = _built(tmp_path, configs.stage(run="'pytest {items}'", items="{glob: test_*.py}"), known=known)
    assert [task.items for task in stage.tasks] == [("test_a.py",)]


@pytest.mark.parametrize(
    ("fastest", "mean", "tasks", "told"),
    [
        (0.45, 0.5, 40, 0.9), (0.45, 0.9, 40, 0.5), (0.2, 0.9, 40, 0.0), (0.45, 0.5, 3, 0.0), (6.0, 7.0, 40, 0.0),
        (0.01, 0.01, 40, 0.0), (0.0, 0.0, 40, 0.0),
    ],
    ids=["near-constant", "half", "uneven", "few", "long", "brief", "nothing"],
)  # fmt: skip
def test_start_up_dominates_if_tasks_take_hardly_more_than_the_fastest(
    fastest: float, mean: float, tasks: int, told: float
) -> None:
    assert start_up.estimate_start_up_ratio(fastest_seconds=fastest, mean_seconds=mean, tasks=tasks) == pytest.approx(
        told
    )


def test_options_of_other_tools_in_the_same_file_prevent_no_report(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.tox]\ncommands = ['pytest -x --junitxml=a']\n")
    assert _built(tmp_path, configs.stage(run="'pytest {items}'", items="{list: [a]}")).junit


@pytest.mark.parametrize(
    ("cores", "demand", "batches"),
    [(2.0, 0.5, 4), (2.0, 0.97, 2), (2.0, 1.0, 2), (2.0, 1.4, 2), (2.0, 2.0, 1), (2.0, 4.0, 1), (1.5, 1.0, 2)],
)
def test_there_are_as_many_batches_as_the_cores_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: float, demand: float, batches: int
) -> None:
    monkeypatch.setattr(host, "count_cpus", lambda *_: cores)
    read = configs.read(tmp_path, configs.stage(run="'x {items}'", items="{list: [a, b, c, d, e, f, g, h]}"))
    known = KnownItems(seconds=dict.fromkeys("abcdefgh", 4.0), start_up_seconds=0.1)
    built = plan.build_plan(
        read, "standard", earlier=plan.EarlierRuns(items={"one": known}, cpu_demands={"one": demand})
    )
    assert len(built.stages[0].tasks) == batches


@pytest.mark.parametrize(
    ("failed", "runs"),
    [
        ({"b.py"}, ("b.py",)), ({"b.py::test_x"}, ("b.py",)), ({"b.py", "gone.py"}, ("a.py", "b.py", "c.py")),
        ({"gone.py::test_x"}, ("a.py", "b.py", "c.py")), (set(), ("a.py", "b.py", "c.py")),
        ({"caf\\udce9.py"}, ("a.py", "b.py", "c.py")),
    ],
)  # fmt: skip
def test_failed_item_that_is_gone_has_all_items_run_again(
    tmp_path: Path, failed: set[str], runs: tuple[str, ...]
) -> None:
    """It may have been renamed: without it, `--failed` would end with 0 though its tests fail as before."""
    config = configs.read(tmp_path, configs.stage(run="'pytest {items}'", items="{list: [a.py, b.py, c.py]}"))
    one = plan.Bounds(minimum=1, maximum=1, start=1)
    planned = plan.build_plan(
        config, "standard", plan.PlanOptions(workers=one, retry=plan.Retry(stages=["one"], items={"one": failed}))
    )
    assert [task.items for task in planned.stages[0].tasks] == [runs]


def test_tests_with_deeply_nested_decorators_are_not_cut(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(f"@a{'.b' * 900}\ndef test_x(): pass\n")
    tests = ["test_a.py::test_x"]
    assert pytest_support.find_separable_tests(tmp_path / "test_a.py", tests, certain=True) == []
