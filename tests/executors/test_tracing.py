"""Traced commands: the trace has every read that strace sees, or says that it is incomplete."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import marshal
import mmap
import os
import resource
import shutil
import socket
import struct
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from paropt_exporter.events import Result
from paropt_exporter.executors.commands.command_pool import CommandOutcome, CommandPool
from paropt_exporter.executors.commands.traces import Access, Trace, merge_traces
from paropt_exporter.executors.supervisor import tracing
from paropt_exporter.executors.supervisor.seccomp import (
    CALLS,
    Forbidden,
    Kernel,
    Notification,
    explain_refusal,
    find_refusal,
)
from paropt_exporter.executors.supervisor.traced_servers import TracedServers
from paropt_exporter.executors.supervisor.tracing import (
    BEFORE,
    LIST,
    READ,
    STAT,
    WRITE,
    build_trace_filter,
)
from support.command_scripts import HANG_SECONDS, python, shell
from support.processes import read_printed, run_python
from support.real_servers import eventually
from support.strace import find_reads

REFUSAL = find_refusal()
traces = pytest.mark.skipif(bool(REFUSAL), reason=f"this system does not let commands be traced: {REFUSAL}")
X86_64 = os.uname().machine == "x86_64"
KERNEL = tuple(map(int, os.uname().release.split(".")[:2]))


@pytest.fixture
def pool(kept_supervisor: None) -> Iterator[CommandPool]:
    with CommandPool(2) as pool:
        yield pool


def trace(pool: CommandPool, *steps: Sequence[str], cwd: Path) -> tuple[CommandOutcome, Trace]:
    outcome = pool.submit_commands("task", steps, cwd=cwd, env=environ(cwd), traced=True).result(HANG_SECONDS)
    assert outcome.trace is not None
    return outcome, outcome.trace


def environ(cwd: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def list_reads(found: Trace) -> set[str]:
    return {os.path.normpath(os.fsdecode(path)) for path, access in found.paths.items() if access.is_used(READ | STAT)}


def find_places(paths: set[str]) -> set[str]:
    """Return the paths without links on the way."""
    return {str(Path(path).parent.resolve() / Path(path).name) for path in paths}


def write_modules(folder: Path, count: int) -> None:
    (folder / "package").mkdir()
    for number in range(count):
        (folder / f"package/m{number}.py").write_text(f"VALUE = {number}\n")
        (folder / f"package/test_m{number}.py").write_text(
            f"from pathlib import Path\nimport m{number}\n\ndef test_value():\n    assert m{number}.VALUE == {number}\n"
        )


def build_static_program(place: Path, path: bytes) -> None:
    """Write a program without an interpreter that opens a file and ends: for x86-64, in machine code."""
    base, start = 0x400000, 0x78
    code = bytes.fromhex("b802000000 488d3d10000000 31f6 0f05 b83c000000 31ff 0f05".replace(" ", ""))
    code = code[:8] + struct.pack("<i", len(code) - 12) + code[12:] + path + b"\0"
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\2\1\1" + bytes(9), 2, 62, 1, base + start, 64, 0, 0, 64, 56, 1, 64, 0, 0,
    )  # fmt: skip
    size = start + len(code)
    place.write_bytes(header + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000) + code)
    place.chmod(0o755)


THREADS = """
import sys, threading
def read(number):
    for name in range(number, 200, 8):
        open(f"{sys.argv[1]}/f{name}").read()
threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
for each in threads: each.start()
for each in threads: each.join()
"""


@traces
@pytest.mark.parametrize("name", ["ruff", "compileall", "pytest", "threads", "static"])
def test_trace_has_every_read_that_strace_sees(pool: CommandPool, tmp_path: Path, name: str) -> None:
    if name == "static" and not X86_64:
        pytest.skip("the static program is machine code of x86-64")
    write_modules(tmp_path, 20)
    for number in range(200):
        (tmp_path / f"f{number}").write_text(str(number))
    build_static_program(tmp_path / "static", os.fsencode(tmp_path / "f7"))
    ruff = str(Path(sysconfig.get_path("scripts"), "ruff"))
    commands: dict[str, list[str]] = {
        "ruff": [ruff, "check", "--no-cache", "--select", "E", "package"],
        "compileall": [sys.executable, "-m", "compileall", "-q", "-f", "package"],
        "pytest": [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "package"],
        "threads": [sys.executable, "-c", THREADS, str(tmp_path)],
        "static": [str(tmp_path / "static")],
    }
    command = commands[name]
    outcome, found = trace(pool, command, cwd=tmp_path)
    assert outcome.result is Result.SUCCESS, outcome.output
    seen = find_reads(command, cwd=tmp_path, env=environ(tmp_path), log=tmp_path / "strace.log")
    own = {path for path in seen if "__pycache__" in path}  # a temporary file has another name in each run
    assert found.problems == () and len(seen) > 0
    assert find_places(seen - own) - list_reads(found) == set()


@traces
def test_trace_has_absences_and_listings(pool: CommandPool, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a").touch()
    _, found = trace(pool, shell("test -e missing; unlink removed; ls src"), cwd=tmp_path)
    for name in ("missing", "removed"):  # `unlink` fails, so the result depends on the absence
        missing = found.paths[os.fsencode(tmp_path / name)]
        assert missing.state is None and missing.is_used_unwritten(STAT)
    listed = found.paths[os.fsencode(tmp_path / "src")]
    assert listed.names == (b"a",) and listed.is_used(LIST)


@traces
def test_listings_of_folders_of_the_kernel_are_not_in_the_trace(pool: CommandPool, tmp_path: Path) -> None:
    """`ps` lists /proc, which has other names in each run."""
    _, found = trace(pool, shell("ls /proc /sys /dev"), cwd=tmp_path)
    assert not {b"/proc", b"/sys", b"/dev"} & found.paths.keys()


def test_first_state_of_a_file_is_that_before_the_command_wrote_it(pool: CommandPool, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("old")
    size = (tmp_path / "log").stat().st_size
    _, found = trace(pool, shell("test -e log; echo much more > log; cat log; echo > made"), cwd=tmp_path)
    log, made = found.paths[os.fsencode(tmp_path / "log")], found.paths[os.fsencode(tmp_path / "made")]
    assert isinstance(log.state, tuple) and log.state[0] == size
    assert log.is_used_unwritten(STAT) and log.is_used(WRITE) and not log.is_used_unwritten(READ)
    assert made.state is None and made.is_used(WRITE) and not made.is_used_unwritten(READ | STAT)


@traces
@pytest.mark.parametrize("write", ["echo new > read", "rm read", "echo new > made; mv made read"])
def test_content_before_the_first_write_of_a_read_file_is_kept(pool: CommandPool, tmp_path: Path, write: str) -> None:
    (tmp_path / "read").write_text("old")
    (tmp_path / "unread").write_text("old")
    _, found = trace(pool, shell("cat read"), shell(f"cat read; {write}; echo new > unread"), cwd=tmp_path)
    read, unread = found.paths[os.fsencode(tmp_path / "read")], found.paths[os.fsencode(tmp_path / "unread")]
    assert read.digest == hashlib.sha256(b"old").hexdigest() and unread.digest is None


@traces
def test_content_of_a_large_file_is_not_kept(pool: CommandPool, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes((1 << 24) + 1))
    outcome, found = trace(pool, shell("head -c 1 large; echo new > large"), cwd=tmp_path)
    assert outcome.result is Result.SUCCESS
    assert found.paths[os.fsencode(tmp_path / "large")].digest is None


@traces
def test_paths_are_relative_to_folders_and_descriptors(pool: CommandPool, tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").touch()
    script = (
        "import os; f = os.open('a', os.O_RDONLY); os.open('b/c', os.O_RDONLY, dir_fd=f); os.chdir('a/./b'); open('c')"
    )
    _, found = trace(pool, python(script), cwd=tmp_path)
    assert found.paths[os.fsencode(tmp_path / "a/b/c")].is_used(READ)
    assert not any(b"/./" in path for path in found.paths)


OPEN_TREE = """
import ctypes, os
tree = ctypes.CDLL(None).syscall(428, -100, b"src/a", 0)
print(open(f"/proc/self/fd/{tree}").read())
"""
OPEN_TREE_ATTR = "import ctypes; ctypes.CDLL(None).syscall(467, -100, b'src/a', 0, 0, 0)"
OPEN_PATH = "import os; print(open('/proc/self/fd/%d' % os.open('src/a', os.O_PATH)).read())"


@traces
@pytest.mark.parametrize(
    "command",
    [
        shell("mkdir made; cd made; cat ../src/a"),
        shell("cd /tmp; cat ..$OLDPWD/src/a"),
        shell("cat /dev/..$PWD/src/a"),
        shell("cat /proc/..$PWD/src/a"),
        shell("ln -s src link; cat link/a; rm link"),
        shell("ln -s src/a link; cat link; rm link"),
        shell("mkdir made; ln -s ../src made/s; mv made moved; cat moved/s/a"),
        shell("mkdir made; echo > made/a; cat made/a; rm -r made; ln -s src link; mv link made; cat made/a"),
        shell("mkdir made; echo > made/a; ln -s made link; cat link/a; ln -sfn src link; cat link/a"),
        shell("cat moved/s; mkdir made; ln -s ../src/a made/s; mv made moved; cat moved/s"),
        shell("ln -s src first; ln -s first second; ln -s second/a third; cat third"),
        shell("ln -s loop loop; cat loop/a loop; cat src/a"),
        python(OPEN_TREE),
        python(OPEN_PATH),
    ],
)
def test_file_that_is_reached_by_another_name_is_in_the_trace(
    pool: CommandPool, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a").write_text("content")
    outcome, found = trace(pool, command, cwd=tmp_path)
    assert "content" in outcome.output and found.problems == ()
    assert found.paths[os.fsencode(tmp_path / "src/a")].is_used(READ)


@traces
def test_file_that_replaces_a_link_ends_its_ways(pool: CommandPool, tmp_path: Path) -> None:
    for name in ("src/a", "file"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("content")
    (tmp_path / "link").symlink_to("src")
    line = "cat link/a; mv -T file link; ! cat link/a"
    outcome, found = trace(pool, shell(line), cwd=tmp_path)
    assert outcome.exit_code == 0
    assert found.paths[os.fsencode(tmp_path / "link/a")].is_used(READ)


@traces
def test_interpreter_of_a_script_that_the_command_made_is_in_the_trace(pool: CommandPool, tmp_path: Path) -> None:
    shutil.copy("/bin/cat", tmp_path / "interpreter")
    line = "mkdir made; printf '#!%s\\n' $PWD/interpreter > made/script; chmod +x made/script; made/script; rm -r made"
    _, found = trace(pool, shell(line), cwd=tmp_path)
    assert found.paths[os.fsencode(tmp_path / "interpreter")].is_used(READ)


@traces
@pytest.mark.parametrize("line", ["bin/script", "cd bin; ./script"])
def test_relative_interpreter_of_a_script_is_in_the_trace(pool: CommandPool, tmp_path: Path, line: str) -> None:
    """Only the kernel opens it, in the folder of the process that starts the script."""
    (tmp_path / "bin").mkdir()
    for name in ("interpreter", "bin/interpreter"):
        shutil.copy("/bin/cat", tmp_path / name)
    (tmp_path / "bin/script").write_text("#!interpreter\n")
    (tmp_path / "bin/script").chmod(0o755)
    outcome, found = trace(pool, shell(line), cwd=tmp_path)
    used = tmp_path / ("bin/interpreter" if line.startswith("cd") else "interpreter")
    assert "#!interpreter" in outcome.output
    assert found.paths[os.fsencode(used)].is_used(READ)


@traces
def test_file_that_another_process_has_open_is_in_the_trace(pool: CommandPool, tmp_path: Path) -> None:
    with (tmp_path / "kept").open("w+") as kept, (tmp_path / "deleted").open("w+") as deleted:
        for file in (kept, deleted):
            file.write("content")
            file.flush()
        (tmp_path / "deleted").unlink()
        here = f"/proc/{os.getpid()}/fd"
        outcome, found = trace(pool, ["cat", f"{here}/{kept.fileno()}"], cwd=tmp_path)
        _, of_deleted = trace(pool, ["cat", f"{here}/{deleted.fileno()}"], cwd=tmp_path)
        _, looked = trace(pool, ["readlink", f"{here}/{kept.fileno()}"], cwd=tmp_path)
    assert (outcome.output, found.problems) == ("content", ())
    assert found.paths[os.fsencode(tmp_path / "kept")].is_used(READ)
    assert of_deleted.problems == ("it reads files through /proc",)
    assert os.fsencode(tmp_path / "kept") not in looked.paths


TAKE_DESCRIPTOR = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
print(os.pread(libc.syscall(438, os.pidfd_open(int(sys.argv[1])), int(sys.argv[2]), 0), 9, 0))
"""


@traces
def test_descriptor_that_is_taken_from_another_process_is_not_traceable(pool: CommandPool, tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as file:
        _, found = trace(pool, python(TAKE_DESCRIPTOR, str(os.getpid()), str(file.fileno())), cwd=tmp_path)
    assert found.problems == ("it takes descriptors of other processes",)


@traces
def test_tree_that_is_opened_with_attributes_is_in_the_trace(pool: CommandPool, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a").write_text("content")
    _, found = trace(pool, python(OPEN_TREE_ATTR), cwd=tmp_path)  # before Linux 6.15 it fails
    assert found.paths[os.fsencode(tmp_path / "src/a")].is_used(READ)


TASK_FOLDER = "import os; print(open(f'/proc/self/task/{os.getpid()}/cwd/src/a').read())"


@traces
@pytest.mark.parametrize(
    "command",
    [
        shell("exec 3<src; cat /dev/fd/3/a"),
        shell("cat /proc/thread-self/cwd/src/a"),
        shell("cat /proc/self/cwd/../*/src/a"),
        shell("ln -s /proc/self/cwd link; cat link/src/a"),
        python(TASK_FOLDER),
    ],
)
def test_file_that_is_reached_through_a_process_is_not_traceable(
    pool: CommandPool, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a").write_text("content")
    outcome, found = trace(pool, command, cwd=tmp_path)
    assert "content" in outcome.output
    assert found.problems == ("it reads files through /proc",)


@traces
def test_moves_of_folders_that_are_not_its_own_are_in_the_trace(pool: CommandPool, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    _, moved = trace(
        pool, shell("mv src other; mv other src"), shell("mkdir made; mv -T src made/src; mv made m"), cwd=tmp_path
    )
    _, own = trace(pool, shell("mkdir -p made/sub; mv made/sub made/other; mv made last"), cwd=tmp_path)
    src, other, made = (os.fsencode(tmp_path / name) for name in ("src", "other", "made"))
    inside, last = made + b"/src", os.fsencode(tmp_path / "m")
    assert moved.moves == ((src, other), (other, src), (src, inside), (made, last)) and own.moves == ()
    assert moved.problems == own.problems == ()


@traces
def test_moves_of_thousands_of_folders_are_not_traceable(pool: CommandPool, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    line = "import os\nfor _ in range(501): os.rename('src', 'other'); os.rename('other', 'src')"
    _, found = trace(pool, python(line), cwd=tmp_path)
    assert found.problems == ("it moves more than 1,000 folders that it did not make",)


@traces
def test_pipe_in_place_of_a_program_holds_no_tracer(pool: CommandPool, tmp_path: Path) -> None:
    _, found = trace(pool, shell("mkfifo pipe; chmod +x pipe; ./pipe; echo $?"), cwd=tmp_path)
    assert found.paths[os.fsencode(tmp_path / "pipe")].is_used(WRITE) and found.problems == ()


def test_thread_that_a_file_system_holds_is_left_alone() -> None:
    script = """
import threading
from types import SimpleNamespace
from paropt_exporter.executors.supervisor import tracer_thread
tracer_thread._HELD_SECONDS = 0.0
answer = threading.Lock()
answer.acquire()
thread = tracer_thread.TracerThread(SimpleNamespace(serve=answer.acquire, stop=lambda: None))
thread.start()
try:
    thread.write(1)
except OSError as error:
    print(error.strerror)
thread.close()
"""
    printed = run_python(script, check=True)
    assert printed.stdout == "a file system does not answer\n"


@traces
@pytest.mark.parametrize("folders", [300, 1900])
def test_path_of_too_many_folders_is_a_problem(pool: CommandPool, tmp_path: Path, folders: int) -> None:
    script = f"import os\ntry: os.mkdir('/missing' + '/a' * {folders})\nexcept FileNotFoundError: print('missing')"
    outcome, found = trace(pool, python(script), cwd=tmp_path)
    assert outcome.output == "missing\n"
    assert found.problems == ("it uses a path of more than 200 folders",)


@traces
def test_steps_of_a_task_have_one_trace(pool: CommandPool, tmp_path: Path) -> None:
    _, found = trace(pool, shell("echo 1 > made"), shell("cat made"), cwd=tmp_path)
    made = found.paths[os.fsencode(tmp_path / "made")]
    assert made.state is None and made.is_used(READ) and not made.is_used_unwritten(READ)


@traces
def test_failed_start_of_a_traced_command_is_the_same_error(pool: CommandPool, tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/missing/interpreter\n")
    (tmp_path / "tool").chmod(0o755)
    outcome, _ = trace_failed(pool, ["./tool"], cwd=tmp_path)
    assert outcome.result is Result.ERROR and "names an interpreter that is missing" in outcome.message


def trace_failed(pool: CommandPool, step: Sequence[str], *, cwd: Path) -> tuple[CommandOutcome, Trace | None]:
    outcome = pool.submit_commands("task", [step], cwd=cwd, traced=True).result(HANG_SECONDS)
    return outcome, outcome.trace


CONNECT = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])"


@traces
def test_connection_to_a_server_is_in_the_trace(pool: CommandPool, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as inet:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        port = inet.getsockname()[1]
        _, to_unix = trace(pool, python(CONNECT, str(tmp_path / "s")), cwd=tmp_path)
        _, to_inet = trace(
            pool, python(f"import socket; socket.create_connection(('127.0.0.1', {port}))"), cwd=tmp_path
        )
    assert to_unix.servers == (f"the socket {tmp_path}/s",)
    assert to_inet.servers == (f"port {port} of this host",)


OWN_SERVER = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as unix:
    socket.create_connection(server.getsockname())
    unix.bind("own")
    unix.listen()
    socket.socket(socket.AF_UNIX).connect("own")
"""


@traces
def test_connection_to_its_own_server_does_not_count(pool: CommandPool, tmp_path: Path) -> None:
    outcome, found = trace(pool, python(OWN_SERVER), cwd=tmp_path)
    assert outcome.result is Result.SUCCESS and found.servers == () and found.problems == ()


SERVER_OF_A_NAME = """
import socket, sys
address = ("127.0.0.1", int(sys.argv[1]))
with socket.socket(type=socket.SOCK_DGRAM) as probe:
    probe.connect(address)  # as the C library does to put the addresses of a name in order
    if len(sys.argv) > 2:
        probe.send(b"x")
        sys.exit()
with socket.create_server(address):
    socket.create_connection(address)
"""


@traces
def test_port_that_the_command_looked_at_before_it_took_it_does_not_count(pool: CommandPool, tmp_path: Path) -> None:
    """asyncio.start_server(port=8888) does that, so the tests of aiofiles were never cached."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        _, taken = trace(pool, python(SERVER_OF_A_NAME, str(port)), cwd=tmp_path)
    outcome, own = trace(pool, python(SERVER_OF_A_NAME, str(port)), cwd=tmp_path)
    _, sent = trace(pool, python(SERVER_OF_A_NAME, str(port), "send"), cwd=tmp_path)
    assert outcome.result is Result.SUCCESS and own.servers == ()
    assert taken.servers == sent.servers == (f"port {port} of this host",)


REUSED_OR_OWN_SERVER = """
import socket, sys
address = ("127.0.0.1", int(sys.argv[1]))
try:
    socket.create_connection(address)
except ConnectionRefusedError:
    with socket.create_server(address):
        socket.create_connection(address)
"""


@traces
def test_command_that_starts_a_server_unless_one_runs_uses_a_server(pool: CommandPool, tmp_path: Path) -> None:
    """As Playwright's `reuseExistingServer`: its result with a server of another program may differ."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    outcome, found = trace(pool, python(REUSED_OR_OWN_SERVER, str(port)), cwd=tmp_path)
    assert outcome.result is Result.SUCCESS and found.servers == (f"port {port} of this host",)


SINGLETON = """
import socket, sys
kind, family = sys.argv[1:3]
address = sys.argv[3] if family == "AF_UNIX" else ("127.0.0.1", int(sys.argv[3]))
if address == "abstract":
    address = b"\\0paropt-test-" + sys.argv[4].encode()
first = socket.socket(getattr(socket, family), getattr(socket, kind))
try:
    first.bind(address)
except OSError:
    print("it runs already")
second = socket.socket(getattr(socket, family), getattr(socket, kind))
second.connect(address)
second.send(b"x")
"""


def test_names_of_all_listed_folders_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_MOST_ALL_NAMES", 5)
    tracer = build_tracer()
    problems = []
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        for name in "abc":
            (folder / name).touch()
        opened = os.open(folder, os.O_RDONLY)
        handle(tracer, "getdents64", opened)
        os.close(opened)
        problems.append(read_written(tracer)["problems"])
    assert problems == [[], ["it lists folders of more than 5 files in all"]]


def test_path_that_is_used_while_a_link_on_its_way_is_replaced_is_noted_again_after_that(tmp_path: Path) -> None:
    """Another process may use it between the notification of the replacement and the replacement itself."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").touch()
        (tmp_path / f"to_{name}").symlink_to(name)
    tracer, used = build_tracer(), tmp_path / "to_first/a"
    handle(tracer, "rename", tmp_path / "to_second", tmp_path / "to_first")
    handle(tracer, "open", used, os.O_RDONLY)
    (tmp_path / "to_second").rename(tmp_path / "to_first")
    handle(tracer, "open", used, os.O_RDONLY)
    paths = read_written(tracer)["paths"]
    assert {os.fsencode(tmp_path / name / "a") for name in ("first", "second")} <= paths.keys()


def test_program_that_is_named_by_a_descriptor_costs_the_supervisor_nothing() -> None:
    """The descriptor of this number may be the output of another command here, which lost a part."""
    reading, writing = os.pipe2(os.O_NONBLOCK)
    try:
        os.write(writing, b"#! output")
        handle(build_tracer(), "execve", f"/proc/self/fd/{reading}")
        assert os.read(reading, 100) == b"#! output"
    finally:
        os.close(reading)
        os.close(writing)


def build_tracer() -> tracing.Tracer:
    """Build a tracer of calls of this process, whose paths are passed instead of their addresses."""
    kernel = SimpleNamespace(
        build_places=lambda _: {},
        prefer_same_core=lambda _: None,
        read_text=lambda _, path: os.fsencode(path),
        note_program=lambda _: None,
    )
    return tracing.Tracer(cast("Kernel", kernel), -1)


def handle(tracer: tracing.Tracer, name: str, *arguments: object) -> None:
    call = SimpleNamespace(name=name, pid=os.getpid(), arguments=arguments)
    tracer.HANDLERS[name](tracer, cast("Notification", call))


def read_written(tracer: tracing.Tracer) -> dict[str, Any]:
    written = os.memfd_create("trace")
    try:
        tracer.write(written)
        return cast("dict[str, Any]", marshal.loads(os.pread(written, 1 << 20, 0)))
    finally:
        os.close(written)


def test_known_server_is_not_looked_for_among_all_sockets_again() -> None:
    """With 900 sockets that it had bound, each connection of a command took 17 ms."""
    looked: list[int] = []
    with socket.socket() as own, socket.socket() as other:
        for each in (own, other):
            each.bind(("127.0.0.1", 0))

        def copy_descriptor(_process: int, descriptor: int) -> int:
            looked.append(descriptor)
            return os.dup(descriptor)

        address = struct.pack("=H", socket.AF_INET) + struct.pack(">H4s8x", 9, socket.inet_aton("127.0.0.1"))
        unbound = address[:2] + bytes(2) + address[4:]
        kernel = SimpleNamespace(copy_descriptor=copy_descriptor, read_bytes=lambda _pid, place, _size: place)
        servers = TracedServers(cast("Kernel", kernel), note_absence=print, note_write=print)
        for name, descriptor, sent in (
            ("bind", own.fileno(), unbound),
            ("bind", other.fileno(), unbound),
            ("connect", 0, address),
            ("connect", 0, address),
        ):
            call = SimpleNamespace(pid=os.getpid(), arguments=(descriptor, sent, len(sent)))
            servers.HANDLERS[name](servers, cast("Notification", call))
        assert [looked.count(each.fileno()) for each in (own, other)] == [1, 1]
    assert [*servers.names] == ["port 9 of this host"]


@traces
@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
@pytest.mark.parametrize("family", ["AF_UNIX", "abstract", "AF_INET"])
def test_server_whose_address_the_command_could_not_take_is_in_the_trace(
    pool: CommandPool, tmp_path: Path, kind: str, family: str
) -> None:
    used = "AF_INET" if family == "AF_INET" else "AF_UNIX"
    with socket.socket(getattr(socket, used), getattr(socket, kind)) as server:
        address = {"AF_UNIX": str(tmp_path / "s"), "abstract": f"\0paropt-test-{os.getpid()}"}.get(family)
        server.bind(address or ("127.0.0.1", 0))
        if kind == "SOCK_STREAM":
            server.listen()
        shown = str(tmp_path / "s") if family == "AF_UNIX" else "abstract"
        last = shown if used == "AF_UNIX" else str(server.getsockname()[1])
        outcome, found = trace(pool, python(SINGLETON, kind, used, last, str(os.getpid())), cwd=tmp_path)
    assert outcome.output == "it runs already\n"
    assert len(found.servers) == 1 and found.problems == ()


OWN_DATAGRAMS = """
import socket, sys
first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
first.bind(("127.0.0.1", 0))
second.sendto(b"x", first.getsockname())
for address in ("own", b"\\0paropt-test-" + sys.argv[1].encode()):
    first, second = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    first.bind(address)
    second.sendto(b"x", address)
"""


@traces
def test_datagrams_to_a_socket_of_its_own_count_as_none(pool: CommandPool, tmp_path: Path) -> None:
    outcome, found = trace(pool, python(OWN_DATAGRAMS, str(os.getpid())), cwd=tmp_path)
    assert outcome.result is Result.SUCCESS and found.servers == () and found.problems == ()


SEND_MESSAGES = """
import ctypes, socket, struct, sys
port = int(sys.argv[2])
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if sys.argv[1] == "sendmsg":
    sender.sendmsg([b"x"], [], 0, ("127.0.0.1", port))
else:
    address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), bytes((127, 0, 0, 1)))
    name = ctypes.create_string_buffer(address)
    text = ctypes.create_string_buffer(b"x")
    parts = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(text), 1))
    header = struct.pack("=QIxxxxQQQQixxxxIxxxx", ctypes.addressof(name), 16, ctypes.addressof(parts), 1, 0, 0, 0, 0)
    assert ctypes.CDLL(None).sendmmsg(sender.fileno(), header, 1, 0) == 1
"""


@traces
@pytest.mark.parametrize("call", ["sendmsg", "sendmmsg"])
def test_receiver_of_a_message_is_in_the_trace(pool: CommandPool, tmp_path: Path, call: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        outcome, found = trace(pool, python(SEND_MESSAGES, call, str(port)), cwd=tmp_path)
    assert outcome.result is Result.SUCCESS, outcome.output
    assert found.servers == (f"port {port} of this host",)


@traces
def test_io_uring_is_refused_so_that_programs_use_calls_that_can_be_seen(pool: CommandPool, tmp_path: Path) -> None:
    script = "import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.syscall(425, 1, 0), ctypes.get_errno())"
    outcome, found = trace(pool, python(script), cwd=tmp_path)
    assert outcome.output == f"-1 {errno.ENOSYS}\n" and found.problems == ()


@traces
def test_command_that_leaves_its_namespaces_is_not_traceable(pool: CommandPool, tmp_path: Path) -> None:
    script = "import ctypes; ctypes.CDLL(None).unshare(0)"
    _, found = trace(pool, python(script), cwd=tmp_path)
    assert found.problems == ("it leaves its namespaces",)


NESTED = """
from paropt_exporter.executors.supervisor.seccomp import find_refusal
print(find_refusal())
"""


@traces
def test_traced_command_can_trace_no_others(pool: CommandPool, tmp_path: Path) -> None:
    outcome, _ = trace(pool, [sys.executable, "-c", NESTED], cwd=tmp_path)
    assert outcome.output == "a tracer or a container watches its system calls already\n"


NESTED_POOL = """
import sys
from paropt_exporter.executors.commands.command_pool import CommandPool
with CommandPool(1) as pool:
    outcome = pool.submit_commands("t", [["cat", sys.argv[1]]], cwd="/", traced=True).result(60)
print(outcome.output, outcome.result, outcome.trace.problems)
"""


@traces
def test_command_runs_untraced_where_a_filter_exists_already(pool: CommandPool, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("content")
    outcome, found = trace(pool, [sys.executable, "-c", NESTED_POOL, str(tmp_path / "a")], cwd=tmp_path)
    assert outcome.output == "content success ('a tracer or a container watches its system calls already',)\n"
    assert found.paths[os.fsencode(tmp_path / "a")].is_used(READ)  # the outer trace sees through


INTERRUPTED = """
import os, signal, socket
from paropt_exporter.executors.supervisor.seccomp import Kernel

kernel = Kernel()
ours, theirs = socket.socketpair()
pid = os.fork()
if not pid:
    signal.signal(signal.SIGUSR1, lambda *_: None)
    socket.send_fds(theirs, [b"x"], [kernel.install_filter(kernel.build_filter(["stat", "newfstatat"], ()))])
    os.stat("/")
    os._exit(0)
listener = socket.recv_fds(ours, 1, 1)[1][0]
kernel.receive(listener)
os.kill(pid, signal.SIGUSR1)
answered = kernel.let_continue(listener)
os.close(listener)
print(answered, os.waitpid(pid, 0)[1])
"""


@traces
@pytest.mark.skipif(KERNEL < (5, 19), reason="signals interrupt calls before Linux 5.19")
def test_signal_does_not_interrupt_a_call_whose_notification_was_received() -> None:
    assert read_printed(INTERRUPTED) == "True 0\n"


KILL_SUPERVISOR = "test -e ran || { echo > ran; kill -KILL $PPID; sleep 600; }; echo done"


@traces
def test_command_whose_supervisor_was_killed_runs_again_untraced(pool: CommandPool, tmp_path: Path) -> None:
    outcome, found = trace(pool, shell(KILL_SUPERVISOR), cwd=tmp_path)
    assert outcome.result is Result.SUCCESS and outcome.output.endswith("done\n")
    assert found.problems == ("the supervisor of commands died",)


@traces
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a program with rights of another user")
def test_command_that_lacked_its_rights_runs_again_untraced(pool: CommandPool, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    shutil.copy(shutil.which("id") or "id", tool)
    os.chown(tool, 65534, 65534)
    tool.chmod(0o4755)
    # As `sudo` would, the command fails without the rights of its program.
    outcome, found = trace(pool, ["sh", "-c", 'test "$(./tool -u)" = 65534'], cwd=tmp_path)
    assert outcome.result is Result.SUCCESS
    assert found.privileged == str(tool)


@traces
def test_stopped_traced_command_does_not_run_again(pool: CommandPool, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)
    os.close(read_end)
    future = pool.submit_commands("task", [shell("sleep 600")], cwd=tmp_path, traced=True)
    assert pool.stop(future, grace_seconds=0)
    assert future.cancelled() or future.result(HANG_SECONDS).stopped


@traces
def test_traced_commands_leave_no_descriptors(pool: CommandPool, tmp_path: Path) -> None:
    trace(pool, ["true"], cwd=tmp_path)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        trace(pool, ["true"], cwd=tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@traces
def test_traced_commands_leave_no_threads(pool: CommandPool, tmp_path: Path) -> None:
    def count_threads() -> int:
        counting = shell("ls /proc/$PPID/task | wc -l > threads")
        assert pool.submit_commands("task", [counting], cwd=tmp_path).result(HANG_SECONDS).result is Result.SUCCESS
        return int((tmp_path / "threads").read_text())

    for _ in range(3):
        trace(pool, ["true"], cwd=tmp_path)
    eventually("only the thread of the supervisor itself", lambda: count_threads() == 1)


@traces
def test_commands_that_are_traced_at_once_have_traces_of_their_own(pool: CommandPool, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
        os.mkfifo(tmp_path / f"met-{name}")  # whose opening waits for the other command
    scripts = "cat one > met-one; cat met-two; cat one", "cat met-one; cat two > met-two; cat two"
    futures = [
        pool.submit_commands("task", [shell(script)], cwd=tmp_path, env=environ(tmp_path), traced=True)
        for script in scripts
    ]
    found = [future.result(HANG_SECONDS).trace for future in futures]
    paths = {str(tmp_path / "one"), str(tmp_path / "two")}
    assert [list_reads(each) & paths for each in found if each] == [{str(tmp_path / "one")}, {str(tmp_path / "two")}]


CLOSED = """
import os, signal, socket, sys
sys.version_info = eval(sys.argv[1])
from paropt_exporter.executors.supervisor.seccomp import Kernel
from paropt_exporter.executors.supervisor.tracer_thread import TracerThread
from paropt_exporter.executors.supervisor.tracing import Tracer

kernel = Kernel()
ours, theirs = socket.socketpair()
pid = os.fork()
if not pid:
    socket.send_fds(theirs, [b"x"], [kernel.install_filter(kernel.build_filter(["stat", "newfstatat"], ()))])
    os.stat("/")
    theirs.send(b"y")
    signal.pause()
thread = TracerThread(Tracer(kernel, socket.recv_fds(ours, 1, 1)[1][0]))
thread.start()
assert ours.recv(1) == b"y"
thread.close()
os.kill(pid, signal.SIGKILL)
print(os.waitpid(pid, 0)[1])
"""


@traces
@pytest.mark.parametrize("version", [(3, 11), (3, 15)], ids=str)  # from 3.15 on, fcntl.ioctl repeats interrupted calls
def test_trace_can_be_closed_while_its_command_waits(version: tuple[int, int]) -> None:
    command = [sys.executable, "-c", CLOSED, repr(version)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (found.stdout, found.stderr) == ("9\n", "")


THREADLESS = """
import _thread, os, signal
from paropt_exporter.executors.supervisor import traced_start

def refuse(*_):
    raise RuntimeError("can't start new thread")

_thread.start_new_thread = refuse
before = os.listdir("/proc/self/fd")
try:
    traced_start.start_traced(
        program=b"/bin/true", argv=[b"true"], env=os.environb, cwd=b"/", output=1, default_signals=(), limits={}
    )
except OSError as error:
    print(error.strerror, os.WIFEXITED(os.waitpid(-1, 0)[1]), os.listdir("/proc/self/fd") == before)
"""


@traces
def test_command_whose_calls_no_thread_can_serve_does_not_start() -> None:
    assert read_printed(THREADLESS) == "can't start new thread True True\n"


@traces
@pytest.mark.parametrize("offset", [0, mmap.PAGESIZE - 200])
@pytest.mark.parametrize("length", [0, 100, 255, 256, 4000])
def test_text_is_read_up_to_its_end(offset: int, length: int) -> None:
    memory = mmap.mmap(-1, 4 * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    text = b"a" * length
    memory[offset : offset + length] = text
    kernel, process = Kernel(), os.getpid()
    memory[-mmap.PAGESIZE :] = b"b" * mmap.PAGESIZE
    kernel.read_memory(process, address + 3 * mmap.PAGESIZE, mmap.PAGESIZE)  # nothing of it may be in the text
    assert kernel.read_text(process, address + offset) == text


SHOWN_TEXTS = """
import ctypes, os, sys
text = ctypes.create_string_buffer(sys.argv[1].encode())
print(ctypes.addressof(text), flush=True)
sys.stdin.readline()
if sys.argv[2:]:
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[2], sys.argv[3]])
"""


@traces
def test_text_of_a_process_that_starts_another_program_is_that_of_its_new_memory() -> None:
    kernel, before = Kernel(), count_descriptors()
    command = [sys.executable, "-c", SHOWN_TEXTS, "first", SHOWN_TEXTS, "second"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        kernel.note_program(process.pid)
        address = int(process.stdout.readline())
        found = {kernel.read_text(process.pid, address) for _ in range(100)}
        assert (found, count_descriptors() - before) == ({b"first"}, 3)  # two pipes, and its memory
        process.stdin.write("\n")
        process.stdin.flush()
        address = int(process.stdout.readline())
        assert {kernel.read_text(process.pid, address) for _ in range(100)} == {b"second"}
        process.stdin.close()
    assert count_descriptors() == before


@traces
def test_memory_of_a_process_that_makes_many_calls_is_read_through_a_file_until_the_end() -> None:
    kernel, before, process = Kernel(), count_descriptors(), os.getpid()
    kernel.note_program(process)
    address = kernel.own_text_address
    assert {kernel.read_text(process, address) for _ in range(100)} == {b""}
    assert count_descriptors() == before + 1
    for bad in (0, 1 << 63, (1 << 64) - 1):
        with pytest.raises(OSError, match="can't be read"):
            kernel.read_text(process, bad)
    kernel.close_memories()
    assert count_descriptors() == before


@traces
def test_long_texts_open_no_more_files() -> None:
    """Each path of 256 bytes and more, as in node_modules, left a descriptor of the supervisor open."""
    kernel, before, text = Kernel(), count_descriptors(), b"x" * 300
    kernel.note_program(os.getpid())
    content = ctypes.create_string_buffer(text)
    assert {kernel.read_text(os.getpid(), ctypes.addressof(content)) for _ in range(100)} == {text}
    assert count_descriptors() == before + 1
    kernel.close_memories()
    assert count_descriptors() == before


@traces
def test_files_of_ended_processes_make_room_for_those_of_others() -> None:
    kernel, before, own = Kernel(), count_descriptors(), os.getpid()

    def read(process: int, address: int) -> None:
        for _ in range(100):
            kernel.read_text(process, address)

    kernel.note_program(own)
    read(own, kernel.own_text_address)
    for _ in range(20):
        command = [sys.executable, "-S", "-c", SHOWN_TEXTS, "text"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            kernel.note_program(process.pid)
            read(process.pid, int(process.stdout.readline()))
            process.stdin.close()
    assert list_open_files().count(f"/proc/{own}/mem") == 1
    assert count_descriptors() - before <= 16
    kernel.close_memories()
    assert count_descriptors() == before


@traces
def test_half_of_the_descriptors_are_left_for_commands() -> None:
    """Of 12 traced shell scripts at a limit of 64, 6 were not traced to their end: "Too many open files"."""
    kernel, (soft, hard) = Kernel(), resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    before = count_descriptors()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * free, hard))
        kernel.note_program(os.getpid())
        assert {kernel.read_text(os.getpid(), kernel.own_text_address) for _ in range(100)} == {b""}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert count_descriptors() == before


@traces
def test_memory_of_a_thread_is_never_read_through_a_file() -> None:
    """Its process has the same memory, which would be shown after another process has got the thread's number."""
    kernel, before = Kernel(), count_descriptors()

    def read() -> None:
        kernel.note_program(threading.get_native_id())
        for _ in range(100):
            kernel.read_text(threading.get_native_id(), kernel.own_text_address)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert count_descriptors() == before


def count_descriptors() -> int:
    return len(list_open_files())


def list_open_files() -> list[str]:
    links = list(Path("/proc/self/fd").iterdir())
    return [str(link.readlink()) for link in links if link.is_symlink()]  # without that of the list


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EBUSY, "a tracer or a container watches its system calls already"),
        (errno.EINVAL, "the kernel has no seccomp user notifications, which Linux 5.5 brought"),
        (errno.EPERM, "the kernel or the container forbids it: Operation not permitted"),
    ],
)
def test_refusal_has_its_reason(code: int, reason: str) -> None:
    assert explain_refusal(code) == reason


def test_unknown_machine_can_not_be_traced() -> None:
    with pytest.raises(Forbidden, match="unknown for riscv64"):
        Kernel("riscv64")


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
def test_filter_notifies_of_the_calls_of_each_machine(machine: str, architecture: int) -> None:
    program = build_trace_filter(Kernel(machine))
    place = ("x86_64", "aarch64").index(machine)
    run = make_filter_runner(program)
    assert run(architecture, number_of("openat", place)) == "notify"
    assert run(architecture, number_of("execve", place)) == "notify"
    assert run(architecture, number_of("io_uring_setup", place)) == "refuse"
    assert run(architecture ^ 1, 1) == "notify"  # of a 32-bit program
    assert run(architecture, 0x40000000 | 1) == "notify"  # of the x32 ABI
    assert run(architecture, 63 if place else 0) == "allow"  # read
    assert run(architecture, number_of("clone", place), 0x00020000) == "notify"
    assert run(architecture, number_of("clone", place), 0x003D0F00) == "allow"
    assert run(architecture, number_of("newfstatat", place), 5, 0, 0, 0x1000) == "allow"  # fstat
    assert run(architecture, number_of("newfstatat", place), 0xFFFFFF9C, 0, 0, 0x1000) == "notify"
    assert run(architecture, number_of("newfstatat", place), 5, 0, 0, 0x1100) == "notify"
    assert run(architecture, number_of("statx", place), 5, 0, 0x1000) == "allow"
    assert run(architecture, number_of("statx", place), 0xFFFFFF9C, 0, 0x1000) == "notify"
    assert run(architecture, number_of("statx", place), 5, 0, 0) == "notify"
    assert run(architecture, number_of("sendto", place), 0, 0, 0, 0, 1 << 40) == "notify"
    assert run(architecture, number_of("sendto", place), 1, 1, 1, 1, 0) == "allow"


def number_of(name: str, place: int) -> int:
    number = CALLS[name][place]
    assert number is not None
    return number


def make_filter_runner(program: bytes) -> Callable[..., str]:
    """Return an interpreter of the few instructions of a filter."""
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]

    def run(architecture: int, number: int, *arguments: int) -> str:
        data = struct.pack("=iIQ6Q", number, architecture, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
        place = value = 0
        while True:
            kind, if_true, if_false, operand = code[place]
            place += 1
            if kind == 0x20:
                (value,) = struct.unpack_from("=I", data, operand)
            elif kind == 0x06:
                return {0x7FFF0000: "allow", 0x7FC00000: "notify", 0x00050000: "refuse"}[operand & 0xFFFF0000]
            else:
                holds = {0x15: value == operand, 0x25: value > operand, 0x45: bool(value & operand)}[kind]
                place += if_true if holds else if_false

    return run


def test_later_read_of_a_written_file_is_no_read_before_the_write() -> None:
    written, read = Access(WRITE, 1, None), Access(READ | READ << BEFORE, 2, (1, 2, 3, 4, 5))
    merged = merge_traces([Trace(paths={b"/a": written}), Trace(paths={b"/a": read})]).paths[b"/a"]
    assert merged.state is None and merged.is_used(READ) and not merged.is_used_unwritten(READ)
