"""`--affected`, `items: {changed: ...}` and `--lane auto` on the command line, in real repositories."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from shutil import rmtree

import pytest

from paropt_exporter import changes
from support import projects
from support.in_process import call_command
from support.real_servers import HANG_SECONDS, MORTAL, environment, installed_command, run
from support.repositories import Repository

_STAGES = """
name: lint, run: "true", inputs: ["src/*.py"]
name: build, run: "true", inputs: ["src/*.py"], outputs: [dist]
name: docs, run: "true", inputs: [docs]
name: unit_tests, run: "true", inputs: [tests], needs: [lint]
name: e2e_tests, run: "true", inputs: [e2e], needs: [build]
name: audit, run: "true"
"""
_FILES = {"src/a.py": "1", "docs/a.md": "1", "tests/test_a.py": "1", "e2e/test_b.py": "1", ".gitignore": ".paropt\n"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    for name in ("GITHUB_BASE_REF", "CI_MERGE_REQUEST_DIFF_BASE_SHA"):
        monkeypatch.delenv(name, raising=False)
    made = Repository(tmp_path)
    projects.write(tmp_path, _STAGES)
    made.commit(**_FILES)
    return made


def listed(repository: Repository, *arguments: str) -> set[str]:
    ran = call_command(repository.root, "--list", "-q", *arguments)
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


@pytest.mark.parametrize(
    ("path", "stages"),
    [
        ("docs/b.md", {"docs", "audit"}),
        ("tests/test_a.py", {"lint", "unit_tests", "audit"}),  # with its need
        ("src/a.py", {"lint", "build", "e2e_tests", "audit"}),  # e2e_tests needs a stage with outputs
        ("src/a.md", {"audit"}),
        ("paropt.yml", {"lint", "build", "docs", "unit_tests", "e2e_tests", "audit"}),
    ],
)
def test_stages_follow_from_their_inputs(repository: Repository, path: str, stages: set[str]) -> None:
    with (repository.root / path).open("a") as file:
        file.write("\n# changed\n")
    assert listed(repository, "--affected") == stages


def test_all_stages_that_may_read_a_written_file_are_affected(repository: Repository) -> None:
    """As in the keys of the cache: `file` is an output, and outputs reach indirect needs, also of skipped stages."""
    projects.write(
        repository.root,
        """
name: build, run: "true", inputs: [src], file: build.log
name: smoke, run: "true", inputs: [tests], needs: [build]
name: publish, run: "true", inputs: [docs], needs: [smoke]
name: lint, run: "true", inputs: [src]
name: after_lint, run: "true", inputs: [docs], needs: [lint]
""",
    )
    repository.commit()
    repository.write("src/a.py", "2")
    assert listed(repository, "--affected") == {"build", "smoke", "publish", "lint"}
    assert listed(repository, "--affected", "--skip", "smoke") == {"build", "publish", "lint"}


def test_stage_whose_inputs_match_no_file_is_always_affected(repository: Repository) -> None:
    """With patterns from the repository's root and a `cwd`, no change would ever run the tests."""
    projects.write(
        repository.root,
        """
name: wrong, run: "true", cwd: tests, inputs: ["tests/**"]
name: right, run: "true", cwd: tests, inputs: ["**"]
name: build, run: "true", inputs: [src], outputs: [dist]
name: package, run: "true", inputs: [dist], needs: [build]
""",
    )
    repository.commit()
    repository.write("docs/a.md", "2")
    ran = call_command(repository.root, "--list", "-q", "--affected")
    assert ran.stdout.split() == ["wrong"]
    assert "runs wrong (its inputs match no file: always runs); leaves out right, build, package" in ran.stderr


@pytest.mark.parametrize(
    ("items", "others"),
    [
        ("glob: 'tests/test_*.py'", {"docs/a.md", "src/a.py"}),
        ("glob: test*", {"docs/a.md", "src/a.py"}),  # an item that is a folder
        ("list: ['tests/test_a.py::test_one']", {"docs/a.md", "src/a.py"}),
        ("changed: 'tests/**'", {"docs/a.md", "src/a.py"}),
        ("command: echo tests/test_a.py", set()),  # unknown until it runs: any file may be an item
    ],
)
def test_changed_item_affects_its_stage(repository: Repository, items: str, others: set[str]) -> None:
    projects.write(
        repository.root, f'name: each, run: "true {{item}}", items: {{{items}}}, inputs: ["{{item}}", "!{{item}}.bak"]'
    )
    repository.commit()
    repository.write("tests/test_a.py", "2")
    assert listed(repository, "--affected") == {"each"}
    repository.commit()
    for path in others:
        repository.write(path, "2")
    assert listed(repository, "--affected") == set()


@pytest.mark.parametrize(
    ("stage", "path"),
    [
        ("run: python tools/check.py", "tools/check.py"),
        ("run: [sh, -c, 'cd web && make lint']", "web/Makefile"),
        ("run: just lint, cwd: web/app", "web/justfile"),
        ("run: uv run pytest", "uv.lock"),
        ("run: pytest, cwd: web", "conftest.py"),
        ("call: 'tools.check:run'", "tools/check.py"),
        ("run: lint, env: {RULES: rules.txt}", "rules.txt"),
        ("run: 'pytest {items}', items: {glob: 'tests/*.py'}", "tests/test_new.py"),
    ],
)
def test_stage_follows_from_files_that_its_inputs_need_not_name(repository: Repository, stage: str, path: str) -> None:
    """The cache ran the stage again, and `--affected` left it out: a pull request was green without a check."""
    repository.write("web/app/a.js", "1")
    repository.write("web/a.js", "1")
    projects.write(repository.root, f"name: lint, {stage}, inputs: ['*.js', docs]")
    repository.commit()
    assert listed(repository, "--affected") == set()
    repository.write(path, "2")
    assert listed(repository, "--affected") == {"lint"}


def test_output_that_a_command_names_does_not_affect_its_stage(repository: Repository) -> None:
    projects.write(repository.root, "name: api, run: generate -o docs/api.md, inputs: [src], outputs: [docs/api.md]")
    repository.commit()
    repository.write("docs/api.md", "2")
    assert listed(repository, "--affected") == set()


@pytest.mark.parametrize("change", ["edit", "delete", "add"])
def test_change_behind_a_link_affects_the_stage_that_reads_it(repository: Repository, change: str) -> None:
    """`inputs` follow links to folders and to files."""
    repository.write("shared/lib/b.md", "1")
    repository.write("shared/lib/c.md", "1")
    repository.write("shared/one.md", "1")
    (repository.root / "docs/linked").symlink_to("../shared/lib")
    (repository.root / "e2e/one.md").symlink_to("../shared/one.md")
    repository.commit()
    assert listed(repository, "--affected") == {"audit"}
    match change:
        case "edit":
            repository.write("shared/lib/b.md", "2")
            repository.write("shared/one.md", "2")
        case "delete":
            (repository.root / "shared/lib/b.md").unlink()
            (repository.root / "shared/one.md").unlink()
        case _:
            repository.write("shared/lib/d.md", "1")
    stages = listed(repository, "--affected")
    assert "docs" in stages
    assert ("e2e_tests" in stages) == (change != "add")


def test_closed_folder_hides_no_change_behind_a_link(repository: Repository) -> None:
    repository.write("shared/b.md", "1")
    (repository.root / "docs/linked").symlink_to("../shared")
    repository.commit()
    (repository.root / "docs/closed").mkdir(0o000)
    repository.write("shared/b.md", "2")
    words = [*MORTAL, installed_command(), "--list", "-q", "--affected"]
    ran = subprocess.run(
        words, cwd=repository.root, env=environment(), capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert "docs" in ran.stdout.split(), ran.stderr


def test_stages_with_one_reason_share_it_in_the_line(repository: Repository) -> None:
    repository.write("src/a.py", "2")
    ran = call_command(repository.root, "--affected", "--list", "-q")
    assert "runs lint, build (src/a.py), " in ran.stderr
    assert ran.stderr.count("(src/a.py)") == 1


def test_one_line_says_why_stages_run_and_are_left_out(repository: Repository) -> None:
    repository.write("docs/line\nbreak.md", "1")
    ran = run(repository.root, "--affected", "--once", projects.ANY_PORT)
    assert ran.returncode == 0, ran.stderr
    (line,) = [line for line in ran.stderr.splitlines() if "--affected" in line]
    base = repository.git("rev-parse", "--short=7", "HEAD")
    assert line.partition("--affected")[2] == (
        f": 1 file differs from main ({base}): runs docs (docs/line?break.md), audit (no inputs: always runs); "
        "leaves out lint, build, unit_tests, e2e_tests: no input changed"
    )
    (recorded,) = projects.runs(repository.root)
    assert set(projects.stages(recorded)) == {"docs", "audit"}
    assert recorded["partial"] is True


def test_stage_that_caches_by_all_files_is_affected_by_those_of_its_project(repository: Repository) -> None:
    """In a repository of several projects, changes elsewhere ran the stages that `init` proposes to cache."""
    project = repository.root / "project"
    project.mkdir()
    projects.write(project, 'name: tests, run: "true", cache: true')
    repository.commit()
    repository.write("src/a.py", "2")
    assert listed(repository, "--affected") != set()
    assert call_command(project, "--affected", "--list", "-q").stdout == ""
    repository.write("project/README", "2")
    ran = call_command(project, "--affected", "--list", "-q")
    assert (ran.stdout, "runs tests (README)" in ran.stderr) == ("tests\n", True)


def test_nothing_affected_ends_with_0_and_one_line(repository: Repository) -> None:
    projects.write(repository.root, 'name: lint, run: "false", inputs: ["src/*.py"]')
    repository.commit()
    ran = run(repository.root, "--affected", "--once", projects.ANY_PORT)
    assert ran.returncode == 0
    assert "0 files differ from main" in ran.stderr
    assert "runs nothing; leaves out lint: no input changed" in ran.stderr


def test_ref_is_the_next_word_or_after_an_equals_sign(repository: Repository) -> None:
    repository.commit(**{"docs/b.md": "1"})
    assert listed(repository, "--affected", "HEAD~1") == listed(repository, "--affected=HEAD~1") == {"docs", "audit"}
    assert listed(repository, "--affected") == {"audit"}
    assert listed(repository, "--affected", "--lane", "standard") == {"audit"}


def test_plan_and_dry_run_show_the_affected_stages(repository: Repository) -> None:
    repository.write("docs/b.md", "1")
    planned = run(repository.root, "--dry-run", "--affected", "--output", "json")
    assert [stage["name"] for stage in json.loads(planned.stdout)["stages"]] == ["docs", "audit"]
    assert "leaves out lint" in planned.stderr


def test_stage_and_affected_narrow_together(repository: Repository) -> None:
    repository.write("src/a.py", "2")
    planned = call_command(repository.root, "unit_tests", "docs", "lint", "--affected", "--dry-run", "--output", "json")
    assert [stage["name"] for stage in json.loads(planned.stdout)["stages"]] == ["lint"]


def test_failed_and_affected_narrow_together(repository: Repository) -> None:
    projects.write(repository.root, 'name: a, run: "false", inputs: [src]\nname: b, run: "false", inputs: [docs]')
    repository.commit()
    assert run(repository.root, "--once", projects.ANY_PORT).returncode == 1
    nothing = run(repository.root, "--failed", "--affected", "--once", projects.ANY_PORT)
    assert nothing.returncode == 0
    assert "runs nothing" in nothing.stderr
    repository.write("docs/a.md", "2")
    assert run(repository.root, "--failed", "--affected", "--once", projects.ANY_PORT).returncode == 1
    assert set(projects.stages(projects.runs(repository.root)[-1])) == {"b"}


def test_stage_after_the_flag_is_taken_for_a_commit_and_the_error_says_so(repository: Repository) -> None:
    for arguments in (("--dry-run",), ("--list",)):
        ran = run(repository.root, "--affected", "docs", *arguments)
        assert ran.returncode == 2
        assert ran.stderr.endswith("; to run the stage docs, write it before --affected\n")


def test_list_has_the_affected_ones_of_the_selected_stages(repository: Repository) -> None:
    repository.write("docs/a.md", "2")
    assert listed(repository, "--affected") == {"docs", "audit"}
    assert listed(repository, "docs", "lint", "--affected") == {"docs"}
    assert listed(repository, "--affected", "--skip", "docs") == {"audit"}


def test_unknown_ref_and_missing_repository_are_one_line_each(repository: Repository, tmp_path: Path) -> None:
    for arguments in (("--once", projects.ANY_PORT), ("--dry-run",), ("--list",)):
        ran = run(repository.root, "--affected", "nowhere", *arguments)
        assert ran.returncode == 2
        assert ran.stderr.count("\n") == 1
        assert "--affected: there is no commit 'nowhere' here" in ran.stderr
    rmtree(tmp_path / ".git")
    ran = run(repository.root, "--affected", "--once", projects.ANY_PORT)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "--affected: the changed files are unknown: not a git repository" in ran.stderr


def test_changed_items_are_the_changed_files_that_exist(repository: Repository) -> None:
    command = "printf '%s,' {items} >> out"
    projects.write(
        repository.root, f'name: fmt, run: "{command}", shell: true, cwd: src, items: {{changed: "**/*.py"}}'
    )
    repository.commit(**{"src/gone.py": "1", "src/same.py": "1"})
    repository.git("switch", "--quiet", "--create", "feature")
    repository.commit(**{"src/b.py": "1"})
    repository.write("src/a.py", "2")
    repository.write("src/deep/ünï cöde.py", "2")
    repository.write("src/-c.py", "2")
    repository.write("src/not.md", "2")
    repository.write("other.py", "2")
    (repository.root / "src/gone.py").unlink()
    assert run(repository.root, "--once", projects.ANY_PORT).returncode == 0
    found = (repository.root / "src/out").read_text().split(",")
    assert sorted(found[:-1]) == ["./-c.py", "a.py", "b.py", "deep/ünï cöde.py"]


def test_stages_with_changed_items_share_one_look_at_git(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []

    def find_and_count(root: Path, ref: str | None = None) -> changes.Changes:
        looks.append(root)
        return changes.Changes(paths=frozenset({"src/a.py"}))

    monkeypatch.setattr(changes, "find_changes", find_and_count)
    line = 'name: {}, run: "true {{items}}", items: {{changed: "**/*.py"}}'
    projects.write(repository.root, "\n".join(map(line.format, "abc")))
    planned = json.loads(call_command(repository.root, "--dry-run", "--output", "json").stdout)
    assert [task["items"] for stage in planned["stages"] for task in stage["tasks"]] == [["src/a.py"]] * 3
    assert len(looks) == 1


def test_changed_items_follow_the_ref_of_affected(repository: Repository) -> None:
    projects.write(repository.root, 'name: fmt, run: "false {item}", items: {changed: "src/*.py"}')
    first = repository.commit(**{"src/b.py": "1"})
    repository.commit(**{"src/c.py": "1"})
    planned = call_command(repository.root, "--dry-run", f"--affected={first}", "--output", "json")
    assert [[task["item"] for task in stage["tasks"]] for stage in json.loads(planned.stdout)["stages"]] == [
        ["src/c.py"]
    ]


def test_stage_without_changed_items_is_skipped(repository: Repository) -> None:
    projects.write(repository.root, 'name: fmt, run: "false {item}", items: {changed: "*.rs"}\nname: ok, run: "true"')
    ran = run(repository.root, "--once", projects.ANY_PORT)
    assert ran.returncode == 0
    assert "fmt  skipped: no items: no changed file matches *.rs" in ran.stdout


def test_changed_items_without_a_repository_are_one_clear_error(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: fmt, run: "true {item}", items: {changed: "*.py"}')
    ran = run(tmp_path, "--once", projects.ANY_PORT)
    assert ran.returncode == 1
    assert "items: the changed files are unknown: not a git repository" in ran.stdout


def test_invalid_pattern_of_changed_items_is_one_clear_error(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: fmt, run: "true {item}", items: {changed: "/etc/*.py"}')
    checked = call_command(tmp_path, "check")
    assert checked.returncode == 2
    assert (
        "stages[0].items.changed: '/etc/*.py': write a path relative to the stage's folder"
        in checked.stdout + checked.stderr
    )


def test_auto_lane_follows_the_ref_and_leaves_out_unaffected_stages(repository: Repository) -> None:
    repository.commit(**{"src/b.py": "1"})
    repository.commit(**{"docs/b.md": "1"})
    planned = call_command(repository.root, "--lane", "auto", "--affected", "HEAD~1", "--dry-run", "--output", "json")
    assert "lane docs: only documents changed: docs/b.md" in planned.stderr
    assert {stage["name"] for stage in json.loads(planned.stdout)["stages"]} == {"docs", "audit"}
    planned = call_command(repository.root, "--lane", "auto", "--affected", "HEAD~2", "--dry-run", "--output", "json")
    assert "lane standard: src/b.py changed" in planned.stderr


def test_repeated_lanes_are_not_narrowed(repository: Repository) -> None:
    ran = run(repository.root, "--affected", "--every", "1m", projects.ANY_PORT)
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1


def test_list_of_lane_auto_is_that_of_the_chosen_lane(repository: Repository) -> None:
    repository.git("switch", "--quiet", "--create", "feature")
    repository.write("docs/b.md", "1")
    ran = call_command(repository.root, "--list", "-q", "--lane", "auto")
    assert ran.stdout.split() == ["lint", "build", "docs", "unit_tests", "e2e_tests", "audit"]
    assert "lane docs: only documents changed" in ran.stderr


@pytest.mark.parametrize("command", [["--list"], ["check"], ["sla"], ["profile", "lint"], ["plan"]])
def test_misspelled_lane_is_suggested_by_each_command(repository: Repository, command: list[str]) -> None:
    ran = call_command(repository.root, *command, "--lane", "standrad")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "unknown lane 'standrad': did you mean 'standard'? Choose from docs, standard, heavy" in ran.stderr
