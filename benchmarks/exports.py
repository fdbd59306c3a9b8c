# ruff: noqa: T201
"""How fast groundings are exported, and in how much memory.

    python -m benchmarks.exports [--groundings 1000000] [--db sqlite|postgresql|both|postgresql://…]
                                 [--formats jsonl,csv,parquet,coco,labelstudio,grit,yolo,hf] [--json FILE]

The archive is that of `benchmarks.catalog`, whose pictures there are not: webdataset, which has no export without
them, is not measured, and yolo and hf are without. Each export is a `kosmograph export` of its own: its time is from
the start of the command to its end, its memory the most that was resident. CPU is that of the command, without
PostgreSQL's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.catalog import make
from benchmarks.scale.databases import Place, places
from benchmarks.scale.figures import keep, machine
from benchmarks.scale.markdown import DATABASES, number, table
from catalog.exports import FORMATS as EXPORTS

WATCH = """
import json, resource, subprocess, sys, time
began = time.monotonic()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
cpu_s = used.ru_utime + used.ru_stime
size = json.loads(done.stdout)["bytes"]
print(json.dumps({"s": time.monotonic() - began, "cpu_s": cpu_s, "peak_mb": used.ru_maxrss / 1024, "bytes": size}))
"""
"""Runs a command from a process that is smaller than it: a child's peak counts what its parent had when it was born."""
FORMATS = "jsonl,csv,parquet,coco,labelstudio,grit,yolo,hf"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--groundings", type=int, default=1_000_000)
    options.add_argument("--db", default="both")
    options.add_argument("--formats", default=FORMATS)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    found: dict[str, Any] = {"machine": machine(), "groundings": given.groundings}
    with (
        tempfile.TemporaryDirectory(prefix="kosmograph-bench-") as folder,
        places(given.db, Path(folder)) as all_places,
    ):
        for place in all_places:
            found[place.kind] = measure(place, given.groundings, given.formats.split(","), Path(folder))
            keep(given.json, "exports", found)
    print("\n".join(["", f"`{found['machine']['command']}`", "", *tables(found)]))


def measure(place: Place, groundings: int, formats: list[str], folder: Path) -> dict[str, Any]:
    """Make the archive on one database, and export it in each format."""
    with place.fresh() as url:
        print(f"exports: making {groundings:,} groundings, {place.kind} ...", file=sys.stderr, flush=True)
        images = make(url, groundings)
        done = {}
        for name in formats:
            done[name] = export(url, name, folder)
            print(f"exports: {name} {done[name]}", file=sys.stderr, flush=True)
        return {"images": images, "formats": done}


def export(url: str, name: str, folder: Path) -> dict[str, float]:
    """Seconds, CPU seconds, peak of resident MB and bytes of an export."""
    without = ["--images", "none"] if "images" in EXPORTS[name].options else []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, "-m", "kosmograph", "export", "archive", "--format", name, *without]
        watched = [sys.executable, "-S", "-c", WATCH, *command, "--out", f"{place}/out", "--db", url, "--json"]
        done = subprocess.run(watched, stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def tables(found: dict[str, Any]) -> list[str]:
    """The figures as Markdown."""
    head = ("database", "format", "s", "groundings/s", "CPU s", "groundings/CPU s", "peak MB", "MB written")
    rows = [
        (
            DATABASES[kind],
            name,
            number(run["s"]),
            number(found["groundings"] / run["s"]),
            number(run["cpu_s"]),
            number(found["groundings"] / run["cpu_s"]),
            number(run["peak_mb"]),
            number(run["bytes"] / 1e6),
        )
        for kind in DATABASES
        if kind in found
        for name, run in found[kind]["formats"].items()
    ]
    return list(table(head, rows))


if __name__ == "__main__":
    main()
