"""Calls of a lane run the code and in the folder that a command would find, in threads and in processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from paropt_exporter.engine.workers import PoolWorkers
from paropt_exporter.events import Strategy
from paropt_exporter.plan import PROCESSES, THREADS, Call, PlannedStage, PlannedTask
from support.lanes import plan

HANG_SECONDS = 30.0
MODULE = "paropt_sample_lane_calls"


@pytest.fixture(autouse=True)
def import_path_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop(MODULE, None)


def build_stage(strategy: Strategy) -> PlannedStage:
    task = PlannedTask(index=0, item=None, work=Call(target=f"{MODULE}:show"))
    return PlannedStage(
        number=1, name="call", tasks=(task,), pool=THREADS if strategy is Strategy.THREAD else PROCESSES
    )


@pytest.mark.parametrize("strategy", [Strategy.THREAD, Strategy.PROCESS])
def test_next_call_runs_changed_code(tmp_path: Path, strategy: Strategy) -> None:
    """With `--watch` and `--every`, calls went on with the code of the first run: they passed, whatever had changed."""
    stage = build_stage(strategy)
    outputs: list[str] = []
    with closing(PoolWorkers()) as workers:
        for text in ("old", "newer"):
            (tmp_path / f"{MODULE}.py").write_text(f"def show(): print({text!r})")
            workers.prepare(plan(stage, workers=1, strategy=strategy, root=tmp_path), 1)
            outputs.append(workers.start(stage, stage.tasks[0], "call").future.result(HANG_SECONDS).output)
    assert outputs == ["old\n", "newer\n"]


@pytest.mark.parametrize("strategy", [Strategy.THREAD, Strategy.PROCESS])
def test_each_call_starts_in_the_folder_of_the_config(
    tmp_path: Path, strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --config.file it started in the user's folder, on a Dask worker in that of the worker."""
    monkeypatch.chdir("/")
    (tmp_path / f"{MODULE}.py").write_text("import os\ndef show(): print(os.getcwd()); os.chdir('/')")
    stage = build_stage(strategy)
    with closing(PoolWorkers()) as workers:
        workers.prepare(plan(stage, workers=1, strategy=strategy, root=tmp_path), 1)
        for _ in range(2):
            outcome = workers.start(stage, stage.tasks[0], "call").future.result(HANG_SECONDS)
            assert outcome.output == f"{tmp_path}\n"
