"""What the database knows of the items of a listing: images, their annotations, and what the job has settled."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, select

from schemas.items import Item, image_key
from schemas.ledger.bulk import VALUES, plain, rows_where
from schemas.ledger.jobs import Job
from schemas.tables import annotations, images, job_recipes, outcomes

OF_URIS = select(images.c.uri, images.c.key, images.c.id, images.c.content_id).where(images.c.uri.in_(VALUES))
SETTLED = (
    select(outcomes.c.image_id)
    .where(outcomes.c.job_id == bindparam("job"), outcomes.c.image_id.in_(VALUES), outcomes.c.superseded.is_(False))
    .group_by(outcomes.c.image_id)
    .having(func.count() == bindparam("recipes"))
)
ANNOTATED = select(annotations.c.content_id, annotations.c.recipe_id, annotations.c.id).where(
    annotations.c.content_id.in_(VALUES),
    annotations.c.recipe_id.in_(select(job_recipes.c.recipe_id).where(job_recipes.c.job_id == bindparam("job"))),
    annotations.c.input == "",
)


class KnownImage(NamedTuple):
    """An image that the database has: its id, and the content that was read last, if it ever could be."""

    id: int
    content_id: int | None


def known_images(
    connection: Connection, items: Sequence[Item], *, recheck: bool
) -> dict[tuple[str, str], list[KnownImage]]:
    """The images that an item may stand for, by its URI and version.

    One where the source gives a version. Else all those of the URI, or, to `recheck`, none.
    """
    wanted: dict[str, list[Item]] = defaultdict(list)
    for item in dict.fromkeys(items):
        if item.version or not recheck:
            wanted[plain(item.uri)].append(item)
    found: dict[tuple[str, str], list[KnownImage]] = defaultdict(list)
    for uri, key, id_, content_id in rows_where(connection, OF_URIS, wanted):
        for item in wanted[uri]:
            if not item.version or key == image_key(item.uri, item.version):
                found[item.uri, item.version].append(KnownImage(id_, content_id))
    return found


def settled_images(connection: Connection, job: Job, image_ids: set[int]) -> set[int]:
    """Those of these images that the job shows, with an outcome for each recipe."""
    return {row[0] for row in rows_where(connection, SETTLED, sorted(image_ids), job=job.id, recipes=job.recipes)}


def annotated_contents(connection: Connection, job: Job, content_ids: set[int]) -> dict[int, dict[int, int]]:
    """Those of these contents that the job has nothing to do for: content id → recipe id → annotation id."""
    found: dict[int, dict[int, int]] = defaultdict(dict)
    for content, recipe, annotation in rows_where(connection, ANNOTATED, sorted(content_ids), job=job.id):
        found[content][recipe] = annotation
    return {content: by_recipe for content, by_recipe in found.items() if len(by_recipe) == job.recipes}
