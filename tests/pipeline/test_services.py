"""The same work by services of their own, around a Redis that all share."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas.errors import TRY_AGAIN
from schemas.version import HEAD


def test_submitted_job_is_done_by_dispatcher_and_workers(
    kosmograph, many, database_url: str, own_broker, wait_for: Callable[..., Any], tmp_path: Path
) -> None:
    """Given a job, when two workers and two dispatchers run, then each image is annotated once; SIGTERM ends them.

    The dispatchers are to tell a command of the end: one of them does.
    """
    everywhere = {"KOSMOGRAPH_DB": database_url, "KOSMOGRAPH_BROKER": own_broker.url, "KOSMOGRAPH_CHUNK_SIZE": "8"}
    notes = tmp_path / "notes"
    everywhere["KOSMOGRAPH_NOTIFY"] = f"sh -c 'echo $NOTICE_JOB $NOTICE_STATE >> {notes}'"
    run = kosmograph("submit", str(many(100)), "--job", "night", "--model", "null", **everywhere)
    assert run.code == 0, run.err
    assert "night: 100 images, 0 annotated, 0 reused, 0 failed, 100 pending" in run.out
    commands = (("dispatch",), ("dispatch",), ("worker", "--model", "null"), ("worker", "--model", "null"))
    services = [kosmograph.start(*command, **everywhere) for command in commands]

    def status() -> dict[str, Any]:
        return dict(json.loads(kosmograph.here("status", "night", "--json", **everywhere).out)[0])

    assert kosmograph.here("wait", "night", "--timeout", "60s", **everywhere).code == 0
    wait_for(notes.exists)
    assert (status()["annotated"], status()["reused"], status()["failed"]) == (100, 0, 0)
    for service in services:
        service.send_signal(signal.SIGTERM)
    for service in services:
        _, err = service.communicate(timeout=60)
        assert service.returncode == 0, err
    assert notes.read_text() == "night finished\n"


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


def test_schema_is_made_by_a_step_of_its_own(kosmograph) -> None:
    """And again by the next one, which finds nothing to do; one whose database is away says that it may come back."""
    for _ in range(2):
        run = kosmograph.here("migrate")
        assert (run.code, run.out) == (0, f"sqlite:///kosmograph.db has schema {HEAD}\n")
    assert kosmograph.here("status").code == 0
    assert kosmograph.here("migrate", "--db", "postgresql://me:hunter2@127.0.0.1:1/x").code == TRY_AGAIN


def test_dispatcher_that_finds_its_database_away_says_that_another_may_do_better(kosmograph, broker) -> None:
    run = kosmograph("dispatch", "--db", "postgresql://me:hunter2@127.0.0.1:1/x", "--broker", broker.url)
    assert run.code == TRY_AGAIN
    assert "cannot use" in run.err
    assert "hunter2" not in run.err
