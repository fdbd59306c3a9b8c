"""Runs with decoding taken out: manifests of images that nobody fetches, bare workers, one dispatcher, one Redis."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from sqlalchemy import select

from benchmarks.scale.commands import progress, run
from benchmarks.scale.watching import Look, Watch
from kosmograph.redis_server import RedisServer
from producer.dispatcher import Dispatcher
from producer.queue import Queue
from schemas.broker import broker_name
from schemas.database import Database
from schemas.logs import configure_logs
from schemas.settings import load_settings
from schemas.tables import jobs

WATERMARKS = {"queue_low": 512, "queue_high": 1024}
"""Bare workers empty a queue of 64 chunks, the default low mark, between two steps of the dispatcher."""


def manifest(path: Path, images: int, first: int = 0) -> Path:
    """A list of so many URIs as an archive in S3 has them."""
    with path.open("w") as file:
        for number in range(first, first + images):
            file.write(f"s3://archive/photos/{number // 1000:06}/{number:010}.jpg\n")
    return path


def submit(path: Path, job: str, db: str, chunk_size: str = "64") -> None:
    run("submit", f"@{path}", "--job", job, "--model", "null", "--db", db, KOSMOGRAPH_CHUNK_SIZE=chunk_size)


@dataclass(frozen=True)
class Bare:
    """What came of a run: what each worker told, the dispatcher's CPU, and the looks from outside."""

    workers: Sequence[dict[str, Any]]
    dispatcher_cpu_s: float
    looks: Sequence[Look]

    @property
    def images(self) -> int:
        return sum(worker["images"] for worker in self.workers)

    @property
    def chunks(self) -> int:
        return sum(worker["chunks"] for worker in self.workers)

    @property
    def seconds(self) -> float:
        """From the first message to the end of the last."""
        return float(max(one["to_s"] for one in self.workers) - min(one["from_s"] for one in self.workers))

    def cpu_us(self) -> dict[str, float]:
        """µs of CPU an image by stage of the worker."""
        stages = self.workers[0]["cpu_s"]
        return {stage: sum(one["cpu_s"][stage] for one in self.workers) / self.images * 1e6 for stage in stages}

    def server_cpu_us(self) -> float:
        """µs of CPU an image that the database took: PostgreSQL in its processes, SQLite in the workers' threads."""
        seconds = self.looks[-1].cpu_s.get("PostgreSQL", 0.0) + sum(one["sqlite_cpu_s"] for one in self.workers)
        return seconds / self.images * 1e6


def work_off(db: str, workers: int, server_pid: int | None = None) -> Bare:
    """Everything that is registered, done by so many bare workers; the benchmark ends if something is left undone."""
    configure_logs(load_settings(log_level="warning"))
    with tempfile.TemporaryDirectory(prefix="kosmograph-bench-") as folder:
        redis = RedisServer(Path(folder))
        command = [sys.executable, "-m", "benchmarks.scale.bare_worker", "--db", db, "--broker", redis.url]
        running: list[subprocess.Popen[str]] = []
        try:
            with Watch(db, server_pid) as watch:
                running.extend(subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(workers))
                with _dispatching(db, redis.url) as cpu_s:
                    wait_for_end(db, running)
                for worker in running:
                    worker.terminate()
                told = [json.loads(worker.communicate()[0].splitlines()[-1]) for worker in running]
        finally:
            for worker in running:
                worker.terminate()
            redis.stop()
    return Bare([one for one in told if one["chunks"]], cpu_s[0], watch.looks)


@contextmanager
def _dispatching(db: str, broker: str) -> Iterator[list[float]]:
    """A dispatcher in a thread; its CPU seconds stand in the list when the block has ended."""
    stop, cpu_s = Event(), [0.0]
    with closing(Database(db)) as database, closing(Queue(broker, broker_name(broker))) as queue:
        dispatcher = Dispatcher(database, queue, load_settings(db=db, broker=broker, **WATERMARKS))

        def feed() -> None:
            began = time.thread_time()
            dispatcher.run(stop)
            cpu_s[0] = time.thread_time() - began

        thread = Thread(target=feed)
        thread.start()
        try:
            yield cpu_s
        finally:
            stop.set()
            thread.join()


def wait_for_end(db: str, running: Sequence["subprocess.Popen[str]"]) -> None:
    """Until no job runs any more; the benchmark ends if a process does, or if something is left undone."""
    while "running" in _states(db):
        if dead := [worker.returncode for worker in running if worker.poll() is not None]:
            sys.exit(f"a process ended before the jobs did, with {dead[0]}")
        time.sleep(0.2)
    if left := [job for job in progress(db) if job["state"] != "finished" or job["failed"]]:
        sys.exit(f"left undone: {left}")


def _states(db: str) -> list[str]:
    with closing(Database(db)) as database, database.read() as connection:
        return list(connection.execute(select(jobs.c.state)).scalars())
