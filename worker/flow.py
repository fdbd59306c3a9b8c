"""The images of one chunk on their way: loaded, looked up in the ledger, generated, as soon as each can be."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any, Protocol

from schemas.errors import Code, EngineClosed, ImageFailure, PermanentFailure, SetupError
from schemas.items import Item
from schemas.ledger.work import Claim
from schemas.recipes import Recipe
from schemas.results import Annotation, Content, Failure, Result, Reuse
from worker.budget import PixelBudget
from worker.generation import Generation, Pixels, Request
from worker.images import LoadedImage

LOOK_S = 0.25
"""How often a waiting task looks whether it must stop."""
GROUP_IMAGES, GROUP_S = 32, 0.1
"""Loaded images go on in groups, since a look-up costs as much as ten images: so many, or what has come after a while.

In that while an engine that is kept busy computes what it has.
"""
DRAIN_S = 5.0
"""How long a stop waits for what the model has begun."""

Work = tuple[str, int]
"""What is to be computed once: a content (by sha256) under a recipe (by row id)."""


class Loader(Protocol):
    def load(self, uri: str, *, exact: bool = False, roots: Sequence[str] | None = None) -> "Future[LoadedImage]": ...


class Engine(Protocol):
    def submit(self, request: Request) -> "Future[Generation]": ...


@dataclass(frozen=True, slots=True)
class Picture:
    """What is kept of an image that was loaded: all but its pixels."""

    content: Content
    version: str


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
        annotation_of: Callable[[Generation], Annotation],
    ) -> None:
        """`find` gives the annotations that some contents (by sha256) have under the chunk's recipes."""
        self.pictures: dict[Item, Picture] = {}
        self.failures: dict[Item, ImageFailure] = {}
        self.results: dict[Work, Result] = {}
        self._claim, self._loader, self._engine = claim, loader, engine
        self._find, self._annotation_of = find, annotation_of
        self._exact = any(recipe.exact for recipe in claim.recipes.values())
        self._to_load = deque(dict.fromkeys(claim.items))
        self._loading: dict[Item, Future[LoadedImage]] = {}
        self._generating: dict[Work, Future[Generation]] = {}
        self._prompts_left: Counter[str] = Counter()
        """Generations that are awaited, by sha256: the image's room is given back with the last."""
        self._seen: set[str] = set()
        self._loaded: deque[Item] = deque()
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
            item = self._to_load.popleft()
            load = self._loading[item] = self._loader.load(item.uri, exact=self._exact, roots=self._claim.roots)
            load.add_done_callback(partial(self._on_loaded, item))

    def _on_loaded(self, item: Item, _: "Future[LoadedImage]") -> None:
        self._loaded.append(item)
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

    def _take_loaded(self) -> dict[str, Pixels]:
        """The pixels of the contents that have come and that this chunk has not had, by sha256."""
        new: dict[str, Pixels] = {}
        for item in popped(self._loaded):
            image = self._image_of(item, self._loading.pop(item))
            if image is None or image.sha256 in self._seen:
                self._share.give_back()
            else:
                self._seen.add(image.sha256)
                new[image.sha256] = image.pixels
        return new

    def _image_of(self, item: Item, load: "Future[LoadedImage]") -> LoadedImage | None:
        """The image, noted with its item; None where there is none."""
        error = CancelledError() if load.cancelled() else load.exception()
        if error is None:
            image = load.result()
            content = Content(image.sha256, image.width, image.height, image.format, image.size)
            self.pictures[item] = Picture(content, image.version)
            return image
        if isinstance(error, SetupError):
            raise error
        if isinstance(error, ImageFailure):
            self.failures[item] = error
        elif not isinstance(error, CancelledError):  # that is a stop, or a loader that was closed over it
            self.failures[item] = PermanentFailure(Code.INTERNAL, f"{type(error).__name__}: {error}")
        return None

    def _submit(self, new: dict[str, Pixels]) -> None:
        """Requests for what the ledger does not have: all recipes of an image in a row, since they share its pass."""
        if not new:
            return
        self.results.update((work, Reuse(annotation_id)) for work, annotation_id in self._find(list(new)).items())
        for sha256, pixels in new.items():
            wanted = {key: it for key, it in self._claim.recipes.items() if (sha256, key) not in self.results}
            self._prompts_left[sha256] = len(wanted)
            if not wanted:
                self._share.give_back()
            for recipe_id, recipe in wanted.items():
                future = self._generating[sha256, recipe_id] = self._engine.submit(request_of(recipe, pixels))
                future.add_done_callback(partial(self._on_generated, (sha256, recipe_id)))

    def _take_generated(self) -> None:
        for work in popped(self._generated):
            self._take(work)

    def _take(self, work: Work) -> None:
        """The result of a generation that is done, or has been given up."""
        result = self._result_of(self._generating.pop(work))
        if result is not None:
            self.results[work] = result
        self._prompts_left[work[0]] -= 1
        if not self._prompts_left[work[0]]:
            self._share.give_back()

    def _result_of(self, future: "Future[Generation]") -> Result | None:
        """None for what was given up before it was done."""
        try:
            return self._annotation_of(future.result())
        except (CancelledError, EngineClosed):
            return None
        except PermanentFailure as failure:
            return Failure(failure.code, failure.message)

    def _drain(self) -> None:
        """Give up what has not begun, and wait so long for what the model has."""
        self._share.ask_no_more()
        self._take_loaded()
        wait([future for future in self._generating.values() if not future.cancel()], timeout=DRAIN_S)
        # by the futures and not by the word they leave: `wait` ends before the last of them has left it
        for work in [work for work, future in self._generating.items() if future.done()]:
            self._take(work)

    def _cancel(self) -> None:
        """Nobody computes what nobody waits for."""
        futures: list[Future[Any]] = [*self._loading.values(), *self._generating.values()]
        for future in futures:
            future.cancel()


def popped(queue: "deque[Any]") -> Iterable[Any]:
    """What is in the queue now, taken out of it."""
    return [queue.popleft() for _ in range(len(queue))]


def request_of(recipe: Recipe, pixels: Pixels) -> Request:
    """What the engine is asked."""
    return Request(
        pixels,
        recipe.prompt,
        recipe.max_new_tokens,
        recipe.no_repeat_ngram_size,
        recipe.min_new_tokens,
        recipe.constrained,
    )
