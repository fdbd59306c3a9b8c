# ruff: noqa: T201
"""How long the images of a killed worker wait, at the default settings: two workers, one of them killed in mid-chunk.

    python -m benchmarks.scale.recovery [--kills 5] [--images 20000] [--db sqlite|postgresql|both|postgresql://…]
                                        [--json FILE]

The services run as a person starts them. The clock begins at `kill -9`; read when the dispatcher has put back what the
killed worker had in work, and when the other one has finished the job.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from sqlalchemy import Select, func, select

from benchmarks.pictures import draw_many
from benchmarks.scale import tables
from benchmarks.scale.commands import progress, run, start
from benchmarks.scale.databases import Place, places
from benchmarks.scale.figures import keep, machine
from kosmograph.redis_server import RedisServer
from schemas.database import Database
from schemas.tables import chunks, jobs

AT_MOST_S = 300.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=5)
    options.add_argument("--images", type=int, default=20_000, help="enough that the job is not over before the kill")
    options.add_argument("--db", default="both")
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    found: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="kosmograph-bench-") as name:
        images = Path(name) / "images"
        draw_many(images, given.images)
        with places(given.db, Path(name)) as all_places:
            for place in all_places:
                found[place.kind] = [kill(place, images, Path(name), number) for number in range(given.kills)]
                keep(given.json, "recovery", found)
    print("\n".join(tables.recovery(found)))


def kill(place: Place, images: Path, folder: Path, number: int) -> dict[str, Any]:
    """One job, in which one of two workers is killed."""
    print(f"recovery: {place.kind}, kill {number + 1} ...", flush=True)
    below = folder / f"redis-{place.kind}-{number}"
    below.mkdir()
    with place.fresh() as db, ExitStack() as last, closing(Database(db)) as database:
        redis = RedisServer(below)
        last.callback(redis.stop)
        settings = {"KOSMOGRAPH_DB": db, "KOSMOGRAPH_BROKER": redis.url, "KOSMOGRAPH_LOG_LEVEL": "warning"}
        run("submit", str(images), "--job", "recovery", "--model", "null", "--db", db)

        def serve(*arguments: str) -> "subprocess.Popen[str]":
            service = start(*arguments, **settings)
            last.callback(end, service)
            return service

        def ask(question: Select[Any]) -> int:
            with database.read() as connection:
                return int(connection.execute(question).scalar_one())

        serve("dispatch")
        victim = serve("worker", "--model", "null", "--device", "cpu", "--name", "victim")
        held = select(func.count()).where(chunks.c.worker == "victim", chunks.c.state == "running")
        settled = select(jobs.c.annotated)
        until(lambda: ask(held))  # and only then the other one, who might have taken all
        serve("worker", "--model", "null", "--device", "cpu", "--name", "other")
        until(lambda: ask(settled) >= 1000 and ask(held))
        victim.kill()
        began = time.monotonic()
        victim.wait()
        lost = ask(held)
        until(lambda: not ask(held))
        put_back_s = time.monotonic() - began
        until(lambda: progress(db)[0]["state"] == "finished")
        finished_s = time.monotonic() - began
        (job,) = progress(db)
        if job["failed"]:
            sys.exit(f"images have failed: {job}")
    return {"chunks": lost, "put_back_s": put_back_s, "finished_s": finished_s}


def end(service: "subprocess.Popen[str]") -> None:
    service.terminate()
    service.communicate()


def until(question: Callable[[], object]) -> None:
    """Returns when the answer is yes; the benchmark ends if that takes too long."""
    deadline = time.monotonic() + AT_MOST_S
    while not question():
        if time.monotonic() > deadline:
            sys.exit(f"not within {AT_MOST_S:g} s")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
