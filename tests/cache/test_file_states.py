"""The index of file states: which files are read again, and which never get a state."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from paropt_exporter.cache.file_states import ABSENT, FileStates, UnusableFile, get_state

HOUR_NS = 3_600_000_000_000


def later_ns() -> int:
    return time.time_ns() + HOUR_NS


def make_file(folder: Path, name: str = "a") -> Path:
    path = folder / name
    path.write_text("one")
    return path


def test_young_file_is_read_again_since_a_change_in_the_same_tick_would_not_show(tmp_path: Path) -> None:
    make_file(tmp_path)
    states = FileStates(str(tmp_path))
    first, second = states.take_entry("a"), states.take_entry("a")
    assert first == second and states.read_count == 2


def test_old_file_is_read_once(tmp_path: Path) -> None:
    make_file(tmp_path)
    states = FileStates(str(tmp_path), read_clock_ns=later_ns)
    states.take_entry("a")
    states.take_entry("a")
    assert states.read_count == 1


def test_index_leaves_out_young_files_and_keeps_old_ones(tmp_path: Path) -> None:
    make_file(tmp_path)
    for clock, expected in ((time.time_ns, 1), (later_ns, 0)):
        states = FileStates(str(tmp_path), tmp_path / "index", read_clock_ns=clock)
        states.take_entry("a")
        states.save()
        again = FileStates(str(tmp_path), tmp_path / "index")
        again.take_entry("a")
        assert again.read_count == expected


@pytest.mark.parametrize("change", ["content", "times kept", "mode", "replaced"])
def test_changed_file_is_read_again(tmp_path: Path, change: str) -> None:
    path = make_file(tmp_path)
    states = FileStates(str(tmp_path), read_clock_ns=later_ns)
    before = states.take_entry("a")
    state = path.stat()
    match change:
        case "content" | "times kept":
            path.write_text("two")
            if change == "times kept":
                os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        case "mode":
            path.chmod(0o755)
        case _:
            make_file(tmp_path, "b").replace(path)
    after = states.take_entry("a")
    assert after != before and states.read_count == 2
    assert (get_state(after) == get_state(before)) is (change == "replaced")


@pytest.mark.parametrize("part", ["", ".walks"], ids=["recorded", "others"])
@pytest.mark.parametrize("content", [b"", b"other", b"paropt index 2 9.9\n0000x"])
def test_damaged_index_is_the_same_as_none(tmp_path: Path, content: bytes, part: str) -> None:
    make_file(tmp_path)
    states = FileStates(str(tmp_path), tmp_path / "index", read_clock_ns=later_ns)
    snapshot = {"a": states.take_entry("a")}
    if not part:
        states.keep_record("stage", ("record",), snapshot)
    states.save()
    assert count_reads(tmp_path) == 0
    index = tmp_path / f"index{part}"
    whole = index.read_bytes()
    for damaged in (content, whole[:-3], whole[:-1] + bytes([whole[-1] ^ 1])):
        index.write_bytes(damaged)
        assert count_reads(tmp_path) == 1
    index.write_bytes(whole)
    assert count_reads(tmp_path) == 0


def test_record_of_a_young_file_is_not_kept_though_it_is_old_at_the_end(tmp_path: Path) -> None:
    """A change in the same tick, which only the later reading sees, would make the record a false hit."""
    make_file(tmp_path)
    shift_ns = 0
    states = FileStates(
        str(tmp_path), tmp_path / "index", read_clock_ns=lambda: (tmp_path / "a").stat().st_ctime_ns + shift_ns
    )
    states.keep_record("stage", ("record",), states.take_snapshot([("a", (tmp_path / "a").stat())]))
    shift_ns = HOUR_NS
    states.take_entry("a")
    states.save()
    assert FileStates(str(tmp_path), tmp_path / "index").find_record("stage") is None


def count_reads(folder: Path) -> int:
    """Return how many files a process with the index reads to know the state of `a`."""
    states = FileStates(str(folder), folder / "index", read_clock_ns=later_ns)
    states.take_entry("a")
    return states.read_count


def test_missing_file_is_absent_and_an_unreadable_one_has_no_state(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    states = FileStates(str(tmp_path))
    assert states.take_entry("gone/a") is ABSENT
    for name in ("pipe", "link"):
        with pytest.raises(UnusableFile, match="neither a file nor a folder"):
            states.take_entry(name)


def test_link_has_the_state_of_its_target_too(tmp_path: Path) -> None:
    path = make_file(tmp_path)
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "loop").symlink_to("loop")
    states = FileStates(str(tmp_path))
    before = get_state(states.take_entry("link"))
    path.write_text("two")
    assert get_state(states.take_entry("link")) != before
    assert get_state(states.take_entry("loop")) == "l loop > -"
