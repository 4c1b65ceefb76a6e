"""Decide which URL a lane uses, and which credentials go there: those of the host, or those that a project may choose.

| the URL comes from | the host lists credentials for it | `paropt.yml` names credentials | sent |
|---|---|---|---|
| anywhere | yes | yes or no | the host's, and nothing that `paropt.yml` names |
| command line, host config | no | yes | those of `paropt.yml`: the user chose where they go |
| `paropt.yml` | no | yes | those of `paropt.yml` if the host allows it; otherwise nothing runs |
| anywhere | no | no | none |
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from paropt_exporter.config.host_config import ALLOW_VARIABLE, HostConfig
from paropt_exporter.config.server_urls import LOOPBACK
from paropt_exporter.config.values import Access, Prometheus, Push, Server, Tls
from paropt_exporter.errors import ConfigError

if TYPE_CHECKING:
    from paropt_exporter.config.faults import Fault, Location
    from paropt_exporter.config.loader import Config

_PUSH: Location = ("push",)
_PROMETHEUS: Location = ("feedback", "prometheus")
# With these a repository could address another server behind the same proxy, replace the host's credentials, or hide a
# second request in the first.
_HEADERS_OF_HOST = (
    "authorization", "connection", "content-length", "cookie", "expect", "forwarded", "host", "te", "trailer",
    "transfer-encoding", "upgrade",
)  # fmt: skip
_PREFIXES_OF_HOST = ("proxy-", "x-forwarded-")

_Access = TypeVar("_Access", bound=Access)


def apply_host_config(config: Config, host: HostConfig, *, push_url: str | None = None) -> Config:
    """Return the config with the URLs and credentials that its lanes use. `push_url` is that of the command line.

    Raises ConfigError with the places in `paropt.yml` of everything that this host does not allow.
    """
    push, push_faults = _choose_push(config, host, push_url)
    prometheus, prometheus_faults = _choose_prometheus(config, host)
    if faults := [*push_faults, *prometheus_faults, *_check_cluster(config, host)]:
        raise ConfigError(_place_faults(config, faults))
    return replace(config, push=push, feedback=replace(config.feedback, prometheus=prometheus))


def _choose_push(config: Config, host: HostConfig, url: str | None) -> tuple[Push, list[Fault]]:
    push = config.push
    default = host.file.push.url if host.file.push is not None else None
    chosen = url or push.url or default
    if chosen is None:
        return push, []
    ours = bool(url) or push.url is None
    return _choose_access(replace(push, url=chosen), chosen, _PUSH, config.root, host, ours=ours)


def _choose_prometheus(config: Config, host: HostConfig) -> tuple[Prometheus | None, list[Fault]]:
    named, default = config.feedback.prometheus, host.file.prometheus
    if config.feedback.source == "local":
        return named, []
    prometheus = named or (Prometheus() if default is not None else None)
    if prometheus is None:
        return None, []
    chosen = prometheus.url or (default.url if default is not None else None)
    if chosen is None:
        message = "no url here, and none in the host config: give the URL of a Prometheus"
        return prometheus, [_build_fault(_PROMETHEUS, message)]
    ours = prometheus.url is None
    return _choose_access(replace(prometheus, url=chosen), chosen, _PROMETHEUS, config.root, host, ours=ours)


def _choose_access(
    access: _Access, url: str, place: Location, root: Path, host: HostConfig, *, ours: bool
) -> tuple[_Access, list[Fault]]:
    """Return the settings with the right credentials. `ours`: the URL is from the host or the user."""
    server = host.find_server(url)
    if server is not None:
        return _use_host_credentials(access, server), []
    if ours:
        return access, []
    if host.file.only_known_urls and not host.knows_url(url):
        message = f"this host allows no other servers than those of its host config: add this one to {host.user_file}"
        return access, [_build_fault((*place, "url"), message)]
    if host.allows_credentials(url, root):
        return access, []
    message = (
        f"a paropt.yml may not send a secret of this host to a URL of its choice: in {host.user_file} list the server "
        f"with its credentials (servers), or allow this project its own (allow: [{{repository: {root}}}]; or set "
        f"{ALLOW_VARIABLE} to the URL)"
    )
    return access, [_build_fault(place + key, message) for key in _list_credentials(access)]


def _check_cluster(config: Config, host: HostConfig) -> list[Fault]:
    """Return a fault if variables of this host would go to a cluster that `paropt.yml` chooses."""
    dask = config.dask
    name = (dask.scheduler or "").partition("://")[2].rpartition(":")[0]
    # `insecure` lets a scheduler on this host have workers on others.
    here = dask.scheduler is None or (name in LOOPBACK and not dask.insecure)
    if not dask.pass_env or (here and not dask.file and not dask.cluster):
        return []
    if host.allows_credentials(dask.scheduler or "", config.root):
        return []
    message = (
        "a paropt.yml may not send variables of this host to a cluster of its choice: allow this project to, in "
        f"{host.user_file} (allow: [{{repository: {config.root}}}])"
    )
    return [_build_fault(("dask", "pass_env"), message)]


def _use_host_credentials(access: _Access, server: Server) -> _Access:
    own = {name: value for name, value in access.headers.items() if not _belongs_to_host(name.lower())}
    return replace(
        access,
        bearer_token_file=server.bearer_token_file,
        bearer_token_env=server.bearer_token_env,
        basic_auth=server.basic_auth,
        tls=server.tls,
        headers=MappingProxyType({**own, **server.headers}),
        header_files=server.header_files,
    )


def _belongs_to_host(header: str) -> bool:
    return header in _HEADERS_OF_HOST or header.startswith(_PREFIXES_OF_HOST)


def _list_credentials(access: Access) -> list[Location]:
    """Return the keys that name a secret of the host."""
    tls = access.tls or Tls()
    named: tuple[tuple[Location, object], ...] = (
        (("bearer_token_file",), access.bearer_token_file),
        (("bearer_token_env",), access.bearer_token_env),
        (("basic_auth",), access.basic_auth),
        (("header_files",), access.header_files),
        (("tls", "cert_file"), tls.cert_file),
        (("tls", "key_file"), tls.key_file),
    )
    return [key for key, value in named if value]


def _build_fault(location: Location, message: str) -> Fault:
    from paropt_exporter.config.faults import Fault

    return Fault(location=location, message=message, on_key=True)


def _place_faults(config: Config, faults: list[Fault]) -> tuple[str, ...]:
    """Return the faults with their places in the config, which is read a second time for them."""
    from paropt_exporter import files
    from paropt_exporter.config.document import Document, Unreadable, decode_text
    from paropt_exporter.config.faults import format_path
    from paropt_exporter.config.units import LARGEST_FILE_BYTES

    shown = str(config.path or "paropt.yml")
    try:
        # By its folder: the process may have changed the current one, which `config.path` is relative to.
        content = files.read_start(config.root / Path(shown).name, limit_bytes=LARGEST_FILE_BYTES + 1)
        document = Document(decode_text(content))
    except (OSError, Unreadable):  # it was a pipe, or has changed
        return tuple(f"{shown}:1:1: {format_path(fault.location)}: {fault.message}" for fault in faults)
    return tuple(document.locate(fault).format(shown) for fault in faults)
