"""The files travel as git objects: a snapshot here, a copy on each host, the user's repository untouched."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest

from paropt_exporter.executors.cluster.host_files import HostTree, make_scratch
from paropt_exporter.executors.cluster.settings import ClusterError
from paropt_exporter.executors.cluster.snapshot import Repository, run_git


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet")
    write(root / ".gitignore", "ignored/\n.venv/\n")
    write(root / "a.py", "a\n" * 1000)
    write(root / "sub/b.py", "b\n")
    write(root / "ignored/c.py", "c\n")
    git(root, "add", ".")
    git(root, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "first")
    return root


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def list_files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def install(repository: Repository, tree: HostTree, folder: Path, include: tuple[str, ...] = ()) -> int:
    """Bring a copy to a new snapshot; return the size of the pack in bytes."""
    snapshot = repository.take(include)
    known = tree.read_commit()
    commit, pack = repository.pack(snapshot, known if repository.has(known) else "")
    (folder / "pack").write_bytes(pack)
    tree.install(folder / "pack", commit)
    return len(pack)


def test_copy_has_the_files_as_they_lie_there(project: Path, tmp_path: Path) -> None:
    write(project / "new.py", "not added\n")
    write(project / "a.py", "changed\n")
    tree = HostTree(tmp_path / "scratch", "p", "s")
    install(Repository(project, tmp_path / "ours"), tree, tmp_path)
    assert list_files(tree.files) == [".gitignore", "a.py", "new.py", "sub/b.py"]
    assert (tree.files / "a.py").read_text() == "changed\n"


@pytest.mark.parametrize("name", [b"line\nbreak", "separator\u2028".encode(), b"caf\xe9", b'"quoted', b"#", b":(top)"])
def test_folder_may_have_any_name(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / os.fsdecode(name)
    write(folder / "sub/a.py", "1")
    write(folder / os.fsdecode(b"b\n\xe9.py"), "1")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    tree = HostTree(tmp_path / "scratch", "p", "s")
    install(Repository(folder / "sub", tmp_path / "ours"), tree, tmp_path)
    assert list_files(tree.files) == [os.fsdecode(b"b\n\xe9.py"), "sub/a.py"]


def test_users_repository_stays_untouched(project: Path, tmp_path: Path) -> None:
    write(project / "new.py", "not added\n")
    before = {path: path.read_bytes() for path in (project / ".git").rglob("*") if path.is_file()}
    Repository(project, tmp_path / "ours").take()
    assert {path: path.read_bytes() for path in (project / ".git").rglob("*") if path.is_file()} == before


def test_change_travels_as_a_small_difference(project: Path, tmp_path: Path) -> None:
    for number in range(100):
        write(project / f"many/{number}.py", f"{number}\n" * 200)
    repository, tree = Repository(project, tmp_path / "ours"), HostTree(tmp_path / "scratch", "p", "s")
    whole = install(repository, tree, tmp_path)
    kept = (tree.files / "a.py").stat().st_mtime_ns
    write(project / "sub/b.py", "changed\n")
    (project / "many/7.py").unlink()
    part = install(repository, tree, tmp_path)
    assert part < 500 < whole
    assert (tree.files / "a.py").stat().st_mtime_ns == kept
    assert (tree.files / "sub/b.py").read_text() == "changed\n"
    assert not (tree.files / "many/7.py").exists()


def test_leftovers_of_tasks_go_and_ignored_caches_stay(project: Path, tmp_path: Path) -> None:
    repository, tree = Repository(project, tmp_path / "ours"), HostTree(tmp_path / "scratch", "p", "s")
    install(repository, tree, tmp_path)
    write(tree.files / "left.txt", "left")
    write(tree.files / "a.py", "overwritten by a task")
    write(tree.files / "ignored/cache", "kept")
    write(tree.files / "clone/c.py", "left")
    git(tree.files / "clone", "init", "--quiet")
    install(repository, tree, tmp_path)
    assert list_files(tree.files) == [".gitignore", "a.py", "ignored/cache", "sub/b.py"]
    assert (tree.files / "a.py").read_text() == "a\n" * 1000


def test_restored_copy_needs_only_the_difference(project: Path, tmp_path: Path) -> None:
    repository, tree = Repository(project, tmp_path / "ours"), HostTree(tmp_path / "scratch", "p", "s")
    install(repository, tree, tmp_path)
    write(tree.files / "left.txt", "left")
    write(tree.files / "a.py", "overwritten by a task")
    (tree.files / "sub/b.py").unlink()
    write(tree.files / "ignored/cache", "kept")
    tree.restore()
    write(project / "left.txt", "tracked by now")
    (project / "a.py").unlink()
    install(repository, tree, tmp_path)
    assert list_files(tree.files) == [".gitignore", "ignored/cache", "left.txt", "sub/b.py"]
    assert (tree.files / "left.txt").read_text() == "tracked by now"


def test_included_file_travels_though_git_ignores_it(project: Path, tmp_path: Path) -> None:
    tree = HostTree(tmp_path / "scratch", "p", "s")
    install(Repository(project, tmp_path / "ours"), tree, tmp_path, include=("ignored/c.py",))
    assert (tree.files / "ignored/c.py").read_text() == "c\n"


def test_tracked_file_travels_though_git_would_ignore_it(project: Path, tmp_path: Path) -> None:
    repository, tree = Repository(project, tmp_path / "ours"), HostTree(tmp_path / "scratch", "p", "s")
    install(repository, tree, tmp_path)
    name = os.fsdecode(b"ignored/b\n\xe9.py")
    write(project / name, "1")
    write(project / "ignored/gone.py", "1")
    git(project, "add", "--force", name, "ignored/gone.py")
    (project / "ignored/gone.py").unlink()
    install(repository, tree, tmp_path)
    assert list_files(tree.files) == [".gitignore", "a.py", name, "sub/b.py"]


def test_tracked_file_that_git_would_ignore_may_have_become_another_thing(project: Path, tmp_path: Path) -> None:
    """Such as a folder for data, with a `.gitkeep`, that is now a link to another disk."""
    write(project / "build", "1")
    write(project / "ignored/.gitkeep", "")
    git(project, "add", "build", "ignored/.gitkeep", "--force")
    write(project / ".git/info/exclude", "build\n")
    (project / "build").unlink()
    write(project / "build/a.o", "1")
    shutil.move(project / "ignored", tmp_path / "disk")
    (project / "ignored").symlink_to(tmp_path / "disk")
    repository, tree = Repository(project, tmp_path / "ours"), HostTree(tmp_path / "scratch", "p", "s")
    install(repository, tree, tmp_path)
    install(repository, tree, tmp_path)
    assert (tree.files / "ignored").is_symlink()
    assert list_files(tree.files) == [".gitignore", "a.py", "sub/b.py"]


def test_privately_excluded_file_stays_here(project: Path, tmp_path: Path) -> None:
    (project / ".git/info").mkdir(exist_ok=True)
    write(project / ".git/info/exclude", "secret.txt\n")
    write(project / "secret.txt", "secret")
    tree = HostTree(tmp_path / "scratch", "p", "s")
    install(Repository(project, tmp_path / "ours"), tree, tmp_path)
    assert "secret.txt" not in list_files(tree.files)


def test_folder_without_git_travels_too(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    write(plain / "x.py", "x\n")
    write(plain / ".paropt/history.db", "ours")
    tree = HostTree(tmp_path / "scratch", "p", "s")
    install(Repository(plain, tmp_path / "ours"), tree, tmp_path)
    assert list_files(tree.files) == ["x.py"]


def test_config_in_a_sub_folder_takes_the_whole_repository(project: Path, tmp_path: Path) -> None:
    snapshot = Repository(project / "sub", tmp_path / "ours").take()
    assert snapshot.folder == "sub"
    tree = HostTree(tmp_path / "scratch", "p", "s")
    install(Repository(project / "sub", tmp_path / "ours"), tree, tmp_path)
    assert (tree.files / "a.py").is_file()


@pytest.mark.parametrize("is_committed", [True, False], ids=["committed", "new"])
def test_files_travel_as_in_the_work_tree_whatever_git_stores(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_committed: bool
) -> None:
    """Git LFS is such a filter, and `git lfs install` makes it a setting of the user."""
    home, worker = tmp_path / "home", tmp_path / "worker"
    write(home / ".gitconfig", '[filter "lfs"]\nclean = sed s/content/pointer/\nrequired = true\n')
    monkeypatch.setenv("HOME", str(home))
    contents = {
        "big.bin": b"content\n",
        "dos.txt": b"a\r\n",
        "unix.txt": b"a\n",
        "mixed.bat": b"a\nb\r\n",
        "id.c": b"$Id$\n",
        "wide.u16": "\u00e9\n".encode("utf-16-le"),
    }
    kinds = (
        "*.bin filter=lfs",
        "*.txt text=auto",
        "*.bat text eol=crlf",
        "*.c ident",
        "*.u16 working-tree-encoding=UTF-16LE",
    )
    write(project / ".gitattributes", "\n".join(kinds))
    for name, content in contents.items():
        (project / name).write_bytes(content)
    if is_committed:
        git(project, "add", ".")
    repository = Repository(project, tmp_path / "ours")
    commit, pack = repository.pack(repository.take())
    monkeypatch.setenv("HOME", str(worker))
    tree = HostTree(tmp_path / "scratch", "p", "s")
    (tmp_path / "pack").write_bytes(pack)
    tree.install(tmp_path / "pack", commit)
    assert {name: (tree.files / name).read_bytes() for name in contents} == contents


def test_files_that_git_does_not_compare_travel_as_they_are(project: Path, tmp_path: Path) -> None:
    git(project, "update-index", "--assume-unchanged", "a.py")
    git(project, "update-index", "--skip-worktree", "sub/b.py")  # as in a sparse checkout
    write(project / "a.py", "changed\n")
    (project / "sub/b.py").unlink()
    tree = HostTree(tmp_path / "scratch", "p", "s")
    install(Repository(project, tmp_path / "ours"), tree, tmp_path)
    assert list_files(tree.files) == [".gitignore", "a.py"]
    assert (tree.files / "a.py").read_text() == "changed\n"


def test_objects_that_the_users_repository_loses_are_made_again(project: Path, tmp_path: Path) -> None:
    """After `git reset` only our index names the objects of a file that did not change, until `git gc`."""
    write(project / "new.py", "new\n")
    os.utime(project / "new.py", (1e9, 1e9))  # long before the snapshot: git does not read it again
    git(project, "add", "new.py")
    repository, tree = Repository(project, tmp_path / "ours"), HostTree(tmp_path / "scratch", "p", "s")
    repository.take()
    git(project, "reset")
    git(project, "prune", "--expire=now")
    install(repository, tree, tmp_path)
    assert (tree.files / "new.py").read_text() == "new\n"


def test_file_that_vanishes_under_git_fails_no_snapshot(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A git of our own removes the file once git has listed it: then git fails to read it."""
    programs, doomed = tmp_path / "programs", project / "doomed.py"
    write(doomed, "1")
    real = shutil.which("git")
    gone = "fatal: unable to stat 'doomed.py': No such file or directory"
    remove = f'*" add "*) if rm {doomed} 2>&-; then echo "{gone}" >&2; exit 128; fi;;'
    write(programs / "git", f'#!/bin/sh\ncase "$*" in {remove} esac\nexec {real} "$@"\n')
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    tree = HostTree(tmp_path / "scratch", "p", "s")
    install(Repository(project, tmp_path / "ours"), tree, tmp_path)
    assert list_files(tree.files) == [".gitignore", "a.py", "sub/b.py"]


def test_submodules_are_named(project: Path, tmp_path: Path) -> None:
    inner = project / "inner"
    inner.mkdir()
    git(inner, "init", "--quiet")
    write(inner / "x", "x")
    git(inner, "add", ".")
    git(inner, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "inner")
    assert Repository(project, tmp_path / "ours").take().submodules == ("inner",)


def test_two_sessions_on_a_host_have_copies_of_their_own(tmp_path: Path) -> None:
    first, again = HostTree(tmp_path, "p", "one"), HostTree(tmp_path, "p", "one")
    other = HostTree(tmp_path, "p", "two")
    assert first.files == again.files != other.files
    first.close()
    again.close()
    later = HostTree(tmp_path, "p", "three")
    assert later.files == first.files  # with the files that it has
    later.close()
    other.close()


def test_workers_of_a_host_that_start_at_once_share_a_copy(tmp_path: Path) -> None:
    """The second one often took another copy, which never received the files."""
    started = threading.Barrier(2)

    def open_tree(session: str) -> HostTree:
        started.wait()
        return HostTree(tmp_path, "p", session)

    with ThreadPoolExecutor(2) as pool:
        for number in range(20):
            trees = [*pool.map(open_tree, [f"session {number}"] * 2)]
            assert trees[0].files == trees[1].files
            for tree in trees:
                tree.close()


def test_exporters_at_the_same_time_have_repositories_of_their_own(project: Path, tmp_path: Path) -> None:
    first = Repository(project, tmp_path / "ours.git")
    second = Repository(project, tmp_path / "ours.git")
    assert first.take() == second.take()
    assert (tmp_path / "ours-1.git/index").is_file()
    del first
    write(project / "a.py", "changed\n")
    (tmp_path / "ours-1.git/index").unlink()
    Repository(project, tmp_path / "ours.git").take()  # uses the first one again
    assert not (tmp_path / "ours-1.git/index").exists()


def test_lock_of_a_killed_git_stops_no_later_run(project: Path, tmp_path: Path) -> None:
    repository, tree = Repository(project, tmp_path / "ours.git"), HostTree(tmp_path / "scratch", "p", "s")
    install(repository, tree, tmp_path)
    tree.close()
    del repository
    for folder in (tmp_path / "ours.git", tree.place / "git"):
        (folder / "index.lock").touch()
    write(project / "a.py", "changed\n")
    later = HostTree(tmp_path / "scratch", "p", "t")
    install(Repository(project, tmp_path / "ours.git"), later, tmp_path)
    assert (tree.files / "a.py").read_text() == "changed\n"
    later.close()


def test_git_holds_the_lock_of_its_repository_too(tmp_path: Path) -> None:
    """It may run on after the program that started it was killed."""
    os.mkfifo(tmp_path / "fifo")
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    words = ("-c", "alias.waits=!cat fifo", "waits")
    git = threading.Thread(target=run_git, args=words, kwargs={"cwd": tmp_path, "lock": lock})
    git.start()
    with (tmp_path / "fifo").open("w"), (tmp_path / "lock").open() as again:  # it runs
        os.close(lock)
        with pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    git.join()


def test_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p-0").symlink_to("/tmp")
    with pytest.raises(OSError, match="belongs to someone else"):
        HostTree(tmp_path, "p", "s")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("name", ["dask", "dask/paropt"])
def test_scratch_folder_that_another_user_made_is_refused(tmp_path: Path, name: str) -> None:
    make_scratch(tmp_path / "dask/paropt")
    os.chown(tmp_path / name, 65534, 65534)
    with pytest.raises(ClusterError, match=f"another user could replace files in {tmp_path / name}: remove it"):
        make_scratch(tmp_path / "dask/paropt")


@pytest.mark.parametrize(("mode", "is_refused"), [(0o777, True), (0o1777, False), (0o775, False)])
def test_scratch_folder_in_which_others_can_write_is_refused(tmp_path: Path, mode: int, is_refused: bool) -> None:
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask").chmod(mode)
    with pytest.raises(ClusterError, match="another user") if is_refused else nullcontext():
        make_scratch(tmp_path / "dask/paropt")


def test_pack_for_a_host_that_knows_nothing_is_complete(project: Path, tmp_path: Path) -> None:
    repository = Repository(project, tmp_path / "ours")
    assert not repository.has("")
    assert not repository.has("0" * 40)
    assert len(repository.pack(repository.take())[1]) > 100


def test_git_error_is_one_line(project: Path, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"^dask: git add failed in .*: fatal: pathspec '\./no-such-file'[^\n]*$"):
        Repository(project, tmp_path / "ours").take(("no-such-file",))


def test_git_ignores_the_variables_of_a_git_hook(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert run_git("rev-parse", "--show-toplevel", cwd=project).returncode == 0


def test_objects_are_closed_to_other_users_whatever_the_umask(project: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Repository(project, tmp_path / "cache/paropt-exporter/snapshots/p.git").take()
    finally:
        os.umask(before)
    made = tmp_path / "cache/paropt-exporter"
    assert {path.stat().st_mode & 0o777 for path in (made, made / "snapshots", made / "snapshots/p.git")} == {0o700}
