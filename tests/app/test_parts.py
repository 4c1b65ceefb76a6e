"""Settings of an exporter's parts that both a flag and `paropt.yml` may give."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from paropt_exporter.app import parts
from paropt_exporter.app.request import Request
from paropt_exporter.errors import UsageError
from paropt_exporter.events import SlaLimit
from paropt_exporter.executors import procfs
from paropt_exporter.executors.cluster.settings import ClusterSettings, TlsFiles
from paropt_exporter.exposition import listeners
from paropt_exporter.metrics import LaneLabels, StageLabels
from paropt_exporter.plan import PlanOptions, Selection, build_plan
from support import configs


@pytest.mark.parametrize(
    ("history", "profiles"),
    [("", ".paropt/functions.json"), ("history: {path: data/h.db}\n", "data/h.db.functions.json")],
)
def test_file_beside_a_named_history_carries_its_name(tmp_path: Path, history: str, profiles: str) -> None:
    """The folder may have a `functions.json` of the project, which a run would replace."""
    config = configs.read(tmp_path, configs.stage() + history)
    assert parts.find_profiles(config) == tmp_path / profiles


@pytest.mark.parametrize(("flag", "limit"), [(None, 3), (0, sys.maxsize), (5000, 5000)])
def test_flag_for_requests_wins_over_the_config(
    tmp_path: Path, flag: int | None, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(parts, "Endpoint", lambda *_, **settings: given.update(settings))
    monkeypatch.setattr(listeners, "open_listeners", lambda *_, **__: ())
    config = configs.read(tmp_path, "web: {max_requests: 3}\n" + configs.stage())
    request = Request(config_path=None, root=tmp_path, lane="standard", once=True, max_requests=flag)
    unused: Any = None
    parts.start_endpoint(request, config, unused, unused, say=unused)
    assert given["max_requests"] == limit


@pytest.mark.parametrize(
    ("flags", "seconds"),
    [
        ({}, 600.0),
        ({"failed_only": True}, 600.0),  # once they pass, the lane has succeeded
        ({"options": PlanOptions(selection=Selection(patterns=("lint",)))}, None),
        ({"options": PlanOptions(selection=Selection(skipped=("lint",)))}, None),
        ({"options": PlanOptions(arguments=("-x",))}, None),
    ],
)
def test_interval_is_that_of_the_whole_lane(tmp_path: Path, flags: dict[str, Any], seconds: float | None) -> None:
    """A partial run sets no time of the lane's last success: with an interval, ParoptLaneNotSucceeding would fire."""
    config = configs.read(tmp_path, configs.stage())
    request = Request(config_path=None, root=tmp_path, lane="standard", once=False, every_seconds=600.0, **flags)
    assert parts.build_lane_labels(request, config, build_plan(config, "standard")).interval_seconds == seconds


def test_instance_that_is_not_valid_unicode_gets_its_bytes_as_escapes(tmp_path: Path) -> None:
    """The history and the address of a push take only valid text."""
    config = configs.read(tmp_path, configs.stage())
    request = Request(config_path=None, root=tmp_path, lane="standard", once=True, push_instance="caf\udce9")
    assert parts.find_pushed_instance(request, config) == r"caf\udce9"


def test_labels_of_a_lane_are_those_of_all_its_stages(tmp_path: Path) -> None:
    text = """
lanes: {docs: {strategy: thread, stages: [lint, call], total: 5m, sla: null}}
stages:
  - {name: lint, run: x, inputs: ["*.py"], sla: {max: 10s, critical: true}}
  - {name: call, call: "a:b"}
  - {name: other, run: x}
"""
    config = configs.read(tmp_path, text)
    options = PlanOptions(selection=Selection(patterns=("lint",)))
    request = Request(config_path=None, root=tmp_path, lane="docs", once=True, options=options)
    assert parts.build_lane_labels(request, config, build_plan(config, "docs", options)) == LaneLabels(
        lane="docs",
        total=SlaLimit(max_seconds=300.0, warn_seconds=240.0),
        stages=(
            StageLabels(
                name="lint",
                number=1,
                pool="commands",
                sla=SlaLimit(max_seconds=10.0, warn_seconds=8.0, critical=True),
                cached=True,
            ),
            StageLabels(name="call", number=2, pool="threads"),
        ),
    )


@pytest.mark.parametrize(
    ("feedback", "mode", "source"),
    [
        ("{}", "act", "local"),
        ("{mode: advise}", "advise", "local"),
        ('{prometheus: {url: "http://127.0.0.1:1"}}', "act", "both"),
        ('{prometheus: {url: "http://127.0.0.1:1"}, source: prometheus}', "act", "prometheus"),
    ],
)
def test_mode_and_source_of_the_feedback_are_those_of_the_config(
    tmp_path: Path, feedback: str, mode: str, source: str
) -> None:
    config = configs.read(tmp_path, f"feedback: {feedback}\n{configs.stage()}")
    state = parts.build_control_state(config, build_plan(config, "standard"), None)
    assert (state.override.mode, state.source) == (mode, source)


@pytest.mark.parametrize(
    ("dask", "expected"),
    [
        ("{}", {}),
        (
            '{scheduler: "tls://sched:8786", tls: {ca: a.pem, cert: b.pem, key: c.pem}, shared: /mnt/shop, '
            "upload: {include: [data.bin], max: 5MB}, partition_grace: 1m, start_timeout: 2m}",
            {
                "scheduler": "tls://sched:8786",
                "tls": TlsFiles(ca=Path("a.pem"), cert=Path("b.pem"), key=Path("c.pem")),
                "shared_root": "/mnt/shop",
                "include": ("data.bin",),
                "upload_max_bytes": 5_000_000,
                "partition_grace_seconds": 60.0,
                "start_timeout_seconds": 120.0,
            },
        ),
        ('{scheduler: "tcp://sched:8786", insecure: true}', {"scheduler": "tcp://sched:8786", "insecure": True}),
        ("{file: sched.json}", {"scheduler_file": Path("sched.json")}),
        ('{cluster: "clusters:build"}', {"factory": "clusters:build"}),
    ],
)
def test_cluster_is_that_of_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dask: str, expected: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = replace(configs.read(tmp_path, f"dask: {dask}\n{configs.stage()}"), root=Path())
    assert parts.build_cluster_settings(config) == ClusterSettings(root=Path(), **expected)


@pytest.mark.parametrize(
    ("flag", "disabled", "shown"), [(None, "false", True), (None, "true", False), (False, "false", False)]
)
def test_metrics_of_the_process_are_left_out_by_the_flag_or_the_config(
    tmp_path: Path, flag: bool | None, disabled: str, shown: bool
) -> None:
    config = configs.read(tmp_path, f"web: {{disable_exporter_metrics: {disabled}}}\n{configs.stage()}")
    request = Request(config_path=None, root=tmp_path, lane="standard", once=True, exporter_metrics=flag)
    assert parts.exports_process_metrics(request, config) is shown


def test_lane_with_the_proc_of_another_pid_namespace_has_no_jobserver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its clients would open a file of the process that has the exporter's number there."""
    monkeypatch.setenv("PATH", "")  # no make, whose version would matter
    monkeypatch.setattr(procfs, "has_own_proc", lambda: False)
    assert parts.build_jobserver(configs.read(tmp_path, "feedback: {jobserver: true}\n" + configs.stage())) is None
    assert "no jobserver: /proc is missing" in caplog.text


@pytest.fixture
def no_default_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The system's default ports are all in use."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(listeners, "DEFAULT_PORT", taken.getsockname()[1])
        monkeypatch.setattr(listeners, "DEFAULT_TRIES", 1)
        yield


def start_endpoint(tmp_path: Path, said: list[str], **flags: Any) -> str:
    config = configs.read(tmp_path, configs.stage())
    request = Request(config_path=None, root=tmp_path, lane="standard", **{"once": True, **flags})
    unused: Any = None
    return parts.start_endpoint(request, config, unused, unused, said.append).url


def test_run_that_ends_with_its_lane_needs_no_free_port(tmp_path: Path, no_default_port: None) -> None:
    """The eleventh run of a host ended with 2 before it had run anything."""
    said: list[str] = []
    assert start_endpoint(tmp_path, said) == ""
    (line,) = said
    assert line.startswith("this run has no metrics endpoint: ports ")


@pytest.mark.parametrize("flags", [{"once": False}, {"linger_seconds": 1.0}])
def test_run_that_is_to_be_scraped_needs_a_free_port(
    tmp_path: Path, no_default_port: None, flags: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="all in use"):
        start_endpoint(tmp_path, [], **flags)


def test_given_address_that_is_in_use_ends_the_run(tmp_path: Path, no_default_port: None) -> None:
    with pytest.raises(UsageError, match="cannot listen on"):
        start_endpoint(tmp_path, [], addresses=(f"127.0.0.1:{listeners.DEFAULT_PORT}",))
