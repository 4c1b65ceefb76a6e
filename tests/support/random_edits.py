"""Random edits of a cached project, each followed by a run whose results are compared with those of a cold run."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from paropt_exporter.plan import Commands, PlannedStage, PlannedTask
from support.cached_project import CachedProject

_NAMES = ("a.py", "b.py", "c.py", "deep/d.py", "deep/e.py")
_CONTENTS = ("one", "two", "six")  # of one length, so that the size tells nothing
_TRUSTS_AFTER_SECONDS = 0.05  # the times of the usual file systems tick each 4 ms: some steps later a file is known
_STAGES = ("lint", "build", "use")


class FalseHit(AssertionError):
    """A run showed a result that a cold run does not have."""


class RandomEdits:
    """A project with three stages: `use` needs `build`, which writes `dist`; `lint` is independent."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.hits = 0
        self.words: tuple[str, ...] = ()
        work = {"lint": self._lint, "build": self._build, "use": self._use}
        self.project = CachedProject(
            folder / "project",
            folder / "store",
            work=work,
            environ={"LEVEL": "1"},
            trusts_after_seconds=_TRUSTS_AFTER_SECONDS,
        )
        self.project.write_file("src/a.py", "one")
        self.project.write_file("bin/lint", "#!/bin/sh\n# 1\n", mode=0o755)
        self._during = ""
        self._undo: Callable[[], object] = lambda: None
        self._edits = [getattr(self, name) for name in dir(self) if name.startswith("edit_")]

    def step(self) -> None:
        """Edit the project, run it, and compare. Raises FalseHit."""
        self._during, self._undo = "", lambda: None
        edit = self.random.choice(self._edits)
        name = edit.__name__.removeprefix("edit_")
        self.counts[name] += 1
        edit()
        ran = self.project.run(*self._build_stages())
        if self._during:
            assert self._during == "done", "the stage did not run"
            self._undo()
            ran = self.project.run(*self._build_stages())  # what the edited run kept must not show now
        self.hits += sum(ran.is_cached(stage) for stage in _STAGES)
        root, environ = self.project.root, self.project.environ
        expected = {"lint": self._describe_lint(root, environ), "build": "built", "use": self._describe(root)}
        for stage, output in expected.items():
            if ran.get_output(stage) != output:
                raise FalseHit(f"after {name}: {stage} printed {ran.get_output(stage)!r}, a cold run prints {output!r}")
        there = [path.name for path in (root / "dist").iterdir()]
        if (root / "dist/out").read_text() != expected["use"] or there != ["out"]:
            raise FalseHit(f"after {name}: dist has {there}")

    # Edits. Those of a running stage set `_during`.

    def edit_nothing(self) -> None:
        """Leave all files as they are: the run after it has hits."""

    def edit_content(self) -> None:
        self._pick().write_text(self.random.choice(_CONTENTS))

    def edit_content_with_old_times(self) -> None:
        path = self._pick()
        before = path.stat()
        path.write_text(self.random.choice(_CONTENTS))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def edit_by_replacing(self) -> None:
        path = self._pick()
        other = self.project.root / "replacement"
        other.write_text(self.random.choice(_CONTENTS))
        other.replace(path)

    def edit_mode(self) -> None:
        path = self._pick()
        path.chmod(path.stat().st_mode ^ 0o111)

    def edit_name(self) -> None:
        path = self._pick()
        target = self.project.root / "src" / self.random.choice(_NAMES)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)

    def edit_by_adding(self) -> None:
        self.project.write_file(f"src/{self.random.choice(_NAMES)}", self.random.choice(_CONTENTS))

    def edit_by_removing(self) -> None:
        if len(self._list_files()) > 1:
            self._pick().unlink()

    def edit_link(self) -> None:
        link = self.project.root / "src/link"
        link.unlink(missing_ok=True)
        link.symlink_to(self.random.choice(("a.py", "deep", "missing", "../outside")))

    def edit_by_removing_link(self) -> None:
        (self.project.root / "src/link").unlink(missing_ok=True)

    def edit_target_of_link(self) -> None:
        (self.project.root / "outside").write_text(self.random.choice(_CONTENTS))

    def edit_environment(self) -> None:
        self.project.environ["LEVEL"] = self.random.choice("12")

    def edit_unseen_environment(self) -> None:
        self.project.environ["SECRET"] = self.random.choice("12")

    def edit_tool(self) -> None:
        self.project.write_file("bin/lint", f"#!/bin/sh\n# {self.random.choice('12')}\n", mode=0o755)

    def edit_config(self) -> None:
        self.words = self.random.choice(((), ("--strict",)))

    def edit_output(self) -> None:
        match self.random.choice(("remove", "change", "add")):
            case "remove":
                shutil.rmtree(self.project.root / "dist", ignore_errors=True)
            case "change":
                self.project.write_file("dist/out", "changed")
            case _:
                self.project.write_file("dist/stale", "")

    def edit_during_the_run(self) -> None:
        self._write_new_content()
        self._during = "edit"

    def edit_during_the_run_and_back(self) -> None:
        self._write_new_content()
        self._during = "back"

    def edit_by_killing_the_run(self) -> None:
        self._write_new_content()
        self._run_in_child("kill")

    def edit_with_two_runs_at_once(self) -> None:
        self._write_new_content()
        child = self._fork("")
        self.project.run(*self._build_stages())
        os.waitpid(child, 0)

    # The stages

    def _build_stages(self) -> tuple[PlannedStage, ...]:
        make = self.project.build_stage
        return (
            make("lint", words=self.words, pass_env=("LEVEL",)),
            make("build", outputs=("dist",), number=2),
            make("use", inputs=("README",), needs=("build",), needed_outputs=("dist",), number=3),
        )

    def _lint(self, root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        output = self._describe_lint(root, environ, task)
        during, self._during = self._during, "done" if self._during else ""
        if during == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if during in ("edit", "back"):
            path = self._pick()
            before = path.read_text()
            path.write_text("odd")
            output = self._describe_lint(root, environ, task)
            if during == "back":
                path.write_text(before)
            else:
                self._undo = lambda: path.write_text(before)
        return output

    def _describe_lint(self, root: Path, environ: Mapping[str, str], task: PlannedTask | None = None) -> str:
        words = self.words
        if task is not None:
            assert isinstance(task.work, Commands)
            words = task.work.steps[0][1:]
        tool = (root / "bin/lint").read_text()
        return f"{self._describe(root)}{environ['LEVEL']}{tool}{words}"

    def _build(self, root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        (root / "dist").mkdir(exist_ok=True)
        for path in (root / "dist").iterdir():
            path.unlink()
        (root / "dist/out").write_text(self._describe(root))
        return "built"

    def _use(self, root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        return (root / "dist/out").read_text()

    def _describe(self, root: Path) -> str:
        """Return all that a program can see of the sources: names, contents, modes and targets of links."""
        lines = []
        for folder, _, names in sorted(os.walk(root / "src", followlinks=True)):
            for name in sorted(names):
                path = Path(folder, name)
                target = str(path.readlink()) if path.is_symlink() else ""
                content = path.read_text() if path.exists() else "-"
                runs = os.access(path, os.X_OK)
                lines.append(f"{path.relative_to(root)} {target} {content} {runs}\n")
        return "".join(lines)

    def _write_new_content(self) -> None:
        """Change a file so that no earlier result fits: all stages that read it run."""
        self._pick().write_text(f"{self.random.random()}")

    def _list_files(self) -> list[Path]:
        return sorted(path for path in (self.project.root / "src").rglob("*.py") if not path.is_symlink())

    def _pick(self) -> Path:
        return self.random.choice(self._list_files())

    def _run_in_child(self, during: str) -> None:
        _, status = os.waitpid(self._fork(during), 0)
        del status  # it was killed, or had a hit

    def _fork(self, during: str) -> int:
        child = os.fork()
        if child:
            return child
        signal.alarm(60)  # a child that hangs ends
        try:
            self._during = during
            self.project.run(*self._build_stages())
        finally:
            os._exit(0)
