"""Certificates and web config files for tests of a protected endpoint; hashes have the lowest cost of bcrypt."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

import bcrypt
import trustme

PASSWORD = "s3cret ü"
CHEAPEST = 4


class Authority:
    """A certificate authority of one test, with the files that it signs in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def issue(self, name: str, *identities: str, until: datetime | None = None) -> tuple[Path, Path]:
        """Write `NAME.pem` and `NAME.key` for the identities, and replace existing ones."""
        issued = self._authority.issue_cert(*(identities or ("127.0.0.1", "localhost")), not_after=until)
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return certificate, key

    def client(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """Return the TLS context of a client that trusts this authority and presents its own certificate."""
        context = ssl.create_default_context(cafile=str(self.file))
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context


def hashed(password: str = PASSWORD, cost: int = CHEAPEST) -> str:
    salt = b"$2b$%02d$" % cost + b"a" * 21 + b"e"  # always the same: test names must not change from run to run
    return bcrypt.hashpw(password.encode(), salt).decode()


def web_config(folder: Path, text: str = "tls_server_config: {cert_file: server.pem, key_file: server.key}") -> Path:
    path = folder / "web.yml"
    path.write_text(text)
    return path
