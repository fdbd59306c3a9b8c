"""Questions about many images, put to the engine so that it never waits, and their answers in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from kosmograph.evaluation.questions import Picture
from schemas.errors import ImageFailure
from worker.flow import Engine
from worker.generation import Generation, Request
from worker.images import LoadedImage

LOADS = 64
"""Images that are on their way from the disk at once."""
NEAR = 0.02
"""By how much of itself an aspect ratio may differ: a reduced copy is rounded, another picture is another one."""

Load = Callable[[Picture], "Future[LoadedImage]"]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Asking:
    """How answers are decoded, as in the paper's evaluation: greedily, no three tokens in a row twice."""

    max_new_tokens: int = 64
    no_repeat_ngram_size: int = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answers to a picture's questions as raw text, or why there are none."""

    picture: Picture
    answers: tuple[str, ...] = ()
    failure: str = ""


@dataclass(frozen=True, slots=True)
class _Asked:
    picture: Picture
    answers: "tuple[Future[Generation], ...]"
    failure: str


def outcomes(pictures: Iterable[Picture], load: Load, engine: Engine, prompts: int, how: Asking) -> Iterator[Outcome]:
    """An outcome for each picture, in their order, with some `prompts` in the engine's hands at any time."""
    loading = _ahead(((picture, load(picture)) for picture in pictures), lambda _: 1, LOADS)
    asked = (_ask(picture, loaded, engine, how) for picture, loaded in loading)
    for one in _ahead(asked, lambda one: max(1, len(one.answers)), prompts):
        try:
            answers = tuple(future.result().raw_text for future in one.answers)
        except ImageFailure as failure:
            yield Outcome(one.picture, failure=str(failure))
        else:
            yield Outcome(one.picture, answers, one.failure)


def _ahead(items: Iterable[Item], weight: Callable[[Item], int], most: int) -> Iterator[Item]:
    """The same items, of which those to come are drawn until they weigh `most`: what is drawn has begun."""
    drawn: deque[Item] = deque()
    weighs = 0
    for item in items:
        drawn.append(item)
        weighs += weight(item)
        while drawn and weighs >= most:
            first = drawn.popleft()
            weighs -= weight(first)
            yield first
    yield from drawn


def _ask(picture: Picture, load: "Future[LoadedImage]", engine: Engine, how: Asking) -> _Asked:
    """All prompts of a picture at once, which share one look at it; or why it is not asked about."""
    try:
        image = load.result()
    except ImageFailure as failure:
        return _Asked(picture, (), str(failure))
    if abs(image.width * picture.height / (image.height * picture.width) - 1) > NEAR:
        annotated = f"{picture.width}×{picture.height} in the annotations"
        return _Asked(picture, (), f"it has {image.width}×{image.height} pixels, and {annotated}: boxes lie elsewhere")
    about = how.max_new_tokens, how.no_repeat_ngram_size
    asked = (engine.submit(Request(image.pixels, one.prompt, *about)) for one in picture.questions)
    return _Asked(picture, tuple(asked), "")
