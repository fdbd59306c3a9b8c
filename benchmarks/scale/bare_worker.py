# ruff: noqa: T201
"""A worker with fetching and decoding taken out: the real consumer, task, ledger and scores over images that come of
themselves. It tells what each stage costs.

    python -m benchmarks.scale.bare_worker --db URL --broker URL

Works on chunks of the null model until SIGTERM, then prints one line of JSON: chunks, images, and CPU seconds between
the first message and the last, by stage.
"""

import argparse
import hashlib
import json
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from threading import Lock, local
from typing import Any

import numpy as np

import worker.annotator
import worker.leases
import worker.tasks
from schemas.database import Database
from schemas.logs import configure_logs
from schemas.recipes import queue_name
from schemas.settings import load_settings
from worker.annotator import Annotator
from worker.consumer import consume
from worker.images import LoadedImage
from worker.leases import Leases
from worker.null_engine import NullEngine
from worker.probe import BrokerLink
from worker.revision import NULL, resolve
from worker.tasks import ChunkTask

STAGES = {
    "claim": (worker.tasks, "claim_chunk"),
    "look up": (worker.annotator, "find_annotations"),
    "complete": (worker.tasks, "complete"),
    "leases": (worker.leases, "renew_leases"),
}
"""Where the worker calls the ledger."""
OF_SQLITE = ("do_execute", "do_execute_no_params", "do_executemany", "do_commit")
"""Where SQLAlchemy's dialect calls the driver: what SQLite does, it does in the thread that calls."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--db", required=True)
    options.add_argument("--broker", required=True)
    given = options.parse_args()
    settings = load_settings(db=given.db, broker=given.broker, model=NULL, log_level="warning")
    configure_logs(settings)
    meter = Meter()
    for stage, (module, call) in STAGES.items():
        setattr(module, call, meter.timed(stage, getattr(module, call)))
    name = f"bare:{os.getpid()}"
    ref = resolve(NULL, None, None)
    with (
        closing(Database(settings.db)) as database,
        closing(Database(settings.db)) as apart,
        closing(Leases(apart, name, settings.lease_s)) as leases,
        NullEngine() as engine,
    ):
        if database.is_sqlite:
            for call in OF_SQLITE:
                dialect = database.engine.dialect
                setattr(dialect, call, meter.timed("SQLite", getattr(dialect, call)))
        annotator = Annotator(database, Instant(), engine, settings, "none")
        task = ChunkTask(
            name, database, annotator, leases, settings, lambda error: os.kill(os.getpid(), signal.SIGTERM)
        )
        queue = queue_name(ref.name, ref.revision, ref.dtype)
        metered: Any = Metered(task, meter)
        consume(settings, metered, queue, engine.figures.slots, BrokerLink(), lambda: os._exit(1))
    print(json.dumps(meter.figures()))


class Instant:
    """A loader whose images are there at once, each with bytes of its own by its name."""

    def __init__(self) -> None:
        self._pixels = np.zeros((224, 224, 3), np.uint8)

    def load(self, uri: str, **_: object) -> "Future[LoadedImage]":
        future: Future[LoadedImage] = Future()
        sha256 = hashlib.sha256(uri.encode()).hexdigest()
        future.set_result(LoadedImage(self._pixels, 96, 96, "JPEG", 1800, sha256, "1"))
        return future


@dataclass
class Meter:
    """CPU seconds of threads by stage, those of a stage within another counted once; and of the whole process."""

    chunks: int = 0
    images: int = 0
    _seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _lock: Lock = field(default_factory=Lock)
    _thread: local = field(default_factory=local)
    _first: tuple[float, float] | None = None
    _last: tuple[float, float] = (0.0, 0.0)

    def timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any, **options: Any) -> Any:
            with self.stage(stage):
                return call(*arguments, **options)

        return measured

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        outer, self._thread.within = getattr(self._thread, "within", 0.0), 0.0
        began = time.thread_time()
        try:
            yield
        finally:
            took = time.thread_time() - began
            with self._lock:
                self._seconds[name] += took - self._thread.within
            self._thread.within = outer + took

    @contextmanager
    def message(self, images: int) -> Iterator[None]:
        with self._lock:
            self._first = self._first or (time.monotonic(), time.process_time())
        with self.stage("scores"):
            yield
        with self._lock:
            self.chunks, self.images = self.chunks + 1, self.images + images
            self._last = time.monotonic(), time.process_time()

    def figures(self) -> dict[str, Any]:
        """CPU seconds from the first message to the end of the last: by stage, and what is left of the process."""
        first = self._first or self._last
        whole = self._last[1] - first[1]
        stages = {stage: self._seconds[stage] for stage in (*STAGES, "scores")}
        queue = whole - sum(self._seconds.values())
        return {
            "chunks": self.chunks,
            "images": self.images,
            "from_s": first[0],
            "to_s": self._last[0],
            "cpu_s": stages | {"queue": queue},
            "sqlite_cpu_s": self._seconds["SQLite"],
        }


class Metered:
    """The task of the consumer, with each message measured."""

    def __init__(self, task: ChunkTask, meter: Meter) -> None:
        self._task, self._meter = task, meter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def __call__(self, **message: Any) -> None:
        with self._meter.message(message["images"]):
            self._task(**message)


if __name__ == "__main__":
    main()
