"""The same work by services of their own, around a Redis that all share."""

import json
import signal
from collections.abc import Callable
from typing import Any

from schemas.errors import TRY_AGAIN


def test_submitted_job_is_done_by_dispatcher_and_workers(
    kosmograph, many, database_url: str, own_broker, wait_for: Callable[..., Any]
) -> None:
    """Given a job, when two workers and two dispatchers run, then each image is annotated once; SIGTERM ends them."""
    everywhere = {"KOSMOGRAPH_DB": database_url, "KOSMOGRAPH_BROKER": own_broker.url, "KOSMOGRAPH_CHUNK_SIZE": "8"}
    run = kosmograph("submit", str(many(100)), "--job", "night", "--model", "null", **everywhere)
    assert run.code == 0, run.err
    assert "night: 100 images, 0 annotated, 0 reused, 0 failed, 100 pending" in run.out
    commands = (("dispatch",), ("dispatch",), ("worker", "--model", "null"), ("worker", "--model", "null"))
    services = [kosmograph.start(*command, **everywhere) for command in commands]

    def status() -> dict[str, Any]:
        return dict(json.loads(kosmograph.here("status", "night", "--json", **everywhere).out)[0])

    wait_for(lambda: status()["state"] == "finished", 60.0)
    assert (status()["annotated"], status()["reused"], status()["failed"]) == (100, 0, 0)
    for service in services:
        service.send_signal(signal.SIGTERM)
    for service in services:
        _, err = service.communicate(timeout=60)
        assert service.returncode == 0, err


def test_job_of_another_broker_goes_on_without_it(kosmograph, many, own_broker, wait_for: Callable[..., Any]) -> None:
    """Given chunks in a Redis that no worker reads, when the same command has none to name, then it does them."""
    folder = str(many(20))
    waiting = kosmograph.start(
        "annotate", folder, "--model", "null", "--workers", "0", "--broker", own_broker.url
    )  # fmt: skip
    queued = ("sql", "SELECT COUNT(*) FROM jobs WHERE images = 20", "--format", "csv")
    wait_for(lambda: kosmograph.here(*queued).out.endswith("1\n"), 60.0)
    waiting.send_signal(signal.SIGINT)
    waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    run = kosmograph.annotate(folder)
    assert run.code == 0, run.err
    assert "20 images, 20 annotated" in run.out


def test_dispatcher_that_finds_its_database_away_says_that_another_may_do_better(kosmograph, broker) -> None:
    run = kosmograph("dispatch", "--db", "postgresql://me:hunter2@127.0.0.1:1/x", "--broker", broker.url)
    assert run.code == TRY_AGAIN
    assert "cannot use" in run.err
    assert "hunter2" not in run.err
