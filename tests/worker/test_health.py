"""When a worker is of use, and when a restart would help it."""

from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from worker.generation import Figures
from worker.health import BROKER_SILENT_S, ENGINE_STILL_S, LOOP_STILL_S, Health, Working
from worker.probe import BrokerLink

IDLE = Figures(generations=0, images=0, tokens=0, steps=0, busy_s=0.0, waiting=0, running=0, slots=8)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def now() -> Clock:
    return Clock()


@pytest.fixture
def health(now: Clock) -> Health:
    """Of a worker that has its model, and its broker."""
    parts: Any = SimpleNamespace(figures=IDLE, stopping=Event())
    made = Health(BrokerLink(now), Working(parts, "cpu", parts, parts, parts))
    made.link.up()
    return made


def test_worker_that_loads_its_model_is_live_and_not_ready() -> None:
    assert Health().live() == ""
    assert Health().ready() == "the model is being loaded"


def test_worker_with_model_and_broker_is_ready(health: Health) -> None:
    assert (health.live(), health.ready()) == ("", "")


def test_worker_that_is_told_to_end_is_live_and_not_ready(health: Health) -> None:
    assert health.working
    health.working.task.stopping.set()
    assert (health.live(), health.ready()) == ("", "the worker is about to end")


def test_broker_that_says_nothing_makes_the_worker_not_ready(health: Health, now: Clock) -> None:
    now.now += BROKER_SILENT_S + 1
    health.link.turned()
    assert (health.live(), health.ready()) == ("", "the broker does not answer")
    health.link.answered()
    assert health.ready() == ""


def test_broker_that_is_away_for_hours_leaves_the_worker_live(health: Health, now: Clock) -> None:
    health.link.down()
    now.now += 10_000
    assert (health.live(), health.ready()) == ("", "the broker does not answer")
    health.link.up()
    assert (health.live(), health.ready(), health.link.reconnects) == ("", "", 1)


def test_loop_that_stands_still_is_not_live(health: Health, now: Clock) -> None:
    now.now += LOOP_STILL_S + 1
    assert health.live() == "the loop that takes messages has stood still for 301 s"


def test_engine_that_stands_still_is_neither_live_nor_ready(health: Health) -> None:
    stuck: Any = SimpleNamespace(figures=Figures(0, 0, 0, 0, 0.0, 0, 1, 8, still_s=ENGINE_STILL_S + 1))
    assert health.working
    health.working = health.working._replace(engine=stuck)
    assert health.live() == "the engine has work in hand, and has computed nothing for 601 s"
    assert health.ready() == health.live()
