"""The readings of a lane on which its bounds controller bases decisions."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from paropt_exporter.autoscaling.bounds_controller import LaneReadings
from paropt_exporter.autoscaling.feedback import Feedback
from paropt_exporter.errors import UsageError
from support import projects
from support.in_process import call_command

LANES = """
    lanes:
      far: {strategy: dask, workers: {max: 64}}
    dask: {scheduler: "tcp://127.0.0.1:9", insecure: true}
    feedback: {source: prometheus, prometheus: {url: "http://127.0.0.1:9"}}
"""


def test_lane_on_other_hosts_has_a_core_for_each_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Query results sized a cluster of any number of cores for those of the exporter's host."""
    cores = []

    def start(*_: object, lane: LaneReadings, **__: object) -> NoReturn:
        cores.append(lane.cores())
        raise UsageError("enough")

    monkeypatch.setattr(Feedback, "start_controller", start)
    projects.write(tmp_path, 'name: one, run: "true"', lanes=LANES)
    ended = call_command(tmp_path, "--lane", "far", "--once", projects.ANY_PORT)
    assert (cores, ended.returncode) == ([64.0], 2), ended.stderr
