"""What happens to a chunk in a worker: load, look up, generate, account for every item."""

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from schemas.database import Database, patiently
from schemas.errors import Code, ImageFailure, PermanentFailure, SetupError, TransientFailure
from schemas.grounding import parse
from schemas.items import Item
from schemas.ledger.work import Claim, find_annotations
from schemas.recipes import Recipe
from schemas.results import Annotation, Completion, Content, Failure, Later, Result, Reuse, Settled
from schemas.settings import Settings
from worker.generation import EngineClosed, Generation, Request
from worker.images import LoadedImage
from worker.scoring import score

LOOK_S = 0.25
"""How often a waiting task looks whether it must stop."""
DRAIN_S = 5.0
"""How long a stop waits for what the model has begun."""


class Loader(Protocol):
    def load(self, uri: str, *, exact: bool = False) -> "Future[LoadedImage]": ...


class Engine(Protocol):
    first_patch_id: int

    def submit(self, request: Request) -> "Future[Generation]": ...


Work = tuple[str, int]
"""What is to be computed once: a content (by sha256) under a recipe (by row id)."""


@dataclass
class Annotator:
    """Turns a claimed chunk into a completion in which each of its items is settled, or comes again later."""

    database: Database
    loader: Loader
    engine: Engine
    settings: Settings
    runtime: str

    def annotate(self, claim: Claim, stopped: Callable[[], bool] = lambda: False) -> Completion:
        """The whole chunk, or after a stop what is finished of it.

        Raises SetupError when loader or model are of no use to any image: no image is to blame for it.
        """
        loads = self._load(claim, stopped)
        images = {item: load.result() for item, load in loads.items() if _succeeded(load)}
        answers = self._answers(claim, images, stopped)
        settled: list[Settled] = []
        left: list[Item] = []
        passing: dict[Code, list[Item]] = defaultdict(list)
        for item in claim.items:
            failure = _failure(loads[item])
            if item in images:
                results = self._results(claim, images[item], answers)
                if results is None:
                    left.append(item)
                else:
                    settled.append(_settle(item, images[item], results))
            elif isinstance(failure, TransientFailure) and claim.tries + 1 < self.settings.max_tries:
                passing[failure.code].append(item)
            elif failure is not None:
                results = dict.fromkeys(claim.recipes, Failure(failure.code, failure.message))
                settled.append(Settled(item, failure.version or item.version, None, results))
            else:
                left.append(item)
        later = [Later(left, tries=claim.tries)] if left else []
        later += [Later(items, claim.tries + 1, self._wait_s(claim.tries), code) for code, items in passing.items()]
        return Completion(settled, later)

    def _load(self, claim: Claim, stopped: Callable[[], bool]) -> dict[Item, "Future[LoadedImage]"]:
        exact = any(recipe.exact for recipe in claim.recipes.values())
        loads = {item: self.loader.load(item.uri, exact=exact) for item in dict.fromkeys(claim.items)}
        _wait_for(loads.values(), stopped, drain_s=0.0)
        return loads

    def _answers(
        self, claim: Claim, images: dict[Item, LoadedImage], stopped: Callable[[], bool]
    ) -> dict[Work, "Result | Future[Generation]"]:
        """For each content and recipe: the annotation that is there, or the future of a new one."""
        if not images or stopped():
            return {}
        pixels = {image.sha256: image.pixels for image in images.values()}
        answers: dict[Work, Result | Future[Generation]] = {}
        there = partial(find_annotations, self.database, list(pixels), list(claim.recipes))
        for work, annotation_id in patiently(there, stop=stopped).items():
            answers[work] = Reuse(annotation_id)
        futures: list[Future[Generation]] = []
        for recipe_id, recipe in claim.recipes.items():
            for sha256 in pixels:
                if (sha256, recipe_id) not in answers:
                    futures.append(self.engine.submit(_request(pixels[sha256], recipe)))
                    answers[sha256, recipe_id] = futures[-1]
        _wait_for(futures, stopped, drain_s=DRAIN_S)
        return answers

    def _results(
        self, claim: Claim, image: LoadedImage, answers: dict[Work, "Result | Future[Generation]"]
    ) -> dict[int, Result] | None:
        """An image's result for each recipe; None if a stop came before they were all there."""
        results: dict[int, Result] = {}
        for recipe_id in claim.recipes:
            work = (image.sha256, recipe_id)
            answer = answers.get(work)
            if isinstance(answer, Future):
                answer = answers[work] = self._result(answer) or answer
            if answer is None or isinstance(answer, Future):
                return None
            results[recipe_id] = answer
        return results

    def _result(self, future: "Future[Generation]") -> Result | None:
        if not future.done():
            return None
        try:
            return self._annotation(future.result())
        except (CancelledError, EngineClosed):
            return None
        except PermanentFailure as failure:
            return Failure(failure.code, failure.message)

    def _annotation(self, generation: Generation) -> Annotation:
        grounding = parse(generation.raw_text)
        scores = score(grounding, generation, self.engine.first_patch_id)
        return Annotation(
            raw_text=generation.raw_text,
            grounding=grounding,
            scores=scores.boxes,
            finish_reason=generation.finish_reason,
            tokens=len(generation.token_ids),
            mean_logprob=scores.mean_logprob,
            runtime=self.runtime,
        )

    def _wait_s(self, tries: int) -> float:
        """Doubles with each try; the jitter keeps a burst of failures from coming back as one."""
        return self.settings.retry_base_s * float(2**tries) * random.uniform(0.5, 1.5)


def _request(pixels: Any, recipe: Recipe) -> Request:
    return Request(pixels, recipe.prompt, recipe.max_new_tokens, recipe.no_repeat_ngram_size)


def _wait_for(futures: Collection["Future[Any]"], stopped: Callable[[], bool], drain_s: float) -> None:
    """Wait for all; after a stop, give up what has not begun, and wait so long for what has."""
    pending: Iterable[Future[Any]] = futures
    while pending := wait(pending, timeout=LOOK_S).not_done:
        if stopped():
            wait([future for future in pending if not future.cancel()], timeout=drain_s)
            return


def _succeeded(load: "Future[LoadedImage]") -> bool:
    return load.done() and not load.cancelled() and load.exception() is None


def _failure(load: "Future[LoadedImage]") -> ImageFailure | None:
    """Why an image could not be loaded; None where it was, or where a stop came first."""
    if not load.done() or load.cancelled():
        return None
    error = load.exception()
    if error is None or isinstance(error, ImageFailure):
        return error
    if isinstance(error, CancelledError):  # the loader was closed over it
        return None
    if isinstance(error, SetupError):
        raise error
    return PermanentFailure(Code.INTERNAL, f"{type(error).__name__}: {error}")


def _settle(item: Item, image: LoadedImage, results: dict[int, Result]) -> Settled:
    content = Content(image.sha256, image.width, image.height, image.format, image.size)
    return Settled(item, image.version, content, results)
