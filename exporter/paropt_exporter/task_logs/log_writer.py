"""Write the output of attempts to the log of their run, and keep the folder of logs within its limits.

If the disk fails, the log ends, but the run continues.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from paropt_exporter import files, plain_json
from paropt_exporter.clock import Clock
from paropt_exporter.events import Event, RunRecord, RunStarted, TaskRecord
from paropt_exporter.lazy_patterns import compile_later

log = logging.getLogger(__name__)

SUFFIX = ".log"
_OURS = compile_later(r"\d{8}T\d{6}-[0-9a-f]{6}")  # a run's id; it begins with the time, so names sort by age
_MOST_LOGS = 5_000  # each start of a run looks at all of them, which takes 6 µs of CPU time for each
_LARGEST_TAIL = 256 * 1024  # bytes: as much of a long output's end as is kept in memory anyway


class LogLimits(Struct, frozen=True, kw_only=True):
    """How much output is kept for one run and for all runs together, for how long, and of how many runs."""

    run_bytes: int
    total_bytes: int
    age_seconds: float
    runs: int = _MOST_LOGS


def find_log_folder(history: Path) -> Path:
    """Return where the logs of a project with this history are."""
    return files.find_beside(history, "logs")


class LogFolder:
    """The logs of a project's runs, which several processes may write and read at once.

    Guarantees: only the user can read the files; no link is followed; when a run begins, older logs are removed so that
    all logs stay within `total_bytes` even if this run fills its own, and there are at most `runs` of them. Logs of
    runs in progress are never removed.
    """

    def __init__(self, path: Path, limits: LogLimits, *, clock: Clock, lives: Callable[[str], bool]) -> None:
        """`lives`: whether the process of a run, by its id, may still write its log."""
        self.limits = limits
        self._folder = path
        self._clock = clock
        self._lives = lives

    def path(self, run_id: str) -> Path:
        return self._folder / f"{run_id}{SUFFIX}"

    def create_log(self, run_id: str) -> int:
        """Make room, create the log of a run, and return its descriptor for appending. Raises OSError."""
        files.make_folder(self._folder)
        self._prune_logs()
        path = self.path(run_id)
        return files.open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)

    def _prune_logs(self) -> None:
        """Remove logs that are too old, and the oldest ones until there is room for one more run."""
        left_bytes = self.limits.total_bytes - self.limits.run_bytes
        oldest = self._clock.wall() - self.limits.age_seconds
        for number, (run_id, found) in enumerate(reversed(scan_logs(self._folder)), 1):
            left_bytes -= found.st_size
            is_surplus = left_bytes < 0 or found.st_mtime < oldest or number >= self.limits.runs
            if is_surplus and not self._lives(run_id):
                with suppress(OSError):  # another process may have removed it, and a surplus file is harmless
                    self.path(run_id).unlink()


class TaskLogs:
    """The logs of this process's runs, one after another: an observer that begins and ends each run's file.

        RunStarted -> new file    open_sink -> AttemptLog.write -> file    TaskRecord -> result    RunRecord -> end

    Guarantees: a run's file has at most `limits.run_bytes`, and an attempt's output at most half of the room that the
    others leave; of longer output the beginning and the end are kept. The first error of the disk is logged and ends
    the log of the run, without other effects. Any thread may write.
    """

    def __init__(self, folder: LogFolder) -> None:
        self._folder = folder
        self._run: _RunLog | None = None

    def observe(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._begin_run(event)
            case TaskRecord() if self._run is not None:
                self._run.end_attempt(event)
            case RunRecord() if self._run is not None:
                run, self._run = self._run, None
                run.close(event)
            case _:
                pass

    def open_sink(self, stage: str, task: int, label: str, item: str | None, attempt: int) -> AttemptLog | None:
        """Return the log of an attempt that is about to start; None if no log is written."""
        run = self._run
        return None if run is None else run.begin_attempt(stage, task, label, item, attempt)

    def path(self, run_id: str) -> Path:
        """Return the path of a run's log."""
        return self._folder.path(run_id)

    def _begin_run(self, event: RunStarted) -> None:
        try:
            descriptor = self._folder.create_log(event.run_id)
        except OSError as error:
            _warn(self._folder.path(event.run_id), error)
            return
        self._run = _RunLog(self._folder.path(event.run_id), descriptor, self._folder.limits.run_bytes)
        self._run.write({"run": event.run_id, "lane": event.lane})


class _RunLog:
    """The log of one run."""

    def __init__(self, path: Path, descriptor: int, limit_bytes: int) -> None:
        self._path = path
        self._lock = threading.Lock()  # guards: all below
        self._descriptor: int | None = descriptor
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        self._attempts: dict[tuple[str, int, int], AttemptLog] = {}
        self._begun = 0

    def begin_attempt(self, stage: str, task: int, label: str, item: str | None, attempt: int) -> AttemptLog:
        with self._lock:
            self._begun += 1
            begin = {
                "begin": self._begun, "stage": stage, "task": task, "label": label, "item": item, "attempt": attempt,
            }  # fmt: skip
            made = self._attempts[stage, task, attempt] = AttemptLog(self, self._begun, begin)
        return made

    def end_attempt(self, record: TaskRecord) -> None:
        """Write the result of an attempt and, if no sink was opened for it (a Python call), its output."""
        with self._lock:
            made = self._attempts.pop((record.stage, record.task, record.attempt), None)
        if made is None:
            label = record.stage if record.item is None else f"{record.stage}[{record.task}]"
            made = self.begin_attempt(record.stage, record.task, label, record.item, record.attempt)
            with self._lock:
                self._attempts.pop((record.stage, record.task, record.attempt), None)
            output = record.output.encode("utf-8", "replace")
            if output:
                made.write(output)
                made.close(lambda: output)
        if made.has_output or record.result.bad:
            made.end(
                {"result": record.result.value, "message": record.message, "seconds": round(record.duration_seconds, 3)}
            )

    def close(self, record: RunRecord) -> None:
        self.write({"over": record.result.value})
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def compute_share_bytes(self, kept_bytes: int) -> int:
        """Return how many bytes of an attempt's output fit: half of the room that the others leave."""
        with self._lock:
            return max(0, self._limit_bytes - self._size_bytes + kept_bytes) // 2

    def write(self, values: dict[str, object], payload: bytes = b"") -> None:
        """Append a frame; the first error ends the log."""
        line = format_header({**values, "bytes": len(payload)}) + payload + b"\n" if payload else format_header(values)
        with self._lock:
            if self._descriptor is None or self._size_bytes + len(line) > self._limit_bytes:
                return
            try:
                _write_all(self._descriptor, line)
            except OSError as error:
                self._give_up(error)
                return
            self._size_bytes += len(line)

    def _give_up(self, error: OSError) -> None:
        """Close the file; under the lock. The frames that it has stay readable."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _warn(self._path, error)


class AttemptLog:
    """The output of one attempt. One thread writes at a time."""

    def __init__(self, run: _RunLog, number: int, begin: dict[str, object]) -> None:
        self._run = run
        self._number = number
        self._begin: dict[str, object] | None = begin  # not written yet
        self._kept_bytes = 0
        self._dropped_bytes = 0

    @property
    def has_output(self) -> bool:
        return self._begin is None

    def write(self, chunk: bytes) -> None:
        """Write output as it arrives; drop it once the log has no room."""
        if not self._dropped_bytes and self._kept_bytes + len(chunk) <= self._compute_beginning_bytes():
            self._write_chunk(chunk)
        else:
            self._dropped_bytes += len(chunk)

    def close(self, tail_of: Callable[[], bytes]) -> None:
        """End the output: write the dropped part of its end, from `tail_of`, as far as it fits."""
        if not self._dropped_bytes:
            return
        room = max(0, self._run.compute_share_bytes(self._kept_bytes) - self._kept_bytes)
        end = tail_of()[-self._dropped_bytes :]
        if len(end) < self._dropped_bytes or len(end) > room:
            end = _cut_to_line_start(end[max(0, len(end) - min(room, _LARGEST_TAIL)) :])
        if missing := self._dropped_bytes - len(end):
            self._write_begin()
            self._run.write({"of": self._number, "missing": missing})
        if end:
            self._write_chunk(end)

    def end(self, values: dict[str, object]) -> None:
        """Write the result of the attempt."""
        self._write_begin()
        self._run.write({"end": self._number, **values})

    def _compute_beginning_bytes(self) -> int:
        """Return how many bytes of the output's beginning to write, so that there is room for its end."""
        share = self._run.compute_share_bytes(self._kept_bytes)
        return share - min(_LARGEST_TAIL, share // 2)

    def _write_chunk(self, chunk: bytes) -> None:
        self._write_begin()
        self._run.write({"of": self._number}, chunk)
        self._kept_bytes += len(chunk)

    def _write_begin(self) -> None:
        if self._begin is not None:
            begin, self._begin = self._begin, None
            self._run.write(begin)


def _cut_to_line_start(output: bytes) -> bytes:
    """Drop an incomplete first line, unless there is no other line."""
    return output[output.find(b"\n") + 1 :] or output


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _warn(path: Path, error: OSError) -> None:
    log.warning(
        "the output of tasks is not kept: the run goes on without its log",
        extra={"path": str(path), "err": error.strerror or str(error)},
    )


def format_header(values: Mapping[str, object]) -> bytes:
    """Return the line that begins a frame."""
    return plain_json.dumps(values, separators=(",", ":")).encode() + b"\n"


def scan_logs(folder: Path) -> list[tuple[str, os.stat_result]]:
    """Return the id of each run with a log, and the state of its file, oldest first; empty without a folder."""
    with suppress(OSError):
        files.check_no_links(folder)
        return sorted(_iter_logs(folder), key=lambda found: found[0])
    return []


def _iter_logs(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name.removesuffix(SUFFIX)
            if name == entry.name or not _OURS.fullmatch(name) or not entry.is_file(follow_symlinks=False):
                continue
            try:  # not `suppress`, which takes as long as the rest of the loop
                state = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # another process has removed it
                continue
            yield name, state
