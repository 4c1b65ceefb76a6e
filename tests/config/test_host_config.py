"""The host config: which files count, in which order, whom they must belong to, and how faults are reported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paropt_exporter import files
from paropt_exporter.config.host_config import HostConfig, load_host_config
from paropt_exporter.config.values import HostFile
from paropt_exporter.errors import ConfigError, UsageError
from support.processes import run_python

ALL_KEYS = """\
servers:
  - {url: "https://metrics.example.org/prometheus", bearer_token_file: metrics-token, headers: {X-Scope-OrgID: shop}}
  - url: https://push.example.org
    basic_auth: {username: ci, password_file: ~/push-password}
    tls: {ca_file: ca.pem, cert_file: /etc/ssl/client.pem}
    header_files: {X-Secret: header}
prometheus: {url: "https://metrics.example.org/prometheus"}
push: {url: "https://push.example.org"}
cache: {url: "https://cache.example.org", write: true}
allow:
  - {repository: ~/src/shop}
  - {url: "https://push.example.org/team", repository: src}
only_known_urls: true
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "home/.config/paropt-exporter/config.yml"
    path.parent.mkdir(parents=True, mode=0o755)
    return path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home")}


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text)
    path.chmod(mode)


def faults(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_host_config(environ)
    return [*caught.value.faults]


def test_without_a_file_the_host_has_no_settings(environ: dict[str, str]) -> None:
    for variables in (environ, {}):
        found = load_host_config(variables)
        assert (found.file, found.paths) == (HostFile(), ())


def test_messages_name_the_file_in_which_a_user_can_add_entries(tmp_path: Path, environ: dict[str, str]) -> None:
    """With XDG_CONFIG_HOME or PAROPT_HOST_CONFIG an entry in ~/.config would have no effect."""
    named = tmp_path / "named.yml"
    write(named, "")
    for variables, expected in (
        ({}, tmp_path / "home/.config/paropt-exporter/config.yml"),
        ({"XDG_CONFIG_HOME": str(tmp_path / "xdg")}, tmp_path / "xdg/paropt-exporter/config.yml"),
        ({"PAROPT_HOST_CONFIG": str(named)}, named),
    ):
        assert load_host_config({**environ, **variables}).user_file == str(expected)


@pytest.mark.parametrize("read", ["first", "from the cache of parsed configs"])
def test_paths_begin_in_the_files_folder_or_in_the_home_folder(
    environ: dict[str, str], user_file: Path, tmp_path: Path, read: str
) -> None:
    write(user_file, ALL_KEYS)
    host = load_host_config(environ)
    if read != "first":
        host = load_host_config(environ)
    assert host.paths == (user_file,)
    metrics, push = host.file.servers
    assert metrics.bearer_token_file == str(user_file.parent / "metrics-token")
    assert dict(metrics.headers) == {"X-Scope-OrgID": "shop"}
    assert push.basic_auth is not None and push.tls is not None
    assert push.basic_auth.password_file == str(tmp_path / "home/push-password")
    assert (push.tls.ca_file, push.tls.cert_file) == (str(user_file.parent / "ca.pem"), "/etc/ssl/client.pem")
    assert dict(push.header_files) == {"X-Secret": str(user_file.parent / "header")}
    assert [entry.repository for entry in host.file.allow] == [
        str(tmp_path / "home/src/shop"),
        str(user_file.parent / "src"),
    ]
    assert host.file.cache is not None and host.file.cache.write
    assert host.file.only_known_urls


def test_user_file_wins_over_the_systems_and_both_add_up(
    environ: dict[str, str], user_file: Path, tmp_path: Path
) -> None:
    system = tmp_path / "system.yml"
    write(
        system,
        'servers: [{url: "https://a", bearer_token_file: /system}, {url: "https://b", bearer_token_file: /b}]\n'
        'prometheus: {url: "https://a"}\ncache: {url: "https://b"}\n'
        'push: {url: "https://a"}\nallow: [{repository: /srv}]\nonly_known_urls: true\n',
    )
    write(
        user_file,
        'servers: [{url: "https://a", bearer_token_file: /user}]\npush: {url: "https://c"}\nallow: [{repository: /me}]',
    )
    host = load_host_config(environ, system_file=system)
    assert host.paths == (system, user_file)
    found = {url: host.find_server(url) for url in ("https://a/x", "https://b", "https://c")}
    assert {url: server and server.bearer_token_file for url, server in found.items()} == {
        "https://a/x": "/user",
        "https://b": "/b",
        "https://c": None,
    }
    chosen = (host.file.prometheus, host.file.push, host.file.cache)
    assert [each and each.url for each in chosen] == ["https://a", "https://c", "https://b"]
    assert [entry.repository for entry in host.file.allow] == ["/me", "/srv"]
    assert host.file.only_known_urls


def test_xdg_config_home_moves_the_file_and_a_relative_one_is_ignored(environ: dict[str, str], tmp_path: Path) -> None:
    moved = tmp_path / "xdg/paropt-exporter/config.yml"
    moved.parent.mkdir(parents=True, mode=0o755)
    write(moved, "only_known_urls: true")
    assert load_host_config(environ | {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}).file.only_known_urls
    assert not load_host_config(environ | {"XDG_CONFIG_HOME": "xdg"}).file.only_known_urls


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}], ids=str)
def test_file_in_the_home_folder_is_read_without_the_variable(
    environ: dict[str, str], user_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `only_known_urls` was ignored, although the search for paropt.yml and `~` knew the folder."""
    write(user_file, "only_known_urls: true")
    monkeypatch.setattr(files, "find_home", lambda _: tmp_path / "home")
    assert load_host_config(environ).file.only_known_urls


def test_named_file_replaces_the_others_and_an_empty_name_means_none(
    environ: dict[str, str], user_file: Path, tmp_path: Path
) -> None:
    write(user_file, 'push: {url: "https://user"}')
    named = tmp_path / "named.yml"
    write(named, "only_known_urls: true")
    host = load_host_config(environ | {"PAROPT_HOST_CONFIG": str(named)})
    assert (host.paths, host.file.push) == ((named,), None)
    assert load_host_config(environ | {"PAROPT_HOST_CONFIG": ""}) == HostConfig()


@pytest.mark.parametrize(
    ("value", "message"), [("/gone.yml", "there is no file /gone.yml"), ("host.yml", "'host.yml' is relative")]
)
def test_named_file_that_is_missing_or_relative_is_an_error(value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_host_config({"PAROPT_HOST_CONFIG": value})


def test_variable_allows_urls(environ: dict[str, str], tmp_path: Path) -> None:
    host = load_host_config(environ | {"PAROPT_ALLOW_CREDENTIALS": "https://a.example/team http://b:9091"})
    allowed = {url: host.allows_credentials(url, tmp_path) for url in ("https://a.example/team/x", "https://a.example")}
    assert allowed == {"https://a.example/team/x": True, "https://a.example": False}
    with pytest.raises(UsageError, match="no plain URL") as caught:
        load_host_config(environ | {"PAROPT_ALLOW_CREDENTIALS": "https://me:s3cret@a.example"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o664, 0o666, 0o646])
def test_file_that_others_may_write_is_refused(environ: dict[str, str], user_file: Path, mode: int) -> None:
    write(user_file, "only_known_urls: true", mode)
    (fault,) = faults(environ)
    assert fault.startswith(f"{user_file}:1:1: file: other users may write to it")
    assert "chmod go-w" in fault


def test_folder_that_others_may_write_is_refused(environ: dict[str, str], user_file: Path) -> None:
    write(user_file, "only_known_urls: true")
    user_file.parent.chmod(0o777)
    (fault,) = faults(environ)
    assert "its folder: other users may write to it" in fault


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_file_of_another_user_is_refused(environ: dict[str, str], user_file: Path) -> None:
    write(user_file, "only_known_urls: true")
    os.chown(user_file, 65534, 65534)
    (fault,) = faults(environ)
    assert "it belongs to another user (uid 65534)" in fault


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_home_of_another_user_is_refused_with_the_remedy(user_file: Path, tmp_path: Path) -> None:
    """As after `runuser -u paropt`, which keeps root's HOME."""
    tmp_path.chmod(0o700)
    script = (
        "import os\n"
        "from paropt_exporter.config.host_config import load_host_config\n"
        "os.setuid(65534)\n"
        f"try: load_host_config({{'HOME': {str(user_file.parents[2])!r}}})\n"
        "except Exception as error: print(error)"
    )
    ended = run_python(script, check=True)
    assert ended.stdout == (
        f"{user_file}:1:1: file: cannot read it: Permission denied: correct its permissions, or HOME if that is "
        "another user's folder\n"
    )


def test_link_is_followed_and_its_target_is_checked(environ: dict[str, str], user_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles/paropt.yml"
    target.parent.mkdir(0o700)
    user_file.symlink_to(target)
    write(target, "only_known_urls: true")
    assert load_host_config(environ).file.only_known_urls
    target.parent.chmod(0o777)
    (fault,) = faults(environ)
    assert "its folder: other users may write to it" in fault
    target.parent.chmod(0o700)
    target.chmod(0o666)
    assert len(faults(environ)) == 1


def test_pipe_or_folder_in_place_of_the_file_is_one_fault(environ: dict[str, str], user_file: Path) -> None:
    os.mkfifo(user_file)
    (fault,) = faults(environ)
    assert fault.startswith(f"{user_file}:1:1: file: cannot read it")
    user_file.unlink()
    user_file.mkdir()
    (fault,) = faults(environ)
    assert fault.startswith(f"{user_file}:1:1: file: cannot read it")


def test_all_faults_are_reported_at_their_places(environ: dict[str, str], user_file: Path) -> None:
    write(
        user_file,
        'servers:\n  - {url: "https://a", bearer_token: s3cret}\n  - {url: "https://me:s3cret@b"}\n'
        '  - {url: "https://a/../b", bearer_token_file: x, bearer_token_env: Y}\nallow: [{}]\npsh: {}\n'
        'push: {url: "ftp://me:s3cret@x"}\n',
    )
    found = [fault.removeprefix(f"{user_file}:") for fault in faults(environ)]
    assert not [fault for fault in found if "s3cret" in fault]
    starts = [":".join(fault.split(":")[:3]) for fault in found]
    assert starts == [
        "2:24: servers[0].bearer_token",
        "3:11: servers[1].url",
        "3:11: servers[1].url",
        "4:11: servers[2].url",
        "4:51: servers[2].bearer_token_env",
        "5:9: allow[0]",
        "6:1: psh",
        "7:13: push.url",
        "7:13: push.url",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("servers: [https://a]", '1:11: servers[0]: expected a mapping like {url: "https://push.example.org", bearer_'),
        (
            "push: https://a",
            "1:7: push: expected a mapping like {url: \"https://push.example.org\"}, found 'https://a'",
        ),
        ("push: https://me:s3cret@a", '{url: "https://push.example.org"}, found another text (not shown: it may be a '),
        ("cache: https://a", '1:8: cache: expected a mapping like {url: "https://cache.example.org"}, found '),
        ("allow: [/srv]", "1:9: allow[0]: expected a mapping like {repository: ~/src/shop}, found '/srv'"),
    ],
)
def test_text_in_place_of_a_section_is_one_fault_that_shows_its_form(
    environ: dict[str, str], user_file: Path, text: str, message: str
) -> None:
    """A URL with a password was shown, here and in a paropt.yml: in CI, to everybody who may read the log."""
    write(user_file, f"{text}\n")
    (fault,) = faults(environ)
    assert message in fault
    assert "s3cret" not in fault


def test_empty_file_has_no_settings(environ: dict[str, str], user_file: Path) -> None:
    write(user_file, "# nothing yet\n")
    assert load_host_config(environ).file == HostFile()


def test_repository_is_compared_with_links_followed(environ: dict[str, str], user_file: Path, tmp_path: Path) -> None:
    (tmp_path / "home/src/shop/part").mkdir(parents=True)
    (tmp_path / "shop").symlink_to(tmp_path / "home/src/shop")
    (tmp_path / "home/src/shop-of-a-stranger").mkdir()
    write(user_file, "allow: [{repository: ~/src/shop}]")
    host = load_host_config(environ)
    assert host.allows_credentials("https://any", tmp_path / "home/src/shop")
    assert host.allows_credentials("https://any", tmp_path / "shop/part")
    assert not host.allows_credentials("https://any", tmp_path / "home/src/shop-of-a-stranger")
    assert not host.allows_credentials("https://any", tmp_path / "home/src")
