"""The keys `inputs`, `outputs`, `cache` and `pass_env` of a stage."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paropt_exporter import config
from paropt_exporter.errors import ConfigError
from paropt_exporter.plan import PlannedStage, PlanOptions, Retry, Selection, build_plan
from support import configs
from support.repositories import Repository


def plan_stage(folder: Path, keys: str, work: str = 'run: "true"') -> PlannedStage:
    (folder / "paropt.yml").write_text(f"stages:\n  - {{number: 1, name: a, {work}{keys and ', '}{keys}}}\n")
    (stage,) = build_plan(config.read_config(folder / "paropt.yml", root=folder), "standard").stages
    return stage


@pytest.mark.parametrize(
    ("keys", "cached"),
    [
        ("", False),
        ("inputs: [src]", True),
        ("cache: true", True),
        ("cache: auto", False),
        ("cache: never, inputs: [src]", False),
        ("cache: false, inputs: [src]", False),
    ],
)
def test_stage_is_cached_only_if_it_asks_for_it(tmp_path: Path, keys: str, cached: bool) -> None:
    assert plan_stage(tmp_path, keys).cached is cached


def test_call_is_never_cached(tmp_path: Path) -> None:
    assert not plan_stage(tmp_path, "inputs: [src]", "call: 'a:b'").cached


def test_patterns_are_relative_to_the_configs_folder(tmp_path: Path) -> None:
    stage = plan_stage(
        tmp_path, "cwd: web, inputs: [src/**, ../setup.py, '!x'], outputs: [dist/], pass_env: [CI, AWS_*]"
    )
    assert stage.inputs == ("web/src/**", "setup.py", "!web/x")
    assert stage.outputs == ("web/dist",)
    assert stage.pass_env == ("CI", "AWS_*")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("inputs: []", "inputs: the list is empty"),
        ("inputs: src/**", "inputs: expected a list or auto, found 'src/**': put it in [ ]"),
        ("inputs: {a: b}", "inputs: expected a list, found a mapping"),
        ("inputs: [a], outputs: dist", "outputs: expected a list, found 'dist': put it in [ ]"),
        ("inputs: ['!a']", "each pattern leaves files out"),
        ("inputs: [/etc]", "write a path relative to the stage's folder"),
        ("inputs: ['{item}']", "the stage has no items for {item}"),
        ("inputs: [a], outputs: [../a]", "an output must be in the stage's folder"),
        ("inputs: [a], outputs: ['.']", "a stage's whole folder can't be its output"),
        ("outputs: [a]", "outputs are kept only for a cached stage"),
        ("cache: always", "expected true, never or auto, found 'always'"),
        ("cache: 1", "expected true, never or auto, found 1"),
        ("cache: true, pass_env: [A-B]", "neither the name of an environment variable nor a glob"),
    ],
)
def test_bad_value_has_one_fault(tmp_path: Path, keys: str, message: str) -> None:
    (fault,) = configs.faults(tmp_path, f"stages: [{{number: 1, name: a, run: 'true', {keys}}}]\n")
    assert message in fault


def test_call_with_cache_is_a_fault(tmp_path: Path) -> None:
    (fault,) = configs.faults(tmp_path, "stages: [{number: 1, name: a, call: 'a:b', cache: true}]\n")
    assert "a call can't be cached" in fault


def test_outputs_of_needed_stages_count_also_if_the_command_line_leaves_them_out(tmp_path: Path) -> None:
    (tmp_path / "paropt.yml").write_text(
        "stages:\n"
        "  - {number: 1, name: a, run: 'true', inputs: [x], items: {list: [i]}, outputs: ['out/{item}.txt']}\n"
        "  - {number: 2, name: b, run: 'true', needs: [a]}\n"
        "  - {number: 3, name: c, run: 'true', inputs: [x], needs: [b]}\n"
        "  - {number: 4, name: d, run: 'true', file: log/d.txt}\n"
    )
    loaded = config.read_config(tmp_path / "paropt.yml", root=tmp_path)
    for selection in (Selection(), Selection(patterns=("c",), with_needs=False)):
        planned = build_plan(loaded, "standard", PlanOptions(selection=selection))
        stage = next(stage for stage in planned.stages if stage.name == "c")
        assert stage.needed_outputs == ("out/*.txt", "out/**/*.txt")
        assert stage.other_outputs == ("log/d.txt",)


def test_output_that_two_stages_write_is_known_to_both(tmp_path: Path) -> None:
    (tmp_path / "paropt.yml").write_text(
        "stages:\n"
        "  - {number: 1, name: a, run: 'true', inputs: [x], outputs: [dist]}\n"
        "  - {number: 2, name: b, run: 'true', inputs: [x], outputs: [dist/b/**]}\n"
        "  - {number: 3, name: c, run: 'true', inputs: [x], outputs: [out], needs: [a]}\n"
        "  - {number: 4, name: d, run: 'true', inputs: [x], outputs: [out/d], needs: [c]}\n"
    )
    planned = build_plan(config.read_config(tmp_path / "paropt.yml", root=tmp_path), "standard")
    shared = {stage.name: stage.shared_output for stage in planned.stages if stage.shared_output}
    assert shared == {"a": "dist", "b": "dist/b/**"}


@pytest.mark.parametrize(("inputs", "needed"), [("raw/{item}.csv", ()), ("raw/*.csv", ("raw/*.csv", "raw/**/*.csv"))])
def test_outputs_that_inputs_name_by_item_belong_to_the_task_of_their_item(
    tmp_path: Path, inputs: str, needed: tuple[str, ...]
) -> None:
    (tmp_path / "paropt.yml").write_text(
        "stages:\n"
        "  - {number: 1, name: a, run: 'true', inputs: [x], items: {list: [i]}, outputs: ['raw/{item}.csv']}\n"
        f"  - {{number: 2, name: b, run: 'true', inputs: ['{inputs}'], items: {{list: [i]}}, needs: [a]}}\n"
    )
    planned = build_plan(config.read_config(tmp_path / "paropt.yml", root=tmp_path), "standard")
    assert next(stage for stage in planned.stages if stage.name == "b").needed_outputs == needed


@pytest.mark.parametrize(
    ("inputs", "traced", "declared"),
    [("auto", True, None), ("[auto, 'src/**']", True, ("src/**",)), ("[./auto]", False, ("auto",))],
)
def test_auto_inputs_are_traced_and_others_are_declared(
    tmp_path: Path, inputs: str, traced: bool, declared: tuple[str, ...] | None
) -> None:
    stage = plan_stage(tmp_path, f"inputs: {inputs}")
    assert (stage.cached, stage.traces_inputs, stage.inputs) == (True, traced, declared)


@pytest.mark.parametrize(("cache", "allows"), [("auto", False), ("true", True)])
def test_only_an_explicit_cache_allows_connections_to_servers(tmp_path: Path, cache: str, allows: bool) -> None:
    assert plan_stage(tmp_path, f"inputs: auto, cache: {cache}").allows_servers is allows


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("automatic", "expected a list or auto, found 'automatic'"),
        ("[auto, '!src/b.py']", "a pattern without '!' is missing: it counts where commands can't be traced"),
    ],
)
def test_bad_auto_inputs_are_one_clear_fault(tmp_path: Path, inputs: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        plan_stage(tmp_path, f"inputs: {inputs}")


@pytest.mark.parametrize(
    ("outputs", "items", "told"),
    [
        ("['out/{item}*']", "['10', '1']", "its items 1 and 10 may both write out/10*"),
        ("['out/{item}*']", "[a, b]", ""),
        ("['out/*{item}']", "[b, a-b]", "its items b and a-b may both write out/*a-b"),
        ("['out/*{item}.txt']", "['1', '2']", ""),
        ("['out/*{item}*']", "['1', '2']", "its items 1 and 2 may both write out/*{item}*"),
        ("['out/**/{item}/**']", "[a, b]", "its items a and b may both write out/**/{item}/**"),
        ("['out/{item}.*']", "[a, b.c, a.b]", "its items a and a.b may both write out/a.b.*"),
        ("['out/{item}?']", "['1', '10']", ""),
        ("['out/{item}/*']", "['1', '10']", ""),
        ("['out/{item}']", "[a/b, a]", "its items a and a/b may both write out/a/b"),
        ("['out/{item}', 'out/{item}.log']", "['1', 1.log]", "its items 1 and 1.log may both write out/1.log"),
        ("['out/{item}.txt']", "['1', '10', a/1, './2']", ""),
        ("['out/{item}*', '!out/{item}-*']", "[a, a-b]", ""),
        ("['{item}/**']", "[., sub]", "its items . and sub may both write sub/**"),
        ("['{item}/dist/**']", "[., sub]", ""),
        ("['{item}*']", "['[1]', '1']", ""),
        ("['{item}.out']", "[a, a]", ""),
    ],
)
def test_outputs_that_two_items_may_write_are_found(tmp_path: Path, outputs: str, items: str, told: str) -> None:
    for work in ("x {item}", "x {items}"):
        stage = plan_stage(tmp_path, f"inputs: [x], outputs: {outputs}, items: {{list: {items}}}", f"run: '{work}'")
        assert stage.shared_by_items == told


def test_items_left_out_count_for_the_outputs_that_two_may_write(tmp_path: Path) -> None:
    keys = "inputs: [x], outputs: ['out/{item}*'], items: {list: ['1', '10']}, run: 'x {item}'"
    read = configs.read(tmp_path, f"stages: [{{number: 1, name: a, {keys}}}]\n")
    (stage,) = build_plan(read, "standard", PlanOptions(retry=Retry(stages=["a"], items={"a": ["1"]}))).stages
    assert [task.item for task in stage.tasks] == ["1"]
    assert stage.shared_by_items == "its items 1 and 10 may both write out/10*"


def test_unchanged_files_count_for_the_outputs_that_two_changed_ones_may_write(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    repository.commit(**{"raw/1": "a", "raw/10": "a"})
    repository.git("switch", "--quiet", "--create", "feature")
    repository.write("raw/1", "b")
    keys = "inputs: ['{item}'], outputs: ['{item}*'], items: {changed: raw/*}, run: 'x {item}'"
    read = configs.read(repository.root, f"stages: [{{number: 1, name: a, {keys}}}]\n")
    (stage,) = build_plan(read, "standard").stages
    assert [task.item for task in stage.tasks] == ["raw/1"]
    assert stage.shared_by_items == "its items raw/1 and raw/10 may both write raw/10*"
