"""`serve` in this process: the failures that end it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from paropt_exporter.app import serving
from paropt_exporter.errors import ParoptError
from paropt_exporter.serve.fair_shares import Machine
from support.real_servers import HANG_SECONDS


def test_serve_ends_when_the_thread_of_its_runs_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A `serve` that no longer answers runs must end, so that systemd starts it again."""

    def read_machine() -> Machine:
        if threading.current_thread() is not threading.main_thread():
            raise OSError("no such cgroup")
        return Machine(2.0)

    monkeypatch.setattr(serving, "_read_machine", read_machine)
    end = threading.Timer(HANG_SECONDS, os.kill, (os.getpid(), signal.SIGTERM))
    end.start()
    request = serving.ServeRequest(addresses=("127.0.0.1:0",))
    with pytest.raises(ParoptError, match="the thread paropt-serve has failed") as raised:
        serving.serve_projects(request, {"PAROPT_SERVE": str(tmp_path / "runtime")}, lambda _: None)
    end.cancel()
    assert raised.value.exit_code == 3
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["no such cgroup"]
