# ruff: noqa: T201
"""What queue and ledger cost an image, stage by stage: one worker without loading and decoding, on a real Redis.

    python -m benchmarks.scale.stages [--images 20000] [--chunk-sizes 64,256]
                                      [--db sqlite|postgresql|both|postgresql://…] [--json FILE]

CPU of the worker's threads: `claim`, `look up`, `complete` and `leases` are its calls of the ledger, without what
SQLite does in them, which is told apart as PostgreSQL's is; `queue` is Celery and whatever else belongs to no task;
`scores` is parsing, scoring and the way of an image through its chunk. Queue and ledger together are what the project
allows 100 µs an image. Most of it is a chunk's and not an image's: hence the chunk sizes, of which 64 is the default.
"""

import argparse
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.scale import tables
from benchmarks.scale.bare import manifest, submit, work_off
from benchmarks.scale.databases import Place, places
from benchmarks.scale.figures import keep, machine


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=20_000)
    options.add_argument("--chunk-sizes", default="64,256", help="with commas between")
    options.add_argument("--db", default="both")
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    found: dict[str, Any] = {"machine": machine()}
    scratch = tempfile.TemporaryDirectory(prefix="kosmograph-bench-")
    with scratch as folder, places(given.db, Path(folder)) as all_places:
        path = manifest(Path(folder) / "archive.txt", given.images)
        for place, size in product(all_places, given.chunk_sizes.split(",")):
            found.setdefault(place.kind, {})[size] = measure(place, path, size)
            keep(given.json, "stages", found)
    print("\n".join(tables.stages(found)))


def measure(place: Place, path: Path, chunk_size: str) -> dict[str, Any]:
    """The figures of one worker over the manifest."""
    print(f"stages: {place.kind}, chunks of {chunk_size} ...", flush=True)
    with place.fresh() as db:
        submit(path, "stages", db, chunk_size)
        done = work_off(db, 1, place.server_pid)
    return {
        "images": done.images,
        "images_per_s": done.images / done.seconds,
        "chunk_size": int(chunk_size),
        "cpu_us": done.cpu_us(),
        "dispatcher_cpu_us": done.dispatcher_cpu_s / done.images * 1e6,
        "server_cpu_us": done.server_cpu_us(),
    }


if __name__ == "__main__":
    main()
