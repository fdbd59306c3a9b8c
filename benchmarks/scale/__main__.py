# ruff: noqa: T201
"""`annotate --model null`, as a person runs it, over more and more images: what each costs, and whether it stays so.

    python -m benchmarks.scale [--images 1000,10000] [--db sqlite|postgresql|both|postgresql://…] [--json FILE]
                               [--plot FILE.png] [--keep FOLDER]

Each size has a fresh database and a folder of 96×96 JPEGs of unique bytes, which is written first and removed at the
end; with --keep it stays there, and is used again. A server by URL must allow to make databases; its CPU is not seen.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.pictures import draw_many
from benchmarks.scale import tables
from benchmarks.scale.commands import finish, progress, start
from benchmarks.scale.databases import Place, log_bytes, places, settings_of, size_of
from benchmarks.scale.figures import keep, machine
from benchmarks.scale.watching import Watch, summary


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", default="1000,10000", help="sizes, with commas between")
    options.add_argument("--db", default="both")
    options.add_argument("--json", type=Path)
    options.add_argument("--plot", type=Path, help="cost an image against size, as PNG, of all sizes in the JSON file")
    options.add_argument("--keep", type=Path, metavar="FOLDER", help="where the images stay")
    given = options.parse_args()
    sizes = sorted(int(size) for size in given.images.split(","))
    with tempfile.TemporaryDirectory(prefix="kosmograph-bench-") as name:
        folder, found = Path(name), {"machine": machine()}
        with places(given.db, folder) as all_places:
            for size in sizes:
                images = (given.keep or folder) / f"images-{size}"
                if not images.exists():
                    draw_many(images, size)
                for place in all_places:
                    figures = annotate(place, images, size)
                    found.setdefault(place.kind, {})[str(size)] = figures
                    keep(given.json, "annotate", found)
                if not given.keep:
                    shutil.rmtree(images)
    print("\n".join(tables.annotate(found)))
    if given.plot:
        from benchmarks.scale.plot import plot

        plot(tables.read(given.json)["annotate"] if given.json else found, given.plot)


def annotate(place: Place, images: Path, size: int) -> dict[str, Any]:
    """The figures of one run over so many images."""
    print(f"annotate: {size:,} images, {place.kind} ...", flush=True)
    with place.fresh() as db:
        log_before, size_before = log_bytes(db), size_of(db)
        with Watch(db, place.server_pid) as watch:
            began = time.monotonic()
            done = finish(start("annotate", str(images), "--model", "null", "--db", db), began)
        (job,) = progress(db)
        if done.code != 0 or job["annotated"] != size:
            sys.exit(f"annotate ended with {done.code}: {job['annotated']} of {size} are annotated: {done.out}")
        log = {} if place.kind == "sqlite" else {"log_bytes": (log_bytes(db) - log_before) / size}
        return {
            "images": size,
            "wall_s": done.wall_s,
            "images_per_s": job["images_per_s"],
            "whole_images_per_s": size / done.wall_s,
            "database_bytes": (size_of(db) - size_before) / size,
            "database": settings_of(db),
            **log,
            **summary(watch.looks, size),
        }


if __name__ == "__main__":
    main()
