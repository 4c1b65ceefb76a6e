"""Find and read the host config: the servers of this host, and which credentials may go where.

    /etc/paropt-exporter/config.yml  +  $XDG_CONFIG_HOME/paropt-exporter/config.yml  +  PAROPT_ALLOW_CREDENTIALS
    or, in place of both files, the one that PAROPT_HOST_CONFIG names

Entries are combined; if both files have the same key or URL, the user's wins. A project's `paropt.yml` is never one of
them: the files must belong to this user or root, and others must not be able to write to them; relative paths are
refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter import files
from paropt_exporter.config.server_urls import find_longest_prefix, parse_server_url
from paropt_exporter.config.units import LARGEST_FILE_BYTES
from paropt_exporter.config.values import BasicAuth, HostFile, Permission, Server, Tls
from paropt_exporter.errors import ConfigError, UsageError

FILE_VARIABLE, ALLOW_VARIABLE = "PAROPT_HOST_CONFIG", "PAROPT_ALLOW_CREDENTIALS"
SYSTEM_FILE = Path("/etc/paropt-exporter/config.yml")
_USER_FILE = "paropt-exporter/config.yml"
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class HostConfig(Struct, frozen=True, kw_only=True):
    """The host's settings; all paths are absolute. `paths`: the files from which they were read.

    `user_file`: where a user adds entries, as messages show it.
    """

    file: HostFile = HostFile()
    paths: tuple[Path, ...] = ()
    user_file: str = f"~/.config/{_USER_FILE}"

    def find_server(self, url: str) -> Server | None:
        """Return the entry of the server with the longest path that contains this URL."""
        found = find_longest_prefix(url, (server.url for server in self.file.servers))
        return next((server for server in self.file.servers if server.url == found), None)

    def allows_credentials(self, url: str, root: Path) -> bool:
        """Return whether the `paropt.yml` of the project in `root` may name credentials for this URL."""
        return any(
            (entry.url is None or find_longest_prefix(url, (entry.url,)) is not None)
            and (entry.repository is None or _is_within(root, entry.repository))
            for entry in self.file.allow
        )

    def knows_url(self, url: str) -> bool:
        """Return whether this URL is listed, with or without credentials."""
        file = self.file
        defaults = (entry.url for entry in (file.prometheus, file.push, file.cache) if entry is not None)
        allowed = (entry.url for entry in file.allow if entry.url is not None)
        return find_longest_prefix(url, (*(server.url for server in file.servers), *defaults, *allowed)) is not None


def load_host_config(environ: Mapping[str, str], *, system_file: Path = SYSTEM_FILE) -> HostConfig:
    """Return the host's settings. Raises ConfigError with all faults of the files, and UsageError for a variable."""
    read: list[tuple[Path, HostFile]] = []
    faults: list[str] = []
    candidates = _list_candidates(environ, system_file)
    for path in candidates:
        try:
            content = _read_trusted(path)
        except ConfigError as error:
            faults += error.faults
            continue
        if content is None:
            if environ.get(FILE_VARIABLE):
                raise UsageError(f"{FILE_VARIABLE}: there is no file {path}: correct the path, or leave it out")
            continue
        try:
            read.append((path, _make_absolute(_parse(content, path, environ), path.parent, environ)))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(tuple(faults))
    merged = HostFile()
    for _, file in read:
        merged = _merge(merged, file)
    allowed = tuple(Permission(url=url) for url in environ.get(ALLOW_VARIABLE, "").split())
    for entry in allowed:
        _check_allowed(entry.url or "")
    return HostConfig(
        file=replace(merged, allow=(*merged.allow, *allowed)),
        paths=tuple(path for path, _ in read),
        **({"user_file": str(candidates[-1])} if candidates else {}),
    )


def _list_candidates(environ: Mapping[str, str], system_file: Path) -> list[Path]:
    """Return the files that may be there, the system's first. An empty PAROPT_HOST_CONFIG means none."""
    named = environ.get(FILE_VARIABLE)
    if named is not None:
        if named and not os.path.isabs(named):  # noqa: PTH117 -- a text of the environment
            raise UsageError(
                f"{FILE_VARIABLE}: {named!r} is relative, and a checkout may hold such a file: give a full path"
            )
        return [Path(named)] if named else []
    home = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(home):  # noqa: PTH117 -- the XDG specification ignores relative paths
        home = os.path.join(files.find_home(environ), ".config")  # noqa: PTH118
    return [system_file, Path(home) / _USER_FILE]


def _read_trusted(path: Path) -> bytes | None:
    """Return the file's content, or None if there is none. Raises ConfigError if another user could have written it."""
    try:
        with files.open_for_reading(path) as file:
            problem = _find_foreign_writer(os.fstat(file.fileno())) or _check_folder(path)
            content = file.read(LARGEST_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        remedy = "correct its permissions, or HOME if that is another user's folder"
        problem, content = f"cannot read it: {error.strerror}: {remedy}", b""
    if problem:
        raise ConfigError((f"{path}:1:1: file: {problem}",))
    return content


def _check_folder(path: Path) -> str:
    problem = _find_foreign_writer(path.resolve().parent.stat())
    return f"its folder: {problem}" if problem else ""


def _find_foreign_writer(status: os.stat_result) -> str:
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to another user (uid {status.st_uid}), who could send your secrets anywhere: chown it"
    if status.st_mode & _WRITABLE_BY_OTHERS:
        return "other users may write to it, and so send your secrets anywhere: chmod go-w"
    return ""


def _parse(content: bytes, path: Path, environ: Mapping[str, str]) -> HostFile:
    from paropt_exporter.config.parsed_configs import ParsedConfigs

    parsed = ParsedConfigs(environ)
    kept = parsed.find_host_file(path, content)
    if kept is not None:
        return kept
    from paropt_exporter.config import validation
    from paropt_exporter.config.document import Unreadable

    try:
        file = validation.validate_host_file(content)
    except Unreadable as error:
        raise ConfigError(tuple(fault.format(str(path)) for fault in sorted(error.faults))) from None
    parsed.store(path, content, file, cores=0, memory_bytes=0)
    return file


def _make_absolute(file: HostFile, folder: Path, environ: Mapping[str, str]) -> HostFile:
    """Return the settings with absolute paths: relative ones start in the file's folder, `~` is the home folder."""

    def resolve(path: str) -> str:
        if path == "~" or path.startswith("~/"):
            path = f"{files.find_home(environ)}{path[1:]}"
        return str(folder / path)

    def resolve_given(path: str | None) -> str | None:
        return None if path is None else resolve(path)

    def resolve_basic(basic: BasicAuth) -> BasicAuth:
        return replace(basic, password_file=resolve_given(basic.password_file))

    def resolve_tls(tls: Tls) -> Tls:
        return Tls(
            ca_file=resolve_given(tls.ca_file),
            cert_file=resolve_given(tls.cert_file),
            key_file=resolve_given(tls.key_file),
        )

    servers = tuple(
        replace(
            server,
            bearer_token_file=resolve_given(server.bearer_token_file),
            basic_auth=resolve_basic(server.basic_auth) if server.basic_auth else None,
            tls=resolve_tls(server.tls) if server.tls else None,
            header_files=MappingProxyType({name: resolve(path) for name, path in server.header_files.items()}),
        )
        for server in file.servers
    )
    allow = tuple(replace(entry, repository=resolve_given(entry.repository)) for entry in file.allow)
    return replace(file, servers=servers, allow=allow)


def _merge(system: HostFile, user: HostFile) -> HostFile:
    return HostFile(
        servers=(*user.servers, *system.servers),
        prometheus=user.prometheus or system.prometheus,
        push=user.push or system.push,
        cache=user.cache or system.cache,
        allow=(*user.allow, *system.allow),
        only_known_urls=user.only_known_urls or system.only_known_urls,
    )


def _check_allowed(url: str) -> None:
    if parse_server_url(url) is None:
        raise UsageError(
            f"{ALLOW_VARIABLE}: expected URLs like https://push.example.org, separated by spaces; one of them is no "
            "plain URL (not shown: it may hold a secret)"
        )


def _is_within(root: Path, folder: str) -> bool:
    """Return whether `root` is this folder or below it, with links resolved on both sides."""
    return root.resolve().is_relative_to(Path(folder).resolve())
