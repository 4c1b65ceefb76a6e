"""Judge the passwords of basic authentication, without holding up who is known already."""

from __future__ import annotations

import base64
import hmac
import logging
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

LONGEST_PASSWORD_BYTES = 72  # bcrypt looks at no more: longer ones would be equal to their beginning
MOST_REMEMBERED = 100  # passwords that were right: one for each scraper


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client says that it is."""

    user: str
    password: bytes = field(repr=False)


class Passwords:
    """One thread that compares passwords with bcrypt hashes, which takes a core for 50 ms each and more.

        recognises(users, credentials) -- seen right before, from any thread, at once
        check(..., tell) -> _wanted[client] -> thread "paropt-web-auth" -> tell(right)
                               ^-- the clients take turns, the newest request of each first

    Guarantees:
    * A flood of guesses holds up no other client for longer than one comparison a client. A scraper behind the same
      address as the flood is compared next if it came last: guesses wait for their answer, so few come after it.
    * An unknown user costs the time of a known one, and gets the same answer.
    * What was right once is right at once until the user's hash changes; wrong ones are not remembered.
    * No password is kept: only keyed digests are, under a key that dies with the process.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()  # guards: _right
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._wake = threading.Condition()  # guards: _wanted, _closed
        self._wanted: OrderedDict[str, dict[object, Callable[[], None]]] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._closed = False

    def recognises(self, users: Mapping[str, str], credentials: Credentials) -> bool:
        """Say whether these were found right before, for the hash that the user has now."""
        digest = self._digest(users.get(credentials.user, ""), credentials)
        with self._lock:
            if digest not in self._right:
                return False
            self._right.move_to_end(digest)
            return True

    def check(
        self,
        users: Mapping[str, str],
        credentials: Credentials,
        tell: Callable[[bool], None],
        *,
        client: str,
        token: object,
    ) -> None:
        """Compare in the thread, which then calls `tell`; from the serving thread alone.

        `client` says who asks, `token` names the request for `cancel`.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="paropt-web-auth", daemon=True)
            self._thread.start()
        with self._wake:
            self._wanted.setdefault(client, {})[token] = lambda: tell(self._judged(users, credentials))
            self._wake.notify()

    def cancel(self, *, client: str, token: object) -> None:
        """Forget a request whose connection is gone; nothing if it is being compared or was."""
        with self._wake:
            waiting = self._wanted.get(client, {})
            waiting.pop(token, None)
            if not waiting:
                self._wanted.pop(client, None)

    def close(self, *, timeout_seconds: float) -> None:
        """End the thread after what it compares now; who still waits is told nothing."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        # A flood of wrong passwords must not take the work's cores: on Linux a thread has a niceness of its own.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while (compare := self._next()) is not None:
            compare()

    def _next(self) -> Callable[[], None] | None:
        """Return the newest comparison of the client whose turn it is; None once closed. Blocks until there is one."""
        with self._wake:
            self._wake.wait_for(lambda: self._wanted or self._closed)
            if self._closed:
                return None
            client, waiting = self._wanted.popitem(last=False)
            _, compare = waiting.popitem()
            if waiting:
                self._wanted[client] = waiting  # behind the others
            return compare

    def _judged(self, users: Mapping[str, str], credentials: Credentials) -> bool:
        try:
            return self._is_right(users, credentials)
        except Exception:  # the boundary of the thread: a bcrypt that fails keeps this one out, and waits for the next
            log.exception("a password could not be compared")
            return False

    def _is_right(self, users: Mapping[str, str], credentials: Credentials) -> bool:
        if self.recognises(users, credentials):  # a scraper's second request came while its first one was compared
            return True
        known = users.get(credentials.user)
        right = _matches(credentials.password, known or self._stand_in(users, credentials.user)) and known is not None
        if right:
            with self._lock:
                self._right[self._digest(str(known), credentials)] = None
                if len(self._right) > MOST_REMEMBERED:
                    self._right.popitem(last=False)
        return right

    def _stand_in(self, users: Mapping[str, str], user: str) -> str:
        """Return what an unknown user is compared with: the same hash each time, so that it costs as a user's own."""
        hashes = sorted(users.values())
        return hashes[int.from_bytes(hmac.digest(self._key, user.encode(), "sha256")[:8]) % len(hashes)]

    def _digest(self, hashed: str, credentials: Credentials) -> bytes:
        parts = (credentials.user.encode(), hashed.encode(), credentials.password)
        return hmac.digest(self._key, b"".join(len(part).to_bytes(8) + part for part in parts), "sha256")


def credentials(authorization: str) -> Credentials | None:
    """Return what an Authorization header says; None if it is no basic authentication."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return Credentials(user.decode(), password) if colon else None
    except ValueError:  # no base64, no ASCII, no UTF-8
        return None


def _matches(password: bytes, hashed: str) -> bool:
    import bcrypt

    fits = len(password) <= LONGEST_PASSWORD_BYTES
    try:
        return bcrypt.checkpw(password[:LONGEST_PASSWORD_BYTES], hashed.encode()) and fits
    except ValueError:  # a hash of the right form with impossible digits
        return False
