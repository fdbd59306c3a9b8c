# ruff: noqa: T201
"""`status` and the dispatcher before a job of millions of images, all of them waiting.

    python -m benchmarks.scale.status [--chunks 2000,156250] [--db sqlite|postgresql|both|postgresql://…] [--json FILE]

A chunk row stands for 64 images, so 156,250 of them are ten million and 15,625,000 are a billion. The rows are written
straight into the table, with one item each instead of 64: their number, their states and their indexes are real, the
length of their lists is not. The job's counters say what the rows stand for.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from redis import Redis
from sqlalchemy import text

from benchmarks.scale import tables
from benchmarks.scale.bare import manifest, submit
from benchmarks.scale.commands import run
from benchmarks.scale.databases import Place, places, size_of
from benchmarks.scale.figures import keep, machine
from kosmograph.redis_server import RedisServer
from producer.dispatcher import Dispatcher
from producer.queue import Queue
from schemas.broker import broker_name
from schemas.database import Database
from schemas.settings import load_settings

CHUNK_SIZE = 64
REPEATS = 5
NUMBERS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :most) ",
    "postgresql": "WITH n(i) AS (SELECT generate_series(1, :most)) ",
}
ADD_CHUNKS = (
    "INSERT INTO chunks (job_id, item_list, size) {numbers}"
    "SELECT (SELECT id FROM jobs), '[[\"s3://archive/' || i || '.jpg\",\"\",null]]', :size FROM n"
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--chunks", default="2000,156250")
    options.add_argument("--db", default="sqlite")
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    found: dict[str, Any] = {"machine": machine()}
    scratch = tempfile.TemporaryDirectory(prefix="kosmograph-bench-")
    with scratch as folder, places(given.db, Path(folder)) as all_places:
        for chunks in (int(number) for number in given.chunks.split(",")):
            for place in all_places:
                found.setdefault(place.kind, {})[str(chunks)] = measure(place, chunks, Path(folder))
                keep(given.json, "status", found)
    print("\n".join(tables.status(found)))


def measure(place: Place, chunks: int, folder: Path) -> dict[str, Any]:
    """The figures before so many chunk rows."""
    print(f"status: {chunks:,} chunks, {place.kind} ...", flush=True)
    with place.fresh() as db:
        submit(manifest(folder / "archive.txt", CHUNK_SIZE), "status", db)  # the job, and its first chunk
        fill(db, chunks - 1)
        looked = [run("status", "--db", db) for _ in range(REPEATS)]
        return {
            "chunks": chunks,
            "images": chunks * CHUNK_SIZE,
            "status": {
                "wall_s": statistics.median(one.wall_s for one in looked),
                "cpu_s": statistics.median(one.cpu_s for one in looked),
            },
            "steps_ms": steps(db, folder),
            "database_bytes": size_of(db),
        }


def fill(db: str, count: int) -> None:
    """So many chunk rows more, and their images in the job's counter."""
    if not count:
        return
    kind = "sqlite" if db.startswith("sqlite") else "postgresql"
    with closing(Database(db)) as database:
        with database.write() as connection:
            add = text(ADD_CHUNKS.format(numbers=NUMBERS[kind]))
            connection.execute(add, {"most": count, "size": CHUNK_SIZE})
            connection.execute(text("UPDATE jobs SET images = images + :more"), {"more": count * CHUNK_SIZE})
        if kind == "postgresql":  # as autovacuum does after so many rows
            with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE chunks"))


def steps(db: str, folder: Path) -> dict[str, dict[str, float]]:
    """Milliseconds of a dispatcher's step that fills an empty queue, and of one that finds it full: median, and CPU."""
    below = folder / "redis"
    below.mkdir(exist_ok=True)
    redis = RedisServer(below)
    try:
        with (
            closing(Database(db)) as database,
            closing(Queue(redis.url, broker_name(redis.url))) as queue,
            closing(Redis(unix_socket_path=redis.url.removeprefix("redis+socket://").partition("?")[0])) as client,
        ):
            dispatcher = Dispatcher(database, queue, load_settings(db=db, broker=redis.url))
            filling, idle = [], []
            for _ in range(REPEATS):
                client.flushall()
                filling.append(_timed(dispatcher.step))
                idle.append(_timed(dispatcher.step))
    finally:
        redis.stop()
    return {"filling": _median(filling[1:]), "idle": _median(idle[1:])}  # the first one connects


def _timed(step: Callable[[], object]) -> tuple[float, float]:
    began, cpu = time.monotonic(), time.thread_time()
    step()
    return time.monotonic() - began, time.thread_time() - cpu


def _median(times: list[tuple[float, float]]) -> dict[str, float]:
    wall, cpu = zip(*times, strict=True)
    return {"wall": statistics.median(wall) * 1000, "cpu": statistics.median(cpu) * 1000}


if __name__ == "__main__":
    main()
