"""Calls: find the `module:function` of a plan, run it and capture its output."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from paropt_exporter.errors import CallFailed, CallNotFound
from paropt_exporter.executors import ProcessPool, ThreadPool
from paropt_exporter.executors.calls import KEPT_CHARACTERS, run_call
from support.pool_tasks import HANG_SECONDS


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "paropt_sample_calls.py").write_text("""
import sys
class Checks:
    @staticmethod
    def integration(item="none"):
        print("checking", item)
        print("careful", file=sys.stderr)
def much(): print("x" * 200_000 + "end")
def fail(): print("before"); raise ValueError("broken")
def chain():
    try: fail()
    except ValueError as error: raise KeyError("lost") from error
def raw():
    out = sys.stdout.buffer
    print(sys.stdout.encoding.lower() != "")
    out.write("\\u00fcber".encode()[:1]); out.write("\\u00fcber".encode()[1:]); out.write(b"\\xff")
    out.flush()
    for byte in "\\u00fc".encode(): sys.stdout.buffer.write(bytes([byte]))
def load(): import paropt_no_such_module
async def wait(): raise ValueError("unreached")
def generate(): yield; raise ValueError("unreached")
async def both(): yield; raise ValueError("unreached")
def make(): print("made"); return (1 for _ in ())
def meet(barrier, name):
    print(name, 1); barrier.wait(10); print(name, 2)
""")
    before = list(sys.path)
    yield str(tmp_path)
    sys.path[:] = before
    sys.modules.pop("paropt_sample_calls", None)


def test_output_is_kept_in_threads_and_in_processes(root: str) -> None:
    for pool in (ThreadPool(1), ProcessPool(1)):
        with pool:
            call = pool.submit_named("call", run_call, root, "paropt_sample_calls:Checks.integration", ("a.py",))
            assert call.result(HANG_SECONDS).output == "checking a.py\ncareful\n"


def test_bytes_are_part_of_the_output_and_go_to_no_terminal(
    root: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for pool in (ThreadPool(1), ProcessPool(1)):
        with pool:
            call = pool.submit_named("call", run_call, root, "paropt_sample_calls:raw", ())
            assert call.result(HANG_SECONDS).output == "True\nüber\ufffdü"
    assert capfdbinary.readouterr().out == b""


def test_long_output_keeps_its_end(root: str) -> None:
    output = run_call(root, "paropt_sample_calls:much", ()).output
    assert (len(output), output[-4:]) == (KEPT_CHARACTERS, "end\n")


def test_the_whole_of_much_output_is_in_a_file(root: str, tmp_path: Path) -> None:
    path = tmp_path / "whole"
    output = run_call(root, "paropt_sample_calls:much", (), output_path=str(path)).output
    whole = path.read_text(encoding="utf-8")
    assert len(whole) > KEPT_CHARACTERS == len(output)
    assert whole.endswith(output)


def test_little_output_makes_no_file(root: str, tmp_path: Path) -> None:
    run_call(root, "paropt_sample_calls:Checks.integration", ("a.py",), output_path=str(tmp_path / "whole"))
    assert not (tmp_path / "whole").exists()


def test_output_whose_file_cannot_be_made_keeps_its_end(root: str, tmp_path: Path) -> None:
    output = run_call(root, "paropt_sample_calls:much", (), output_path=str(tmp_path / "gone" / "whole")).output
    assert len(output) == KEPT_CHARACTERS


def test_exception_carries_the_output(root: str) -> None:
    for pool in (ThreadPool(1), ProcessPool(1)):
        with pool:
            error = pool.submit(run_call, root, "paropt_sample_calls:fail", ()).exception(HANG_SECONDS)
        assert isinstance(error, CallFailed)
        assert error.message == "ValueError: broken"
        assert error.output.startswith("before\n\nTraceback")


@pytest.mark.parametrize("make", [ThreadPool, ProcessPool])
def test_traceback_shows_user_code_and_causes_only(root: str, make: type[ThreadPool] | type[ProcessPool]) -> None:
    (Path(root) / "paropt_sample_importing.py").write_text("import paropt_no_such_module\n")
    with make(1) as pool:
        chained = pool.submit(run_call, root, "paropt_sample_calls:chain", ()).exception(HANG_SECONDS)
        importing = pool.submit(run_call, root, "paropt_sample_importing:x", ()).exception(HANG_SECONDS)
    assert frames(chained) == ["chain", "fail", "chain"]
    assert "ValueError: broken\n\nThe above exception was the direct cause" in shown(chained)
    assert shown(chained).endswith("KeyError: 'lost'\n")
    assert frames(importing) == ["<module>"]


def shown(error: BaseException | None) -> str:
    assert isinstance(error, CallFailed)
    return error.output


def frames(error: BaseException | None) -> list[str]:
    """Return the functions that a traceback names, in order."""
    return re.findall(r'File ".*", line \d+, in (\S+)', shown(error))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("wait", "an async function"), ("generate", "a generator function"), ("both", "an async generator function")],
)
def test_function_whose_body_has_not_run_fails(root: str, name: str, kind: str) -> None:
    """Calling an async function only makes a coroutine: its stage was green without running a line."""
    with pytest.raises(CallFailed, match=f"it is {kind}, whose body has not run: "):
        run_call(root, f"paropt_sample_calls:{name}", ())


def test_function_that_returns_a_generator_succeeds(root: str) -> None:
    assert run_call(root, "paropt_sample_calls:make", ()).output == "made\n"


def test_missing_package_names_the_python_that_lacks_it(root: str) -> None:
    """An exporter that pipx has installed does not see the packages of the project's virtual environment."""
    with pytest.raises(CallFailed, match=rf"own Python, {re.escape(sys.executable)}\)$"):
        run_call(root, "paropt_sample_calls:load", ())
    with pytest.raises(CallNotFound, match=rf"nor among the packages of {re.escape(sys.executable)}: correct"):
        run_call(root, "paropt_no_such_module:load", ())


def test_concurrent_calls_capture_only_their_own_output(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    barrier = threading.Barrier(2)
    before = sys.stdout
    with ThreadPool(2) as pool:
        calls = [pool.submit(run_call, root, "paropt_sample_calls:meet", (barrier, name)) for name in "ab"]  # type: ignore[arg-type]  # a barrier stands for an argument
        outputs = [call.result(HANG_SECONDS).output for call in calls]
    assert outputs == ["a 1\na 2\n", "b 1\nb 2\n"]
    assert capsys.readouterr().out == ""
    assert sys.stdout is before


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("nothing", "expected module:function"),
        ("no_such_module:run", "there is no module 'no_such_module'"),
        ("paropt_sample_calls:fial", "did you mean 'fail'"),
        ("paropt_sample_calls:Checks.nothing_like_it", "class 'Checks' has no 'nothing_like_it'"),
        ("paropt_sample_calls:sys", "is of type module: name a function"),
    ],
)
def test_wrong_target_is_explained(root: str, target: str, text: str) -> None:
    with pytest.raises(CallNotFound, match=text.replace("(", r"\(")):
        run_call(root, target, ())
