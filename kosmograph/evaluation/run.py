"""`evaluate`: from annotation files to a table, in this process."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import orjson

from kosmograph.display import counting
from kosmograph.evaluation.published import published_for
from kosmograph.evaluation.questions import ALL, Picture
from kosmograph.evaluation.scoring import EVERY, Score, Tally, boxes_of, is_right
from kosmograph.exits import DONE, INTERRUPTED, SOME_FAILED
from kosmograph.files import written_whole
from kosmograph.output import say, say_json, say_table, warn
from schemas.errors import SetupError, SourceError, UsageError
from schemas.settings import Settings

if TYPE_CHECKING:
    from kosmograph.evaluation.answers import Outcome

MEASURES: dict[str, dict[str, int | None]] = {
    "refcoco": {"accuracy": 1, "upper_bound": EVERY},
    "flickr30k": {"R@1": 1, "R@5": 5, "R@10": 10},
    "coco-json": {"R@1": 1, "upper_bound": EVERY},
}
"""Data set → measure → how many of the first boxes may be the right one. The order is that of the table."""


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
    return SOME_FAILED if evaluated.unreadable else DONE


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
    from kosmograph.evaluation.answers import answering
    from worker.revision import resolve

    ref = resolve(order.model, order.revision, order.dtype, settings.device)
    with answering(ref, order.images, settings) as (runtime, outcomes):
        count, began = Count(order.dataset, out, settings.breaker_images), time.monotonic()
        with counting("evaluating", len(pictures), "images") as one_more:
            for outcome in outcomes(pictures):
                count.take(outcome)
                one_more()
    return Evaluated(
        scores=count.tally.scores(published_for(order.dataset, order.path)),
        images=len(pictures) - count.unreadable,
        prompts=count.prompts,
        unreadable=count.unreadable,
        seconds=time.monotonic() - began,
        model=ref.name,
        revision=ref.revision,
        dtype=ref.dtype,
        runtime=runtime,
    )


class Count:
    """What has come of the images so far. Their answers go to `out` as well, a line of JSON each."""

    def __init__(self, dataset: str, out: TextIO | None, most_failures: int) -> None:
        self.tally = Tally(MEASURES[dataset])
        self.prompts = self.unreadable = 0
        self._in_a_row = 0
        self._out, self._most_failures = out, most_failures

    def take(self, outcome: "Outcome") -> None:
        """One image more. Raises SourceError where so many in a row fail that it is not the images."""
        if not outcome.failure:
            self._in_a_row = 0
            self._add(outcome)
            return
        self.unreadable += 1
        self._in_a_row += 1
        warn(f"{outcome.picture.name}: {outcome.failure}")
        if self._in_a_row >= self._most_failures:
            raise SourceError(f"{self._in_a_row} images in a row could not be read: see that --images is their folder")

    def _add(self, outcome: "Outcome") -> None:
        for question, raw_text in zip(outcome.picture.questions, outcome.answers, strict=True):
            boxes = boxes_of(raw_text)
            self.prompts += 1
            self.tally.add(question, boxes)
            if self._out:
                about = {"image": outcome.picture.name, "groups": question.groups, "prompt": question.prompt}
                found = {"raw_text": raw_text, "boxes": boxes, "truth": question.truth}
                line = about | found | {"right": is_right(question, boxes)}
                self._out.write(orjson.dumps(line).decode() + "\n")


@contextmanager
def _draft_of(path: Path | None) -> Iterator[TextIO | None]:
    """The file of the answers; None without a path."""
    if path is None:
        yield None
        return
    try:
        with written_whole(path) as file:
            yield file
    except OSError as error:
        raise SetupError(f"{path} cannot be written ({error.strerror}): give --out another place") from None


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
    from kosmograph.evaluation.answers import MAX_NEW_TOKENS, NO_REPEAT_NGRAM_SIZE

    document: dict[str, Any] = {
        "dataset": order.dataset,
        "annotations": str(order.path),
        "model": evaluated.model,
        "revision": evaluated.revision,
        "dtype": evaluated.dtype,
        "runtime": evaluated.runtime,
        "decoding": {"max_new_tokens": MAX_NEW_TOKENS, "no_repeat_ngram_size": NO_REPEAT_NGRAM_SIZE},
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
