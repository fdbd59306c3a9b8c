"""Metrics, health and logs of a worker and a dispatcher, as whoever runs them sees them: over HTTP, and in a file."""

import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kosmograph.redis_server import RedisServer
from tests.conftest import Broker
from tests.pipeline.conftest import ROOT, Kosmograph

HISTOGRAMS = {
    f"kosmograph_{name}_seconds": "histogram"
    for name in ("fetch", "decode", "queue_wait", "encode", "decode_step", "commit")
}
OF_A_WORKER = HISTOGRAMS | {
    "kosmograph_worker_info": "gauge",
    "kosmograph_images_total": "counter",
    "kosmograph_tokens_total": "counter",
    "kosmograph_generations_total": "counter",
    "kosmograph_encoded_images_total": "counter",
    "kosmograph_engine_busy_seconds_total": "counter",
    "kosmograph_work_seconds_total": "counter",
    "kosmograph_broker_reconnects_total": "counter",
    "kosmograph_messages_refused_total": "counter",
    "kosmograph_loader_deaths_total": "counter",
    "kosmograph_slots": "gauge",
    "kosmograph_slots_in_use": "gauge",
    "kosmograph_requests_waiting": "gauge",
    "kosmograph_chunks_in_work": "gauge",
    "kosmograph_last_progress_timestamp_seconds": "gauge",
}
OF_A_DISPATCHER = {
    "kosmograph_chunks": "gauge",
    "kosmograph_jobs": "gauge",
    "kosmograph_job_images": "gauge",
    "kosmograph_job_paused": "gauge",
    "kosmograph_oldest_lease_seconds": "gauge",
    "kosmograph_workers": "gauge",
    "kosmograph_chunks_sent_total": "counter",
    "kosmograph_chunks_republished_total": "counter",
    "kosmograph_outages_total": "counter",
    "kosmograph_queue_length": "gauge",
}
"""What dashboards and alerts are built on: name and type."""


@dataclass
class Service:
    """A process with a port for its metrics, and a file for its log."""

    kosmograph: Kosmograph
    arguments: tuple[str, ...]
    variables: dict[str, str]
    port: int = field(init=False)

    def __post_init__(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as server:
            self.port = int(server.getsockname()[1])
        more = {"KOSMOGRAPH_METRICS_PORT": str(self.port), "KOSMOGRAPH_LOG_LEVEL": "debug"}
        self.process = self.kosmograph.start(*self.arguments, **self.variables, **more)

    def ask(self, path: str) -> str:
        """What it answers; "" while nobody listens."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return str(answer.read().decode())
        except HTTPError as error:
            with error:
                return f"{error.code} {error.read().decode()}"
        except URLError:
            assert self.process.poll() is None, self.process.communicate()[1]
            return ""

    def types(self) -> dict[str, str]:
        """Name and type of each metric of ours."""
        return dict(re.findall(r"^# TYPE (kosmograph_\w+) (\w+)$", self.ask("/metrics"), re.MULTILINE))

    def samples(self) -> dict[tuple[str, ...], float]:
        """By name and, in the order of their names, the labels' values."""
        families = text_string_to_metric_families(self.ask("/metrics"))
        return {
            (one.name, *(one.labels[name] for name in sorted(one.labels))): one.value
            for family in families
            for one in family.samples
        }

    def log(self) -> list[dict[str, Any]]:
        """The lines of the log, once it has been told to end, and has."""
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        return [json.loads(line) for line in err.splitlines()]


@dataclass
class Night:
    """A worker and a dispatcher, and what the worker said before it had its model."""

    kosmograph: Kosmograph
    broker: Broker
    worker: Service
    dispatcher: Service
    at_first: dict[str, str]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawings, one of them twice, and a text that calls itself a picture."""
    folder = tmp_path_factory.mktemp("archive")
    drawings = sorted((ROOT / "examples" / "images").glob("*.png"))[:3]
    assert len(drawings) == 3
    for path in drawings:
        shutil.copy(path, folder)
    shutil.copy(drawings[0], folder / "zz-again.png")
    (folder / "zz-text.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def night(
    new_kosmograph: Callable[[], Kosmograph],
    tmp_path_factory: pytest.TempPathFactory,
    archive: Path,
    wait_for: Callable[..., Any],
) -> Iterator[Night]:
    """A job that is done, by services that go on."""
    redis = RedisServer(tmp_path_factory.mktemp("redis"))
    line = new_kosmograph()
    everywhere = {"KOSMOGRAPH_BROKER": redis.url, "KOSMOGRAPH_LOADER_PROCESSES": "1", "KOSMOGRAPH_CHUNK_SIZE": "4"}
    run = line("submit", str(archive), "--job", "night", "--model", "demo", **everywhere)
    assert run.code == 0, run.err
    worker = Service(line, ("worker", "--model", "demo", "--device", "cpu", "--name", "w1"), everywhere)
    at_first = {path: wait_for(lambda path=path: worker.ask(path)) for path in ("/ready", "/live", "/metrics")}
    dispatcher = Service(line, ("dispatch",), everywhere)
    wait_for(lambda: line.value("SELECT state FROM jobs") == "finished", 120.0)
    yield Night(line, Broker(redis), worker, dispatcher, at_first)
    redis.stop()


def test_worker_is_live_and_not_ready_before_it_has_its_model(night: Night) -> None:
    assert night.at_first["/ready"] == "503 the model is being loaded\n"
    assert night.at_first["/live"] == "ok\n"
    assert "\nkosmograph_slots 0.0\n" in night.at_first["/metrics"]
    assert night.worker.ask("/ready") == "ok\n"


def test_worker_has_each_metric_of_the_dashboards_and_no_other(night: Night) -> None:
    assert night.worker.types() == OF_A_WORKER


def test_dispatcher_has_each_metric_of_the_dashboards_and_no_other(night: Night, wait_for: Callable[..., Any]) -> None:
    wait_for(lambda: night.dispatcher.types() == OF_A_DISPATCHER)
    assert night.dispatcher.ask("/ready") == night.dispatcher.ask("/live") == "ok\n"


def test_images_are_counted_as_the_ledger_has_them(night: Night) -> None:
    query = "SELECT COALESCE(code, '') AS code, reused, COUNT(*) AS n FROM outcomes GROUP BY code, reused"
    ledger = {
        (row["code"], "failed" if row["code"] else "reused" if row["reused"] else "annotated"): row["n"]
        for row in night.kosmograph.sql(query)
    }
    counted = {key[1:]: n for key, n in night.worker.samples().items() if key[0] == "kosmograph_images_total" and n}
    assert counted == ledger == {("", "annotated"): 3, ("", "reused"): 1, ("not_an_image", "failed"): 1}


def test_histograms_have_what_was_done(night: Night) -> None:
    """Five files were fetched and tried; two chunks committed; each answer of the model had waited for its turn."""
    found = night.worker.samples()
    counts = {name: found[f"{name}_count",] for name in HISTOGRAMS}
    assert counts["kosmograph_fetch_seconds"] == counts["kosmograph_decode_seconds"] == 5
    assert counts["kosmograph_commit_seconds"] == 2
    assert counts["kosmograph_queue_wait_seconds"] == found["kosmograph_generations_total",] >= 3
    assert counts["kosmograph_encode_seconds"] >= 1
    assert counts["kosmograph_decode_step_seconds"] >= 5
    assert all(found[f"{name}_sum",] > 0 for name in HISTOGRAMS)


def test_figures_fit_together(night: Night) -> None:
    found = night.worker.samples()
    assert 0 < found["kosmograph_engine_busy_seconds_total",] <= found["kosmograph_work_seconds_total",]
    assert found["kosmograph_tokens_total",] > found["kosmograph_generations_total",]
    assert found["kosmograph_slots",] > found["kosmograph_slots_in_use",] == 0
    assert found["kosmograph_chunks_in_work",] == found["kosmograph_requests_waiting",] == 0
    started, progress = found["process_start_time_seconds",], found["kosmograph_last_progress_timestamp_seconds",]
    assert progress > started
    (info,) = [key for key in found if key[0] == "kosmograph_worker_info"]
    dtype, model, revision, runtime, worker = info[1:]
    assert (dtype, model, worker) == ("float32", "demo", "w1")
    assert revision.startswith("sha256:")
    assert "torch" in runtime


def test_port_that_is_taken_ends_a_service_in_one_line(night: Night) -> None:
    taken = {"KOSMOGRAPH_METRICS_PORT": str(night.worker.port), "KOSMOGRAPH_BROKER": night.broker.url}
    run = night.kosmograph("dispatch", **taken)
    assert run.code == 1
    assert re.fullmatch(
        r"kosmograph: metrics cannot be served on port \d+ [^\n]* KOSMOGRAPH_METRICS_PORT [^\n]*\n", run.err
    )


def test_broker_that_is_away_makes_them_not_ready_and_leaves_them_live(
    night: Night, wait_for: Callable[..., Any]
) -> None:
    """And when it is back they are ready, and have counted it."""
    services = (night.worker, night.dispatcher)
    os.kill(night.broker.pid, signal.SIGKILL)
    wait_for(lambda: night.worker.ask("/ready") == "503 the broker does not answer\n")
    wait_for(lambda: night.dispatcher.ask("/ready") == "503 waiting for database and broker\n")
    assert [service.ask("/live") for service in services] == ["ok\n", "ok\n"]
    wait_for(night.broker.server.ensure)
    wait_for(lambda: [service.ask("/ready") for service in services] == ["ok\n", "ok\n"])
    assert night.worker.samples()["kosmograph_broker_reconnects_total",] == 1
    assert night.dispatcher.samples()["kosmograph_outages_total",] == 1


def test_logs_say_who_works_on_what(night: Night) -> None:
    """The last test: it ends the services."""
    lines = night.worker.log()
    assert {line["worker"] for line in lines} == {"w1"}
    done = [line for line in lines if line["event"] == "chunk done"]
    said = sorted((line["chunk"], line["job"], line["attempt"], line["settled"]) for line in done)
    assert said == [(1, "night", 1, 4), (2, "night", 1, 1)]
    finished = [line for line in night.dispatcher.log() if line["event"] == "job finished"]
    assert [line["job"] for line in finished] == ["night"]
