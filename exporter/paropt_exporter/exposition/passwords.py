"""Check the passwords of basic authentication, without delaying clients whose password is remembered."""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress

from msgspec import Struct

log = logging.getLogger(__name__)

LONGEST_PASSWORD_BYTES = 72  # bcrypt ignores further bytes: a longer password would equal its beginning
MOST_REMEMBERED = 100  # correct passwords: one for each scraper


class Credentials(Struct, frozen=True):
    """The user and password that a client sends."""

    user: str
    password: bytes

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"


class PasswordChecker:
    """Compare passwords with bcrypt hashes in a thread; a comparison takes a core for 50 ms or more.

        is_remembered(users, credentials)        at once, from any thread
        check(..., on_result) -> _requests[client] -> thread "paropt-web-auth" -> on_result(is_right)
                                     ^-- the clients take turns; of each client the newest request is first

    Guarantees:
    * A flood of guesses delays another client by at most one comparison for each client of the flood. For a scraper at
      the same address as the flood, the newest request is next; few can be newer, since each guess waits for its
      result.
    * A request with an unknown user takes as long as one with a known user, and gets the same response.
    * A correct password is remembered until the user's hash changes; wrong ones are not remembered.
    * No password is stored, only digests, keyed with a secret of this process.
    """

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._lock = threading.Lock()  # guards: _remembered
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._wake = threading.Condition()  # guards: _requests, _closed
        self._requests: OrderedDict[str, dict[object, Callable[[], None]]] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._closed = False

    def is_remembered(self, users: Mapping[str, str], credentials: Credentials) -> bool:
        """Return whether these credentials were found correct for the user's current hash."""
        digest = self._compute_digest(users.get(credentials.user, ""), credentials)
        with self._lock:
            if digest not in self._remembered:
                return False
            self._remembered.move_to_end(digest)
            return True

    def check(
        self,
        users: Mapping[str, str],
        credentials: Credentials,
        on_result: Callable[[bool], None],
        *,
        client: str,
        token: object,
    ) -> None:
        """Compare in the thread, which then calls `on_result`. Only the serving thread may call this.

        `client` identifies the peer, `token` the request, for `cancel`.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="paropt-web-auth", daemon=True)
            self._thread.start()
        with self._wake:
            self._requests.setdefault(client, {})[token] = lambda: on_result(self._check_safely(users, credentials))
            self._wake.notify()

    def cancel(self, *, client: str, token: object) -> None:
        """Remove the request of a closed connection, unless its comparison has started."""
        with self._wake:
            own_requests = self._requests.get(client, {})
            own_requests.pop(token, None)
            if not own_requests:
                self._requests.pop(client, None)

    def close(self, *, timeout_seconds: float) -> None:
        """Stop the thread after its current comparison; pending requests get no result."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        # A flood of wrong passwords must not take cores from the run. On Linux each thread has its own niceness.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while (compare := self._wait_for_check()) is not None:
            compare()

    def _wait_for_check(self) -> Callable[[], None] | None:
        """Wait for a request; return the newest one of the client whose turn it is, or None once closed."""
        with self._wake:
            self._wake.wait_for(lambda: self._requests or self._closed)
            if self._closed:
                return None
            client, own_requests = self._requests.popitem(last=False)
            _, compare = own_requests.popitem()
            if own_requests:
                self._requests[client] = own_requests  # behind the others
            return compare

    def _check_safely(self, users: Mapping[str, str], credentials: Credentials) -> bool:
        try:
            return self._is_right(users, credentials)
        except Exception:  # the boundary of the thread: if bcrypt fails, it refuses this client and continues
            log.exception("a password could not be compared")
            return False

    def _is_right(self, users: Mapping[str, str], credentials: Credentials) -> bool:
        if self.is_remembered(users, credentials):  # another request of this user was checked meanwhile
            return True
        known = users.get(credentials.user)
        right = (
            matches_hash(credentials.password, known or self._choose_decoy_hash(users, credentials.user))
            and known is not None
        )
        if right:
            with self._lock:
                self._remembered[self._compute_digest(str(known), credentials)] = None
                if len(self._remembered) > MOST_REMEMBERED:
                    self._remembered.popitem(last=False)
        return right

    def _choose_decoy_hash(self, users: Mapping[str, str], user: str) -> str:
        """Return a hash to compare an unknown user's password with, so that this takes as long; always the same per
        user.
        """
        hashes = sorted(users.values())
        import hmac  # here: few endpoints have users

        return hashes[int.from_bytes(hmac.digest(self._key, user.encode(), "sha256")[:8]) % len(hashes)]

    def _compute_digest(self, hashed: str, credentials: Credentials) -> bytes:
        parts = (credentials.user.encode(), hashed.encode(), credentials.password)
        import hmac

        return hmac.digest(self._key, b"".join(len(part).to_bytes(8) + part for part in parts), "sha256")


def parse_credentials(authorization: str) -> Credentials | None:
    """Parse an Authorization header; None if it is not valid basic authentication."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    import base64

    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return Credentials(user.decode(), password) if colon else None
    except ValueError:  # not base64, ASCII or UTF-8
        return None


def matches_hash(password: bytes, hashed: str) -> bool:
    """Compare a password with a bcrypt hash; a password of more than 72 bytes never matches."""
    import bcrypt

    fits = len(password) <= LONGEST_PASSWORD_BYTES
    try:
        return bcrypt.checkpw(password[:LONGEST_PASSWORD_BYTES], hashed.encode()) and fits
    except ValueError:  # a hash of the right form with invalid digits
        return False
