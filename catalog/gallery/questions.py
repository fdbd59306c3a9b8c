"""What pages ask the database beyond searches."""

from dataclasses import dataclass
from typing import Any

from catalog.queries import Place, places_of, progress_of, require_job
from catalog.reader import Reader

FAILURES_AT_ONCE = 100
MOST_ID = 2**63 - 1
"""What a database takes for an id."""
MOST_JOBS = 200
"""In the list to choose from; any job may be named in the address."""


def place_of(reader: Reader, image_id: int) -> Place | None:
    """The place of an image that some job has; None where none has it."""
    return places_of(reader, [image_id]).get(image_id) if image_id <= MOST_ID else None


@dataclass(frozen=True, slots=True)
class Version:
    """What jobs have made of an image by one recipe: an annotation, or a failure with its code."""

    annotation_id: int | None
    jobs: list[str]
    task: str
    prompt: str
    model: str
    code: str | None
    message: str | None


def versions_of(reader: Reader, image_id: int) -> list[Version]:
    """All that there is of an image, annotations first, the oldest first."""
    rows = reader.select(
        """SELECT o.annotation_id, j.name, r.task, r.prompt, r.model, o.code, o.message FROM outcomes o
        JOIN jobs j ON j.id = o.job_id JOIN recipes r ON r.id = o.recipe_id
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


def failure_counts(reader: Reader, job: str) -> list[dict[str, Any]]:
    """How many outcomes of a job have failed, by code, with the message of one of them."""
    return reader.select(
        """SELECT o.code, COUNT(*) AS failed, MIN(o.message) AS example FROM outcomes o
        JOIN jobs j ON j.id = o.job_id
        WHERE j.name = :job AND o.code IS NOT NULL AND NOT o.superseded AND NOT o.retrying
        GROUP BY o.code ORDER BY 2 DESC, 1""",
        {"job": job},
    ).records


def failures_page(reader: Reader, job: str, code: str, after: tuple[int, int]) -> list[dict[str, Any]]:
    """The failures of a job with a code behind the image and recipe `after`, and one more where there are more."""
    return reader.select(
        f"""SELECT o.image_id, o.recipe_id, i.uri, r.task, o.message, o.tries FROM outcomes o
        JOIN jobs j ON j.id = o.job_id JOIN images i ON i.id = o.image_id JOIN recipes r ON r.id = o.recipe_id
        WHERE j.name = :job AND o.code = :code AND NOT o.superseded AND NOT o.retrying
              AND o.image_id >= :image AND (o.image_id, o.recipe_id) > (:image, :recipe)
        ORDER BY o.image_id, o.recipe_id LIMIT {FAILURES_AT_ONCE + 1}""",
        {"job": job, "code": code, "image": after[0], "recipe": after[1]},
    ).records
