"""The web config and its files are reloaded when they change, as a whole or not at all."""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path

import pytest

from paropt_exporter.errors import UsageError
from paropt_exporter.exposition import tls
from paropt_exporter.exposition import web_config as web_config_module
from paropt_exporter.exposition.protection import RETRY_SECONDS, ProtectionFile
from paropt_exporter.testing import FakeClock
from support.secured import Authority, hashed, web_config


def test_users_and_headers_are_those_of_the_file(tmp_path: Path) -> None:
    alice = hashed()
    text = f"basic_auth_users: {{alice: {alice}}}\nhttp_server_config: {{headers: {{X-Frame-Options: deny}}}}"
    found = ProtectionFile(web_config(tmp_path, text)).get_protection()
    assert (dict(found.users), found.headers) == ({"alice": alice}, (("X-Frame-Options", "deny"),))
    assert found.secure is None


def test_a_changed_file_is_reloaded(tmp_path: Path) -> None:
    file = ProtectionFile(web_config(tmp_path, ""))
    assert file.get_protection() is file.get_protection()
    web_config(tmp_path, f"basic_auth_users: {{alice: {hashed()}}}")
    assert list(file.get_protection().users) == ["alice"]


def test_an_invalid_change_keeps_the_config_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = ProtectionFile(web_config(tmp_path, f"basic_auth_users: {{alice: {hashed()}}}"))
    web_config(tmp_path, "basic_auth_users: {alice: s3cret}")
    for _ in range(3):
        assert list(file.get_protection().users) == ["alice"]
    assert len(caplog.records) == 1
    assert "s3cret" not in str(caplog.records[0].__dict__)
    (tmp_path / "web.yml").unlink()
    assert list(file.get_protection().users) == ["alice"]


def test_any_error_of_a_reload_keeps_the_config(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Path, **__: object) -> None:
        raise RecursionError

    file = ProtectionFile(web_config(tmp_path, f"basic_auth_users: {{alice: {hashed()}}}"))
    monkeypatch.setattr(web_config_module, "load_web_config", broken)
    web_config(tmp_path, "")
    assert list(file.get_protection().users) == ["alice"]
    assert caplog.records[0].exc_info


def test_suites_that_openssl_refuses_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Authority(tmp_path).issue("server")
    monkeypatch.setitem(web_config_module.SUITES, "TLS_RSA_WITH_AES_128_CBC_SHA", "NO-SUCH-SUITE")
    files = "cert_file: server.pem, key_file: server.key"
    text = f"tls_server_config: {{{files}, cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]}}"
    with pytest.raises(UsageError, match=r"OpenSSL .* refuses them"):
        ProtectionFile(web_config(tmp_path, text))


def test_a_link_to_another_file_is_reloaded(tmp_path: Path) -> None:
    for name, user in (("old", "alice"), ("new", "bob")):
        (tmp_path / name).mkdir()
        web_config(tmp_path / name, f"basic_auth_users: {{{user}: {hashed()}}}")
    (tmp_path / "now").symlink_to("old")
    file = ProtectionFile(tmp_path / "now" / "web.yml")
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").replace(tmp_path / "now")
    assert list(file.get_protection().users) == ["bob"]


def test_a_missing_bcrypt_is_an_error_with_the_command_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bcrypt", None)  # as if it were not installed
    with pytest.raises(UsageError, match=r"pip install bcrypt"):
        ProtectionFile(web_config(tmp_path, f"basic_auth_users: {{alice: {hashed()}}}"))


@pytest.mark.parametrize("key", ["cert_file", "key_file", "client_ca_file"])
def test_file_name_that_is_too_long_is_one_line(tmp_path: Path, key: str) -> None:
    Authority(tmp_path).issue("server")
    named = {"cert_file": "server.pem", "key_file": "server.key", "client_auth_type": "RequireAndVerifyClientCert"}
    keys = ", ".join(f"{name}: {value}" for name, value in {**named, key: "a" * 5000}.items())
    with pytest.raises(UsageError, match="cannot read it: File name too long") as caught:
        ProtectionFile(web_config(tmp_path, f"tls_server_config: {{{keys}}}"))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "server.key").unlink(), "server.key: cannot read it"),
        (lambda folder: (folder / "server.pem").write_text("no"), "expected PEM"),
        (lambda folder: Authority(folder / "other").issue("x"), "does not belong"),
        (lambda folder: encrypt(folder / "server.key"), "the key is encrypted"),
    ],
    ids=["missing", "no PEM", "another's key", "encrypted"],
)
def test_an_unusable_certificate_is_one_line(tmp_path: Path, spoil: object, said: str) -> None:
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


TLS = "cert_file: server.pem, key_file: server.key"
SECURE = f"tls_server_config: {{{TLS}}}"
MUTUAL = f"{TLS}, client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem"
IF_GIVEN = f"{TLS}, client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca.pem"
HASH = hashed()


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        (SECURE, "", "tls_server_config"),
        (SECURE, "\n", "tls_server_config"),
        (f"basic_auth_users: {{alice: {HASH}}}", "", "basic_auth_users"),
        (f"{SECURE}\nbasic_auth_users: {{alice: {HASH}}}", SECURE, "basic_auth_users"),
        (f"tls_server_config: {{{MUTUAL}}}", SECURE, "client_auth_type"),
        (f"tls_server_config: {{{MUTUAL}}}", f"tls_server_config: {{{IF_GIVEN}}}", "client_auth_type"),
        (f"tls_server_config: {{{IF_GIVEN}}}", SECURE, "client_auth_type"),
        (
            f"tls_server_config: {{{MUTUAL}}}",
            f"tls_server_config: {{{TLS}, client_auth_type: RequireAndVerifyClientCert}}",
            "client_ca_file",
        ),
        (
            f"tls_server_config: {{{MUTUAL}, client_allowed_sans: [prometheus]}}",
            f"tls_server_config: {{{MUTUAL}}}",
            "client_allowed_sans",
        ),
        (f"tls_server_config: {{{TLS}, min_version: TLS13}}", SECURE, "min_version"),
        (f"tls_server_config: {{{TLS}, cipher_suites: [TLS_AES_256_GCM_SHA384]}}", SECURE, "min_version"),
        (
            f"tls_server_config: {{{TLS}, cipher_suites: [TLS_AES_256_GCM_SHA384]}}",
            f"tls_server_config: {{{TLS}, cipher_suites: "
            "[TLS_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]}",
            "min_version",
        ),
        (
            f"tls_server_config: {{{TLS}, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]}}",
            SECURE,
            "cipher_suites",
        ),
        ("http_server_config: {headers: {X-Frame-Options: deny}}", "", "X-Frame-Options"),
    ],
)
def test_a_reload_never_weakens_the_protection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, before: str, after: str, lost: str
) -> None:
    Authority(tmp_path).issue("server")
    file = ProtectionFile(web_config(tmp_path, before))
    held = file.get_protection()
    web_config(tmp_path, after)
    for _ in range(3):
        assert file.get_protection() is held
    [record] = [record for record in caplog.records if hasattr(record, "lost")]
    assert record.levelname == "WARNING"
    assert lost in record.__dict__["lost"]
    assert file.count_reloads() == {"success": 0, "failure": 1}


def test_an_emptied_file_keeps_the_protection(tmp_path: Path) -> None:
    file = ProtectionFile(web_config(tmp_path, f"basic_auth_users: {{alice: {HASH}}}"))
    for text in ("", "basic_auth_users: {alice: no-hash}", "x: [", ""):
        web_config(tmp_path, text)
        assert list(file.get_protection().users) == ["alice"]
    assert file.count_reloads() == {"success": 0, "failure": 4}


def test_refused_reload_is_over_when_the_file_is_loaded_again(tmp_path: Path) -> None:
    users = f"basic_auth_users: {{alice: {HASH}}}"
    file = ProtectionFile(web_config(tmp_path, users))
    assert file.was_reload_successful()
    for text, successful in (("x: [", False), ("", False), (users, True)):
        web_config(tmp_path, text)
        file.get_protection()
        assert file.was_reload_successful() is successful


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"basic_auth_users: {{alice: {HASH}, bob: {HASH}}}", f"basic_auth_users: {{carol: {HASH}}}"),
        (f"basic_auth_users: {{alice: {HASH}}}", f"{SECURE}\nbasic_auth_users: {{alice: {HASH}}}"),
        (f"tls_server_config: {{{IF_GIVEN}}}", f"tls_server_config: {{{MUTUAL}}}"),
        (
            f"tls_server_config: {{{MUTUAL}, client_allowed_sans: [a]}}",
            f"tls_server_config: {{{MUTUAL}, client_allowed_sans: [a, b]}}",
        ),
        (SECURE, f"tls_server_config: {{{TLS}, min_version: TLS13}}"),
    ],
)
def test_a_reload_changes_who_may_read_and_adds_protection(tmp_path: Path, before: str, after: str) -> None:
    Authority(tmp_path).issue("server")
    file = ProtectionFile(web_config(tmp_path, before))
    held = file.get_protection()
    web_config(tmp_path, after)
    assert file.get_protection() is not held
    assert file.count_reloads() == {"success": 1, "failure": 0}


def test_a_config_without_protection_is_a_warning_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ProtectionFile(web_config(tmp_path, "")).get_protection()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "neither TLS nor users" in caplog.text


@pytest.mark.parametrize("web_config_is_refused", [False, True])
@pytest.mark.parametrize("permission_changes", [False, True])
def test_unreadable_certificate_is_loaded_later_although_its_content_is_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web_config_is_refused: bool, permission_changes: bool
) -> None:
    clock = FakeClock()
    certificate, _ = Authority(tmp_path).issue("server")
    file = ProtectionFile(web_config(tmp_path), clock)
    held = file.get_protection()
    if web_config_is_refused:
        web_config(tmp_path, "")
        file.get_protection()

    def refuse(*_: object) -> ssl.SSLContext:
        raise UsageError("TLS: server.pem: cannot read it: Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(tls, "build_context", refuse)
        Authority(tmp_path).issue("server")
        for _ in range(2):
            assert file.get_protection() is held
            clock.advance(RETRY_SECONDS)
    assert file.count_reloads() == {"success": 0, "failure": 1}
    if permission_changes:
        clock.advance(-RETRY_SECONDS)
        certificate.chmod(0o640)
    assert file.get_protection() is not held
    assert file.was_reload_successful() is not web_config_is_refused


@pytest.mark.parametrize("name", ["web.yml", "server.pem", "server.key"])
@pytest.mark.timeout(30)
def test_a_named_pipe_in_place_of_a_file_delays_no_connection(tmp_path: Path, name: str) -> None:
    Authority(tmp_path).issue("server")
    file = ProtectionFile(web_config(tmp_path))
    held = file.get_protection()
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert file.get_protection() is held
    assert file.count_reloads()["failure"] == 1


def test_a_relative_path_refers_to_the_folder_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    file = ProtectionFile(web_config(Path(), f"basic_auth_users: {{alice: {HASH}}}"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert list(file.get_protection().users) == ["alice"]
    web_config(tmp_path, f"basic_auth_users: {{bob: {HASH}}}")
    assert list(file.get_protection().users) == ["bob"]
