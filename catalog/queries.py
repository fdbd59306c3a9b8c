"""Questions to the public views."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog.reader import Answer, Reader
from schemas.errors import UsageError
from schemas.roots import Roots

if TYPE_CHECKING:
    from schemas.recipes import Recipe


def progress_of(reader: Reader, job: str | None = None) -> Answer:
    """The progress of all jobs, oldest first, or of one, with its priority, why it is paused, and its chunks."""
    condition = "WHERE p.job = :job" if job is not None else ""
    # the words of the partial index of unfinished chunks: nothing here walks over those that are done
    count = "(SELECT COUNT(*) FROM chunks c WHERE c.job_id = j.id AND c.state <> 'done' AND c.state = '{0}') AS {0}"
    chunks = ", ".join(count.format(state) for state in ("queued", "running"))
    query = f"SELECT p.*, j.reason, j.priority, {chunks} FROM progress p JOIN jobs j ON j.name = p.job"
    return reader.select(f"{query} {condition} ORDER BY j.id", {} if job is None else {"job": job})


def failures_in(reader: Reader, job: str) -> Answer:
    """The failures of a job, by code."""
    query = """
        SELECT uri, task, code, message, tries, failed_at, input FROM failures
        WHERE job = :job ORDER BY code, image_id, task, input"""
    return reader.select(query, {"job": job})


def recipes_of(reader: Reader, job: str) -> "list[Recipe]":
    """The recipes of a job, in their order."""
    from schemas.recipes import Recipe  # which takes a third of a second that others need not wait

    query = """
        SELECT r.spec FROM jobs j JOIN job_recipes w ON w.job_id = j.id JOIN recipes r ON r.id = w.recipe_id
        WHERE j.name = :job ORDER BY w.ordinal"""
    return [Recipe.from_json(spec) for (spec,) in reader.select(query, {"job": job}).rows]


def roots_of(reader: Reader, job: str) -> Roots | None:
    """The folders whose local files a job may read; None: any."""
    return _roots([row[0] for row in reader.select("SELECT roots FROM jobs WHERE name = :job", {"job": job}).rows])


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is read from, and below which roots it must lie (None: any).

    sha256, width and height are those of its bytes, None where they could not be read.
    """

    uri: str
    sha256: str | None
    width: int | None
    height: int | None
    roots: Roots | None

    @property
    def pixels(self) -> int:
        """How many; 0 where that is unknown."""
        return (self.width or 0) * (self.height or 0)


def places_of(reader: Reader, image_ids: Sequence[int]) -> dict[int, Place]:
    """The places of images by their ids, each below the roots of all jobs that have it; of one that none has, none."""
    query = f"""
        SELECT DISTINCT i.id, i.uri, c.sha256, c.width, c.height, j.roots FROM images i
        JOIN outcomes o ON o.image_id = i.id JOIN jobs j ON j.id = o.job_id
        LEFT JOIN contents c ON c.id = i.content_id WHERE i.id {reader.in_list("images")}"""
    lists: dict[tuple[int, str, str | None, int | None, int | None], list[Any]] = {}
    for image, uri, sha256, width, height, roots in reader.select(query, {"images": list(image_ids)}).rows:
        lists.setdefault((image, uri, sha256, width, height), []).append(roots)
    return {about[0]: Place(*about[1:], _roots(some)) for about, some in lists.items()}


def _roots(lists: Sequence[Any]) -> Roots | None:
    """The folders of all these lists, which are JSON; None where one is none, as that holds any."""
    return None if None in lists else Roots(sorted({folder for one in lists for folder in json.loads(one)}))


def captions_are_indexed(reader: Reader) -> bool:
    """Whether every caption is in the index of words."""
    if reader.dialect != "sqlite":
        return True
    newest = "SELECT COALESCE(MAX(id), 0) FROM"
    return reader.select(f"{newest} annotations").rows == reader.select(f"{newest} caption_search_docsize").rows


def require_job(reader: Reader, name: str) -> int:
    """The id of the job of that name. Raises UsageError when there is none, naming those there are."""
    if found := reader.select("SELECT id FROM jobs WHERE name = :name", {"name": name}).rows:
        return int(found[0][0])
    latest = [row[0] for row in reader.select("SELECT name FROM jobs ORDER BY id DESC LIMIT 5").rows]
    known = f"the latest are {', '.join(latest)}" if latest else "there are none yet"
    raise UsageError(f"there is no job {name!r}; {known}")


def image_of(reader: Reader, image: str, uri: str, job: str | None) -> Answer | None:
    """The captions of an image by its URI or id, newest first: one row a job and recipe. None for an unknown image."""
    by_id = _is_id(image)
    condition = "image_id = :id" if by_id else "uri = :uri"
    if job is not None:
        condition += " AND job = :job"
    values = {"id": int(image)} if by_id else {"uri": uri}
    query = f"SELECT * FROM captions WHERE {condition} ORDER BY annotation_id DESC"
    return _some(reader, query, values | ({"job": job} if job is not None else {}))


def failures_of(reader: Reader, image: str, uri: str) -> Answer | None:
    """The failures of an image by its URI or id."""
    by_id = _is_id(image)
    query = f"SELECT job, code, message FROM failures WHERE {'image_id = :id' if by_id else 'uri = :uri'}"
    return _some(reader, query, {"id": int(image)} if by_id else {"uri": uri})


def _some(reader: Reader, query: str, values: dict[str, Any]) -> Answer | None:
    answer = reader.select(query, values)
    return answer if answer.rows else None


def _is_id(image: str) -> bool:
    return image.isdecimal() and len(image) < 19  # what a database takes for an integer
