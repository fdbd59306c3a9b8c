"""Jobs on a database, and the services that work on them as processes of their own, to be stopped and killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from producer.queue import Queue
from schemas.broker import broker_name
from schemas.database import Database, patiently
from schemas.items import Item
from schemas.ledger import dispatch, jobs, listing
from schemas.ledger.dispatch import Departure
from schemas.recipes import Recipe
from tests.faults.invariants import assert_sound
from worker.revision import resolve

NULL = resolve("null")
RECIPE = Recipe(task="brief", prompt="p", model=NULL.name, revision=NULL.revision, dtype=NULL.dtype)
ODD_WORKER = Path(__file__).with_name("odd_worker.py")
QUICK = {"KOSMOGRAPH_LOADER_PROCESSES": "1", "KOSMOGRAPH_REQUEUE_GRACE_S": "2", "KOSMOGRAPH_DISPATCH_INTERVAL_S": "0.2"}
"""What keeps the tests from waiting. Leases stay as they are unless a test says so: a busy machine is no crash."""


class Service:
    """One process and its log, and what one does to it."""

    def __init__(self, command: Sequence[str], log: Path, variables: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", *command],
                cwd=log.parent,
                env=os.environ | variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._popen.poll()

    def said(self, words: str) -> bool:
        return words in self.log.read_text()

    def send(self, number: int) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._popen.kill()
        self._popen.wait()

    def ends(self, limit_s: float = 20.0) -> int:
        """Its exit code; it must end by itself within so many seconds."""
        return self._popen.wait(limit_s)

    def family(self) -> list[psutil.Process]:
        """The process, and all that descend from it."""
        myself = psutil.Process(self.pid)
        return [myself, *myself.children(recursive=True)]

    def end(self) -> None:
        if self.code is None:
            family = self.family()
            for one in family:
                one.kill()
            self._popen.wait()


class Night:
    """A database with jobs, a Redis, and whatever works on them."""

    def __init__(self, folder: Path, database: Database, broker: Any, pictures: Sequence[str]) -> None:
        self.database, self.broker, self.pictures = database, broker, pictures
        self._folder = folder
        self._services: dict[str, Service] = {}
        url = database.url.render_as_string(hide_password=False)
        self.variables = QUICK | {"KOSMOGRAPH_DB": url, "KOSMOGRAPH_BROKER": broker.url}

    # -- what there is to do

    def job(
        self, count: int, *, name: str = "job", chunk_size: int = 8, first: int = 1, priority: int = 0
    ) -> list[str]:
        """A listed job of so many pictures from the first one on; their URIs."""
        uris = list(self.pictures[first : first + count])
        assert len(uris) == count
        job = jobs.open_job(self.database, name, [RECIPE], listing="{}", priority=priority)
        listing.register(self.database, job, [Item(uri) for uri in uris], cursor=None, chunk_size=chunk_size)
        listing.finish_listing(self.database, job)
        return uris

    def publish(self, most: int = 1000, times: int = 1) -> list[Departure]:
        """Send as a dispatcher would, each message so many times."""
        name = broker_name(self.broker.url)
        departures = dispatch.take_pending(self.database, RECIPE.queue, name, most)
        with closing(Queue(self.broker.url, name)) as queue:
            for _ in range(times):
                queue.send(RECIPE.queue, departures, pytest.fail)
        return departures

    # -- who does it

    def worker(self, name: str = "w1", image_s: float = 0.0, **variables: str) -> Service:
        """A worker whose model takes so long for an image."""
        return self._start(name, [str(ODD_WORKER), name], {"FAULTS_IMAGE_S": str(image_s)} | variables)

    def dispatcher(self, name: str = "d1", **variables: str) -> Service:
        """One that gives workers two seconds after its start to renew their leases, and not fifteen."""
        return self.command(name, "dispatch", **{"KOSMOGRAPH_LEASE_S": "4"} | variables)

    def command(self, name: str, *arguments: str, **variables: str) -> Service:
        """`kosmograph ARGUMENTS...`"""
        return self._start(name, ["-m", "kosmograph", *arguments], variables)

    def run(self, *arguments: str) -> None:
        """A command to its end, which must be a good one."""
        service = self.command(arguments[0], *arguments)
        assert service.ends(120) == 0, service.log.read_text()

    def _start(self, name: str, command: Sequence[str], variables: dict[str, str]) -> Service:
        log = self._folder / f"{name}-{len(self._services)}.log"
        service = self._services[log.name] = Service(command, log, self.variables | variables)
        return service

    def end(self) -> None:
        for service in self._services.values():
            service.end()

    @contextmanager
    def nobody_writes(self) -> Iterator[None]:
        """Chunks can be read and not changed while the block runs."""
        with self.database.write() as connection:
            if not self.database.is_sqlite:
                connection.execute(text("LOCK TABLE chunks IN EXCLUSIVE MODE"))
            yield

    # -- how it stands

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Rows. A database that is away is waited for."""

        def rows() -> list[tuple[Any, ...]]:
            with self.database.read() as connection:
                return [tuple(row) for row in connection.execute(text(query))]

        return patiently(rows, limit_s=60)

    def count(self, what: str) -> int:
        """How many rows: `outcomes`, or `chunks WHERE …`."""
        return int(self.ask(f"SELECT COUNT(*) FROM {what}")[0][0])

    @property
    def waiting(self) -> int:
        """Messages that wait in Redis."""
        with self.broker.client as client:
            return int(client.llen(RECIPE.queue))

    @property
    def unacknowledged(self) -> int:
        """Messages that a worker has and has not done with."""
        with self.broker.client as client:
            return int(client.hlen("unacked"))

    @property
    def asked_of_redis(self) -> set[str]:
        """The last command of each connection: `brpop` is a worker that wants a message."""
        with self.broker.client as client:
            return {one["cmd"] for one in client.client_list()}

    def is_mid_chunk(self) -> bool:
        """Whether a part of the work is committed, and another is in work."""
        return bool(self.count("outcomes") and self.count("chunks WHERE state = 'running'"))

    def is_over(self) -> bool:
        return not self.count("jobs WHERE state <> 'finished'")

    def until(self, question: Callable[[], Any], limit_s: float = 60.0) -> None:
        """Returns when the answer is yes; fails after so many seconds, with the ends of all logs."""
        deadline = time.monotonic() + limit_s
        while not question():
            if time.monotonic() > deadline:
                logs = [f"== {name}\n{one.log.read_text()[-2000:]}" for name, one in self._services.items()]
                pytest.fail("\n".join([f"not within {limit_s:g} s", *logs]))
            time.sleep(0.05)

    def finish(self, uris: Sequence[str], limit_s: float = 60.0, codes: Sequence[str] = ()) -> None:
        """Wait for the end of the only job, and check that nothing was lost and nothing doubled."""
        self.until(self.is_over, limit_s)
        assert_sound(self.database, uris, codes=codes)

    def blamed(self) -> int:
        """Chunks, finished ones too, that count a crash."""
        return self.count("chunks WHERE crashes > 0")


def is_gone(processes: Sequence[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


EITHER_SIGNAL = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
EITHER_SIGNAL_AND_DATABASE = pytest.mark.parametrize(
    ("number", "database_url"),
    [(signal.SIGTERM, "sqlite"), (signal.SIGINT, "postgresql")],
    ids=["SIGTERM-sqlite", "SIGINT-postgresql"],
    indirect=["database_url"],
)
"""Each signal once and each database once: what heeds the one does not know of the other."""
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
