"""Images of chunks on their way through loader and engine: none waits for another, and few are held at once."""

import itertools
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from schemas.errors import Code, EngineBroken
from schemas.inputs import input_hash, pack_input
from schemas.items import Item
from schemas.ledger.work import Claim
from schemas.recipes import Recipe
from schemas.results import Annotation, Failure, Reuse
from worker import flow as module
from worker.budget import PixelBudget
from worker.flow import Flow
from worker.generation import Generation, Pixels, Request
from worker.images import PIXEL_BYTES, LoadedImage
from worker.null_engine import SNOWMAN

RECIPES = [Recipe(task="brief", prompt=f"<grounding>{n}", model="null", revision="r", dtype="float32") for n in "abc"]
DONE = Annotation("", None, [], "stop", 1, 0.0, "here")  # type: ignore[arg-type]


class Loader:
    """Loads what it is told to, when it is told to."""

    def __init__(self) -> None:
        self.begun: dict[str, Future[LoadedImage]] = {}

    def load(self, uri: str, **_: object) -> "Future[LoadedImage]":
        self.begun[uri] = Future()
        return self.begun[uri]

    def finish(self, *uris: str) -> None:
        for uri in uris:
            self.begun[uri].set_result(picture(uri))


class Engine:
    """Keeps the requests until it is told to answer them."""

    def __init__(self) -> None:
        self.asked: list[tuple[Request, Future[Generation]]] = []

    def submit(self, request: Request) -> "Future[Generation]":
        self.asked.append((request, Future()))
        return self.asked[-1][1]

    def answer(self, count: int = 1_000_000) -> None:
        for _ in range(min(count, len(self.asked))):
            self.asked.pop(0)[1].set_result(SNOWMAN)


def picture(uri: str) -> LoadedImage:
    pixels = np.zeros((224, 224, 3), np.uint8)
    return LoadedImage(pixels, 9, 9, "PNG", 99, uri.rpartition("/")[2].rjust(64, "0"), "v")


def chunk(*names: object, recipes: int = 1) -> Claim:
    items = [Item(f"s3://b/{name}") for name in names]
    return Claim(1, 1, 1, items, dict(enumerate(RECIPES[:recipes], 1)), None, None, 0, 0)


def flow_of(claim: Claim, loader: Any, engine: Any, find: Callable[..., Any] = lambda _: {}) -> Flow:
    def annotation_of(recipe: Recipe, prompt: str, _: Generation) -> Annotation:
        return replace(DONE, prompt=prompt if recipe.input else None)

    return Flow(claim, loader, engine, find, annotation_of)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the clock; and no test passes only because somebody looked in time."""
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(module, "GROUP_S", 0.01)


@pytest.fixture
def run() -> Iterator[Callable[..., Thread]]:
    """Runs a flow in a thread until its end, which the test must bring about, or a stop at the end of the test."""
    stop, threads = Event(), list[Thread]()

    def start(flow: Flow, budget: PixelBudget, stopped: Callable[[], bool] = stop.is_set) -> Thread:
        threads.append(Thread(target=flow.run, args=(budget, stopped)))
        threads[-1].start()
        return threads[-1]

    yield start
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def room(images: int = 1000) -> PixelBudget:
    return PixelBudget(images * PIXEL_BYTES)


def test_image_is_asked_for_while_others_of_its_chunk_are_loaded(run, wait_for) -> None:
    loader, engine = Loader(), Engine()
    flow = flow_of(chunk(1, 2), loader, engine)
    thread = run(flow, room())
    wait_for(lambda: len(loader.begun) == 2)
    loader.finish("s3://b/1")
    wait_for(lambda: len(engine.asked) == 1)
    engine.answer()
    loader.finish("s3://b/2")
    wait_for(lambda: len(engine.asked) == 1)
    engine.answer()
    thread.join(30)
    assert len(flow.results) == 2


def test_prompts_of_an_image_come_one_after_the_other_with_one_array(run, wait_for) -> None:
    loader, engine = Loader(), Engine()
    run(flow_of(chunk(1, 2, recipes=3), loader, engine), room())
    wait_for(lambda: len(loader.begun) == 2)
    loader.finish("s3://b/1", "s3://b/2")
    wait_for(lambda: len(engine.asked) == 6)
    arrays = [id(request.pixels) for request, _ in engine.asked]
    assert arrays == [arrays[0]] * 3 + [arrays[3]] * 3
    assert arrays[0] != arrays[3]
    assert [request.prompt[-1] for request, _ in engine.asked] == list("abcabc")


def test_images_that_have_come_are_looked_up_together(run, wait_for, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_S", 30.0)
    monkeypatch.setattr(module, "GROUP_IMAGES", 4)
    groups: list[int] = []

    def find(sha256s: list[str]) -> dict[Any, int]:
        groups.append(len(sha256s))
        return {(sha256, 1, ""): 7 for sha256 in sha256s}

    loader = Loader()
    flow = flow_of(chunk(*range(6)), loader, Engine(), find)
    thread = run(flow, room())
    wait_for(lambda: len(loader.begun) == 6)
    loader.finish(*(f"s3://b/{number}" for number in range(4)))
    wait_for(lambda: groups == [4])
    loader.finish("s3://b/4", "s3://b/5")
    thread.join(30)
    assert groups == [4, 2]
    assert set(flow.results.values()) == {Reuse(7)}


def test_large_chunk_holds_no_more_images_than_there_is_room_for(run, wait_for) -> None:
    loader, engine, budget = Loader(), Engine(), room(5)
    thread = run(flow_of(chunk(*range(40), recipes=2), loader, engine), budget)
    held = 0
    for done in range(0, 40, 5):
        wait_for(lambda done=done: len(loader.begun) == done + 5)
        held = max(held, 5 - budget.free)
        loader.finish(*list(loader.begun)[done:])
        wait_for(lambda: len(engine.asked) == 10)
        assert len(loader.begun) == done + 5
        engine.answer()
    thread.join(30)
    assert held == 5
    assert budget.free == 5


def test_image_makes_room_when_its_last_prompt_is_answered_and_not_before(run, wait_for) -> None:
    loader, engine, budget = Loader(), Engine(), room(1)
    run(flow_of(chunk(1, 2, recipes=2), loader, engine), budget)
    wait_for(lambda: loader.begun)
    loader.finish("s3://b/1")
    wait_for(lambda: len(engine.asked) == 2)
    engine.answer(1)
    assert list(loader.begun) == ["s3://b/1"]
    engine.answer(1)
    wait_for(lambda: len(loader.begun) == 2)


def test_pixels_are_let_go_when_the_image_is_done(run, wait_for) -> None:
    pixels: list[weakref.ref[Pixels]] = []

    class Watched(Loader):
        def finish(self, *uris: str) -> None:
            for uri in uris:
                image = picture(uri)
                pixels.append(weakref.ref(image.pixels))
                self.begun.pop(uri).set_result(image)

    loader, engine = Watched(), Engine()
    run(flow_of(chunk(1, 2), loader, engine), room())
    wait_for(lambda: len(loader.begun) == 2)
    loader.finish("s3://b/1")
    wait_for(lambda: engine.asked)
    assert pixels[0]() is not None
    engine.answer()
    wait_for(lambda: pixels[0]() is None)


def test_picture_that_is_known_or_comes_twice_makes_room_at_once(run, wait_for) -> None:
    claim, loader, engine = chunk(1, "again/1", 2, 3), Loader(), Engine()
    known = picture("s3://b/2").sha256
    flow = flow_of(claim, loader, engine, lambda sha256s: {(known, 1, ""): 7} if known in sha256s else {})
    run(flow, room(2))
    for uri in ("s3://b/1", "s3://b/again/1", "s3://b/2", "s3://b/3"):
        wait_for(lambda uri=uri: uri in loader.begun)
        loader.finish(uri)
    wait_for(lambda: len(engine.asked) == 2)


def test_chunks_that_share_a_little_room_all_end(run, wait_for, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight chunks at once, room for three images, loads and answers in threads of their own: nobody waits for ever."""
    monkeypatch.setattr(module, "LOOK_S", 60.0)
    monkeypatch.setattr(module, "GROUP_S", 60.0)
    requests: SimpleQueue[tuple[Request, Future[Generation]] | None] = SimpleQueue()
    out, most = itertools.count(), list[int]()
    budget = room(3)

    class Quick:
        def load(self, uri: str, **_: object) -> "Future[LoadedImage]":
            most.append(3 - budget.free)
            return loaders.submit(picture, uri)

        def submit(self, request: Request) -> "Future[Generation]":
            future: Future[Generation] = Future()
            requests.put((request, future))
            return future

    def answer() -> None:
        while (one := requests.get()) is not None:
            next(out)
            one[1].set_result(SNOWMAN)

    engine = Thread(target=answer)
    engine.start()
    with ThreadPoolExecutor(2) as loaders:
        flows = [flow_of(chunk(*(f"{n}-{i}" for i in range(25)), recipes=2), Quick(), Quick()) for n in range(8)]
        threads = [run(flow, budget) for flow in flows]
        for thread in threads:
            thread.join(60)
    requests.put(None)
    engine.join(30)
    assert all(len(flow.results) == 50 for flow in flows)
    assert max(most) <= 3
    assert budget.free == 3


def test_stop_gives_the_room_back_and_takes_back_what_nobody_waits_for(run, wait_for) -> None:
    loader, engine, budget, stop = Loader(), Engine(), room(2), Event()
    flow = flow_of(chunk(1, 2, 3), loader, engine)
    thread = run(flow, budget, stop.is_set)
    wait_for(lambda: len(loader.begun) == 2)
    loader.finish("s3://b/1")
    wait_for(lambda: engine.asked)
    stop.set()
    thread.join(30)
    assert budget.free == 2
    assert engine.asked[0][1].cancelled()
    assert loader.begun["s3://b/2"].cancelled()
    assert "s3://b/3" not in loader.begun
    assert not flow.results


def test_fault_of_the_worker_gives_the_room_back_too() -> None:
    loader, engine, budget = Loader(), Engine(), room(2)

    class Broken(Engine):
        def submit(self, request: Request) -> "Future[Generation]":
            future = super().submit(request)
            future.set_exception(EngineBroken("no memory"))
            return future

    class AtOnce(Loader):
        def load(self, uri: str, **_: object) -> "Future[LoadedImage]":
            future = super().load(uri)
            self.finish(uri)
            return future

    loader, engine = AtOnce(), Broken()
    with pytest.raises(EngineBroken):
        flow_of(chunk(1, 2, 3), loader, engine).run(budget, lambda: False)
    assert budget.free == 2


def asking(*inputs: tuple[object, str], recipes: dict[int, Recipe]) -> Claim:
    """A chunk of images by name, each with a phrase."""
    items = [Item(f"s3://b/{name}", "", None, pack_input({"phrase": phrase})) for name, phrase in inputs]
    return Claim(1, 1, 1, items, recipes, None, None, 0, 0)


PHRASE = RECIPES[0].model_copy(update={"prompt": "<phrase>{phrase}</phrase>", "input": "phrase"})


def test_image_that_many_items_name_is_loaded_once_and_its_prompts_come_in_a_row(run, wait_for) -> None:
    loader, engine, budget = Loader(), Engine(), room(2)
    claim = asking((1, "a cat"), (2, "a dog"), (1, "a dog"), (1, "a cat"), recipes={1: RECIPES[0], 2: PHRASE})
    flow = flow_of(claim, loader, engine)
    thread = run(flow, budget)
    wait_for(lambda: len(loader.begun) == 2)
    loader.finish("s3://b/1", "s3://b/2")
    wait_for(lambda: len(engine.asked) == 5)
    prompts = [request.prompt for request, _ in engine.asked]
    assert prompts[:3] == ["<grounding>a", "<phrase>a cat</phrase>", "<phrase>a dog</phrase>"]
    assert len({id(request.pixels) for request, _ in engine.asked[:3]}) == 1
    engine.answer()
    thread.join(30)
    sha256 = flow.pictures["s3://b/1", ""].content.sha256
    told = {work: result.prompt for work, result in flow.results.items() if work[0] == sha256}
    assert told == {
        (sha256, 1, ""): None,
        (sha256, 2, input_hash("a cat")): "<phrase>a cat</phrase>",
        (sha256, 2, input_hash("a dog")): "<phrase>a dog</phrase>",
    }


def test_same_bytes_under_two_names_are_asked_for_what_either_brings(run, wait_for) -> None:
    loader, engine, budget = Loader(), Engine(), room(1)
    flow = flow_of(asking(("x/1", "a cat"), ("y/1", "a dog"), ("z/1", "a cat"), recipes={1: PHRASE}), loader, engine)
    thread = run(flow, budget)
    for name, asked in (("x/1", 1), ("y/1", 1), ("z/1", 0)):
        wait_for(
            lambda name=name: f"s3://b/{name}" in loader.begun
        )  # there is room for one: the last has given it back
        loader.finish(f"s3://b/{name}")
        wait_for(lambda asked=asked: len(engine.asked) == asked)
        engine.answer()
    thread.join(30)
    assert len(flow.results) == 2


def test_input_that_makes_no_prompt_fails_alone(run, wait_for) -> None:
    loader, engine = Loader(), Engine()
    region = RECIPES[0].model_copy(update={"prompt": "{region}", "input": "region"})
    flow = flow_of(asking((1, "a cat"), recipes={1: PHRASE, 2: region, 3: RECIPES[0]}), loader, engine)
    thread = run(flow, room(1))
    wait_for(lambda: len(loader.begun) == 1)
    loader.finish("s3://b/1")
    wait_for(lambda: len(engine.asked) == 2)
    engine.answer()
    thread.join(30)
    (failure,) = (result for result in flow.results.values() if isinstance(result, Failure))
    assert (failure.code, failure.message[:18]) == (Code.BAD_INPUT, "there is no region")


def test_room_of_an_image_is_given_back_when_none_of_its_inputs_makes_a_prompt(run, wait_for) -> None:
    loader, engine = Loader(), Engine()
    flow = flow_of(asking((1, ""), (2, ""), (3, "a cat"), recipes={1: PHRASE}), loader, engine)
    thread = run(flow, room(1))
    for name in (1, 2, 3):
        wait_for(lambda name=name: f"s3://b/{name}" in loader.begun)
        loader.finish(f"s3://b/{name}")
    wait_for(lambda: len(engine.asked) == 1)
    engine.answer()
    thread.join(30)
    assert len(flow.results) == 3
