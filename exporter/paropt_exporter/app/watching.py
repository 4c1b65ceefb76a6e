"""Watch a lane: decide by file events, changed inputs and pressed keys which stages run next.

    file events -> scan of the inputs -> affected stages -> wind down the run, if one is in progress -> next run

Events are hints: a scan decides by content. Guarantees: a change during a run is never lost, and a stage that writes
its own inputs comes to rest.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any

from paropt_exporter.cache.file_states import FileStates, UnusableFile, get_state
from paropt_exporter.changes import Changes
from paropt_exporter.errors import format_count, join_names
from paropt_exporter.events import Result, RunRecord, StageRecord
from paropt_exporter.git import find_git_folder, find_top_folder
from paropt_exporter.input_files import (
    FoundFile,
    InputPatterns,
    NoGit,
    escape_pattern,
    list_git_files,
    walk_folder,
)
from paropt_exporter.plan import Selection, choose_stages
from paropt_exporter.plan.affected import add_dependents, list_input_patterns, list_output_patterns
from paropt_exporter.plan.stage_graph import find_reachable, map_dependents

if TYPE_CHECKING:
    from paropt_exporter.config import Config, Stage


log = logging.getLogger(__name__)


# Runs in a row during which inputs of a stage changed. A formatter settles in the second one.
_MOST_CANCELLED = 3  # then a run of it is no longer ended early
_MOST_REPEATED = 4  # then it waits for a change between two runs
# How long changes wait for git's lock, since a git that was killed leaves it behind: so many looks without an event
# (10 s), and so many bursts of events in all. A checkout that takes long makes a few bursts in each second.
_MOST_QUIET_LOOKS = 20
_MOST_HELD_BURSTS = 1_000
_MOST_PASSED = 5  # names in the line about the state of all stages
STALE = "files changed"
# A script that writes many files makes one burst of events after another. Changes that follow others within a second
# wait until none has come for half a second, but for three seconds at most. So a single change starts a run at once.
_FOLLOW_SECONDS, _QUIET_SECONDS, _MOST_WAIT_SECONDS = 1.0, 0.5, 3.0
_DEBOUNCE_MS = 300  # an editor or a checkout writes several files within this time
_STEP_MS = 50
_TIMEOUT_MS = 500
_TIMEOUTS_PER_SCAN = 60  # half a minute: an overflow of the kernel's queue loses no change for longer
_POLL_SECONDS = 2.0  # without inotify
_MOST_FAILURES = 3  # of watchfiles in a row: then no events are to be expected
_FOREGROUND_SECONDS = 0.5  # between two looks whether the shell has given the terminal back
_LOCAL_MODES = 3  # their place in what `tcgetattr` returns
# Folders that tools fill by themselves. A file in them still counts if a stage's `inputs` name it, with the next scan.
QUIET_FOLDERS = frozenset(
    {
        ".git", ".hg", ".jj", ".svn", ".paropt", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache",
        ".hypothesis", ".tox", ".nox", ".venv", "venv", "node_modules",
    }
)  # fmt: skip


class LaneWatch:
    """The stages of one lane, with their last states and the changes since. Any thread may call it."""

    def __init__(
        self,
        config: Config,
        lane: str,
        selection: Selection,
        *,
        interrupt: Callable[[frozenset[str], str], None],
        wake: Callable[[], None],
        say: Callable[[str], None],
        own_files: Sequence[Path] = (),
        read_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`interrupt` ends stale stages of the run in progress, `wake` the wait between two runs.

        `own_files`: those in which this process writes its output and reports. They are no inputs.
        """
        self._own_files = own_files
        self._lane = lane
        self._selection = selection
        self._interrupt = interrupt
        self._wake = wake
        self._say = say
        self._lock = Lock()  # guards: all below
        self._changed: dict[str, str] = {}  # affected stages that have not run since, with the path
        self._asked: set[str] = set()
        self._in_run: frozenset[str] = frozenset()
        self._disturbed: set[str] = set()  # stages of the run with an input that has changed since its start
        self._repeats: Counter[str] = Counter()
        self._unplanned_runs: Counter[str] = Counter()  # in a row, in which files were newer than the plan
        self._states: dict[str, StageRecord] = {}
        self._quiet_looks = 0  # without events, in a row, while git has its lock
        self._held_bursts = 0
        self._read_clock = read_clock
        self._last_change_seconds = -math.inf
        self._following_since_seconds = math.inf  # when changes began to follow others; infinity: the last did not
        self.quits = False
        self.reloads = False
        self.reconfigure(config)

    def reconfigure(self, config: Config) -> None:
        """Continue with the stages of a changed config, and run all of them."""
        stages, _ = choose_stages(config, self._lane, self._selection)
        inputs = InputChanges(config, stages, self._own_files)
        with self._lock:
            self._config = config
            self._needs = {stage.name: stage.needs for stage in stages}
            self._inputs, self._planned_paths = inputs, inputs.list_paths()
            top = find_top_folder(config.root)
            self._git_lock = None if top is None else find_git_folder(top) / "index.lock"
            self._states = {name: state for name, state in self._states.items() if name in self._names}
            self._asked = set(self._names)

    def ignore_config_change(self) -> None:
        """Run no stage for a change of the config's file alone, which was refused."""
        with self._lock:
            name = self._config_name
            self._changed = {stage: path for stage, path in self._changed.items() if path != name}

    def is_quiet(self, path: str) -> bool:
        """Return whether an event about a path means nothing."""
        return self._inputs.is_quiet(path)

    def waits_for_git(self) -> bool:
        """Return whether the last look left changes to a later one, since git was about to make more."""
        return self._quiet_looks + self._held_bursts > 0 and self._may_hold()

    def look(self, events: int = 0) -> None:
        """Scan the inputs after a number of events, and end what has become stale."""
        with self._lock:
            self._count_held(events)
            affected = self._scan()
            stale = frozenset(name for name in affected if self._repeats[name] < _MOST_CANCELLED) & self._in_run
            path = next(iter(affected.values()), "")
        if stale:
            self._interrupt(stale, f"{STALE}: {path}")
        elif affected:
            self._wake()

    def press(self, key: str) -> None:
        """Take a key: r runs all stages again, f those that failed, q quits."""
        with self._lock:
            match key:
                case "r":
                    self._asked = set(self._names)
                case "f":
                    self._asked = {name for name in self._names if not self._has_passed(name)}
                case "q":
                    self.quits = True
                case _:
                    return
        self._wake()

    def begin_run(self, stages: Iterable[str]) -> None:
        """Take note that these stages run, with the files as they are now.

        Their plan was made before. So if a file has appeared since, or one is gone, they run once more: it may be one
        of their items. Not without an end: a command that lists items may write another file each time.
        """
        with self._lock:
            self._scan()
            unplanned = self._inputs.find_affected(self._planned_paths ^ self._inputs.list_paths())
            self._in_run, self._disturbed = frozenset(stages), set()
            for name in self._in_run:
                self._unplanned_runs[name] = self._unplanned_runs[name] + 1 if name in unplanned else 0
            again = {name for name in self._in_run if 0 < self._unplanned_runs[name] < _MOST_REPEATED}
            covered = self._in_run - again
            self._changed = {name: path for name, path in self._changed.items() if name not in covered}
            self._asked -= self._in_run
            self._following_since_seconds = math.inf

    def end_run(self, record: RunRecord) -> None:
        """Take the results of a run, and look for changes during it."""
        with self._lock:
            self._states.update({stage.stage: stage for stage in record.stages})
            self._scan()
            for name in self._in_run:
                self._repeats[name] = self._repeats[name] + 1 if name in self._disturbed else 0
                if self._repeats[name] >= _MOST_REPEATED and (path := self._changed.pop(name, None)):
                    self._say(
                        f"--watch: {path} changed during {self._repeats[name]} runs of {name} in a row: if {name} "
                        "writes it, declare it in `outputs`; waiting for another change"
                    )
            self._in_run = frozenset()

    def choose_next(self) -> tuple[str, ...]:
        """Return the stages to plan and run now, in the order of the config: none if there is nothing to do."""
        with self._lock:
            self._planned_paths = self._inputs.list_paths()
            chosen = {name for name in (*self._changed, *self._asked) if name in self._names}
            chosen |= {name for name in self._names if self._was_ended_early(name)}
            chosen |= self._find_behind(chosen)
            chosen = find_reachable(chosen, self._list_open_needs)
            return tuple(name for name in self._names if name in chosen)

    def compute_pause(self) -> float:
        """Return for how many seconds the next run waits for further changes; 0: it may start."""
        with self._lock:
            if not self._changed:
                return 0.0
            end = min(self._last_change_seconds + _QUIET_SECONDS, self._following_since_seconds + _MOST_WAIT_SECONDS)
            return max(0.0, end - self._read_clock()) if self._following_since_seconds < math.inf else 0.0

    def describe(self) -> str:
        """Return the last state of each stage in a line."""
        with self._lock:
            by_word: dict[str, list[str]] = {}
            for name in self._names:
                by_word.setdefault(_describe_state(self._states.get(name)), []).append(name)
            files = self._inputs.count
        words = sorted(by_word, key=lambda word: (word == "passed", word))
        parts = [f"{_format_names(by_word[word], word)} {word}" for word in words]
        return f"state: {'; '.join(parts)} · watching {format_count(files, 'file')}"

    @property
    def has_failures(self) -> bool:
        """Whether a stage has not passed."""
        with self._lock:
            return any(not self._has_passed(name) for name in self._names)

    @property
    def _config_name(self) -> str:
        return "" if self._config.path is None else self._config.path.name

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(self._needs)

    def _scan(self) -> Mapping[str, str]:
        """Return the stages that became affected since the last scan, and keep them."""
        if self._is_git_busy():
            return {}
        changed = self._inputs.scan()
        affected = self._inputs.find_affected(changed)
        if affected:
            self._note_time()
        if self._config_name in changed:
            self.reloads = True
        of_inputs = {name: path for name, path in affected.items() if path != self._config_name}
        self._changed = affected | self._changed | of_inputs  # the config comes last: its change may be refused
        self._disturbed.update(affected)
        if not self._in_run:
            for name in affected:
                self._repeats[name] = 0
        return affected

    def _note_time(self) -> None:
        now = self._read_clock()
        follows = now < self._last_change_seconds + _FOLLOW_SECONDS
        self._following_since_seconds = min(self._following_since_seconds, now) if follows else math.inf
        self._last_change_seconds = now

    def _count_held(self, events: int) -> None:
        if not self._has_git_lock():
            self._quiet_looks = self._held_bursts = 0
        elif not self._may_hold():
            return  # the lock was left behind: no later change waits for it
        elif events:
            self._quiet_looks, self._held_bursts = 0, self._held_bursts + 1
        else:
            self._quiet_looks += 1

    def _is_git_busy(self) -> bool:
        """Whether a git command, such as a checkout, is about to change many files."""
        return self._has_git_lock() and self._may_hold()

    def _has_git_lock(self) -> bool:
        return self._git_lock is not None and self._git_lock.exists()

    def _may_hold(self) -> bool:
        return self._quiet_looks <= _MOST_QUIET_LOOKS and self._held_bursts <= _MOST_HELD_BURSTS

    def _has_passed(self, name: str) -> bool:
        state = self._states.get(name)
        return state is not None and (state.result is Result.SUCCESS or _was_planned_skip(state))

    def _was_ended_early(self, name: str) -> bool:
        state = self._states.get(name)
        return state is not None and STALE in state.message and state.result in (Result.CANCELLATION, Result.SKIP)

    def _find_behind(self, chosen: set[str]) -> set[str]:
        """Return the stages that were skipped since a stage that they need had failed, and can run now."""
        dependents = map_dependents(self._needs)
        again, waiting = set(chosen), [*chosen]
        for name in waiting:  # which grows
            for dependent in dependents[name]:
                if dependent not in again and self._can_follow(dependent, again):
                    again.add(dependent)
                    waiting.append(dependent)
        return again - chosen

    def _can_follow(self, name: str, again: set[str]) -> bool:
        """Return whether a stage was skipped for a need that runs again, and all its other needs have passed."""
        state = self._states.get(name)
        if state is None or state.result is not Result.SKIP or not state.message.startswith("needs "):
            return False
        needs = [need for need in self._needs[name] if need in self._needs]
        return any(need in again for need in needs) and all(need in again or self._has_passed(need) for need in needs)

    def _list_open_needs(self, name: str) -> list[str]:
        """Return the stages that a stage needs and that have not passed."""
        return [need for need in self._needs[name] if need in self._needs and not self._has_passed(need)]


def _was_planned_skip(state: StageRecord) -> bool:
    return state.result is Result.SKIP and state.message.startswith("no items")


def _describe_state(state: StageRecord | None) -> str:
    if state is None:
        return "not run yet"
    match state.result:
        case Result.SUCCESS:
            return "passed"
        case Result.SKIP:
            return "skipped"
        case Result.CANCELLATION:
            return "ended early"
    return "failed"


def _format_names(names: Sequence[str], word: str) -> str:
    """Return the names of stages in one state. Of many that passed only the number matters."""
    return f"{len(names)} stages" if word == "passed" and len(names) > _MOST_PASSED else join_names(names)


class Keys:
    """`with Keys(on_key):` calls `on_key` for each key, and gives the terminal its settings back at the end.

    In the background (Ctrl-Z, `bg`) it neither reads keys, which are the shell's, nor changes the terminal.
    """

    def __init__(self, on_key: Callable[[str], None]) -> None:
        self._on_key = on_key
        self._terminal = sys.stdin.fileno()
        self._settings: list[Any] = []
        self._reader, self._writer = os.pipe()
        self._thread = threading.Thread(target=self._read, name="paropt-keys", daemon=True)

    def __enter__(self) -> Keys:
        self._settings = termios.tcgetattr(self._terminal)
        tty.setcbreak(self._terminal)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._writer, b"\0")
        self._thread.join()
        if has_keys():
            termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._settings)
        os.close(self._reader)
        os.close(self._writer)

    def _read(self) -> None:
        # A read in the background is an error then: it would stop the process.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTIN})
        while True:
            places = [self._reader]
            if has_keys():
                self._turn_echo_off()
                places.append(self._terminal)
            ready, _, _ = select.select(places, [], [], _FOREGROUND_SECONDS)
            if self._reader in ready:
                return
            if self._terminal not in ready or not has_keys():
                continue
            try:
                pressed = os.read(self._terminal, 64)
            except OSError:  # in the background by now, or the terminal is closed
                continue
            if not pressed:
                return  # the terminal is closed
            for key in pressed.decode(errors="replace"):
                self._on_key(key)

    def _turn_echo_off(self) -> None:
        """Read single keys again after the shell had the terminal."""
        with suppress(termios.error):  # the terminal is closed
            if termios.tcgetattr(self._terminal)[_LOCAL_MODES] & termios.ICANON:
                tty.setcbreak(self._terminal, termios.TCSANOW)  # keeps keys that were pressed meanwhile


def has_keys() -> bool:
    """Return whether keys come from a terminal of which this process is in the foreground."""
    try:
        terminal = sys.stdin.fileno()
        return sys.stderr.isatty() and os.tcgetpgrp(terminal) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False


class FileEvents:
    """`with FileEvents(folder, is_quiet, on_burst, say):` calls `on_burst` after each burst of events, and every 30 s.

    It also calls it once events arrive, and passes the number of events. If the kernel sends none, `on_burst` is called
    every `poll_seconds`; an error of watchfiles delays a call by as much. Paths for which `is_quiet` is true cause no
    call. While `is_pending` is true, `on_burst` is called every half second. All are called on this thread, with paths
    relative to the folder.
    """

    def __init__(
        self,
        folder: str,
        is_quiet: Callable[[str], bool],
        on_burst: Callable[[int], None],
        say: Callable[[str], None],
        *,
        is_pending: Callable[[], bool] = lambda: False,
        poll_seconds: float = _POLL_SECONDS,
        watch: Callable[..., Iterator[Collection[object]]] | None = None,
    ) -> None:
        """`watch`: in place of `watchfiles.watch`."""
        self._poll_seconds = poll_seconds
        self._watch = watch
        self._failures = 0  # of watchfiles, since it last worked
        self._passes_over_denied = False  # folders that this user may not read
        self._folder = os.path.realpath(folder)
        self._is_quiet = is_quiet
        self._on_burst = on_burst
        self._is_pending = is_pending
        self._say = say
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="paropt-watch", daemon=True)

    def __enter__(self) -> FileEvents:
        self._thread.start()
        self._ready.wait(self._poll_seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_POLL_SECONDS)

    def _run(self) -> None:
        idle = _TIMEOUTS_PER_SCAN  # look once events arrive: some may have been missed while the watches were set up
        while not self._stop.is_set():
            try:
                self._wait_for_events(idle)
            except Exception as error:
                if isinstance(error, PermissionError) and not self._passes_over_denied:
                    # Only now: watchfiles then passes over the limit of watches, too, and sees no change beyond it.
                    self._passes_over_denied = True
                    continue
                self._failures += 1
                is_lasting = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
                if is_lasting or self._failures >= _MOST_FAILURES:
                    self._poll(error)
                    return
                if isinstance(error, OSError | RuntimeError):  # watchfiles' own, such as for a name that is not UTF-8
                    log.info("watching files begins again", extra={"err": str(error)})
                else:
                    log.exception("watching files begins again")
                self._stop.wait(self._poll_seconds)
                idle = _TIMEOUTS_PER_SCAN

    def _poll(self, error: Exception) -> None:
        """Do without events: the limit of inotify's watches or instances is reached, or the file system has none."""
        reason = str(error).partition(" about [")[0].rstrip(".")  # without watchfiles' details
        self._say(f"--watch: no file events ({reason}): checking every {self._poll_seconds:g} s")
        self._ready.set()
        while not self._stop.wait(self._compute_interval()):
            self._on_burst(0)

    def _compute_interval(self) -> float:
        return min(self._poll_seconds, _TIMEOUT_MS / 1000) if self._is_pending() else self._poll_seconds

    def _wait_for_events(self, idle: int) -> None:
        """Call `on_burst` for events, and whenever none came for long; `idle`: how many timeouts have passed."""
        import watchfiles  # here: only --watch needs it

        for burst in (self._watch or watchfiles.watch)(
            self._folder,
            watch_filter=lambda _, path: not self._is_quiet(os.path.relpath(path, self._folder)),
            debounce=_DEBOUNCE_MS,
            step=_STEP_MS,
            rust_timeout=_TIMEOUT_MS,
            stop_event=self._stop,
            yield_on_timeout=True,
            raise_interrupt=False,
            ignore_permission_denied=self._passes_over_denied,
        ):
            self._ready.set()
            self._failures = 0
            idle = 0 if burst else idle + 1
            if burst or idle >= _TIMEOUTS_PER_SCAN or self._is_pending():
                idle = 0
                self._on_burst(len(burst))


class InputChanges:
    """The inputs of some stages, as they were at the last scan.

    Outputs and the `file` of each stage are no inputs here: a stage would start itself. Not thread-safe.
    """

    def __init__(self, config: Config, stages: Sequence[Stage], own_files: Sequence[Path] = ()) -> None:
        """Read the inputs; blocks while large ones are read for the first time. `own_files` are no inputs either."""
        self._config = config
        self._stages = stages
        self._folder = str(config.root)
        self._patterns = {
            stage.name: None if stage.declared_inputs is None else InputPatterns(list_input_patterns(stage))
            for stage in stages
        }
        top = os.path.realpath(config.root)
        ours = [escape_pattern(os.path.relpath(os.path.realpath(path), top)) for path in own_files]
        of_stages = [each for stage in config.stages for each in list_output_patterns(stage)]
        self._outputs = InputPatterns([*ours, *of_stages])
        self._files = FileStates(self._folder)
        self._known: dict[str, str] = {}
        self.scan()

    @property
    def count(self) -> int:
        """The number of files."""
        return len(self._known)

    def list_paths(self) -> frozenset[str]:
        """Return the paths of the files, as they were at the last scan."""
        return frozenset(self._known)

    def scan(self) -> frozenset[str]:
        """Return the paths whose content, kind or existence has changed since the last scan."""
        before = self._known
        try:
            self._known = self._read_states()
        except OSError:  # a folder vanished during the walk: the next scan sees what is left
            return frozenset()
        return frozenset(path for path, _ in before.items() ^ self._known.items())

    def find_affected(self, paths: frozenset[str]) -> dict[str, str]:
        """Return the stages that changed paths affect, each with the first of these paths.

        The config's file affects all stages; the path of a stage with another one is that.
        """
        config = "" if self._config.path is None else self._config.path.name
        by_config = dict.fromkeys((stage.name for stage in self._stages), config) if config in paths else {}
        changes = Changes(paths=paths - {config})
        found = {name: self._find_path(name, changes) for name in self._patterns}
        affected = {name: path for name, path in found.items() if path is not None}
        dependents = dict.fromkeys(add_dependents(self._stages, affected), next(iter(affected.values()), ""))
        return {**by_config, **affected, **dependents}

    def is_quiet(self, path: str) -> bool:
        """Return whether events about a path are left to the next scan."""
        return not QUIET_FOLDERS.isdisjoint(path.split("/")) or self._outputs.matches(path)

    def _find_path(self, stage: str, changes: Changes) -> str | None:
        patterns = self._patterns[stage]
        return min(changes.paths, default=None) if patterns is None else changes.find_match(patterns)

    def _read_states(self) -> dict[str, str]:
        found: dict[str, os.stat_result] = {}
        for patterns in {patterns.patterns: patterns for patterns in self._patterns.values() if patterns}.values():
            found.update(patterns.find_readable_files(self._folder))
        if None in self._patterns.values():
            found.update(self._list_project_files())
        if self._config.path is not None:
            found.update(_stat_files(self._folder, [self._config.path.name]))
        kept = ((path, state) for path, state in found.items() if not self._outputs.matches(path))
        return {path: self._read_state(path, state) for path, state in kept}

    def _list_project_files(self) -> Iterable[FoundFile]:
        try:
            listed = list_git_files(self._folder)
        except NoGit:
            return [found for found in walk_folder(self._folder, ".") if not self.is_quiet(found[0])]
        return _stat_files(self._folder, [path for path in listed if not path.startswith("../")])

    def _read_state(self, path: str, state: os.stat_result) -> str:
        try:
            return get_state(self._files.take_snapshot([(path, state)])[path])
        except UnusableFile:
            return f"unreadable {state.st_mtime_ns}"


def _stat_files(folder: str, paths: Iterable[str]) -> Iterable[FoundFile]:
    for path in paths:
        try:
            yield path, Path(folder, path).lstat()
        except OSError:
            continue
