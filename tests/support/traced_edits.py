"""Random edits of a project whose stages have traced inputs: after each one a run, compared with commands run cold."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paropt_exporter.executors import procfs
from paropt_exporter.executors.commands.command_pool import CommandPool
from paropt_exporter.plan import PlannedStage
from paropt_exporter.plan.stage_environment import build_command_environment
from support import processes
from support.cached_project import Ran
from support.pool_tasks import eventually
from support.random_edits import FalseHit, RandomEdits
from support.traced_project import wait_for_next_ticks

_CONTENTS = ("one", "two", "six")
_SECONDS = 60
_MOST_DELAY_SECONDS = 0.08  # about as long as a run of the stages

_LINT = """
. bin/helper
cd src
for path in *.py deep/*.py; do
  test -e "$path" || continue
  echo "$path: $(cat "$path")"
  test -x "$path" && echo runs
done
test -L link && readlink link
test -f link && cat link
test -d link && ls link
if test -e extra; then cat extra; else echo no extra; fi
echo "$LEVEL"
"""
_BUILD = """
mkdir -p dist
cat src/a.py > dist/out 2>/dev/null || echo none > dist/out
ls src > dist/names
echo built
"""
_USE = "cat dist/out dist/names"
_CHOOSE = """
read -r name < choice
if test -f "src/$name"; then cat "src/$name"; else echo "$name is missing"; fi
"""
# It keeps a file of its own beside the sources, as tools do that know no better.
_MEMO = """
test -e memo || cat src/b.py > memo 2>/dev/null || echo none > memo
cat memo
"""
# It does so in a folder that it makes.
_KEEP = """
mkdir -p kept/sub
test -e kept/sub/memo || cat src/b.py > kept/sub/memo 2>/dev/null || echo none > kept/sub/memo
cat kept/sub/memo
test -e kept/sub/flag && cat kept/sub/flag
ls kept/sub
"""
_REPORT = """
if cat src/a.py > reports/a; then echo written; else echo no folder; fi 2>/dev/null
"""
# It writes one output only if that differs, as webpack does. It reads the other one and writes it again, as Sphinx.
_BUNDLE = """
mkdir -p bundle
wanted=$(cat src/b.py 2>/dev/null || echo none)
test "$(cat bundle/out 2>/dev/null)" = "$wanted" || echo "$wanted" > bundle/out
test ! -e bundle/choice || read -r _ < bundle/choice
cat choice > bundle/choice
cat bundle/out
"""
_TOOL = "tool"
_PATH = "/usr/bin:/bin"
_SCRIPTS = {
    "lint": _LINT,
    "build": _BUILD,
    "use": _USE,
    "choose": _CHOOSE,
    "memo": _MEMO,
    "keep": _KEEP,
    "report": _REPORT,
    "bundle": _BUNDLE,
    "call": _TOOL,
}
_OUTPUTS = ("dist/out", "dist/names", "bundle/out", "bundle/choice")


class TracedEdits:
    """A project with nine stages that are shell scripts, with `inputs: auto`."""

    def __init__(self, folder: Path, seed: int, pool: CommandPool) -> None:
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.hits = 0
        self._files = RandomEdits(folder, seed)
        self.project = self._files.project
        self.project.work = {}
        for version in ("v1", "v2"):
            self.project.write_file(f"{version}/tool", f"#!/bin/sh\necho {version}\n", mode=0o755)
        self.edit_path()
        self._pool = pool
        self._copy = folder / "copy"
        for name, script in _SCRIPTS.items():
            self.project.write_file(f"bin/{name}", f"#!/bin/sh\n{script}", mode=0o755)
        self.project.write_file("bin/helper", "echo helper 1\n")
        self.project.write_file("choice", "a.py\n")
        self._edits: list[Callable[[], object]] = [
            *(getattr(self._files, name) for name in _FILE_EDITS),
            *(getattr(self, name) for name in dir(self) if name.startswith("edit_")),
        ]
        self._settle()

    def step(self) -> None:
        """Edit the project, run it, and compare. Raises FalseHit."""
        edit = self.random.choice(self._edits)
        name = edit.__name__.removeprefix("edit_")
        self.counts[name] += 1
        edit()
        self._settle()
        expected = self._run_cold()
        ran = self._run()
        for stage, output in expected.items():
            self.hits += ran.is_cached(stage)
            self.reasons[str(ran.get_reason(stage))] += 1
            if ran.get_output(stage) != output:
                how = "was cached with" if ran.is_cached(stage) else "ran and printed"
                raise FalseHit(f"after {name}: {stage} {how} {ran.get_output(stage)!r}, a cold run prints {output!r}")
        for file in _OUTPUTS:
            if (self.project.root / file).read_bytes() != (self._copy / file).read_bytes():
                raise FalseHit(f"after {name}: {file} differs from that of a cold run")

    def edit_choice(self) -> None:
        (self.project.root / "choice").write_text(f"{self.random.choice(('a.py', 'b.py', 'c.py', 'link'))}\n")

    def edit_helper(self) -> None:
        (self.project.root / "bin/helper").write_text(f"echo helper {self.random.choice('12')}\n")

    def edit_file_that_is_mostly_absent(self) -> None:
        extra = self.project.root / "src/extra"
        if extra.exists():
            extra.unlink()
        else:
            extra.write_text(self.random.choice(_CONTENTS))

    def edit_own_file_of_a_stage(self) -> None:
        memo = self.project.root / "memo"
        if self.random.random() < 0.5:
            memo.unlink(missing_ok=True)
        else:
            memo.write_text(self.random.choice(_CONTENTS))

    def edit_output_that_its_stage_reads(self) -> None:
        bundle = self.project.root / "bundle/out"
        if self.random.random() < 0.5:
            bundle.unlink(missing_ok=True)
        else:
            self.project.write_file("bundle/out", f"{self.random.choice(_CONTENTS)}\n")

    def edit_file_in_a_folder_of_a_stage(self) -> None:
        folder = self.project.root / "kept/sub"
        match self.random.choice(("memo", "flag", "remove", "remove all")):
            case "remove":
                (folder / self.random.choice(("memo", "flag"))).unlink(missing_ok=True)
            case "remove all":
                shutil.rmtree(folder.parent, ignore_errors=True)
            case name:
                self.project.write_file(f"kept/sub/{name}", self.random.choice(_CONTENTS))

    def edit_folder_that_a_write_needs(self) -> None:
        folder = self.project.root / "reports"
        if folder.exists():
            shutil.rmtree(folder)
        else:
            folder.mkdir()

    def edit_path(self) -> None:
        folders = [str(self.project.root / folder) for folder in ("v1", "v2", "v3")]
        self.random.shuffle(folders)
        self.project.environ["PATH"] = os.pathsep.join([*folders, _PATH])

    def edit_unread_file(self) -> None:
        self.project.write_file("notes/today", f"{self.random.random()}")

    def edit_listed_folder_and_back(self) -> None:
        path = self.project.root / "src/deep/z.py"
        path.parent.mkdir(exist_ok=True)
        self._edit_during_a_run(lambda: path.write_text("odd"), path.unlink)

    def edit_content_during_a_run(self) -> None:
        path, content = self._pick(), f"{self.random.random()}"
        self._edit_during_a_run(lambda: path.write_text(content), lambda: None)

    def edit_content_during_a_run_and_back(self) -> None:
        path = self._pick()
        before = path.read_text()
        self._edit_during_a_run(lambda: path.write_text("odd"), lambda: path.write_text(before))

    def edit_by_killing_a_run(self) -> None:
        self._pick().write_text(f"{self.random.random()}")
        child = self._fork()
        time.sleep(self.random.random() * _MOST_DELAY_SECONDS)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        # On a busy machine its commands may live on for a moment, and write after the copy for the cold run was made.
        own = {os.getpid(), *procfs.list_descendants(os.getpid())}
        assert eventually(lambda: own.issuperset(processes.in_folder(self.project.root)))

    def edit_with_two_runs(self) -> None:
        self._pick().write_text(f"{self.random.random()}")
        child = self._fork()
        self._run()
        os.waitpid(child, 0)

    def _edit_during_a_run(self, edit: Callable[[], object], undo: Callable[[], object]) -> None:
        delay, pause = self.random.random() * _MOST_DELAY_SECONDS, self.random.random() * 0.01

        def act() -> None:
            time.sleep(delay)
            edit()
            time.sleep(pause)
            undo()

        self.project.write_file("choice", "c.py\n")
        thread = threading.Thread(target=act)
        thread.start()
        self._run()
        thread.join()

    def _settle(self) -> None:
        """Wait until the files are old enough for a result: two ticks of the file system's clock."""
        written = self._copy.with_name("written")
        written.touch()
        wait_for_next_ticks(written)

    def _run(self) -> Ran:
        return self.project.run(*self._build_stages(), pool=self._pool)

    def _run_cold(self) -> dict[str, str]:
        """Return what the stages print in a copy of the project, one after another."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self.project.root, self._copy, symlinks=True)
        printed = {}
        for stage in self._build_stages():
            done = subprocess.run(
                [f"bin/{stage.name}"],
                cwd=self._copy,
                env=build_command_environment(stage, self.project.environ),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=True,
                timeout=_SECONDS,
            )
            printed[stage.name] = done.stdout
        return printed

    def _build_stages(self) -> tuple[PlannedStage, ...]:
        def make(name: str, **fields: Any) -> PlannedStage:
            options: dict[str, Any] = {"inputs": None, "traces_inputs": True, **fields}
            return self.project.build_stage(name, command=(f"bin/{name}",), **options)

        return (
            make("lint", pass_env=("LEVEL",)),
            make("build", outputs=("dist",), number=2),
            make("use", needs=("build",), needed_outputs=("dist",), number=3),
            make("choose", number=4),
            make("memo", number=5),
            make("keep", number=6),
            make("report", number=7),
            make("bundle", outputs=("bundle",), number=8),
            make("call", number=9),
        )

    def _pick(self) -> Path:
        return self.random.choice(sorted(path for path in (self.project.root / "src").rglob("*.py") if path.is_file()))

    def _fork(self) -> int:
        child = os.fork()
        if child:
            return child
        signal.alarm(_SECONDS)
        try:
            with CommandPool(2) as self._pool:
                self._run()
        finally:
            os._exit(0)


_FILE_EDITS = (
    "edit_nothing", "edit_content", "edit_content_with_old_times", "edit_by_replacing", "edit_mode", "edit_name",
    "edit_by_adding", "edit_by_removing", "edit_link", "edit_target_of_link", "edit_environment",
    "edit_unseen_environment", "edit_output",
)  # fmt: skip
