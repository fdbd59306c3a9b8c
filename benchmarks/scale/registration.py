# ruff: noqa: T201
"""`submit` over a manifest of a million URIs: the first time; again with nothing new; killed in the middle and again.

    python -m benchmarks.scale.registration [--images 1000000] [--db sqlite|postgresql|both|postgresql://…]
                                            [--json FILE]

Between the first pass and the second every image is settled by bare workers (benchmarks/scale/bare_worker.py): the real
consumer, task and ledger, over images that nobody decodes, so that the tables are those of a finished job.
"""

import argparse
import json
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import select

from benchmarks.scale import tables
from benchmarks.scale.bare import manifest, work_off
from benchmarks.scale.commands import finish, run, start
from benchmarks.scale.databases import Place, places, size_of
from benchmarks.scale.figures import keep, machine
from benchmarks.scale.watching import server_cpu_s
from schemas.database import Database
from schemas.items import unpack_items
from schemas.ledger.jobs import Job, find_job
from schemas.tables import chunks, jobs

JOB = "registration"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=1_000_000)
    options.add_argument("--db", default="both")
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    found: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="kosmograph-bench-") as folder:
        path = manifest(Path(folder) / "archive.txt", given.images)
        with places(given.db, Path(folder)) as all_places:
            for place in all_places:
                found[place.kind] = {"images": given.images, **passes(place, path), "killed": killed(place, path)}
                keep(given.json, "registration", found)
    print("\n".join(tables.registration(found)))


def passes(place: Place, path: Path) -> dict[str, Any]:
    """The first pass, and a second one over a finished job."""
    with place.fresh() as db:
        before = size_of(db)
        print(f"registration: first pass, {place.kind} ...", flush=True)
        first = submit(place, path, db)
        registered = size_of(db) - before
        seen = once_each(db, path)
        print(f"registration: settling, {place.kind} ...", flush=True)
        settled = work_off(db, 1 if place.kind == "sqlite" else 2, place.server_pid)
        print(f"registration: second pass, {place.kind} ...", flush=True)
        second = submit(place, path, db)
        job = job_of(db)
    if (job.images, job.annotated, job.state) != (seen, seen, "finished"):
        sys.exit(f"the second pass has changed the job: {job}")
    return {"first": first, "registered_bytes": registered / seen, "settling_s": settled.seconds, "second": second}


def killed(place: Place, path: Path) -> dict[str, Any]:
    """A first pass that is killed with SIGKILL in its middle, and the same command again."""
    print(f"registration: killed in the middle, {place.kind} ...", flush=True)
    with path.open() as file:
        images = sum(1 for _ in file)
    with place.fresh() as db:
        began = time.monotonic()
        process = start(*command(path, db))
        while images_of(db) < images / 2 and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        finish(process, began)
        left = job_of(db)
        if left.cursor is None:
            sys.exit("the listing was over before it could be killed; take more images")
        again = submit(place, path, db)
        seen, job = once_each(db, path), job_of(db)
    return {
        "registered": left.images,
        "cursor": json.loads(left.cursor),
        "again": again,
        "images": job.images,
        "once_each": seen,
    }


def command(path: Path, db: str) -> list[str]:
    return ["submit", f"@{path}", "--job", JOB, "--model", "null", "--db", db]


def submit(place: Place, path: Path, db: str) -> dict[str, float]:
    """One pass: seconds, CPU, peak size."""
    before_s = server_cpu_s(place.server_pid)
    done = run(*command(path, db))
    server_s = server_cpu_s(place.server_pid) - before_s
    return {"wall_s": done.wall_s, "cpu_s": done.cpu_s, "server_cpu_s": server_s, "peak_mb": done.peak_mb}


def job_of(db: str) -> Job:
    with closing(Database(db)) as database:
        return find_job(database, JOB)


def images_of(db: str) -> int:
    """How many the job has by now; 0 before there is one."""
    with closing(Database(db)) as database, database.read() as connection:
        return int(connection.execute(select(jobs.c.images).where(jobs.c.name == JOB)).scalar() or 0)


def once_each(db: str, path: Path) -> int:
    """How many URIs wait in chunks, if these are the manifest's, each once; else the benchmark ends."""
    with path.open() as file:
        listed = {hash(line.rstrip("\n")) for line in file}
    wanted, waiting = len(listed), 0
    with closing(Database(db)) as database, database.read() as connection:
        packed = connection.execution_options(yield_per=1000).execute(select(chunks.c.item_list)).scalars()
        for some in packed:
            for item in unpack_items(some):
                waiting += 1
                listed.discard(hash(item.uri))
    if listed or waiting != wanted:
        sys.exit(f"of {wanted} URIs {len(listed)} are in no chunk, and chunks hold {waiting}")
    return waiting


if __name__ == "__main__":
    main()
