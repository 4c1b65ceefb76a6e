"""Mutated requests, configs and texts of other programs: each gets an answer or a clear error, whatever is in it.

Usage: python benchmarks/fuzz.py [--seed N] [--requests N] [--configs N]. The seed is printed and gives the same inputs
again. Exits with 1 after a wrong answer, and saves its input in build/fuzz. Wrong are: a status of 5xx other than
503, a traceback, an exception that is no ConfigError or UsageError, a fault without a place, an answer that takes over
30 s, and memory or descriptors that grow.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from types import FrameType

import bcrypt
import psutil
import trustme
import yaml

import fuzz_texts
from paropt_exporter import config as configs
from paropt_exporter.config.host_config import load_host_config
from paropt_exporter.errors import ConfigError, UsageError
from paropt_exporter.exposition.protection import ProtectionFile
from paropt_exporter.plan import build_plan

ROOT = Path(__file__).parents[1]
COMMAND = Path(sys.executable).parent / "paropt-exporter"
REQUESTS, CONFIGS = 100_000, 10_000
HANG_SECONDS = 30.0
FAILURES = ROOT / "build/fuzz"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_WARM_UP = 0.2  # of the inputs, before memory counts: caches fill
_GROWTH_BYTES = 24 << 20
_MOST_WRONG = 10  # of a kind, then it ends
_CLIENTS = 8  # at once
_BATCH = 500  # requests that are made before they are sent
_WANTED_5XX = 503  # not ready, or too many scrapes
_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [A-Za-z' -]+\r\n")
_FAULT = re.compile(r":[1-9][0-9]*:[1-9][0-9]*: .+: .")

HEADS = (
    b"GET /metrics HTTP/1.1\r\nHost: localhost:9090\r\n"
    b"Accept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1\r\n"
    b"Accept-Encoding: gzip\r\nUser-Agent: Prometheus/2.53\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic b3BzOnMzY3JldA==\r\n\r\n",
    b"HEAD /metrics HTTP/1.0\r\n\r\n",
    b"GET http://localhost/-/healthy?a=b#c HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)
HEAD_PARTS = (
    b"\r\n", b"\n", b"\0", b" ", b": ", b"HTTP/1.1", b"GET ", b"/metrics", b"%00", b"%2e%2e/", b"../" * 50,
    b"\xff\xfe", b"Authorization: Basic !!!\r\n", b"Authorization: Basic " + b"QQ==" * 500 + b"\r\n",
    b"Authorization: Basic Og==\r\n", b"Accept-Encoding: gzip;q=nan\r\n",
    b"Accept: " + b"a/b;q=0.1," * 200 + b"\r\n", b"A: b\r\n" * 120, b"x" * 20_000, b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
    b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"\r\n\r\n",
)  # fmt: skip
TEXT_PARTS = (
    b"\n", b"\t", b"  ", b": ", b"- ", b"{", b"}", b"[", b"]", b"'", b'"', b"&a ", b"*a", b"<<: *a",
    b"!!python/object:os.x ", b"!!binary ", b"---\n", b"...\n", b"%YAML 1.2\n", b"? ", b"|\n", b">-\n", b"# ",
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xae", b"null", b".nan", b"-.inf", b"1e999",
    b"0x7fffffffffffffff", b"9" * 400, b"2026-11-28", b"yes", b"~", b"[" * 200, b"{a: " * 100, b"a" * 5000,
    b"\\u0000", b"{item}", b"{items}", b"${HOME}", b"$(id)", b"../", b"/dev/zero", b"http://", b"@",
    b"?token=x",
)  # fmt: skip
WORDS: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 2**63, -(2**70), 0.5, float("nan"), float("inf"), "", " ", "one", "two",
    "{item}", "{items}", "*", "**", "a" * 3000, "\0", "\u202e", "30s", "-5m", "1GiB", "auto", "never", "../..",
    "/dev/zero", "http://a", "https://me:x@a/?b#c", "TLS13", "RequireAndVerifyClientCert", "$2b$04$" + "a" * 53,
    "server.pem", [], {}, [[[]]], {"a": {"b": {}}}, ["one", "one"], {"": ""}, {"*": "5s"}, {1: 2}, {None: None},
    [None], "paropt", "\ud7ff", "🦀" * 50,
)  # fmt: skip
CONFIG = """\
project: demo
x-anchor: &a {timeout: 5m}
lanes:
  standard: {workers: {min: 1, max: 4}, sla: {"*": 10s, one: {max: 5s, critical: true, warn_at: 0.5}}, total: 1m}
  mine: {strategy: thread, total: 5m, stages: [1, two], fail_fast: true, description: Mine.}
stages:
- {number: 1, name: one, run: "echo {item}", items: {list: [a, b]}, env: {A: b},
   retries: {count: 1, flaky: 2, backoff: 1s}}
- {number: 2, name: two, call: "a.b:c", needs: [one], timeout: 5m, memory: 1MiB, slots: 1, locks: [x], sla: 5, <<: *a}
- {number: 3, name: three, steps: [a b, [c]], cwd: x, file: y, exclusive: true,
   inputs: ["src/**", "!b"], outputs: [dist]}
- {number: 4, name: four, run: "pytest {items} {args}", items: {glob: "*.py", allow_empty: true}, cache: true,
   pass_env: [A_*]}
feedback:
  prometheus: {url: "http://a:1/x", headers: {X: y},
    basic_auth: {username: me, password_env: P}, tls: {ca_file: ca.pem}}
  interval: 15s
  signals: {s: {query: "sum(up{a='b'})", use: load, target: 5}}
web: {listen_address: [":1", "[::1]:2"], max_requests: 5, telemetry_path: /metrics, config_file: web.yml}
push: {url: "http://b", bearer_token_file: token, header_files: {X-Key: key}, timeout: 5s}
dask: {scheduler: "tcp://127.0.0.1:8786", pass_env: [A], upload: {include: [x], max: 1MB}}
history: {keep: {runs: 5, age: 3d}, logs: {run: 1MiB, total: 2MiB, age: 1d}}
"""
WEB_CONFIG = """\
tls_server_config:
  cert_file: server.pem
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  client_allowed_sans: [a, b]
  min_version: TLS12
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
  curve_preferences: [CurveP256]
basic_auth_users: {ops: HASH, other: HASH}
http_server_config: {http2: true, headers: {X-Frame-Options: deny, Strict-Transport-Security: max-age=5}}
"""
HOST_CONFIG = """\
servers:
- {url: "https://metrics.example.org/prometheus", bearer_token_file: token, headers: {X: y}}
- {url: "https://push.example.org:8443", basic_auth: {username: ci, password_env: P}, tls: {ca_file: a, cert_file: b}}
prometheus: {url: "https://metrics.example.org/prometheus"}
push: {url: "https://push.example.org:8443"}
cache: {url: "https://cache", write: true}
allow: [{repository: ~/src}, {url: "https://push.example.org:8443/x", repository: /srv}]
only_known_urls: false
"""


class WrongAnswer(Exception):
    """The program gave an input a wrong answer."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--configs", type=int, default=CONFIGS, help="of each kind")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    wrong = 0
    for kind, fuzz in list_kinds(given.seed, requests=given.requests, count=given.configs):
        try:
            print(f"{kind}: {fuzz()}", flush=True)
        except WrongAnswer as error:
            wrong += 1
            print(f"{kind}: WRONG: {error}", flush=True)
    return int(wrong > 0)


def list_kinds(seed: int, *, requests: int, count: int) -> list[tuple[str, Callable[[], str]]]:
    """Return the kinds of inputs, each with a function that tries them and returns figures, or raises WrongAnswer."""
    hashed = bcrypt.hashpw(b"s3cret", b"$2b$04$" + b"a" * 21 + b"e").decode()  # the same for each seed
    files: tuple[fuzz_texts.Kind, ...] = (
        ("configs", partial(mutate_document, CONFIG), try_config),
        ("web configs", partial(mutate_document, WEB_CONFIG.replace("HASH", hashed)), try_web_config),
        ("host configs", partial(mutate_document, HOST_CONFIG), try_host_config),
        *fuzz_texts.list_texts(partial(mutate_bytes, parts=TEXT_PARTS)),
    )
    endpoints = (("plain", ""), ("protected", f"basic_auth_users: {{ops: {hashed}}}"))
    return [
        *(
            (kind, partial(fuzz_files, f"{seed} {kind}", mutate, try_one, count=count))
            for kind, mutate, try_one in files
        ),
        *(
            (f"requests to a {kind} endpoint", partial(fuzz_endpoint, f"{seed} {kind}", text, count=requests // 2))
            for kind, text in endpoints
        ),
    ]


def write_certificates(folder: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "a")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.private_key_pem.write_to_path(folder / "server.key")
    (folder / "server.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))


# Files:


def fuzz_files(
    seed: str,
    mutate: Callable[[random.Random], bytes],
    try_one: Callable[[Path], str],
    *,
    count: int,
    failures: Path = FAILURES,
) -> str:
    """Try so many changed files. Return the figures. Raises WrongAnswer, with the files saved."""
    rng, endings, slowest, wrong = random.Random(seed), Counter[str](), 0.0, list[str]()
    memory = Memory(psutil.Process())
    with tempfile.TemporaryDirectory(prefix="paropt-fuzz-") as folder:
        write_certificates(Path(folder))
        path = Path(folder) / "fuzzed.yml"
        for number in range(count):
            content = mutate(rng)
            path.write_bytes(content)
            path.chmod(0o600)
            began = time.monotonic()
            try:
                with alarm(HANG_SECONDS):
                    endings[try_one(path)] += 1
            except Exception as error:  # noqa: BLE001 -- any is a finding
                wrong.append(f"{save(content, failures)}: {type(error).__name__}: {str(error)[:300]}")
                if len(wrong) == _MOST_WRONG:
                    break
            slowest = max(slowest, time.monotonic() - began)
            memory.look(number / count)
    if wrong:
        raise WrongAnswer("\n".join(wrong))
    return f"{describe(endings)}; the slowest {slowest:.2f} s; {memory.check()}"


def try_config(path: Path) -> str:
    try:
        read = configs.read_config(path, root=path.parent)
    except ConfigError as error:
        check_faults(error)
        configs.read_valid_parts(path, root=path.parent)
        return "refused"
    for lane in read.lanes if read.stages else ():
        if all(stage.items is None or stage.items.command is None for stage in read.stages):
            with suppress(UsageError):
                build_plan(read, lane)
    return "accepted"


def try_web_config(path: Path) -> str:
    try:
        ProtectionFile(path)
    except ConfigError as error:
        check_faults(error)
        return "refused"
    except UsageError as error:
        check_line(str(error))
        return "refused"
    return "accepted"


def try_host_config(path: Path) -> str:
    try:
        host = load_host_config({"PAROPT_HOST_CONFIG": str(path), "HOME": str(path.parent)})
    except ConfigError as error:
        check_faults(error)
        return "refused"
    host.find_server("https://metrics.example.org/prometheus/x")
    host.allows_credentials("https://push.example.org:8443/x", path.parent)
    host.knows_url("https://cache")
    return "accepted"


def check_faults(error: ConfigError) -> None:
    if not error.faults:
        raise WrongAnswer("an error without a fault")
    for fault in error.faults:
        check_line(fault)
        if not _FAULT.search(fault):
            raise WrongAnswer(f"a fault without a place: {fault!r}")


def check_line(text: str) -> None:
    if "\n" in text or "Traceback" in text or len(text) > 5000:
        raise WrongAnswer(f"not one line: {text[:200]!r}")


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    def expire(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Requests:


def fuzz_endpoint(seed: str, web_config: str, *, count: int) -> str:
    """Send so many changed requests to a real exporter. Return the figures. Raises WrongAnswer."""
    rng, endings, slowest = random.Random(seed), Counter[str](), 0.0
    with serving(web_config) as (port, process, log):
        memory = Memory(process)
        with ThreadPoolExecutor(_CLIENTS) as clients:
            for done in range(0, count, _BATCH):
                batch = [mutate_bytes(rng.choice(HEADS), rng, HEAD_PARTS) for _ in range(min(_BATCH, count - done))]
                for status, seconds in clients.map(partial(try_request, port), batch):
                    endings[status] += 1
                    slowest = max(slowest, seconds)
                memory.look(done / count)
        check_still_serving(port, protected=bool(web_config))
        figures = memory.check()
        text = log.read_text(errors="replace")
    if "Traceback" in text or "internal error" in text:
        raise WrongAnswer(f"the log has an error: {text[-2000:]}")
    return f"{describe(endings)}; the slowest {slowest:.2f} s; {figures}"


def try_request(port: int, request: bytes) -> tuple[str, float]:
    """Return the status and the seconds of a request. Raises WrongAnswer, with the request saved."""
    began = time.monotonic()
    try:
        return read_status(send(port, request)), time.monotonic() - began
    except (WrongAnswer, OSError) as error:
        raise WrongAnswer(f"{save(request)}: {type(error).__name__}: {str(error)[:300]}") from error


@contextmanager
def serving(web_config: str) -> Iterator[tuple[int, psutil.Process, Path]]:
    """Run an exporter of a lane until the block ends; yield its port, process and log."""
    with tempfile.TemporaryDirectory(prefix="paropt-fuzz-") as name:
        folder = Path(name)
        (folder / "paropt.yml").write_text('project: fuzz\nstages: [{number: 1, name: one, run: "true"}]\n')
        (folder / "web.yml").write_text(web_config)
        flags = ["--web.listen-address=127.0.0.1:0", "--web.config.file=web.yml", "--log.level=debug", "--no-once"]
        with (folder / "stderr.log").open("wb") as log:
            process = subprocess.Popen(
                [str(COMMAND), *flags], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
            )
        try:
            yield wait_for_port(folder / "stderr.log", process), psutil.Process(process.pid), folder / "stderr.log"
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            process.kill()
            process.wait()


def wait_for_port(log: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"metrics at http://127\.0\.0\.1:(\d+)", log.read_text(errors="replace")):
            return int(found[1])
        time.sleep(0.05)
    raise WrongAnswer(f"the exporter did not start: {log.read_text(errors='replace')}")


def send(port: int, request: bytes) -> bytes:
    """Return the whole answer. Raises OSError if there is none in time."""
    with socket.create_connection(("127.0.0.1", port), HANG_SECONDS) as client:
        client.settimeout(HANG_SECONDS)
        received = b""
        with suppress(ConnectionError):  # it may answer and close before it has read all of a long request
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)  # so that an incomplete head need not wait for the deadline
        with suppress(ConnectionError):
            while chunk := client.recv(1 << 16):
                received += chunk
        return received


def read_status(answer: bytes) -> str:
    """Return the status, or `closed` where there is no answer. Raises WrongAnswer."""
    if not answer:
        return "closed"
    match = _STATUS.match(answer)
    if match is None:
        raise WrongAnswer(f"no status line: {answer[:100]!r}")
    status = int(match[1])
    if status >= 500 and status != _WANTED_5XX:
        raise WrongAnswer(f"status {status}")
    if b"Traceback" in answer:
        raise WrongAnswer("a traceback in the answer")
    return str(status)


def check_still_serving(port: int, *, protected: bool) -> None:
    wanted = "401" if protected else "200"
    if (status := read_status(send(port, HEADS[0]))) != wanted:
        raise WrongAnswer(f"afterwards a scrape gets {status}")


# Mutations:


def mutate_bytes(base: bytes, rng: random.Random, parts: Sequence[bytes]) -> bytes:
    """Return the text after one to five changes: parts are inserted, cut, doubled, moved or have other bits."""
    content = bytearray(base)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        at = rng.randrange(len(content) + 1)
        end = min(len(content), at + rng.choice((1, 1, 2, 5, 20, 200)))
        match rng.randrange(6):
            case 0:
                content[at:at] = rng.choice(parts)
            case 1:
                del content[at:end]
            case 2:
                content[at:at] = content[at:end] * rng.choice((1, 1, 2, 50))
            case 3:
                content[at:end] = rng.choice(parts)
            case 4 if content:
                content[at % len(content)] ^= 1 << rng.randrange(8)
            case _:
                content = content[:at] if rng.random() < 0.2 else content[at:] + content[:at]
    return bytes(content)


def mutate_document(base: str, rng: random.Random) -> bytes:
    """Return a YAML text after changes of its bytes or of its values."""
    return mutate_bytes(base.encode(), rng, TEXT_PARTS) if rng.random() < 0.5 else mutate_tree(load_yaml(base), rng)


load_yaml = lru_cache(yaml.safe_load)


def mutate_tree(tree: object, rng: random.Random) -> bytes:
    """Return a YAML text with one to three values or keys of the tree replaced."""
    tree = yaml.safe_load(yaml.safe_dump(tree))
    for _ in range(rng.randint(1, 3)):
        node: object = tree
        while isinstance(node, dict | list) and node:
            key = rng.choice([*node] if isinstance(node, dict) else range(len(node)))
            inner = node[key]
            if not isinstance(inner, dict | list) or not inner or rng.random() < 0.2:
                replace_value(node, key, rng)
                break
            node = inner
    return yaml.safe_dump(tree, allow_unicode=True).encode(errors="replace")


def replace_value(node: object, key: object, rng: random.Random) -> None:
    word = rng.choice(WORDS)
    if isinstance(node, list):
        assert isinstance(key, int)
        node[key] = word
        return
    assert isinstance(node, dict)
    if rng.random() < 0.3 and not isinstance(word, dict | list):
        node[word] = node.pop(key)
    else:
        node[key] = word


# Figures:


class Memory:
    """How a process's memory and descriptors grow after its caches have filled."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._first: tuple[int, int] | None = None

    def look(self, done_ratio: float) -> None:
        """Note the state once the first part of the inputs is done."""
        if self._first is None and done_ratio >= _WARM_UP:
            self._first = self._measure()

    def check(self) -> str:
        """Return the growth as text. Raises WrongAnswer if it is too large."""
        bytes_before, open_before = self._first or self._measure()
        bytes_now, open_now = self._measure()
        figures = f"{(bytes_now - bytes_before) / 1e6:+.1f} MB, {open_now - open_before:+d} descriptors"
        if bytes_now - bytes_before > _GROWTH_BYTES or open_now > open_before + 2:
            raise WrongAnswer(f"the process grew: {figures}")
        return figures

    def _measure(self) -> tuple[int, int]:
        return self._process.memory_info().rss, self._process.num_fds()


def describe(endings: Counter[str]) -> str:
    return f"{endings.total():,}: " + ", ".join(f"{count:,} {name}" for name, count in sorted(endings.items()))


def save(content: bytes, folder: Path = FAILURES) -> Path:
    """Keep an input that got a wrong answer, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.time_ns():x}"
    path.write_bytes(content)
    return path


if __name__ == "__main__":
    raise SystemExit(main())
