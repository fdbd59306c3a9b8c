"""What somebody who may write to Redis could put into the queue: each is refused and counted, and the worker lives."""

import base64
import copy
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas.database import Database
from schemas.ledger import jobs
from schemas.recipes import queue_name
from tests.worker.test_process import NULL, Process, send
from tests.worker.test_process import null_job as null_job
from tests.worker.test_process import start as start

NO_MESSAGES = [b"", b"\xff\xfe\x00", b"nonsense", b"[]", b"7", b"null", b"{}", b'{"body": 1}', b"[" * 100_000]


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self._mark,))


def forgeries(good: dict[str, Any], mark: Path) -> tuple[list[bytes], list[bytes]]:
    """Messages in all but one thing: those that are to be refused, and those in which that thing moves nobody."""

    def forged(change: Callable[[dict[str, Any]], object]) -> bytes:
        message = copy.deepcopy(good)
        message["properties"]["delivery_tag"] = os.urandom(8).hex()
        change(message)
        return json.dumps(message).encode()

    def body(value: object, **headers: object) -> bytes:
        encoded = base64.b64encode(json.dumps(value).encode()).decode()
        return forged(lambda message: (message.update(body=encoded), message["headers"].update(headers)))

    pickled = base64.b64encode(pickle.dumps(Bomb(mark))).decode()
    embedded = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    signature = {"task": "os.system", "args": [f"touch {mark}"], "kwargs": {}, "options": {}, "subtask_type": None}
    ours = {"chunk_id": 1, "fence": 1, "images": 1}
    refused = [
        forged(lambda message: message.update({"body": pickled, "content-type": "application/x-python-serialize"})),
        forged(lambda message: message.update({"content-type": "application/x-yaml"})),
        forged(lambda message: message.update(headers=None)),
        forged(lambda message: message.update(headers={"task": "x" * 10_000_000})),
        forged(lambda message: message["headers"].pop("id")),
        forged(lambda message: message["headers"].update(task={"a": 1})),
        forged(lambda message: message["headers"].update(task=["os.system"])),
        forged(lambda message: message["properties"].pop("delivery_tag")),
        forged(lambda message: message["properties"].update(delivery_tag=None)),
        forged(lambda message: message["properties"].update(delivery_tag=["a"])),
        forged(lambda message: message["properties"].pop("delivery_info")),
        body([[], {**ours, "images": "x" * 10_000_000}, embedded]),
        body([[], {**ours, "job": "mine"}, embedded]),
        body([[], {"self": 1}, embedded]),
        body([[], {**ours, "self": 1}, embedded]),
        body([[], {**ours, "chunk_id": [1]}, embedded]),
        body([[], {**ours, "chunk_id": "; DROP"}, embedded]),
        body([[1, 2, 3], {}, embedded]),
        body([[1], ours, embedded]),
        body({"not": "a list"}),
        body("nonsense"),
        body([[], ours, embedded], eta="2020-13-45"),
        body([[], ours, embedded], expires="soon"),
        body([[], ours, embedded], timelimit="x"),
        body([[], ours, embedded], task="celery.chord"),
        body([[], ours, embedded], task="os.system"),
        body([[], ours, embedded], task="kosmograph.nothing\x1b[31m"),
    ]
    harmless = [
        forged(lambda message: message.update({"content-encoding": "no-such"})),
        body([[], ours, {**embedded, "callbacks": [signature], "chain": [signature], "errbacks": [signature]}]),
        body([[], ours, {**embedded, "chord": signature}]),
    ]
    return refused, harmless


def test_worker_outlives_every_forgery_and_counts_what_it_refused(
    database: Database,
    database_url: str,
    broker: Any,
    start: Callable[..., Process],
    null_job: Callable[[int], jobs.Job],
    wait_for: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Given forgeries before, between and behind two real chunks, one of them doubled, then both are done, once."""
    job, name, mark = null_job(2), queue_name(NULL.name, NULL.revision, NULL.dtype), tmp_path / "mark"
    send(database, broker.url, most=1)
    with broker.client as client:
        good = client.lindex(name, 0)
        forged, harmless = forgeries(json.loads(good), mark)
        for element in (*NO_MESSAGES, *forged, *harmless, good, good):
            client.lpush(name, element)
    send(database, broker.url, most=1)
    worker = start(database_url, broker.url, "--model", "null")
    with broker.client as client:
        wait_for(lambda: client.llen(name) == 0 and jobs.get_job(database, job.id).annotated == 2, 120.0)
        wait_for(lambda: not client.hlen("unacked"))
    assert worker.popen.poll() is None
    worker.popen.terminate()
    assert worker.popen.wait(30) == 0
    log = worker.log.read_text()
    refused = sorted(int(number) for number in re.findall(r'"refused": (\d+)', log))
    assert refused == list(range(1, len(NO_MESSAGES) + len(forged) + 1))
    assert log.count("message refused") == len(refused)
    assert not mark.exists()
    assert len(log) < 100_000
    assert "\x1b" not in log
    assert jobs.get_job(database, job.id).settled == 2
