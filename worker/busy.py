"""How busy the engine is, of the time in which the worker has chunks: what `feeding it` has to be judged by."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import NamedTuple, Protocol

import structlog

from worker.generation import Figures

log = structlog.get_logger()
EVERY_S = 60.0


class Engine(Protocol):
    @property
    def figures(self) -> Figures: ...


class WorkClock:
    """The seconds in which at least one chunk was in work."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = Lock()
        self._chunks = 0
        self._until_then_s = 0.0
        self._since = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """A chunk is in work while the block runs."""
        with self._lock:
            if not self._chunks:
                self._since = self._now()
            self._chunks += 1
        try:
            yield
        finally:
            with self._lock:
                self._chunks -= 1
                if not self._chunks:
                    self._until_then_s += self._now() - self._since

    @property
    def chunks(self) -> int:
        """How many are in work."""
        return self._chunks

    @property
    def elapsed_s(self) -> float:
        with self._lock:
            return self._until_then_s + (self._now() - self._since if self._chunks else 0.0)


class Mark(NamedTuple):
    """Engine and clock at one moment."""

    figures: Figures
    elapsed_s: float


@dataclass
class Reporter:
    """Logs what the engine did, each minute in which there was work, and of the whole at the end."""

    engine: Engine
    clock: WorkClock
    every_s: float = EVERY_S

    def __post_init__(self) -> None:
        self._first = self._last = self._mark()
        self._closed = Event()
        self._thread = Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The last line."""
        self._closed.set()
        self._thread.join()
        self._report("engine in all", self._first)

    def _run(self) -> None:
        while not self._closed.wait(self.every_s):
            self._report("engine", self._last)

    def _report(self, event: str, before: Mark) -> None:
        after = self._mark()
        if worked_s := after.elapsed_s - before.elapsed_s:
            self._last, figures = after, after.figures
            log.info(
                event,
                images_per_s=round((_looked_at(figures) - _looked_at(before.figures)) / worked_s, 1),
                busy_share=round(min(1.0, (figures.busy_s - before.figures.busy_s) / worked_s), 3),
                slots=figures.slots,
                waiting=figures.waiting,
                worked_s=round(worked_s, 1),
            )

    def _mark(self) -> Mark:
        return Mark(self.engine.figures, self.clock.elapsed_s)


def _looked_at(figures: Figures) -> int:
    """Images; those that were mirrored for a check are the same ones again."""
    return figures.images - figures.images_again
