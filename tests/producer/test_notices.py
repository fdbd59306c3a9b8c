"""Who is told of a job's end: a real server, real commands, and what happens where neither does its part."""

import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from producer import notices, targets
from producer.dispatcher import Dispatcher
from producer.notices import Notifier, document_of
from producer.queue import Queue
from producer.targets import Untold, target_of
from schemas.database import Database
from schemas.errors import UsageError
from schemas.items import Item
from schemas.ledger import jobs, listing
from schemas.ledger.announcements import claim_announcement
from schemas.ledger.jobs import News
from schemas.recipes import Recipe
from schemas.settings import Settings, load_settings
from tests.producer.hook import SECRET, Hook


@pytest.fixture
def hook() -> Iterator[Hook]:
    one = Hook()
    yield one
    one.close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "PAUSES_S", (0.0, 0.0, 0.0))


@pytest.fixture
def ended(database: Database) -> jobs.Job:
    """A job that has paused, for a reason with a file's name in it."""
    recipe = Recipe(task="brief", prompt="p", model="null", revision="r", dtype="float32")
    job = jobs.open_job(database, "night", [recipe], listing="{}")
    listing.register(database, job, [Item("s3://night/1", "v")], cursor=None, chunk_size=1)
    assert jobs.pause_job(database, job.id, "the last: <!channel>\n.jpg")
    return job


def told(database: Database, notify: str) -> list[Any]:
    """A notifier looks once and ends; what it logged."""
    notifier = Notifier(database, target_of(notify, "sqlite:///mine.db"))
    with structlog.testing.capture_logs() as logs:
        notifier.look()
        notifier.finish(30.0)
    return logs


def announced(database: Database) -> Any:
    with database.read() as connection:
        return connection.exec_driver_sql("SELECT announced FROM jobs").scalar_one()


def test_webhook_is_told_in_json_with_a_line_for_people(database: Database, ended: jobs.Job, hook: Hook) -> None:
    told(database, hook.url)
    (document,) = hook.told
    started = datetime.fromisoformat(document.pop("started_at"))
    assert abs(datetime.now(UTC) - started) < timedelta(minutes=5)
    counts = {
        "images": 1,
        "annotated": 0,
        "reused": 0,
        "failed": 0,
        "pending": 1,
        "new": 0,
        "new_failed": 0,
        "images_per_s": 0.0,
    }
    assert document == counts | {
        "text": "Kosmograph: the job night is paused: the last: ‹!channel›\\n.jpg; 1 images, 0 annotated, "
        "0 reused, 0 failed, 1 pending",
        "job": "night",
        "state": "paused",
        "reason": "the last: <!channel>\n.jpg",
        "failures": {},
        "finished_at": None,
    }
    assert hook.headers[0]["Content-Type"] == "application/json"
    assert hook.headers[0]["path"] == f"/{SECRET}?token={SECRET}"
    assert announced(database).startswith("paused: the last")
    assert told(database, hook.url) == []


def test_webhook_that_fails_for_a_while_is_told_in_the_end(database: Database, ended: jobs.Job, hook: Hook) -> None:
    hook.answers = [503, 429, 500]
    logs = told(database, hook.url)
    assert len(hook.told) == 4
    assert [entry["event"] for entry in logs] == ["told"]


@pytest.mark.parametrize(
    ("answers", "tries", "why"),
    [([500] * 9, 4, "answers 500"), ([404] * 9, 1, "answers 404"), ([302] * 9, 1, "answers 302: no redirect")],
    ids=["broken", "unknown", "moved"],
)
def test_webhook_that_does_not_take_it_is_given_up_in_one_line_without_its_secret(
    database: Database, ended: jobs.Job, hook: Hook, answers: list[int], tries: int, why: str
) -> None:
    hook.answers = answers
    (entry,) = told(database, hook.url)
    assert len(hook.told) == tries
    assert why in entry["why"]
    assert "hunter2" not in str(entry)
    assert entry["target"] == "http://127.0.0.1/***"
    assert claim_announcement(database) is None


def test_user_and_password_of_a_webhook_go_in_a_header_and_nowhere_else(
    database: Database, ended: jobs.Job, hook: Hook
) -> None:
    logs = told(database, hook.url.replace("http://", "http://me:p%40ss€@"))
    assert hook.headers[0]["Authorization"] == "Basic bWU6cEBzc+KCrA=="
    assert "p%40ss" not in str(logs)
    assert "p@ss" not in str(logs)


def test_webhook_with_a_certificate_of_nobody_is_not_told(database: Database, ended: jobs.Job, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(tmp_path))
    hook = Hook(context)
    try:
        (entry,) = told(database, hook.url)
    finally:
        hook.close()
    assert "certificate is not trusted" in entry["why"]
    assert "hunter2" not in str(entry)
    assert not hook.told


def test_what_cannot_be_reached_is_said_without_its_path(database: Database, ended: jobs.Job, hook: Hook) -> None:
    hook.close()
    (entry,) = told(database, hook.url)
    assert entry["why"] == "it cannot be reached"
    assert "hunter2" not in str(entry)


@pytest.mark.parametrize(("news", "line"), [(News(0, 0), "nothing was new"), (News(2, 1), "new: 2, 9.5 images/s")])
def test_night_after_others_is_told_with_what_was_new(
    database: Database, ended: jobs.Job, news: News, line: str
) -> None:
    paused = claim_announcement(database)
    assert paused
    night = replace(paused, state="finished", reason=None, annotated=5, pending=0, images_per_s=9.5, news=news)
    document = document_of(night)
    assert document["text"].endswith(f"5 annotated, 0 reused, 0 failed, {line}")
    assert (document["new"], document["new_failed"]) == (news.settled, news.failed)


def test_command_has_the_json_on_its_standard_input_and_a_few_variables(
    database: Database, ended: jobs.Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that calls kosmograph finds the database, and no setting that kosmograph does not know."""
    out = tmp_path / "told"
    script = tmp_path / "tell it.sh"
    script.write_text(f'#!/bin/sh\ncat > "{out}.json"\nenv > "{out}.env"\n')
    script.chmod(0o755)
    told(database, f"'{script}' --to 'the team'")
    assert json.loads(Path(f"{out}.json").read_text())["job"] == "night"
    given = Path(f"{out}.env").read_text()
    assert {"NOTICE_JOB=night", "NOTICE_STATE=paused"} <= set(given.splitlines())
    ours = dict(line.split("=", 1) for line in given.splitlines() if line.startswith("KOSMOGRAPH_"))
    assert ours == {"KOSMOGRAPH_DB": "sqlite:///mine.db"}
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    assert load_settings().db == "sqlite:///mine.db"


def test_command_that_fails_is_tried_again_and_named_without_its_arguments(
    database: Database, ended: jobs.Job, tmp_path: Path
) -> None:
    (entry,) = told(database, f"sh -c 'echo x >> {tmp_path}/tries; exit 7' hunter2")
    assert (tmp_path / "tries").read_text() == "x\n" * 4
    assert entry["why"] == "it ended with exit code 7"
    assert entry["target"] == "sh"
    assert "hunter2" not in str(entry)


def test_command_that_does_not_end_is_killed_with_all_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "COMMAND_S", 0.2)
    command = target_of("sh -c 'sleep 600 & sleep 600'", "")
    with pytest.raises(Untold, match="had not ended after"):
        command.tell({"job": "night", "state": "paused", "reason": None, "text": ""})


def test_pause_that_could_not_be_told_gives_way_to_the_end(database: Database, ended: jobs.Job) -> None:
    """Else it would be told after the end, by a dispatcher that tries again, where another has told that."""
    heard: list[str] = []

    class Deaf:
        name = "deaf"

        def tell(self, document: dict[str, Any]) -> None:
            heard.append(document["state"])
            jobs.cancel_job(database, ended.id)
            if document["state"] == "paused":
                raise Untold("not now", passing=True)

    notifier = Notifier(database, Deaf())
    for _ in range(2):
        notifier.look()
        assert notifier._thread is not None
        notifier._thread.join()
    assert heard == ["paused", "cancelled"]
    assert announced(database).startswith("cancelled at")


def test_who_is_told_too_slowly_is_left_to_another(database: Database, ended: jobs.Job, tmp_path: Path) -> None:
    """As at the end of `annotate`, or of a dispatcher: nobody waits longer than that."""
    go = tmp_path / "go"
    notifier = Notifier(database, target_of(f"sh -c 'while ! test -e {go}; do sleep 0.05; done'", ""))
    notifier.look()
    assert notifier.in_hand == "sh"
    with structlog.testing.capture_logs() as logs:
        notifier.finish(0.0)
    assert [(entry["event"], entry["why"]) for entry in logs] == [("not told in time", "no answer yet")]
    assert announced(database) == "owed"
    go.touch()
    assert notifier._thread is not None
    notifier._thread.join()
    assert announced(database) == "owed"


def test_who_could_not_be_told_in_time_is_named_with_the_reason(
    database: Database, ended: jobs.Job, wait_for: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "PAUSES_S", (600.0,))
    notifier = Notifier(database, target_of("sh -c 'exit 7'", ""))
    notifier.look()
    wait_for(lambda: notifier._why == "it ended with exit code 7")
    with structlog.testing.capture_logs() as logs:
        notifier.finish(0.0)
    assert [(entry["event"], entry["why"]) for entry in logs] == [("not told in time", "it ended with exit code 7")]
    assert announced(database) == "owed"


@pytest.mark.parametrize("wrong", ["", " ", "no-such-command --at all", "https://", "'", "https://hunter2:x:y@@/"])
def test_target_that_can_be_none_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(UsageError, match="--notify") as error:
        target_of(wrong, "")
    assert "hunter2" not in str(error.value)


def test_settings_do_not_show_whom_they_name() -> None:
    assert "hunter2" not in repr(Settings(notify="https://hooks/hunter2"))


def test_dispatching_does_not_wait_for_whoever_is_told(
    database: Database, ended: jobs.Job, broker: Any, tmp_path: Path, wait_for: Callable[..., Any]
) -> None:
    go, seen = tmp_path / "go", tmp_path / "seen"
    slow = f"sh -c 'touch {seen}; while ! test -e {go}; do sleep 0.05; done'"
    queue = Queue(broker.url, "here")
    dispatcher = Dispatcher(database, queue, Settings(), notifier=Notifier(database, target_of(slow, "")))
    try:
        dispatcher.step()
        wait_for(seen.exists)
        recipe = Recipe(task="brief", prompt="p", model="null", revision="r", dtype="float32")
        other = jobs.open_job(database, "other", [recipe], listing="{}")
        listing.register(database, other, [Item("s3://other/1", "v")], cursor=None, chunk_size=1)
        assert dispatcher.step() == 1
    finally:
        go.touch()
        assert dispatcher.notifier is not None
        dispatcher.notifier.finish(30.0)
        queue.close()


def _certificate(folder: Path) -> Path:
    """One that nobody has signed, for this machine, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *form) + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
