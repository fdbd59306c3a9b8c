# ruff: noqa: T201
"""What everything but the model costs: `annotate --model null` over generated pictures, with the size of each process.

    python -m benchmarks.null_model [--images 20000] [--db postgresql://…]

Prints images/s, CPU time an image by process, and resident sizes in the first and in the last tenth of the run.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil

from benchmarks.pictures import draw, thumbnail

LOOK_S = 0.5


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=20_000)
    options.add_argument("--db", default="", help="database URL [SQLite in a temporary folder]")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="kosmograph-bench-") as name:
        folder = Path(name)
        draw(folder / "images", given.images, thumbnail)
        measure(folder, given.images, given.db or f"sqlite:///{folder}/bench.db")


def measure(folder: Path, images: int, db: str) -> None:
    """Run the command, watch its processes, and print what was seen."""
    command = [sys.executable, "-P", "-m", "kosmograph", "annotate", str(folder / "images"), "--model", "null"]
    began = time.monotonic()
    run = subprocess.Popen([*command, "--db", db], stdout=subprocess.PIPE, text=True, cwd=folder)
    seen = watch(run)
    out = run.communicate()[0]
    seconds = time.monotonic() - began
    if run.returncode != 0:
        sys.exit(f"annotate ended with {run.returncode}: {out}")
    print(out.splitlines()[0])
    rate = progress(db)["images_per_s"]
    print(f"\n{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    print(
        f"{seconds:.1f} s in all, start included: {images / seconds:.0f} images/s; of the ledger's clock: {rate:.0f}\n"
    )
    report(seen, images)
    if db.startswith("sqlite"):
        print(f"\ndatabase: {(folder / 'bench.db').stat().st_size / images:.0f} bytes an image")


def watch(run: "subprocess.Popen[str]") -> dict[str, list[tuple[float, int]]]:
    """CPU seconds and resident bytes of each kind of process, summed, at every look until the run ends."""
    root = psutil.Process(run.pid)
    seen: dict[str, list[tuple[float, int]]] = defaultdict(list)
    while run.poll() is None:
        now: dict[str, tuple[float, int]] = {}
        for process in [root, *root.children(recursive=True)]:
            try:
                times, size, kind = process.cpu_times(), process.memory_info().rss, kind_of(process.cmdline())
            except psutil.Error:
                continue
            before = now.get(kind, (0.0, 0))
            now[kind] = (before[0] + times.user + times.system, before[1] + size)
        for kind, figures in now.items():
            seen[kind].append(figures)
        time.sleep(LOOK_S)
    return seen


def kind_of(command: list[str]) -> str:
    """What a process is, from its command line."""
    text = " ".join(command)
    kinds = {"kosmograph.keeper": "keepers", "loader": "loaders", " worker ": "worker", "-server": "redis"}
    return next((kind for sign, kind in kinds.items() if sign in text), "annotate")


def report(seen: dict[str, list[tuple[float, int]]], images: int) -> None:
    """A row for each kind of process."""
    print(f"{'process':<10} {'CPU µs/image':>13} {'MB, 1st tenth':>14} {'MB, last tenth':>15} {'MB, most':>9}")
    for kind, figures in sorted(seen.items()):
        settled = figures[len(figures) // 10 :]  # a process that has just begun is still growing to its size
        tenth = max(1, len(settled) // 10)
        sizes = [size / 1e6 for _, size in settled]
        first, last = sum(sizes[:tenth]) / tenth, sum(sizes[-tenth:]) / tenth
        cpu = max(cpu for cpu, _ in figures) / images * 1e6
        print(f"{kind:<10} {cpu:>13.0f} {first:>14.1f} {last:>15.1f} {max(sizes):>9.1f}")


def progress(db: str) -> dict[str, float]:
    command = [sys.executable, "-P", "-m", "kosmograph", "status", "--json", "--db", db]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)[0])


if __name__ == "__main__":
    main()
