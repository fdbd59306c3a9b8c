"""Questions about many images, put to the engine so that it never waits, and their answers in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from kosmograph.evaluation.questions import Picture
from schemas.errors import ImageFailure
from schemas.settings import Settings
from schemas.storage import StorageOptions
from schemas.uris import file_uri
from worker.cores import loader_processes
from worker.flow import Engine
from worker.generation import Generation, Request
from worker.images import Limits, LoadedImage
from worker.loader import Loader
from worker.revision import ModelRef
from worker.service import load_engine

LOADS = 64
"""Images that are on their way from the disk at once."""
PROMPTS_PER_SLOT = 4
"""Prompts in the engine's hands, so that a slot that is free finds the next one."""
SPLITS = ("train2014", "val2014")
"""Folders of COCO, in which a file lies whose name says so."""
NEAR = 0.02
"""By how much of itself an aspect ratio may differ: a reduced copy is rounded, another picture is another one."""
MAX_NEW_TOKENS = 64
NO_REPEAT_NGRAM_SIZE = 3
"""As in the paper's evaluation: greedy, and no three tokens in a row twice."""

Load = Callable[[Picture], "Future[LoadedImage]"]
Item = TypeVar("Item")


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


@contextmanager
def answering(
    ref: ModelRef, images: Path, settings: Settings
) -> Iterator[tuple[str, Callable[[Iterable[Picture]], Iterator[Outcome]]]]:
    """What the model runs on, in words, and what gives the outcomes of pictures whose files lie in `images`."""
    engine, runtime = load_engine(ref, settings)
    processes = loader_processes(settings, gpu=runtime.startswith("cuda"))
    with engine, Loader(Limits.from_settings(settings), processes, StorageOptions.of(settings)) as loader:
        load = partial(_load, loader, images)
        yield runtime, partial(outcomes, load=load, engine=engine, prompts=PROMPTS_PER_SLOT * engine.figures.slots)


def _load(loader: Loader, images: Path, picture: Picture) -> "Future[LoadedImage]":
    """The file of that name: in COCO's folder where the name says so and there is one, else in the images' folder."""
    folders = [folder for folder in (images, *(images / split for split in SPLITS)) if folder.is_dir()]
    places = [images / split / picture.name for split in SPLITS if split in picture.name]
    place = next((place for place in places if place.is_file()), images / picture.name)
    return loader.load(file_uri(os.path.abspath(place)), exact=True, roots=[os.path.realpath(one) for one in folders])


def outcomes(pictures: Iterable[Picture], load: Load, engine: Engine, prompts: int) -> Iterator[Outcome]:
    """An outcome for each picture, in their order, with some `prompts` in the engine's hands at any time."""
    loading = _ahead(((picture, load(picture)) for picture in pictures), lambda _: 1, LOADS)
    asked = (_ask(picture, loaded, engine) for picture, loaded in loading)
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


def _ask(picture: Picture, load: "Future[LoadedImage]", engine: Engine) -> _Asked:
    """All prompts of a picture at once, which share one look at it; or why it is not asked about."""
    try:
        image = load.result()
    except ImageFailure as failure:
        return _Asked(picture, (), str(failure))
    if abs(image.width * picture.height / (image.height * picture.width) - 1) > NEAR:
        annotated = f"{picture.width}×{picture.height} in the annotations"
        return _Asked(picture, (), f"it has {image.width}×{image.height} pixels, and {annotated}: boxes lie elsewhere")
    asked = (
        engine.submit(Request(image.pixels, one.prompt, MAX_NEW_TOKENS, NO_REPEAT_NGRAM_SIZE))
        for one in picture.questions
    )
    return _Asked(picture, tuple(asked), "")
