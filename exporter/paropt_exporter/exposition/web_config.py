"""Load `--web.config.file`: TLS and basic-auth settings in the format that Prometheus' own servers share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictBool, ValidationError, ValidationInfo, model_validator

from paropt_exporter import files
from paropt_exporter.config import messages
from paropt_exporter.config.document import Document, Unreadable, decode_text
from paropt_exporter.config.fields import Text, Word
from paropt_exporter.config.model import Section
from paropt_exporter.config.units import LARGEST_FILE_BYTES, format_value
from paropt_exporter.errors import ConfigError

# Go's names, which the file uses, and OpenSSL's. Suites of TLS 1.3 can't be chosen, as in Go.
SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
}
SUITES_OF_TLS_1_3 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}

_BCRYPT = re.compile(r"\$2[abxy]\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_HEADERS = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
_NO_CERTIFICATE, _IF_GIVEN, _ALWAYS = "NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"
_NOT_VERIFIED = ("RequestClientCert", "RequireAnyClientCert")
_VERSIONS = ("TLS12", "TLS13")
_OLD_VERSIONS = ("TLS10", "TLS11")


def _check_hash(value: object) -> str:
    if not isinstance(value, str) or not _BCRYPT.fullmatch(value):
        raise ValueError(
            "expected a bcrypt hash, as `htpasswd -nBC 10 USER` prints it (not shown: it may be a password)"
        )
    return value


def _check_one_line(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value.isascii():
        raise ValueError("expected one line of ASCII text")
    return value


def _check_client_auth(value: object) -> object:
    if value in _NOT_VERIFIED:
        raise ValueError(
            f"{value} is not supported: this endpoint verifies every client certificate that it requests; "
            f"use {_IF_GIVEN} or {_ALWAYS}"
        )
    return value or _NO_CERTIFICATE


def _check_version(value: object) -> object:
    if value in _OLD_VERSIONS:
        raise ValueError(
            f"{value} is not supported: it is insecure, and OpenSSL refuses it; use {' or '.join(_VERSIONS)}"
        )
    return value


def _refuse_inline(_: object, info: ValidationInfo) -> str:
    raise ValueError(f"inline certificates are not supported: give a file with {info.field_name}_file")


Inline = Annotated[str | None, BeforeValidator(_refuse_inline)]
Version = Annotated[Literal["TLS12", "TLS13"], BeforeValidator(_check_version)]


class TlsServer(Section):
    """`tls_server_config`. Files are relative to the config's folder."""

    cert_file: Text | None = None
    key_file: Text | None = None
    cert: Inline = None
    key: Inline = None
    client_ca: Inline = None
    client_ca_file: Text | None = None
    client_auth_type: Annotated[
        Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"],
        BeforeValidator(_check_client_auth),
    ] = "NoClientCert"
    client_allowed_sans: tuple[Word, ...] = ()
    min_version: Version = "TLS12"
    max_version: Version = "TLS13"
    cipher_suites: tuple[str, ...] = ()
    prefer_server_cipher_suites: StrictBool = True
    curve_preferences: tuple[Literal["CurveP256", "CurveP384", "CurveP521", "X25519"], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Return whether no key enables TLS."""
        return not (self.cert_file or self.key_file or self.client_ca_file or self.client_auth_type != _NO_CERTIFICATE)

    @property
    def client_auth_level(self) -> int:
        """How client certificates are verified: 0, none is requested; 1, if one is sent; 2, one is required."""
        return (_NO_CERTIFICATE, _IF_GIVEN, _ALWAYS).index(self.client_auth_type)

    @property
    def lowest_version(self) -> str:
        """The lowest TLS version in use; cipher suites of TLS 1.3 alone allow no lower version."""
        older = not self.cipher_suites or any(suite in SUITES for suite in self.cipher_suites)
        return self.min_version if older else "TLS13"

    @model_validator(mode="after")
    def _check_consistency(self) -> TlsServer:
        if not self.is_empty and (self.cert_file is None or self.key_file is None):
            raise ValueError(f"{'cert_file' if self.cert_file is None else 'key_file'} is missing: TLS needs both")
        if self.client_ca_file is not None and self.client_auth_type == _NO_CERTIFICATE:
            raise ValueError(f"client_ca_file is never used without client_auth_type: {_ALWAYS}, or {_IF_GIVEN}")
        if self.client_allowed_sans and self.client_auth_type != _ALWAYS:
            raise ValueError(f"client_allowed_sans needs client_auth_type: {_ALWAYS}")
        if self.min_version > self.max_version:
            raise ValueError("min_version is above max_version")
        if unknown := [suite for suite in self.cipher_suites if suite not in (*SUITES, *SUITES_OF_TLS_1_3)]:
            raise ValueError(
                f"cipher_suites: {format_value(unknown[0])} is not supported; choose from {', '.join(SUITES)}"
            )
        if len(self.curve_preferences) > 1:
            raise ValueError(
                "curve_preferences: several in order are not supported; give one, or leave the choice to OpenSSL"
            )
        return self


class HttpServer(Section):
    """`http_server_config`. HTTP/2 is never offered: all clients use HTTP/1.1, whatever `http2` says."""

    http2: StrictBool = True
    headers: dict[str, Annotated[str, BeforeValidator(_check_one_line)]] = Field(default={})

    @model_validator(mode="after")
    def _check_headers(self) -> HttpServer:
        for name, value in self.headers.items():
            if name not in _HEADERS:
                raise ValueError(f"the header {format_value(name)} can't be set; choose from {', '.join(_HEADERS)}")
            if (allowed := _HEADERS[name]) and value not in allowed:
                raise ValueError(f"the header {name} must be {' or '.join(allowed)}, found {format_value(value)}")
        return self


class WebConfig(Section):
    """The web config file."""

    tls_server_config: TlsServer = Field(default=TlsServer())
    http_server_config: HttpServer = Field(default=HttpServer())
    basic_auth_users: dict[str, Annotated[str, BeforeValidator(_check_hash)]] = Field(default={})


def load_web_config(path: Path, *, shown_path: Path | None = None) -> WebConfig:
    """Load the file; raises ConfigError with every fault, each as `file:line:column: path: message`.

    `shown_path` is the path that messages show, as the user gave it; by default `path`.
    """
    shown_path = shown_path or path
    try:
        document = Document(decode_text(_read_content(path, shown_path)))
        try:
            return WebConfig.model_validate({} if document.value is None else document.value)
        except ValidationError as error:
            found = messages.iter_faults(error, document, WebConfig)
            raise Unreadable([*dict.fromkeys(document.locate(fault) for fault in found)]) from None
    except Unreadable as error:
        raise ConfigError(tuple(fault.format(str(shown_path)) for fault in sorted(error.faults))) from None


def _read_content(path: Path, shown_path: Path) -> bytes:
    try:
        return files.read_start(path, limit_bytes=LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError((f"{shown_path}:1:1: file: cannot read it: {error.strerror}",)) from None
