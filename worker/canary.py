"""The canaries: before it annotates anything under a recipe, a worker says what the recipe's first worker said.

Another driver, another kernel, the wrong weights: a model seldom fails over them, it says something else. Four pictures
that are the same everywhere show it, before an archive is half the one and half the other.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, wait
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

from schemas.database import Database, patiently
from schemas.errors import Drift, EngineClosed, PermanentFailure
from schemas.ledger.bulk import plain
from schemas.ledger.canaries import Canary, record_canaries, recorded_at
from schemas.recipes import Recipe
from worker.canary_pictures import canary_pictures
from worker.drift import Failed, difference, tolerance_for
from worker.flow import LOOK_S, Engine, request_of
from worker.generation import IMAGE_SIZE, Generation, Pixels, Request

MOST_TOKENS = 32
"""Of an answer: a drift shows in a few words, and a large model on a CPU takes seconds for them."""

VALUES = {
    "phrase": "a red ring",
    "expression": "the shape on the left",
    "region": "0.25,0.25,0.75,0.75",
    "question": "How many shapes are there?",
    "plain_question": "How many shapes are there?",
    "prompt": "<grounding>An image of",
}
"""What the items of the canaries bring, by field. To change one is to change what all recipes with it have recorded."""

Answers = list[Canary | Failed]


@dataclass
class Canaries:
    """What a worker's model says of the canaries, for each recipe once, held against what was recorded first."""

    database: Database
    engine: Engine
    runtime: str
    _ours: dict[int, Answers] = field(default_factory=dict)
    _agreed: dict[int, float | None] = field(default_factory=dict)
    """When that was recorded with which ours agree, by recipe: `resume --new-canary` makes it another."""
    _asking: Lock = field(default_factory=Lock)

    def agree(
        self, recipes: Mapping[int, Recipe], stopped: Callable[[], bool], leaving: Callable[[], bool] = lambda: False
    ) -> bool:
        """Whether the model says what it said under each of these recipes (by row id); False if a stop came first.

        Raises Drift where it does not. A picture on which it has always failed says nothing.
        """
        times = patiently(partial(recorded_at, self.database, list(recipes)), stop=leaving)
        try:
            for recipe_id, recipe in recipes.items():
                if recipe_id not in self._agreed or self._agreed[recipe_id] != times.get(recipe_id):
                    self._compare(recipe_id, recipe, self._answers(recipe_id, recipe, stopped), leaving)
        except (CancelledError, EngineClosed):
            return False
        return True

    def _compare(self, recipe_id: int, recipe: Recipe, ours: Answers, leaving: Callable[[], bool]) -> None:
        said = [one for one in ours if isinstance(one, Canary)]
        recorded, at = patiently(partial(record_canaries, self.database, recipe_id, said), stop=leaving)
        for one in ours:
            then = recorded.get(one.number)
            if then and (how := difference(then, one, tolerance_for(recipe.dtype))):
                raise Drift(f"canary {one.number} ({recipe.task}) differs: {how}")
        self._agreed[recipe_id] = at

    def _answers(self, recipe_id: int, recipe: Recipe, stopped: Callable[[], bool]) -> Answers:
        """Ours. The chunks of a worker begin side by side: one asks, the others wait for it.

        Raises CancelledError for a stop, EngineClosed for the engine's own.
        """
        while not self._asking.acquire(timeout=LOOK_S):
            if stopped():
                raise CancelledError
        try:
            if recipe_id not in self._ours:
                pictures = canary_pictures().items()
                self._ours[recipe_id] = [self._ask(recipe, number, pixels, stopped) for number, pixels in pictures]
            return self._ours[recipe_id]
        finally:
            self._asking.release()

    def _ask(self, recipe: Recipe, number: int, pixels: Pixels, stopped: Callable[[], bool]) -> Canary | Failed:
        """One after the other: what stands beside a row in a batch moves its probabilities in 16 bits."""
        future = self.engine.submit(question(recipe, pixels))
        while not wait([future], LOOK_S).done:
            if stopped():
                future.cancel()
                raise CancelledError
        try:
            said: Generation = future.result()
        except PermanentFailure as failure:
            return Failed(number, str(failure), self.runtime)
        return Canary(number, said.token_ids, said.logprobs, plain(said.raw_text), self.runtime)


def question(recipe: Recipe, pixels: Pixels) -> Request:
    """What a recipe asks of a canary, with a value of ours for what its items bring; nothing is verified."""
    tokens = min(recipe.max_new_tokens, MOST_TOKENS)
    less = {"max_new_tokens": tokens, "min_new_tokens": min(recipe.min_new_tokens, tokens), "verify": ""}
    prompt = recipe.fill(VALUES[recipe.input], size=(IMAGE_SIZE, IMAGE_SIZE)) if recipe.input else recipe.prompt
    return request_of(recipe.model_copy(update=less), prompt, pixels)
