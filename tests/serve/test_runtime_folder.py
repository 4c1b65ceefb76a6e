"""The folder of the socket: which one, whose, and how a run finds out that there is none."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from paropt_exporter.errors import UsageError
from paropt_exporter.serve import runtime_folder
from paropt_exporter.serve.runtime_folder import UnsafeFolder
from support.real_servers import HANG_SECONDS


def foreign_folder(tmp_path: Path) -> Path:
    """Return a folder of another user: as root one that was given away, otherwise root's."""
    if os.geteuid():
        return Path("/usr")
    folder = tmp_path / "foreign"
    folder.mkdir()
    os.chown(folder, 12345, -1)
    return folder


IN_REMOVED = 0x40 | 0x200  # moved away, deleted
IN_APPEARED = 0x80 | 0x100  # moved here, created


class Watched:
    """The changes of a folder's names, as inotify reports them."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert libc.inotify_add_watch(self._descriptor, os.fsencode(folder), IN_REMOVED | IN_APPEARED) >= 0

    def list_changes(self) -> list[tuple[str, bool]]:
        """Return (name, whether it is there now) of each change so far, and end."""
        received = os.read(self._descriptor, 65536)
        os.close(self._descriptor)
        return [*_parse_changes(received)]


def _parse_changes(received: bytes) -> Iterator[tuple[str, bool]]:
    header = struct.Struct("iIII")
    while received:
        _, mask, _, length = header.unpack_from(received)
        name = received[header.size : header.size + length].rstrip(b"\0").decode()
        yield name, bool(mask & IN_APPEARED)
        received = received[header.size + length :]


def test_socket_of_a_restarted_serve_replaces_the_old_one_in_one_step(tmp_path: Path) -> None:
    """A run that finds none takes its `serve` for ended, not for killed, and goes on alone with all cores."""
    with runtime_folder.listen(tmp_path):
        pass
    watched = Watched(tmp_path)
    with runtime_folder.listen(tmp_path):
        client = runtime_folder.connect(tmp_path, 1.0)
    assert client is not None
    client.close()
    changes = [there for name, there in watched.list_changes() if name == runtime_folder.SOCKET_NAME]
    assert changes == [True]


def test_variable_comes_first_and_turns_off() -> None:
    assert runtime_folder.find_folder({"PAROPT_SERVE": "/x", "XDG_RUNTIME_DIR": "/tmp"}) == Path("/x")
    assert runtime_folder.find_folder({"PAROPT_SERVE": "off", "XDG_RUNTIME_DIR": "/tmp"}) is None


def test_runtime_folder_of_the_login_is_used_if_it_exists(tmp_path: Path) -> None:
    found = runtime_folder.find_folder({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert found == tmp_path / "paropt-exporter"
    without = runtime_folder.find_folder({"XDG_RUNTIME_DIR": str(tmp_path / "none")})
    assert without == Path(f"/tmp/paropt-exporter-{os.geteuid()}")


def test_made_folder_is_private(tmp_path: Path) -> None:
    runtime_folder.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    runtime_folder.make_folder(tmp_path / "a" / "b")


def test_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeFolder, match="belongs to another user"):
        runtime_folder.check_folder(foreign_folder(tmp_path))


def test_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(UnsafeFolder, match="a link is not followed"):
        runtime_folder.make_folder(tmp_path / "link")


def test_file_in_the_way_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not a folder"):
        runtime_folder.make_folder(tmp_path / "file")
    with pytest.raises(UsageError, match="Not a directory"):
        runtime_folder.make_folder(tmp_path / "file" / "below")
    (tmp_path / "runtime").mkdir(mode=0o700)
    (tmp_path / "runtime" / runtime_folder.PROJECTS_NAME).touch()
    with pytest.raises(UsageError, match="not a folder"):
        runtime_folder.make_folder(tmp_path / "runtime")


def test_no_folder_no_socket_or_another_file_there_means_no_serve(tmp_path: Path) -> None:
    assert runtime_folder.connect(tmp_path / "none", 1.0) is None
    assert runtime_folder.connect(tmp_path, 1.0) is None
    (tmp_path / "serve.sock").touch()
    assert runtime_folder.connect(tmp_path, 1.0) is None


def test_long_path_works(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20) / ("path" * 20)
    runtime_folder.make_folder(folder)
    listener = runtime_folder.listen(folder)
    client = runtime_folder.connect(folder, 5.0)
    assert client is not None
    assert runtime_folder.read_peer_user(client) == os.geteuid()
    client.close()
    listener.close()


def test_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    runtime_folder.make_folder(tmp_path / "r")
    runtime_folder.listen(tmp_path / "r").close()
    assert runtime_folder.connect(tmp_path / "r", 1.0) is None
    listener = runtime_folder.listen(tmp_path / "r")
    client = runtime_folder.connect(tmp_path / "r", 1.0)
    assert isinstance(client, socket.socket)
    client.close()
    listener.close()


def test_full_queue_is_a_timeout(tmp_path: Path) -> None:
    with runtime_folder.listen(tmp_path), ExitStack() as stack, pytest.raises(TimeoutError):
        while (client := runtime_folder.connect(tmp_path, 0.01)) is not None:
            stack.enter_context(client)


def test_burst_of_connections_finds_serve(tmp_path: Path) -> None:
    with runtime_folder.listen(tmp_path) as listener, ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        listener.setblocking(True)
        listener.settimeout(HANG_SECONDS)

        def accept_slowly() -> None:
            for _ in range(300):
                listener.accept()[0].close()

        accepting = pool.submit(accept_slowly)
        for _ in range(300):
            client = runtime_folder.connect(tmp_path, HANG_SECONDS)
            assert client is not None
            stack.enter_context(client)
        accepting.result(HANG_SECONDS)
