"""`evaluate`: from annotation files to a table, in this process."""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import orjson

from kosmograph.display import counting
from kosmograph.evaluation.published import published_for
from kosmograph.evaluation.questions import ALL, Picture
from kosmograph.evaluation.scoring import EVERY, Score, Tally, boxes_of, is_right
from kosmograph.output import say, say_json, say_table, warn
from schemas.errors import SetupError, SourceError, UsageError
from schemas.settings import Settings
from schemas.uris import file_uri

if TYPE_CHECKING:
    from worker.images import LoadedImage

MEASURES: dict[str, dict[str, int | None]] = {
    "refcoco": {"accuracy": 1, "upper_bound": EVERY},
    "flickr30k": {"R@1": 1, "R@5": 5, "R@10": 10},
    "coco-json": {"R@1": 1, "upper_bound": EVERY},
}
"""Data set → measure → how many of the first boxes may be the right one. The order is that of the table."""
SPLITS = ("train2014", "val2014")
"""Folders of COCO, in which a file lies whose name says so."""
PROMPTS_PER_SLOT = 4
SOME_FAILED, INTERRUPTED = 3, 130


@dataclass(frozen=True)
class Order:
    """What is to be evaluated, on what."""

    dataset: str
    path: Path
    images: Path
    entities: Path | None
    model: str
    revision: str | None
    dtype: str | None
    limit: int | None
    out: Path | None


@dataclass(frozen=True)
class Evaluated:
    """What came of it."""

    scores: Sequence[Score]
    images: int
    prompts: int
    unreadable: int
    seconds: float
    model: str
    revision: str
    dtype: str
    runtime: str


def evaluate(order: Order, settings: Settings, *, as_json: bool) -> int:
    """Print how often the model is right; the exit code: 3 when some images could not be read."""
    pictures = read_pictures(order)
    try:
        with _draft_of(order.out) as out:
            evaluated = _evaluate(order, pictures, out, settings)
    except KeyboardInterrupt:
        warn("interrupted: no figures, and no file was written; --limit N asks about the first N images only")
        return INTERRUPTED
    (_say_json if as_json else _say)(order, evaluated)
    return SOME_FAILED if evaluated.unreadable else 0


def read_pictures(order: Order) -> list[Picture]:
    """The images with their questions. Raises UsageError for options that do not go together, and SourceError."""
    if order.dataset not in MEASURES:
        raise UsageError(f"unknown data set {order.dataset!r}; known are {', '.join(MEASURES)}")
    if (order.entities is not None) != (order.dataset == "flickr30k"):
        raise UsageError(
            "--entities FOLDER (Flickr30k Entities: Annotations, Sentences) belongs to --dataset flickr30k"
        )
    if not order.images.is_dir():
        raise SourceError(f"{order.images} is no folder: --images takes the folder that the images lie in")
    pictures = _read(order)[: order.limit]
    if not pictures:
        raise SourceError(f"{order.path} asks about no image: give the file of another split")
    return pictures


def _read(order: Order) -> list[Picture]:
    if order.entities is not None:
        from kosmograph.evaluation.flickr30k import read_flickr30k

        return read_flickr30k(order.path, order.entities)
    if order.dataset == "refcoco":
        from kosmograph.evaluation.refcoco import read_refcoco

        return read_refcoco(order.path)
    from kosmograph.evaluation.coco import read_coco

    return read_coco(order.path)


def _evaluate(order: Order, pictures: list[Picture], out: TextIO | None, settings: Settings) -> Evaluated:
    from kosmograph.evaluation.answers import Asking, outcomes
    from schemas.storage import StorageOptions
    from worker.cores import loader_processes
    from worker.images import Limits
    from worker.loader import Loader
    from worker.revision import resolve
    from worker.service import load_engine

    ref = resolve(order.model, order.revision, order.dtype, settings.device)
    engine, runtime = load_engine(ref, settings)
    processes = loader_processes(settings, gpu=runtime.startswith("cuda"))
    tally, unreadable, prompts, began = Tally(MEASURES[order.dataset]), 0, 0, time.monotonic()
    roots = [os.path.realpath(folder) for folder in _folders(order.images)]
    with (
        engine,
        Loader(Limits.from_settings(settings), processes, StorageOptions.of(settings)) as loader,
        counting("evaluating", len(pictures), "images") as done,
    ):
        in_hand = PROMPTS_PER_SLOT * engine.figures.slots

        def load(picture: Picture) -> "Future[LoadedImage]":
            return loader.load(file_uri(_find(order.images, picture.name)), exact=True, roots=roots)

        for outcome in outcomes(pictures, load, engine, in_hand, Asking()):
            if outcome.failure:
                unreadable += 1
                warn(f"{outcome.picture.name}: {outcome.failure}")
            prompts += len(outcome.answers)
            _count(outcome.picture, outcome.answers, tally, out)
            done()
    scores = tally.scores(published_for(order.dataset, order.path))
    seconds = time.monotonic() - began
    about = ref.name, ref.revision, ref.dtype, runtime
    return Evaluated(scores, len(pictures) - unreadable, prompts, unreadable, seconds, *about)


def _folders(images: Path) -> Iterator[Path]:
    """Where images may lie."""
    return (folder for folder in (images, *(images / split for split in SPLITS)) if folder.is_dir())


def _find(images: Path, name: str) -> Path:
    """The file of that name: in COCO's folder where the name says so and there is one, else in the images' folder."""
    places = [images / split / name for split in SPLITS if split in name]
    return Path(os.path.abspath(next((place for place in places if place.is_file()), images / name)))


def _count(picture: Picture, answers: Sequence[str], tally: Tally, out: TextIO | None) -> None:
    """Counts the answers to a picture's questions, and writes them down; of one that was not asked there are none."""
    for question, raw_text in zip(picture.questions, answers, strict=False):
        boxes = boxes_of(raw_text)
        tally.add(question, boxes)
        if out:
            about = {"image": picture.name, "groups": question.groups, "prompt": question.prompt}
            found = {"raw_text": raw_text, "boxes": boxes, "truth": question.truth}
            out.write(orjson.dumps(about | found | {"right": is_right(question, boxes)}).decode() + "\n")


@contextmanager
def _draft_of(path: Path | None) -> Iterator[TextIO | None]:
    """A file beside `path` that gets its name when the block is done, and goes when it fails; None without a path."""
    if path is None:
        yield None
        return
    draft = path.with_name(path.name + ".part")
    try:
        file = draft.open("w", encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{path} cannot be written ({error.strerror}): give --out another place") from None
    try:
        with file:
            yield file
        draft.replace(path)
    except BaseException:
        draft.unlink()
        raise


def _say(order: Order, evaluated: Evaluated) -> None:
    """The table, without the lesser measures of each type or category, which --json has."""
    main = next(iter(MEASURES[order.dataset]))
    shown = [one for one in evaluated.scores if one.measure == main or order.dataset == "refcoco" or one.group == ALL]
    columns, rows = [order.dataset, "measure", "n", "right"], [_row(one) for one in shown]
    if any(one.paper is not None for one in shown):
        columns.append("paper")
        rows = [[*row, _figure(one.paper)] for row, one in zip(rows, shown, strict=True)]
    say_table(columns, rows)
    left_out = f", {evaluated.unreadable} could not be read and are left out" if evaluated.unreadable else ""
    say(f"{evaluated.images} images, {evaluated.prompts} prompts in {evaluated.seconds:.0f} s{left_out}")
    say(f"model {evaluated.model}, revision {evaluated.revision}, {evaluated.runtime}")


def _row(score: Score) -> list[str | int]:
    return [score.group, score.measure, score.n, _figure(score.score)]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _say_json(order: Order, evaluated: Evaluated) -> None:
    from kosmograph.evaluation.answers import Asking

    document: dict[str, Any] = {
        "dataset": order.dataset,
        "annotations": str(order.path),
        "model": evaluated.model,
        "revision": evaluated.revision,
        "dtype": evaluated.dtype,
        "runtime": evaluated.runtime,
        "decoding": vars(Asking()),
        "limit": order.limit,
        "images": evaluated.images,
        "unreadable": evaluated.unreadable,
        "prompts": evaluated.prompts,
        "seconds": round(evaluated.seconds, 1),
        "scores": [
            {"group": one.group, "measure": one.measure, "n": one.n, "score": one.score, "paper": one.paper}
            for one in evaluated.scores
        ],
    }
    say_json({key: value for key, value in document.items() if value is not None})
