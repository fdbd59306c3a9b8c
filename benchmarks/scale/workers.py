# ruff: noqa: T201
"""Several workers and two dispatchers on one PostgreSQL and one Redis: how far they scale.

    python -m benchmarks.scale.workers [--images 20000] [--bare-images 50000] [--workers 1,2,4]
                                       [--db postgresql|postgresql://…] [--json FILE] [--keep FOLDER]

First the services as a person starts them, over 96×96 JPEGs of unique bytes. Then with decoding taken out, where the
ledger is all there is: the same number of workers over one job, and over four jobs, whose completions need not wait for
each other's counters.
"""

import argparse
import signal
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.pictures import draw_many
from benchmarks.scale import tables
from benchmarks.scale.bare import manifest, submit, wait_for_end, work_off
from benchmarks.scale.commands import run, start
from benchmarks.scale.databases import Place, places, settings_of
from benchmarks.scale.figures import keep, machine
from benchmarks.scale.watching import Watch, summary
from kosmograph.redis_server import RedisServer

DISPATCHERS = 2


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=20_000)
    options.add_argument("--bare-images", type=int, default=50_000)
    options.add_argument("--workers", default="1,2,4")
    options.add_argument("--jobs", default="1,4", help="of the runs without decoding")
    options.add_argument("--db", default="postgresql")
    options.add_argument("--json", type=Path)
    options.add_argument("--keep", type=Path, metavar="FOLDER", help="where the images stay")
    given = options.parse_args()
    numbers = [int(number) for number in given.workers.split(",")]
    found: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="kosmograph-bench-") as name:
        folder = Path(name)
        images = (given.keep or folder) / f"images-{given.images}"
        if not images.exists():
            draw_many(images, given.images)
        with places(given.db, folder) as (place,):
            for workers in numbers:
                found.setdefault("whole", {})[str(workers)] = whole(place, images, given.images, workers, folder)
                keep(given.json, "workers", found)
            for jobs in (int(number) for number in given.jobs.split(",")):
                for workers in numbers:
                    figures = bare(place, given.bare_images, workers, jobs, folder)
                    found.setdefault("bare", {})[f"{workers} workers, {jobs} jobs"] = figures
                    keep(given.json, "workers", found)
    print("\n".join(tables.workers(found)))


def whole(place: Place, images: Path, count: int, workers: int, folder: Path) -> dict[str, Any]:
    """Services over images that are read and decoded."""
    print(f"workers: {workers}, {DISPATCHERS} dispatchers ...", flush=True)
    below = folder / f"redis-{workers}"
    below.mkdir()
    redis = RedisServer(below)
    with place.fresh() as db:
        run("submit", str(images), "--job", "workers", "--model", "null", "--db", db)
        settings = {
            "KOSMOGRAPH_DB": db,
            "KOSMOGRAPH_BROKER": redis.url,
            "KOSMOGRAPH_WORKERS": str(workers),  # each takes its part of the cores
            "KOSMOGRAPH_LOG_LEVEL": "warning",
        }
        services = []
        try:
            with Watch(db, place.server_pid) as watch:
                services += [start("dispatch", **settings) for _ in range(DISPATCHERS)]
                services += [start("worker", "--model", "null", "--device", "cpu", **settings) for _ in range(workers)]
                wait_for_end(db, services)
        finally:
            for service in services:
                service.send_signal(signal.SIGTERM)
            for service in services:
                service.communicate()
            redis.stop()
        return {"workers": workers, "images": count, "database": settings_of(db), **summary(watch.looks, count)}


def bare(place: Place, count: int, workers: int, jobs: int, folder: Path) -> dict[str, Any]:
    """Bare workers over manifests; the images are spread over the jobs."""
    print(f"workers: {workers} without decoding, {jobs} jobs ...", flush=True)
    with place.fresh() as db:
        for number in range(jobs):
            each = count // jobs
            submit(manifest(folder / f"archive-{number}.txt", each, first=number * each), f"bare-{number}", db)
        done = work_off(db, workers, place.server_pid)
    return {
        "workers": workers,
        "jobs": jobs,
        "images_per_s": done.images / done.seconds,
        "chunks_per_s": done.chunks / done.seconds,
        "cpu_us": sum(done.cpu_us().values()),
        "dispatcher_cpu_us": done.dispatcher_cpu_s / done.images * 1e6,
        "server_cpu_us": done.server_cpu_us(),
        "busy": summary(done.looks, done.images)["steady_busy"],
    }


if __name__ == "__main__":
    main()
