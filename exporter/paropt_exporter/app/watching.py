"""Decide which stages a watched lane runs next: those whose inputs changed, and those that stand behind them.

    file events -> scan of the inputs -> affected stages -> wind down the run, if one is in progress -> next run

Events are hints: a scan decides by content. Guarantees: a change during a run is never lost, and a stage that writes
its own inputs comes to rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING

from paropt_exporter.app.input_changes import InputChanges
from paropt_exporter.events import Result, RunRecord, StageRecord
from paropt_exporter.plan import Selection, choose_stages

if TYPE_CHECKING:
    from paropt_exporter.config import Config, Stage

# Runs in a row during which inputs of a stage changed. A formatter settles in the second one.
_MOST_CANCELLED = 3  # then a run of it is no longer ended early
_MOST_REPEATED = 4  # then it waits for a change between two runs
_MOST_HELD = 20  # scans in a row that wait for git's lock, which a git that was killed leaves behind
_MOST_NAMED = 10
STALE = "files changed"


class Watch:
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
    ) -> None:
        """`interrupt` ends stale stages of the run in progress, `wake` the wait between two runs."""
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
        self._states: dict[str, StageRecord] = {}
        self._held = 0
        self.quits = False
        self.reloads = False
        self.reconfigure(config)

    def reconfigure(self, config: Config) -> None:
        """Continue with the stages of a changed config, and run all of them."""
        stages, _ = choose_stages(config, self._lane, self._selection)
        inputs = InputChanges(config, stages)
        with self._lock:
            self._config = config
            self._stages: Sequence[Stage] = stages
            self._inputs = inputs
            self._states = {name: state for name, state in self._states.items() if name in self._names}
            self._asked = set(self._names)

    def is_quiet(self, path: str) -> bool:
        """Return whether an event about a path means nothing, except for the index of git, which is awaited."""
        return path != ".git/index.lock" and self._inputs.is_quiet(path)

    def look(self) -> None:
        """Scan the inputs, and end what has become stale."""
        with self._lock:
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
        """Take note that these stages run, with the files as they are now."""
        with self._lock:
            self._scan()
            self._in_run, self._disturbed = frozenset(stages), set()
            self._changed = {name: path for name, path in self._changed.items() if name not in self._in_run}
            self._asked -= self._in_run

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
        """Return the stages to run now, in the order of the config: none if there is nothing to do."""
        with self._lock:
            chosen = {name for name in (*self._changed, *self._asked) if name in self._names}
            chosen |= {name for name in self._names if self._was_ended_early(name)}
            chosen |= self._find_behind(chosen)
            chosen |= self._find_open_needs(chosen)
            return tuple(name for name in self._names if name in chosen)

    def describe(self) -> str:
        """Return the last state of each stage in a line."""
        with self._lock:
            by_word: dict[str, list[str]] = {}
            for name in self._names:
                by_word.setdefault(_describe_state(self._states.get(name)), []).append(name)
            files = self._inputs.count
        words = sorted(by_word, key=lambda word: (word == "passed", word))
        parts = [f"{_join_names(by_word[word])} {word}" for word in words]
        return f"state: {'; '.join(parts)} · watching {files} file{'' if files == 1 else 's'}"

    @property
    def has_failures(self) -> bool:
        """Whether a stage has not passed."""
        with self._lock:
            return any(not self._has_passed(name) for name in self._names)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self._stages)

    def _scan(self) -> Mapping[str, str]:
        """Return the stages that became affected since the last scan, and keep them."""
        if self._is_git_busy():
            return {}
        changed = self._inputs.scan()
        affected = self._inputs.find_affected(changed)
        if self._config.path is not None and self._config.path.name in changed:
            self.reloads = True
        self._changed.update(affected)
        self._disturbed.update(affected)
        if not self._in_run:
            for name in affected:
                self._repeats[name] = 0
        return affected

    def _is_git_busy(self) -> bool:
        """Whether a git command is about to change many files, such as a checkout: its end causes an event."""
        self._held = self._held + 1 if (self._config.root / ".git" / "index.lock").exists() else 0
        return 0 < self._held <= _MOST_HELD

    def _has_passed(self, name: str) -> bool:
        state = self._states.get(name)
        return state is not None and (state.result is Result.SUCCESS or _was_planned_skip(state))

    def _was_ended_early(self, name: str) -> bool:
        state = self._states.get(name)
        return state is not None and STALE in state.message and state.result in (Result.CANCELLATION, Result.SKIP)

    def _find_behind(self, chosen: set[str]) -> set[str]:
        """Return the stages that were skipped since a stage that they need had failed, and can run now."""
        found: set[str] = set()
        for stage in _sort_by_needs(self._stages):
            state = self._states.get(stage.name)
            if state is None or state.result is not Result.SKIP or not state.message.startswith("needs "):
                continue
            needs = [need for need in stage.needs if need in self._names]
            again = chosen | found
            if any(need in again for need in needs) and all(need in again or self._has_passed(need) for need in needs):
                found.add(stage.name)
        return found

    def _find_open_needs(self, chosen: set[str]) -> set[str]:
        """Return the stages that chosen ones need and that have not passed."""
        needs = {stage.name: stage.needs for stage in self._stages}
        found: set[str] = set()
        waiting = [*chosen]
        while waiting:
            for need in needs[waiting.pop()]:
                if need in needs and need not in chosen and need not in found and not self._has_passed(need):
                    found.add(need)
                    waiting.append(need)
        return found


def _sort_by_needs(stages: Sequence[Stage]) -> list[Stage]:
    names = {stage.name for stage in stages}
    done: dict[str, Stage] = {}
    waiting = [*stages]
    while waiting:
        ready = [stage for stage in waiting if all(need in done or need not in names for need in stage.needs)]
        done.update({stage.name: stage for stage in ready})
        waiting = [stage for stage in waiting if stage.name not in done]
        if not ready:
            break  # a circle, which the config's checks refuse
    return [*done.values(), *waiting]


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


def _join_names(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_MOST_NAMED])} and {more} more"
