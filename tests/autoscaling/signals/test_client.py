"""Queries to Prometheus, and every way in which a server may fail to answer."""

from __future__ import annotations

import base64
import gzip
import os
import socket
import ssl
import subprocess
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from paropt_exporter.autoscaling.signals.client import Client, ClientSettings, QueryFailed
from paropt_exporter.clock import SystemClock
from paropt_exporter.config.credentials import build_headers
from paropt_exporter.config.values import BasicAuth, Prometheus
from support.fake_prometheus import (
    Asked,
    FakePrometheus,
    Reply,
    document,
    dripping,
    endless,
    fake_prometheus,
    hanging_up,
    http,
    number,
    raw,
    silent,
    vector,
)

TIMEOUT_SECONDS = 0.4
MEGABYTE = 1_000_000


def client(url: str, *, timeout: float = 60.0, access: Prometheus | None = None, **tls: Any) -> Client:
    access = access or Prometheus()
    settings = ClientSettings(
        url=url,
        timeout_seconds=timeout,
        read_headers=partial(build_headers, access),
        secret_headers=tuple(access.header_files),
        **tls,
    )
    return Client(
        settings,
        clock=SystemClock(),
        jitter=lambda: 0.0,
        stop=threading.Event(),
    )


def read_token(file: Path) -> Prometheus:
    return Prometheus(bearer_token_file=str(file))


@pytest.fixture
def server() -> Iterator[FakePrometheus]:
    with fake_prometheus(number("42")) as fake:
        yield fake


def failure(server: FakePrometheus, **access: Any) -> QueryFailed:
    with pytest.raises(QueryFailed) as failed:
        client(server.url, **access).query("up")
    return failed.value


def test_query_is_posted_with_a_deadline(server: FakePrometheus) -> None:
    answer = client(server.url).query("up")
    assert [element.value for element in answer.elements] == [42.0]
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.fields["query"]) == ("POST", "/api/v1/query", "up")
    assert asked.fields["timeout"].endswith("ms")


def test_path_of_the_url_is_kept(server: FakePrometheus) -> None:
    client(f"{server.url}/prometheus/").query("up")
    assert server.asked[0].path == "/prometheus/api/v1/query"


def test_query_asks_for_no_cache_and_no_partial_answer(server: FakePrometheus) -> None:
    client(server.url).query("up")
    assert server.asked[0].fields["nocache"] == "1"
    assert server.asked[0].fields["partial_response"] == "false"


def test_proxy_without_post_gets_get_requests(server: FakePrometheus) -> None:
    answer = server.reply

    def reply(connection: object, asked: Asked) -> None:
        (answer if asked.method == "GET" else http(405, b""))(connection, asked)  # type: ignore[arg-type]  # a socket

    server.reply = reply
    asking = client(server.url)
    assert asking.query("up").elements[0].value == 42.0
    assert asking.query("up").elements[0].value == 42.0
    assert [asked.method for asked in server.asked] == ["POST", "GET", "GET"]
    assert server.asked[1].fields["query"] == "up"


def test_secrets_are_read_for_each_query(server: FakePrometheus, tmp_path: Path) -> None:
    token, tenant = tmp_path / "token", tmp_path / "tenant"
    token.write_text("first\n")
    tenant.write_text("shop\n")
    asking = client(
        server.url,
        access=Prometheus(bearer_token_file=str(token), header_files={"X-Scope-OrgID": str(tenant)}),
    )
    asking.query("up")
    token.write_text("second\n")
    asking.query("up")
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer first", "Bearer second"]
    assert server.asked[0].headers["x-scope-orgid"] == "shop"


def test_basic_auth_takes_its_password_from_the_environment(
    server: FakePrometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_PASSWORD", "pässword")
    basic = BasicAuth(username="ops", password_env="PROMETHEUS_PASSWORD")
    client(server.url, access=Prometheus(basic_auth=basic)).query("up")
    scheme, _, pair = server.asked[0].headers["authorization"].partition(" ")
    assert (scheme, base64.b64decode(pair).decode()) == ("Basic", "ops:pässword")


def test_missing_secret_fails_the_query_and_names_the_file(server: FakePrometheus, tmp_path: Path) -> None:
    failed = failure(server, access=read_token(tmp_path / "gone"))
    assert failed.kind == "unauthorized"
    assert "gone" in str(failed)
    assert server.asked == []


def test_secret_that_no_header_takes_fails_the_query_and_names_the_file(server: FakePrometheus, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("schlüssel")
    failed = failure(server, access=read_token(tmp_path / "token"))
    assert (failed.kind, "token is not one line of ASCII" in str(failed), server.asked) == ("unauthorized", True, [])


LONG = "k" * 100_000
LONG_TYPE = {"status": "success", "data": {"resultType": LONG, "result": []}}
LABEL_OF_LISTS = {
    "status": "success",
    "data": {"resultType": "vector", "result": [{"metric": {"signal": ["a"]}, "value": [1.0, "1"]}]},
}
FAULTS: tuple[tuple[str, Reply, str], ...] = (
    ("status 500", http(500, b"no"), "status"),
    ("status 503 again and again", http(503, b"no"), "status"),
    ("status 404", http(404, b"no"), "status"),
    ("status 422 with a reason", http(422, b'{"status":"error","error":"parse error"}'), "query"),
    ("status: error", document({"status": "error", "errorType": "execution", "error": "too many samples"}), "query"),
    ("401", http(401, b""), "unauthorized"),
    ("403", http(403, b""), "unauthorized"),
    ("redirect to another host", http(302, b"", "Location: http://203.0.113.1/"), "redirect"),
    ("redirect without a place", http(302, b""), "redirect"),
    ("redirect in a circle", http(307, b"", "Location: /api/v1/query"), "redirect"),
    ("HTML", http(200, b"<html>Sign in</html>"), "malformed"),
    ("truncated JSON", http(200, b'{"status":"success","data":{"resu'), "malformed"),
    ("other JSON", document({"status": "success", "data": {"resultType": "vector", "result": [{}]}}), "malformed"),
    ("a list", document([1, 2]), "malformed"),
    ("a result of an unknown type", document(LONG_TYPE), "malformed"),
    ("an unknown status", document({"status": LONG}), "query"),
    ("a long error", document({"status": "error", "error": LONG}), "query"),
    ("a label of lists", document(LABEL_OF_LISTS), "malformed"),
    ("deep JSON", http(200, b"[" * 100_000), "malformed"),
    ("an answer without end", endless(), "too_large"),
    ("no HTTP", raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "connection"),
    ("a hang-up", hanging_up(), "connection"),
    ("less than announced", http(200, b"{", length=1000), "connection"),
)  # fmt: skip


@pytest.mark.parametrize(("reply", "kind"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_each_fault_has_its_kind_and_the_next_query_succeeds(server: FakePrometheus, reply: Reply, kind: str) -> None:
    well, server.reply = server.reply, reply
    asking = client(server.url)
    with pytest.raises(QueryFailed) as failed:
        asking.query("up")
    assert failed.value.kind == kind
    assert str(failed.value).startswith(f"{server.url}: ")
    assert len(str(failed.value)) < 400  # the log and the history have it
    assert asking.get_counts().errors == {kind: 1}
    assert sum(asking.get_counts().buckets) == 1
    server.reply = well
    assert asking.query("up").elements[0].value == 42.0


@pytest.mark.parametrize(
    "reply", [silent(), dripping(0.05), dripping(0.05, length="")], ids=["silent", "dripping", "without_a_length"]
)
def test_slow_server_is_cut_off_at_the_deadline(server: FakePrometheus, reply: Reply) -> None:
    server.reply = reply
    failed = failure(server, timeout=TIMEOUT_SECONDS)
    assert failed.kind == "timeout"
    assert "no answer within 0.4 s" in str(failed)


def test_query_of_another_thread_does_not_outlive_its_deadline(server: FakePrometheus) -> None:
    """As that about past runs, which goes on while the controller asks."""
    arrived = threading.Event()

    def reply(connection: socket.socket, asked: Asked) -> None:
        if asked.fields["query"] == "past":
            arrived.set()
            dripping(0.05)(connection, asked)
        else:
            number("42")(connection, asked)

    server.reply = reply
    asking = client(server.url, timeout=TIMEOUT_SECONDS)
    kinds: list[str] = []

    def ask_about_past() -> None:
        with pytest.raises(QueryFailed) as failed:
            asking.query("past")
        kinds.append(failed.value.kind)

    thread = threading.Thread(target=ask_about_past, daemon=True)
    thread.start()
    arrived.wait()
    assert asking.query("up").elements[0].value == 42.0
    thread.join(10.0)
    assert kinds == ["timeout"]


def test_refused_connection_is_reported(server: FakePrometheus) -> None:
    asking = client("http://127.0.0.1:1")
    with pytest.raises(QueryFailed, match="refused") as failed:
        asking.query("up")
    assert failed.value.kind == "connection"


def test_passing_failure_is_retried(server: FakePrometheus) -> None:
    answers: list[Reply] = [http(503, b""), hanging_up(), server.reply]
    server.reply = lambda connection, asked: answers.pop(0)(connection, asked)
    assert client(server.url).query("up").elements[0].value == 42.0
    assert len(server.asked) == 3


def test_lasting_failure_is_not_retried(server: FakePrometheus) -> None:
    server.reply = http(500, b"")
    failure(server)
    assert len(server.asked) == 1


def test_answer_that_is_packed_twice_takes_little_memory(server: FakePrometheus) -> None:
    packer = zlib.compressobj(wbits=31)
    packed = b"".join(packer.compress(b" " * MEGABYTE) for _ in range(100)) + packer.flush()
    server.reply = http(200, gzip.compress(packed), "Content-Encoding: gzip, gzip")
    tracemalloc.start()
    try:
        assert failure(server).kind == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 10 * MEGABYTE
    finally:
        tracemalloc.stop()


def test_cookies_are_not_kept(server: FakePrometheus) -> None:
    server.reply = http(
        200,
        b'{"status": "success", "data": {"resultType": "scalar", "result": [1.0, "7"]}}',
        "Set-Cookie: session=1; Path=/",
    )
    asking = client(server.url)
    for _ in range(2):
        asking.query("up")
    assert "cookie" not in server.asked[-1].headers


def test_redirect_within_the_server_keeps_the_form(server: FakePrometheus) -> None:
    answer = server.reply

    def reply(connection: object, asked: Asked) -> None:
        moved = http(307, b"", "Location: /new/api/v1/query")
        (answer if asked.path.startswith("/new") else moved)(connection, asked)  # type: ignore[arg-type]  # a socket

    server.reply = reply
    assert client(server.url).query("up").elements[0].value == 42.0
    assert server.asked[1].fields["query"] == "up"


def test_redirect_to_https_is_named_without_what_may_be_secret(server: FakePrometheus) -> None:
    server.reply = http(301, b"", "Location: https://me:s3cret@metrics.example/api/v1/query?token=s3cret")
    failed = failure(server)
    assert str(failed) == f"{server.url}: redirected to https://metrics.example, which is not followed"


def test_redirect_sends_no_secret_to_another_host(server: FakePrometheus, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    with fake_prometheus(number("1")) as other:
        server.reply = http(307, b"", f"Location: {other.url}/api/v1/query")
        failed = failure(server, access=read_token(tmp_path / "token"))
    assert failed.kind == "redirect"
    assert other.asked == []


def test_no_secret_is_in_any_message(server: FakePrometheus, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "token").write_text("s3cret")
    for _, reply, _ in FAULTS:
        server.reply = reply
        assert "s3cret" not in str(failure(server, access=read_token(tmp_path / "token")))
    assert "s3cret" not in caplog.text


def test_no_message_shows_a_query_or_a_user_of_the_url() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        for url in (f"http://{address}/x?token=s3cret", f"http://me:s3cret@{address}/x", f"http://{address}/x#s3cret"):
            with pytest.raises(QueryFailed, match=address) as failed:
                client(url).query("up")
            assert "s3cret" not in str(failed.value)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("place", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "endless"])
def test_secret_that_is_no_file_fails_the_query_at_once(
    server: FakePrometheus, tmp_path: Path, place: Callable[[Path], None]
) -> None:
    place(tmp_path / "token")
    failed = failure(server, access=read_token(tmp_path / "token"))
    assert (failed.kind, "not a regular file" in str(failed)) == ("unauthorized", True)


def test_matrix_and_string_have_no_values(server: FakePrometheus) -> None:
    for kind in ("matrix", "string"):
        server.reply = document({"status": "success", "data": {"resultType": kind, "result": [1.0, "x"]}})
        answer = client(server.url).query("up")
        assert (answer.kind, answer.elements) == (kind, ())


def test_scalar_has_one_value(server: FakePrometheus) -> None:
    server.reply = document({"status": "success", "data": {"resultType": "scalar", "result": [1.0, "7"]}})
    assert [element.value for element in client(server.url).query("7").elements] == [7.0]


@pytest.mark.parametrize("more", [{"warnings": ["store gone"]}, {"isPartial": True}], ids=["Thanos", "VictoriaMetrics"])
def test_partial_answer_has_a_warning(server: FakePrometheus, more: dict[str, Any]) -> None:
    server.reply = vector(({}, "1"), **more)
    assert client(server.url).query("up").warnings


def test_remark_of_promql_is_no_warning(server: FakePrometheus) -> None:
    remark = 'PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "up" (1:6)'
    server.reply = vector(({}, "1"), warnings=[remark])
    assert client(server.url).query("rate(up[1m])").warnings == ()
    server.reply = vector(({}, "1"), warnings=[*[remark] * 20, "store gone"])
    assert client(server.url).query("rate(up[1m])").warnings == ("store gone",)


def test_close_ends_a_query_that_hangs(server: FakePrometheus) -> None:
    arrived = threading.Event()
    quiet = silent()

    def reply(connection: object, asked: Asked) -> None:
        arrived.set()
        quiet(connection, asked)  # type: ignore[arg-type]  # a socket

    server.reply = reply
    asking = client(server.url, timeout=60.0)
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            asking.query("up")
        except QueryFailed as failed:
            ended.append(failed)

    thread = threading.Thread(target=ask)
    thread.start()
    arrived.wait()
    asking.close()
    thread.join(30.0)
    assert ended


def test_closed_client_asks_no_server(server: FakePrometheus) -> None:
    asking = client(server.url)
    asking.close()
    with pytest.raises(QueryFailed, match="not asked, since the exporter ends"):
        asking.query("up")
    assert server.asked == []


AUTHORITY = """
[ca]
default_ca = here
[here]
new_certs_dir = {folder}
database = {folder}/index
serial = {folder}/serial
default_md = sha256
policy = any
x509_extensions = names
[any]
commonName = supplied
[names]
subjectAltName = IP:{name}
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path]]:
    """Return a function that makes a self-signed certificate for an address until the end of a year."""

    def make(name: str, last_year: int = 2099) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp("certificates")
        certificate, key, request, config = (folder / file for file in ("crt", "key", "csr", "cnf"))
        config.write_text(AUTHORITY.format(folder=folder, name=name))
        (folder / "index").touch()
        (folder / "serial").write_text("01")
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        openssl("req", "-new", *curve, "-nodes", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request))
        life = ("-startdate", "20200101000000Z", "-enddate", f"{last_year}0102000000Z")
        signing = ("ca", "-batch", "-notext", "-selfsign", "-config", str(config), "-keyfile", str(key))
        openssl(*signing, *life, "-in", str(request), "-out", str(certificate))
        return certificate, key

    return make


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def context(certificate: Path, key: Path) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    return tls


def test_https_needs_the_configured_ca(
    certificates: Callable[..., tuple[Path, Path]],
) -> None:
    certificate, key = certificates("127.0.0.1")
    with fake_prometheus(number("42"), tls=context(certificate, key)) as secure:
        assert client(secure.url, ca_file=certificate).query("up").elements[0].value == 42.0
        assert failure(secure).kind == "tls"  # the system's authorities did not sign it


def test_certificate_of_another_name_is_refused(certificates: Callable[..., tuple[Path, Path]]) -> None:
    certificate, key = certificates("127.0.0.9")
    with fake_prometheus(number("42"), tls=context(certificate, key)) as secure:
        failed = failure(secure, ca_file=certificate)
    assert failed.kind == "tls"
    assert "127.0.0.1" in str(failed)


def test_expired_certificate_is_refused(certificates: Callable[..., tuple[Path, Path]]) -> None:
    certificate, key = certificates("127.0.0.1", last_year=2021)
    with fake_prometheus(number("42"), tls=context(certificate, key)) as secure:
        failed = failure(secure, ca_file=certificate)
    assert (failed.kind, "expired" in str(failed)) == ("tls", True)


def test_client_sends_its_certificate_if_asked(
    certificates: Callable[..., tuple[Path, Path]],
) -> None:
    certificate, key = certificates("127.0.0.1")
    tls = context(certificate, key)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(certificate)
    with fake_prometheus(number("42"), tls=tls) as secure:
        own = client(secure.url, ca_file=certificate, cert_file=certificate, key_file=key)
        assert own.query("up").elements[0].value == 42.0
        assert failure(secure, ca_file=certificate).kind in ("tls", "connection")
