"""Find the config file: from the flag, the environment, or the nearest `paropt.yml` here or in a folder above."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from paropt_exporter.errors import UsageError
from paropt_exporter.files import exists, find_home, is_file, is_folder

VARIABLE = "PAROPT_CONFIG_FILE"
NAMES = ("paropt.yml", "paropt.yaml")
# Names by which other tools would find their config.
_OTHER_NAMES = (
    ".paropt.yml", ".paropt.yaml", "paropt.json", "paropt.toml", "paropt-exporter.yml", "paropt-exporter.yaml",
)  # fmt: skip
_PROJECT_FILES = ("pyproject.toml", "setup.py", "package.json", "go.mod", "Cargo.toml")
_NOT_OURS = frozenset({"node_modules", "venv", "env", "build", "dist", "docs", "tests", "test", "examples", "vendor"})
_REPOSITORY_MARKS = (".git", ".hg", ".jj", ".svn")


def discover(flag: str | None, environ: Mapping[str, str], *, folder: Path = Path()) -> Path | None:
    """Return the config file, or None if there is none. Raises UsageError if the named file does not exist.

    A file in a folder above is returned relative to `folder`, like `../paropt.yml`.
    """
    for source, named in (("--config.file", flag), (VARIABLE, environ.get(VARIABLE) or None)):
        if named is None:
            continue
        path = Path(named)
        if not named or not os.path.lexists(path):
            raise UsageError(f"{source}: there is no file {named!r}: correct the path, or leave it out")
        return path
    for place in walk_up(folder, os.fspath(find_home(environ))):
        found = _find_in(place)
        if found is not None:
            return found
    return None


def walk_up(folder: Path, home: str) -> Iterator[Path]:
    """Yield a folder and the folders above it, up to the root of a repository.

    The search stops before the home folder, before a folder to which every user may write and before another user's
    folder, so that no commands from other users' files run. The owner of the first folder doesn't count as another
    user, since that owner's commands run anyway.
    """
    yield folder
    owners = {0, os.geteuid()}
    with suppress(OSError):  # it was deleted
        owners.add(folder.stat().st_uid)
    here, steps = Path(os.path.abspath(folder)), folder  # noqa: PTH100 -- resolve() would follow links
    # HOME may end with a slash or be a link; `here` does neither.
    homes = {os.path.abspath(home), os.path.realpath(home)}  # noqa: PTH100 -- texts
    while here != here.parent and str(here) not in homes and not _is_repository(here):
        here, steps = here.parent, steps / ".."
        if str(here) in homes or _is_open_to_others(here, owners):
            return
        yield steps


def find_projects_below(root: Path) -> tuple[Path, ...]:
    """Return the folders up to two levels below `root` that are projects, relative to it and in order.

    A folder is one if it has a config, or a file that describes a package of Python, npm, Go or Rust.
    """
    found: list[Path] = []
    for child in _list_folders(root):
        if _is_project(child):
            found.append(child)
        else:
            found += [folder for folder in _list_folders(child) if _is_project(folder)]
    return tuple(folder.relative_to(root) for folder in found)


def has_config(folder: Path) -> bool:
    """Return whether a folder has a paropt.yml or paropt.yaml."""
    return any(is_file(folder / name) for name in NAMES)


def describe_other_names(folder: Path) -> tuple[str, ...]:
    """Return a note on each file in a folder without a config whose name suggests that it is one."""
    found = (name for name in _OTHER_NAMES if is_file(folder / name))
    return tuple(f"{name} is not read: a config is called {NAMES[0]}" for name in found)


def _list_folders(folder: Path) -> list[Path]:
    try:
        return sorted(
            each
            for each in folder.iterdir()
            if is_folder(each)
            and not each.is_symlink()
            and not each.name.startswith(".")
            and each.name not in _NOT_OURS
        )
    except OSError:
        return []


def _is_project(folder: Path) -> bool:
    return has_config(folder) or any(is_file(folder / name) for name in _PROJECT_FILES)


def is_above(path: Path | None) -> bool:
    """Return whether `discover` found this file in a folder above the current one."""
    return path is not None and path.parts[:1] == ("..",)


def _find_in(folder: Path) -> Path | None:
    found = [folder / name for name in NAMES if os.path.lexists(folder / name)]
    if len(found) > 1:
        where = "" if folder == Path() else f"in {folder} "
        raise UsageError(f"{where}there are paropt.yml and paropt.yaml: remove one, or name one with --config.file")
    if found and exists(found[0]) and not is_file(found[0]) and not is_folder(found[0]):
        # Reading a pipe may block.
        raise UsageError(f"{found[0]} is not a regular file: remove it, or name the config with --config.file")
    return found[0] if found else None


def _is_repository(folder: Path) -> bool:
    return any(os.path.lexists(folder / mark) for mark in _REPOSITORY_MARKS)


def _is_open_to_others(folder: Path, owners: Collection[int]) -> bool:
    try:
        found = folder.stat()
    except OSError:
        return True
    return bool(found.st_mode & stat.S_IWOTH) or found.st_uid not in owners
