"""Watch a lane: decide by file events, changed inputs and pressed keys which stages run next.

    file events -> scan of the inputs -> affected stages -> wind down the run, if one is in progress -> next run

Events are hints: a scan decides by content. Guarantees: a change during a run is never lost, and a stage that writes
its own inputs comes to rest.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from paropt_exporter.app.input_changes import InputChanges
from paropt_exporter.config.needs import find_reachable, map_needs_among
from paropt_exporter.errors import format_count, join_names
from paropt_exporter.events import Result, RunRecord, StageRecord
from paropt_exporter.git import find_git_folder, find_top_folder
from paropt_exporter.plan import Selection, choose_stages

if TYPE_CHECKING:
    from paropt_exporter.config import Config

# Runs in a row during which inputs of a stage changed. A formatter settles in the second one.
_MOST_CANCELLED = 3  # then a run of it is no longer ended early
_MOST_REPEATED = 4  # then it waits for a change between two runs
_MOST_PASSED = 5  # names in the line about the state of all stages
_MOST_PATHS = 3  # in the line about changes
STALE = "files changed"
# A script that writes many files makes one burst of events after another. Changes that follow others within a second
# wait until none has come for half a second, but for three seconds at most. So a single change starts a run at once.
_FOLLOW_SECONDS, _QUIET_SECONDS, _MOST_WAIT_SECONDS = 1.0, 0.5, 3.0
# How long changes wait for git's lock: so many looks without an event (10 s), and so many bursts of events in all. A
# checkout that takes long makes a few bursts in each second.
_MOST_QUIET_LOOKS = 20
_MOST_HELD_BURSTS = 1_000


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

        `own_files`: those in which this process writes its output, reports and textfile. They are no inputs.
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
        self._asks_for_failed = False  # the stages that will have failed when the run ends
        self._in_run: frozenset[str] = frozenset()
        self._disturbed: set[str] = set()  # stages of the run with an input that has changed since its start
        self._repeats: Counter[str] = Counter()
        self._unplanned_runs: Counter[str] = Counter()  # in a row, in which files were newer than the plan
        self._states: dict[str, StageRecord] = {}
        self._git_lock = _GitLock()
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
        names, every = [stage.name for stage in stages], {stage.name: stage.needs for stage in config.stages}
        with self._lock:
            self._config = config
            self._needs = map_needs_among(dict.fromkeys(names), every)
            self._inputs, self._planned_paths = inputs, inputs.list_paths()
            self._git_lock.find(config.root)
            self._states = {name: state for name, state in self._states.items() if name in self._names}
            self._changed = {name: path for name, path in self._changed.items() if name in self._names}
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
        return self._git_lock.has_held

    def look(self, events: int = 0) -> None:
        """Scan the inputs after a number of events, and end what has become stale."""
        with self._lock:
            self._git_lock.count_look(events)
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
                case "f" if self._in_run:
                    self._asks_for_failed = True  # its end shows which
                case "f":
                    self._ask_for_failed()
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
            if self._asks_for_failed:
                self._ask_for_failed()

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

    def describe_changes(self) -> str:
        """Return the changes for which the next run starts in a line; "" if it starts for another reason."""
        with self._lock:
            paths = [*dict.fromkeys(self._changed.values())]
        more = ", …" if len(paths) > _MOST_PATHS else ""
        return f"{', '.join(paths[:_MOST_PATHS])}{more} changed" if paths else ""

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
        if self._git_lock.is_busy:
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

    def _ask_for_failed(self) -> None:
        self._asks_for_failed = False
        failed = {name for name in self._names if not self._has_passed(name)}
        self._asked |= failed
        if not failed:
            self._say("all stages have passed: nothing to repeat")

    def _has_passed(self, name: str) -> bool:
        state = self._states.get(name)
        return state is not None and (state.result is Result.SUCCESS or _was_planned_skip(state))

    def _was_ended_early(self, name: str) -> bool:
        state = self._states.get(name)
        return state is not None and STALE in state.message and state.result in (Result.CANCELLATION, Result.SKIP)

    def _find_behind(self, chosen: set[str]) -> set[str]:
        """Return the stages that were skipped or stopped since another one had failed, and that can run now.

        Those that `fail_fast` or a critical limit stopped wait until others run: alone, they would run at once.
        """
        again, passed = set(chosen), set[str]()
        for name in TopologicalSorter(self._needs).static_order():
            if all(need in again or need in passed for need in self._needs[name]):
                missed = self._was_skipped_for_need(name) or (chosen and self._was_stopped(name))
                again |= {name} if missed else set()
                passed |= {name} if self._has_passed(name) else set()
        return again - chosen

    def _was_stopped(self, name: str) -> bool:
        """Return whether the end of its run stopped a stage or kept it from starting."""
        state = self._states.get(name)
        if state is None or self._has_passed(name) or self._was_skipped_for_need(name):
            return False
        return state.result in (Result.CANCELLATION, Result.SKIP)

    def _was_skipped_for_need(self, name: str) -> bool:
        state = self._states.get(name)
        return state is not None and state.result is Result.SKIP and state.message.startswith("needs ")

    def _list_open_needs(self, name: str) -> list[str]:
        """Return the stages that a stage needs and that have not passed."""
        return [need for need in self._needs[name] if not self._has_passed(need)]


class _GitLock:
    """The file that is there while a git command, such as a checkout, changes files. Changes wait until it is gone.

    Not without an end: a git that was killed leaves the file behind, and then no change waits for it.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._quiet_looks = 0  # without events, in a row, while the file is there
        self._held_bursts = 0  # of events, while the file is there

    def find(self, folder: Path) -> None:
        """Look for the lock of the repository that a folder belongs to, if there is one."""
        top = find_top_folder(folder)
        self._path = None if top is None else find_git_folder(top) / "index.lock"

    def count_look(self, events: int) -> None:
        """Count a look at the inputs after a number of events."""
        if not self._is_there():
            self._quiet_looks = self._held_bursts = 0
        elif not self._may_hold():
            return
        elif events:
            self._quiet_looks, self._held_bursts = 0, self._held_bursts + 1
        else:
            self._quiet_looks += 1

    @property
    def is_busy(self) -> bool:
        """Whether git is about to make more changes."""
        return self._is_there() and self._may_hold()

    @property
    def has_held(self) -> bool:
        """Whether changes waited at the last look."""
        return self._quiet_looks + self._held_bursts > 0 and self._may_hold()

    def _is_there(self) -> bool:
        return self._path is not None and self._path.exists()

    def _may_hold(self) -> bool:
        return self._quiet_looks <= _MOST_QUIET_LOOKS and self._held_bursts <= _MOST_HELD_BURSTS


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
