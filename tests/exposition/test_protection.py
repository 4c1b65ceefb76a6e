"""The web config and its files are read again when they change, and never half."""

from __future__ import annotations

from pathlib import Path

import pytest

from paropt_exporter.errors import UsageError
from paropt_exporter.exposition import protection
from paropt_exporter.exposition import web_config as web_config_module
from paropt_exporter.exposition.protection import ProtectionFile
from secured import Authority, hashed, web_config


def test_users_and_headers_are_those_of_the_file(tmp_path: Path) -> None:
    alice = hashed()
    text = f"basic_auth_users: {{alice: {alice}}}\nhttp_server_config: {{headers: {{X-Frame-Options: deny}}}}"
    found = ProtectionFile(web_config(tmp_path, text)).current()
    assert (dict(found.users), found.headers) == ({"alice": alice}, (("X-Frame-Options", "deny"),))
    assert found.secure is None


def test_a_change_of_the_file_is_seen(tmp_path: Path) -> None:
    file = ProtectionFile(web_config(tmp_path, ""))
    assert file.current() is file.current()
    web_config(tmp_path, f"basic_auth_users: {{alice: {hashed()}}}")
    assert list(file.current().users) == ["alice"]


def test_a_change_that_can_not_be_used_leaves_what_held_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = ProtectionFile(web_config(tmp_path, f"basic_auth_users: {{alice: {hashed()}}}"))
    web_config(tmp_path, "basic_auth_users: {alice: s3cret}")
    for _ in range(3):
        assert list(file.current().users) == ["alice"]
    assert len(caplog.records) == 1
    assert "s3cret" not in str(caplog.records[0].__dict__)
    (tmp_path / "web.yml").unlink()
    assert list(file.current().users) == ["alice"]


def test_a_reading_that_fails_in_whatever_way_leaves_what_held(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Path) -> None:
        raise RecursionError

    file = ProtectionFile(web_config(tmp_path, f"basic_auth_users: {{alice: {hashed()}}}"))
    monkeypatch.setattr(web_config_module, "read", broken)
    web_config(tmp_path, "")
    assert list(file.current().users) == ["alice"]
    assert caplog.records[0].exc_info


def test_what_the_openssl_at_hand_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Authority(tmp_path).issue("server")
    monkeypatch.setitem(web_config_module.SUITES, "TLS_RSA_WITH_AES_128_CBC_SHA", "NO-SUCH-SUITE")
    files = "cert_file: server.pem, key_file: server.key"
    text = f"tls_server_config: {{{files}, cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]}}"
    with pytest.raises(UsageError, match=r"OpenSSL .* refuses them"):
        ProtectionFile(web_config(tmp_path, text))


def test_a_link_that_points_elsewhere_is_seen(tmp_path: Path) -> None:
    for name, user in (("old", "alice"), ("new", "bob")):
        (tmp_path / name).mkdir()
        web_config(tmp_path / name, f"basic_auth_users: {{{user}: {hashed()}}}")
    (tmp_path / "now").symlink_to("old")
    file = ProtectionFile(tmp_path / "now" / "web.yml")
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").replace(tmp_path / "now")
    assert list(file.current().users) == ["bob"]


def test_a_missing_bcrypt_is_told_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'paropt-exporter\[bcrypt\]'"):
        ProtectionFile(web_config(tmp_path, f"basic_auth_users: {{alice: {hashed()}}}"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "server.key").unlink(), "server.key: it can't be read"),
        (lambda folder: (folder / "server.pem").write_text("no"), "expected PEM"),
        (lambda folder: Authority(folder / "other").issue("x"), "does not belong"),
        (lambda folder: encrypt(folder / "server.key"), "the key is encrypted"),
    ],
    ids=["missing", "no PEM", "another's key", "encrypted"],
)
def test_a_certificate_that_can_not_be_used_is_one_line(tmp_path: Path, spoil: object, said: str) -> None:
    Authority(tmp_path).issue("server")
    (tmp_path / "other").mkdir()
    spoil(tmp_path)  # type: ignore[operator]  # each case's own
    if said == "does not belong":
        (tmp_path / "other" / "x.key").replace(tmp_path / "server.key")
    with pytest.raises(UsageError, match=said) as caught:
        ProtectionFile(web_config(tmp_path))
    assert "\n" not in str(caught.value)


def encrypt(path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
    )
