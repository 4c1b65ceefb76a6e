"""Web configs are accepted or refused with a reason; those that exporter-toolkit refuses are refused."""

from __future__ import annotations

import subprocess
from pathlib import Path
from subprocess import PIPE, STDOUT

import pytest

from paropt_exporter.errors import ConfigError
from paropt_exporter.exposition import web_config
from support.real_servers import program
from support.secured import Authority, hashed

USER_HASH = hashed()
TLS = "cert_file: server.pem, key_file: server.key"
CA = "client_ca_file: ca.pem"

ACCEPTED = {
    "empty": "",
    "tls": f"tls_server_config: {{{TLS}}}",
    "versions": f"tls_server_config: {{{TLS}, min_version: TLS13, max_version: TLS13}}",
    "suites": f"tls_server_config: {{{TLS}, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]}}",
    "order": f"tls_server_config: {{{TLS}, prefer_server_cipher_suites: false, curve_preferences: [CurveP256]}}",
    "clients": f"tls_server_config: {{{TLS}, {CA}, client_auth_type: RequireAndVerifyClientCert}}",
    "clients at will": f"tls_server_config: {{{TLS}, {CA}, client_auth_type: VerifyClientCertIfGiven}}",
    "users": f"basic_auth_users: {{alice: {USER_HASH}, 'bob smith': {USER_HASH}, 007: {USER_HASH}}}",
    "http": "http_server_config: {http2: false, headers: {X-Frame-Options: deny, Content-Security-Policy: a b}}",
    "quoted hash": f"basic_auth_users:\n  alice: '{USER_HASH}'\n",
}
REFUSED_BY_ALL = {
    "unknown key": f"tls_server_config: {{{TLS}, certfile: a}}",
    "unknown section": "tls_config: {}",
    "a list": "[]",
    "no key": "tls_server_config: {cert_file: server.pem}",
    "no certificate": "tls_server_config: {key_file: server.key}",
    "a password": "basic_auth_users: {alice: s3cret}",
    "a header that is not known": "http_server_config: {headers: {Server: x}}",
    "a header's value that is not allowed": "http_server_config: {headers: {X-Frame-Options: maybe}}",
    "a version that is not known": f"tls_server_config: {{{TLS}, min_version: SSL3}}",
    "a suite that is not known": f"tls_server_config: {{{TLS}, cipher_suites: [TLS_ECDHE]}}",
    "an authority that is never asked": f"tls_server_config: {{{TLS}, client_ca_file: ca.pem}}",
    "no yaml": "tls_server_config: {",
}
NOT_SUPPORTED = {
    "TLS10": f"tls_server_config: {{{TLS}, min_version: TLS10}}",
    "RequestClientCert": f"tls_server_config: {{{TLS}, client_auth_type: RequestClientCert}}",
    "RequireAnyClientCert": f"tls_server_config: {{{TLS}, client_auth_type: RequireAnyClientCert}}",
    "curve_preferences": f"tls_server_config: {{{TLS}, curve_preferences: [CurveP256, X25519]}}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all configs and their certificates."""
    folder = tmp_path_factory.mktemp("configs")
    Authority(folder).issue("server")
    for name, text in (ACCEPTED | REFUSED_BY_ALL | NOT_SUPPORTED).items():
        (folder / f"{name}.yml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def accepted_by_promtool(folder: Path) -> set[str]:
    """The names of the configs that promtool accepts; it checks all of them at once."""
    paths = sorted(folder.glob("*.yml"))
    command = [program("promtool"), "check", "web-config", *map(str, paths)]
    checked = subprocess.run(command, stdout=PIPE, stderr=STDOUT, text=True, check=False).stdout
    assert all(f"{path} SUCCESS" in checked or f"{path} FAILED" in checked for path in paths), checked
    return {path.stem for path in paths if f"{path} SUCCESS" in checked}


@pytest.mark.parametrize("name", ACCEPTED)
def test_configs_that_promtool_accepts_are_accepted(folder: Path, accepted_by_promtool: set[str], name: str) -> None:
    assert name in accepted_by_promtool
    web_config.load_web_config(folder / f"{name}.yml")


@pytest.mark.parametrize("name", REFUSED_BY_ALL)
def test_configs_that_promtool_refuses_are_refused_with_the_place(
    folder: Path, accepted_by_promtool: set[str], name: str
) -> None:
    assert name not in accepted_by_promtool
    with pytest.raises(ConfigError, match=rf"{name}\.yml:\d+:\d+: "):
        web_config.load_web_config(folder / f"{name}.yml")


@pytest.mark.parametrize("name", NOT_SUPPORTED)
def test_unsupported_keys_are_refused_and_named(folder: Path, accepted_by_promtool: set[str], name: str) -> None:
    assert name in accepted_by_promtool
    with pytest.raises(ConfigError, match=f"{name}.*not supported"):
        web_config.load_web_config(folder / f"{name}.yml")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"tls_server_config: {{{TLS}, client_allowed_sans: [a]}}", "client_allowed_sans needs client_auth_type: "),
        (
            f"tls_server_config: {{{TLS}, {CA}, client_auth_type: VerifyClientCertIfGiven, client_allowed_sans: [a]}}",
            "client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert",
        ),
        (f"tls_server_config: {{{TLS}, min_version: TLS13, max_version: TLS12}}", "min_version is above max_version"),
        ("http_server_config: {headers: {Content-Security-Policy: 'ä'}}", "expected one line of ASCII text"),
    ],
)
def test_settings_that_can_not_have_an_effect_are_refused(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "web.yml").write_text(text)
    with pytest.raises(ConfigError, match=fault):
        web_config.load_web_config(tmp_path / "web.yml")


def test_all_faults_are_reported_together_without_passwords(tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    path.write_text("tls_server_config: {key: x, min_version: 1}\nbasic_auth_users: {a: s3cret, b: [s3cret]}\nz: 1\n")
    with pytest.raises(ConfigError) as caught:
        web_config.load_web_config(path)
    assert len(caught.value.faults) == 5
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["gone.yml", "."])
def test_an_unreadable_file_is_one_fault(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot read it"):
        web_config.load_web_config(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "tls_server_config: {cert_file: a, key_file: b, cipher_suites: [LONG]}",
        "http_server_config: {headers: {LONG: x}}",
        "http_server_config: {headers: {X-Frame-Options: LONG}}",
        "LONG: x",
    ],
)
def test_long_value_is_cut_in_the_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "web.yml").write_text(text.replace("LONG", "a" * 3000))
    with pytest.raises(ConfigError) as caught:
        web_config.load_web_config(tmp_path / "web.yml")
    assert max(map(len, caught.value.faults)) < 1500
