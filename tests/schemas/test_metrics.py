"""The HTTP server of a service: metrics, and the two questions of its health."""

import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import Counter

from schemas.errors import SetupError
from schemas.metrics import new_registry, serving
from schemas.settings import Settings


@pytest.fixture
def port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


class Service:
    """Says of itself what the test wants."""

    why_not_live = ""
    why_not_ready = "the model is being loaded"

    def __init__(self) -> None:
        self.registry = new_registry()
        Counter("kosmograph_things_total", "Things.", registry=self.registry).inc(3)

    def serve(self, port: int, host: str = "127.0.0.1") -> Any:
        settings = Settings(metrics_port=port, metrics_host=host)
        return serving(settings, self.registry, live=lambda: self.why_not_live, ready=lambda: self.why_not_ready)


@pytest.fixture
def service(port: int) -> Iterator[Service]:
    made = Service()
    with made.serve(port):
        yield made


def ask(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    try:
        with urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_are_what_prometheus_reads(service: Service, port: int) -> None:
    status, text = ask(port, "/metrics")
    assert status == 200
    assert "\nkosmograph_things_total 3.0\n" in text
    assert "\nprocess_resident_memory_bytes " in text
    assert "_created" not in text


def test_health_is_ok_or_says_why_not_in_a_line(service: Service, port: int) -> None:
    assert ask(port, "/live") == (200, "ok\n")
    assert ask(port, "/ready") == (503, "the model is being loaded\n")
    service.why_not_live, service.why_not_ready = "it hangs", ""
    assert ask(port, "/live") == (503, "it hangs\n")
    assert ask(port, "/ready") == (200, "ok\n")


def test_other_paths_say_which_there_are(service: Service, port: int) -> None:
    assert ask(port, "/") == (404, "there are /metrics, /live and /ready\n")


def test_client_that_says_nothing_keeps_nobody_waiting(service: Service, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)):
        assert ask(port, "/live") == (200, "ok\n")


def test_port_that_is_taken_is_told_with_the_remedy(service: Service, port: int) -> None:
    told = rf"^metrics cannot be served on port {port} of 127\.0\.0\.1: Address already in use; set KOSMOGRAPH_METRICS"
    with pytest.raises(SetupError, match=told), service.serve(port):
        pass


def test_address_that_is_not_ours_is_told(service: Service, port: int) -> None:
    with pytest.raises(SetupError, match=r"KOSMOGRAPH_METRICS_HOST"), service.serve(port, host="192.0.2.1"):
        pass


def test_ends_with_its_block_and_the_port_is_free(port: int) -> None:
    for _ in range(2):
        with Service().serve(port):
            assert ask(port, "/live")[0] == 200


def test_without_a_port_nothing_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("something listens"))
    with Service().serve(0):
        pass
