"""Reload `paropt.yml` when it has changed, and reject a faulty one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from paropt_exporter import config as configs
from paropt_exporter import families
from paropt_exporter.errors import ConfigError, UsageError

_Stamp = tuple[int, int, int] | None
_SUCCESS, _FAILURE = families.RELOAD_RESULTS


class ConfigFile:
    """The config's file while an exporter repeats its lane.

    Guarantees: each state of the file is read once, except on request; a faulty file is reported once, counted, and
    changes nothing. Not thread-safe, except for `reloads`.
    """

    def __init__(self, path: Path | None) -> None:
        """Create it before reading the config, so that it notices a change in between. None: there is no file."""
        # A pipe can be read only once. A call may change the current folder.
        self._path = None if path is None or not path.is_file() else Path(os.path.abspath(path))  # noqa: PTH100 -- keeps links
        self._stamp = self._look()
        self._reloads = dict.fromkeys(families.RELOAD_RESULTS, 0)

    def reload_if_changed(
        self, take: Callable[[configs.Config], None], say: Callable[[str], None], *, asked: bool = False
    ) -> None:
        """Read the file if it has changed or is `asked` for, and pass the config to `take`.

        `take` raises UsageError to reject it. `say` prints one line, or one for each fault.
        """
        stamp = self._look()
        if self._path is None or (stamp == self._stamp and not asked):
            return
        self._stamp = stamp  # before reading: a file replaced in between is read next time
        try:
            take(configs.read_config(self._path, root=self._path.parent))
        except (ConfigError, UsageError) as error:
            self._reloads[_FAILURE] += 1
            faults = error.faults if isinstance(error, ConfigError) else (str(error),)
            say(f"{self._path.name} has changed and can't be used: the one before stays in force")
            for fault in faults:
                say(fault)
        else:
            self._reloads[_SUCCESS] += 1
            say(f"{self._path.name} has changed: it is in force from the next run on")

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
