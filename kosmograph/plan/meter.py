"""What a worker does while it does it, mark by mark: from its own metrics."""

import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import pairwise
from threading import Event, Lock, Thread
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from kosmograph.plan.intervals import Figure, mean_of

LOOK_S, TIMEOUT_S = 0.25, 5.0
LEAST_BLOCK_S = 1.0
MOST_BLOCKS = 30
LEAST_BLOCKS = 4
"""Fewer measurements say nothing about how far they scatter."""
COUNTERS = {
    "kosmograph_generations_total": "generations",
    "kosmograph_engine_busy_seconds_total": "busy_s",
    "kosmograph_work_seconds_total": "work_s",
    "kosmograph_fetch_seconds_sum": "fetch_s",
    "kosmograph_decode_seconds_sum": "decode_s",
    "kosmograph_commit_seconds_sum": "commit_s",
    "kosmograph_slots": "slots",
}


class Mark(NamedTuple):
    """A worker at one moment: what it has done so far, and how many rows its engine decodes at once."""

    at: float = 0.0
    generations: float = 0.0
    busy_s: float = 0.0
    work_s: float = 0.0
    fetch_s: float = 0.0
    decode_s: float = 0.0
    commit_s: float = 0.0
    slots: float = 0.0


@dataclass
class Meter:
    """Marks of one worker, which serves its metrics at a port of this machine once it has begun."""

    port: int
    marks: list[Mark] = field(default_factory=list)
    runtime: str = ""
    """What the model runs on, in the worker's words."""

    def __post_init__(self) -> None:
        self._over, self._looking = Event(), Lock()
        self._thread = Thread(target=self._run, name="meter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        """One more mark, of now, if the worker answers."""
        with self._looking, suppress(OSError, HTTPException):  # it has not begun, or has ended
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=TIMEOUT_S) as answer:
                text = answer.read().decode()
            self.note(time.monotonic(), text)

    def note(self, at: float, metrics: str) -> None:
        """One more mark, from Prometheus' text. One of a model that is not loaded yet is none."""
        found: dict[str, float] = {}
        for sample in (one for family in text_string_to_metric_families(metrics) for one in family.samples):
            if sample.name in COUNTERS:
                found[COUNTERS[sample.name]] = sample.value
            elif sample.name == "kosmograph_worker_info":
                self.runtime = sample.labels["runtime"]
        if found.get("slots"):
            self.marks.append(Mark(at, **found))


def steady(marks: Sequence[Mark], begun: float, ended: float) -> list[Mark]:
    """The marks between which the engine's slots were full: neither filling at the start nor running out at the end.

    `begun` and `ended`: the generations before the sample's first one (of canaries), and at its last.
    """
    return [mark for mark in marks if begun + mark.slots <= mark.generations <= ended - mark.slots]


def seconds_a_generation(marks: Sequence[Mark]) -> Figure | None:
    """From repeated blocks of steady marks, each of a second at least; None where there are too few of them."""
    if len(marks) < 2:
        return None
    length = max(LEAST_BLOCK_S, (marks[-1].at - marks[0].at) / MOST_BLOCKS)
    edges = [marks[0]]
    for mark in marks:
        if mark.at - edges[-1].at >= length and mark.generations > edges[-1].generations:
            edges.append(mark)
    blocks = [(after.at - before.at) / (after.generations - before.generations) for before, after in pairwise(edges)]
    if len(blocks) < LEAST_BLOCKS:
        return None
    scatter = mean_of(blocks)
    value = (edges[-1].at - edges[0].at) / (edges[-1].generations - edges[0].generations)
    return Figure(value, value * scatter.low / scatter.value, value * scatter.high / scatter.value)


class Shares(NamedTuple):
    """How much of the time each part was at work, from 0 to 1: of the loader processes all, of commits one by one."""

    fetch: float
    decode: float
    engine: float
    write: float


def shares(first: Mark, last: Mark, loaders: int) -> Shares:
    """Between two marks. The engine's share is of the time in which the worker had a chunk."""
    passed = max(last.at - first.at, 1e-9)
    worked = max(last.work_s - first.work_s, 1e-9)
    return Shares(
        fetch=(last.fetch_s - first.fetch_s) / passed / loaders,
        decode=(last.decode_s - first.decode_s) / passed / loaders,
        engine=min(1.0, (last.busy_s - first.busy_s) / worked),
        write=min(1.0, (last.commit_s - first.commit_s) / passed),
    )
