"""The supervisor starts beside the rest of the exporter if the run is sure to need it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paropt_exporter.app.request import Request
from paropt_exporter.app.start import is_sure_to_run_commands
from paropt_exporter.config import Stage
from paropt_exporter.events import Strategy

COMMAND = Stage(number=1, name="lint", run="ruff check")
CACHED = Stage(number=2, name="types", run="mypy", inputs=("src/**/*.py",))
CALL = Stage(number=3, name="check", call="checks:run")
LOCAL = Stage(number=4, name="docs", run="make docs", local=True)


def is_sure(*stages: Stage, strategy: Strategy = Strategy.ADAPTIVE, **settings: Any) -> bool:
    request = Request(config_path=None, root=Path("/"), lane="standard", once=True, **settings)
    return is_sure_to_run_commands(request, strategy, stages)


def test_a_command_without_inputs_is_sure_to_run() -> None:
    assert is_sure(CACHED, COMMAND)


def test_a_cached_stage_may_run_no_command() -> None:
    assert not is_sure(CACHED, CALL)
    assert is_sure(CACHED, no_cache=True)


@pytest.mark.parametrize("setting", [{"failed_only": True}, {"affected": True}, {"deadline_seconds": 60.0}])
def test_a_run_that_chooses_its_stages_later_may_run_no_command(setting: dict[str, Any]) -> None:
    assert not is_sure(COMMAND, **setting)


def test_commands_for_other_hosts_need_no_supervisor_here() -> None:
    assert not is_sure(COMMAND, strategy=Strategy.DASK)
    assert is_sure(COMMAND, LOCAL, strategy=Strategy.DASK)
