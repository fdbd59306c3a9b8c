# ruff: noqa: T201
"""How well `plan` foretells `annotate`: both on the same pictures, one after the other in turn.

    python -m benchmarks.plan [--images 2000] [--rounds 3] [--model demo] [--small]

Foretold is the time of one worker, by `plan --json`. The run is a whole `annotate` into a new SQLite database, by the
clock on the wall around the command. No plan can know what other work will share the cores with the run: how many of
them it had meanwhile is told of both. `--small` takes pictures of 96×96 pixels: loading and ledger are a larger part.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.pictures import draw, draw_many, scene
from benchmarks.scale.commands import run
from benchmarks.scale.databases import size_of
from schemas.database import Database
from schemas.migrations import upgrade

HEADINGS = (
    "| tried | foretold, s | interval | took, s | off by | cores of others: plan, run | B/image foretold | B/image |"
)


@dataclass(frozen=True)
class Watched:
    """A command that has ended, and how many cores other work had meanwhile."""

    out: str
    wall_s: float
    others: float


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--model", default="demo")
    options.add_argument("--small", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="kosmograph-bench-") as name:
        folder = Path(name)
        if given.small:
            draw_many(folder / "images", given.images)
        else:
            draw(folder / "images", given.images, scene)
        print(f"\n{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {given.model}\n")
        print(f"{HEADINGS}\n{'|---' * (HEADINGS.count('|') - 1)}|")
        offs = [one_round(folder, given.model, given.images, number) for number in range(given.rounds)]
    print(f"\noff by {statistics.fmean(map(abs, offs)):.1%} in the mean")


def one_round(folder: Path, model: str, images: int, number: int) -> float:
    """Foretold through taken, less one."""
    db, empty = f"sqlite:///{folder}/{number}.db", f"sqlite:///{folder}/empty.db"
    made = Database(empty)
    upgrade(made)
    made.close()
    what = (str(folder / "images"), "--model", model, "--db")
    plan = watched("plan", *what, empty, "--json")
    done = watched("annotate", *what, db)
    told, grown = json.loads(plan.out), (size_of(db) - size_of(empty)) / images
    foretold = told["time_s"]
    off = foretold["value"] / done.wall_s - 1
    cells = (
        told["sample"]["images"],
        f"{foretold['value']:.1f}",
        f"{foretold['low']:.1f} to {foretold['high']:.1f}",
        f"{done.wall_s:.1f}",
        f"{off:+.1%}",
        f"{plan.others:.1f}, {done.others:.1f}",
        f"{told['database']['bytes_per_image']:,.0f}",
        f"{grown:,.0f}",
    )
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return float(off)


def watched(*arguments: str) -> Watched:
    """Runs a command of ours."""
    before = busy_s()
    done = run(*arguments)
    return Watched(done.out, done.wall_s, max(0.0, busy_s() - before - done.cpu_s) / done.wall_s)


def busy_s() -> float:
    """Seconds in which a core of this machine was at work, or the host had taken it, since it was started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + getattr(times, "steal", 0.0))


if __name__ == "__main__":
    main()
