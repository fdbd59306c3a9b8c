# ruff: noqa: T201
"""The engine against transformers' `generate` at several batch sizes, side by side in one process, on this CPU.

    python -m benchmarks.engine [--model demo|middle|all] [--rounds 3] [--threads N] [--json FILE]

The same model, images, prompt, dtype (float32) and threads; rows end where the model ends them. All tokens are compared
with those of `generate` at the first batch size, 1 unless told. Every round runs all of them, forwards and backwards in
turn, for cores are shared.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import partial
from pathlib import Path

import torch
import transformers

from benchmarks.models import BRIEF, MIDDLE, blots, build, drawings
from benchmarks.rivals import Captioned, Transformers, by_engine
from worker.engine import Engine
from worker.generation import Pixels
from worker.model import Kosmos, load_model
from worker.revision import resolve

BATCHES = (1, 8, 16, 32, 64)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
WARM = 16
"""Images before the clock starts."""


@dataclass
class Result:
    """What one of them did, over all rounds."""

    name: str
    seconds: list[float] = field(default_factory=list)
    images: int = 0
    tokens: int = 0
    identical: int = 0
    """Rows whose tokens are those of `generate` at the first batch size."""

    @property
    def best(self) -> float:
        """Images/s of the best round."""
        return self.images / min(self.seconds)

    @property
    def median(self) -> float:
        return self.images / statistics.median(self.seconds)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", choices=("demo", "middle", "all"), default="all")
    options.add_argument("--images", type=int, default=0, help="[demo 384, middle 128]")
    options.add_argument("--rounds", type=int, default=3, help="of batch 1, which is slow, there is one")
    options.add_argument("--threads", type=int, default=0, help="of torch [all cores]")
    options.add_argument("--slots", type=int, default=0, help="of the engine [its own choice]")
    options.add_argument("--sync-every", type=int, default=0, help="steps between two looks [the same]")
    options.add_argument("--refill", type=float, default=0.0, help="share of slots that must be free [the same]")
    options.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="of transformers")
    options.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: on busy cores, with one thread")
    options.add_argument("--json", type=Path, help="a file for all figures")
    given = options.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    print(machine(), flush=True)
    chosen = ("demo", "middle") if given.model == "all" else (given.model,)
    figures = [compare(name, given) for name in chosen]
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "date": date.today().isoformat(), "models": figures}))


def machine() -> str:
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    )


def subject(name: str, images: int) -> tuple[Kosmos, list[Pixels], int]:
    """A model, images for it, and the most tokens that a caption may have."""
    if name == "demo":
        return load_model(resolve("demo"), "cpu"), drawings(images or 384), 64
    return build(MIDDLE), blots(images or 128), 96


def compare(name: str, given: argparse.Namespace) -> dict[str, object]:
    """Runs all of them on one model, prints their table and gives its figures."""
    kosmos, images, limit = subject(name, given.images)
    plain = Transformers(kosmos, images, BRIEF)
    tuning = {"sync_every": given.sync_every} | ({"refill": given.refill} if given.refill else {})
    with Engine(kosmos, given.slots, **tuning) as engine:
        runs: dict[str, Callable[[int], Captioned]] = {}
        for batch in given.batches:
            runs[f"transformers, batch {batch}"] = partial(run_plain, plain, batch, limit)
        runs[f"engine, {engine.figures.slots} slots"] = partial(run_engine, engine, images, limit)
        print(f"\n{name}: {len(images)} images, {given.rounds} rounds", end=" ", flush=True)
        results, captions = race(runs, len(images), given.rounds, CLOCKS[given.clock])
        steps, generations = engine.figures.steps, engine.figures.generations
    lengths = sorted(map(len, captions))
    print(f"\n{describe(lengths, limit)}; the engine's steps to a caption: {steps / generations:.2f}")
    print_table(results)
    return {
        "model": name,
        "lengths": lengths,
        "results": [{**asdict(result), "best": result.best, "median": result.median} for result in results],
    }


def run_plain(plain: Transformers, batch: int, limit: int, count: int) -> Captioned:
    """The first `count` images by transformers."""
    return plain(batch, [limit] * count)


def run_engine(engine: Engine, images: Sequence[Pixels], limit: int, count: int) -> Captioned:
    """The same by the engine."""
    return by_engine(engine, images[:count], BRIEF, [limit] * count)


def race(
    runs: dict[str, Callable[[int], Captioned]], images: int, rounds: int, clock: Callable[[], float]
) -> tuple[list[Result], Sequence[Sequence[int]]]:
    """Figures of each, the engine last, and the captions that all should give: those of the first run."""
    results = {name: Result(name, images=images) for name in runs}
    for run in runs.values():
        run(min(WARM, images))
    expected: list[list[int]] = []
    for turn in range(rounds):
        for name in sorted(runs, key=list(runs).index, reverse=turn % 2 == 1):
            if turn and name.endswith("batch 1"):
                continue
            gc.collect()
            began = clock()
            captioned = runs[name](images)
            results[name].seconds.append(clock() - began)
            expected = expected or captioned.token_ids
            results[name].tokens = captioned.tokens
            results[name].identical = sum(
                mine == theirs for mine, theirs in zip(captioned.token_ids, expected, strict=True)
            )
            print(".", end="", flush=True)
    return list(results.values()), expected


def describe(lengths: Sequence[int], limit: int) -> str:
    """How long the captions are; `lengths` ascend."""
    middle, late = (lengths[len(lengths) * tenths // 10] for tenths in (5, 9))
    return (
        f"tokens a caption: mean {statistics.mean(lengths):.1f}, from {lengths[0]} over {middle} (half) and {late} "
        f"(nine tenths) to {lengths[-1]}; {lengths.count(limit)} at the limit of {limit}"
    )


def print_table(results: Sequence[Result]) -> None:
    """A row each; the ratio is to the best batch size of transformers."""
    rival = max(result.best for result in results if result.name.startswith("transformers"))
    print(f"{'':<24} {'images/s, best':>14} {'median':>8} {'tokens/s':>9} {'ratio':>6}  identical")
    for result in results:
        tokens = result.tokens * result.best / result.images
        print(
            f"{result.name:<24} {result.best:>14.1f} {result.median:>8.1f} {tokens:>9.0f} {result.best / rival:>6.2f}  "
            f"{result.identical} of {result.images}"
        )


if __name__ == "__main__":
    main()
