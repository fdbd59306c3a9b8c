"""Requests that a manifest would have our workers make: none reaches a server of ours, in no spelling, by no detour."""

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from schemas.errors import Code, ImageFailure, PermanentFailure, TransientFailure
from schemas.storage import StorageOptions
from tests.security.conftest import Answer, Certificate, Site
from worker.fetch import Fetched, Fetcher
from worker.images import Limits
from worker.web import PORTS, WebReader

PUBLIC = "127.0.0.2"
"""Stands for an address of the internet, by a rule that only a test can give."""


class Names:
    """A resolver: each name has a list of answers, and the last is given for ever."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self._answers = {name.replace("_", "."): list(some) for name, some in answers.items()}
        self.asked: list[str] = []

    def __call__(self, name: str, port: int) -> Sequence[str]:
        self.asked.append(name)
        some = self._answers.get(name, [[name.strip("[]")]])
        return some.pop(0) if len(some) > 1 else some[0]


@pytest.fixture
def site(new_site: Callable[..., Site]) -> Site:
    return new_site(PUBLIC)


@pytest.fixture
def reader(limits: Limits, site: Site) -> WebReader:
    """Reads from `pictures.test`, which is the site."""
    return reading(limits, site, Names(pictures_test=[[PUBLIC]]))


def reading(limits: Limits, site: Site, names: Names, **options: Any) -> WebReader:
    def permits(address: Any) -> bool:
        return str(address) == PUBLIC

    return WebReader(limits, resolve=names, permits=permits, ports=(site.port,), **options)


def failure_of(reader: WebReader, url: str) -> ImageFailure:
    with pytest.raises(ImageFailure) as failure:
        reader.read(url)
    return failure.value


# what must not be reached

SPELLINGS = [
    "127.0.0.1", "127.1", "127.0.1", "0", "0.0.0.0", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1",
    "017700000001",
    "127.0.0.1.", "localhost", "LOCALHOST", "localhost.", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]", "user@127.0.0.1", "user:word@127.0.0.1", "example.com@127.0.0.1",
    "127.0.0.1#@example.com", "127.0.0.1\\@example.com", "example.com\\@127.0.0.1", "１２７.0.0.1", "127。0。0。1",
    "%31%32%37.0.0.1", "127.0.0.1%00.example.com", "127.0.0.1\t", " 127.0.0.1", "ⓛocalhost", "[::1%25lo]",
    "[fe80::1%lo]", "",
]  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_loopback_is_not_asked_in_any_spelling(scheme: str, host: str, limits: Limits, canary: Site) -> None:
    """With the real rule and the real resolver; only the port of the canary is allowed besides."""
    reader = WebReader(replace(limits, fetch_timeout_s=3.0), ports=(canary.port, *PORTS))
    failure = failure_of(reader, f"{scheme}://{host}:{canary.port}/a.jpg")
    assert (type(failure), failure.code in (Code.ACCESS_DENIED, Code.NOT_FOUND)) == (PermanentFailure, True)
    assert not canary.requests


def test_port_of_another_service_is_not_asked(limits: Limits, canary: Site) -> None:
    failure = failure_of(WebReader(limits), f"http://127.0.0.1:{canary.port}/")
    assert (failure.code, "port" in failure.message) == (Code.ACCESS_DENIED, True)


def test_name_with_one_address_of_ours_is_a_trap(limits: Limits, site: Site) -> None:
    names = Names(mixed_test=[[PUBLIC, "127.0.0.1"]])
    assert failure_of(reading(limits, site, names), f"http://mixed.test:{site.port}/").code == Code.ACCESS_DENIED
    assert not site.requests


def test_resolver_that_changes_its_answer_is_asked_once(limits: Limits, new_site: Callable[..., Site]) -> None:
    site = new_site(PUBLIC)
    canary = new_site("127.0.0.1", site.port)
    names = Names(rebinding_test=[[PUBLIC], ["127.0.0.1"]])
    reader = reading(limits, site, names)
    assert reader.read(f"http://rebinding.test:{site.port}/a.jpg").data == b"picture"
    assert (names.asked, site.requests, canary.requests) == (["rebinding.test"], ["/a.jpg"], [])
    assert failure_of(reader, f"http://rebinding.test:{site.port}/a.jpg").code == Code.ACCESS_DENIED
    assert not canary.requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "place",
    ["http://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "http://[::ffff:127.0.0.1]:{port}/", "http://localhost:{port}/",
     "file:///etc/passwd", "ftp://127.0.0.1:{port}/", "gopher://127.0.0.1:{port}/", "http://a@127.0.0.1:{port}/", ""],
)  # fmt: skip
def test_redirect_leads_nowhere_else(status: int, place: str, limits: Limits, new_site: Callable[..., Site]) -> None:
    site = new_site(PUBLIC)
    canary = new_site("127.0.0.1", site.port)
    site.answers["/"] = Answer(status, b"", {"Location": place.format(port=site.port)})
    reader = reading(limits, site, Names(pictures_test=[[PUBLIC]], localhost=[["127.0.0.1"]]))
    failure = failure_of(reader, f"http://pictures.test:{site.port}/")
    assert (type(failure), failure.code) == (PermanentFailure, Code.ACCESS_DENIED)
    assert not canary.requests


def test_proxy_of_the_environment_is_not_asked(
    reader: WebReader, site: Site, canary: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
    assert reader.read(f"http://pictures.test:{site.port}/a.jpg").data == b"picture"
    assert not canary.requests


# what is read


def test_picture_comes_with_its_version_by_the_name_of_its_server(reader: WebReader, site: Site) -> None:
    site.answers = {
        "/a.jpg": Answer(200, b"one", {"ETag": '"v1"'}),
        "/b.jpg": Answer(200, b"two", {"ETag": 'W/"v2"', "Last-Modified": "yesterday"}),
        "/c.jpg": Answer(200, b"three", {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}),
    }
    found = [reader.read(f"http://pictures.test:{site.port}/{name}.jpg") for name in "abcd"]
    versions = ["v1", "v2", "Mon, 01 Jan 2024 00:00:00 GMT", ""]
    assert found == [Fetched(*pair) for pair in zip([b"one", b"two", b"three", b"picture"], versions, strict=True)]
    assert {headers["Host"] for headers in site.headers} == {f"pictures.test:{site.port}"}
    assert not any({"Authorization", "Cookie"} & set(headers) for headers in site.headers)


def test_path_and_query_arrive_as_they_are_meant(reader: WebReader, site: Site) -> None:
    reader.read(f"http://pictures.test:{site.port}/a b/é%20%2F?x=1&y=a b\r\nX-Header: 1#part")
    assert site.requests == ["/a%20b/%C3%A9%20%2F?x=1&y=a%20b%0D%0AX-Header:%201"]


def test_redirects_are_followed_some_steps(reader: WebReader, site: Site) -> None:
    for step in range(6):
        site.answers[f"/{step}"] = Answer(302, b"", {"Location": f"/{step + 1}"})
    assert reader.read(f"http://pictures.test:{site.port}/1").data == b"picture"
    assert "more than 5 times" in failure_of(reader, f"http://pictures.test:{site.port}/0").message


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (404, PermanentFailure, Code.NOT_FOUND),
        (410, PermanentFailure, Code.NOT_FOUND),
        (401, PermanentFailure, Code.ACCESS_DENIED),
        (403, PermanentFailure, Code.ACCESS_DENIED),
        (400, PermanentFailure, Code.ACCESS_DENIED),
        (408, TransientFailure, Code.TIMEOUT),
        (429, TransientFailure, Code.THROTTLED),
        (500, TransientFailure, Code.STORAGE_UNAVAILABLE),
        (503, TransientFailure, Code.STORAGE_UNAVAILABLE),
    ],
)
def test_status_has_one_meaning(
    status: int, kind: type[ImageFailure], code: Code, reader: WebReader, site: Site
) -> None:
    site.answers["/"] = Answer(status)
    failure = failure_of(reader, f"http://pictures.test:{site.port}/")
    assert (type(failure), failure.code) == (kind, code)


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("ETag", '"v"')
    handler.end_headers()
    while True:
        handler.wfile.write(b"and so on" * 1000)


def dripping(handler: BaseHTTPRequestHandler) -> None:
    """Too slow for its time, and too long."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1001):
        handler.wfile.write(b"x")
        time.sleep(0.01)
    handler.close_connection = True


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"half")
    handler.close_connection = True


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (Answer(200, b"x" * 2000), PermanentFailure, Code.TOO_LARGE),
        (endless, PermanentFailure, Code.TOO_LARGE),
        (dripping, TransientFailure, Code.TIMEOUT),
        (silent, TransientFailure, Code.TIMEOUT),
        (cut_off, TransientFailure, Code.STORAGE_UNAVAILABLE),
    ],
)
def test_body_is_bounded_in_size_and_time(
    answer: Any, kind: type[ImageFailure], code: Code, limits: Limits, site: Site
) -> None:
    site.answers["/"] = answer
    narrow = replace(limits, max_bytes=1000, fetch_timeout_s=1.0)
    failure = failure_of(reading(narrow, site, Names(pictures_test=[[PUBLIC]])), f"http://pictures.test:{site.port}/")
    assert (type(failure), failure.code) == (kind, code)


def test_length_that_is_no_number_of_bytes_is_not_counted_with(reader: WebReader, site: Site) -> None:
    def boasting(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "9" * 5000)
        handler.end_headers()
        handler.wfile.write(b"picture")
        handler.close_connection = True

    site.answers["/"] = boasting
    assert reader.read(f"http://pictures.test:{site.port}/").data == b"picture"


def test_second_address_is_asked_when_the_first_takes_no_connection(limits: Limits, site: Site) -> None:
    reader = WebReader(
        limits, resolve=Names(two_test=[["127.0.0.3", PUBLIC]]), permits=lambda _: True, ports=(site.port,)
    )
    assert reader.read(f"http://two.test:{site.port}/").data == b"picture"


def test_certificate_must_be_that_of_the_name(
    limits: Limits, new_site: Callable[..., Site], new_certificate: Callable[..., Certificate]
) -> None:
    certificate = new_certificate(x509.DNSName("pictures.test"))
    site = new_site(PUBLIC, tls=certificate.for_server())
    site.answers["/down"] = Answer(302, b"", {"Location": f"http://pictures.test:{site.port}/"})
    names = Names(pictures_test=[[PUBLIC]], other_test=[[PUBLIC]])
    trusting = reading(limits, site, names, tls=ssl.create_default_context(cafile=str(certificate.file)))
    assert trusting.read(f"https://pictures.test:{site.port}/").data == b"picture"
    assert "from https to http" in failure_of(trusting, f"https://pictures.test:{site.port}/down").message
    for reader, name in ((trusting, "other.test"), (reading(limits, site, names), "pictures.test")):
        failure = failure_of(reader, f"https://{name}:{site.port}/")
        assert (failure.code, "certificate" in failure.message) == (Code.ACCESS_DENIED, True)
    assert site.requests == ["/", "/down"]


# off, and on


@pytest.fixture
def usual_canary(new_site: Callable[..., Site]) -> Site:
    """A canary on a port that the rules let through, so that only the address stands before it."""
    for port in (8080, 8443, 80):
        try:
            return new_site("127.0.0.1", port)
        except OSError:
            continue
    pytest.skip("ports 8080, 8443 and 80 are taken on this machine")


def test_web_is_off_unless_it_is_switched_on(limits: Limits, canary: Site) -> None:
    with pytest.raises(PermanentFailure, match="--allow-http"):
        Fetcher(limits, StorageOptions()).fetch(f"http://127.0.0.1:{canary.port}/")
    with pytest.raises(PermanentFailure, match="port"):
        Fetcher(limits, StorageOptions(allow_http=True)).fetch(f"http://127.0.0.1:{canary.port}/")


def test_url_as_a_source_is_refused_in_one_line_that_says_what_switches_it_on(kosmograph: Any, canary: Site) -> None:
    run = kosmograph.annotate(f"http://127.0.0.1:{canary.port}/a.jpg")
    assert (run.code, len(run.err.splitlines())) == (2, 1)
    assert "--allow-http (KOSMOGRAPH_ALLOW_HTTP=true)" in run.err
    assert not canary.requests


@pytest.mark.parametrize("options", [(), ("--allow-http",)])
def test_urls_of_a_manifest_fail_alone_and_reach_nobody(
    options: tuple[str, ...], kosmograph: Any, photos: Path, picture: Callable[..., bytes], usual_canary: Site
) -> None:
    (photos / "good.jpg").write_bytes(picture(1))
    port = usual_canary.port
    urls = [
        f"http://{host}:{port}/a.jpg" for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1", "u:p@0")
    ]
    (photos / "list.txt").write_text("\n".join(["good.jpg", *urls, "ftp://127.0.0.1/a.jpg"]))
    run = kosmograph.annotate(f"@{photos}/list.txt", *options)
    assert run.code == 3, run.err
    failures = kosmograph.sql("SELECT uri, code, message FROM failures")
    assert {row["uri"] for row in failures} == {*urls[:4], f"http://***@0:{port}/a.jpg", "ftp://127.0.0.1/a.jpg"}
    assert {row["code"] for row in failures} == {"access_denied"}
    assert kosmograph.value("SELECT COUNT(*) AS n FROM captions") == 1
    assert not usual_canary.requests


def test_urls_are_registered_without_being_asked_for(kosmograph: Any, usual_canary: Site) -> None:
    url = f"http://127.0.0.1:{usual_canary.port}/a.jpg"
    run = kosmograph("submit", url, "--model", "null", "--allow-http")
    assert run.code == 0, run.err
    assert "--allow-http" in run.out
    assert kosmograph.value("SELECT roots FROM jobs") == "[]"
    assert not usual_canary.requests


def test_resolving_needs_no_such_name(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> Callable[..., Any]:
        def getaddrinfo(*_: object, **__: object) -> Any:
            raise socket.gaierror(number, "no")

        return getaddrinfo

    monkeypatch.setattr(socket, "getaddrinfo", fail(socket.EAI_NONAME))
    assert failure_of(WebReader(limits), "http://no.test/").code == Code.NOT_FOUND
    monkeypatch.setattr(socket, "getaddrinfo", fail(socket.EAI_AGAIN))
    assert failure_of(WebReader(limits), "http://no.test/").code == Code.STORAGE_UNAVAILABLE
