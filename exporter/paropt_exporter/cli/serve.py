"""`serve` and `serve status`: one exporter for all projects of a user, and its state."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TextIO

import msgspec

from paropt_exporter import logs
from paropt_exporter.app import READER_SECONDS
from paropt_exporter.app.serving import ServeRequest, find_folder, serve_projects
from paropt_exporter.cli.formatting import (
    format_cut_table,
    format_line,
    wrap_for_terminal,
)
from paropt_exporter.cli.streams import find_columns_of_terminal
from paropt_exporter.cli.writer import BackgroundWriter
from paropt_exporter.errors import UsageError, format_count, join_names
from paropt_exporter.serve.messages import (
    AskStatus,
    BadMessage,
    LineBuffer,
    RunStatus,
    Status,
    decode_from_serve,
    encode,
)
from paropt_exporter.serve.runtime_folder import connect

_ANSWER_SECONDS = 5.0
_RECEIVED_BYTES = 1 << 16
_MOST_NAMED = 5
_RUN_HEADERS = ("run", "held", "share", "wanted", "waits")
_DISPENSABLE = ("held", "wanted", "share")  # left out in this order until the table fits the terminal


def run_serve(request: ServeRequest, environ: MutableMapping[str, str]) -> int:
    """Serve until a signal; return 0. A stalled reader of stderr delays neither the page nor the exit."""

    def print_line(line: str) -> None:
        with suppress(OSError):  # the reader has closed stderr
            print(line, file=sys.stderr, flush=True)

    def queue_line(line: str) -> None:
        writer.put(partial(print_line, line), characters=len(line), lines=1)

    writer = BackgroundWriter("paropt-stderr", say=print_line, tell_idle=lambda: None)
    logs.set_writer(queue_line)
    try:
        code = serve_projects(request, environ, queue_line)
    finally:
        logs.set_writer(None)
        written = writer.wait(READER_SECONDS)
    if not written:  # the thread is blocked in a write, and the interpreter would wait for it
        os._exit(code)
    return code


def run_status(environ: MutableMapping[str, str], *, output: str, stdout: TextIO) -> int:
    """Print the projects and runs of the `serve` of this user. Raises UsageError if there is none."""
    status = _fetch_status(find_folder(environ))
    if output == "json":
        stdout.write(msgspec.json.format(msgspec.json.encode(status)).decode() + "\n")
    else:
        stdout.write(format_status(status, find_columns_of_terminal(stdout)))
    return 0


def _fetch_status(folder: Path) -> Status:
    try:
        connection = connect(folder, _ANSWER_SECONDS)
    except TimeoutError as error:
        raise UsageError(f"`paropt-exporter serve` in {folder} does not answer: {error}") from None
    if connection is None:
        raise UsageError(f"`paropt-exporter serve` is not running for this user (in {folder}): start it")
    with connection:
        try:
            connection.sendall(encode(AskStatus()))
            answer = decode_from_serve(_receive_line(connection))
        except (OSError, BadMessage) as error:
            raise UsageError(f"`paropt-exporter serve` in {folder} does not answer: {error}") from None
    if not isinstance(answer, Status):
        raise UsageError(f"`paropt-exporter serve` in {folder} gave no status")
    return answer


def _receive_line(connection: socket.socket) -> bytes:
    received, deadline = LineBuffer(), monotonic() + _ANSWER_SECONDS
    while True:
        connection.settimeout(max(0.001, deadline - monotonic()))
        part = connection.recv(_RECEIVED_BYTES)
        if not part:
            raise ConnectionResetError("it closed the connection")
        if lines := received.add(part):
            return lines[0]


def format_status(status: Status, columns: int | None = None) -> str:
    """Return the status as text: a line for the machine, one for each run, then the idle projects.

    `columns`: the width of the terminal, or None. Names of projects and folders may have any characters.
    """
    held = sum(run.cores_held for run in status.runs)
    lines = [
        f"serve {status.version} (pid {status.pid}) at {status.url}",
        f"{held:.1f} of {status.cores:g} cores held, {format_count(len(status.runs), 'run')},"
        f" {format_count(len(status.projects), 'project')}",
    ]
    if status.runs:
        rows = [_build_row(run) for run in sorted(status.runs, key=_name)]
        lines += ["", *format_cut_table(_RUN_HEADERS, rows, columns, dispensable=_DISPENSABLE)]
    closing = [f"{each.project}: its history can't be read: {each.fault}" for each in status.projects if each.fault]
    if idle := [project for project in status.projects if not project.runs]:
        lines.append("")
        closing.insert(0, "idle: " + ", ".join(f"{project.project} ({project.root})" for project in idle))
    lines += [part for line in closing for part in wrap_for_terminal(format_line(line), columns, 6)]
    return "\n".join(lines) + "\n"


def _build_row(run: RunStatus) -> tuple[str, ...]:
    share = f"{run.cores_granted:5.1f}" if run.limited else " none"
    waits = ""
    if run.waits_for:
        holders = sorted(run.waits_for, key=lambda holder: (-run.waits_for[holder], holder))
        waits = f"{run.waiting_seconds:.0f} s for {join_names(holders, _MOST_NAMED)}"
    return _name(run), f"{run.cores_held:4.1f}", share, f"{run.cores_wanted:6.1f}", waits


def _name(run: RunStatus) -> str:
    return f"{run.project} {run.lane} (pid {run.pid})"
