"""Push a page to a Pushgateway: a lane in CI is gone before anyone has scraped it."""

from __future__ import annotations

import base64
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from paropt_exporter import files
from paropt_exporter.errors import DeliveryError, UsageError

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

_PLAIN = re.compile(r"(?!\.+$)[\w.~-]+", re.ASCII)  # what needs no escape in a path and is no step up in it
_LARGEST_SECRET_BYTES = 1 << 16
_TRIES_AGAIN = 2
_TRIED_AGAIN_ON = (429, 502, 503, 504)  # a gateway that restarts, or a proxy before it
_BACKOFF_SECONDS = 0.2
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_ANSWER_CHARACTERS = 200  # of an error's body: the gateway says in a line what it did not like


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Where a password or token is: a file, or else an environment variable. Read at each push, since tokens rotate."""

    file: Path | None = None
    variable: str | None = None

    def read(self) -> str:
        """Return it; raises DeliveryError, which shows nothing of it."""
        try:
            if self.file:
                text = files.read_start(self.file, limit_bytes=_LARGEST_SECRET_BYTES).decode()
            else:
                text = os.environ.get(self.variable or "", "")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
            raise DeliveryError(f"the secret in {self.file} can't be read: {reason}") from None
        secret = text.strip()
        if not secret or not secret.isprintable():
            raise DeliveryError(
                f"the secret in {self.file or f'${self.variable}'} is not one line of printable characters"
            )
        return secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """Where to push, and as whom: `username` with its `password`, or a `token`.

    `timeout_seconds` bounds a push as a whole. Raises UsageError for a URL that can't be one.
    """

    url: str
    timeout_seconds: float = 10.0
    username: str | None = None
    password: Secret = Secret()
    token: Secret | None = None
    ca_file: Path | None = None
    certificate: tuple[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_headers: Mapping[str, Secret] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # half an IPv6 address, a port that is no number
            usable = False
        if not usable or parts.query or parts.fragment:
            raise UsageError(f"push URL {_shown(self.url)!r}: expected one like http://127.0.0.1:9091")
        if parts.username is not None:
            raise UsageError(
                f"push URL {_shown(self.url)!r}: a password does not belong there, where every process sees it: "
                "say in paropt.yml, under push.basic_auth, where it is"
            )


def prepare() -> None:
    """Import what a push needs: a call puts the project's modules before all others, whatever their names."""
    for name in ("requests.adapters", "urllib3.util"):
        import_module(name)
    "localhost".encode("idna")  # and what resolving a name needs


def push(page: bytes, gateway: Gateway, *, job: str, grouping: Mapping[str, str]) -> None:
    """Replace the page's families in one group of the Pushgateway; raises DeliveryError, within the timeout.

    By POST: a family that the page does not have, such as the last success after a failure, stays as it was. PUT
    would take it away, and with it every alert on its age.
    """
    outcome: SimpleQueue[DeliveryError | None] = SimpleQueue()
    # A thread, since requests bounds each read and not the whole: a gateway that drips would hold up the end for ever.
    Thread(
        target=_attempt, args=(page, gateway, url(gateway, job, grouping), outcome), name="paropt-push", daemon=True
    ).start()
    try:
        failure = outcome.get(timeout=gateway.timeout_seconds)
    except Empty:
        raise DeliveryError(f"{gateway.url} did not answer within {gateway.timeout_seconds:g} s") from None
    if failure is not None:
        raise failure


def url(gateway: Gateway, job: str, grouping: Mapping[str, str]) -> str:
    """Return the group's address: the gateway's API, with each label as two steps of the path."""
    steps = [_step(label, value) for label, value in {"job": job, **grouping}.items()]
    return "/".join([gateway.url.rstrip("/"), "metrics", *steps])


def _step(label: str, value: str) -> str:
    if _PLAIN.fullmatch(value):
        return f"{label}/{value}"
    return f"{label}@base64/{base64.urlsafe_b64encode(value.encode()).decode() or '='}"


def _attempt(page: bytes, gateway: Gateway, address: str, outcome: SimpleQueue[DeliveryError | None]) -> None:
    try:
        _post(page, gateway, address)
    except DeliveryError as error:
        outcome.put(error)
    except Exception as error:  # the boundary of the thread: whatever failed, the waiting one is told
        log.debug("a push failed", exc_info=True)
        outcome.put(DeliveryError(f"{gateway.url}: {_reason(error)}"))
    else:
        outcome.put(None)


def _post(page: bytes, gateway: Gateway, address: str) -> None:
    with _session(gateway) as session:
        answer = session.post(
            address,
            data=page,
            headers={"Content-Type": _TEXT},
            timeout=gateway.timeout_seconds,
            # Named here and not in the session, where $REQUESTS_CA_BUNDLE would win over them:
            verify=str(gateway.ca_file) if gateway.ca_file else None,
            cert=gateway.certificate,
            allow_redirects=False,  # the body and the password are for this host and no other
            stream=True,
        )
        if answer.is_redirect:
            raise DeliveryError(f"{gateway.url} redirects to {answer.headers['Location']}: push there if you trust it")
        if not answer.ok:
            said = next(answer.iter_content(_ANSWER_CHARACTERS), b"").decode(errors="replace")
            line = " ".join("".join(char if char.isprintable() else " " for char in said).split())
            raise DeliveryError(f"{gateway.url} answered {answer.status_code} {answer.reason}: {line}")


def _session(gateway: Gateway) -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    session = requests.Session()
    again = Retry(
        total=_TRIES_AGAIN,
        redirect=False,
        status_forcelist=_TRIED_AGAIN_ON,
        allowed_methods=("POST",),  # the same page again does no harm
        backoff_factor=_BACKOFF_SECONDS,
        backoff_jitter=_BACKOFF_SECONDS,
        raise_on_status=False,
        respect_retry_after_header=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=again))
    session.headers.update(gateway.headers)
    session.headers.update({name: secret.read() for name, secret in gateway.secret_headers.items()})
    session.auth = _auth(gateway)
    return session


def _auth(gateway: Gateway) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Return what shows who asks; always something, or requests would send whatever a netrc has for the host."""
    value = None
    if gateway.username is not None:
        pair = f"{gateway.username}:{gateway.password.read()}".encode()
        value = f"Basic {base64.b64encode(pair).decode()}"
    elif gateway.token is not None:
        value = f"Bearer {gateway.token.read()}"

    def show(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if value is not None:
            request.headers["Authorization"] = value
        return request

    return show


def _reason(error: BaseException) -> str:
    """Return the innermost cause in a few words; requests' own texts are long, and may quote a header."""
    innermost_first = [*_causes(error)][::-1]
    for cause in innermost_first:
        if verdict := getattr(cause, "verify_message", None):  # ssl.SSLCertVerificationError
            return f"its certificate is not trusted: {verdict}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if type(cause) is OSError:  # requests' own about files of certificates; its subclasses may quote a header
            return str(cause)
    return f"the push failed ({type(innermost_first[0]).__name__})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what lies in it; requests and urllib3 wrap theirs as arguments, reasons, causes."""
    while error is not None:
        yield error
        inside = (*error.args, getattr(error, "reason", None), error.__cause__, error.__context__)
        error = next((each for each in inside if isinstance(each, BaseException)), None)


def _shown(address: str) -> str:
    """Return a URL without what may be a secret in it."""
    start, separator, rest = address.partition("?")[0].rpartition("@")
    scheme = "://".join(start.split("://")[:-1])
    return f"{scheme}://...@{rest}" if separator else rest
