"""Messages about wrong values show no value where a secret may stand, in any kind of config."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from paropt_exporter.config import credentials
from paropt_exporter.config.host_config import load_host_config
from paropt_exporter.errors import ConfigError
from paropt_exporter.exposition.web_config import load_web_config
from support import configs

SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    "text",
    [
        "SECRET",
        "me:SECRET",
        "*SECRET",
        "push: {url: 'https://me:SECRET@gateway'}",
        "push: {url: 'https://gateway/?token=SECRET'}",
        "push: {url: 'https://gateway/#SECRET'}",
        "push: {url: 'ftp://me:SECRET@gateway'}",
        "push: {url: 'gateway?token=SECRET'}",
        "push: {basic_auth: 'me:SECRET'}",
        "push: {basic_auth: {username: me, password: SECRET}}",
        "push: {basic_auth: {username: me, password_env: 'SECRET='}}",
        "push: {bearer_token_env: 'SECRET='}",
        "push: {bearer_token: SECRET}",
        "push: {headers: 'Authorization: SECRET'}",
        "push: {header_files: SECRET}",
        "feedback: {prometheus: {url: 'https://me:SECRET@prometheus'}}",
        "feedback: {prometheus: {url: 'https://prometheus', header_files: 'X: SECRET'}}",
        "dask: {scheduler: 'tls://me:SECRET@scheduler:8786'}",
        "stages: [{number: 1, name: one, run: a, env: 'TOKEN=SECRET'}]",
        "stages: [{number: 1, name: one, run: a, env: {'TOKEN=SECRET': x}}]",
        "stages: [{number: 1, name: one, run: a, env: [TOKEN=SECRET]}]",
    ],
)
def test_config(tmp_path: Path, text: str) -> None:
    faults = configs.faults(tmp_path, text.replace("SECRET", SECRET))
    assert faults
    assert [fault for fault in faults if SECRET in fault] == []


@pytest.mark.parametrize(
    "text",
    [
        "SECRET",
        "basic_auth_users: {ops: SECRET}",
        "basic_auth_users: 'ops:SECRET'",
        "basic_auth_users: [SECRET]",
        "basic_auth_users: {ops: {password: SECRET}}",
        "tls_server_config: {cert: a, key: SECRET}",
        "basic_auth_users: {ops: 'SECRET",
    ],
)
def test_web_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "web.yml").write_text(text.replace("SECRET", SECRET))
    with pytest.raises(ConfigError) as caught:
        load_web_config(tmp_path / "web.yml")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "servers: [{url: 'https://me:SECRET@a'}]",
        "servers: [{url: 'https://a', bearer_token: SECRET}]",
        "servers: [{url: 'https://a', basic_auth: 'me:SECRET'}]",
        "cache: {url: 'https://a/?key=SECRET'}",
        "cache: {url: 'a?key=SECRET'}",
        "allow: [{url: 'https://me:SECRET@a'}]",
    ],
)
def test_host_config(tmp_path: Path, text: str) -> None:
    path = tmp_path / "host.yml"
    path.write_text(text.replace("SECRET", SECRET))
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        load_host_config({"PAROPT_HOST_CONFIG": str(path)})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"Authorization": "Bearer s3cr3t-value"}, ()),
        ({"Authorization": "Basic bWU6czNjcjN0LXZhbHVl"}, ()),  # me:s3cr3t-value
        ({"X-Key": "s3cr3t-value"}, ("X-Key",)),
        ({"X-Key": "Token s3cr3t-value"}, ("X-Key",)),
    ],
)
def test_texts_that_quote_a_request(headers: dict[str, str], named: tuple[str, ...]) -> None:
    secrets = credentials.list_secrets(headers, named)
    quoted = f"invalid header {headers} of s3cr3t-value; ok"
    assert credentials.hide_secrets(quoted, secrets).endswith("of ***; ok")
    assert not [value for value in headers.values() if value in credentials.hide_secrets(quoted, secrets)]


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_secret_at_which_a_text_was_cut_off_is_hidden(cut: int) -> None:
    quoted = "invalid header Bearer s3cr3t-value"[:-cut]
    assert credentials.hide_secrets(quoted, credentials.list_header_secrets("Bearer s3cr3t-value")).endswith(" ***")
    assert credentials.hide_secrets("no Bearer ", ["Bearer s3cr3t-value"]) == "no Bearer "


def test_parts_of_a_url_are_hidden_as_written_and_decoded() -> None:
    secrets = credentials.list_url_secrets("https://me%40org:p%C3%A4ss@host/x?token=s3cr%33t#fragment")
    shown = credentials.hide_secrets("me@org päss p%C3%A4ss s3cr3t s3cr%33t fragment", secrets)
    assert shown.split() == ["***"] * 6


@pytest.mark.parametrize("url", ["https://me%40org:p%C3%A4ss@host/x", "https://t0ken-value:@host/x"])
def test_credentials_of_a_url_are_hidden_as_requests_sends_them(url: str) -> None:
    sent = requests.Session().prepare_request(requests.Request("GET", url)).headers["Authorization"]
    assert credentials.hide_secrets(f"moved to /{sent}", credentials.list_url_secrets(url)) == "moved to /Basic ***"


def test_url_without_credentials_hides_nothing() -> None:
    assert not any(credentials.list_url_secrets("https://host/x"))
