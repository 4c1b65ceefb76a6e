"""A folder for temporary files of this process, which replaces those of killed processes."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES = 10  # another process that removes old folders can take a new one that is not locked yet


class TemporaryFolder:
    """A private folder that lives as long as this process.

    It is locked, so that another process can tell it from the folder of a killed one. Where the file system has no
    locks, folders of killed processes stay.
    """

    def __init__(self, prefix: str) -> None:
        """Make it in the system's folder for temporary files; raises OSError."""
        place = Path(tempfile.gettempdir())
        _remove_unlocked(place, prefix)
        for _ in range(_TRIES):
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
            with suppress(FileNotFoundError):
                self.descriptor = os.open(self.path, _FOLDER_FLAGS)
                if _try_lock(self.descriptor) is not False and self.path.exists():
                    return
                os.close(self.descriptor)
        raise FileNotFoundError(f"{place}: another process removes new folders")

    def close(self) -> None:
        """Remove it with all its files."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):  # a call of a stage has closed it
            os.close(self.descriptor)


def _remove_unlocked(place: Path, prefix: str) -> None:
    """Remove the folders with a prefix that belong to this user, and that no process has locked."""
    with suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if not entry.name.startswith(prefix):
                continue
            with suppress(OSError):  # gone, a link, or no folder
                descriptor = os.open(entry.path, _FOLDER_FLAGS)
                try:
                    if _is_own(os.fstat(descriptor)) and _try_lock(descriptor):
                        shutil.rmtree(entry.path, ignore_errors=True)
                finally:
                    os.close(descriptor)


def _is_own(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700


def _try_lock(descriptor: int) -> bool | None:
    """Lock a folder. Return False if another process has the lock, and None if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
