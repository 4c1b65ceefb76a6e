"""Which credentials a lane sends where: those that the host lists for a server, or those that it allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from paropt_exporter.config import Config
from paropt_exporter.config.host_config import HostConfig, load_host_config
from paropt_exporter.config.server_access import apply_host_config
from paropt_exporter.errors import ConfigError
from support import configs

STAGES = "stages: [{number: 1, name: one, run: 'true'}]\n"
URL = "https://metrics.example.org/prometheus"
SECRETS = (
    "bearer_token_file: /run/secrets/token",
    "bearer_token_env: TOKEN",
    "basic_auth: {username: me, password_file: /run/secrets/password}",
    "basic_auth: {username: me, password_env: PASSWORD}",
    "header_files: {X-Token: /run/secrets/token}",
    "tls: {cert_file: /etc/ssl/client.pem}",
    "tls: {ca_file: ca.pem, key_file: /etc/ssl/client.key}",
)
SECTIONS = ("push: {{{}}}\n", "feedback: {{prometheus: {{{}}}}}\n")


def host(folder: Path, text: str = "", **environ: str) -> HostConfig:
    path = folder / "host.yml"
    path.write_text(text)
    path.chmod(0o600)
    return load_host_config({"PAROPT_HOST_CONFIG": str(path), "HOME": str(folder), **environ})


def project(folder: Path, text: str) -> Config:
    (folder / "project").mkdir(exist_ok=True)
    return configs.read(folder / "project", text + STAGES)


def faults(config: Config, settings: HostConfig, push_url: str | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        apply_host_config(config, settings, push_url=push_url)
    return [fault.removeprefix(f"{config.root}/") for fault in caught.value.faults]


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("secret", SECRETS)
def test_project_names_no_secret_for_a_url_of_its_own(tmp_path: Path, section: str, secret: str) -> None:
    config = project(tmp_path, section.format(f'url: "{URL}", {secret}'))
    (fault,) = faults(config, host(tmp_path))
    assert fault.startswith("paropt.yml:1:")
    key = secret.split(":", maxsplit=1)[0] if "tls" not in secret else "tls."
    assert key in fault
    assert "a paropt.yml may not send a secret of this host" in fault
    assert f"allow: [{{repository: {config.root}}}]" in fault


@pytest.mark.parametrize("section", SECTIONS)
def test_url_without_a_secret_of_the_host_needs_no_permission(tmp_path: Path, section: str) -> None:
    config = project(tmp_path, section.format(f'url: "{URL}", headers: {{X-Scope-OrgID: shop}}, tls: {{ca_file: a}}'))
    assert apply_host_config(config, host(tmp_path)) == config


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "allowed",
    [
        "allow: [{repository: project}]",
        f'allow: [{{url: "{URL}"}}]',
        f'allow: [{{repository: elsewhere}}, {{url: "{URL}", repository: project}}]',
    ],
)
def test_allowed_project_names_its_own(tmp_path: Path, section: str, secret: str, allowed: str) -> None:
    config = project(tmp_path, section.format(f'url: "{URL}", {secret}'))
    assert apply_host_config(config, host(tmp_path, allowed)) == config


def test_variable_allows_a_url(tmp_path: Path) -> None:
    config = project(tmp_path, f'push: {{url: "{URL}", {SECRETS[0]}}}\n')
    assert apply_host_config(config, host(tmp_path, PAROPT_ALLOW_CREDENTIALS=URL)) == config
    assert faults(config, host(tmp_path, PAROPT_ALLOW_CREDENTIALS=f"{URL}/push"))


@pytest.mark.parametrize(
    "allowed",
    [
        "allow: [{repository: proj}]",
        f'allow: [{{url: "{URL}/x"}}]',
        f'allow: [{{url: "{URL}", repository: elsewhere}}]',
    ],
)
def test_permission_for_another_project_or_server_does_not_count(tmp_path: Path, allowed: str) -> None:
    config = project(tmp_path, f'push: {{url: "{URL}", {SECRETS[0]}}}\n')
    assert faults(config, host(tmp_path, allowed))


def test_secrets_that_a_project_names_go_to_the_url_of_the_command_line(tmp_path: Path) -> None:
    config = project(tmp_path, f"push: {{{SECRETS[3]}}}\n")
    applied = apply_host_config(config, host(tmp_path), push_url="https://push.example.org")
    assert applied.push.url == "https://push.example.org"
    assert applied.push.basic_auth == config.push.basic_auth


@pytest.mark.parametrize("section", SECTIONS)
def test_listed_server_gets_the_hosts_credentials_and_nothing_that_the_project_names(
    tmp_path: Path, section: str
) -> None:
    refused = "hOst: evil, Cookie: x, Proxy-Authorization: x, X-Forwarded-Host: evil, Transfer-Encoding: chunked"
    headers = f"headers: {{X-Scope-OrgID: shop, {refused}}}"
    own = f'url: "{URL}", {SECRETS[0]}, tls: {{ca_file: evil.pem}}, {headers}'
    config = project(tmp_path, section.format(own))
    listed = f'servers: [{{url: "https://metrics.example.org", {SECRETS[3]}, headers: {{X-More: "1"}}}}]'
    applied = apply_host_config(config, host(tmp_path, listed))
    used = applied.push if section.startswith("push") else applied.feedback.prometheus
    assert used is not None and used.basic_auth is not None
    assert (used.url, used.bearer_token_file, used.tls) == (URL, None, None)
    assert used.basic_auth.password_env == "PASSWORD"
    assert dict(used.headers) == {"X-Scope-OrgID": "shop", "X-More": "1"}


def test_hosts_urls_serve_projects_that_name_none(tmp_path: Path) -> None:
    settings = host(
        tmp_path,
        f'push: {{url: "https://push"}}\nprometheus: {{url: "{URL}"}}\nservers: [{{url: "{URL}", {SECRETS[1]}}}]',
    )
    for text in ("", "feedback: {prometheus: {timeout: 2s}}\n"):
        applied = apply_host_config(project(tmp_path, text), settings)
        prometheus = applied.feedback.prometheus
        assert applied.push.url == "https://push"
        assert prometheus is not None
        assert (prometheus.url, prometheus.bearer_token_env) == (URL, "TOKEN")
    named = apply_host_config(project(tmp_path, 'push: {url: "http://own"}\nfeedback: {source: local}\n'), settings)
    assert (named.push.url, named.feedback.prometheus) == ("http://own", None)


def test_prometheus_without_a_url_anywhere_is_a_fault_at_its_place(tmp_path: Path) -> None:
    config = project(tmp_path, "feedback:\n  prometheus: {timeout: 2s}\n")
    (fault,) = faults(config, host(tmp_path))
    assert fault.startswith("paropt.yml:2:3: feedback.prometheus: no url here, and none in the host config")


def test_strict_host_allows_listed_urls_only(tmp_path: Path) -> None:
    strict = "only_known_urls: true\n"
    for section in SECTIONS:
        config = project(tmp_path, section.format(f'url: "{URL}"'))
        (fault,) = faults(config, host(tmp_path, strict))
        assert "url: this host allows no other servers" in fault
        assert f"add this one to {tmp_path / 'host.yml'}" in fault
        for known in (f'push: {{url: "{URL}"}}', f'allow: [{{url: "{URL}"}}]', f'servers: [{{url: "{URL}"}}]'):
            assert apply_host_config(config, host(tmp_path, strict + known))
        (fault,) = faults(config, host(tmp_path, f"{strict}allow: [{{repository: {tmp_path}}}]"))
        assert "url: this host allows no other servers" in fault
    assert apply_host_config(project(tmp_path, ""), host(tmp_path, strict), push_url="http://anywhere")


@pytest.mark.parametrize(
    "cluster",
    [
        'scheduler: "tls://sched:8786", tls: {ca: a, cert: b, key: c}',
        'scheduler: "tcp://sched:8786", insecure: true',
        'scheduler: "tcp://127.0.0.1:8786", insecure: true',
        "file: scheduler.json",
        'cluster: "a:b"',
    ],
)
def test_project_sends_no_variables_to_a_cluster_of_its_own(tmp_path: Path, cluster: str) -> None:
    config = project(tmp_path, f"dask: {{{cluster}, pass_env: [TOKEN]}}\n")
    (fault,) = faults(config, host(tmp_path))
    assert "dask.pass_env: a paropt.yml may not send variables of this host" in fault
    assert apply_host_config(config, host(tmp_path, "allow: [{repository: project}]")) == config
    for text in (f"dask: {{{cluster}}}\n", "dask: {scheduler: 'tcp://127.0.0.1:8786', pass_env: [A]}\n"):
        harmless = project(tmp_path, text)
        assert apply_host_config(harmless, host(tmp_path)) == harmless
