"""A remote cache over Bazel's HTTP protocol: results under `/ac/KEY`, contents under `/cas/SHA256`.

The server and the credentials come from the environment or the host config, never from `paropt.yml`, which a pull
request could change. Without PAROPT_CACHE_WRITE nothing is written, so that only trusted jobs fill a shared cache. A
job that is not trusted may write below its own path (`PAROPT_CACHE_URL=https://cache/pull/17`).

The message under `/ac` is an ActionResult. It has only length-delimited fields and numbers, for which 60 lines suffice;
the protobuf package would take 50 ms to load.
https://github.com/bazelbuild/remote-apis/blob/main/build/bazel/remote/execution/v2/remote_execution.proto
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Event, Thread
from typing import IO, TYPE_CHECKING

from msgspec import Struct

from paropt_exporter.cache.entry import BadEntry, Entry, format_entry, is_digest, parse_entry
from paropt_exporter.cache.result_store import LARGEST_ENTRY_BYTES, SIZE_VARIABLE, Store
from paropt_exporter.config.credentials import SecretError, build_headers, describe_cause, read_secret
from paropt_exporter.config.host_config import HostConfig
from paropt_exporter.config.values import Tls
from paropt_exporter.errors import UsageError

if TYPE_CHECKING:
    from requests import Response, Session

    from paropt_exporter.http_sessions import Sockets

URL_VARIABLE, TOKEN_FILE_VARIABLE, WRITE_VARIABLE = "PAROPT_CACHE_URL", "PAROPT_CACHE_TOKEN_FILE", "PAROPT_CACHE_WRITE"
# Field numbers of ActionResult, OutputFile and Digest.
_OUTPUT_FILES, _STDERR_DIGEST = 2, 8
_FILE_PATH, _FILE_DIGEST, _FILE_EXECUTABLE = 1, 2, 4
_DIGEST_HASH, _DIGEST_SIZE = 1, 2
_VARINT, _DELIMITED = 0, 2  # wire types
_FIXED_SIZES = {1: 8, 5: 4}
_LONGEST_DIGEST_BYTES = 1000  # it has about 70
_MOST_FIELDS = 1_000_000  # of an ActionResult: an entry of the largest size has 800,000 files
_TIMEOUT_SECONDS = (3.0, 30.0)  # to connect, and between two reads
_CHUNK_BYTES = 1 << 18
_LIMIT_SECONDS = 30.0  # for a result, plus one second for so many bytes
_SLOWEST_BYTES_PER_SECOND = 100_000
_CHECK_SECONDS = 0.1
_RETRY_SECONDS = 300.0  # a server that is down delays a run by seconds, so not each run tries it


class BadMessage(Exception):
    """The bytes are not an ActionResult with an entry."""


class Digest(Struct, frozen=True):
    """The SHA-256 of a content, and its size."""

    hash: str
    size_bytes: int


class RemoteFailed(Exception):
    """The server did not answer by the protocol. The message is one line with the reason."""


class ResultTooLarge(Exception):
    """A result has more bytes than this program accepts. The message says so in one line."""


class Access(Struct, frozen=True, kw_only=True):
    """`read_headers` returns the headers with this host's credentials, and may raise SecretError; each request calls
    it, since secrets rotate. The others are paths of certificates.
    """

    read_headers: Callable[[], Mapping[str, str]] = dict
    ca_file: str | None = None
    certificate: tuple[str, str] | None = None


class RemoteCache:
    """One server, for one thread. After a failure this run does not use it again, nor do others for some minutes.

    Each result is transferred in a separate thread, whose connection is cut if the server is too slow: a socket's
    timeout does not limit a server that sends a byte now and then.

    Guarantees: downloads are used only after their digest was verified; an entry is uploaded after its contents; no
    result brings more bytes than the store may have; no method blocks for longer than `limit_seconds` plus the time
    that the moved bytes take at 100 kB/s.
    """

    def __init__(
        self,
        url: str,
        *,
        access: Access | None = None,
        writes: bool = False,
        limit_seconds: float = _LIMIT_SECONDS,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        self.failure = ""
        self._retry_seconds, self._failed_seconds = retry_seconds, 0.0
        self.writes = writes
        self._limit_seconds = limit_seconds
        self._url, self._access = url.rstrip("/"), access or Access()
        self._connection = _Connection(self._url, self._access)

    def begin_run(self) -> None:
        """Use the server again if its failure was long ago: a process with `--every` may run for months."""
        if self.failure and time.monotonic() >= self._failed_seconds + self._retry_seconds:
            self.failure = ""

    def fetch(self, key: str, store: Store, given_up: Event) -> bool:
        """Download a result with all its contents into the store. Return whether the store has it now.

        `given_up` ends the wait early. Raises RemoteFailed, ResultTooLarge, and StoreUnusable if it can't be written.
        """
        if self.failure:
            return False
        connection = self._connection
        return bool(self._wait(lambda: _fetch_result(connection, key, store), given_up, f"GET ac/{key[:9]}…"))

    def send(self, entry: Entry, store: Store) -> None:
        """Upload a result with its contents. Raises RemoteFailed."""
        connection = self._connection
        if not self.failure and self.writes:
            self._wait(lambda: _send_result(connection, entry, store), Event(), f"PUT ac/{entry.key[:9]}…")

    def _wait(self, transfer: Callable[[], object], given_up: Event, what: str) -> object:
        """Return the result of a transfer; None if it was given up. Raises the errors of `fetch`."""
        done: Future[object] = Future()
        began, before = time.monotonic(), self._connection.moved_bytes
        Thread(target=_run, args=(transfer, done), name="paropt-remote", daemon=True).start()
        while not wait([done], _CHECK_SECONDS).done:
            moved_bytes = self._connection.moved_bytes - before
            if time.monotonic() - began > self._limit_seconds + moved_bytes / _SLOWEST_BYTES_PER_SECOND:
                self._abandon()
                raise self._fail(f"{what} is too slow")
            if given_up.is_set():
                self._abandon()
                return None
        try:
            return done.result()
        except (BadMessage, BadEntry, RemoteFailed) as error:
            raise self._fail(str(error)) from None

    def _abandon(self) -> None:
        """End the connection, and so its thread."""
        self._connection.abandon()
        self._connection = _Connection(self._url, self._access)

    def _fail(self, why: str) -> RemoteFailed:
        self.failure, self._failed_seconds = f"the remote cache is not used: {why}", time.monotonic()
        return RemoteFailed(self.failure)


def _run(transfer: Callable[[], object], done: Future[object]) -> None:
    try:
        done.set_result(transfer())
    except BaseException as error:  # noqa: BLE001 -- raised on the thread that waits
        done.set_exception(error)


# Below: on the thread of a transfer


def _fetch_result(connection: _Connection, key: str, store: Store) -> bool:
    message = connection.get(f"ac/{key}")
    if message is None:
        return False
    digest = parse_action_result(message)
    content = connection.get(f"cas/{digest.hash}")
    if content is None:
        return False
    if hashlib.sha256(content).hexdigest() != digest.hash:
        raise RemoteFailed("an entry has another content than its digest says")
    entry = parse_entry(content)
    if entry.key != key:
        raise RemoteFailed("an entry has the key of another one")
    room = _Room(store.limit_bytes, f"the size of the store ({SIZE_VARIABLE})")
    room.check(sum({file.value: file.size_bytes for file in entry.files}.values()))
    if not all(_fetch_content(connection, blob, store, room) for blob in dict.fromkeys(entry.list_blobs())):
        return False
    for listing in entry.listings:  # only for the reasons of later misses
        with suppress(RemoteFailed, BadEntry, ResultTooLarge):
            _fetch_content(connection, listing, store, room)
    store.save(entry)
    return True


class _Room:
    """How many bytes a download may still take."""

    def __init__(self, limit_bytes: int, limit: str) -> None:
        self._left_bytes = limit_bytes
        self._limit = f"{limit_bytes:,} bytes, {limit}"

    def take(self, size_bytes: int) -> None:
        """Take `size_bytes`. Raises ResultTooLarge if there is no room for them."""
        self.check(size_bytes)
        self._left_bytes -= size_bytes

    def check(self, size_bytes: int) -> None:
        """Raise ResultTooLarge if there is no room for `size_bytes`."""
        if size_bytes > self._left_bytes:
            raise ResultTooLarge(f"a result of the remote cache is not used: it has more than {self._limit}")


def _fetch_content(connection: _Connection, digest: str, store: Store, room: _Room) -> bool:
    """Return whether a content is in the store, after downloading it if it was not."""
    if not store.has(digest):
        return connection.fetch_content(digest, store, room)
    room.take(store.get_size(digest))  # counted as new: contents that earlier runs have left must not add up
    return True


def _send_result(connection: _Connection, entry: Entry, store: Store) -> None:
    content = format_entry(entry)
    digest = Digest(hashlib.sha256(content).hexdigest(), len(content))
    contents = [("output", Digest(entry.output, store.get_size(entry.output)), False)]
    contents += [
        (file.path, Digest(file.value, file.size_bytes), file.kind == "x") for file in entry.files if file.kind != "l"
    ]
    for blob in dict.fromkeys([*entry.list_blobs(), *entry.listings]):
        connection.send_content(blob, store)
    connection.put(f"cas/{digest.hash}", BytesIO(content), len(content))
    message = format_action_result(digest, contents)
    connection.put(f"ac/{entry.key}", BytesIO(message), len(message))


class _Connection:
    """Requests to the server, for one thread at a time. `moved_bytes`: bytes of contents in both directions."""

    def __init__(self, url: str, access: Access) -> None:
        self.moved_bytes = 0
        self._is_abandoned = False
        self._url = url
        self._access = access
        self._session: Session | None = None
        self._sockets: Sockets | None = None

    def abandon(self) -> None:
        """End the requests of its thread; from another thread."""
        self._is_abandoned = True
        if self._sockets is not None:
            self._sockets.close()

    def get(self, name: str) -> bytes | None:
        """Return a small content; None if there is none. Raises RemoteFailed and ResultTooLarge."""
        with self._request("GET", name) as answer:
            if not _has_content(answer, name):
                return None
            room = _Room(LARGEST_ENTRY_BYTES, "the most that an entry may have")
            return b"".join(self._iter_content(answer, name, room))

    def fetch_content(self, digest: str, store: Store, room: _Room) -> bool:
        """Download a content into the store. Raises RemoteFailed, ResultTooLarge, BadEntry and StoreUnusable."""
        name = f"cas/{digest}"
        with self._request("GET", name) as answer:
            if not _has_content(answer, name):
                return False
            store.add_chunks(self._iter_content(answer, name, room), digest)
        return True

    def send_content(self, digest: str, store: Store) -> None:
        """Upload a content that the server lacks. Raises RemoteFailed."""
        path = store.find_content(digest)
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                if not self._has(f"cas/{digest}"):
                    self.put(f"cas/{digest}", file, size)
        except OSError as error:
            raise RemoteFailed(f"a content can't be read: {error.strerror}") from None

    def put(self, name: str, content: IO[bytes], size_bytes: int) -> None:
        """Upload a content. Raises RemoteFailed."""
        headers = {"Content-Length": str(size_bytes)}
        # If an upload has no length, `requests` sends chunks in addition to the header, which servers refuse.
        upload = _Upload(content, size_bytes, self._count) if size_bytes else None
        with self._request("PUT", name, upload, headers) as answer:
            if answer.status_code not in (200, 201, 202, 204):
                raise RemoteFailed(f"PUT {name[:12]}… was answered with {answer.status_code}")

    def _has(self, name: str) -> bool:
        with self._request("HEAD", name) as answer:
            return answer.status_code == 200

    def _iter_content(self, answer: Response, name: str, room: _Room) -> Iterator[bytes]:
        import requests

        try:
            for chunk in answer.iter_content(_CHUNK_BYTES):
                room.take(len(chunk))
                self._count(len(chunk))
                yield chunk
        # Not passed on: a RequestException is an OSError, and would look like one of the store. ValueError: a negative
        # size.
        except (requests.RequestException, ValueError) as error:
            raise RemoteFailed(f"GET {name[:12]}… failed: {describe_cause(error)}") from None

    def _count(self, size_bytes: int) -> None:
        self.moved_bytes += size_bytes
        if self._is_abandoned:
            raise RemoteFailed("it was given up")

    def _request(
        self, method: str, name: str, data: _Upload | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        import requests  # here: few hosts have a remote cache

        from paropt_exporter.http_sessions import Sockets, mount_sockets

        if self._session is None:
            self._session = requests.Session()
            self._sockets = Sockets()
            mount_sockets(self._session, self._sockets)
            self._session.trust_env = False  # no credentials from a netrc, and no proxy for a server nearby
            self._session.headers["Accept-Encoding"] = "identity"  # the size of a compressed answer has no bound
        self._count(0)  # after it has the sockets that `abandon` closes
        try:
            return self._session.request(
                method,
                f"{self._url}/{name}",
                data=data,
                headers={**self._access.read_headers(), **(headers or {})},
                timeout=_TIMEOUT_SECONDS,
                verify=self._access.ca_file or True,
                cert=self._access.certificate,
                stream=True,
                allow_redirects=False,
            )
        except SecretError as error:
            raise RemoteFailed(str(error)) from None
        except (requests.RequestException, OSError, ValueError) as error:  # ValueError: a redirect to no URL
            raise RemoteFailed(f"{method} failed: {describe_cause(error)}") from None


class _Upload:
    """A file that is sent, for requests, which reads `len`; its progress is counted."""

    def __init__(self, file: IO[bytes], size_bytes: int, count: Callable[[int], None]) -> None:
        self.len = size_bytes
        self._file = file
        self._count = count

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._count(len(chunk))
        return chunk

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(_CHUNK_BYTES), b"")


def _has_content(answer: Response, name: str) -> bool:
    """Return True if an answer has a content, False if there is none. Raises RemoteFailed for any other answer."""
    if answer.status_code == 404:
        return False
    if answer.status_code != 200:
        raise RemoteFailed(f"GET {name[:12]}… was answered with {answer.status_code}")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise RemoteFailed(f"GET {name[:12]}… was answered with a packed content")
    return True


def open_remote(environ: Mapping[str, str], host: HostConfig) -> RemoteCache | None:
    """Return the remote cache of the environment or the host config, or None if neither names one.

    Raises UsageError for a wrong setting; its message has neither the URL nor a part of a secret.
    """
    settings = host.file.cache
    url = environ.get(URL_VARIABLE) or (settings.url if settings is not None else "")
    if not url:
        return None
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{URL_VARIABLE}: expected a URL like https://cache.example.org")
    if "@" in url.partition("://")[2].partition("/")[0] or "?" in url or "#" in url:
        raise UsageError(f"{URL_VARIABLE}: a URL with a password or a query would be logged: use {TOKEN_FILE_VARIABLE}")
    writes = environ.get(WRITE_VARIABLE)
    return RemoteCache(
        url,
        access=_choose_access(url, environ, host),
        writes=writes not in ("", "0", "false", "no") if writes is not None else bool(settings and settings.write),
    )


def _choose_access(url: str, environ: Mapping[str, str], host: HostConfig) -> Access:
    path = environ.get(TOKEN_FILE_VARIABLE, "")
    server = None if path else host.find_server(url)
    if path:
        access = Access(read_headers=partial(_read_token, Path(path).absolute()))  # a call may change the folder
    elif server is None:
        access = Access()
    else:
        tls = server.tls or Tls()
        access = Access(
            read_headers=partial(build_headers, server),
            ca_file=tls.ca_file,
            certificate=(tls.cert_file, tls.key_file or tls.cert_file) if tls.cert_file else None,
        )
    try:
        access.read_headers()
    except SecretError as error:
        raise UsageError(f"{TOKEN_FILE_VARIABLE if path else 'remote cache'}: {error}") from None
    return access


def _read_token(path: Path) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {read_secret(path, None)}"}


def format_action_result(entry: Digest, contents: list[tuple[str, Digest, bool]]) -> bytes:
    """Return a message. `entry` is the digest of the entry; `contents` are path, digest and whether it is executable.

    The contents are listed as output files, so that a server that checks results keeps them together.
    """
    message = b"".join(
        _format_field(
            _OUTPUT_FILES,
            _format_field(_FILE_PATH, path.encode("utf-8", "replace"))
            + _format_field(_FILE_DIGEST, _format_digest(digest))
            + (_format_number(_FILE_EXECUTABLE, 1) if executable else b""),
        )
        for path, digest, executable in contents
    )
    return message + _format_field(_STDERR_DIGEST, _format_digest(entry))


def parse_action_result(message: bytes) -> Digest:
    """Return the digest of the entry. Raises BadMessage."""
    entry: bytes | int | None = None
    for count, (number, value) in enumerate(_iter_fields(message)):
        if count == _MOST_FIELDS:
            raise BadMessage(f"it has more than {_MOST_FIELDS:,} fields")
        entry = value if number == _STDERR_DIGEST else entry
    if not isinstance(entry, bytes) or len(entry) > _LONGEST_DIGEST_BYTES:
        raise BadMessage("it has no entry of this program")
    fields = dict(_iter_fields(entry))
    name, size = fields.get(_DIGEST_HASH), fields.get(_DIGEST_SIZE, 0)
    if not isinstance(name, bytes) or not isinstance(size, int):
        raise BadMessage("its digest has another form")
    digest = name.decode("ascii", "replace")
    if not is_digest(digest):
        raise BadMessage("its digest has another form")
    return Digest(digest, size)


def _format_digest(digest: Digest) -> bytes:
    return _format_field(_DIGEST_HASH, digest.hash.encode()) + _format_number(_DIGEST_SIZE, digest.size_bytes)


def _format_field(number: int, content: bytes) -> bytes:
    return _format_varint(number << 3 | _DELIMITED) + _format_varint(len(content)) + content


def _format_number(number: int, value: int) -> bytes:
    return _format_varint(number << 3 | _VARINT) + _format_varint(value)


def _format_varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _iter_fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield the fields' numbers and values; fixed-size values are skipped. Raises BadMessage."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _read_varint(message, at)
            yield number, value
        elif wire == _DELIMITED:
            size, at = _read_varint(message, at)
            if at + size > len(message):
                raise BadMessage("it is cut off")
            yield number, message[at : at + size]
            at += size
        elif wire in _FIXED_SIZES:
            at += _FIXED_SIZES[wire]
        else:
            raise BadMessage("it has a field of an unknown kind")


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise BadMessage("it is cut off")
