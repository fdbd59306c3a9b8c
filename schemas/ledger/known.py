"""What the database knows of the items of a listing: images, their annotations, and what the job has settled."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, select

from schemas.inputs import Inputs
from schemas.items import Item, image_key
from schemas.ledger.bulk import OTHERS, VALUES, plain, rows_where
from schemas.ledger.jobs import RECIPE_IDS, Job
from schemas.recipes import Recipe
from schemas.tables import annotations, images, job_recipes, outcomes

OF_URIS = select(images.c.uri, images.c.key, images.c.id, images.c.content_id).where(images.c.uri.in_(VALUES))
OUTCOMES = select(outcomes.c.image_id, outcomes.c.recipe_id, outcomes.c.input).where(
    outcomes.c.job_id == bindparam("job"), outcomes.c.image_id.in_(VALUES), outcomes.c.superseded.is_(False)
)
SETTLED = (
    OUTCOMES.with_only_columns(outcomes.c.image_id)
    .group_by(outcomes.c.image_id)
    .having(func.count() == bindparam("recipes"))
)
ANNOTATED = select(annotations.c.content_id, annotations.c.recipe_id, annotations.c.input, annotations.c.id).where(
    annotations.c.content_id.in_(VALUES),
    annotations.c.recipe_id.in_(select(job_recipes.c.recipe_id).where(job_recipes.c.job_id == bindparam("job"))),
)
UNDER_RECIPES = select(annotations.c.content_id, annotations.c.recipe_id, annotations.c.input).where(
    annotations.c.content_id.in_(VALUES), annotations.c.recipe_id.in_(OTHERS)
)
Key = tuple[int, int, str]
"""An image or a content, a recipe, and the hash of what the item brings to it."""
IsSettled = Callable[[int, Mapping[int, str]], bool]
"""Of an image, and the hashes of what an item of it brings to each recipe."""


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
    wanted: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, version in dict.fromkeys(item.image for item in items):  # which many items may name
        if version or not recheck:
            wanted[plain(name)].append((name, version))
    found: dict[tuple[str, str], list[KnownImage]] = defaultdict(list)
    for uri, key, id_, content_id in rows_where(connection, OF_URIS, wanted):
        for name, version in wanted[uri]:
            if not version or key == image_key(name, version):
                found[name, version].append(KnownImage(id_, content_id))
    return found


def is_settled(connection: Connection, job: Job, image_ids: Set[int], inputs: Inputs) -> IsSettled:
    """Tells of each of these images whether the job shows it, with an outcome for each recipe."""
    if not inputs:  # an answer for each image instead of each outcome: a listing has millions
        rows = rows_where(connection, SETTLED, sorted(image_ids), job=job.id, recipes=job.recipes)
        whole = {row[0] for row in rows}
        return lambda image_id, _: image_id in whole
    shown = set(map(tuple, rows_where(connection, OUTCOMES, sorted(image_ids), job=job.id)))
    return lambda image_id, brought: all((image_id, *key) in shown for key in brought.items())


def annotated_contents(connection: Connection, job: Job, content_ids: Iterable[int]) -> dict[Key, int]:
    """The annotations of these contents under the job's recipes: by content, recipe and input."""
    rows = rows_where(connection, ANNOTATED, sorted(content_ids), job=job.id)
    return {(content, recipe, input_): annotation for content, recipe, input_, annotation in rows}


def count_annotated(connection: Connection, items: Sequence[Item], wanted: Sequence[Recipe]) -> int:
    """How many of the items a new job with these recipes would reuse: those whose content all of them have annotated.

    Nothing is written: the recipes need not be known here, nor any job.
    """
    ids = dict(map(tuple, rows_where(connection, RECIPE_IDS, {recipe.id for recipe in wanted})))
    if not all(recipe.id in ids for recipe in wanted):
        return 0
    inputs = Inputs({ids[recipe.id]: recipe for recipe in wanted})
    images = known_images(connection, items, recheck=False)
    contents = {image.content_id for some in images.values() for image in some if image.content_id is not None}
    rows = rows_where(connection, UNDER_RECIPES, sorted(contents), others=list(ids.values()))
    annotated = set(map(tuple, rows))

    def is_annotated(item: Item) -> bool:
        keys = inputs.hashes_of(item).items()
        return any(all((image.content_id, *key) in annotated for key in keys) for image in images.get(item.image, ()))

    return sum(map(is_annotated, items))
