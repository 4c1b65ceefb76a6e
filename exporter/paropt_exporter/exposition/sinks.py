"""The sinks of a run's final values, for runs that end before a scrape: a Pushgateway, a textfile."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, urlsplit

from msgspec import Struct

from paropt_exporter import families, files
from paropt_exporter.config import Push
from paropt_exporter.config.credentials import (
    SecretError,
    build_headers,
    describe_cause,
    hide_secrets,
    list_secrets,
)
from paropt_exporter.config.server_urls import names_server
from paropt_exporter.config.values import Tls
from paropt_exporter.errors import DeliveryError, UsageError, get_traceback, to_one_line
from paropt_exporter.exposition.deliveries import Deliver

if TYPE_CHECKING:
    import requests

    from paropt_exporter.http_sessions import Sockets

log = logging.getLogger(__name__)

_LAST_SUCCESS = families.RUN_LAST_SUCCESS.name.encode()

# Textfiles:
_MODE = 0o644  # node_exporter runs as another user; it must be able to read the file under a umask of 077 too
_EXTENSION = ".prom"  # other files are not read
_LONGEST_NAME = 245  # bytes, of the 255 of a file's name; it is written under a name of 10 more
_DIGEST_CHARACTERS = 16
_LARGEST_FILE_BYTES = 256 << 20  # twice a page of 10,000 stages
_LONGEST_LINE_BYTES = 1 << 16
_MOST_KNOWN_LINES = 10  # TYPE and one sample: each lane has its own file
_HELP = re.compile(rb"^# HELP .*\n", re.MULTILINE)

# Pushes:
_PLAIN = re.compile(r"(?!\.+$)[\w.~-]+", re.ASCII)  # values that need no escapes in a path, without . and ..
_RETRIES = 2
_RETRY_STATUSES = (429, 502, 503, 504)  # of a gateway that restarts, or of a proxy in front of it
_BACKOFF_SECONDS = 0.2
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_ERROR_CHARACTERS = 200  # of an error response's body: the gateway gives the reason in one line


def check_textfile_folder(folder: Path) -> None:
    """Raise UsageError, before the run, if the folder of a lane's page is missing or not writable."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"--textfile {folder}: cannot write a file there: {error.strerror}: "
            "give the folder of node_exporter's --collector.textfile.directory, and let this user write to it"
        ) from None


def build_textfile_path(folder: Path, *, project: str, lane: str) -> Path:
    """Return the path of a lane's page; each lane has its own file.

    The path is absolute, since a Python call of a stage may change the current folder.
    """
    # The project's own underscores are escaped: lane `c` of project `a_b` is not lane `b_c` of project `a`.
    escaped = quote(project, safe="").replace("_", "%5F")
    name = f"paropt_{escaped}_{quote(lane, safe='')}"
    if len(name) + len(_EXTENSION) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_CHARACTERS]
        name = f"{name[: _LONGEST_NAME - len(_EXTENSION) - len(digest) - 1]}+{digest}"  # no whole name has a plus
    return folder.absolute() / f"{name}{_EXTENSION}"


def write_textfile(path: Path, page: bytes) -> None:
    """Replace the file with the page, in text format, atomically. If that fails, raise DeliveryError; the old file
    stays.

    Help texts are left out: if files have different ones, as those of two versions, node_exporter drops all but the
    first. If the page has no time of the lane's last success, since its history was deleted, the one in the file is
    kept.
    """
    try:
        known = page if _LAST_SUCCESS in page else page + _read_known_success(path)
        files.replace_file(path, _HELP.sub(b"", known), mode=_MODE, sync=True)
    except OSError as error:
        raise DeliveryError(
            f"cannot write {path}: {error.strerror}: check the folder's space and permissions"
        ) from None


def _read_known_success(path: Path) -> bytes:
    """Return the file's lines about the last success; none if it is missing or not a regular file."""
    try:
        with files.open_for_reading(path, follow_links=False) as file:
            known = (line for line in _iter_lines(file) if _LAST_SUCCESS in line)
            return b"".join(islice(known, _MOST_KNOWN_LINES))
    except (FileNotFoundError, files.UnexpectedFileType):
        return b""


def _iter_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the file's lines up to _LARGEST_FILE_BYTES, without those that are too long to be ours."""
    read_bytes, begins = 0, True
    while read_bytes < _LARGEST_FILE_BYTES and (line := file.readline(_LONGEST_LINE_BYTES)):
        ends = line.endswith(b"\n")
        if begins and ends:
            yield line
        read_bytes, begins = read_bytes + len(line), ends


class Gateway(Struct, frozen=True, kw_only=True):
    """A Pushgateway.

    `read_headers` returns the headers of a push, and may raise SecretError; each push calls it, since secrets rotate.
    `secret_headers`: the names of further headers whose values messages hide, as they do for Authorization.
    `timeout_seconds` bounds a whole push. Raises UsageError for an invalid URL.
    """

    url: str
    timeout_seconds: float = 10.0
    read_headers: Callable[[], Mapping[str, str]] = dict
    secret_headers: tuple[str, ...] = ()
    ca_file: Path | None = None
    certificate: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if not names_server(self.url) or "?" in self.url or "#" in self.url:
            raise UsageError(f"push URL {_redact_url(self.url)!r}: expected one like http://127.0.0.1:9091")
        if urlsplit(self.url).username is not None:
            raise UsageError(
                f"push URL {_redact_url(self.url)!r}: every process can see a password there: "
                "give its file or variable in paropt.yml, under push.basic_auth"
            )


def build_pushgateway_sink(settings: Push, *, url: str, instance: str, project: str, lane: str, root: Path) -> Deliver:
    """Build a sink that pushes pages to the group of this project, lane and instance; paths are relative to `root`.

    Raises UsageError for an invalid URL.
    """
    preload_push_modules()
    grouping = {
        "project": project,
        "lane": lane,
        "instance": instance or socket.gethostname(),
    }
    return partial(push_page, gateway=_build_gateway(settings, url, root), job=settings.job, grouping=grouping)


def _build_gateway(settings: Push, url: str, root: Path) -> Gateway:
    tls = settings.tls or Tls()
    certificate = root / tls.cert_file if tls.cert_file is not None else None
    key = root / tls.key_file if tls.key_file is not None else certificate
    return Gateway(
        url=url,
        timeout_seconds=settings.timeout,
        read_headers=partial(build_headers, settings, root),
        secret_headers=tuple(settings.header_files),
        ca_file=root / tls.ca_file if tls.ca_file is not None else None,
        certificate=(str(certificate), str(key)) if certificate is not None else None,
    )


def preload_push_modules() -> None:
    """Import the modules that a push needs, before a stage's Python call puts the project first on sys.path."""
    for name in ("paropt_exporter.http_sessions", "urllib3.util"):
        import_module(name)
    "localhost".encode("idna")  # imports the codec that resolving a host name needs


def push_page(page: bytes, gateway: Gateway, *, job: str, grouping: Mapping[str, str]) -> None:
    """Replace one group of the Pushgateway with the page; raises DeliveryError, within the timeout.

    If the page has no time of the lane's last success, since its history was deleted, the group keeps the families that
    the page lacks (POST instead of PUT). Otherwise alerts on the age of the last success would never fire.
    """
    from paropt_exporter.http_sessions import Sockets

    outcome: SimpleQueue[DeliveryError | None] = SimpleQueue()
    sockets = Sockets()
    # In a thread: requests bounds each read, not the whole push, so a gateway that sends a byte now and then would
    # delay the exit without a limit.
    Thread(
        target=_run_push,
        args=(page, gateway, build_url(gateway, job, grouping), outcome, sockets),
        name="paropt-push",
        daemon=True,
    ).start()
    try:
        failure = outcome.get(timeout=gateway.timeout_seconds)
    except Empty:
        sockets.close()  # which ends the thread
        raise DeliveryError(f"{gateway.url} did not answer within {gateway.timeout_seconds:g} s") from None
    if failure is not None:
        raise failure


def build_url(gateway: Gateway, job: str, grouping: Mapping[str, str]) -> str:
    """Return the URL of a group: the gateway's API, with two path segments for each label."""
    steps = [_format_label(label, value) for label, value in {"job": job, **grouping}.items()]
    return "/".join([gateway.url.rstrip("/"), "metrics", *steps])


def _format_label(label: str, value: str) -> str:
    if _PLAIN.fullmatch(value):
        return f"{label}/{value}"
    return f"{label}@base64/{base64.urlsafe_b64encode(value.encode()).decode() or '='}"


def _run_push(
    page: bytes, gateway: Gateway, address: str, outcome: SimpleQueue[DeliveryError | None], sockets: Sockets
) -> None:
    secrets: tuple[str, ...] = ()
    try:
        headers = gateway.read_headers()
        secrets = list_secrets(headers, gateway.secret_headers)
        _send_post(page, gateway, address, headers, sockets)
    except SecretError as error:
        outcome.put(DeliveryError(str(error)))
    except DeliveryError as error:  # it may quote the answer of a server that quotes the request
        outcome.put(DeliveryError(to_one_line(hide_secrets(str(error), secrets))))
    except Exception as error:  # the boundary of the thread: `push_page` reports any error
        log.debug("a push failed", exc_info=_without_text(error))
        outcome.put(DeliveryError(f"{gateway.url}: {hide_secrets(describe_cause(error), secrets)}"))
    else:
        outcome.put(None)


def _without_text(error: Exception) -> RuntimeError:
    """Return an error with this one's traceback, but only its type as the message: its own may quote a header."""
    return RuntimeError(type(error).__name__).with_traceback(get_traceback(error))


def _send_post(page: bytes, gateway: Gateway, address: str, headers: Mapping[str, str], sockets: Sockets) -> None:
    with _build_session(headers, sockets) as session:
        response = session.request(
            "PUT" if _LAST_SUCCESS in page else "POST",
            address,
            data=page,
            headers={"Content-Type": _TEXT},
            timeout=gateway.timeout_seconds,
            # Here and not in the session, where $REQUESTS_CA_BUNDLE would override them:
            verify=str(gateway.ca_file) if gateway.ca_file else None,
            cert=gateway.certificate,
            allow_redirects=False,  # the body and the password are for this host only
            stream=True,
        )
        if response.is_redirect:
            raise DeliveryError(
                f"{gateway.url} redirects to {response.headers['Location']}: push there if you trust it"
            )
        if response.status_code >= 300:  # a 304, or a redirect without a target, does not mean that the page was taken
            body = next(response.iter_content(_ERROR_CHARACTERS), b"").decode(errors="replace")
            line = " ".join("".join(char if char.isprintable() else " " for char in body).split())
            raise DeliveryError(f"{gateway.url} answered {response.status_code} {response.reason}: {line}")


def _build_session(headers: Mapping[str, str], sockets: Sockets) -> requests.Session:
    import requests
    from urllib3.util import Retry

    from paropt_exporter.http_sessions import mount_sockets

    session = requests.Session()
    retry = Retry(
        total=_RETRIES,
        redirect=False,
        status_forcelist=_RETRY_STATUSES,
        allowed_methods=("PUT", "POST"),  # pushing the same page twice is harmless
        backoff_factor=_BACKOFF_SECONDS,
        backoff_jitter=_BACKOFF_SECONDS,
        raise_on_status=False,
        respect_retry_after_header=False,
    )
    mount_sockets(session, sockets, max_retries=retry)
    session.headers.update(headers)
    session.auth = lambda request: request  # not None, or requests would send the password of a .netrc file
    return session


def _redact_url(address: str) -> str:
    """Return a URL without its user, password and query, which may be secret."""
    start, separator, rest = address.partition("?")[0].rpartition("@")
    scheme = "://".join(start.split("://")[:-1])
    return f"{scheme}://...@{rest}" if separator else rest
