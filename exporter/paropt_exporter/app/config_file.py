"""Read the config again when its file has changed, while an exporter repeats its lane."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec.structs import replace

from paropt_exporter import families
from paropt_exporter.clock import Clock
from paropt_exporter.config import Config, reread_config
from paropt_exporter.errors import ConfigError, HistoryError, UsageError
from paropt_exporter.events import LastReload
from paropt_exporter.files import is_file

_Stamp = tuple[int, int, int] | None
_SUCCESS, _FAILURE = families.RELOAD_RESULTS


class ConfigFile:
    """The config's file while an exporter repeats its lane.

    Guarantees: each state of the file is read once, except on request; a faulty file is reported once, counted, and
    changes nothing. Not thread-safe, except for `reloads` and `last_reload`.
    """

    def __init__(self, path: Path | None, clock: Clock) -> None:
        """Create it before reading the config, so that it notices a change in between. None: there is no file."""
        # A pipe can be read only once. A call may change the current folder.
        self._path = None if path is None or not is_file(path) else Path(os.path.abspath(path))  # noqa: PTH100 -- keeps links
        self._stamp = self._look()
        self._reloads = dict.fromkeys(families.RELOAD_RESULTS, 0)
        self._clock = clock
        self.last_reload = LastReload(success_timestamp_seconds=clock.wall())  # replaced as a whole: scrapes read it

    def reload_if_changed(
        self, take: Callable[[Config], None], say: Callable[[str], None], *, asked: bool = False
    ) -> None:
        """Read the file if it has changed or is `asked` for, and pass the config to `take`.

        `take` raises UsageError to reject it, and HistoryError if it can't be applied now: the next call tries again.
        `say` prints one line, or one for each fault.
        """
        stamp = self._look()
        if self._path is None or (stamp == self._stamp and not asked):
            return
        what = f"{self._path.name} {'was read again' if stamp == self._stamp else 'has changed'}"
        before, self._stamp = self._stamp, stamp  # before reading: a file replaced in between is read next time
        try:
            take(reread_config(self._path))
        except (ConfigError, UsageError, HistoryError) as error:
            if isinstance(error, HistoryError):
                self._stamp = before
            self.last_reload = replace(self.last_reload, successful=False)
            self._reloads[_FAILURE] += 1
            faults = error.faults if isinstance(error, ConfigError) else (str(error),)
            say(f"{what} and can't be used: the previous one stays in use")
            for fault in faults:
                say(fault)
        else:
            self.last_reload = LastReload(success_timestamp_seconds=self._clock.wall())
            self._reloads[_SUCCESS] += 1
            say(f"{what}: it applies from the next run on")

    def reloads(self) -> Mapping[str, int]:
        """Return how often a changed file was loaded and rejected, by result. Any thread may call it."""
        return dict(self._reloads)

    def _look(self) -> _Stamp:
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
