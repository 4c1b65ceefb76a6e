"""Requests on a real control socket."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from paropt_exporter.autoscaling import control_socket
from paropt_exporter.autoscaling.control_socket import (
    FOLDER,
    ControlRequest,
    ControlSocket,
    RequestRefused,
    open_control_socket,
    send_request,
)
from paropt_exporter.autoscaling.state import ControlState, Override
from paropt_exporter.plan import Bounds

HANG_SECONDS = 30.0
POOLS = ("commands", "threads")


def control_state(mode: str = "act") -> ControlState:
    return ControlState(Bounds(minimum=1, maximum=8, start=2), POOLS, source="local", override=Override(mode=mode))


@pytest.fixture
def lane() -> ControlState:
    return control_state()


@pytest.fixture
def taking(tmp_path: Path, lane: ControlState) -> Iterator[ControlSocket]:
    taking = ControlSocket(tmp_path, lane, lane="standard")
    yield taking
    taking.close()


def only(root: Path) -> Path:
    (path,) = (root / FOLDER).iterdir()
    return path


def raw(path: Path, sent: bytes) -> bytes:
    """Send bytes unchanged and return the whole answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(HANG_SECONDS)
        folder = os.open(path.parent, os.O_PATH)  # the path of a parallel test is too long for a socket
        client.connect(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
        try:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it closed after the first bytes
        answer = b""
        try:
            while part := client.recv(4096):
                answer += part
        except ConnectionResetError:
            pass
        return answer


def test_descriptor_that_a_call_has_closed_does_not_delay_the_end(
    tmp_path: Path, lane: ControlState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "TIMEOUT_SECONDS", 0.1)
    before = {*Path("/proc/self/fd").iterdir()}
    taking = ControlSocket(tmp_path, lane, lane="standard")
    for descriptor in {*Path("/proc/self/fd").iterdir()} - before:
        with suppress(OSError):  # that of the list itself
            os.close(int(descriptor.name))
    taking.close()
    assert not [*(tmp_path / FOLDER).iterdir()]


def test_socket_whose_folder_was_replaced_is_closed(tmp_path: Path, lane: ControlState) -> None:
    """The end of the lane failed: "Not a directory"."""
    taking = ControlSocket(tmp_path, lane, lane="standard")
    before = taking.is_in_place
    shutil.rmtree(tmp_path / FOLDER)
    (tmp_path / FOLDER).write_text("a file in its place")
    assert (before, taking.is_in_place) == (True, False)
    taking.close()
    assert "paropt-orders" not in {thread.name for thread in threading.enumerate()}


def test_pin_holds_until_resume_restores_the_config(tmp_path: Path) -> None:
    lane = control_state(mode="advise")
    taking = ControlSocket(tmp_path, lane, lane="standard")
    assert send_request(only(tmp_path), ControlRequest(command="pin", size=5)) == {
        "pid": os.getpid(),
        "lane": "standard",
        "pools": ["commands", "threads"],
        "mode": "pin",
        "size": 5,
    }
    assert lane.override == Override(mode="pin", size=5)
    assert send_request(only(tmp_path), ControlRequest(command="resume"))["mode"] == "advise"
    assert lane.override == Override(mode="advise")
    taking.close()


def test_pause_has_no_size(tmp_path: Path, lane: ControlState, taking: ControlSocket) -> None:
    send_request(only(tmp_path), ControlRequest(command="pause", size=5))
    assert lane.override == Override(mode="pause")


def test_show_changes_nothing(tmp_path: Path, lane: ControlState, taking: ControlSocket) -> None:
    assert send_request(only(tmp_path), ControlRequest(command="show"))["mode"] == "act"
    assert lane.override == Override()


def test_only_the_owner_may_use_the_socket(tmp_path: Path, taking: ControlSocket) -> None:
    mode = only(tmp_path).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_unknown_pool_is_refused_with_the_known_ones(tmp_path: Path, lane: ControlState, taking: ControlSocket) -> None:
    with pytest.raises(RequestRefused, match=r"no pool 'thread' in lane standard: choose from commands, threads"):
        send_request(only(tmp_path), ControlRequest(command="pin", size=5, pool="thread"))
    assert lane.override == Override()


def test_lane_without_a_size_refuses_with_its_reason(tmp_path: Path, lane: ControlState) -> None:
    taking = ControlSocket(tmp_path, lane, lane="standard", refusal_reason="it runs one task after another")
    with pytest.raises(RequestRefused, match="one task after another"):
        send_request(only(tmp_path), ControlRequest(command="pin", size=5))
    taking.close()


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", "expected one line of JSON"),
        (b"pin 4\n", "expected one line of JSON"),
        (b"\xff\xfe\x00\n", "expected one line of JSON"),
        (b"[1, 2]\n", "expected one line of JSON"),
        (b'"pin"\n', "expected one line of JSON"),
        (b"[" * 3000 + b"\n", "expected one line of JSON"),
        (b"x" * 1_000_000 + b"\n", "expected one line of JSON"),
        (b"{}\n", "no order None: choose from pin, pause, resume, show"),
        (b'{"order": ["pin"]}\n', "no order ['pin']"),
        (b'{"order": "pim"}\n', "no order 'pim'"),
        (b'{"order": "pin"}\n', "expected a size from 1 to 1000, found None"),
        (b'{"order": "pin", "size": 0}\n', "found 0"),
        (b'{"order": "pin", "size": -3}\n', "found -3"),
        (b'{"order": "pin", "size": 1001}\n', "found 1001"),
        (b'{"order": "pin", "size": true}\n', "found True"),
        (b'{"order": "pin", "size": 2.5}\n', "found 2.5"),
        (b'{"order": "pin", "size": "4"}\n', "found '4'"),
        (b'{"order": "pin", "size": 4, "pool": 1}\n', "expected the name of a pool, found 1"),
    ],
)
def test_invalid_request_gets_an_error_and_changes_nothing(
    tmp_path: Path, lane: ControlState, taking: ControlSocket, sent: bytes, error: str
) -> None:
    answer = raw(only(tmp_path), sent)
    if len(sent) < 4096:  # a longer request may be cut off before its answer is read
        assert error in json.loads(answer)["error"]
    assert lane.override == Override()
    assert send_request(only(tmp_path), ControlRequest(command="pin", size=3))["size"] == 3


def test_silent_clients_do_not_block_others(tmp_path: Path, lane: ControlState, taking: ControlSocket) -> None:
    silent = [socket.socket(socket.AF_UNIX) for _ in range(5)]
    for client in silent:
        client.connect(str(only(tmp_path)))
        client.sendall(b'{"order": ')
    assert send_request(only(tmp_path), ControlRequest(command="pin", size=3))["size"] == 3
    for client in silent:
        client.close()


def test_request_is_answered_if_the_system_starts_no_thread_for_it(
    tmp_path: Path, lane: ControlState, taking: ControlSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for size in (3, 4):
        send_request(only(tmp_path), ControlRequest(command="pin", size=size))
        assert lane.override.size == size


def test_close_removes_the_socket(tmp_path: Path, lane: ControlState) -> None:
    ControlSocket(tmp_path, lane, lane="standard").close()
    assert [*(tmp_path / FOLDER).iterdir()] == []


def test_stale_socket_is_removed_and_a_live_one_stays(tmp_path: Path, lane: ControlState) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    left = tmp_path / FOLDER / "4711-abcdef.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    first = ControlSocket(tmp_path, lane, lane="standard")
    second = ControlSocket(tmp_path, lane, lane="heavy")
    assert not left.exists()
    lanes = {str(send_request(path, ControlRequest(command="show"))["lane"]) for path in (tmp_path / FOLDER).iterdir()}
    assert lanes == {"standard", "heavy"}
    first.close()
    second.close()


def test_deep_folder_takes_a_socket(tmp_path: Path, lane: ControlState) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    taking = ControlSocket(deep, lane, lane="standard")
    assert send_request(only(deep), ControlRequest(command="pin", size=4))["size"] == 4
    taking.close()


def test_failure_to_make_a_socket_is_a_warning(
    tmp_path: Path, lane: ControlState, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".paropt").write_text("a file where the folder should be")
    assert open_control_socket(tmp_path, lane, lane="standard") is None
    assert "pin, pause and resume won't work" in caplog.text


def test_answer_needs_no_module_that_may_not_load(taking: ControlSocket, tmp_path: Path) -> None:
    """During a run an import may fail, if the package is upgraded or no descriptors are left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "json", None)
        answer = raw(only(tmp_path), b' {"order": "show"} \n')
    assert json.loads(answer)["lane"] == "standard"
