# ruff: noqa: T201
"""How well the engine is fed: `annotate` end to end against loader and engine alone, in one run, on the same pictures.

    python -m benchmarks.feeding [--images 2000] [--model demo] [--repeat 1]

Alone: the worker's own loader and engine in one process, with no queue and no ledger. End to end: `kosmograph
annotate`, by the ledger's clock. Both are timed from the first tenth of the images to the last: no start-up counts.
"""

import argparse
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path
from threading import Event, Lock, Semaphore

from benchmarks.pictures import draw, scene
from schemas.recipes import MAX_NEW_TOKENS, prompt_for
from schemas.settings import load_settings
from schemas.storage import StorageOptions
from schemas.uris import file_uri
from worker.cores import loader_processes
from worker.generation import Request
from worker.images import Limits, LoadedImage
from worker.loader import Loader
from worker.revision import resolve
from worker.service import load_engine

WARM = 0.1
"""The part of the images after which the clock starts."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--model", default="demo")
    options.add_argument("--repeat", type=int, default=1, help="runs of each, one after the other in turn")
    options.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("folder", nargs="?", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.alone:
        print(json.dumps(alone(given.folder, given.model)))
        return
    with tempfile.TemporaryDirectory(prefix="kosmograph-bench-") as name:
        folder = Path(name)
        draw(folder / "images", given.images, scene)
        print(f"\n{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {given.model}\n")
        print("alone, images/s   end to end, images/s   ratio")
        for _ in range(given.repeat):
            rate = alone_in_a_process(folder / "images", given.model)
            fed = end_to_end(folder, given.model)
            print(f"{rate:>15.1f}   {fed:>20.1f}   {fed / rate:>5.3f}", flush=True)


def alone_in_a_process(images: Path, model: str) -> float:
    """Images/s of loader and engine, in a process of their own: nothing that was measured before is in their way."""
    command = [sys.executable, "-m", "benchmarks.feeding", "--alone", "--model", model, str(images)]
    return float(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))


def alone(images: Path, model: str) -> float:
    """Images/s of loader and engine: every image loaded and captioned, with so many in hand as a worker has."""
    settings = load_settings(model=model)
    uris = [file_uri(path) for path in sorted(images.iterdir())]
    engine, runtime = load_engine(resolve(model), settings)
    in_hand = Semaphore(max(3 * engine.figures.slots, 2 * settings.chunk_size))
    done_at: list[float] = []
    lock, done = Lock(), Event()

    def captioned(generation: "Future[object]") -> None:
        with lock:
            done_at.append(time.monotonic())
        in_hand.release()
        if generation.exception() or len(done_at) == len(uris):
            done.set()

    def loaded(load: "Future[LoadedImage]") -> None:
        request = Request(load.result().pixels, prompt_for("brief"), MAX_NEW_TOKENS["brief"])
        engine.submit(request).add_done_callback(captioned)

    processes = loader_processes(settings, gpu=runtime.startswith("cuda"))
    with engine, Loader(Limits.from_settings(settings), processes, StorageOptions()) as loader:
        for uri in uris:
            in_hand.acquire()
            loader.load(uri).add_done_callback(loaded)
        done.wait()
    if len(done_at) < len(uris):
        raise SystemExit("a picture could not be annotated")
    # in blocks, as the ledger has them: a chunk counts when its last image is done
    return rate_of(
        [(moment, settings.chunk_size) for moment in done_at[settings.chunk_size - 1 :: settings.chunk_size]]
    )


def end_to_end(folder: Path, model: str) -> float:
    """Images/s of `annotate` over the same pictures, by the times at which the ledger has their annotations."""
    database = folder / "bench.db"
    database.unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", "kosmograph", "annotate", str(folder / "images"), "--model", model]
    subprocess.run([*command, "--db", f"sqlite:///{database}"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with sqlite3.connect(database) as ledger:
        return rate_of(ledger.execute("SELECT created_at, COUNT(*) FROM annotations GROUP BY 1 ORDER BY 1").fetchall())


def rate_of(done: "list[tuple[float, int]]") -> float:
    """Images/s from the moment at which the first tenth is done to the end."""
    total = sum(count for _, count in done)
    warm = 0
    for moment, count in done:
        warm += count
        if warm >= WARM * total:
            return (total - warm) / (done[-1][0] - moment)
    raise SystemExit("nothing was annotated")


if __name__ == "__main__":
    main()
