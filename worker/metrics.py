"""The metrics of a worker, for Prometheus. What others count already is read when it is asked for."""

import time
from collections.abc import Iterator, Mapping

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.errors import Code
from schemas.metrics import new_registry
from worker.generation import Figures
from worker.health import Health, Working
from worker.observer import Observer

FETCH_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0)
DECODE_S = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 20.0)
WAIT_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
PREFILL_S = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
STEP_S = (0.0003, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 3.0)
COMMIT_S = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class WorkerMetrics(Observer, Collector):
    """A registry, filled by what an observer is told and by a look at the worker's parts."""

    def __init__(self, name: str, health: Health) -> None:
        self._name, self._health = name, health
        self.registry = registry = new_registry()
        registry.register(self)
        self._fetch = Histogram(
            "kosmograph_fetch_seconds", "Fetching an image, well or not.", registry=registry, buckets=FETCH_S
        )
        self._decode = Histogram(
            "kosmograph_decode_seconds", "Decoding an image, well or not.", registry=registry, buckets=DECODE_S
        )
        self._wait = Histogram(
            "kosmograph_queue_wait_seconds", "A request, until its prefill.", registry=registry, buckets=WAIT_S
        )
        self._encode = Histogram(
            "kosmograph_encode_seconds",
            "A prefill: images and prompts of a batch.",
            registry=registry,
            buckets=PREFILL_S,
        )
        self._step = Histogram(
            "kosmograph_decode_step_seconds", "A decode step of all slots.", registry=registry, buckets=STEP_S
        )
        self._commit = Histogram(
            "kosmograph_commit_seconds", "The transaction of a chunk.", registry=registry, buckets=COMMIT_S
        )
        self._images = Counter(
            "kosmograph_images_total", "Outcomes that were committed.", ["outcome", "code"], registry=registry
        )
        # from the start, since Prometheus takes a series that appears for one that has not grown
        for outcome, code in [("annotated", ""), ("reused", ""), *(("failed", code.value) for code in Code)]:
            self._images.labels(outcome, code)
        self._progress = Gauge(
            "kosmograph_last_progress_timestamp_seconds", "The last commit, or the start.", registry=registry
        )
        self._progress.set_to_current_time()

    def fetched(self, seconds: float) -> None:
        self._fetch.observe(seconds)

    def decoded(self, seconds: float) -> None:
        self._decode.observe(seconds)

    def waited(self, seconds: float) -> None:
        self._wait.observe(seconds)

    def prefilled(self, seconds: float) -> None:
        self._encode.observe(seconds)

    def stepped(self, seconds: float, steps: int) -> None:
        for _ in range(steps):
            self._step.observe(seconds)

    def committed(self, seconds: float, outcomes: Mapping[tuple[str, str], int]) -> None:
        self._commit.observe(seconds)
        for labels, count in outcomes.items():
            self._images.labels(*labels).inc(count)
        self._progress.set(time.time())

    def collect(self) -> Iterator[Metric]:
        """What the parts count themselves; zeros while there are none."""
        working = self._health.working
        yield from _of_engine(working.engine.figures if working else NOTHING)
        yield from _of_work(working)
        yield CounterMetricFamily(
            "kosmograph_broker_reconnects", "Restarts of the consumer.", self._health.link.reconnects
        )
        yield InfoMetricFamily("kosmograph_worker", "What works here.", self._info(working) if working else None)

    def _info(self, working: Working) -> dict[str, str]:
        model = working.model
        return {
            "worker": self._name,
            "model": model.name,
            "revision": model.revision,
            "dtype": model.dtype,
            "runtime": working.runtime,
        }


NOTHING = Figures(generations=0, images=0, tokens=0, steps=0, busy_s=0.0, waiting=0, running=0, slots=0)


def _of_engine(figures: Figures) -> Iterator[Metric]:
    yield CounterMetricFamily("kosmograph_tokens", "Generated.", figures.tokens)
    yield CounterMetricFamily("kosmograph_generations", "Answers of the model.", figures.generations)
    yield CounterMetricFamily("kosmograph_encoded_images", "Passes of the vision tower.", figures.images)
    yield CounterMetricFamily("kosmograph_engine_busy_seconds", "With something in hand.", figures.busy_s)
    yield GaugeMetricFamily("kosmograph_slots", "Rows that the engine decodes at once.", figures.slots)
    yield GaugeMetricFamily("kosmograph_slots_in_use", "Slots with a row.", figures.running)
    yield GaugeMetricFamily("kosmograph_requests_waiting", "Requests without a slot.", figures.waiting)


def _of_work(working: Working | None) -> Iterator[Metric]:
    task = working.task if working else None
    elapsed_s, chunks, refused = (task.clock.elapsed_s, task.clock.chunks, task.refused) if task else (0.0, 0, 0)
    deaths = working.loader.figures().replaced if working else 0
    yield CounterMetricFamily("kosmograph_work_seconds", "With a chunk in work.", elapsed_s)
    yield CounterMetricFamily("kosmograph_messages_refused", "Dropped: nothing that we could read.", refused)
    yield CounterMetricFamily("kosmograph_loader_deaths", "Loader processes that died or were killed.", deaths)
    yield GaugeMetricFamily("kosmograph_chunks_in_work", "Claimed, and not committed.", chunks)
