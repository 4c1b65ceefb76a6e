"""`pin`, `pause` and `resume` choose one of several running exporters, and print its answer."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paropt_exporter.autoscaling.control_socket import FOLDER, ControlRequest, ControlSocket
from paropt_exporter.autoscaling.state import ControlState
from paropt_exporter.cli import steering
from paropt_exporter.errors import UsageError
from paropt_exporter.plan import Bounds

PIN = ControlRequest(command="pin", size=3)


@contextmanager
def exporters(root: Path, **pools: tuple[str, ...]) -> Iterator[dict[str, ControlState]]:
    """One exporter for each lane, with these pools."""
    lanes = {
        lane: ControlState(Bounds(minimum=1, maximum=8, start=2), names, source="local")
        for lane, names in pools.items()
    }
    taking = [ControlSocket(root, standing, lane=lane) for lane, standing in lanes.items()]
    yield lanes
    for each in taking:
        each.close()


def told(root: Path, request: ControlRequest, *, lane: str | None = None, pid: int | None = None) -> str:
    stdout = io.StringIO()
    assert steering.run(root, request, lane=lane, pid=pid, stdout=stdout) == 0
    return stdout.getvalue()


def test_each_request_is_answered_with_the_state_of_the_lane(tmp_path: Path) -> None:
    with exporters(tmp_path, standard=("commands", "threads")):
        pools = "(pools: commands, threads)"
        assert told(tmp_path, PIN) == f"lane standard pinned at 3 until resume {pools}\n"
        paused = told(tmp_path, ControlRequest(command="pause"))
        assert paused == f"lane standard paused: its size stays as it is until resume {pools}\n"
        assert told(tmp_path, ControlRequest(command="resume")) == f"lane standard sizes itself again {pools}\n"


def test_with_no_exporter_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no exporter runs in .*: start a lane there first"):
        told(tmp_path, PIN)


def test_of_several_lanes_one_must_be_named(tmp_path: Path) -> None:
    with exporters(tmp_path, heavy=("commands",), standard=("commands",)) as lanes:
        with pytest.raises(UsageError, match=r"2 exporters run here, .*: name one with --lane or --pid") as caught:
            told(tmp_path, PIN)
        assert f"lane heavy (pid {os.getpid()})" in str(caught.value)
        told(tmp_path, PIN, lane="heavy")
        assert {name: lane.override.mode for name, lane in lanes.items()} == {"heavy": "pin", "standard": "act"}


def test_pool_that_one_lane_has_names_that_lane(tmp_path: Path) -> None:
    with exporters(tmp_path, heavy=("commands", "processes"), standard=("commands",)) as lanes:
        told(tmp_path, ControlRequest(command="pin", size=3, pool="processes"))
        assert lanes["heavy"].override.size == 3
        with pytest.raises(
            UsageError, match="no lane that runs here has a pool 'thread': choose from commands, processes"
        ):
            told(tmp_path, ControlRequest(command="pin", size=3, pool="thread"))


def test_unknown_lane_or_process_is_rejected_with_those_that_run(tmp_path: Path) -> None:
    with exporters(tmp_path, standard=("commands",)):
        with pytest.raises(UsageError, match=rf"running: lane standard \(pid {os.getpid()}\)"):
            told(tmp_path, PIN, lane="nightly")
        with pytest.raises(UsageError, match="running: lane standard"):
            told(tmp_path, PIN, pid=1)


def test_exporter_that_does_not_answer_is_reported(tmp_path: Path) -> None:
    with exporters(tmp_path, standard=("commands",)) as lanes, socket.socket(socket.AF_UNIX) as broken:
        broken.bind(str(tmp_path / FOLDER / "1-abcdef.sock"))
        broken.listen()
        closing = threading.Thread(target=lambda: broken.accept()[0].close())
        closing.start()
        with pytest.raises(UsageError, match=r"an exporter does not answer .*: name the one that you mean"):
            told(tmp_path, PIN)
        closing.join()
        assert lanes["standard"].override.mode == "act"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"pid": 1, "lane": ["x"], "pools": [{}, 7, None], "mode": "pin", "size": {}}, "lane ['x'] pinned at {}"),
        ({"pid": 1, "lane": None, "pools": [[["deep"]]], "mode": ["pin"]}, "lane None sizes itself again"),
        ({"pid": True, "lane": "x", "pools": []}, "lane x sizes itself again"),
        ({"pid": "1", "lane": "x", "pools": []}, "its answer makes no sense"),
        ({}, "its answer makes no sense"),
    ],
)
def test_strange_answers_are_no_internal_error(tmp_path: Path, answer: dict[str, object], expected: str) -> None:
    folder = tmp_path / ".paropt/control"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "1-abc.sock"))
        listener.listen()

        def serve() -> None:
            for _ in range(2):
                try:
                    client, _ = listener.accept()
                except OSError:
                    return  # the test is over
                with client:
                    client.recv(4096)
                    client.sendall(json.dumps(answer).encode() + b"\n")

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        stdout = io.StringIO()
        try:
            steering.run(tmp_path, ControlRequest(command="pin", size=2), lane=None, pid=None, stdout=stdout)
            found = stdout.getvalue()
        except UsageError as error:
            found = str(error)
        listener.shutdown(socket.SHUT_RDWR)
        server.join(10)
    assert expected in found
