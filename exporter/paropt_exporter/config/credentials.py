"""Read the secrets of requests, and describe failed requests, without a part of a secret in any message."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from paropt_exporter import files
from paropt_exporter.config.values import Access
from paropt_exporter.errors import ParoptError

LARGEST_SECRET_BYTES = 1 << 16
_SHORTEST_HIDDEN = 4  # characters: hiding shorter ones would make messages unreadable, and protect nothing
_SHORTEST_CUT = 8  # of a secret that is cut off; more than "Bearer "
HIDDEN = "***"


class SecretError(ParoptError):
    """A secret is missing, or can't be in a header. The message names its file or variable."""


def read_secret(file: Path | None, variable: str | None) -> str:
    """Return a password or token from a file or an environment variable, without a trailing line break.

    Raises SecretError.
    """
    try:
        if file is not None:
            text = files.read_start(file, limit_bytes=LARGEST_SECRET_BYTES).decode()
        else:
            text = os.environ.get(variable or "", "")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SecretError(f"cannot read the secret in {file}: {reason}") from None
    secret = text.strip()
    if not secret or not secret.isprintable():
        raise SecretError(f"the secret in {file or f'${variable}'} is not one line of printable characters")
    return secret


def build_headers(server: Access, root: Path = Path("/")) -> dict[str, str]:
    """Return the headers of a request. Their secrets are read now, since secrets rotate.

    Paths are relative to `root`. Raises SecretError.
    """
    headers = dict(server.headers)
    headers |= {name: _read_header(root / file, None) for name, file in server.header_files.items()}
    authorization = _build_authorization(server, root)
    return headers | ({"Authorization": authorization} if authorization else {})


def _build_authorization(server: Access, root: Path) -> str:
    basic = server.basic_auth
    if basic is not None:
        file = root / basic.password_file if basic.password_file is not None else None
        pair = f"{basic.username}:{read_secret(file, basic.password_env)}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"
    if server.bearer_token_file is not None or server.bearer_token_env is not None:
        file = root / server.bearer_token_file if server.bearer_token_file is not None else None
        return f"Bearer {_read_header(file, server.bearer_token_env)}"
    return ""


def _read_header(file: Path | None, variable: str | None) -> str:
    """Return a secret that can be in a header unchanged. Raises SecretError."""
    secret = read_secret(file, variable)
    if not secret.isascii():
        raise SecretError(f"the secret in {file or f'${variable}'} is not one line of ASCII text")
    return secret


def list_secrets(headers: Mapping[str, str], named: Iterable[str]) -> tuple[str, ...]:
    """Return the secret texts in a request's headers: in Authorization, and in the `named` ones."""
    values = [headers[name] for name in ("Authorization", *named) if name in headers]
    return tuple(secret for value in values for secret in list_header_secrets(value))


def list_header_secrets(value: str) -> tuple[str, ...]:
    """Return the secret texts in a header's value: all of it, the token after a scheme, the password of `Basic`."""
    scheme, _, token = value.partition(" ")
    secrets = [value, token.strip()]
    if scheme.lower() == "basic":
        with suppress(ValueError):
            secrets.append(base64.b64decode(token).decode().partition(":")[2])
    return tuple(secrets)


def list_url_secrets(url: str) -> tuple[str, ...]:
    """Return the secret texts in a URL: user, password, query and its values, as written and decoded.

    User and password are also included in the form of an Authorization header, in which requests sends them.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that are no IPv6 address
        return (url,)
    user, password = parts.username or "", parts.password or ""
    written = (user, password, parts.query, parts.fragment)
    both = f"{unquote(user)}:{unquote(password)}" if user or password else ""
    sent = base64.b64encode(both.encode("latin-1", "replace")).decode()
    values = [value for _, value in parse_qsl(parts.query)]
    pairs = [pair.partition("=")[2] for pair in parts.query.split("&")]
    return (*written, *map(unquote, written), sent, *values, *pairs)


def hide_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return a text from a server or library with these secrets removed, also one that its end cuts off."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _SHORTEST_HIDDEN:
            text = text.replace(secret, HIDDEN)
            longest = min(len(secret) - 1, len(text))
            cut = next((n for n in range(longest, _SHORTEST_CUT - 1, -1) if text.endswith(secret[:n])), 0)
            text = f"{text[:-cut]}{HIDDEN}" if cut else text
    return text


def describe_cause(error: BaseException) -> str:
    """Describe the innermost cause of a failed request; the messages around it are long and may quote a header."""
    innermost_first = [*_iter_causes(error)][::-1]
    for cause in innermost_first:
        if verdict := getattr(cause, "verify_message", None):  # ssl.SSLCertVerificationError
            return f"its certificate is not trusted: {verdict}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if type(cause) is OSError:  # about certificate files; messages of subclasses may quote a header
            return str(cause)
    return f"the request failed ({type(innermost_first[0]).__name__})"


def _iter_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes; requests and urllib3 wrap errors as arguments, reasons and causes."""
    while error is not None:
        yield error
        inside = (*error.args, getattr(error, "reason", None), error.__cause__, error.__context__)
        error = next((each for each in inside if isinstance(each, BaseException)), None)
