"""What the database knows of the items of a listing: images, their annotations, and what the job has settled."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from schemas.items import Item, image_key
from schemas.ledger.bulk import VALUES, plain, rows_where
from schemas.ledger.jobs import Job
from schemas.tables import annotations, images, job_recipes, outcomes

BY_KEY = select(images.c.key, images.c.id, images.c.content_id).where(images.c.key.in_(VALUES))
BY_URI = select(images.c.uri, images.c.id, images.c.content_id).where(images.c.uri.in_(VALUES))


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image that the database has: its id, and the content that was read last, if it ever could be."""

    id: int
    content_id: int | None


def known_images(
    connection: Connection, items: Sequence[Item], *, recheck: bool
) -> dict[tuple[str, str], list[KnownImage]]:
    """The images that an item may stand for, by its URI and version.

    One where the source gives a version. Else all those of the URI, or, to `recheck`, none.
    """
    found: dict[tuple[str, str], list[KnownImage]] = defaultdict(list)
    versioned = {image_key(item.uri, item.version): item for item in items if item.version}
    for key, *image in rows_where(connection, BY_KEY, versioned):
        found[versioned[key].uri, versioned[key].version].append(KnownImage(*image))
    unversioned = {} if recheck else {plain(item.uri): item.uri for item in items if not item.version}
    for uri, *image in rows_where(connection, BY_URI, unversioned):
        found[unversioned[uri], ""].append(KnownImage(*image))
    return found


def settled_images(connection: Connection, job: Job, image_ids: set[int]) -> set[int]:
    """Those of these images that the job shows, with an outcome for each recipe."""
    shown = (
        select(outcomes.c.image_id)
        .where(outcomes.c.job_id == job.id, outcomes.c.image_id.in_(VALUES), outcomes.c.superseded.is_(False))
        .group_by(outcomes.c.image_id)
        .having(func.count() == job.recipes)
    )
    return {row.image_id for row in rows_where(connection, shown, sorted(image_ids))}


def annotated_contents(connection: Connection, job: Job, content_ids: set[int]) -> dict[int, dict[int, int]]:
    """Those of these contents that the job has nothing to do for: content id → recipe id → annotation id."""
    found: dict[int, dict[int, int]] = defaultdict(dict)
    recipe_ids = select(job_recipes.c.recipe_id).where(job_recipes.c.job_id == job.id)
    wanted = select(annotations.c.content_id, annotations.c.recipe_id, annotations.c.id).where(
        annotations.c.content_id.in_(VALUES), annotations.c.recipe_id.in_(recipe_ids), annotations.c.input == ""
    )
    for content, recipe, annotation in rows_where(connection, wanted, sorted(content_ids)):
        found[content][recipe] = annotation
    return {content: by_recipe for content, by_recipe in found.items() if len(by_recipe) == job.recipes}
