"""Valid configs are kept in the user's cache folder, and used only if nothing has changed."""

from __future__ import annotations

import json
import os
import pwd
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from paropt_exporter import config
from paropt_exporter.cache.result_store import open_store
from paropt_exporter.config import parsed_configs, values
from paropt_exporter.config.parsed_configs import ParsedConfigs
from paropt_exporter.errors import ConfigError
from support import configs

ALL_KEYS = """\
project: shop
lanes:
  standard: {workers: {min: 1, max: 4}, sla: {"*": 10s, one: {max: 5s, critical: true}}}
  mine: {strategy: thread, total: 5m, stages: [1, two], fail_fast: true}
stages:
  - {number: 1, name: one, run: "true", env: {A: "1", B: 'x y'}, retries: {count: 2, backoff: 0}, timeout: 3s}
  - {number: 2, name: two, steps: ["true", [echo, "5"]], needs: [one], locks: [db], memory: 1MiB, slots: 2}
  - {number: 3, name: three, run: "echo {item}", cwd: ., items: {list: [a, b]}, sla: 2s, description: Third.}
  - {number: 4, name: four, call: "checks:run", items: {glob: "*.py", allow_empty: true}, exclusive: true}
feedback:
  prometheus: {url: "http://127.0.0.1:9090", basic_auth: {username: me, password_env: SECRET}, tls: {ca_file: ca.pem}}
  signals: {load: {query: sum(up), use: load, target: 20}}
web: {listen_address: ["127.0.0.1:0"], max_requests: 3}
push: {url: "http://127.0.0.1:9091", headers: {X-Scope: a}}
history: {keep: 5d, logs: {run: 1MiB}}
"""
GIB = 1 << 30


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/paropt.yml").write_text(ALL_KEYS)
    return tmp_path / "project"


@pytest.fixture
def parsed(home: Path) -> ParsedConfigs:
    return ParsedConfigs({"HOME": str(home)})


@pytest.fixture
def entry(home: Path, parsed: ParsedConfigs) -> Path:
    """The file of an entry that `find` finds."""
    parsed.store(Path("/shop/paropt.yml"), b"content", values.CheckedFile(project="shop"), cores=2, memory_bytes=GIB)
    (found,) = (home / ".cache/paropt-exporter/configs").iterdir()
    return found


def find(parsed: ParsedConfigs, **changes: object) -> values.CheckedFile | None:
    content, cores, memory = changes.get("content", b"content"), changes.get("cores", 2), changes.get("memory", GIB)
    assert isinstance(content, bytes)
    assert isinstance(cores, int)
    assert isinstance(memory, int)
    return parsed.find(Path("/shop/paropt.yml"), content, cores=cores, memory_bytes=lambda: memory)


def test_a_kept_config_equals_the_one_that_was_read(home: Path, project: Path) -> None:
    path, environ = project / "paropt.yml", {"HOME": str(home)}
    read = config.read_config(path, root=project)
    assert config.load_config(path, root=project, environ=environ) == read
    (kept,) = (home / ".cache/paropt-exporter/configs").iterdir()
    before = kept.stat()
    assert config.load_config(path, root=project, environ=environ) == read
    assert kept.stat().st_mtime_ns == before.st_mtime_ns  # it was not written again


def test_an_entry_is_found_while_nothing_has_changed(parsed: ParsedConfigs, entry: Path) -> None:
    assert find(parsed) == values.CheckedFile(project="shop")


@pytest.mark.parametrize("change", [{"content": b"other"}, {"cores": 3}, {"memory": 2 * GIB}])
def test_changed_content_cores_or_memory_makes_an_entry_invalid(
    parsed: ParsedConfigs, entry: Path, change: dict[str, object]
) -> None:
    assert find(parsed, **change) is None


def test_memory_counts_only_if_a_stage_asks_for_some(parsed: ParsedConfigs) -> None:
    parsed.store(Path("/shop/paropt.yml"), b"content", values.CheckedFile(), cores=2, memory_bytes=0)
    assert find(parsed, memory=5 * GIB) is not None


def test_a_config_that_asks_for_more_memory_than_there_is_stays_a_fault(home: Path, project: Path) -> None:
    path = project / "paropt.yml"
    path.write_text(configs.stage(memory="1000TiB"))
    for _ in range(2):
        with pytest.raises(ConfigError, match="more than the machine has"):
            config.load_config(path, root=project, environ={"HOME": str(home)})


def test_faulty_config_is_not_kept(home: Path, project: Path) -> None:
    (project / "paropt.yml").write_text("stages: []\n")
    with pytest.raises(ConfigError):
        config.load_config(project / "paropt.yml", root=project, environ={"HOME": str(home)})
    assert not (home / ".cache").exists()


def test_stages_of_a_project_without_some_in_its_file_are_detected_again(home: Path, project: Path) -> None:
    path = project / "paropt.yml"
    path.write_text("project: shop\n")
    environ = {"HOME": str(home)}
    assert config.load_config(path, root=project, environ=environ).stages == ()
    (project / "package.json").write_text('{"scripts": {"lint": "eslint ."}}')
    notes = config.load_config(path, root=project, environ=environ).notes
    assert notes == config.read_config(path, root=project).notes


def test_other_users_can_read_neither_folder_nor_entry(entry: Path) -> None:
    assert entry.stat().st_mode & 0o777 == 0o600
    assert entry.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o602, 0o604])
def test_an_entry_open_to_others_is_ignored(parsed: ParsedConfigs, entry: Path, mode: int) -> None:
    entry.chmod(mode)
    assert find(parsed) is None


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022])
def test_the_folders_are_closed_whatever_the_umask(home: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        ParsedConfigs({"HOME": str(home)}).store(
            Path("/a"), b"content", values.CheckedFile(), cores=2, memory_bytes=GIB
        )
        open_store({"HOME": str(home)}).prepare()  # lies in the same folder, and refuses one that others may write to
        open_store({"HOME": str(home / "other")}).prepare()
    finally:
        os.umask(before)
    for folder in (".cache", ".cache/paropt-exporter", "other/.cache", "other/.cache/paropt-exporter"):
        assert (home / folder).stat().st_mode & 0o777 == 0o700, folder


@pytest.mark.parametrize("file", [1, ["File", []], ["File", 1], [], ["Stage", {"x": 1}]])
def test_entry_of_another_form_is_ignored(parsed: ParsedConfigs, entry: Path, file: object) -> None:
    text = json.dumps(json.loads(entry.read_bytes()[8:]) | {"file": file})
    entry.write_text(f"{zlib.crc32(text.encode()):08x}{text}")
    assert find(parsed) is None


def test_a_folder_open_to_others_is_neither_read_nor_written(parsed: ParsedConfigs, entry: Path) -> None:
    entry.parent.chmod(0o770)
    assert find(parsed) is None
    entry.unlink()
    parsed.store(Path("/shop/paropt.yml"), b"content", values.CheckedFile(), cores=2, memory_bytes=0)
    assert not entry.exists()


def test_a_link_in_place_of_an_entry_or_the_folder_is_not_followed(parsed: ParsedConfigs, entry: Path) -> None:
    elsewhere = entry.parent.parent / "elsewhere"
    entry.rename(elsewhere)
    entry.symlink_to(elsewhere)
    assert find(parsed) is None
    entry.unlink()
    elsewhere.rename(entry)
    entry.parent.rename(elsewhere)
    entry.parent.symlink_to(elsewhere)
    assert find(parsed) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_an_entry_of_another_user_is_ignored(parsed: ParsedConfigs, entry: Path) -> None:
    os.chown(entry, 12345, -1)
    assert find(parsed) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_root_makes_no_folder_in_the_home_of_another_user(home: Path, parsed: ParsedConfigs) -> None:
    os.chown(home, 12345, -1)
    parsed.store(Path("/shop/paropt.yml"), b"content", values.CheckedFile(), cores=2, memory_bytes=0)
    assert [*home.iterdir()] == []


def _flip_digit(content: bytes) -> bytes:
    return content.replace(b"shop", b"shot")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:7],
        lambda content: b"zzzzzzzz" + content[8:],
        lambda content: b"00000000" + content[8:],
        lambda content: b"\xff" * 20,
        _flip_digit,
    ],
)
def test_a_damaged_entry_is_ignored_and_replaced(
    parsed: ParsedConfigs, entry: Path, damage: Callable[[bytes], bytes]
) -> None:
    entry.write_bytes(damage(entry.read_bytes()))
    assert find(parsed) is None
    parsed.store(Path("/shop/paropt.yml"), b"content", values.CheckedFile(project="new"), cores=2, memory_bytes=0)
    assert find(parsed) == values.CheckedFile(project="new")


def test_the_number_of_entries_is_bounded(parsed: ParsedConfigs, entry: Path) -> None:
    for number in range(120):
        parsed.store(Path(f"/project{number}/paropt.yml"), b"content", values.CheckedFile(), cores=2, memory_bytes=0)
    assert len([*entry.parent.iterdir()]) == 100


def test_a_config_that_is_too_large_for_the_cache_is_read_each_time(home: Path, parsed: ParsedConfigs) -> None:
    parsed.store(Path("/shop/paropt.yml"), b"x" * (17 << 20), values.CheckedFile(), cores=2, memory_bytes=0)
    assert [*(home / ".cache/paropt-exporter/configs").iterdir()] == []


@pytest.mark.parametrize("environ", [{}, {"XDG_CACHE_HOME": "relative"}, {"HOME": ""}])
def test_without_the_variables_the_home_is_that_of_the_users_entry(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir=str(tmp_path)))
    ParsedConfigs(environ).store(Path("paropt.yml"), b"content", values.CheckedFile(), cores=2, memory_bytes=0)
    assert len([*(tmp_path / ".cache/paropt-exporter/configs").iterdir()]) == 1


def test_xdg_cache_home_says_where(tmp_path: Path) -> None:
    parsed = ParsedConfigs({"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": "/nowhere"})
    parsed.store(Path("/shop/paropt.yml"), b"content", values.CheckedFile(), cores=2, memory_bytes=0)
    (entry,) = (tmp_path / "cache/paropt-exporter/configs").iterdir()
    assert entry.name.endswith("%shop%paropt.yml")


def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the place of the folder")
    parsed = ParsedConfigs({"XDG_CACHE_HOME": str(tmp_path / "cache")})
    parsed.store(Path("/shop/paropt.yml"), b"content", values.CheckedFile(), cores=2, memory_bytes=0)
    assert find(parsed) is None


def test_schema_is_kept_until_the_program_changes(
    home: Path, parsed: ParsedConfigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parsed.find_schema() is None
    parsed.store_schema("{}")
    assert parsed.find_schema() == "{}"
    (entry,) = (home / ".cache/paropt-exporter/configs").iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(parsed_configs, "__version__", "0.0.1")
        assert parsed.find_schema() is None
    entry.write_bytes(entry.read_bytes()[:-1])
    assert parsed.find_schema() is None
