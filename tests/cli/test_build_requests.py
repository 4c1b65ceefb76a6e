"""Every flag of a run and of `serve` reaches its request."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from msgspec.structs import replace

from paropt_exporter.app import Request
from paropt_exporter.app.serving import ServeRequest
from paropt_exporter.cli.build_requests import build_request, build_serve_request, format_again
from paropt_exporter.cli.flags import parse_command_line
from paropt_exporter.cli.plain_flags import COMMANDS
from paropt_exporter.errors import UsageError
from paropt_exporter.events import Shard, Strategy
from paropt_exporter.plan import Bounds, PlanOptions, Selection
from paropt_exporter.reports import ReportOption

SERVER = (
    "--web.listen-address :1 --web.listen-address :2 --web.telemetry-path /m --web.max-requests 7 "
    "--web.disable-exporter-metrics --web.config.file web.yml"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(line: str, *, once: bool = False) -> Request:
    return build_request(parse_command_line(shlex.split(line)), once=once)


def test_all_flags_of_a_run_reach_its_request(folder: Path) -> None:
    plan = (
        "unit scan --skip slow --only --lane quick --strategy thread --workers 2-4 --fail-fast --shard 2/3 --failed "
        "--deadline 5m --affected=main --no-cache"
    )
    ends = "--web.linger 30s --push.url http://g --push.fail --push.instance i --textfile out --report junit=j.xml"
    assert build(f"{plan} {SERVER} {ends} -- -k x", once=True) == Request(
        config_path=None,
        root=folder,
        lane="quick",
        once=True,
        linger_seconds=30.0,
        options=PlanOptions(
            selection=Selection(patterns=("unit", "scan"), skipped=("slow",), with_needs=False, commands=COMMANDS),
            arguments=("-k", "x"),
            shard=Shard(index=2, count=3),
            strategy=Strategy.THREAD,
            workers=Bounds(minimum=2, maximum=4, start=2),
            fail_fast=True,
        ),
        failed_only=True,
        deadline_seconds=300.0,
        affected=True,
        affected_ref="main",
        no_cache=True,
        addresses=(":1", ":2"),
        telemetry_path="/m",
        max_requests=7,
        exporter_metrics=False,
        web_config=Path("web.yml"),
        push_url="http://g",
        push_fail=True,
        push_instance="i",
        textfile=folder / "out",
        reports=(ReportOption("junit", folder / "j.xml"),),
    )


def test_flags_of_runs_that_repeat_reach_their_requests(folder: Path) -> None:
    plain = Request(config_path=None, root=folder, lane=None, once=False)
    assert build("") == plain
    assert build("--every 5m") == replace(plain, every_seconds=300.0)
    assert build("--watch") == replace(plain, watch=True)
    assert build("--affected --web.systemd-socket") == replace(plain, affected=True, systemd_socket=True)
    assert build("--keep-going") == replace(plain, options=PlanOptions(fail_fast=False))


def test_all_flags_of_serve_reach_its_request() -> None:
    expected = ServeRequest(
        addresses=(":1", ":2"), web_config=Path("web.yml"), telemetry_path="/m", max_requests=7, process_metrics=False
    )
    assert build_serve_request(parse_command_line(["serve", *SERVER.split()])) == expected
    socket = build_serve_request(parse_command_line(["serve", "--web.systemd-socket"]))
    assert socket == ServeRequest(systemd_socket=True)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("--affected --every 5m", "--affected can't be combined with --every"),
        ("--watch --every 5m", "--watch can't be combined with --every"),
        ("--watch --failed", "--watch can't be combined with --failed"),
        ("--watch --affected", "--watch can't be combined with --affected"),
        ("--watch --deadline 5m", "--watch can't be combined with --deadline"),
        ("--watch --shard 1/2", "--watch can't be combined with --shard"),
        ("--watch unit -- -k x", "--watch can't be combined with --:"),
        ("--shard 1/2 --every 5m", "--shard splits by the history"),
        ("--web.linger 5m", "--web.linger needs --once"),
        ("--web.systemd-socket --web.listen-address :1", "takes the place of --web.listen-address"),
        ("--web.max-requests 1x", "--web.max-requests: '1x' is not a whole number"),
        ("--push.url ''", "--push.url: the URL is empty"),
        ("--push.instance ''", "--push.instance: the name is empty"),
        ("--web.telemetry-path ''", "--web.telemetry-path: the path is empty"),
        ("--textfile ''", "--textfile: the path is empty"),
        ("--web.config.file ''", "--web.config.file: the path is empty"),
    ],
)
def test_flags_that_can_not_work_are_refused(line: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        build(line)


@pytest.mark.parametrize("line", ["--watch", "--every 5m"])
def test_runs_that_repeat_do_not_end_after_the_first(line: str) -> None:
    with pytest.raises(UsageError, match="--once"):
        build(line, once=True)


@pytest.mark.parametrize(
    ("line", "again"),
    [
        ("", "--failed"),
        ("--once unit 'a b' --skip slow --only", "--once --stage unit --stage 'a b' --only --skip slow --failed"),
        (
            "--config.file ci.yml --shard 1/2 --affected=main",
            "--config.file ci.yml --shard 1/2 --affected=main --failed",
        ),
        ("--affected", "--affected --failed"),
        ("unit -- -k 'a b'", "--stage unit -- -k 'a b'"),
    ],
)
def test_hint_repeats_the_part_of_the_run_that_failed(line: str, again: str) -> None:
    assert format_again(parse_command_line(shlex.split(line))) == again
