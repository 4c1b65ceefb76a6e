"""Replies and usage that no agent of ours sends are recognised: the history and the page would keep their values."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from msgspec.structs import replace

from paropt_exporter.events import Measurement, Result
from paropt_exporter.executors.calls import CallOutcome
from paropt_exporter.executors.cluster.messages import (
    RemoteCall,
    RemoteCommands,
    RemoteMeasurement,
    RemoteTask,
    RunningUsage,
    TaskReply,
    WorkerFacts,
    WorkerUsage,
    are_sound_facts,
    find_fault,
    is_sound_usage,
)
from paropt_exporter.executors.commands.command_pool import CommandOutcome

MEASURED = RemoteMeasurement(worker="h/w", pid=7, duration_seconds=1.0, cpu_seconds=-0.001, memory_peak_bytes=1 << 40)
OUTCOME = CommandOutcome(
    result=Result.FAILURE,
    message="exit 1",
    exit_code=1,
    signal=None,
    output="x" * (1 << 17),
    output_path=None,
    measurement=Measurement(worker="h/w", pid=7, started_seconds=0.0, ended_seconds=1.0),
    stopped=False,
)
COMMANDS, CALL = (RemoteTask(1, "t", work) for work in (RemoteCommands(steps=(("true",),)), RemoteCall(target="m:f")))
REPLY = TaskReply(attempt=1, value=OUTCOME, measurement=MEASURED)
RUNNING = RunningUsage(attempt=1, elapsed_seconds=1.0, cpu_seconds=-0.001, memory_bytes=1 << 40, age_seconds=None)


def get_first_key(part: dict[str, Any]) -> str:
    return next(iter(part))


def test_reply_of_a_failed_command_is_sound() -> None:
    assert find_fault(COMMANDS, REPLY) == ""


@pytest.mark.parametrize(
    "usage",
    [
        {"memory_peak_bytes": 1 << 63},
        {"memory_peak_bytes": 1e30},
        {"memory_peak_bytes": -1},
        {"pid": 1 << 63},
        {"cpu_seconds": 1e300},
        {"run_delay_seconds": inf},
        {"duration_seconds": 1e10},
        {"duration_seconds": nan},
        {"duration_seconds": "1"},
        {"worker": 1},
    ],
)
def test_measurement_that_no_host_makes_is_a_fault(usage: dict[str, Any]) -> None:
    assert "measurement" in find_fault(COMMANDS, replace(REPLY, measurement=replace(MEASURED, **usage)))


def test_reply_without_a_measurement_is_a_fault() -> None:
    assert "measurement" in find_fault(COMMANDS, replace(REPLY, measurement=None))


@pytest.mark.parametrize(
    "part",
    [
        {"exit_code": 1 << 31},
        {"signal": -(1 << 63)},
        {"exit_code": 1.5},
        {"output": "x" * 1_000_000},
        {"message": "x" * 1_000_000},
        {"message": None},
    ],
    ids=get_first_key,
)
def test_outcome_that_no_command_has_is_a_fault(part: dict[str, Any]) -> None:
    assert find_fault(COMMANDS, replace(REPLY, value=replace(OUTCOME, **part))) == "has no outcome"


@pytest.mark.parametrize(
    "part", [{"output": "x" * 1_000_000}, {"left": ["a"]}, {"left": (1,)}], ids=["1 MB", "list", "1"]
)
def test_outcome_that_no_call_has_is_a_fault(part: dict[str, Any]) -> None:
    sound = replace(REPLY, value=CallOutcome(output="", left=("sleep",)))
    assert find_fault(CALL, sound) == ""
    assert find_fault(CALL, replace(sound, value=replace(sound.value, **part))) == "has no outcome"


@pytest.mark.parametrize(
    "part", [{"memory_bytes": 1e30}, {"memory_bytes": 1 << 63}, {"cpu_seconds": 1e300}, {"attempt": "1"}]
)
def test_usage_that_no_task_has_is_not_sound(part: dict[str, Any]) -> None:
    assert is_sound_usage(WorkerUsage(memory_available_bytes=1, running=(RUNNING,)))
    assert not is_sound_usage(WorkerUsage(memory_available_bytes=1, running=(replace(RUNNING, **part),)))


@pytest.mark.parametrize(
    "part",
    [
        {"threads": 0},
        {"threads": "2"},
        {"cores": None},
        {"host": 5},
        {"host_key": []},
        {"memory_available_bytes": -1},
        {"versions": None},
        {"versions": {"git": 2}},
    ],
)
def test_facts_that_no_worker_has_are_not_sound(part: dict[str, Any]) -> None:
    facts = WorkerFacts(worker_id="i", host="h", host_key="k", threads=2, cores=1.5, memory_available_bytes=1)
    assert are_sound_facts(facts)
    assert not are_sound_facts(replace(facts, **part))
