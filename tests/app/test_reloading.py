"""When a changed paropt.yml is read again, and what is said of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paropt_exporter.app.config_file import ConfigFile
from paropt_exporter.config import Config
from paropt_exporter.errors import HistoryError, UsageError
from paropt_exporter.metrics import LastReload
from paropt_exporter.testing import START_TIMESTAMP_SECONDS, FakeClock

GOOD = "stages: [{number: 1, name: one, run: 'true'}]\n"
BAD = "stages: 5\n"


class Taker:
    """Takes configs and lines; refuses configs with `fault`."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.said: list[str] = []
        self.fault: Exception | None = None

    def take(self, config: Config) -> None:
        if self.fault:
            raise self.fault
        self.stages = [stage.name for stage in config.stages]

    def look(self, file: ConfigFile, *, asked: bool = False) -> list[str]:
        """Let the file be looked at, and return what is said."""
        self.said.clear()
        file.reload_if_changed(self.take, self.said.append, asked=asked)
        return [*self.said]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "paropt.yml").write_text(GOOD)
    return tmp_path / "paropt.yml"


def test_a_file_that_stays_is_not_read(path: Path) -> None:
    taker = Taker()
    assert taker.look(ConfigFile(path, FakeClock())) == []
    assert taker.stages == []


def test_a_changed_file_is_read_once(path: Path) -> None:
    file, taker = ConfigFile(path, FakeClock()), Taker()
    path.write_text(GOOD.replace("one", "another"))
    assert taker.look(file) == ["paropt.yml has changed: it applies from the next run on"]
    assert taker.stages == ["another"]
    assert taker.look(file) == []
    assert file.reloads() == {"success": 1, "failure": 0}


def test_unchanged_file_that_is_asked_for_is_not_said_to_have_changed(path: Path) -> None:
    file, taker = ConfigFile(path, FakeClock()), Taker()
    assert taker.look(file, asked=True) == ["paropt.yml was read again: it applies from the next run on"]
    path.write_text(BAD)
    taker.look(file)
    assert taker.look(file, asked=True)[0].startswith("paropt.yml was read again and can't be used")


def test_a_file_of_the_same_size_and_time_is_known_by_its_inode(path: Path) -> None:
    file, taker, before = ConfigFile(path, FakeClock()), Taker(), path.stat()
    new = path.with_name("new")
    new.write_text(GOOD.replace("one", "two"))
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.rename(path)
    taker.look(file)
    assert taker.stages == ["two"]


@pytest.mark.parametrize("text", [BAD, "", None], ids=["faulty", "empty", "gone"])
def test_unusable_file_is_reported_once(path: Path, text: str | None) -> None:
    file, taker = ConfigFile(path, FakeClock()), Taker()
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    first, *faults = taker.look(file)
    assert first == "paropt.yml has changed and can't be used: the previous one stays in use"
    assert all(str(path) in fault for fault in faults)
    assert taker.look(file) == []
    assert file.reloads() == {"success": 0, "failure": 1}


def test_pipe_in_place_of_the_file_blocks_nothing(path: Path) -> None:
    """To open one without a writer blocks, even after Ctrl-C: Python opens it again."""
    file, taker = ConfigFile(path, FakeClock()), Taker()
    path.unlink()
    os.mkfifo(path)
    assert taker.look(file)[1:] == [f"{path}:1:1: file: it can't be read: not a regular file"]


def test_refused_config_is_reported_with_the_reason(path: Path) -> None:
    file, taker = ConfigFile(path, FakeClock()), Taker()
    taker.fault = UsageError("lane standard is gone")
    path.write_text(GOOD.replace("one", "another"))
    assert taker.look(file)[1:] == ["lane standard is gone"]


def test_config_that_a_history_refused_is_tried_again(path: Path) -> None:
    file, taker = ConfigFile(path, FakeClock()), Taker()
    taker.fault = HistoryError("disk I/O error")
    path.write_text(GOOD.replace("one", "another"))
    said = ["paropt.yml has changed and can't be used: the previous one stays in use", "disk I/O error"]
    assert [taker.look(file), taker.look(file)] == [said, said]
    taker.fault = None
    taker.look(file)
    assert (taker.stages, file.reloads()) == (["another"], {"success": 1, "failure": 2})


def test_a_repaired_file_is_read(path: Path) -> None:
    file, taker = ConfigFile(path, FakeClock()), Taker()
    path.write_text(BAD)
    taker.look(file)
    path.write_text(GOOD)
    taker.look(file)
    assert (taker.stages, file.reloads()) == (["one"], {"success": 1, "failure": 1})


def test_last_reload_has_its_success_and_the_time_of_the_last_good_one(path: Path) -> None:
    clock = FakeClock()
    file, taker = ConfigFile(path, clock), Taker()
    assert file.last_reload == LastReload(successful=True, success_timestamp_seconds=START_TIMESTAMP_SECONDS)
    clock.advance(10)
    path.write_text(BAD)
    taker.look(file)
    assert file.last_reload == LastReload(successful=False, success_timestamp_seconds=START_TIMESTAMP_SECONDS)
    clock.advance(10)
    path.write_text(GOOD)
    taker.look(file)
    assert file.last_reload == LastReload(successful=True, success_timestamp_seconds=START_TIMESTAMP_SECONDS + 20)


def test_a_file_that_is_asked_for_is_read_unchanged(path: Path) -> None:
    taker = Taker()
    taker.look(ConfigFile(path, FakeClock()), asked=True)
    assert taker.stages == ["one"]


def test_without_a_file_nothing_is_read(tmp_path: Path) -> None:
    taker = Taker()
    assert taker.look(ConfigFile(None, FakeClock()), asked=True) == []
    os.mkfifo(tmp_path / "pipe")
    assert taker.look(ConfigFile(tmp_path / "pipe", FakeClock()), asked=True) == []  # a pipe can be read only once
