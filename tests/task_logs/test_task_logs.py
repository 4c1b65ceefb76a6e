"""The output of each attempt is kept in a file a run, within bounds, and no fault of the disk concerns the run."""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.events import Result
from paropt_exporter.task_logs import LogFolder, LogLimits, TaskLogs, find_log_folder
from paropt_exporter.task_logs.log_reader import LoggedAttempt, LogReader, list_runs, open_log
from support.event_samples import StillClock, run_ended, run_started, task

RUN = "20261128T101112-0a1b2c"
LIMITS = LogLimits(run_bytes=1_000_000, total_bytes=4_000_000, age_seconds=1000.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".paropt" / "logs"


def logs_in(
    folder: Path,
    limits: LogLimits = LIMITS,
    clock: StillClock | None = None,
    lives: Callable[[str], bool] | None = None,
) -> TaskLogs:
    return TaskLogs(LogFolder(folder, limits, clock=clock or StillClock(), lives=lives or (lambda run_id: False)))


def begun(folder: Path, run_id: str = RUN, limits: LogLimits = LIMITS, **other: Any) -> TaskLogs:
    logs = logs_in(folder, limits, **other)
    logs.observe(run_started(run_id))
    return logs


def write(logs: TaskLogs, *chunks: bytes, stage: str = "lint", number: int = 0, attempt: int = 1) -> None:
    """Write an attempt's output as the pool of commands does, which keeps the last 256 KiB."""
    sink = logs.open_sink(stage, number, stage, None, attempt)
    if sink is None:
        return
    for chunk in chunks:
        sink.write(chunk)
    sink.close(lambda: b"".join(chunks)[-262_144:])


def attempts(folder: Path, run_id: str = RUN) -> list[LoggedAttempt]:
    with closing(open_log(folder, run_id)) as file:
        return LogReader(file).read_all()


def output(folder: Path, number: int = 0) -> bytes:
    with closing(open_log(folder, RUN)) as file:
        reader = LogReader(file)
        return reader.read_output(reader.read_all()[number])


def size(folder: Path) -> int:
    return (folder / f"{RUN}.log").stat().st_size


def test_output_of_attempts_that_run_at_once_is_kept_apart(folder: Path) -> None:
    logs = begun(folder)
    first, second = logs.open_sink("unit", 0, "unit[0]", "a", 1), logs.open_sink("unit", 1, "unit[1]", "b", 1)
    assert first is not None and second is not None
    for sink, chunk in ((first, b"one\n"), (second, b"\x00\xff{}\n"), (first, b"two")):
        sink.write(chunk)
    logs.observe(task("unit", number=0))
    logs.observe(task("unit", number=1, result=Result.FAILURE))
    assert (output(folder, 0), output(folder, 1)) == (b"one\ntwo", b"\x00\xff{}\n")
    assert [(each.label, each.item, each.result) for each in attempts(folder)] == [
        ("unit[0]", "a", Result.SUCCESS),
        ("unit[1]", "b", Result.FAILURE),
    ]


def test_each_attempt_of_a_task_is_kept(folder: Path) -> None:
    logs = begun(folder)
    for attempt in (1, 2):
        write(logs, b"try %d\n" % attempt, attempt=attempt)
        logs.observe(task(attempt=attempt, final=attempt == 2, result=Result.FAILURE))
    assert [output(folder, number) for number in (0, 1)] == [b"try 1\n", b"try 2\n"]
    assert [each.number for each in attempts(folder)] == [1, 2]


def test_a_call_has_the_output_that_its_record_kept(folder: Path) -> None:
    logs = begun(folder)
    logs.observe(task("call", output="printed ü\n", result=Result.FAILURE))
    assert output(folder) == "printed ü\n".encode()


def test_a_silent_failure_is_kept_and_a_silent_success_is_not(folder: Path) -> None:
    logs = begun(folder)
    for stage, result in (("good", Result.SUCCESS), ("bad", Result.TIMEOUT)):
        write(logs, stage=stage)
        logs.observe(task(stage, result=result))
    assert [(each.stage, each.result) for each in attempts(folder)] == [("bad", Result.TIMEOUT)]


def test_no_other_user_can_read_a_log(folder: Path) -> None:
    before = os.umask(0)
    try:
        begun(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / f"{RUN}.log").stat().st_mode) == 0o600


def test_long_output_keeps_its_beginning_and_its_end(folder: Path) -> None:
    logs = begun(folder)
    lines = [b"line %07d\n" % number for number in range(400_000)]
    write(logs, *(b"".join(lines[at : at + 1000]) for at in range(0, len(lines), 1000)))
    kept = output(folder).splitlines(keepends=True)
    at = next(number for number, line in enumerate(kept) if line.startswith(b"["))
    assert kept[: at - 1] == lines[: at - 1]  # an empty line is before the note
    assert kept[at + 1 :] == lines[-len(kept[at + 1 :]) :]
    assert len(kept[at + 1 :]) * 13 > 200_000
    missing = int(kept[at][1:].split()[0])
    assert missing + sum(map(len, kept[: at - 1])) + sum(map(len, kept[at + 1 :])) == sum(map(len, lines))


def test_an_endless_task_leaves_half_of_the_room_to_others(folder: Path) -> None:
    logs = begun(folder)
    write(logs, *[b"y\n" * 5000] * 500)
    assert size(folder) <= 500_000 + 1000
    write(logs, b"x" * 200_000, stage="other")
    assert output(folder, 1) == b"x" * 200_000


def test_failure_is_in_a_log_that_much_output_has_filled(folder: Path) -> None:
    """It looked as if nothing had failed, since its result found no room."""
    logs = begun(folder)
    for number in range(100):
        write(logs, b"y" * 50_000, number=number)
        logs.observe(task(number=number, result=Result.FAILURE if number == 99 else Result.SUCCESS))
    assert [each.task for each in attempts(folder) if each.failed] == [99]


@given(st.lists(st.lists(st.integers(0, 9000), max_size=6), max_size=30), st.integers(1, 20_000))
def test_a_run_never_takes_more_than_its_bound(
    tmp_path_factory: pytest.TempPathFactory, outputs: list[list[int]], bound: int
) -> None:
    folder = tmp_path_factory.mktemp("bound") / ".paropt" / "logs"
    logs = begun(folder, limits=LogLimits(run_bytes=bound, total_bytes=bound, age_seconds=1000.0))
    for number, chunks in enumerate(outputs):
        write(logs, *(b"z" * length for length in chunks), number=number)
        logs.observe(task(number=number, result=Result.FAILURE))
    logs.observe(run_ended())
    assert size(folder) <= bound
    if size(folder):
        attempts(folder)  # it can be read


def test_a_new_run_removes_the_oldest_logs_to_stay_within_the_total(folder: Path) -> None:
    limits = LogLimits(run_bytes=100_000, total_bytes=300_000, age_seconds=1e9)
    runs = [f"20261128T10111{number}-0a1b2c" for number in range(5)]
    for run_id in runs:
        logs = begun(folder, run_id, limits)
        for stage in ("lint", "unit", "docs"):
            write(logs, *[b"y" * 45_000] * 2, stage=stage)
        logs.observe(run_ended(run_id))
    assert list_runs(folder) == runs[-3:]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 300_000


def test_a_new_run_removes_logs_that_are_too_old(folder: Path) -> None:
    clock = StillClock()
    begun(folder, clock=clock).observe(run_ended(RUN))
    os.utime(folder / f"{RUN}.log", (clock.wall(), clock.wall()))
    clock.advance(LIMITS.age_seconds + 1)
    begun(folder, "20261129T101112-0a1b2c", clock=clock)
    assert list_runs(folder) == ["20261129T101112-0a1b2c"]


def test_a_new_run_removes_the_oldest_of_many_small_logs(folder: Path) -> None:
    """With a run every 10 s, 120,000 files of 400 bytes took 475 MB of a disk, and each start of a run 0.9 s."""
    limits = LogLimits(run_bytes=100_000, total_bytes=300_000, age_seconds=1e9, runs=3)
    runs = [f"20261128T10111{number}-0a1b2c" for number in range(5)]
    for run_id in runs:
        begun(folder, run_id, limits).observe(run_ended(run_id))
    assert list_runs(folder) == runs[-3:]


def test_the_log_of_a_run_that_goes_on_is_never_removed(folder: Path) -> None:
    tight = LogLimits(run_bytes=10_000, total_bytes=10_000, age_seconds=1000.0)
    begun(folder, limits=tight)
    begun(folder, "20261129T101112-0a1b2c", tight, lives=lambda run_id: run_id == RUN)
    assert list_runs(folder) == [RUN, "20261129T101112-0a1b2c"]


def test_files_that_are_no_logs_of_ours_stay(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "notes.log").write_text("mine")
    os.utime(folder / "notes.log", (0, 0))
    begun(folder)
    assert (folder / "notes.log").read_text() == "mine"


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 64 KiB: a write then fails as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_one_warning_and_the_log_stays_readable(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    logs = begun(folder)
    for number in range(4):
        write(logs, b"x" * 30_000, number=number)
        logs.observe(task(number=number, result=Result.FAILURE))
    logs.observe(run_ended())
    assert [record.getMessage() for record in caplog.records] == [
        "the output of tasks is not kept: the run goes on without its log"
    ]
    assert output(folder) == b"x" * 30_000


def test_a_folder_that_cannot_be_made_costs_the_log_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a-file").write_text("")
    logs = begun(tmp_path / "a-file" / "logs")
    assert logs.open_sink("lint", 0, "lint", None, 1) is None
    logs.observe(task())
    logs.observe(run_ended())
    assert len(caplog.records) == 1


def test_no_log_is_written_through_a_link(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".paropt").mkdir()
    (tmp_path / ".paropt" / "logs").symlink_to(tmp_path / "elsewhere")
    write(begun(tmp_path / ".paropt" / "logs"), b"secret")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert "a link, which is not followed here" in caplog.records[0].__dict__["err"]


def test_a_frame_that_was_cut_short_ends_the_log(folder: Path) -> None:
    logs = begun(folder)
    write(logs, b"one\n")
    whole = size(folder)
    write(logs, b"two\n", number=1)
    for length in reversed(range(whole, size(folder))):
        os.truncate(folder / f"{RUN}.log", length)
        assert output(folder) == b"one\n"


def test_output_after_the_end_of_its_run_goes_nowhere(folder: Path) -> None:
    logs = begun(folder)
    sink = logs.open_sink("lint", 0, "lint", None, 1)
    assert sink is not None
    logs.observe(run_ended(RUN))
    sink.write(b"late")
    assert attempts(folder) == []


def test_logs_lie_beside_the_history() -> None:
    assert find_log_folder(Path("/p/.paropt/history.db")) == Path("/p/.paropt/logs")
    assert find_log_folder(Path("/p/data/runs.db")) == Path("/p/data/runs.db.logs")
