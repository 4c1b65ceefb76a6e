"""The JSON Schema of the host config takes and refuses what the exporter does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from paropt_exporter.config import validation
from paropt_exporter.config.document import Unreadable
from paropt_exporter.monitoring import schema
from support.yaml_documents import load_yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/host-config.md").read_text()
SCHEMA = json.loads(schema.render_host_schema())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

ACCEPTED = [
    *re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL),
    "{}",
    "only_known_urls: true",
    "servers: []",
    "servers: [{url: https://a}]",
    "servers: [{url: 'https://A.Example:8443/api/v1;x=1/~me', bearer_token_env: TOKEN}]",
    "servers: [{url: 'http://[::1]:9090/', headers: {X-Number: 5}}]",
    "servers: [{url: https://a, basic_auth: {username: me, password_env: PASSWORD}}]",
    "servers: [{url: https://a, tls: {ca_file: ca.pem, cert_file: cert.pem, key_file: key.pem}}]",
    "servers: [{url: https://a, header_files: {X-Secret: header}}]",
    "prometheus: {url: 'https://a/prom%20etheus'}",
    "push: {url: https://a/}\ncache: {url: https://a/..., write: false}",
    "allow: [{repository: ~/src}, {url: https://a}, {url: https://a/b..c, repository: /srv}]",
]
REFUSED = [
    "[]",
    "psh: {url: https://a}",
    "x-anchors: {}",
    "only_known_urls: 1",
    "only_known_urls: 'true'",
    "servers: {url: https://a}",
    "servers: [https://a]",
    "servers: [{}]",
    "servers: [{url: https://a, bearer_token: secret}]",
    "servers: [{url: ''}]",
    "servers: [{url: a.example}]",
    "servers: [{url: ftp://a}]",
    "servers: [{url: https://me:secret@a}]",
    "servers: [{url: 'https://a?token=secret'}]",
    "servers: [{url: https://a/x#y}]",
    "servers: [{url: https://a/../b}]",
    "servers: [{url: https://a/.}]",
    "servers: [{url: https://a/%2e%2e/b}]",
    "servers: [{url: 'https://a\\b'}]",
    "servers: [{url: https://ä.example}]",
    "servers: [{url: HTTPS://a}]",
    "servers: [{url: 'https://a.:443'}]",
    "servers: [{url: 'https://a:123456'}]",
    "servers: [{url: https://a, bearer_token_file: ''}]",
    "servers: [{url: https://a, bearer_token_file: [x]}]",
    "servers: [{url: https://a, bearer_token_env: A=B}]",
    "servers: [{url: https://a, bearer_token_file: x, bearer_token_env: X}]",
    "servers: [{url: https://a, bearer_token_file: x, basic_auth: {username: me, password_file: x}}]",
    "servers: [{url: https://a, bearer_token_env: X, basic_auth: {username: me, password_file: x}}]",
    "servers: [{url: https://a, basic_auth: {username: me}}]",
    "servers: [{url: https://a, basic_auth: {password_file: x}}]",
    "servers: [{url: https://a, basic_auth: {username: me, password_file: x, password_env: X}}]",
    "servers: [{url: https://a, tls: {insecure_skip_verify: true}}]",
    "servers: [{url: https://a, headers: [X-A]}]",
    "servers: [{url: https://a, headers: {X-A: true}}]",
    "servers: [{url: https://a, header_files: {X-A: ''}}]",
    "prometheus: https://a",
    "prometheus: {}",
    "prometheus: {url: https://me@a}",
    "prometheus: {url: https://a, timeout: 5s}",
    "push: {url: 'https://a?x'}",
    "cache: {write: true}",
    "cache: {url: https://a#x}",
    "cache: {url: https://a, write: 'no'}",
    "allow: [{}]",
    "allow: {repository: /srv}",
    "allow: [{url: https://me@a}]",
    "allow: [{url: https://a/..}]",
    "allow: [{repository: ''}]",
    "allow: [{repository: ' '}]",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_config_that_the_exporter_accepts_matches_the_schema(text: str) -> None:
    validation.validate_host_file(text.encode())
    assert [error.message for error in VALIDATOR.iter_errors(load_yaml(text))] == []


@pytest.mark.parametrize("text", REFUSED)
def test_config_that_the_exporter_refuses_violates_the_schema(text: str) -> None:
    with pytest.raises(Unreadable):
        validation.validate_host_file(text.encode())
    assert not VALIDATOR.is_valid(load_yaml(text))


def test_schema_is_valid_and_describes_every_key() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    sections = [SCHEMA, *SCHEMA["$defs"].values()]
    missing = [key for one in sections for key, value in one["properties"].items() if not value.get("description")]
    assert missing == []


def test_patterns_mean_the_same_in_javascript_and_python() -> None:
    for pattern in re.findall(r'"pattern": "(.*)"', schema.render_host_schema()):
        assert not re.search(r"\(\?[^:=!]|\\\\[AZwdu]", pattern), pattern
