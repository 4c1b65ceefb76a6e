"""Plans built from configs."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import FrameType

import pytest

from paropt_exporter import host, plan
from paropt_exporter.config.values import Items
from paropt_exporter.errors import UsageError
from paropt_exporter.events import Scope, SlaLimit, Strategy
from paropt_exporter.executors.base import RemoteTaskOptions
from paropt_exporter.plan import Bounds, Call, Commands, KnownItems
from paropt_exporter.plan.items import ItemsError, find_items
from support import configs
from support.processes import run_python
from support.real_servers import HANG_SECONDS, MORTAL


def _only_stage(folder: Path, strategy: Strategy | None = None, **keys: str) -> plan.PlannedStage:
    return plan.build_plan(
        configs.read(folder, configs.stage(**keys)), "standard", plan.PlanOptions(strategy=strategy)
    ).stages[0]


def _steps(stage: plan.PlannedStage) -> list[tuple[tuple[str, ...], ...]]:
    return [task.work.steps for task in stage.tasks if isinstance(task.work, Commands)]


def _chain(**needs: str) -> str:
    lines = [
        f"- {{number: {n}, name: {name}, run: x, needs: [{need}]}}" for n, (name, need) in enumerate(needs.items(), 1)
    ]
    return "stages:\n" + "\n".join(lines) + "\n"


def test_line_is_split_as_a_shell_splits_words(tmp_path: Path) -> None:
    assert _steps(_only_stage(tmp_path, run="\"echo 'a b' '$HOME' *\"")) == [(("echo", "a b", "$HOME", "*"),)]


def test_shell_true_gives_the_line_to_a_shell(tmp_path: Path) -> None:
    assert _steps(_only_stage(tmp_path, run="'a | b'", shell="true")) == [(("/bin/sh", "-ec", "a | b"),)]


def test_steps_are_commands_of_one_task(tmp_path: Path) -> None:
    assert _steps(_only_stage(tmp_path, run="", steps="[a b, [c, 1.0]]")) == [(("a", "b"), ("c", "1.0"))]


def test_item_stays_one_word(tmp_path: Path) -> None:
    stage = _only_stage(tmp_path, run="'x {item} --a={item} {other}'", items="{list: ['a b; c', \"it's\"]}")
    assert _steps(stage) == [
        (("x", "a b; c", "--a=a b; c", "{other}"),),
        (("x", "it's", "--a=it's", "{other}"),),
    ]
    assert [(task.index, task.item) for task in stage.tasks] == [(0, "a b; c"), (1, "it's")]


def test_item_is_quoted_for_a_shell(tmp_path: Path) -> None:
    item = "a; echo 'gone' $(id)"
    stage = _only_stage(tmp_path, run="'printf %s {item}'", shell="true", items=f'{{list: ["{item}"]}}')
    (words,) = _steps(stage)[0]
    assert subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout == item


def test_item_is_the_argument_of_a_call(tmp_path: Path) -> None:
    stage = _only_stage(tmp_path, run="", call="a.b:c.d", items="{list: [x]}")
    assert [task.work for task in stage.tasks] == [Call(target="a.b:c.d", arguments=("x",))]


def test_glob_gives_files_below_the_configs_folder_in_order(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "sub/c.py", "-rf.py", ".hidden.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    stage = _only_stage(tmp_path, run="'x {item}'", items="{glob: '**/*.py'}")
    assert [task.item for task in stage.tasks] == ["./-rf.py", "a.py", "b.py", "sub/c.py"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/*.js", ("a.js",)),
        ("*/b/*.js", ()),
        ("node_modules/**/*.js", ("node_modules/b/b.js",)),
        ("node_modules/b/*.js", ("node_modules/b/b.js",)),
        ("**/*.py", ()),
        ("venv/lib/site-packages/*.py", ("venv/lib/site-packages/c.py",)),
    ],
)
def test_glob_enters_installed_packages_only_if_it_names_them(
    tmp_path: Path, pattern: str, expected: tuple[str, ...]
) -> None:
    for name in ("a.js", "node_modules/b/b.js", "venv/lib/site-packages/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_items(Items(glob=pattern), cwd=tmp_path, env={}) == expected


def test_glob_starts_in_the_stages_folder(tmp_path: Path) -> None:
    (tmp_path / "sub/tests").mkdir(parents=True)
    (tmp_path / "sub/tests/test_a.py").touch()
    stage = _only_stage(tmp_path, run="'x {item}'", items="{glob: 'tests/*.py'}", cwd="sub")
    assert [task.item for task in stage.tasks] == ["tests/test_a.py"]


def test_commands_find_the_programs_of_the_projects_virtual_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    stage = _only_stage(tmp_path, run="'x {item}'", items="{command: [sh, -c, 'echo $PATH']}")
    assert [task.item for task in stage.tasks] == [f"{tmp_path}/.venv/bin:/usr/bin:/bin"]
    assert stage.env["PATH"] == f"{tmp_path}/.venv/bin:/usr/bin:/bin"


def test_virtual_environment_of_the_stages_folder_comes_before_the_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for folder in (".venv/bin", "a/.venv/bin", "b"):
        (tmp_path / folder).mkdir(parents=True)
    assert _only_stage(tmp_path, run="x", cwd="a").env["PATH"] == f"{tmp_path}/a/.venv/bin:/usr/bin:/bin"
    assert _only_stage(tmp_path, run="x", cwd="b").env["PATH"] == f"{tmp_path}/.venv/bin:/usr/bin:/bin"


def test_path_in_a_stages_env_is_used_as_written(tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    assert _only_stage(tmp_path, run="x", env="{PATH: /mine}").env["PATH"] == "/mine"


def test_each_line_that_a_command_prints_is_an_item(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    command = "[sh, -c, 'echo \"$A\"; echo; pwd']"
    stage = _only_stage(tmp_path, run="'x {item}'", items=f"{{command: {command}}}", env="{A: one}", cwd="sub")
    assert [task.item for task in stage.tasks] == ["one", str(tmp_path / "sub")]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("[sh, -c, 'echo a; echo why >&2; exit 3']", "failed (exit 3): why"),
        ("no-such-program", "can't be run: No such file or directory"),
    ],
)
def test_item_command_that_fails_is_a_fault_of_its_stage_alone(tmp_path: Path, command: str, message: str) -> None:
    content = configs.stage(run="'x {item}'", items=f"{{command: {command}}}") + "- {number: 2, name: two, run: x}\n"
    stages = {stage.name: stage for stage in plan.build_plan(configs.read(tmp_path, content), "standard").stages}
    assert stages["one"].tasks == ()
    assert stages["one"].fault.startswith(f"{tmp_path}/paropt.yml:2:3: stages[0]: items: the command `")
    assert message in stages["one"].fault
    assert (stages["two"].fault, len(stages["two"].tasks)) == ("", 1)


NO_ITEMS = {
    "{list: [], allow_empty: true}": "the list is empty",
    "{glob: '*.none'}": "nothing matches *.none",
    "{glob: '**/*.none'}": "nothing matches **/*.none",
    "{command: 'true'}": "the command printed none",
}


@pytest.mark.parametrize("items", NO_ITEMS)
def test_stage_that_may_have_no_items_is_skipped_and_says_why(tmp_path: Path, items: str) -> None:
    allowed = items.replace("}", ", allow_empty: true}") if "allow_empty" not in items else items
    built = plan.build_plan(configs.read(tmp_path, configs.stage(run="'x {item}'", items=allowed)), "standard")
    assert built.stages[0].skip == f"no items: {NO_ITEMS[items]}"
    assert built.notes == ()


@pytest.mark.parametrize("items", [items for items in NO_ITEMS if "list" not in items])
def test_stage_without_items_fails_and_says_why(tmp_path: Path, items: str) -> None:
    built = plan.build_plan(configs.read(tmp_path, configs.stage(run="'x {item}'", items=items)), "standard")
    assert (built.stages[0].skip, built.stages[0].tasks) == ("", ())
    remedy = f"correct the {'glob' if 'glob' in items else 'command'}, or write allow_empty: true"
    assert f"stages[0]: items: {NO_ITEMS[items]}: {remedy}" in built.stages[0].fault


def _endless_tree(folder: Path) -> Path:
    """A folder with 3 ** 40 paths, as a glob walks it."""
    for name in "abc":
        (folder / name).symlink_to(".")
    return folder


_FIND = """
import pathlib, sys
from paropt_exporter.config.values import Items
from paropt_exporter.plan.items import ItemsError, find_items
try:
    print(*find_items(Items(glob=sys.argv[1]), cwd=pathlib.Path.cwd(), env={}))
except ItemsError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*/test_*.py", "items: the glob */test_*.py failed (exit 1): this user may not read closed"),
        ("**/*.py", "items: the glob **/*.py failed (exit 1): this user may not read closed"),
        ("closed/*.py", "items: the glob closed/*.py failed: this user may not read {folder}/closed"),
        ("open/**/*.py", "open/test_a.py"),
        ("[op]*/*.py", "open/test_a.py"),
    ],
)
def test_folder_that_this_user_may_not_read_hides_no_items(tmp_path: Path, pattern: str, found: str) -> None:
    """A lane was green without the tests in it."""
    (tmp_path / "closed").mkdir(0o000)
    (tmp_path / "open/node_modules").mkdir(parents=True)
    (tmp_path / "open/node_modules/closed").mkdir(0o000)
    (tmp_path / "open/test_a.py").touch()
    words = [*MORTAL, sys.executable, "-c", _FIND, pattern]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert ran.stdout == found.format(folder=tmp_path) + "\n", ran.stderr


def test_glob_that_matches_more_than_the_bound_is_a_fault(tmp_path: Path) -> None:
    for number in range(300):  # with links alone, the kernel follows forty for each match
        (tmp_path / str(number)).touch()
    with pytest.raises(ItemsError, match="more than 100,000, the most that one stage may have"):
        find_items(Items(glob="**/*"), cwd=_endless_tree(tmp_path), env={})


@pytest.mark.parametrize("pattern", ["**/*.none", "*/" * 30 + "none"])
def test_glob_that_walks_for_too_long_is_a_fault(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ItemsError, match=f"the glob {re.escape(pattern)} did not end within 0.5 s"):
        find_items(Items(glob=pattern), cwd=_endless_tree(tmp_path), env={}, limit_seconds=0.5)


@pytest.mark.parametrize(
    ("strategy", "pool"),
    [
        (Strategy.THREAD, "threads"), (Strategy.SEQUENTIAL, "threads"), (Strategy.HYBRID, "threads"),
        (Strategy.ADAPTIVE, "threads"), (Strategy.PROCESS, "processes"),
    ],
)  # fmt: skip
def test_call_goes_to_threads_unless_the_lane_runs_processes(tmp_path: Path, strategy: Strategy, pool: str) -> None:
    assert _only_stage(tmp_path, strategy, run="", call="a:b").pool == pool
    assert _only_stage(tmp_path, strategy).pool == "commands"


def test_longest_remaining_path_comes_first_and_ties_go_by_number(tmp_path: Path) -> None:
    read = configs.read(tmp_path, _chain(a="", b="", c="a", d="c"))
    built = plan.build_plan(
        read, "standard", earlier=plan.EarlierRuns(seconds={"a": 1.0, "b": 4.0, "c": 1.0, "d": 1.0})
    )
    assert [(stage.name, stage.remaining_seconds) for stage in built.stages] == [("b", 4), ("a", 3), ("c", 2), ("d", 1)]
    built = plan.build_plan(
        read, "standard", earlier=plan.EarlierRuns(seconds={"b": 3.0, "a": 1.0, "c": 1.0, "d": 1.0})
    )
    assert [stage.name for stage in built.stages] == ["a", "b", "c", "d"]


def test_unknown_duration_counts_as_the_median_of_the_known(tmp_path: Path) -> None:
    read = configs.read(tmp_path, _chain(a="", b="", c="", d=""))
    built = plan.build_plan(read, "standard", earlier=plan.EarlierRuns(seconds={"a": 1.0, "b": 2.0, "c": 9.0}))
    assert {stage.name: stage.remaining_seconds for stage in built.stages}["d"] == 2
    assert [stage.expected_seconds for stage in built.stages if stage.name == "d"] == [None]
    assert {stage.remaining_seconds for stage in plan.build_plan(read, "standard").stages} == {1.0}


@pytest.mark.parametrize(("failed_after", "remaining"), [(30.0, 30), (0.1, 2)])
def test_stage_that_never_succeeded_counts_at_least_as_long_as_its_failures(
    tmp_path: Path, failed_after: float, remaining: float
) -> None:
    earlier = plan.EarlierRuns(seconds={"a": 1.0, "b": 2.0, "c": 9.0}, failure_seconds={"d": failed_after})
    built = plan.build_plan(configs.read(tmp_path, _chain(a="", b="", c="", d="")), "standard", earlier=earlier)
    found = {stage.name: stage for stage in built.stages}["d"]
    assert (found.remaining_seconds, found.expected_seconds) == (remaining, None)


def test_chain_of_thousands_is_no_recursion(tmp_path: Path) -> None:
    names = {f"s{n}": f"s{n - 1}" if n else "" for n in range(3000)}
    assert plan.build_plan(configs.read(tmp_path, _chain(**names)), "standard").stages[0].remaining_seconds == 3000


def test_work_for_a_cached_stage_does_not_grow_with_the_others(tmp_path: Path) -> None:
    few, many = (_count_calls_of_a_plan(tmp_path, stages) for stages in (50, 200))
    assert many < 5 * few


def _count_calls_of_a_plan(folder: Path, stages: int) -> int:
    """Return how many functions are called, apart from steps of generators."""
    lines = [
        f"- {{number: {n}, name: s{n}, run: x, inputs: [in/{n}], outputs: [out/{n}]}}" for n in range(1, stages + 1)
    ]
    read = configs.read(folder, "\n".join(["stages:", *lines, ""]))
    calls = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call" and not frame.f_code.co_flags & inspect.CO_GENERATOR

    plan.build_plan(read, "standard")  # loads the modules that plans need
    sys.setprofile(count)
    try:
        plan.build_plan(read, "standard")
    finally:
        sys.setprofile(None)
    return calls


def test_limits_come_from_the_stage_or_its_lane(tmp_path: Path) -> None:
    own = _only_stage(tmp_path, sla="{max: 8, warn_at: 0.5, critical: true}").sla
    assert own is not None
    assert (own.max_seconds, own.warn_seconds, own.critical) == (8, 4, True)
    of_lane = _only_stage(tmp_path).sla
    assert of_lane is not None
    assert (of_lane.max_seconds, of_lane.warn_seconds) == (30, 24)


def test_keys_of_a_stage_are_in_its_plan(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    text = """
stages:
  - {name: made, run: x, inputs: ["*.in"], outputs: ["gen/**"]}
  - {name: other, run: x, inputs: ["*.in"], outputs: [other.txt], exclusive: true}
  - name: unit
    number: 7
    run: "pytest {args} {items}"
    items: {list: [a, b]}
    needs: [made]
    retries: {count: 2, flaky: 1, backoff: 3s}
    timeout: 5m
    env: {A: "1"}
    cwd: sub
    file: out.txt
    sla: {max: 10s, critical: true}
    locks: [db]
    memory: 1MB
    slots: 2
    inputs: ["*.py"]
    outputs: [unit.xml]
    pass_env: [TOKEN]
    cache: true
    quarantine: [{item: a, owner: anna, until: 2999-01-01}]
"""
    expected = {
        "number": 7,
        "needs": ("made",),
        "pool": "commands",
        "retries": 2,
        "flaky_retries": 1,
        "backoff_seconds": 3.0,
        "timeout_seconds": 300.0,
        "env": {"A": "1"},
        "cwd": tmp_path / "sub",
        "output_file": tmp_path / "out.txt",
        "sla": SlaLimit(max_seconds=10.0, warn_seconds=8.0, critical=True),
        "locks": {"db"},
        "memory_bytes": 1_000_000,
        "slots": 2,
        "template": Commands(steps=(("pytest", "{items}"),)),
        "inputs": ("sub/*.py",),
        "outputs": ("sub/unit.xml",),
        "cached": True,
        "allows_servers": True,
        "pass_env": ("TOKEN",),
        "needed_outputs": ("gen/**",),
        "other_outputs": ("other.txt",),
        "scope": Scope.ALL,
        "remote": None,
    }
    config = configs.read(tmp_path, text)
    stages = {stage.name: stage for stage in plan.build_plan(config, "standard").stages}
    assert {key: getattr(stages["unit"], key) for key in expected} == expected
    assert [name for name, stage in stages.items() if stage.exclusive] == ["other"]
    assert [name for name, stage in stages.items() if stage.allows_servers] == ["unit"]
    assert [*stages["unit"].quarantine] == ["a"]
    options = plan.PlanOptions(selection=plan.Selection(patterns=("unit",)), arguments=("-x",))
    (unit,) = (stage for stage in plan.build_plan(config, "standard", options).stages if stage.name == "unit")
    assert (unit.scope, unit.sla, unit.template) == (
        Scope.ARGUMENTS, None, Commands(steps=(("pytest", "-x", "{items}"),)),
    )  # fmt: skip


def test_lane_has_only_the_stages_that_it_lists(tmp_path: Path) -> None:
    read = configs.read(tmp_path, _chain(a="", b="a", c="") + "lanes: {short: {stages: [c, a]}}\n")
    assert {stage.name for stage in plan.build_plan(read, "short").stages} == {"a", "c"}


@pytest.mark.parametrize(
    "selection",
    [
        plan.Selection(skipped=("b", "c")),
        plan.Selection(patterns=("a", "d", "e"), with_needs=False),
    ],
    ids=["skip", "only"],
)
def test_left_out_stage_passes_its_needs_on(tmp_path: Path, selection: plan.Selection) -> None:
    read = configs.read(tmp_path, _chain(a="", b="a", c="b", d="c", e="c, a"))
    built = plan.build_plan(read, "standard", plan.PlanOptions(selection=selection))
    assert {stage.name: stage.needs for stage in built.stages} == {"a": (), "d": ("a",), "e": ("a",)}


def test_failed_stages_are_planned_with_their_dependents(tmp_path: Path) -> None:
    read = configs.read(tmp_path, _chain(a="", b="a", c="b", d="", e="d"))
    built = plan.build_plan(read, "standard", plan.PlanOptions(retry=plan.Retry(stages={"b"})))
    assert {stage.name: stage.needs for stage in built.stages} == {"b": (), "c": ("b",)}


@pytest.mark.parametrize(
    ("only", "items", "failed_only"),
    [
        (None, {}, False),
        ({"a", "b"}, {}, False),  # all failed, so that the whole lane runs again
        ({"a", "b"}, {"b": {"x", "y"}}, False),
        ({"a", "b"}, {"b": {"x"}}, True),
        ({"b"}, {}, True),
    ],
)
def test_limit_of_a_lane_is_for_its_whole_runs(
    tmp_path: Path, only: set[str] | None, items: dict[str, set[str]], failed_only: bool
) -> None:
    stages = configs.stage(name="a") + '- {number: 3, name: b, run: "true {item}", items: {list: [x, y]}}\n'
    read = configs.read(tmp_path, stages + "lanes: {standard: {total: 90s}}\n")
    retry = None if only is None else plan.Retry(stages=only, items=items)
    built = plan.build_plan(read, "standard", plan.PlanOptions(retry=retry))
    assert (built.failed_only, built.total is None) == (failed_only, failed_only)


@pytest.mark.parametrize("command", ["x {item}", "x {items}"])
def test_failed_items_take_their_part_of_the_stages_time(tmp_path: Path, command: str) -> None:
    read = configs.read(tmp_path, f'stages:\n- {{number: 1, name: a, run: "{command}", items: {{list: [p, q, r]}}}}\n')
    known = {"a": KnownItems(seconds={"p": 1.0, "q": 3.0, "r": 4.0})}
    for expected, seconds in ((16.0, 6.0), (4.0, 3.0)):  # with 4 s, the three ran side by side
        built = plan.build_plan(
            read,
            "standard",
            plan.PlanOptions(retry=plan.Retry(stages={"a"}, items={"a": {"q"}})),
            earlier=plan.EarlierRuns(seconds={"a": expected}, items=known),
        )
        assert [stage.expected_seconds for stage in built.stages] == [seconds]


@pytest.mark.parametrize(("command", "part"), [("x {item}", 3.5), ("x {items}", 7.0)])
def test_tasks_with_failed_items_take_the_time_of_these_items(tmp_path: Path, command: str, part: float) -> None:
    """They are shorter or longer than those of the whole stage."""
    read = configs.read(
        tmp_path, f'stages:\n- {{number: 1, name: a, run: "{command}", items: {{list: [p, q, r, s]}}}}\n'
    )
    known = {"a": KnownItems(seconds={"p": 1.0, "q": 3.0, "r": 4.0, "s": 8.0})}
    built = plan.build_plan(
        read,
        "standard",
        plan.PlanOptions(retry=plan.Retry(stages={"a"}, items={"a": {"q", "r"}})),
        earlier=plan.EarlierRuns(
            seconds={"a": 8.0}, task_seconds={"a": 4.0 if command == "x {item}" else 16.0}, items=known
        ),
    )
    assert [stage.expected_task_seconds for stage in built.stages] == [part]


@pytest.mark.parametrize("workers", ["4", "2-8"])
def test_several_workers_of_a_sequential_lane_are_rejected(tmp_path: Path, workers: str) -> None:
    """They had no effect, and nothing said so."""
    read = configs.read(tmp_path, configs.stage())
    with pytest.raises(UsageError, match="--workers: strategy sequential runs one task at a time"):
        plan.build_plan(
            read, "standard", plan.PlanOptions(strategy=Strategy.SEQUENTIAL, workers=plan.parse_bounds(workers))
        )


@pytest.mark.parametrize("workers", ["auto", "1", "1-8"])
def test_workers_of_a_sequential_lane_may_be_one(tmp_path: Path, workers: str) -> None:
    read = configs.read(tmp_path, configs.stage())
    built = plan.build_plan(
        read, "standard", plan.PlanOptions(strategy=Strategy.SEQUENTIAL, workers=plan.parse_bounds(workers))
    )
    assert built.workers.maximum == 1


def test_unknown_lane_or_stage_lists_the_known_ones(tmp_path: Path) -> None:
    read = configs.read(tmp_path, configs.stage())
    with pytest.raises(
        UsageError, match=r"unknown lane 'standrad': did you mean 'standard'\? Choose from docs, standard, heavy"
    ):
        plan.build_plan(read, "standrad")
    with pytest.raises(UsageError, match="no stage 'two' in this lane: choose from one"):
        plan.build_plan(read, "standard", plan.PlanOptions(retry=plan.Retry(stages={"two"})))


def test_sizes_are_fixed_or_bounded_and_sequential_has_one(tmp_path: Path) -> None:
    lanes = "a: {workers: 3}, b: {workers: {min: 2, max: 16, start: 4}}, c: {strategy: sequential}, d: {workers: 1}"
    read = configs.read(tmp_path, configs.stage() + f"lanes: {{{lanes}}}\n")
    sizes = {name: plan.build_plan(read, name).workers for name in "abcd"}
    assert sizes["a"] == Bounds(minimum=3, maximum=3, start=3)
    assert sizes["b"] == Bounds(minimum=2, maximum=16, start=4)
    assert sizes["c"] == sizes["d"] == Bounds(minimum=1, maximum=1, start=1)
    assert plan.build_plan(read, "a", plan.PlanOptions(strategy=Strategy.SEQUENTIAL)).workers.maximum == 1


def test_auto_starts_with_the_cores_allowed_and_leaves_room_above(tmp_path: Path) -> None:
    workers = plan.build_plan(configs.read(tmp_path, configs.stage()), "standard").workers
    assert (workers.minimum, workers.start) == (1, host.count_cpu_workers())
    assert workers.maximum >= max(32, 4 * host.count_cpu_workers())


def test_flags_beat_the_lane(tmp_path: Path) -> None:
    size = Bounds(minimum=5, maximum=5, start=5)
    built = plan.build_plan(
        configs.read(tmp_path, configs.stage()),
        "docs",
        plan.PlanOptions(strategy=Strategy.PROCESS, workers=size, fail_fast=False),
    )
    assert (built.strategy, built.workers, built.fail_fast) == (Strategy.PROCESS, size, False)


def test_more_slots_than_a_default_lane_has_are_a_fault_of_the_stage(tmp_path: Path) -> None:
    read = configs.read(tmp_path, configs.stage(slots="3"))
    stage = plan.build_plan(read, "docs").stages[0]
    assert (stage.fault, stage.tasks) == ("it needs 3 slots, and the lane has at most 2 workers: raise its workers", ())
    assert plan.build_plan(read, "docs", plan.PlanOptions(strategy=Strategy.SEQUENTIAL)).stages[0].slots == 1


@pytest.mark.parametrize(("text", "size"), [("4", (4, 4)), ("1-16", (1, 16)), ("auto", (1, None))])
def test_flag_for_workers_takes_a_number_bounds_or_auto(text: str, size: tuple[int, int | None]) -> None:
    bounds = plan.parse_bounds(text)
    assert bounds.minimum == size[0]
    assert size[1] in (None, bounds.maximum)
    assert bounds.minimum <= bounds.start <= bounds.maximum


@pytest.mark.parametrize("text", ["", "0", "-1", "5-2", "1-", "x", "1001", "٣", "1-2-3", "9" * 9])
def test_other_words_for_workers_are_rejected(text: str) -> None:
    with pytest.raises(UsageError, match="--workers: expected auto, a number"):
        plan.parse_bounds(text)


def test_plan_can_be_imported_without_pydantic_and_yaml() -> None:
    code = "import sys, paropt_exporter.plan, paropt_exporter.config; print({'pydantic', 'yaml'} & {*sys.modules})"
    printed = run_python(code, check=True).stdout
    assert printed == "set()\n"


def test_item_command_that_prints_without_end_is_a_fault_of_its_stage(tmp_path: Path) -> None:
    stage = _only_stage(tmp_path, run="'x {item}'", items="{command: 'yes'}")
    assert "printed more than 16 MiB" in stage.fault


def test_item_command_ends_with_its_process_though_a_daemon_holds_its_output(tmp_path: Path) -> None:
    command = "[sh, -c, 'sleep 30 & echo one; echo two']"
    stage = _only_stage(tmp_path, run="'x {item}'", items=f"{{command: {command}}}")
    assert [task.item for task in stage.tasks] == ["one", "two"]


@pytest.mark.parametrize("name", [b"caf\xe9.txt", "a\u2028b.txt".encode(), b"a\x0cb.txt"])
def test_items_command_may_print_any_name_of_a_file(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).touch()
    assert find_items(Items(command="ls -N"), cwd=tmp_path, env={}) == (os.fsdecode(name),)


def test_items_command_that_does_not_end_is_ended_at_the_limit(tmp_path: Path) -> None:
    with pytest.raises(ItemsError, match=r"the command `sleep 30` did not end within 0\.1 s"):
        find_items(Items(command="sleep 30"), cwd=tmp_path, env={}, limit_seconds=0.1)


def test_task_on_another_host_has_the_settings_of_its_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("sub", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setenv("PASSED", "1")
    stage = 'name: a, run: x, cwd: sub, env: {OWN: "2"}, slots: 2, memory: 3MB, inputs: ["*.py"], outputs: ["*.xml"]'
    dask = 'dask: {scheduler: "tcp://127.0.0.1:1", pass_env: [PASSED, UNSET]}\nlanes: {far: {strategy: dask}}\n'
    (built,) = plan.build_plan(configs.read(tmp_path, f"{dask}stages: [{{{stage}}}]"), "far").stages
    assert built.remote == RemoteTaskOptions(
        folder="sub",
        env={"PASSED": "1", "OWN": "2"},
        slots=2,
        memory_bytes=3_000_000,
        outputs=("sub/*.xml",),
        programs=".venv/bin",
    )
