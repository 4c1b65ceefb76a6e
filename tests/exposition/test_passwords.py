"""Passwords are compared once, outside the serving thread, and clients learn only right or wrong."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.exposition import passwords
from paropt_exporter.exposition.passwords import Credentials, PasswordChecker, parse_credentials
from support.secured import PASSWORD, hashed

USERS = {"alice": hashed()}
RIGHT = Credentials("alice", PASSWORD.encode())


def basic(pair: bytes) -> str:
    return f"Basic {base64.b64encode(pair).decode()}"


@contextmanager
def open_checker() -> Iterator[PasswordChecker]:
    judge = PasswordChecker()
    yield judge
    judge.close(timeout_seconds=30)


def check_password(judge: PasswordChecker, given: Credentials, users: dict[str, str] = USERS) -> bool:
    told: SimpleQueue[bool] = SimpleQueue()
    judge.check(users, given, told.put, client="", token=given)
    return told.get(timeout=30)


def test_a_right_password_is_remembered() -> None:
    with open_checker() as judge:
        assert not judge.is_remembered(USERS, RIGHT)
        assert check_password(judge, RIGHT)
        assert judge.is_remembered(USERS, RIGHT)


def test_a_changed_hash_invalidates_the_remembered_password() -> None:
    with open_checker() as judge:
        assert check_password(judge, RIGHT)
        changed = {"alice": hashed("another")}
        assert not judge.is_remembered(changed, RIGHT)
        assert not judge.is_remembered({}, RIGHT)
        assert not check_password(judge, RIGHT, changed)


@pytest.mark.parametrize(
    "wrong",
    [
        Credentials("alice", b""),
        Credentials("alice", b"wrong"),
        Credentials("bob", PASSWORD.encode()),
        Credentials("", b""),
        Credentials("alice", b"x" * 10_000),
        Credentials("alice", b"\0"),
    ],
    ids=["empty", "wrong", "unknown", "no user", "10 kB", "NUL"],
)
def test_a_wrong_password_is_refused_and_not_remembered(wrong: Credentials) -> None:
    with open_checker() as judge:
        assert not check_password(judge, wrong)
        assert not judge.is_remembered(USERS, wrong)


def test_a_longer_password_with_the_right_first_72_bytes_is_wrong() -> None:
    longest = "x" * passwords.LONGEST_PASSWORD_BYTES
    users = {"alice": hashed(longest)}
    with open_checker() as judge:
        assert check_password(judge, Credentials("alice", longest.encode()), users)
        assert not check_password(judge, Credentials("alice", longest.encode() + b"x"), users)


def test_an_unknown_users_password_is_compared_with_a_real_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    users = {"alice": hashed(cost=4), "bob": hashed(cost=5)}
    compared: list[str] = []

    def check(_: bytes, hash_: bytes) -> bool:
        compared.append(hash_.decode())
        return True  # an unknown user is refused even if the password equals that of the hash

    monkeypatch.setattr(bcrypt, "checkpw", check)
    with open_checker() as judge:
        for _ in range(2):
            assert not check_password(judge, Credentials("mallory", b"x"), users)
    assert compared[0] in users.values()
    assert compared[0] == compared[1]


def test_a_failing_comparison_refuses_the_client_and_serves_the_next(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: bytes, __: bytes) -> bool:
        raise RuntimeError("no bcrypt today")

    with open_checker() as judge:
        with monkeypatch.context() as patch:
            patch.setattr(bcrypt, "checkpw", broken)
            assert not check_password(judge, RIGHT)
        assert check_password(judge, RIGHT)
    assert "could not be compared" in caplog.text


def test_the_number_of_remembered_passwords_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "MOST_REMEMBERED", 2)
    users = {name: hashed(name) for name in ("a", "b", "c")}
    given = [Credentials(name, name.encode()) for name in users]
    with open_checker() as judge:
        assert all(check_password(judge, each, users) for each in given)
        assert [judge.is_remembered(users, each) for each in given] == [False, True, True]
        assert judge.is_remembered(users, given[1])
        assert check_password(judge, given[0], users)  # in place of the one that was used least recently
        assert [judge.is_remembered(users, each) for each in given] == [True, True, False]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (basic(b"a:b"), Credentials("a", b"b")),
        (basic("ü:ö:x".encode()), Credentials("ü", "ö:x".encode())),
        ("bAsIc  " + basic(b":").partition(" ")[2], Credentials("", b"")),
        (basic(b"no colon"), None),
        (basic(b"\xff:x"), None),
        ("Basic !!!", None),
        ("Basic é", None),
        ("Bearer abc", None),
        ("", None),
    ],
)
def test_an_authorization_header_is_parsed_or_none(header: str, expected: Credentials | None) -> None:
    assert parse_credentials(header) == expected


@given(st.text(max_size=100))
def test_any_text_is_parsed_or_none(noise: str) -> None:
    for header in (noise, f"Basic {noise}", basic(noise.encode())):
        assert parse_credentials(header) is None or isinstance(parse_credentials(header), Credentials)


def test_repr_hides_the_password() -> None:
    assert "s3cret" not in repr(RIGHT)


def test_clients_take_turns_newest_request_first() -> None:
    order: SimpleQueue[str] = SimpleQueue()
    first, go = threading.Event(), threading.Event()

    def hold(_: bool) -> None:
        first.set()
        assert go.wait(30)

    def ask(judge: PasswordChecker, client: str, number: int) -> None:
        wrong = Credentials("alice", f"{client} {number}".encode())
        judge.check(USERS, wrong, lambda _: order.put(f"{client} {number}"), client=client, token=(client, number))

    with open_checker() as judge:
        judge.check(USERS, Credentials("alice", b"x"), hold, client="flood", token=None)
        assert first.wait(30)
        for number in range(4):
            ask(judge, "flood", number)
        ask(judge, "closed", 0)
        judge.cancel(client="closed", token=("closed", 0))
        ask(judge, "scraper", 0)
        judge.cancel(client="flood", token=("flood", 2))
        judge.cancel(client="unknown", token=None)
        go.set()
        found = [order.get(timeout=30) for _ in range(4)]
    assert found == ["flood 3", "scraper 0", "flood 1", "flood 0"]
