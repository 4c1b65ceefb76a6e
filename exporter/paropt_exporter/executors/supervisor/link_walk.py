"""Find the place of a path: the equivalent path without links or `..` on the way, found as the kernel walks it.

Each link on the way is reported, since with another target the same path means another file, and so is each folder
before `..`, since without it the path means no file. Paths in /proc are kept as they are, since links there lead each
process to another place.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MOST_LINKS = 40  # of a path, as the kernel
_MOST_KNOWN_BYTES = 1 << 24  # of paths, before all are forgotten: a path of 2,000 folders takes 8 MB
_MOST_PASSED_BYTES = 1 << 24  # likewise
_AT_FDCWD = -100
_PROCESSES = b"/proc"
_FOLDER_LINKS = (b"cwd", b"root")


class LinkWalk:
    """The folders that one command's paths lead through.

    `report` gets the place of each link, and of each folder that a path names before `..`.

    Guarantee: a folder is remembered only if no link or folder on its way was moved or made by the command.
    """

    def __init__(self, report: Callable[[bytes], None]) -> None:
        self._report = report
        self._known: dict[bytes, bytes] = {b"": b""}
        self._known_bytes = 0
        self._links: set[bytes] = set()
        self._passed: set[bytes] = set()  # the places on the ways of all paths, since a change of one of them
        self._passed_bytes = 0
        self._changed: set[bytes] = set()
        self.met_change = False  # whether a path since the caller reset this led through a changed place, or to one
        self._followed = 0  # links of the present path

    def find_place(self, path: bytes) -> bytes:
        """Return the place of an absolute path without "." in it. If its last part is a link, it is not followed."""
        self._followed = 0
        folder, _, name = path.rpartition(b"/")
        if name == b"..":
            return self._find_folder(path)[0] or b"/"
        place = self._find_folder(folder)[0] + b"/" + name
        self.met_change |= place in self._changed
        return place

    def note_change(self, place: bytes, *, is_new_link: bool) -> bool:
        """Note that the command removes a place, or puts a link or a moved folder there.

        Return whether paths that led through the place, and had another place until now, may be known.
        """
        if not is_new_link and place not in self._links:
            return False
        self._changed.add(place)
        if place not in self._passed and self._passed_bytes <= _MOST_PASSED_BYTES:
            return False
        self._forget()
        self._passed, self._passed_bytes = set(), 0
        return True

    def _find_folder(self, folder: bytes) -> tuple[bytes, bool]:
        """Return the place of a folder, and whether it lasts. Links after the 40th are not followed."""
        known = self._known.get(folder)
        if known is not None:
            return known, True
        names = []
        while known is None:
            folder, _, name = folder.rpartition(b"/")
            names.append(name)
            known = self._known.get(folder)
        place, lasts = known, True
        while names:
            name = names.pop()
            folder += b"/" + name
            place, step_lasts = self._step(place, name)
            lasts = lasts and step_lasts
            if lasts:
                self._remember(folder, place)
        return place, lasts

    def _step(self, place: bytes, name: bytes) -> tuple[bytes, bool]:
        """Return the place of a name in the folder at a place, and whether it lasts."""
        if name == b"..":
            if leads_through_process(place + b"/.."):
                return place, True  # the rest is not noted, but leaving a process's folder for its parent is
            if place:
                self._report(place)
            return place.rpartition(b"/")[0], True
        place += b"/" + name
        self._pass(place)
        lasts = place not in self._changed
        self.met_change |= not lasts
        target = None if place.startswith(_PROCESSES + b"/") else read_link(place)
        if target is None:
            return place, lasts
        if self._followed == MOST_LINKS:  # the call fails, but not each path through this place
            return place, False
        self._followed += 1
        self._links.add(place)
        self._report(place)
        place, target_lasts = self._find_folder(join(place, target))
        return place, lasts and target_lasts

    def _pass(self, place: bytes) -> None:
        if self._passed_bytes > _MOST_PASSED_BYTES:
            self._passed.clear()  # from now on, every place may have been passed
        elif place not in self._passed:
            self._passed.add(place)
            self._passed_bytes += len(place)

    def _remember(self, folder: bytes, place: bytes) -> None:
        self._known_bytes += len(folder) + len(place)
        if self._known_bytes > _MOST_KNOWN_BYTES:
            self._forget()
        self._known[folder] = place

    def _forget(self) -> None:
        self._known, self._known_bytes = {b"": b""}, 0


def read_link(place: bytes) -> bytes | None:
    """Return the target of a link; None if there is none."""
    try:
        return os.readlink(place)
    except OSError:
        return None


def read_process_link(place: bytes) -> bytes | None:
    """Return the file that a process has open or runs, by a path such as /proc/17/fd/3; None for any other path."""
    if not place.startswith(_PROCESSES + b"/") or not place[len(_PROCESSES) + 1 :][:1].isdigit():
        return None
    target = read_link(place)
    return target if target is not None and target[:1] == b"/" else None


def join(link: bytes, target: bytes) -> bytes:
    """Return the path to which a link at a place leads."""
    return tidy(target if target[:1] == b"/" else _enter(link.rpartition(b"/")[0], target))


def complete_path(process: int, descriptor: int | None, text: bytes) -> bytes | None:
    """Return the absolute path of an argument that a process gave with a folder's descriptor; None if it is empty.

    A descriptor of None is the current folder. Raises OSError if the folder can't be found.
    """
    if not text:
        return None
    path = text
    if text[:1] != b"/":
        number = _AT_FDCWD if descriptor is None else (descriptor & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
        place = b"/proc/%d/cwd" % process if number == _AT_FDCWD else b"/proc/%d/fd/%d" % (process, number)
        path = _enter(os.readlink(place), text)
    return tidy(path)


def _enter(folder: bytes, path: bytes) -> bytes:
    """Return the absolute path of one that is relative to a folder at a place.

    The `..` at its beginning are left out: the folder exists, so it need not be reported.
    """
    while path[:3] == b"../" or path == b"..":
        folder, path = folder.rpartition(b"/")[0], path[3:]
    return folder + b"/" + path


def tidy(path: bytes) -> bytes:
    """Return an absolute path without empty parts and "."; ".." stays, since a link may precede it."""
    if b"/." in path or b"//" in path or path[-1:] == b"/":
        return b"/" + b"/".join([part for part in path.split(b"/") if part not in (b"", b".")])
    return path


def leads_through_process(path: bytes) -> bool:
    """Return whether a path goes through a folder or descriptor of a process, and so leads to a file elsewhere."""
    if not path.startswith(_PROCESSES + b"/"):
        return False
    parts = path.split(b"/")
    return any(name in parts[3:-1] for name in _FOLDER_LINKS) or b"fd" in parts[3:-2]
