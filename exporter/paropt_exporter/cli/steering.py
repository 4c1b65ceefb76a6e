"""`pin`, `pause` and `resume`: set the size of the lane that runs in this folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from msgspec import Struct

from paropt_exporter.autoscaling import control_socket
from paropt_exporter.autoscaling.control_socket import ControlRequest
from paropt_exporter.errors import UsageError


class RunningExporter(Struct, frozen=True, kw_only=True):
    """A running exporter, as it described itself."""

    path: Path
    pid: int
    lane: str
    pools: tuple[str, ...]

    def __str__(self) -> str:
        return f"lane {self.lane} (pid {self.pid})"


def run(root: Path, request: ControlRequest, *, lane: str | None, pid: int | None, stdout: TextIO) -> int:
    """Send one request and print the new state of the lane. Returns 0.

    Raises UsageError if no exporter runs in `root`, if several match, or if the exporter rejects the request.
    """
    try:
        running, silent = _find_running(root)
    except OSError as error:
        raise UsageError(f"cannot look for the exporters in {root / control_socket.FOLDER}: {error.strerror}") from None
    if silent and (not running or (lane is None and pid is None)):
        raise UsageError(f"an exporter does not answer ({silent[0]}): name the one that you mean with --lane or --pid")
    if not running:
        raise UsageError(f"no exporter runs in {root}: start a lane there first, or name its config with --config.file")
    exporter = _choose_exporter(running, lane=lane, pid=pid, pool=request.pool)
    try:
        answer = control_socket.send_request(exporter.path, request)
    except OSError as error:
        raise UsageError(f"{exporter} did not answer: {error}") from None
    stdout.write(_format_state(answer) + "\n")
    return 0


def _find_running(root: Path) -> tuple[list[RunningExporter], list[str]]:
    """Return the exporters that answer, and the errors of those that don't. Sockets of dead exporters are skipped.

    Raises OSError if the folder of the sockets can't be read.
    """
    found, silent = [], []
    for path in control_socket.iter_sockets(root / control_socket.FOLDER):
        try:
            found.append(_describe(path))
        except ConnectionRefusedError:
            continue
        except OSError as error:
            silent.append(f"{path}: {error}")
    return found, silent


def _describe(path: Path) -> RunningExporter:
    answer = control_socket.send_request(path, ControlRequest(command=control_socket.SHOW))
    pid, pools = answer.get("pid"), answer.get("pools")
    if not isinstance(pid, int) or not isinstance(pools, list):
        raise OSError("its answer makes no sense")
    return RunningExporter(path=path, pid=pid, lane=str(answer.get("lane")), pools=tuple(map(str, pools)))


def _choose_exporter(
    running: Sequence[RunningExporter], *, lane: str | None, pid: int | None, pool: str | None
) -> RunningExporter:
    fitting = [each for each in running if lane in (None, each.lane) and pid in (None, each.pid)]
    if not fitting:
        raise UsageError(f"no exporter here matches --lane or --pid; running: {_format_exporters(running)}")
    if len(fitting) > 1 and pool is not None:
        fitting = [each for each in fitting if pool in each.pools]
        if not fitting:
            pools = sorted({pool for each in running for pool in each.pools})
            raise UsageError(f"no lane that runs here has a pool {pool!r}: choose from {', '.join(pools)}")
    if len(fitting) > 1:
        raise UsageError(
            f"{len(fitting)} exporters run here, {_format_exporters(fitting)}: name one with --lane or --pid"
        )
    return fitting[0]


def _format_exporters(exporters: Sequence[RunningExporter]) -> str:
    return ", ".join(map(str, exporters))


def _format_state(answer: dict[str, object]) -> str:
    pools = answer.get("pools")
    named = ", ".join(map(str, pools)) if isinstance(pools, list) else ""
    match answer.get("mode"):
        case "pin":
            state = f"pinned at {answer.get('size')} until resume"
        case "pause":
            state = "paused: its size stays as it is until resume"
        case "advise":
            state = "keeps its size: feedback.mode is advise"
        case _:
            state = "sizes itself again"
    return f"lane {answer.get('lane')} {state} (pools: {named})"
