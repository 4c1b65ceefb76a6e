"""Passwords are compared once, away from the scrapes, and nobody learns more than yes or no."""

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
from paropt_exporter.exposition.passwords import Credentials, Passwords, credentials
from support.secured import PASSWORD, hashed

USERS = {"alice": hashed()}
RIGHT = Credentials("alice", PASSWORD.encode())


def basic(pair: bytes) -> str:
    return f"Basic {base64.b64encode(pair).decode()}"


@contextmanager
def judging() -> Iterator[Passwords]:
    judge = Passwords()
    yield judge
    judge.close(timeout_seconds=30)


def verdict(judge: Passwords, given: Credentials, users: dict[str, str] = USERS) -> bool:
    told: SimpleQueue[bool] = SimpleQueue()
    judge.check(users, given, told.put, client="", token=given)
    return told.get(timeout=30)


def test_the_right_password_is_right_and_recognised_from_then_on() -> None:
    with judging() as judge:
        assert not judge.recognises(USERS, RIGHT)
        assert verdict(judge, RIGHT)
        assert judge.recognises(USERS, RIGHT)


def test_a_user_whose_hash_has_changed_is_recognised_no_more() -> None:
    with judging() as judge:
        assert verdict(judge, RIGHT)
        changed = {"alice": hashed("another")}
        assert not judge.recognises(changed, RIGHT)
        assert not judge.recognises({}, RIGHT)
        assert not verdict(judge, RIGHT, changed)


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
    ids=["empty", "wrong", "unknown", "nobody", "10 kB", "NUL"],
)
def test_anything_else_is_wrong_and_not_remembered(wrong: Credentials) -> None:
    with judging() as judge:
        assert not verdict(judge, wrong)
        assert not judge.recognises(USERS, wrong)


def test_a_password_that_only_begins_with_the_72_bytes_of_the_right_one_is_wrong() -> None:
    longest = "x" * passwords.LONGEST_PASSWORD_BYTES
    users = {"alice": hashed(longest)}
    with judging() as judge:
        assert verdict(judge, Credentials("alice", longest.encode()), users)
        assert not verdict(judge, Credentials("alice", longest.encode() + b"x"), users)


def test_an_unknown_user_is_compared_with_a_hash_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    users = {"alice": hashed(cost=4), "bob": hashed(cost=5)}
    compared: list[str] = []

    def check(_: bytes, hash_: bytes) -> bool:
        compared.append(hash_.decode())
        return True  # even if it were equal, an unknown user stays out

    monkeypatch.setattr(bcrypt, "checkpw", check)
    with judging() as judge:
        for _ in range(2):
            assert not verdict(judge, Credentials("mallory", b"x"), users)
    assert compared[0] in users.values()
    assert compared[0] == compared[1]


def test_a_comparison_that_fails_keeps_out_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: bytes, __: bytes) -> bool:
        raise RuntimeError("no bcrypt today")

    with judging() as judge:
        with monkeypatch.context() as patch:
            patch.setattr(bcrypt, "checkpw", broken)
            assert not verdict(judge, RIGHT)
        assert verdict(judge, RIGHT)
    assert "could not be compared" in caplog.text


def test_only_so_many_right_passwords_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "MOST_REMEMBERED", 2)
    users = {name: hashed(name) for name in ("a", "b", "c")}
    given = [Credentials(name, name.encode()) for name in users]
    with judging() as judge:
        assert all(verdict(judge, each, users) for each in given)
        assert [judge.recognises(users, each) for each in given] == [False, True, True]


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
def test_a_header_is_read_or_is_none(header: str, expected: Credentials | None) -> None:
    assert credentials(header) == expected


@given(st.text(max_size=100))
def test_any_header_is_read_or_is_none(noise: str) -> None:
    for header in (noise, f"Basic {noise}", basic(noise.encode())):
        assert credentials(header) is None or isinstance(credentials(header), Credentials)


def test_no_representation_shows_a_password() -> None:
    assert "s3cret" not in repr(RIGHT)


def test_clients_take_turns_and_of_each_the_newest_request_comes_first() -> None:
    order: SimpleQueue[str] = SimpleQueue()
    first, go = threading.Event(), threading.Event()

    def hold(_: bool) -> None:
        first.set()
        assert go.wait(30)

    def ask(judge: Passwords, client: str, number: int) -> None:
        wrong = Credentials("alice", f"{client} {number}".encode())
        judge.check(USERS, wrong, lambda _: order.put(f"{client} {number}"), client=client, token=(client, number))

    with judging() as judge:
        judge.check(USERS, Credentials("alice", b"x"), hold, client="flood", token=None)
        assert first.wait(30)
        for number in range(4):
            ask(judge, "flood", number)
        ask(judge, "scraper", 0)
        judge.cancel(client="flood", token=("flood", 2))
        judge.cancel(client="nobody", token=None)
        go.set()
        found = [order.get(timeout=30) for _ in range(4)]
    assert found == ["flood 3", "scraper 0", "flood 1", "flood 0"]
