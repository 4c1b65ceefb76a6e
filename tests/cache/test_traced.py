"""Stages with `inputs: auto`: the files that their commands are seen to use are their inputs."""

from __future__ import annotations

import gc
import getpass
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from paropt_exporter.cache.path_sets import PathSet, PathSets, UsedPath
from paropt_exporter.cache.preview import preview_plan
from paropt_exporter.cache.traced_results import PROOFS, TracedResults
from paropt_exporter.events import CacheReason
from paropt_exporter.executors.commands.command_pool import CommandPool
from paropt_exporter.executors.supervisor.seccomp import find_refusal
from paropt_exporter.plan import Commands
from paropt_exporter.plan.batches import build_task
from support import lanes
from support.cached_project import CachedProject, Ran
from support.command_scripts import HANG_SECONDS, shell
from support.processes import run_python
from support.traced_project import TracedProject, wait_for_next_ticks

REFUSAL = find_refusal()
pytestmark = pytest.mark.skipif(bool(REFUSAL), reason=f"this system does not let commands be traced: {REFUSAL}")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[TracedProject]:
    with CommandPool(2) as pool:
        made = TracedProject(tmp_path, pool)
        made.write("src/a.py", "one")
        yield made


def test_stage_is_skipped_once_its_inputs_have_proved_themselves(project: TracedProject) -> None:
    notes = [project.run("cat src/a.py").stages["lint"].message for _ in range(1 + PROOFS)]
    last = project.run("cat src/a.py")
    assert last.is_cached("lint") and last.get_output("lint") == "one"
    assert len(notes) == 3


def test_shadow_run_counts_its_proofs(project: TracedProject) -> None:
    project.run("cat src/a.py")
    ran = project.run("cat src/a.py")
    assert ran.get_reason("lint") is CacheReason.NEW
    assert get_note(ran) == "unchanged: it runs to prove its traced inputs (1 of 2)"


def get_note(ran: Ran) -> str:
    return ran.tasks[0].cache_note


def test_nothing_about_traced_inputs_stays_in_memory_after_a_run(project: TracedProject) -> None:
    before = count_traced_results()
    with closing(project.project.build_cache()) as cache:
        for _ in range(1 + PROOFS):
            project.project.run_with(cache, project.build_stage("cat src/a.py"), pool=project.pool)
            assert count_traced_results() == before
        last = project.project.run_with(cache, project.build_stage("cat src/a.py"), pool=project.pool)
        assert last.is_cached("lint")


def count_traced_results() -> int:
    gc.collect()
    return sum(type(each) is TracedResults for each in gc.get_objects())


@pytest.mark.parametrize(
    ("line", "edit"),
    [
        ("cat src/a.py", "content"),
        ("cat src/a.py; cat src/b.py || true", "absence"),
        ("ls src", "name"),
        ("test -x src/a.py || echo no", "mode"),
        (". ./helper; echo $X", "helper"),
    ],
)
def test_change_of_a_used_path_is_a_miss(project: TracedProject, line: str, edit: str) -> None:
    project.write("helper", "X=1\n")
    assert project.prove(line).is_cached("lint")
    match edit:
        case "content":
            project.write("src/a.py", "two")
        case "mode":
            (project.root / "src/a.py").chmod(0o755)
        case "helper":
            project.write("helper", "X=2\n")
        case _:
            project.write("src/b.py", "new")
    ran = project.run(line)
    assert not ran.is_cached("lint") and ran.get_reason("lint") is CacheReason.INPUTS


def test_listed_file_that_becomes_a_link_is_a_miss(project: TracedProject) -> None:
    project.write("elsewhere", "two")
    assert project.prove("find src -type f").is_cached("lint")
    (project.root / "src/a.py").unlink()
    (project.root / "src/a.py").symlink_to("../elsewhere")
    assert project.run("find src -type f").get_output("lint") == ""


def test_change_of_an_unread_file_is_a_hit(project: TracedProject) -> None:
    project.prove("cat src/a.py")
    project.write("src/unread.py", "new")
    assert project.run("cat src/a.py").is_cached("lint")


def test_earlier_contents_are_hits_again(project: TracedProject) -> None:
    line = 'cat "src/$(cat choice)"'
    project.write("choice", "a.py")
    project.write("src/b.py", "two")
    project.prove(line)
    project.write("choice", "b.py")  # other paths: a second set under the weak key
    assert project.run(line).get_output("lint") == "two"
    project.write("choice", "a.py")
    ran = project.run(line)
    assert ran.is_cached("lint") and ran.get_output("lint") == "one"
    project.write("src/b.py", "three")
    assert project.run(line).is_cached("lint")  # it is not in this set
    project.write("choice", "b.py")
    assert project.run(line).get_output("lint") == "three"


def test_files_that_the_task_made_are_no_inputs(project: TracedProject) -> None:
    line = "test -e made || cp src/a.py made; cat made; ls > names"
    assert project.prove(line, outputs=("names",)).is_cached("lint")


def test_report_of_the_exporter_is_an_input_only_if_it_is_read(project: TracedProject) -> None:
    """A bare pytest lists the folder in which CI lets the exporter write `--report junit=report.xml`."""
    project.project.own_files = [project.root / "report.xml"]
    listing, reading = "ls > /dev/null; test -e report.xml || true", "cat report.xml || true"
    for number in range(1 + PROOFS):
        assert not project.run(listing).is_cached("lint")
        project.write("report.xml", f"run {number}")
    assert project.run(listing).is_cached("lint")
    assert project.prove(reading).is_cached("lint")
    project.write("report.xml", "another run")
    assert project.run(listing).is_cached("lint")
    assert project.run(reading).get_output("lint") == "another run"


def test_changed_file_of_the_tasks_own_is_a_miss(project: TracedProject) -> None:
    line = "test -e memo || cp src/a.py memo; cat memo"
    assert project.prove(line).is_cached("lint")
    project.write("memo", "other")
    ran = project.run(line)
    assert not ran.is_cached("lint") and ran.get_output("lint") == "other"


MEMO = "test -e build/sub/memo || cp src/a.py build/sub/memo; cat build/sub/memo"
MOVED = "test -e build || { mkdir new new/sub; cp src/a.py new/sub/memo; mv new build; }; cat build/sub/memo"


@pytest.mark.parametrize(
    ("line", "edited"),
    [
        ("mkdir -p build/sub; test -e build/sub/flag && echo found || true", "flag"),
        (f"mkdir -p build/sub; {MEMO}", "memo"),
        ("mkdir -p build/sub; ls build/sub", "flag"),
        ("mkdir -p build/sub; echo one > build/sub/own; ls build/sub", "flag"),
        (MOVED, "memo"),
    ],
)
def test_changed_file_in_a_folder_of_the_tasks_own_is_a_miss(project: TracedProject, line: str, edited: str) -> None:
    last = project.prove(line)
    assert last.is_cached("lint")
    project.write(f"build/sub/{edited}", "found\n")
    ran = project.run(line)
    assert not ran.is_cached("lint") and ran.get_output("lint") != last.get_output("lint")
    shutil.rmtree(project.root / "build")
    assert project.run(line).is_cached("lint")


def test_removed_folder_of_the_tasks_own_does_not_count(project: TracedProject) -> None:
    assert project.prove("mkdir work; test -e work/flag; ls work; rmdir work").is_cached("lint")


def test_task_that_changes_its_own_input_is_not_kept(project: TracedProject) -> None:
    project.write("counter", "1")
    ran = project.run("cat counter; echo more >> counter")
    assert ran.said == ["lint: not cached: it changes its own input counter: name it in `outputs`"]
    assert not project.run("cat counter; echo more >> counter").is_cached("lint")


@pytest.mark.parametrize("write", ["cat copy > made; mv made lock", "cat copy > lock", "rm lock; cp copy lock"])
def test_file_that_a_task_writes_again_as_it_was_is_an_input(project: TracedProject, write: str) -> None:
    line = f"cp lock copy; {write}; rm copy; cat lock"
    project.write("lock", "one")
    assert project.prove(line).is_cached("lint")
    project.write("lock", "two")
    ran = project.run(line)
    assert not ran.is_cached("lint") and ran.get_output("lint") == "two"


def test_file_that_a_task_writes_again_with_another_mode_is_not_kept(project: TracedProject) -> None:
    project.write("lock", "one")
    ran = project.run("cat lock > copy; chmod +x copy; mv copy lock")
    assert ran.said == ["lint: not cached: it changes its own input lock: name it in `outputs`"]


def test_task_that_changes_an_output_that_it_read_is_not_kept(project: TracedProject) -> None:
    project.write("dist/out", "1")
    ran = project.run("cat dist/out; echo 2 > dist/out", outputs=("dist",))
    assert ran.said == ["lint: not cached: it reads its own output dist/out, and then changes it"]


def test_output_that_an_unchanged_task_reads_and_keeps_is_an_input(project: TracedProject) -> None:
    line = "cmp -s src/a.py dist/out || cp src/a.py dist/out; cat dist/out"  # as webpack writes
    project.write("dist/out", "one")
    assert project.prove(line, outputs=("dist",)).is_cached("lint")
    project.write("dist/out", "edited")
    repaired = project.run(line, outputs=("dist",))
    assert not repaired.is_cached("lint") and repaired.get_output("lint") == "one"
    project.write("src/a.py", "two")
    ran = [project.run(line, outputs=("dist",)) for _ in range(3)]
    assert [each.get_output("lint") for each in ran] == ["two"] * 3
    assert not ran[0].is_cached("lint") and ran[2].is_cached("lint")


def test_reason_why_no_result_was_kept_comes_before_a_proof(project: TracedProject) -> None:
    line = "mkdir -p dist; cat dist/out; cat src/a.py >> dist/out"
    project.run(line, outputs=("dist",))  # the first run finds no outputs, so its result is kept
    for _ in range(2):
        project.run(line, outputs=("dist",))
    ran = project.run(line, outputs=("dist",))
    assert ran.get_reason("lint") is CacheReason.OWN_INPUT
    assert get_note(ran) == "it reads its own output dist/out, and then changes it"


def test_input_edited_during_the_run_is_not_kept(project: TracedProject) -> None:
    with edit_when_asked(project, lambda: (project.root / "src/a.py").write_text("two")) as ask:
        ran = project.run(f"cat src/a.py; {ask}", allows_servers=True)
    assert ran.said == ["lint: not cached: src/a.py changed during the run"]


@pytest.mark.parametrize(("name", "change"), [("a.py", "changed"), ("new.py", "appeared")])
def test_edit_while_a_result_is_kept_is_seen(
    project: TracedProject, monkeypatch: pytest.MonkeyPatch, name: str, change: str
) -> None:
    """The states of other paths are read after those of the used ones."""
    add = PathSets.add

    def edit_and_add(sets: PathSets, paths: Sequence[UsedPath]) -> PathSet:
        (project.root / "src" / name).write_text("two")
        return add(sets, paths)

    monkeypatch.setattr(PathSets, "add", edit_and_add)
    ran = project.run("cat src/*.py; ls src")
    assert ran.said == [f"lint: not cached: src/{name} {change} during the run"]


def test_name_that_was_in_a_folder_only_at_a_later_listing_is_an_edit(project: TracedProject) -> None:
    path = project.root / "src/z.py"
    with edit_when_asked(project, path.touch, path.unlink) as ask:
        ran = project.run(f"ls src; {ask}; ls src; {ask}", allows_servers=True)
    assert ran.said == ["lint: not cached: src/z.py changed during the run"]


@contextmanager
def edit_when_asked(project: TracedProject, *edits: Callable[[], object]) -> Iterator[str]:
    """Yield a command that lets a process make the next edit, one that is no part of the task: another stage, say."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(project.root / "editor"))
        server.listen()
        os.set_inheritable(server.fileno(), False)
        child = os.fork()
        if not child:
            try:
                for edit in edits:
                    connection, _ = server.accept()
                    edit()
                    connection.sendall(b"done")
            finally:
                os._exit(0)
        script = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('editor'); s.recv(9)"
        yield f'{sys.executable} -I -S -c "{script}"'
        os.waitpid(child, 0)


def test_connection_to_a_server_is_not_kept_unless_the_stage_allows_it(project: TracedProject) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        line = f"{sys.executable} -I -S -c \"import socket; socket.create_connection(('127.0.0.1', {port}))\""
        refused = project.run(line)
        allowed = [project.run(line, allows_servers=True) for _ in range(2 + PROOFS)]
    why = f"not traceable: it connected to port {port} of this host; `cache: true` allows this"
    assert refused.said == [f"lint: not cached: {why}"]
    assert allowed[-1].is_cached("lint")


def test_incomplete_trace_is_not_kept_and_the_next_run_says_so(project: TracedProject) -> None:
    line = f"cat src/a.py; {sys.executable} -c 'import ctypes; ctypes.CDLL(None).unshare(0)'"
    ran = project.run(line)
    assert ran.said == ["lint: not cached: not traceable: it leaves its namespaces"]
    again = project.run(line)
    assert again.get_reason("lint") is CacheReason.UNCACHEABLE


def test_killed_supervisor_costs_the_result_only(project: TracedProject) -> None:
    line = "cat src/a.py; test -e ran || { echo > ran; kill -KILL $PPID; sleep 600; }"
    ran = project.run(line)
    assert ran.stages["lint"].result.value == "success"
    assert ran.said == ["lint: not cached: not traceable: the supervisor of commands died"]


def test_failure_with_equal_inputs_takes_the_proofs_back(project: TracedProject) -> None:
    flag = project.root.parent / "flag"  # in the folder for temporary files: its absence does not count
    line = f"cat src/a.py; test ! -e {flag}"
    project.project.environ["TMPDIR"] = os.fspath(project.root.parent)
    project.run(line)
    project.run(line)
    flag.touch()
    project.run(line)
    flag.unlink()
    assert not any(project.run(line).is_cached("lint") for _ in range(1 + PROOFS))
    assert project.run(line).is_cached("lint")


def test_failure_before_a_hit_explains_no_later_miss(project: TracedProject) -> None:
    """An edit after it had the reason `it failed in its last run`."""
    line = "cat src/a.py; grep -q bad src/a.py && exit 1 || true"
    assert project.prove(line).is_cached("lint")
    project.write("src/a.py", "bad")
    project.run(line)
    project.write("src/a.py", "one")
    assert project.run(line).is_cached("lint")
    project.write("src/a.py", "two")
    assert get_note(project.run(line)) == "src/a.py changed"


def test_other_outputs_with_equal_inputs_take_the_proofs_back(project: TracedProject) -> None:
    line = "cat src/a.py; date +%N > out"
    ran = [project.run(line, outputs=("out",)) for _ in range(3 + PROOFS)]
    assert not any(each.is_cached("lint") for each in ran)
    why = "with the same inputs it wrote a different out"
    assert ran[1].said == [f"lint: not cached: {why}"] and get_note(ran[2]) == why


def test_declared_inputs_count_where_nothing_can_be_traced(project: TracedProject) -> None:
    refusal = "the kernel or the container forbids it: Operation not permitted"

    def run() -> Ran:
        stage = project.build_stage("cat src/a.py", inputs=("src/**",))
        return project.project.run(stage, pool=project.pool, find_refusal=lambda: refusal)

    assert run().said == [f"inputs: auto: nothing can be traced ({refusal}): the declared inputs count"]
    assert run().is_cached("lint")
    project.write("src/a.py", "two")
    assert run().get_output("lint") == "two"


CONFIG = """
project: demo
stages:
  - {number: 1, name: lint, run: cat src/a.py, inputs: [auto, "src/**"]}
"""


def test_exporter_inside_a_traced_command_says_so_in_one_line(project: TracedProject, tmp_path: Path) -> None:
    project.write("paropt.yml", CONFIG)
    store = {"PAROPT_CACHE_DIR": str(tmp_path / "inner"), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "paropt_exporter", "--once", "--web.listen-address", "127.0.0.1:0"]
    future = project.pool.submit_commands("t", [command] * 2, cwd=project.root, env=store, traced=True)
    outcome = future.result(HANG_SECONDS)
    line = "inputs: auto: nothing can be traced (a tracer or a container watches its system calls already)"
    assert outcome.exit_code == 0, outcome.output
    assert outcome.output.count(f"{line}: the declared inputs count") == 2
    assert "1 cached" in outcome.output


def test_plan_explains_what_a_traced_stage_would_do(project: TracedProject) -> None:
    project.write("paropt.yml", CONFIG)

    def preview() -> list[tuple[CacheReason, str]]:
        plan = lanes.plan(project.build_stage("cat src/a.py"), root=project.root)
        found = preview_plan(plan, project.project.store, project.project.environ)
        return [(each.reason, each.note) for each in found]

    assert preview() == [(CacheReason.NEW, "no result in the cache yet")]
    project.run("cat src/a.py")
    assert preview() == [(CacheReason.NEW, "unchanged: it runs to prove its traced inputs (1 of 2)")]
    for _ in range(PROOFS):
        project.run("cat src/a.py")
    assert preview() == [(CacheReason.UNCHANGED, "unchanged")]
    project.write("src/a.py", "two")
    assert preview() == [(CacheReason.INPUTS, "src/a.py changed")]


def test_interpreter_of_a_script_is_an_input(project: TracedProject) -> None:
    project.project.write_file("bin/mine", '#!/bin/sh\nexec /bin/sh "$@"\n', mode=0o755)
    project.project.write_file("bin/tool", f"#!{project.root}/bin/mine\ncat src/a.py\n", mode=0o755)
    wait_for_next_ticks(project.root / "bin/tool")
    command = ("bin/tool",)
    assert project.prove(command).is_cached("lint")
    project.write("bin/mine", '#!/bin/sh\n# new\nexec /bin/sh "$@"\n')
    (project.root / "bin/mine").chmod(0o755)
    assert not project.run(command).is_cached("lint")


@pytest.mark.parametrize("folder", [".mypy_cache/x", "__pycache__", "node_modules/.cache/tool", "node_modules/.vite"])
def test_caches_of_tools_do_not_count(project: TracedProject, folder: str) -> None:
    line = f"mkdir -p {folder}; cat {folder}/a .eslintcache || true; date +%N | tee {folder}/a > .eslintcache; ls -a"
    assert project.prove(line).is_cached("lint")


def test_folder_that_is_marked_as_a_cache_does_not_count(project: TracedProject) -> None:
    project.write("marked/CACHEDIR.TAG", "")
    assert project.prove("cat marked/a || true; date +%N > marked/a").is_cached("lint")


@pytest.mark.parametrize("mark", ["CACHEDIR.TAG", "src.txt"])
def test_output_of_a_needed_stage_counts_in_a_cache_too(project: TracedProject, mark: str) -> None:
    """Cargo marks `target` as a cache: tests of a new program were skipped."""
    project.write(f"target/{mark}", "")
    project.write("target/app", "one")
    needed = ("target/app",)
    assert project.prove("cat target/app", needed_outputs=needed).is_cached("lint")
    project.write("target/app", "two")
    assert project.run("cat target/app", needed_outputs=needed).get_output("lint") == "two"


def test_bytecode_among_outputs_of_a_needed_stage_does_not_count(project: TracedProject) -> None:
    """A stage that imported a generated module wrote its bytecode again once that had changed: it was not cached."""
    project.write("gen/__pycache__/module.pyc", "one")
    project.write("gen/module.py", "two")
    line = "cat gen/__pycache__/module.pyc; cat gen/module.py > gen/__pycache__/module.pyc"
    assert project.prove(line, needed_outputs=("gen",)).is_cached("lint")


@pytest.mark.parametrize("target", ["/proc/self/mounts", "/proc/self/stat", "/dev/null"])
def test_files_of_the_kernel_do_not_count_behind_a_link(project: TracedProject, target: str) -> None:
    (project.root / "link").symlink_to(target)
    assert project.prove("cat link > /dev/null; cat src/a.py").is_cached("lint")
    (project.root / "link").unlink()
    (project.root / "link").symlink_to("src/a.py")
    assert not project.run("cat link > /dev/null; cat src/a.py").is_cached("lint")


def test_logs_of_npm_do_not_count(project: TracedProject, tmp_path: Path) -> None:
    project.project.environ["HOME"] = str(tmp_path)
    (tmp_path / ".npm/_logs").mkdir(parents=True)
    line = "cat src/a.py; cd ~/.npm; date > _update-notifier-last-checked; cat _logs/* || true; echo > _logs/$$"
    assert project.prove(line).is_cached("lint")


def test_packages_that_npx_installed_count(project: TracedProject, tmp_path: Path) -> None:
    project.project.environ["HOME"] = str(tmp_path)
    tool = tmp_path / ".npm/_npx/tool"
    tool.parent.mkdir(parents=True)
    tool.write_text("one")
    wait_for_next_ticks(tool)
    line = "cat ~/.npm/_npx/tool"
    assert project.prove(line).is_cached("lint")
    tool.write_text("two")
    assert project.run(line).get_output("lint") == "two"


def test_virtual_environment_in_the_users_cache_folder_counts(project: TracedProject, tmp_path: Path) -> None:
    """As Poetry's: an upgraded package was no change."""
    project.project.environ["HOME"] = str(tmp_path)
    environment = tmp_path / ".cache/pypoetry/virtualenvs/shop"
    module = environment / "lib/module.py"
    module.parent.mkdir(parents=True)
    module.write_text("one")
    (environment / "pyvenv.cfg").touch()
    wait_for_next_ticks(module)
    line = "cd ~/.cache/pypoetry; date +%N > log; cat log > /dev/null; cat virtualenvs/shop/lib/module.py"
    assert project.prove(line).is_cached("lint")
    module.write_text("two")
    assert project.run(line).get_output("lint") == "two"


def test_no_cache_runs_and_replaces_the_result(project: TracedProject) -> None:
    project.prove("cat src/a.py")
    assert not project.run("cat src/a.py", no_cache=True).is_cached("lint")
    assert project.run("cat src/a.py").is_cached("lint")


def test_other_checkout_has_the_same_sets(project: TracedProject, tmp_path: Path) -> None:
    project.prove("cat src/a.py")
    with CommandPool(1) as pool:
        other = TracedProject(tmp_path / "other", pool)
        other.project.store = project.project.store
        other.write("src/a.py", "one")
        assert other.run("cat src/a.py").is_cached("lint")


@pytest.mark.parametrize("change", ["content", "absence", "place"])
def test_file_beside_another_checkout_is_another_file(project: TracedProject, tmp_path: Path, change: str) -> None:
    """As in a work tree of a repository whose configs are in sub-folders: it was a hit with other shared files."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        (folder / "shared").write_text(f"{folder.name}\n")
    if change == "absence":
        (folders[0] / "shared").unlink()
    elif change == "place":
        (folders[1] / "shared").write_text("one\n")
    wait_for_next_ticks(tmp_path / "two/shared")
    project.project.environ["TMPDIR"] = str(tmp_path / "temporary")  # not the folder of both checkouts
    line = "cat ../shared 2>/dev/null || echo none"
    with CommandPool(1) as pool:
        one, two = (TracedProject(folder, pool) for folder in folders)
        for made in (one, two):
            made.project.store = project.project.store
            made.project.environ.update(project.project.environ)
            made.write("src/a.py", "one")
        assert one.prove(line).is_cached("lint")
        ran = two.run(line)
    assert ran.get_output("lint") == (folders[1] / "shared").read_text()
    assert not ran.is_cached("lint")


def test_checkouts_in_one_folder_share_files_beside_them(project: TracedProject, tmp_path: Path) -> None:
    project.project.environ["TMPDIR"] = str(tmp_path / "temporary")
    (tmp_path / "shared").write_text("one")
    wait_for_next_ticks(tmp_path / "shared")
    assert project.prove("cat ../shared").is_cached("lint")
    other = CachedProject(tmp_path / "other", tmp_path / "store", work={}, environ=project.project.environ)
    stage = other.build_stage("lint", command=tuple(shell("cat ../shared")), inputs=None, traces_inputs=True)
    assert other.run(stage, pool=project.pool).is_cached("lint")


def write_tool(project: TracedProject, folder: str, output: str) -> str:
    """Write a program, and return its folder."""
    project.write(f"{folder}/tool", f"#!/bin/sh\necho {output}\n")
    (project.root / folder / "tool").chmod(0o755)
    wait_for_next_ticks(project.root / folder / "tool")
    return str(project.root / folder)


def test_other_program_that_path_leads_to_is_a_miss(project: TracedProject) -> None:
    """As after `nvm use`, or in another virtual environment: the script and all programs are unchanged."""
    project.write("check.sh", "tool")
    first, second = write_tool(project, "v1", "one"), write_tool(project, "v2", "two")
    environ, path = project.project.environ, project.project.environ["PATH"]
    environ["PATH"] = f"{first}:{path}"
    assert project.prove("sh check.sh").get_output("lint") == "one\n"
    environ["PATH"] = f"{second}:{first}:{path}"
    ran = project.run("sh check.sh")
    assert ran.get_output("lint") == "two\n" and get_note(ran) == "tool on PATH changed"
    environ["PATH"] = f"{project.root / 'none'}:{first}:{path}"
    assert project.run("sh check.sh").is_cached("lint"), "it leads to the first one again"


def test_programs_of_another_checkout_are_the_same_ones(project: TracedProject, tmp_path: Path) -> None:
    path = project.project.environ["PATH"]
    project.project.environ["PATH"] = f"{write_tool(project, 'bin', 'one')}:{path}"
    assert project.prove("tool").is_cached("lint")
    with CommandPool(1) as pool:
        other = TracedProject(tmp_path / "other", pool)
        other.project.store = project.project.store
        other.project.environ["PATH"] = f"{write_tool(other, 'bin', 'one')}:{path}"
        assert other.run("tool").is_cached("lint")


def test_item_whose_files_changed_runs_alone(project: TracedProject) -> None:
    project.write("src/b.py", "two")
    stage = project.project.build_stage(
        "lint", command=("cat",), items=("src/a.py", "src/b.py"), inputs=None, traces_inputs=True
    )
    for _ in range(1 + PROOFS):
        project.project.run(stage, pool=project.pool)
    project.write("src/b.py", "new")
    ran = project.project.run(stage, pool=project.pool)
    assert [(task.item, task.cached) for task in ran.tasks] == [("src/a.py", True), ("src/b.py", False)]
    assert ran.get_output("lint") == "onenew"


def test_items_of_a_batch_share_its_set(project: TracedProject) -> None:
    project.write("src/b.py", "two")
    template = Commands(steps=(("cat", "{items}"),))

    def run(*items: str) -> Ran:
        stage = replace(project.build_stage("true"), template=template, tasks=(build_task(template, 0, items),))
        return project.project.run(stage, pool=project.pool)

    for _ in range(1 + PROOFS):
        run("src/a.py", "src/b.py")
    assert run("src/a.py").is_cached("lint")
    project.write("src/b.py", "new")
    assert not run("src/a.py").is_cached("lint")  # it may have read b.py too: nothing tells which item did


def test_output_that_only_the_first_run_wrote_is_restored(project: TracedProject) -> None:
    line = "cat src/a.py; mkdir -p out; test -e out/a || : > out/a"
    assert project.prove(line, outputs=("out",)).is_cached("lint")
    shutil.rmtree(project.root / "out")
    assert project.run(line, outputs=("out",)).is_cached("lint") and (project.root / "out/a").exists()


def test_outputs_that_the_proofs_only_read_are_restored(project: TracedProject) -> None:
    """As `make` reads its .d files: in the results of the proofs, all files were left by an earlier run."""
    line = "cat out/d || :; [ out/a -nt src/a.py ] || { mkdir -p out; cat src/a.py > out/a; echo src/a.py > out/d; }"
    assert project.prove(line, outputs=("out",)).is_cached("lint")
    project.write("src/a.py", "two")
    project.run(line, outputs=("out",))
    assert (project.root / "out/a").read_text() == "two"
    project.write("src/a.py", "one")
    assert project.run(line, outputs=("out",)).is_cached("lint")
    assert (project.root / "out/a").read_text() == "one"


def test_removed_output_is_restored_though_the_task_lists_its_folder(project: TracedProject) -> None:
    """The stage ran again: `the files in ./ are others`."""
    line = "ls > /dev/null; cat src/a.py; test -d dist || mkdir dist; cat src/a.py > dist/a"
    project.run(line, outputs=("dist",))
    project.write("notes", "")  # so that all sets are of runs which found `dist`
    assert project.prove(line, outputs=("dist",)).is_cached("lint")
    shutil.rmtree(project.root / "dist")
    assert project.run(line, outputs=("dist",)).is_cached("lint")
    assert (project.root / "dist/a").read_text() == "one"


def test_run_without_an_earlier_runs_output_disproves_nothing(project: TracedProject) -> None:
    """Its result has no such file: with equal inputs, this is no other end."""
    project.write("out/old", "")
    line = "cat src/a.py; mkdir -p out; echo > out/a"
    project.run(line, outputs=("out",))
    (project.root / "out/old").unlink()
    ran = project.run(line, outputs=("out",))
    assert get_note(ran) == "out/old is gone or changed: the kept run had found it there" and ran.said == []
    assert get_note(project.run(line, outputs=("out",))) == "unchanged: it runs to prove its traced inputs (1 of 2)"


def test_damaged_or_hostile_sets_are_a_miss(project: TracedProject) -> None:
    project.prove("cat src/a.py")
    sets = project.project.store.folder / "v1/sets"
    (manifest,) = [path for path in sets.rglob("*") if path.is_file()]
    before = manifest.read_text()
    for content in ("", "[]", before.replace('"sets": [["', '"sets": [["../../')):
        manifest.write_text(content)
        ran = project.run("cat src/a.py")
        assert not ran.is_cached("lint") and ran.get_reason("lint") is CacheReason.EVICTED
        manifest.write_text(before)
    assert project.run("cat src/a.py").is_cached("lint")


def test_path_sets_go_when_the_store_is_full(project: TracedProject) -> None:
    project.prove("cat src/a.py")
    project.project.store.prune(1, spare_young=False)
    assert not project.run("cat src/a.py").is_cached("lint")


def test_cache_without_traced_stages_loads_no_executors() -> None:
    script = (
        "import sys, paropt_exporter.cache.stage_cache, paropt_exporter.cache.preview;"
        "print([name for name in sys.modules if '.executors.commands' in name or 'seccomp' in name])"
    )
    done = run_python(script, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "line",
    [
        "cat cur/sub/*",
        "ls cur/sub",
        "cd cur/sub; cat x",
        "cd chain; cat x",
        "mkdir build; cd build; ls ../cur/sub; cd ..; rm -r build",
    ],
)
def test_folder_behind_a_link_that_leads_elsewhere_is_a_miss(project: TracedProject, line: str) -> None:
    for name in ("old/sub/x", "new/sub/x", "new/sub/y"):
        project.write(name, name)
    (project.root / "cur").symlink_to("old")
    (project.root / "chain").symlink_to("cur/sub")
    assert project.prove(line).is_cached("lint")
    (project.root / "cur").unlink()
    (project.root / "cur").symlink_to("new")
    assert not project.run(line).is_cached("lint")


def test_stages_folder_behind_a_link_that_leads_elsewhere_is_a_miss(project: TracedProject) -> None:
    project.write("old/sub/x", "old")
    project.write("new/sub/x", "new")
    cwd = project.root / "cur/sub"
    (project.root / "cur").symlink_to("old")
    assert project.prove("cat x", cwd=cwd).is_cached("lint")
    (project.root / "cur").unlink()
    (project.root / "cur").symlink_to("new")
    assert project.run("cat x", cwd=cwd).get_output("lint") == "new"


@pytest.mark.parametrize("change", ["make", "remove"])
def test_folder_before_two_dots_is_an_input(project: TracedProject, change: str) -> None:
    """Without the folder, the kernel does not find the file, though `include/../src/a.py` is another name of it."""
    include = project.root / "include"
    if change == "remove":
        include.mkdir()
        wait_for_next_ticks(include)
    line = "cat include/../src/a.py 2>/dev/null || echo none"
    assert project.prove(line).is_cached("lint")
    if change == "make":
        include.mkdir()
    else:
        include.rmdir()
    assert project.run(line).get_output("lint") == ("one" if change == "make" else "none\n")


@pytest.mark.parametrize(
    "line",
    [
        "mkdir build; cd build; cat ../src/a.py; cd ..; rm -r build",
        "mkdir build; ln -s ../src build/s; cat build/s/a.py; rm -r build",
        "ln -s src/a.py link; cat link; rm link",
        "T=$(mktemp -d); ln -s $PWD/src $T/s; cat $T/s/a.py; rm -r $T",
    ],
)
def test_source_that_a_made_folder_or_link_leads_to_is_an_input(project: TracedProject, line: str) -> None:
    assert project.prove(line).is_cached("lint")
    project.write("src/a.py", "two")
    assert project.run(line).get_output("lint") == "two"


EMPTY = "import os\ntry: os.open('gone', os.O_WRONLY | os.O_TRUNC)\nexcept FileNotFoundError: print('none')"
REMOVE = "import os, sys\ntry: os.{}('gone')\nexcept FileNotFoundError: print('none')"


@pytest.mark.parametrize(
    ("line", "change"),
    [
        ((sys.executable, "-I", "-S", "-c", REMOVE.format("unlink")), "make"),
        ((sys.executable, "-I", "-S", "-c", REMOVE.format("rmdir")), "make"),
        ("test -e gone || echo none; touch gone; rm gone", "make"),
        ("mkdir there && rmdir there", "remove"),
        ((sys.executable, "-I", "-S", "-c", EMPTY), "make"),
    ],
)
def test_presence_that_a_failed_write_shows_is_an_input(project: TracedProject, line: str, change: str) -> None:
    (project.root / "there").mkdir()
    line = line if not isinstance(line, str) else f"{line} || true"
    assert project.prove(line).is_cached("lint")
    if change == "make":
        project.write("gone", "")
    else:
        (project.root / "there").rmdir()
    assert not project.run(line).is_cached("lint")


@pytest.mark.parametrize(
    "line",
    [
        "echo one > there/new || true",
        "test -e there/new || echo one >> there/new || true",
        "mkdir there/new || true",
        "ln -s one there/new || true",
        "echo one > new; ln new there/new || true; rm new",
    ],
)
@pytest.mark.parametrize("change", ["make", "remove"])
def test_folder_that_a_write_needs_is_an_input(project: TracedProject, line: str, change: str) -> None:
    folder = project.root / "there"
    if change == "remove":
        folder.mkdir()
    assert project.prove(line).is_cached("lint")
    if change == "make":
        folder.mkdir()
    else:
        shutil.rmtree(folder)
    assert not project.run(line).is_cached("lint")


@pytest.fixture
def temporary(project: TracedProject, tmp_path: Path) -> Path:
    """The folder for temporary files, with one of an earlier run."""
    folder = tmp_path / "temporary"
    (folder / "old").mkdir(parents=True)
    project.project.environ["TMPDIR"] = str(folder)
    (folder / "old/a").write_text("one")
    return folder


def test_removed_temporary_folders_of_earlier_runs_do_not_count(project: TracedProject, temporary: Path) -> None:
    for number in range(PROOFS + 2):
        (temporary / f"old/{number}/sub").mkdir(parents=True)
        (temporary / f"old/{number}/sub/file").write_text("")
    line = "cat src/a.py; cd $TMPDIR; set -- old/[0-9]*; mv $1 garbage; find garbage; rm -r garbage"
    assert project.prove(line).is_cached("lint")


def test_names_in_the_temporary_folder_do_not_count(project: TracedProject, temporary: Path) -> None:
    line = "cat src/a.py; ls $TMPDIR >&2"  # as esbuild lists all folders above its sources
    for number in range(PROOFS + 1):
        project.run(line)
        (temporary / f"of-another-program-{number}").touch()
    assert project.run(line).is_cached("lint")


def test_file_that_a_task_tried_to_open_in_the_temporary_folder_counts(project: TracedProject, temporary: Path) -> None:
    line = "cat $TMPDIR/settings 2>/dev/null || echo none; echo > $TMPDIR/made; cat $TMPDIR/made; rm $TMPDIR/made"
    assert project.prove(line).is_cached("lint")
    (temporary / "settings").write_text("found")
    assert "found" in project.run(line).get_output("lint")


def test_temporary_folder_that_another_program_removes_does_not_count(project: TracedProject, temporary: Path) -> None:
    """Two suites of pytest at once remove the same folders of earlier runs."""
    with edit_when_asked(project, lambda: shutil.rmtree(temporary / "old")) as ask:
        ran = project.run(f"cat src/a.py; ls $TMPDIR/old; {ask}", allows_servers=True)
    assert ran.said == []


def test_temporary_folder_may_be_a_link(project: TracedProject, temporary: Path) -> None:
    project.project.environ["TMPDIR"] = str(temporary.with_name("link"))
    temporary.with_name("link").symlink_to(temporary)
    assert project.prove("cat src/a.py; cd $TMPDIR; mv old new; mv new old").is_cached("lint")


@pytest.mark.parametrize(
    "line",
    [
        "mv $TMPDIR/old $TMPDIR/new; cat $TMPDIR/new/a; mv $TMPDIR/new $TMPDIR/old",
        "cd $TMPDIR; mkdir m; mv old m; mv m n; cat n/old/a; mv n/old .; rmdir n",
        "cd $TMPDIR/old; mv ../old ../new; cat a; mv ../new ../old",
        "cd $TMPDIR; cat new/a 2>/dev/null; mv old new; cat new/a; mv new old",
        "mv $TMPDIR/old here; cat here/a; mv here $TMPDIR/old",
        "cp -r $TMPDIR/old keep; mv $TMPDIR/old here; mv here $TMPDIR/old; cat keep/a",
        "mv src $TMPDIR/src; cat $TMPDIR/src/a.py; mv $TMPDIR/src src",
    ],
)
def test_files_in_a_moved_folder_are_not_traceable(project: TracedProject, temporary: Path, line: str) -> None:
    ran = project.run(line)
    assert ran.get_output("lint") == "one"
    assert ran.said[0].startswith("lint: not cached: not traceable: it moves a folder that it did not make")


def test_suite_that_uses_pytests_temporary_folders_is_skipped(project: TracedProject, temporary: Path) -> None:
    user = getpass.getuser()
    for number in range(PROOFS + 5):  # pytest keeps three folders of earlier runs, and removes older ones
        (temporary / f"pytest-of-{user}").mkdir(mode=0o700, exist_ok=True)
        (temporary / f"pytest-of-{user}/pytest-{number}/test_a0").mkdir(parents=True)
    project.write("test_a.py", "def test_a(tmp_path):\n    (tmp_path / 'made').write_text('')\n")
    project.project.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    pytest_command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_a.py")
    assert project.prove(pytest_command).is_cached("lint")
