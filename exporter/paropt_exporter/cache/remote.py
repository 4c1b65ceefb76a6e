"""A remote cache over Bazel's HTTP protocol: results under `/ac/KEY`, contents under `/cas/SHA256`.

The server and the credentials come from the environment or the host config, never from `paropt.yml`: a pull request
could change that. Without PAROPT_CACHE_WRITE nothing is written, so that only trusted jobs fill the cache of others.
A job that is not trusted may write below a path of its own (`PAROPT_CACHE_URL=https://cache/pull/17`).

The message under `/ac` is an ActionResult. Only length-delimited fields and numbers occur in it, which take 60 lines;
protobuf's package would take 50 ms to load.
https://github.com/bazelbuild/remote-apis/blob/main/build/bazel/remote/execution/v2/remote_execution.proto
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from paropt_exporter.cache.entry import BadEntry, Entry, format_entry, parse_entry
from paropt_exporter.cache.result_store import LARGEST_ENTRY_BYTES, Store
from paropt_exporter.config.credentials import SecretError, build_headers, describe_cause, read_secret
from paropt_exporter.config.host_config import HostConfig
from paropt_exporter.config.values import Tls
from paropt_exporter.errors import UsageError

if TYPE_CHECKING:
    from typing import IO

    from requests import Response, Session

URL_VARIABLE, TOKEN_FILE_VARIABLE, WRITE_VARIABLE = "PAROPT_CACHE_URL", "PAROPT_CACHE_TOKEN_FILE", "PAROPT_CACHE_WRITE"
# Field numbers of ActionResult, OutputFile and Digest.
_OUTPUT_FILES, _STDERR_DIGEST = 2, 8
_FILE_PATH, _FILE_DIGEST, _FILE_EXECUTABLE = 1, 2, 4
_DIGEST_HASH, _DIGEST_SIZE = 1, 2
_VARINT, _DELIMITED = 0, 2  # wire types
_FIXED_SIZES = {1: 8, 5: 4}
_TIMEOUT_SECONDS = (3.0, 30.0)  # to connect, and between two reads
_LARGEST_CONTENT_BYTES = 1 << 31
_CHUNK_BYTES = 1 << 20


class BadMessage(Exception):
    """The bytes are no ActionResult with an entry."""


class Digest(Struct, frozen=True):
    """The SHA-256 of a content, and its size."""

    hash: str
    size_bytes: int


class RemoteFailed(Exception):
    """The server did not answer as the protocol says. The message has the reason, in a line."""


class Access(Struct, frozen=True, kw_only=True):
    """The headers with this host's credentials, and the paths of its certificates."""

    headers: Mapping[str, str] = field(default_factory=dict)
    ca_file: str | None = None
    certificate: tuple[str, str] | None = None


class RemoteCache:
    """One server. After its first failure it is not asked again in this process. One thread at a time uses it.

    Guarantees: nothing that was downloaded is used before its digest is verified; an entry is uploaded after its
    contents.
    """

    def __init__(self, url: str, *, access: Access | None = None, writes: bool = False) -> None:
        self.failure = ""
        self.writes = writes
        self._url = url.rstrip("/")
        self._access = access or Access()
        self._session: Session | None = None

    def fetch(self, key: str, store: Store) -> bool:
        """Download a result with all its contents into the store. Return whether it is there now.

        Raises RemoteFailed, and StoreUnusable if the store can't take it.
        """
        if self.failure:
            return False
        try:
            message = self._get(f"ac/{key}", LARGEST_ENTRY_BYTES)
            if message is None:
                return False
            digest = parse_action_result(message)
            content = self._get(f"cas/{digest.hash}", LARGEST_ENTRY_BYTES)
            if content is None:
                return False
            if hashlib.sha256(content).hexdigest() != digest.hash:
                raise RemoteFailed("an entry has another content than its digest says")
            entry = parse_entry(content)
            if entry.key != key:
                raise RemoteFailed("an entry has the key of another one")
            if not all(store.has(blob) or self._fetch_content(blob, store) for blob in entry.list_blobs()):
                return False
        except (BadMessage, BadEntry) as error:
            raise self._fail(str(error)) from None
        except RemoteFailed as error:
            raise self._fail(str(error)) from None
        for listing in entry.listings:  # for the reasons of later misses only
            with suppress(RemoteFailed):
                store.has(listing) or self._fetch_content(listing, store)
        store.save(entry)
        return True

    def send(self, entry: Entry, store: Store) -> None:
        """Upload a result with its contents. Raises RemoteFailed."""
        if self.failure or not self.writes:
            return
        content = format_entry(entry)
        digest = Digest(hashlib.sha256(content).hexdigest(), len(content))
        contents = [("output", Digest(entry.output, store.get_size(entry.output)), False)]
        contents += [
            (file.path, Digest(file.value, file.size_bytes), file.kind == "x")
            for file in entry.files
            if file.kind != "l"
        ]
        try:
            for blob in dict.fromkeys([*entry.list_blobs(), *entry.listings]):
                self._send_content(blob, store)
            self._put(f"cas/{digest.hash}", BytesIO(content), len(content))
            message = format_action_result(digest, contents)
            self._put(f"ac/{entry.key}", BytesIO(message), len(message))
        except RemoteFailed as error:
            raise self._fail(str(error)) from None

    def _fetch_content(self, digest: str, store: Store) -> bool:
        content = self._get(f"cas/{digest}", _LARGEST_CONTENT_BYTES)
        if content is None:
            return False
        if store.add(content) != digest:
            raise RemoteFailed("a content is not the one that its digest names")
        return True

    def _send_content(self, digest: str, store: Store) -> None:
        path = store.find_content(digest)
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                if not self._has(f"cas/{digest}"):
                    self._put(f"cas/{digest}", file, size)
        except OSError as error:
            raise RemoteFailed(f"a content can't be read: {error.strerror}") from None

    def _has(self, name: str) -> bool:
        with self._request("HEAD", name) as answer:
            return answer.status_code == 200

    def _get(self, name: str, limit_bytes: int) -> bytes | None:
        with self._request("GET", name) as answer:
            if answer.status_code == 404:
                return None
            if answer.status_code != 200:
                raise RemoteFailed(f"GET {name[:12]}… was answered with {answer.status_code}")
            content = bytearray()
            for chunk in answer.iter_content(_CHUNK_BYTES):
                content += chunk
                if len(content) > limit_bytes:
                    raise RemoteFailed(f"GET {name[:12]}… returned more than {limit_bytes:,} bytes")
            return bytes(content)

    def _put(self, name: str, content: IO[bytes], size_bytes: int) -> None:
        with self._request("PUT", name, data=content, headers={"Content-Length": str(size_bytes)}) as answer:
            if answer.status_code not in (200, 201, 202, 204):
                raise RemoteFailed(f"PUT {name[:12]}… was answered with {answer.status_code}")

    def _request(
        self, method: str, name: str, data: IO[bytes] | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        import requests  # here: few hosts have a remote cache

        if self._session is None:
            self._session = requests.Session()
            self._session.trust_env = False  # no credentials from a netrc, no proxy for a server nearby
            self._session.headers.update(self._access.headers)
        try:
            return self._session.request(
                method,
                f"{self._url}/{name}",
                data=data,
                headers=headers,
                timeout=_TIMEOUT_SECONDS,
                verify=self._access.ca_file or True,
                cert=self._access.certificate,
                stream=True,
                allow_redirects=False,
            )
        except (requests.RequestException, OSError) as error:
            raise RemoteFailed(f"{method} failed: {describe_cause(error)}") from None

    def _fail(self, why: str) -> RemoteFailed:
        self.failure = f"the remote cache is not used: {why}"
        return RemoteFailed(self.failure)


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
    try:
        if path:
            return Access(headers={"Authorization": f"Bearer {read_secret(Path(path), None)}"})
        server = host.find_server(url)
        if server is None:
            return Access()
        tls = server.tls or Tls()
        return Access(
            headers=build_headers(server),
            ca_file=tls.ca_file,
            certificate=(tls.cert_file, tls.key_file or tls.cert_file) if tls.cert_file else None,
        )
    except SecretError as error:
        raise UsageError(f"{TOKEN_FILE_VARIABLE if path else 'remote cache'}: {error}") from None


def format_action_result(entry: Digest, contents: list[tuple[str, Digest, bool]]) -> bytes:
    """Return a message. `entry` is the digest of the entry; `contents` are path, digest and whether it is executable.

    The contents are listed as output files, so that a server that checks its results keeps them together.
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
    found = [value for number, value in _iter_fields(message) if number == _STDERR_DIGEST]
    if not found or not isinstance(found[-1], bytes):
        raise BadMessage("it has no entry of this program")
    fields = dict(_iter_fields(found[-1]))
    name, size = fields.get(_DIGEST_HASH), fields.get(_DIGEST_SIZE, 0)
    if not isinstance(name, bytes) or not isinstance(size, int):
        raise BadMessage("its digest has another form")
    return Digest(name.decode("ascii", "replace"), size)


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
