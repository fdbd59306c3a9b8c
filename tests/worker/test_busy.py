"""The engine's busy share, as the log tells it."""

from dataclasses import replace
from typing import Any

from structlog.testing import capture_logs

from worker.busy import Reporter, WorkClock
from worker.generation import Figures

NOTHING = Figures(generations=0, images=0, tokens=0, steps=0, busy_s=0.0, waiting=0, running=0, slots=8)


class Clock:
    """A time that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Engine:
    figures = NOTHING


def lines(reporter: Reporter) -> list[Any]:
    with capture_logs() as logs:
        reporter.close()
    return logs


def test_only_time_in_which_a_chunk_was_in_work_counts() -> None:
    now = Clock()
    clock = WorkClock(now)
    now.now += 50
    with clock.running():
        now.now += 1
        with clock.running():
            now.now += 2
            assert clock.elapsed_s == 3
    now.now += 50
    assert clock.elapsed_s == 3
    with clock.running():
        now.now += 4
    assert clock.elapsed_s == 7


def test_log_says_how_busy_the_engine_was_of_that_time() -> None:
    now, engine = Clock(), Engine()
    clock = WorkClock(now)
    reporter = Reporter(engine, clock)
    now.now += 1000
    with clock.running():
        now.now += 10
    engine.figures = replace(NOTHING, images=50, busy_s=9.0, waiting=3)
    assert lines(reporter) == [
        {
            "event": "engine in all",
            "log_level": "info",
            "images_per_s": 5.0,
            "busy_share": 0.9,
            "slots": 8,
            "waiting": 3,
            "worked_s": 10.0,
        }
    ]


def test_image_that_was_mirrored_for_a_check_is_no_other_image() -> None:
    now, engine = Clock(), Engine()
    clock = WorkClock(now)
    reporter = Reporter(engine, clock)
    with clock.running():
        now.now += 10
    engine.figures = replace(NOTHING, images=50, images_again=20)
    assert lines(reporter)[0]["images_per_s"] == 3.0


def test_each_line_is_of_the_time_since_the_line_before(wait_for) -> None:
    now, engine = Clock(), Engine()
    clock = WorkClock(now)
    with capture_logs() as logs, clock.running():
        reporter = Reporter(engine, clock, every_s=0.01)
        for images in (10, 40):
            engine.figures = replace(NOTHING, images=images, busy_s=images / 10)
            now.now += 10
            wait_for(lambda images=images: sum(line["images_per_s"] * line["worked_s"] for line in logs) == images)
        reporter.close()
    assert logs[-1]["images_per_s"] == 2.0


def test_worker_without_work_says_nothing() -> None:
    assert not lines(Reporter(Engine(), WorkClock()))
