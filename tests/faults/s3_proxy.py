"""An S3 server that misbehaves: a proxy before a real one, with a plan of what goes wrong with which request."""

import base64
import hashlib
import http.client
import os
import random
import select
import socket
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

TRICKLE_S = 0.05
PROMISED_BYTES = 64 << 20
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


@dataclass(frozen=True)
class Request:
    """What was asked for: an object by bucket and key, or one page of a listing."""

    bucket: str
    key: str
    query: dict[str, str]

    @classmethod
    def of(cls, target: str) -> "Request":
        parts = urlsplit(target)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        return cls(bucket, key, dict(parse_qsl(parts.query, keep_blank_values=True)))

    @property
    def is_listing(self) -> bool:
        return "list-type" in self.query

    @property
    def is_later_page(self) -> bool:
        return "continuation-token" in self.query

    @property
    def is_object(self) -> bool:
        return bool(self.key)


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class Exchange:
    """One request and the ways to answer it, proper and otherwise."""

    handler: BaseHTTPRequestHandler
    fetch: Callable[[], Answer]
    closing: Event

    def begin(self, answer: Answer, length: int | None = None) -> None:
        """Status and headers; `length` is the size that is promised, else the true one."""
        self.handler.send_response(answer.status)
        for name, value in answer.headers:
            self.handler.send_header(name, value)
        self.handler.send_header("Content-Length", str(len(answer.body) if length is None else length))
        self.handler.end_headers()

    def send(self, answer: Answer) -> None:
        self.begin(answer)
        self.handler.wfile.write(answer.body)

    def hang_up(self) -> None:
        """Close the connection in good order, whatever was promised."""
        self.handler.close_connection = True

    def reset(self) -> None:
        """Close the connection as a crash does: the other side gets a reset."""
        linger = struct.pack("ii", 1, 0)
        self.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        os.close(self.handler.connection.detach())
        self.hang_up()

    def client_waits(self, seconds: float) -> bool:
        """Whether the other side is still there after so long."""
        readable, _, _ = select.select([self.handler.connection], [], [], seconds)
        return not readable and not self.closing.is_set()


Fault = Callable[[Exchange], None]
Plan = Callable[[Request], Fault | None]
"""What goes wrong with a request; None where nothing does. Asked from many threads, one at a time."""


def refuse(status: int, code: str) -> Fault:
    """An error as S3 words it."""
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    answer = Answer(status, [("Content-Type", "application/xml")], text.encode())
    return named(code, lambda exchange: exchange.send(answer))


def stammer(status: int) -> Fault:
    """An error of a gateway before S3, which knows no S3."""
    answer = Answer(status, [("Content-Type", "text/html")], b"<html>the gateway is ill</html>")
    return named(f"gateway_{status}", lambda exchange: exchange.send(answer))


def named(name: str, fault: Fault) -> Fault:
    fault.__name__ = name
    return fault


def reset(exchange: Exchange) -> None:
    exchange.reset()


def reset_midway(exchange: Exchange) -> None:
    answer = exchange.fetch()
    exchange.begin(answer)
    exchange.handler.wfile.write(answer.body[: len(answer.body) // 2])
    exchange.reset()


def truncate(exchange: Exchange) -> None:
    answer = exchange.fetch()
    exchange.begin(answer)
    exchange.handler.wfile.write(answer.body[: len(answer.body) // 2])
    exchange.hang_up()


def trickle(exchange: Exchange) -> None:
    """A body that comes byte by byte, and never ends."""
    exchange.begin(exchange.fetch(), PROMISED_BYTES)
    while exchange.client_waits(TRICKLE_S):
        exchange.handler.wfile.write(b"\xff")
    exchange.hang_up()


def hang(exchange: Exchange) -> None:
    """No answer at all, for as long as the other side waits."""
    while exchange.client_waits(1.0):
        pass
    exchange.hang_up()


def damage(exchange: Exchange) -> None:
    """Other bytes than those that the checksum is of."""
    answer = exchange.fetch()
    checksum = base64.b64encode(struct.pack(">I", zlib.crc32(answer.body))).decode()
    headers = [(name, value) for name, value in answer.headers if not name.lower().startswith("x-amz-checksum")]
    answer.headers = [*headers, ("x-amz-checksum-crc32", checksum)]
    middle = len(answer.body) // 2
    answer.body = answer.body[:middle] + bytes([answer.body[middle] ^ 0xFF]) + answer.body[middle + 1 :]
    exchange.send(answer)


def exchanged(body: bytes) -> Fault:
    """Another object than was listed, with an ETag of its own."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.fetch()
        kept = [(k, v) for k, v in answer.headers if k.lower() != "etag" and not k.lower().startswith("x-amz-checksum")]
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        exchange.send(Answer(answer.status, [*kept, ("ETag", f'"{etag}"')], body))

    return named("exchanged", fault)


SLOW_DOWN = refuse(503, "SlowDown")
INTERNAL_ERROR = refuse(500, "InternalError")
BAD_GATEWAY, GATEWAY_TIMEOUT = stammer(502), stammer(504)
ACCESS_DENIED = refuse(403, "AccessDenied")
EXPIRED_TOKEN = refuse(400, "ExpiredToken")
NO_SUCH_KEY = refuse(404, "NoSuchKey")
NO_SUCH_BUCKET = refuse(404, "NoSuchBucket")

QUICK = (SLOW_DOWN, INTERNAL_ERROR, BAD_GATEWAY, GATEWAY_TIMEOUT, reset, reset_midway, truncate, damage)
"""Faults that pass, and are noticed at once."""
SLOW = (trickle, hang)
"""Faults that pass, and are noticed by their time alone."""


@dataclass
class Script:
    """Rules, in order: the first that fits a request, and is not used up, says what goes wrong with it."""

    rules: list["Rule"] = field(default_factory=list)

    def __call__(self, request: Request) -> Fault | None:
        return next((rule.fault for rule in self.rules if rule.takes(request)), None)

    def add(self, fault: Fault, where: Callable[[Request], bool], *, each: int | None = None) -> "Rule":
        """The fault for the requests `where` says so: the first so many (`each`) of each object or page, or all."""
        rule = Rule(fault, where, each)
        self.rules.append(rule)
        return rule


@dataclass
class Rule:
    fault: Fault
    where: Callable[[Request], bool]
    each: int | None
    seen: Counter[tuple[str, str | None]] = field(default_factory=Counter)

    def takes(self, request: Request) -> bool:
        if not self.where(request):
            return False
        self.seen[_what(request)] += 1
        return self.each is None or self.seen[_what(request)] <= self.each


@dataclass
class RandomPlan:
    """Faults by chance, the same for the same seed, in whatever order the requests come.

    An object, or a page of a listing, meets at most `most` of them, so that all is done in the end.
    """

    seed: int
    share: float = 0.3
    faults: Sequence[Fault] = (*QUICK, *SLOW)
    most: int = 2
    seen: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    thrown: Counter[tuple[str, str | None]] = field(default_factory=Counter)

    def __call__(self, request: Request) -> Fault | None:
        what = _what(request)
        self.seen[what] += 1
        chance = random.Random(f"{self.seed} {what} {self.seen[what]}")
        if self.thrown[what] >= self.most or chance.random() >= self.share:
            return None
        self.thrown[what] += 1
        return chance.choice(self.faults)


def _what(request: Request) -> tuple[str, str | None]:
    """An object by its key, or a page by its token."""
    return (request.key, None) if request.is_object else ("", request.query.get("continuation-token", ""))


class S3Proxy:
    """Passes GETs on to `endpoint`, but for what `plan` says. `page_size` makes pages of listings short."""

    def __init__(self, endpoint: str, plan: Plan, page_size: int | None = None) -> None:
        self.plan = plan
        self.log: list[tuple[Request, str]] = []
        """Every request, with the name of its fault or ""."""
        self._upstream = urlsplit(endpoint).netloc
        self._page_size = page_size
        self._lock = Lock()
        self._closing = Event()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def thrown(self) -> Counter[str]:
        """How often each fault was."""
        with self._lock:
            return Counter(fault for _, fault in self.log if fault)

    def asked(self, key: str) -> int:
        """How often an object was asked for."""
        with self._lock:
            return sum(request.key == key for request, _ in self.log)

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            timeout = 60

            def do_GET(self) -> None:
                proxy._answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        request = Request.of(handler.path)
        with self._lock:
            fault = self.plan(request)
            self.log.append((request, getattr(fault, "__name__", "")))
        exchange = Exchange(handler, lambda: self._fetch(handler, request), self._closing)
        if fault is None:
            exchange.send(exchange.fetch())
        else:
            fault(exchange)

    def _fetch(self, handler: BaseHTTPRequestHandler, request: Request) -> Answer:
        target = handler.path
        if request.is_listing and self._page_size:
            query = urlencode(request.query | {"max-keys": str(self._page_size)})
            target = f"{urlsplit(target).path}?{query}"
        connection = http.client.HTTPConnection(self._upstream, timeout=30)
        try:
            connection.request("GET", target, headers=dict(handler.headers.items()) | {"Connection": "close"})
            answer = connection.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP]
            return Answer(answer.status, headers, answer.read())
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # whoever is gone need not be told
            super().handle_error(request, client_address)
