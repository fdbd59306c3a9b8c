"""Metrics and health of a service over HTTP: `/metrics` for Prometheus, `/live` and `/ready` for what restarts it."""

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, make_wsgi_app

from schemas.errors import SetupError
from schemas.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

log = structlog.get_logger()
Question = Callable[[], str]
"""Answered with "" where all is well, else with one line that says why not."""
CLIENT_S = 10.0
"""How long a client may take over its request."""


def new_registry() -> CollectorRegistry:
    """A registry with the memory, processor time and files of this process."""
    # else each of ours has another series beside it, which says when the process began
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


@contextmanager
def serving(settings: Settings, registry: CollectorRegistry, *, live: Question, ready: Question) -> Iterator[None]:
    """Metrics and health are served while the block runs, in threads of their own; with no port nothing is.

    Raises SetupError where the port cannot be had.
    """
    if not settings.metrics_port:
        yield
        return
    with _listening(settings.metrics_host, settings.metrics_port) as server:
        server.set_app(application(registry, live=live, ready=ready))
        Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        log.info("metrics and health are served", host=settings.metrics_host, port=settings.metrics_port)
        try:
            yield
        finally:
            server.shutdown()


def application(registry: CollectorRegistry, *, live: Question, ready: Question) -> "WSGIApplication":
    """The three paths as a WSGI application."""
    metrics = make_wsgi_app(registry)
    questions = {"/live": live, "/ready": ready}

    def answer(environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return list(metrics(environ, start_response))
        if path in questions:
            said = questions[path]()
            status = "503 Service Unavailable" if said else "200 OK"
        else:
            said, status = "there are /metrics, /live and /ready", "404 Not Found"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{said or 'ok'}\n".encode()]

    return answer


def _listening(host: str, port: int) -> "_Server":
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return _Server(family, address)
    except OSError as error:
        remedy = "set KOSMOGRAPH_METRICS_PORT to another, or to 0 for none (KOSMOGRAPH_METRICS_HOST is the address)"
        raise SetupError(f"metrics cannot be served on port {port} of {host}: {error.strerror}; {remedy}") from None


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each request: who is slow keeps nobody waiting, nor the process from ending."""

    daemon_threads = True

    def __init__(self, family: int, address: Any) -> None:
        self.address_family = family
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # and not HTTPServer's, which waits for a name server to tell our name
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a client of the metrics left in mid-sentence", exc_info=True)


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_S

    def log_message(self, *_: Any) -> None:
        """Every few seconds somebody asks: no line for that."""
