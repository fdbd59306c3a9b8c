"""The boxes of the database, held against the truth."""

import math
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from catalog.calibration.truth import TrueImage, Truth, parts_of
from catalog.queries import require_job
from catalog.reader import Reader
from schemas.calibration import STEP, Identity
from schemas.grounding import iou

FOLDS = 5
LEAST_IOU = 0.5
"""Of a box that is right."""
SAME_SHAPE = 0.02
"""How far two aspect ratios may differ, in parts of them: a small copy has sides of whole pixels too."""
IMAGES_AT_ONCE, JUDGED_AT_ONCE = 5_000, 500


@dataclass(slots=True)
class Boxes:
    """The boxes of one model and task: evidence, score (NaN for none), whether right, and the fold of their image."""

    evidence: "array[float]" = field(default_factory=lambda: array("d"))
    score: "array[float]" = field(default_factory=lambda: array("d"))
    right: bytearray = field(default_factory=bytearray)
    fold: bytearray = field(default_factory=bytearray)

    def add(self, evidence: float, score: float | None, right: bool, fold: int) -> None:
        self.evidence.append(round(min(max(evidence, 0.0), 1.0) / STEP) * STEP)
        self.score.append(math.nan if score is None else score)
        self.right.append(right)
        self.fold.append(fold)


@dataclass
class Judged:
    """The boxes that count, by what made them; how many of the truth's images are there; what was left out, and why."""

    boxes: dict[Identity, Boxes] = field(default_factory=lambda: defaultdict(Boxes))
    images: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


class _Row(NamedTuple):
    sha256: str
    model: str
    revision: str
    task: str
    verify: str
    norm: str
    head: str
    x1: float
    y1: float
    x2: float
    y2: float
    valid: bool
    score: float | None
    evidence: float | None


class Names:
    """The images of a truth by their names."""

    def __init__(self, truth: Truth) -> None:
        self._by_file: dict[str, list[int]] = defaultdict(list)
        self._parts = [image.parts for image in truth.images]
        for number, parts in enumerate(self._parts):
            if parts:
                self._by_file[parts[-1]].append(number)

    def ending(self, uri: str) -> list[int]:
        """The images whose name the URI's path ends with: the longest names, which are several where they are alike."""
        parts = parts_of(uri)
        found = self._by_file.get(parts[-1], ()) if parts else ()
        ends = [number for number in found if parts[-len(self._parts[number]) :] == self._parts[number]]
        longest = max((len(self._parts[number]) for number in ends), default=0)
        return [number for number in ends if len(self._parts[number]) == longest]


def judge(reader: Reader, truth: Truth, job: str, told: Callable[[str], None] = lambda _: None) -> Judged:
    """The boxes of a job, or of all where it is "", in images that the truth has; `told` hears how far it is.

    Raises UsageError for a job that there is not.
    """
    job_id = require_job(reader, job) if job else None
    judged = Judged()
    places = _places(truth, _images(reader, job_id, told), judged)
    judged.images = len(set(places.values()))
    seen: set[int] = set()
    for (image, annotation), rows in groupby(_groundings(reader, list(places), job_id, told), key=lambda row: row[:2]):
        if annotation not in seen:  # which is that of every image with the same bytes
            seen.add(annotation)
            for row in rows:
                _judge(_Row(*row[2:]), truth, truth.images[places[image]], judged)
    return judged


def _judge(row: _Row, truth: Truth, image: TrueImage, judged: Judged) -> None:
    """Count a box as right or wrong, or as left out."""
    category = truth.category_of(row.norm, row.head)
    if not category:
        judged.left_out["boxes of phrases that are no category"] += 1
    elif category in image.crowded:
        judged.left_out["boxes of categories that are a crowd in their image"] += 1
    elif row.evidence is None:
        judged.left_out["boxes without evidence, made before there was any"] += 1
    else:
        box, true = (row.x1, row.y1, row.x2, row.y2), image.boxes.get(category, ())
        right = bool(row.valid) and any(iou(box, other) >= LEAST_IOU for other in true)
        identity = Identity(row.model, row.revision, row.task, row.verify)
        judged.boxes[identity].add(row.evidence, row.score, right, zlib.crc32(row.sha256.encode()) % FOLDS)


def _places(truth: Truth, images: Iterable[Sequence[Any]], judged: Judged) -> dict[int, int]:
    """Image ids with the number of their image in the truth; what is not surely the same picture is left out."""
    names = Names(truth)
    contents: dict[int, set[int]] = defaultdict(set)
    places: dict[int, int] = {}
    for image, uri, content, width, height in images:
        found = names.ending(uri)
        if not found:
            continue
        if len(found) > 1:
            judged.left_out["images that have the name of several in the truth"] += 1
        elif not _is_of_shape(width / height, truth.images[found[0]].width / truth.images[found[0]].height):
            judged.left_out["images of another shape than in the truth"] += 1
        else:
            places[image] = found[0]
            contents[found[0]].add(content)
    several = {number for number, some in contents.items() if len(some) > 1}
    judged.left_out["images of the truth whose name several pictures have"] += len(several)
    return {image: number for image, number in places.items() if number not in several}


def _is_of_shape(ratio: float, other: float) -> bool:
    return abs(math.log(ratio / other)) < SAME_SHAPE


def _images(reader: Reader, job_id: int | None, told: Callable[[str], None]) -> Iterator[Sequence[Any]]:
    """Id, URI, content, width and height of each image that has an annotation."""
    of_job = "AND o.job_id = :job" if job_id is not None else ""
    query = f"""
        SELECT i.id, i.uri, c.id, c.width, c.height FROM images i JOIN contents c ON c.id = i.content_id
        WHERE i.id > :after AND EXISTS (
            SELECT 1 FROM outcomes o
            WHERE o.image_id = i.id AND o.annotation_id IS NOT NULL AND NOT o.superseded {of_job})
        ORDER BY i.id LIMIT {IMAGES_AT_ONCE}"""
    values = {"after": 0} | ({"job": job_id} if job_id is not None else {})
    reader.step_by_step()
    passed = 0
    while rows := reader.select(query, values).rows:
        yield from rows
        passed += len(rows)
        told(f"looking for the images of the truth: {passed:,} passed by")
        values["after"] = rows[-1][0]


def _groundings(
    reader: Reader, images: Sequence[int], job_id: int | None, told: Callable[[str], None]
) -> Iterator[Sequence[Any]]:
    """Each box of these images under each recipe."""
    of_job = "AND job_id = :job" if job_id is not None else ""
    query = f"""
        SELECT o.image_id, a.id, c.sha256, r.model, r.revision, r.task, r.verify, e.phrase_norm, e.head,
               b.x1, b.y1, b.x2, b.y2, b.valid, b.score, CAST(b.evidence AS DOUBLE PRECISION)
        FROM (SELECT DISTINCT image_id, annotation_id FROM outcomes
              WHERE image_id {reader.in_list("images")} AND annotation_id IS NOT NULL AND NOT superseded {of_job}) o
        JOIN annotations a ON a.id = o.annotation_id
        JOIN recipes r ON r.id = a.recipe_id
        JOIN contents c ON c.id = a.content_id
        JOIN entities e ON e.annotation_id = a.id
        JOIN boxes b ON b.annotation_id = e.annotation_id AND b.entity = e.ordinal
        ORDER BY o.image_id, a.id, e.ordinal, b.ordinal"""
    for start in range(0, len(images), JUDGED_AT_ONCE):
        some = images[start : start + JUDGED_AT_ONCE]
        values = {"images": some} | ({"job": job_id} if job_id is not None else {})
        told(f"judging boxes: {start:,} of {len(images):,} images")
        yield from reader.select(query, values).rows
