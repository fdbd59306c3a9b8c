"""What becomes of a chunk in a worker: each of its items settled, or left for later."""

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from schemas.database import Database, patiently
from schemas.errors import Code, TransientFailure
from schemas.items import Item
from schemas.ledger.work import Claim, find_annotations
from schemas.recipes import Recipe
from schemas.results import Annotation, Completion, Failure, Later, Result, Settled
from schemas.settings import Settings
from worker import flow
from worker.annotation import annotation_of
from worker.budget import PixelBudget
from worker.canary import Canaries
from worker.flow import Flow, Loader
from worker.generation import Generation, Vocabulary


class Engine(flow.Engine, Protocol):
    vocabulary: Vocabulary


@dataclass
class Annotator:
    """Turns a claimed chunk into a completion in which each of its items is settled, or comes again later."""

    database: Database
    loader: Loader
    engine: Engine
    settings: Settings
    runtime: str
    budget: PixelBudget = field(init=False)
    canaries: Canaries = field(init=False)

    def __post_init__(self) -> None:
        self.budget = PixelBudget(self.settings.prefetch_bytes)
        self.canaries = Canaries(self.database, self.engine, self.runtime)

    def annotate(
        self, claim: Claim, stopped: Callable[[], bool] = lambda: False, leaving: Callable[[], bool] = lambda: False
    ) -> Completion:
        """The whole chunk, or after a stop what is finished of it. `leaving`: whether the whole worker is to end.

        Raises SetupError when loader or model are of no use to any image, and Drift when the model is not what it was:
        no image is to blame for it.
        """
        if not self.canaries.agree(claim.recipes, stopped, leaving):
            return Completion(later=[Later(claim.items, claim.tries)])

        def find(sha256s: list[str]) -> dict[flow.Work, int]:
            return patiently(partial(find_annotations, self.database, sha256s, list(claim.recipes)), stop=leaving)

        done = Flow(claim, self.loader, self.engine, find, self._annotation)
        done.run(self.budget, stopped)
        return self._completion(claim, done)

    def _completion(self, claim: Claim, done: Flow) -> Completion:
        settled: list[Settled] = []
        left: list[Item] = []
        passing: dict[Code, list[Item]] = defaultdict(list)
        for item in claim.items:
            failure = done.failures.get(item.image)
            if isinstance(failure, TransientFailure) and claim.tries + 1 < self.settings.max_tries:
                passing[failure.code].append(item)
            elif failure is not None:
                results: dict[int, Result] = dict.fromkeys(claim.recipes, Failure(failure.code, failure.message))
                settled.append(Settled(item, failure.version or item.version, None, results))
            elif (whole := _whole(claim, item, done)) is not None:
                settled.append(whole)
            else:
                left.append(item)
        later = [Later(left, tries=claim.tries)] if left else []
        later += [Later(items, claim.tries + 1, self._wait_s(claim.tries), code) for code, items in passing.items()]
        return Completion(settled, later)

    def _annotation(self, recipe: Recipe, prompt: str, generation: Generation) -> Annotation:
        return annotation_of(recipe, prompt, generation, self.engine.vocabulary, self.runtime)

    def _wait_s(self, tries: int) -> float:
        """Doubles with each try; the jitter keeps a burst of failures from coming back as one."""
        return self.settings.retry_base_s * float(2**tries) * random.uniform(0.5, 1.5)


def _whole(claim: Claim, item: Item, done: Flow) -> Settled | None:
    """The item with a result for each recipe; None if a stop came before they were all there."""
    picture = done.pictures.get(item.image)
    if picture is None:
        return None
    there = {work[1]: result for work in done.work_of(item) if (result := done.results.get(work)) is not None}
    return Settled(item, picture.version, picture.content, there) if there.keys() == claim.recipes.keys() else None
