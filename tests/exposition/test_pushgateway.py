"""Requests to a Pushgateway, and errors of gateways that refuse them."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from paropt_exporter.config import Push, model
from paropt_exporter.errors import DeliveryError, UsageError
from paropt_exporter.exposition.sinks import Gateway, build_pushgateway_sink, build_url, push_page
from support.fake_prometheus import fake_prometheus, http, interim
from support.http_servers import QuietHandler, run_http_server
from support.secured import Authority

PAGE = b"# HELP a A.\n# TYPE a gauge\na 1\n"
GROUP = {"project": "shop", "lane": "docs"}
HANG_SECONDS = 30.0


@dataclass
class RecordingGateway:
    """Requests that a fake gateway received, and its responses: one status for each request, then the last one."""

    statuses: list[int] = field(default_factory=lambda: [200])
    body: bytes = b""
    location: str = ""
    paths: list[str] = field(default_factory=list)
    pages: list[bytes] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    url: str = ""


@pytest.fixture
def gateway() -> Iterator[RecordingGateway]:
    heard = RecordingGateway()

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            heard.methods.append(self.command)
            heard.paths.append(self.path)
            heard.authorizations.append(self.headers["Authorization"])
            heard.headers = dict(self.headers)
            heard.pages.append(self.rfile.read(int(self.headers["Content-Length"])))
            status = heard.statuses.pop(0) if len(heard.statuses) > 1 else heard.statuses[0]
            self.reply(heard.body, status=status, **({"location": heard.location} if heard.location else {}))

        do_PUT = do_POST

    with run_http_server(Handler) as port:
        heard.url = f"http://127.0.0.1:{port}"
        yield heard


def test_a_page_with_the_last_success_replaces_its_group(gateway: RecordingGateway) -> None:
    page = (
        PAGE + b"# TYPE paropt_run_last_success_timestamp_seconds gauge\nparopt_run_last_success_timestamp_seconds 1\n"
    )
    push_page(page, Gateway(url=gateway.url), job="paropt", grouping=GROUP)
    assert gateway.methods == ["PUT"]
    gateway.statuses = [503, 200]
    push_page(page, Gateway(url=gateway.url), job="paropt", grouping=GROUP)
    assert gateway.pages == [page] * 3


def test_a_page_is_posted_to_its_group(gateway: RecordingGateway) -> None:
    push_page(PAGE, Gateway(url=f"{gateway.url}/base/"), job="paropt", grouping=GROUP)
    assert gateway.methods == ["POST"]
    assert gateway.paths == ["/base/metrics/job/paropt/project/shop/lane/docs"]
    assert gateway.pages == [PAGE]
    assert gateway.authorizations == [None]


@pytest.mark.parametrize("value", ["a/b", "a b", "..", "ü", "100%", "a+b", "a?b#c"])
def test_a_label_value_that_a_path_can_not_carry_is_base64(value: str) -> None:
    address = build_url(Gateway(url="http://gateway"), "j", {"lane": value})
    start, _, encoded = address.rpartition("/")
    assert start == "http://gateway/metrics/job/j/lane@base64"
    assert base64.urlsafe_b64decode(encoded).decode() == value


def test_a_refusal_quotes_the_gateway(gateway: RecordingGateway) -> None:
    gateway.statuses, gateway.body = [400], b"pushed metrics are\n \x1b[31minvalid"
    with pytest.raises(DeliveryError, match=r"answered 400 Bad Request: pushed metrics are \[31minvalid$"):
        push_page(PAGE, Gateway(url=gateway.url), job="j", grouping=GROUP)
    assert len(gateway.pages) == 1


def test_a_restarting_gateway_is_retried(gateway: RecordingGateway) -> None:
    gateway.statuses = [503, 502, 200]
    push_page(PAGE, Gateway(url=gateway.url), job="j", grouping=GROUP)
    assert gateway.pages == [PAGE] * 3


def test_a_huge_answer_before_a_retry_takes_little_memory() -> None:
    with fake_prometheus(http(503, b" " * 50_000_000)) as server:
        tracemalloc.start()
        try:
            with pytest.raises(DeliveryError, match="answered 503"):
                push_page(PAGE, Gateway(url=server.url), job="j", grouping=GROUP)
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()


def test_a_redirect_is_an_error_and_not_followed(gateway: RecordingGateway) -> None:
    gateway.statuses, gateway.location = [307], "http://elsewhere.invalid/"
    with pytest.raises(DeliveryError, match=r"redirects to http://elsewhere\.invalid/"):
        push_page(PAGE, Gateway(url=gateway.url), job="j", grouping=GROUP)


@pytest.mark.parametrize("status", [300, 302, 304])
def test_any_status_but_2xx_is_an_error(gateway: RecordingGateway, status: int) -> None:
    gateway.statuses = [status]
    with pytest.raises(DeliveryError, match=f"answered {status}"):
        push_page(PAGE, Gateway(url=gateway.url), job="j", grouping=GROUP)


def test_an_unreachable_gateway_is_a_short_error() -> None:
    with pytest.raises(DeliveryError, match=r"^http://127\.0\.0\.1:9: Connection refused$"):
        push_page(PAGE, Gateway(url="http://127.0.0.1:9"), job="j", grouping=GROUP)


def test_a_missing_ca_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match=r"gone\.pem"):
        push_page(PAGE, Gateway(url="https://127.0.0.1:9", ca_file=tmp_path / "gone.pem"), job="j", grouping=GROUP)


def test_an_untrusted_certificate_is_an_error_with_the_reason(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=handshake_with_retries, args=(listener, context))
        accepting.start()
        with pytest.raises(DeliveryError, match="its certificate is not trusted: unable to get local issuer"):
            push_page(PAGE, Gateway(url=f"https://127.0.0.1:{listener.getsockname()[1]}"), job="j", grouping=GROUP)
        accepting.join(HANG_SECONDS)


def handshake_with_retries(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Accept the client and its retries, all of which disconnect when they see the certificate."""
    for _ in range(3):
        client, _ = listener.accept()
        with client, suppress(OSError), context.wrap_socket(client, server_side=True):
            pass


def test_a_gateway_that_never_responds_fails_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(DeliveryError, match=r"did not answer within 0\.2 s"):
            push_page(PAGE, Gateway(url=address, timeout_seconds=0.2), job="j", grouping=GROUP)


def test_a_gateway_that_never_ends_its_answer_keeps_no_thread() -> None:
    with fake_prometheus(interim()) as slow:
        with pytest.raises(DeliveryError, match=r"did not answer within 0\.2 s"):
            push_page(PAGE, Gateway(url=slow.url, timeout_seconds=0.2), job="j", grouping=GROUP)
        for thread in (each for each in threading.enumerate() if each.name == "paropt-push"):
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    "bad", ["gateway:9091", "ftp://a", "http://", "http://a?x=1", "http://[::1", "http://a:99999", "http://a:b"]
)
def test_an_invalid_url_is_a_usage_error(bad: str) -> None:
    with pytest.raises(UsageError, match="push URL"):
        Gateway(url=bad)


@pytest.mark.parametrize("start", ["http://", "https://", ""])
@pytest.mark.parametrize("rest", ["gateway:9091", "gateway:9091?s3cret", ""])
def test_a_password_in_the_url_is_refused_and_not_repeated(start: str, rest: str) -> None:
    with pytest.raises(UsageError) as caught:
        Gateway(url=f"{start}me:s3cret@{rest}")
    assert "s3cret" not in str(caught.value)


def test_a_password_in_the_url_is_refused_with_the_key_to_use() -> None:
    with pytest.raises(UsageError, match=r"push\.basic_auth"):
        Gateway(url="http://me:s3cret@gateway")


@pytest.fixture
def push_once(gateway: RecordingGateway, tmp_path: Path) -> Callable[..., None]:
    def run(**settings: object) -> None:
        settled = model.parse_section(Push, settings)
        build_pushgateway_sink(settled, url=gateway.url, instance="host", project="shop", lane="docs", root=tmp_path)(
            PAGE
        )

    return run


def test_the_group_has_job_project_lane_and_instance(gateway: RecordingGateway, push_once: Callable[..., None]) -> None:
    push_once(job="checks")
    assert gateway.paths == ["/metrics/job/checks/project/shop/lane/docs/instance/host"]


def test_a_token_file_is_read_again_at_each_push(
    gateway: RecordingGateway, push_once: Callable[..., None], tmp_path: Path
) -> None:
    for token in ("first", "second"):
        (tmp_path / "token").write_text(f"{token}\n")
        push_once(bearer_token_file="token")
    assert gateway.authorizations == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize("source", ["password_file", "password_env"])
def test_a_password_comes_from_a_file_or_the_environment(
    gateway: RecordingGateway,
    push_once: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    (tmp_path / "SECRET").write_text("s3cret ü\n")
    monkeypatch.setenv("SECRET", "s3cret ü")
    push_once(basic_auth={"username": "me", source: "SECRET"})
    assert gateway.authorizations == [f"Basic {base64.b64encode('me:s3cret ü'.encode()).decode()}"]


def test_a_token_comes_from_the_environment(
    gateway: RecordingGateway, push_once: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "t")
    push_once(bearer_token_env="TOKEN")
    assert gateway.authorizations == ["Bearer t"]


def test_a_netrc_is_not_used(
    gateway: RecordingGateway, push_once: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    push_once()
    assert gateway.authorizations == [None]


def test_headers_and_secret_headers_are_sent(
    gateway: RecordingGateway, push_once: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("k\n")
    push_once(headers={"X-Scope-OrgID": "1"}, header_files={"X-Key": "key"})
    assert (gateway.headers["X-Scope-OrgID"], gateway.headers["X-Key"]) == ("1", "k")


def test_a_refusal_that_quotes_a_secret_header_is_shown_without_it(
    gateway: RecordingGateway, push_once: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("s3cret-key\n")
    gateway.statuses, gateway.body = [403], b"no tenant s3cret-key"
    with pytest.raises(DeliveryError, match=r"answered 403 Forbidden: no tenant \*\*\*$"):
        push_once(header_files={"X-Key": "key"})


@pytest.mark.parametrize("content", [b"s3cret\nX-Other: 1", b"", b"s3cret\xff", b"s3cret\0"])
def test_a_secret_that_is_not_one_line_of_text_is_refused_unshown(
    gateway: RecordingGateway, push_once: Callable[..., None], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(DeliveryError, match="token") as caught:
        push_once(bearer_token_file="token")
    assert "s3cret" not in str(caught.value)
    assert gateway.pages == []


@pytest.mark.timeout(30)
@pytest.mark.parametrize("place", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "endless"])
def test_a_secret_that_is_not_a_file_fails_the_push_at_once(
    push_once: Callable[..., None], tmp_path: Path, place: Callable[[Path], None]
) -> None:
    place(tmp_path / "token")
    with pytest.raises(DeliveryError, match="not a regular file"):
        push_once(bearer_token_file="token")


def test_a_missing_secret_is_named(push_once: Callable[..., None]) -> None:
    with pytest.raises(DeliveryError, match="No such file or directory"):
        push_once(bearer_token_file="gone")
    with pytest.raises(DeliveryError, match=r"\$GONE_TOO"):
        push_once(bearer_token_env="GONE_TOO")
