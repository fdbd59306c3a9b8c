"""What an engine tells of itself while it works, and while it hangs."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.worker.test_observer import Heard
from worker import health
from worker.engine import Engine
from worker.generation import Request
from worker.health import Health, Working

TIMEOUT_S = 60


class Listener(Heard):
    """Also notes the waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)


def test_each_request_has_waited_once_and_each_step_is_told(demo: Any) -> None:
    heard = Listener()
    with Engine(demo.kosmos, 2, observer=heard) as engine:
        for future in [engine.submit(demo.request(seed)) for seed in range(5)]:
            future.result(TIMEOUT_S)
        steps = engine.figures.steps
    assert len(heard.waits) == 5
    assert heard.waits[-1] > heard.waits[0] > 0
    assert sum(count for _, count in heard.steps) == steps
    assert 3 <= len(heard.prefills) <= 5
    assert min(heard.prefills) > 0


def test_what_follows_from_an_answer_has_not_waited_and_its_image_is_no_other(demo: Any) -> None:
    """Given a check on the mirrored image, then it is a pass of its own, of an image that was there before."""
    heard = Listener()
    first = demo.request(1)
    mirrored = np.ascontiguousarray(first.pixels[:, ::-1])
    asked = replace(first, follow_up=lambda _: [Request(pixels, "", 2) for pixels in (first.pixels, mirrored)])
    with Engine(demo.kosmos, 2, observer=heard) as engine:
        engine.submit(asked).result(TIMEOUT_S)
        figures = engine.figures
    assert (figures.generations, figures.images, figures.images_again) == (3, 2, 1)
    assert len(heard.waits) == 1


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ENGINE_STILL_S", 0.05)


@pytest.mark.usefixtures("patience")
def test_engine_that_hangs_over_its_work_is_not_live(demo: Any, gate: Any, wait_for: Any) -> None:
    """And one that has nothing to do is, for however long."""
    nothing: Any = None
    with Engine(demo.kosmos, 2) as engine, demo.at_entrance(gate):
        asked = Health(working=Working(nothing, "cpu", engine, nothing, nothing))
        gate.opened.wait(0.1)
        assert asked.live() == ""
        future = engine.submit(demo.request(1))
        assert gate.entered.wait(TIMEOUT_S)
        told = wait_for(asked.live)
        assert told.startswith("the engine has work in hand, and has computed nothing for ")
        gate.opened.set()
        future.result(TIMEOUT_S)
        wait_for(lambda: asked.live() == "")
