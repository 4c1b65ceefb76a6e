"""The folder of the socket: which one, whose, and how a run finds out that there is none."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from paropt_exporter.errors import UsageError
from paropt_exporter.serve import runtime_folder
from paropt_exporter.serve.runtime_folder import UnsafeFolder


def foreign_folder(tmp_path: Path) -> Path:
    """Return a folder of another user: as root one that was given away, otherwise root's."""
    if os.geteuid():
        return Path("/usr")
    folder = tmp_path / "foreign"
    folder.mkdir()
    os.chown(folder, 12345, -1)
    return folder


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
