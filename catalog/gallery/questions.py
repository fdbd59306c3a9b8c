"""What pages ask the database beyond searches."""

import time
from dataclasses import dataclass
from typing import Any

from catalog.gallery.progress import PENDING_STATES
from catalog.queries import Place, places_of, progress_of, require_job
from catalog.reader import Reader

FAILURES_AT_ONCE = 100
LEAST_KEPT_S, MOST_KEPT_S = 10.0, 60.0
"""How long the counts of failures are kept: of a job that fails at work, and of one where their sum stays the same."""
MOST_JOBS = 200
"""In the list to choose from; any job may be named in the address."""


def id_in(text: str) -> int | None:
    """The id that a part of an address names; None for what no database takes for one."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def place_of(reader: Reader, image_id: int) -> Place | None:
    """The place of an image that some job has; None where none has it."""
    return places_of(reader, [image_id]).get(image_id)


@dataclass(frozen=True, slots=True)
class Version:
    """What jobs have made of an image by one recipe: an annotation, or a failure with its code.

    Without either it waits to be tried again.
    """

    annotation_id: int | None
    jobs: list[str]
    task: str
    input: str | None
    prompt: str
    model: str
    code: str | None
    message: str | None


def versions_of(reader: Reader, image_id: int) -> list[Version]:
    """All that there is of an image, annotations first, the oldest first."""
    rows = reader.select(
        """SELECT o.annotation_id, j.name, r.task, n.value, COALESCE(a.prompt, r.prompt), r.model,
        CASE WHEN NOT o.retrying THEN o.code END, CASE WHEN NOT o.retrying THEN o.message END FROM outcomes o
        JOIN jobs j ON j.id = o.job_id JOIN recipes r ON r.id = o.recipe_id
        LEFT JOIN annotations a ON a.id = o.annotation_id LEFT JOIN inputs n ON n.hash = o.input
        WHERE o.image_id = :image AND NOT o.superseded
        ORDER BY CASE WHEN o.annotation_id IS NULL THEN 1 ELSE 0 END, o.annotation_id, o.job_id""",
        {"image": image_id},
    ).rows
    versions: dict[Any, Version] = {}
    for annotation, job, *rest in rows:
        # an annotation once, whichever jobs share it; failures one by one
        key = annotation if annotation is not None else (job, *rest)
        versions.setdefault(key, Version(annotation, [], *rest)).jobs.append(job)
    return list(versions.values())


def size_of(reader: Reader, image_id: int) -> dict[str, Any]:
    """What is known of an image: uri, version, and where it could be read its format, size in bytes and shape."""
    (record,) = reader.select(
        """SELECT i.uri, i.version, c.sha256, c.width, c.height, c.format, c.size FROM images i
        LEFT JOIN contents c ON c.id = i.content_id WHERE i.id = :image""",
        {"image": image_id},
    ).records
    return record


def choices(reader: Reader) -> dict[str, list[str]]:
    """The jobs, tasks and models that can be asked for."""
    asked = {
        "jobs": f"SELECT name FROM jobs ORDER BY id DESC LIMIT {MOST_JOBS}",
        "tasks": "SELECT DISTINCT task FROM recipes ORDER BY 1",
        "models": "SELECT DISTINCT model FROM recipes ORDER BY 1",
    }
    return {name: [row[0] for row in reader.select(query).rows] for name, query in asked.items()}


def progress_in(reader: Reader, job: str) -> dict[str, Any]:
    """The progress of one job. Raises UsageError where there is none of that name."""
    require_job(reader, job)
    return progress_of(reader, job).records[0]


class FailureCounts:
    """How many outcomes of jobs have failed, by code: counted again when that has changed, but not at every look."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[int, float, list[dict[str, Any]]]] = {}

    def of(self, reader: Reader, progress: dict[str, Any]) -> list[dict[str, Any]]:
        """Each code of the job with its count and the message of one of them, as of now or a few seconds ago."""
        job, failed, now = progress["job"], progress["failed"], time.monotonic()
        before, since, counts = self._kept.get(job, (None, 0.0, []))
        live = progress["state"] in PENDING_STATES
        if now - since < (MOST_KEPT_S if before == failed else LEAST_KEPT_S if live and before is not None else 0.0):
            return counts
        if len(self._kept) >= MOST_JOBS:
            self._kept.clear()
        counts = _count_failures(reader, job)
        self._kept[job] = (failed, now, counts)
        return counts


def _count_failures(reader: Reader, job: str) -> list[dict[str, Any]]:
    failed = """FROM outcomes o JOIN jobs j ON j.id = o.job_id
        WHERE j.name = :job AND o.code IS NOT NULL AND NOT o.superseded AND NOT o.retrying"""
    counted = f"SELECT o.code, COUNT(*) AS failed {failed} GROUP BY o.code ORDER BY 2 DESC, 1"
    one = f"SELECT o.message {failed} AND o.code = :code ORDER BY o.image_id LIMIT 1"
    counts = reader.select(counted, {"job": job}).records
    for count in counts:
        examples = reader.select(one, {"job": job, "code": count["code"]}).rows
        count["example"] = examples[0][0] if examples else ""
    return counts


def failures_page(reader: Reader, job: str, code: str, after: tuple[int, int, str]) -> list[dict[str, Any]]:
    """The failures of a job with a code behind the image, recipe and input `after`, and one more if there are more."""
    return reader.select(
        f"""SELECT o.image_id, o.recipe_id, o.input, i.uri, r.task, o.message, o.tries, n.value FROM outcomes o
        JOIN jobs j ON j.id = o.job_id JOIN images i ON i.id = o.image_id JOIN recipes r ON r.id = o.recipe_id
        LEFT JOIN inputs n ON n.hash = o.input
        WHERE j.name = :job AND o.code = :code AND NOT o.superseded AND NOT o.retrying
              AND o.image_id >= :image AND (o.image_id, o.recipe_id, o.input) > (:image, :recipe, :input)
        ORDER BY o.image_id, o.recipe_id, o.input LIMIT {FAILURES_AT_ONCE + 1}""",
        {"job": job, "code": code, "image": after[0], "recipe": after[1], "input": after[2]},
    ).records
