"""The images of one chunk on their way: loaded, looked up in the ledger, generated, as soon as each can be."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any, NamedTuple, Protocol

from schemas.errors import Code, EngineClosed, ImageFailure, PermanentFailure, SetupError
from schemas.inputs import Inputs
from schemas.items import Item
from schemas.ledger.work import Claim
from schemas.recipes import Recipe
from schemas.results import Annotation, Content, Failure, Result, Reuse
from worker.budget import PixelBudget
from worker.generation import Generation, Pixels, Request
from worker.images import LoadedImage
from worker.verification import follow_up_of

LOOK_S = 0.25
"""How often a waiting task looks whether it must stop."""
GROUP_IMAGES, GROUP_S = 32, 0.1
"""Loaded images go on in groups, since a look-up costs as much as ten images: so many, or what has come after a while.

In that while an engine that is kept busy computes what it has.
"""
DRAIN_S = 5.0
"""How long a stop waits for what the model has begun."""

Work = tuple[str, int, str]
"""What is to be computed once: a content (by sha256) under a recipe (by row id), with the hash of an item's input."""

Image = tuple[str, str]
"""A URI with the version that was listed: what is loaded once."""


class Loader(Protocol):
    def load(self, uri: str, *, exact: bool = False, roots: Sequence[str] | None = None) -> "Future[LoadedImage]": ...


class Engine(Protocol):
    def submit(self, request: Request) -> "Future[Generation]": ...


@dataclass(frozen=True, slots=True)
class Picture:
    """What is kept of an image that was loaded: all but its pixels."""

    content: Content
    version: str


class _Asked(NamedTuple):
    """What the engine was asked, and for which image, whose pixels it holds."""

    image: Image
    prompt: str
    future: "Future[Generation]"


class Flow:
    """One run over the items of a chunk; afterwards it tells what became of each.

    Loaded images do not wait for those that are not. They go on in groups: one look-up in the ledger, then the
    requests, image by image. Futures leave word in two queues and wake the task's thread when there is enough of it;
    that thread alone touches the rest. It never waits for room while it holds images: see `worker/budget.py`.
    """

    def __init__(
        self,
        claim: Claim,
        loader: Loader,
        engine: Engine,
        find: Callable[[list[str]], dict[Work, int]],
        annotation_of: Callable[[Recipe, str, Generation], Annotation],
    ) -> None:
        """`find` gives the annotations that some contents (by sha256) have under the chunk's recipes."""
        self.pictures: dict[Image, Picture] = {}
        self.failures: dict[Image, ImageFailure] = {}
        self.results: dict[Work, Result] = {}
        self._claim, self._loader, self._engine = claim, loader, engine
        self._find, self._annotation_of = find, annotation_of
        self._exact = any(recipe.exact for recipe in claim.recipes.values())
        self._inputs = Inputs(claim.recipes)
        self._items: dict[Image, list[Item]] = defaultdict(list)
        for item in claim.items:
            self._items[item.image].append(item)
        self._to_load = deque(self._items)
        self._loading: dict[Image, Future[LoadedImage]] = {}
        self._generating: dict[Work, _Asked] = {}
        self._prompts_left: Counter[Image] = Counter()
        """Generations that are awaited: the image's room is given back with the last."""
        self._seen: set[Work] = set()
        self._loaded: deque[Image] = deque()
        self._generated: deque[Work] = deque()
        self._wake = Event()

    def run(self, budget: PixelBudget, stopped: Callable[[], bool]) -> None:
        """Everything, or after a stop what was finished by then.

        Raises SetupError when loader or model are of no use to any image.
        """
        with budget.share(self._wake.set) as self._share:
            try:
                while self._to_load or self._loading or self._generating:
                    self._begin()
                    self._wait()
                    if stopped():
                        self._drain()
                        break
                    self._submit(self._take_loaded())
                    self._take_generated()
            finally:
                self._cancel()

    def _begin(self) -> None:
        """Loads, for as many images as there is room."""
        for _ in range(self._share.take(len(self._to_load)) if self._to_load else 0):
            image = self._to_load.popleft()
            load = self._loading[image] = self._loader.load(image[0], exact=self._exact, roots=self._claim.roots)
            load.add_done_callback(partial(self._on_loaded, image))

    def _on_loaded(self, image: Image, _: "Future[LoadedImage]") -> None:
        self._loaded.append(image)
        if self._is_due:
            self._wake.set()

    def _on_generated(self, work: Work, _: "Future[Generation]") -> None:
        self._generated.append(work)
        if self._is_due:
            self._wake.set()

    @property
    def _is_due(self) -> bool:
        """Whether enough has come to be worth the thread's while: waking it costs those of loader and engine time."""
        loaded, generated = len(self._loaded), len(self._generated)
        return (
            0 < loaded >= min(GROUP_IMAGES, len(self._loading))
            or 0 < generated >= len(self._generating)
            or (generated > 0 and self._share.is_short)
        )

    def _wait(self) -> None:
        """Until enough has come, or to look whether to stop."""
        if not self._is_due:  # else it may have come before the last of `_loading` was struck off, and woke nobody
            self._wake.wait(GROUP_S if self._loading else LOOK_S)
        self._wake.clear()

    def _take_loaded(self) -> dict[Image, Pixels]:
        """The pixels of the images that have come, and are wanted for something that this chunk has not had."""
        new: dict[Image, Pixels] = {}
        for image in popped(self._loaded):
            loaded = self._loaded_of(image, self._loading.pop(image))
            if loaded is None or self._seen.issuperset(self._wanted(image)):
                self._share.give_back()
            else:
                self._seen.update(self._wanted(image))
                new[image] = loaded.pixels
        return new

    def work_of(self, item: Item) -> list[Work]:
        """What is wanted for an item whose image was loaded: for each recipe one."""
        sha256 = self.pictures[item.image].content.sha256
        return [(sha256, recipe_id, brought) for recipe_id, brought in self._inputs.hashes_of(item).items()]

    def _wanted(self, image: Image) -> dict[Work, Item]:
        """What the items of an image want of it, each with an item that brings the input."""
        return {work: item for item in self._items[image] for work in self.work_of(item)}

    def _loaded_of(self, image: Image, load: "Future[LoadedImage]") -> LoadedImage | None:
        """The image, noted with its name; None where there is none."""
        error = CancelledError() if load.cancelled() else load.exception()
        if error is None:
            loaded = load.result()
            content = Content(loaded.sha256, loaded.width, loaded.height, loaded.format, loaded.size)
            self.pictures[image] = Picture(content, loaded.version)
            return loaded
        if isinstance(error, SetupError):
            raise error
        if isinstance(error, ImageFailure):
            self.failures[image] = error
        elif not isinstance(error, CancelledError):  # that is a stop, or a loader that was closed over it
            self.failures[image] = PermanentFailure(Code.INTERNAL, f"{type(error).__name__}: {error}")
        return None

    def _submit(self, new: dict[Image, Pixels]) -> None:
        """Requests for what the ledger does not have: all prompts of an image in a row, since they share its pass."""
        if not new:
            return
        sha256s = {self.pictures[image].content.sha256 for image in new}
        self.results.update((work, Reuse(annotation_id)) for work, annotation_id in self._find(list(sha256s)).items())
        for image, pixels in new.items():
            prompts = self._prompts(image)
            self._prompts_left[image] = len(prompts)
            if not prompts:
                self._share.give_back()
            for work, prompt in prompts.items():
                future = self._engine.submit(request_of(self._claim.recipes[work[1]], prompt, pixels))
                self._generating[work] = _Asked(image, prompt, future)
                future.add_done_callback(partial(self._on_generated, work))

    def _prompts(self, image: Image) -> dict[Work, str]:
        """What the model is to be asked of an image; an input that makes no prompt has failed."""
        content, prompts = self.pictures[image].content, dict[Work, str]()
        for work, item in self._wanted(image).items():
            if work in self.results or work in self._generating:
                continue
            value = self._inputs.values_of(item).get(work[1], "")
            try:
                prompts[work] = self._claim.recipes[work[1]].fill(value, (content.width, content.height))
            except PermanentFailure as failure:
                self.results[work] = Failure(failure.code, failure.message)
        return prompts

    def _take_generated(self) -> None:
        for work in popped(self._generated):
            self._take(work)

    def _take(self, work: Work) -> None:
        """The result of a generation that is done, or has been given up."""
        asked = self._generating.pop(work)
        result = self._result_of(work, asked)
        if result is not None:
            self.results[work] = result
        self._prompts_left[asked.image] -= 1
        if not self._prompts_left[asked.image]:
            self._share.give_back()

    def _result_of(self, work: Work, asked: _Asked) -> Result | None:
        """None for what was given up before it was done."""
        try:
            return self._annotation_of(self._claim.recipes[work[1]], asked.prompt, asked.future.result())
        except (CancelledError, EngineClosed):
            return None
        except PermanentFailure as failure:
            return Failure(failure.code, failure.message)

    def _drain(self) -> None:
        """Give up what has not begun, and wait so long for what the model has."""
        self._share.ask_no_more()
        self._take_loaded()
        wait([asked.future for asked in self._generating.values() if not asked.future.cancel()], timeout=DRAIN_S)
        # by the futures and not by the word they leave: `wait` ends before the last of them has left it
        for work in [work for work, asked in self._generating.items() if asked.future.done()]:
            self._take(work)

    def _cancel(self) -> None:
        """Nobody computes what nobody waits for."""
        asked = (one.future for one in self._generating.values())
        futures: list[Future[Any]] = [*self._loading.values(), *asked]
        for future in futures:
            future.cancel()


def popped(queue: "deque[Any]") -> Iterable[Any]:
    """What is in the queue now, taken out of it."""
    return [queue.popleft() for _ in range(len(queue))]


def request_of(recipe: Recipe, prompt: str, pixels: Pixels) -> Request:
    """What the engine is asked."""
    return Request(
        pixels,
        prompt,
        recipe.max_new_tokens,
        recipe.no_repeat_ngram_size,
        recipe.min_new_tokens,
        recipe.constrained,
        follow_up=follow_up_of(recipe, prompt, pixels),
    )
