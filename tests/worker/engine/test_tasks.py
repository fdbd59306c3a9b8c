"""Every task of the model through the engine, on weights that have learnt none of them: equal to `generate`."""

from collections.abc import Sequence
from concurrent.futures import Future
from threading import Event
from typing import Any

import pytest

from schemas.inputs import pack_input
from schemas.items import Item
from schemas.ledger.work import Claim
from schemas.recipes import TASKS, Recipe, field_of, prompt_for
from schemas.results import Annotation
from worker.budget import PixelBudget
from worker.engine import Engine
from worker.flow import Flow
from worker.images import PIXEL_BYTES, LoadedImage

WORDS = {"region": "0.1,0.2,0.6,0.9", "question": "Why?", "plain_question": "Why?"}
DONE = Annotation("", None, [], "stop", 1, 0.0, "here")  # type: ignore[arg-type]


@pytest.mark.parametrize("task", TASKS)
def test_each_task_is_answered_as_by_generate(rough: Any, task: str) -> None:
    requests = [rough.request(seed, prompt_for(task, WORDS.get(task, "a red circle"))) for seed in range(3)]
    rough.check(requests, rough.run(requests))


def asking(task: str) -> Recipe:
    shared = {"model": "null", "revision": "r", "dtype": "float32", "max_new_tokens": 8}
    return Recipe(task=task, prompt=TASKS[task], input=field_of(task), **shared)


def through(engine: Engine, rough: Any, items: Sequence[Item], recipes: Sequence[Recipe]) -> Flow:
    """A chunk on its way through a real engine, with pictures by the number that ends a URI."""

    class Loader:
        def load(self, uri: str, **_: object) -> Future[LoadedImage]:
            load: Future[LoadedImage] = Future()
            seed = int(uri[-1])
            load.set_result(LoadedImage(rough.picture(seed), 640, 480, "PNG", 99, f"{seed:064}", "v"))
            return load

    claim = Claim(1, 1, 1, list(items), dict(enumerate(recipes, 1)), None, None, 0, 0)
    flow = Flow(claim, Loader(), engine, lambda _: {}, lambda *_: DONE)
    flow.run(PixelBudget(9 * PIXEL_BYTES), Event().is_set)
    return flow


def test_all_prompts_of_an_image_share_one_look_at_it(rough: Any) -> None:
    """Named tasks, and phrases that its items bring: more of them than there are slots."""
    phrases = [pack_input({"phrase": f"ring {number}"}) for number in range(11)]
    items = [Item(f"s3://b/{image}", "", None, phrase) for phrase in phrases for image in range(3)]
    with Engine(rough.kosmos, 4) as engine:
        flow = through(engine, rough, items, [asking("brief"), asking("phrase"), asking("detailed")])
        assert engine.figures.generations == 3 * (11 + 2)
        assert engine.figures.images == 3
    assert len(flow.results) == 3 * (11 + 2)
