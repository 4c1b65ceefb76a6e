"""A hostile checkout: links, pipes and false data in the places of the exporter's own files."""

from __future__ import annotations

import os
import sqlite3
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from support import projects

KEPT = "what its owner wrote\n"


def outside(folder: Path) -> Path:
    """A folder of the user beside the checkout, with files that the checkout must not change."""
    folder.mkdir()
    for name in ("notes", "empty"):
        (folder / name).write_text(KEPT if name == "notes" else "")
    (folder / "folder").mkdir()
    return folder


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of all files below a folder; for a link, its target."""
    return {str(path.relative_to(folder)): (path.lstat().st_mode, _content(path)) for path in sorted(folder.rglob("*"))}


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return os.fsencode(path.readlink())
    return path.read_bytes() if path.is_file() else b""


def garbage_history(checkout: Path, victims: Path) -> None:
    """A broken history whose lock is a link to a file of the user."""
    own = checkout / ".paropt"
    own.mkdir()
    (own / "history.db").write_bytes(b"garbage" * 1000)
    (own / "history.db.lock").symlink_to(victims / "notes")


def linked_history(checkout: Path, victims: Path) -> None:
    own = checkout / ".paropt"
    own.mkdir()
    (own / "history.db").symlink_to(victims / "empty")  # an empty file is a database for SQLite, which would write


def linked_sidecars(checkout: Path, victims: Path) -> None:
    own = checkout / ".paropt"
    own.mkdir()
    (own / "history.db").write_bytes(b"")
    for part in ("-wal", "-shm", "-journal", ".lock"):
        (own / f"history.db{part}").symlink_to(victims / "notes")


def linked_folder(checkout: Path, victims: Path) -> None:
    (checkout / ".paropt").symlink_to(victims / "folder")


def linked_inner_folders(checkout: Path, victims: Path) -> None:
    own = checkout / ".paropt"
    own.mkdir()
    for name in ("control", "logs", "runs"):
        (own / name).symlink_to(victims / "folder")


def linked_files(checkout: Path, victims: Path) -> None:
    own = checkout / ".paropt"
    own.mkdir()
    for name in (".gitignore", "functions.json", "paropt.schema.json"):
        (own / name).symlink_to(victims / "notes")


def pipes(checkout: Path, victims: Path) -> None:
    own = checkout / ".paropt"
    own.mkdir()
    for name in ("history.db", "history.db.lock", "functions.json", "paropt.schema.json"):
        os.mkfifo(own / name)


def hard_links(checkout: Path, victims: Path) -> None:
    own = checkout / ".paropt"
    own.mkdir()
    for name in ("history.db.lock", "functions.json", "paropt.schema.json"):
        (own / name).hardlink_to(victims / "notes")


def planted_logs(checkout: Path, victims: Path) -> None:
    """Logs that are links, a pipe and a second name of somebody's file, all of them old, and one that is garbage."""
    logs = checkout / ".paropt" / "logs"
    logs.mkdir(parents=True)
    (logs / "20200101T000000-aaaaaa.log").symlink_to(victims / "notes")
    os.mkfifo(logs / "20200102T000000-aaaaaa.log")
    (logs / "20200103T000000-aaaaaa.log").hardlink_to(victims / "notes")
    (logs / "20200104T000000-aaaaaa.log").write_text("[" * 100_000 + "\n")
    for log in logs.iterdir():
        os.utime(log, (0, 0), follow_symlinks=False)


def hot_journal(checkout: Path, victims: Path) -> None:
    """A journal of several databases, as after a crash: SQLite deletes the list that it names."""
    own = checkout / ".paropt"
    own.mkdir()
    with closing(sqlite3.connect(own / "history.db")) as connection:
        connection.execute("CREATE TABLE runs (run_id)")
    name = bytes(victims / "notes")
    header = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + struct.pack(">IIIII", 0, 0, 2, 512, 4096)
    checksum = sum(byte - 256 if byte > 127 else byte for byte in name) & 0xFFFFFFFF
    list_name = struct.pack(">I", (1 << 30) // 4096 + 1) + name + struct.pack(">II", len(name), checksum) + header[:8]
    (own / "history.db-journal").write_bytes(header.ljust(512, b"\0") + list_name)


TRAPS: dict[str, Callable[[Path, Path], None]] = {
    trap.__name__: trap
    for trap in (
        garbage_history,
        linked_history,
        linked_sidecars,
        linked_folder,
        linked_inner_folders,
        linked_files,
        pipes,
        hard_links,
        planted_logs,
        hot_journal,
    )
}


def checkout(folder: Path, trap: str, victims: Path, stages: str = 'name: one, run: "true"') -> Path:
    """Make a project whose `.paropt` is one of the TRAPS."""
    folder.mkdir()
    projects.write(folder, stages)
    config = folder / "paropt.yml"
    config.write_text(f"# yaml-language-server: $schema=.paropt/paropt.schema.json\n{config.read_text()}")
    TRAPS[trap](folder, victims)
    return folder


@contextmanager
def endless_folders(top: Path) -> Iterator[None]:
    """Nest 1,200 folders in a folder until the block ends: Python allows a thousand calls inside each other."""
    inner = os.open(top, os.O_DIRECTORY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=inner)
        deeper = os.open("d", os.O_DIRECTORY, dir_fd=inner)
        os.close(inner)
        inner = deeper
    os.close(inner)
    try:
        yield
    finally:
        subprocess.run(["rm", "-rf", str(top / "d")], check=True)  # shutil.rmtree is such a series of calls
