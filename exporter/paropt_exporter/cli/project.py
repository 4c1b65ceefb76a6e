"""The project that the flags name: its config and its history."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from paropt_exporter.errors import UsageError

if TYPE_CHECKING:
    from paropt_exporter.cli.plain_flags import Flags
    from paropt_exporter.config import Config
    from paropt_exporter.history import History


def find_config(flags: Flags) -> Path | None:
    """Return the config's path, and print it to stderr if it is in a folder above."""
    from paropt_exporter import config

    path = config.discover(flags.config_file, os.environ)
    if is_found_above(flags, path) and not flags.quiet:
        print(f"config {path}", file=sys.stderr)
    return path


def load_config(flags: Flags) -> Config:
    """Return the checked config. Raises ConfigError."""
    from paropt_exporter import config

    return config.load_config(find_config(flags), root=Path.cwd(), environ=os.environ)


def is_found_above(flags: Flags, path: Path | None) -> bool:
    """Whether the config is in a folder above the current one, and no flag or variable names it."""
    from paropt_exporter.config.locate import VARIABLE, is_above

    return not flags.config_file and not os.environ.get(VARIABLE) and is_above(path)


def open_history(loaded: Config) -> History:
    """Open the project's history read-only. Raises UsageError if there is none."""
    from paropt_exporter.clock import SystemClock
    from paropt_exporter.history import History

    if not _has_history(loaded):
        raise UsageError(f"no history yet at {loaded.history_path}: run a lane first")
    return History(loaded.history_path, project=loaded.project, clock=SystemClock(), for_reading=True)


def _has_history(loaded: Config) -> bool:
    """Return whether something is, or may be, at the history's path: opening it then reports what is wrong."""
    try:
        loaded.history_path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # such as `.paropt` of another user
        return True
    return True
