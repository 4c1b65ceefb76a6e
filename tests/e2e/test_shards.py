"""Shards of a lane, run by the real command."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from support import projects
from support.in_process import call_command
from support.real_servers import run

STAGES = """
    name: build, run: "true"
    name: unit, shell: true, run: "echo {item} >> ran.txt; test ! -e bad_{item}", needs: [build], items: {list: LIST}
    name: lint, shell: true, run: "echo lint >> ran.txt; test ! -e bad_lint"
""".replace("LIST", "[a, b, c, d, e, f]")
ITEMS = ["a", "b", "c", "d", "e", "f", "lint"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return projects.write(tmp_path / "project", STAGES)


def ran(folder: Path, *arguments: str, code: int = 0) -> str:
    ended = run(folder, projects.ANY_PORT, "--once", *arguments)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def take_lines(folder: Path) -> list[str]:
    """Return what the tasks wrote, and remove it."""
    path = folder / "ran.txt"
    found = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def copy(project: Path, name: str) -> Path:
    """Return a copy of the project with its history, like the checkout of another machine."""
    return projects.copy(project, project.parent / name)


def test_shards_on_several_machines_run_each_item_once(project: Path) -> None:
    ran(project)
    take_lines(project)
    machines = [copy(project, f"machine{index}") for index in range(1, 4)]
    for index, machine in enumerate(machines, 1):
        said = ran(machine, "--shard", f"{index}/3")
        assert f"standard shard {index}/3 succeeded" in said
    found = [take_lines(machine) for machine in machines]
    assert sorted(line for lines in found for line in lines) == ITEMS
    assert all(found)


def test_shards_in_one_folder_keep_the_split_while_they_run(project: Path) -> None:
    ran(project)
    splits = set()
    for index in range(1, 5):
        said = ran(project, "--shard", f"{index}/4", "--report", f"json={project}/report.json")
        report = json.loads((project / "report.json").read_text())
        assert report["shard"] == f"{index}/4"
        assert f"lane standard shard {index}/4 of split {report['split']}" in said
        splits.add(report["split"])
    assert len(splits) == 1
    assert sorted(take_lines(project)) == sorted(2 * ITEMS)
    assert [each["shard"] for each in projects.runs(project)] == [None, "1/4", "2/4", "3/4", "4/4"]


def test_an_empty_shard_succeeds_and_says_so(project: Path) -> None:
    said = [
        ran(project, "--shard", f"{index}/3", "--stage", "lint", "--report", f"junit={project}/{index}.xml")
        for index in range(1, 4)
    ]
    empty = [index for index, text in enumerate(said, 1) if "nothing to run in this shard" in text]
    assert len(empty) == 2
    assert take_lines(project) == ["lint"]
    shown = call_command(project, "--dry-run", "--stage", "lint", "--shard", f"{empty[0]}/3")
    assert "nothing to run in this shard\n\nestimated  0.0 s" in shown.stdout
    report = ElementTree.fromstring((project / f"{empty[0]}.xml").read_bytes())
    assert (report.get("name"), report.get("tests")) == (f"standard shard {empty[0]}/3", "0")


def test_a_failure_fails_its_shard_only_and_failed_repeats_it_there(project: Path) -> None:
    (project / "bad_c").touch()
    machines = [copy(project, f"machine{index}") for index in (1, 2)]
    codes = [
        run(machine, projects.ANY_PORT, "--once", "--shard", f"{index}/2").returncode
        for index, machine in enumerate(machines, 1)
    ]
    assert sorted(codes) == [0, 1]
    index = codes.index(1) + 1
    failed, other = machines[index - 1], machines[2 - index]
    take_lines(failed)
    (failed / "bad_c").unlink()
    assert "runs unit (1 failed item only)" in ran(failed, "--failed", "--shard", f"{index}/2").replace("build, ", "")
    assert take_lines(failed) == ["c"]
    assert "nothing to run" in ran(other, "--failed", "--shard", f"{3 - index}/2")


def test_failures_of_all_shards_are_known_where_all_ran(project: Path) -> None:
    (project / "bad_c").touch()
    (project / "bad_lint").touch()
    codes = [run(project, projects.ANY_PORT, "--once", "--shard", f"{index}/3").returncode for index in (1, 2, 3)]
    assert 1 in codes
    take_lines(project)
    ran(project, "--failed", code=1)
    assert sorted(take_lines(project)) == ["c", "lint"]


@pytest.mark.parametrize(
    ("words", "items"),
    [
        (["--stage", "unit"], ITEMS[:-1]),
        (["--only", "unit"], ITEMS[:-1]),
        (["--skip", "unit"], ["lint"]),
    ],
)
def test_shards_split_the_selected_stages(project: Path, words: list[str], items: list[str]) -> None:
    for index in (1, 2):
        ran(project, *words, "--shard", f"{index}/2")
    assert sorted(take_lines(project)) == items


def test_plan_shows_each_shard_with_its_predicted_duration(project: Path) -> None:
    ran(project)
    shown = run(project, "plan", "--shard", "2/3")
    assert shown.returncode == 0, shown.stderr
    assert "lane standard shard 2/3 of demo" in shown.stdout
    assert all(f"{index}/3  " in shown.stdout for index in (1, 2, 3))
    found = json.loads(call_command(project, "plan", "--shard", "2/3", "--output", "json").stdout)
    assert [shard["shard"] for shard in found["shards"]] == ["1/3", "2/3", "3/3"]
    assert all(shard["predicted_seconds"] >= 0 for shard in found["shards"])
    items = [item for shard in found["shards"] for stage in shard["stages"] for item in stage["items"]]
    assert sorted(items) == ITEMS[:-1]


def test_list_has_the_stages_of_the_shard(project: Path) -> None:
    found = [
        call_command(project, "--list", "-q", "--shard", f"{index}/9", "--skip", "unit").stdout.split()
        for index in range(1, 10)
    ]
    assert sorted(name for names in found for name in names) == ["build", "lint"]
    shown = call_command(project, "--list", "--shard", "1/1").stdout
    assert "6 items: echo {item}" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shard", "6/5"], "expected the number of a shard and of all shards, like 2/5 (1/5 to 5/5)"),
        (["--shard", "x"], "found 'x'"),
        (["--shard", "1/2", "--every", "1m"], "--shard splits by the history, which each run changes"),
    ],
)
def test_a_bad_shard_is_one_line_and_leaves_no_files(project: Path, words: list[str], said: str) -> None:
    ended = run(project, projects.ANY_PORT, *words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (project / ".paropt").exists()


def test_items_that_a_command_cannot_list_fail_each_shard(project: Path) -> None:
    projects.write(project, 'name: unit, run: "x {items}", items: {command: ["false"]}')
    for index in (1, 2):
        assert "the command `false` failed (exit 1)" in ran(project, "--shard", f"{index}/2", code=1)


def test_merged_histories_give_each_shard_the_same_next_split(project: Path) -> None:
    ran(project)
    machines = [copy(project, f"machine{index}") for index in (1, 2, 3)]
    for index, machine in enumerate(machines, 1):
        ran(machine, "--shard", f"{index}/3")
    files = [str(machine / ".paropt/history.db") for machine in machines]
    merged = run(project, "history", "merge", *files)
    assert (merged.returncode, merged.stderr) == (0, "")
    assert "3 new runs, durations of 6 items" in merged.stdout
    plans = {
        call_command(copy(project, f"next{index}"), "plan", "--shard", f"{index}/3").stdout.partition("split")[2][:12]
        for index in (1, 2, 3)
    }
    assert len(plans) == 1


def test_each_shard_continues_the_counts_of_its_own_instance(project: Path) -> None:
    """So Prometheus may add up the shards, though they share a history."""
    counts = []
    for index in (1, 2, 1):
        ran(project, "--shard", f"{index}/2", f"--push.instance=ci-{index}", f"--textfile={project}")
        (page,) = project.glob("*.prom")
        counts += [line for line in page.read_text().splitlines() if line.startswith("paropt_runs_total")]
    assert [line.rpartition(" ")[2] for line in counts if 'result="success"' in line] == ["1.0", "1.0", "2.0"]


def test_a_test_file_is_cut_at_its_long_tests_and_each_test_runs_once(tmp_path: Path) -> None:
    """On machines with fresh checkouts, whose files are newer than the history."""
    (tmp_path / "project").mkdir()
    command = f"{sys.executable} -m pytest -q -p no:cacheprovider {{items}}"
    project = projects.write(tmp_path / "project", f'name: unit, run: "{command}", items: {{glob: "test_*.py"}}')
    body = "    open('ran.txt', 'a').write('{}\\n')\n"
    work = dict.fromkeys(("long_1", "long_2", "last_long"), "    time.sleep(0.3)\n") | {"brief": ""}
    functions = [f"def test_{name}():\n{body.format(name)}{lines}" for name, lines in work.items()]
    (project / "test_a.py").write_text("\n".join(["import time", *functions]))
    ran(project)
    assert sorted(take_lines(project)) == sorted(work)
    for number in range(2):  # by the durations of the whole file, then by those of its parts
        machines = [copy(project, f"machine{number}{index}") for index in (1, 2)]
        for index, machine in enumerate(machines, 1):
            (machine / "test_a.py").touch()
            ran(machine, "--shard", f"{index}/2")
        found = [take_lines(machine) for machine in machines]
        assert sorted(found[0] + found[1]) == sorted(work)
        assert all(found)
        merged = call_command(
            project, "history", "merge", *(str(machine / ".paropt/history.db") for machine in machines)
        )
        assert (merged.returncode, merged.stderr) == (0, "")


def test_shards_of_different_splits_are_reported_by_the_merge(project: Path) -> None:
    machines = [copy(project, f"machine{index}") for index in (1, 2)]
    for index, machine in enumerate(machines, 1):
        for _ in range(index):
            ran(machine, "--skip" if index == 2 else "--stage", "unit", "--shard", f"{index}/2")
    merged = call_command(project, "history", "merge", *(str(machine / ".paropt/history.db") for machine in machines))
    assert merged.returncode == 1
    assert "the shards of lane standard are of different splits" in merged.stderr


def test_a_missing_shard_and_a_bad_file_are_reported_by_the_merge(project: Path) -> None:
    ran(project, "--shard", "1/2")
    other = copy(project, "other")
    shutil.rmtree(project / ".paropt")
    merged = call_command(project, "history", "merge", str(other / ".paropt/history.db"), "paropt.yml")
    assert merged.returncode == 3
    assert merged.stderr.splitlines() == [
        "paropt-exporter: left out: paropt.yml: neither a history nor a JUnit report",
        f"paropt-exporter: lane standard: no file has shard 2 of 2 of split {merged.stderr.split()[-1]}",
    ]


def test_shards_that_ran_under_another_project_are_reported_by_the_merge(project: Path) -> None:
    ran(project)
    machine = copy(project, "machine")
    config = machine / "paropt.yml"
    config.write_text(config.read_text().replace("project: demo", "project: other"))
    ran(machine, "--shard", "1/1")
    merged = call_command(project, "history", "merge", str(machine / ".paropt/history.db"))
    assert (merged.returncode, merged.stderr.count("\n")) == (3, 1)
    assert "its shards are of project other, not of demo: set `project` in paropt.yml" in merged.stderr


def test_the_history_is_not_merged_into_itself(project: Path) -> None:
    ran(project)
    merged = call_command(project, "history", "merge", ".paropt/history.db")
    assert merged.returncode == 2
    assert "is the history itself" in merged.stderr
