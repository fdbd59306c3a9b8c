"""What a chunk brought, as rows: contents, images, annotations with their entities and boxes.

Rows go in sorted by key and table after table in this order: two transactions that bring the same never wait for each
other in a circle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, insert, select

from schemas.grounding import phrase_norm
from schemas.items import image_key
from schemas.ledger.bulk import VALUES, insert_into, insert_missing, insert_rows, plain, rows_where
from schemas.results import Annotation, Content, Settled
from schemas.tables import annotations, boxes, contents, entities, images, unix_now

IDENTITY = (annotations.c.content_id, annotations.c.recipe_id, annotations.c.id)
CONTENT_IDS = select(contents.c.sha256, contents.c.id).where(contents.c.sha256.in_(VALUES))
ANNOTATION_IDS = select(*IDENTITY).where(annotations.c.content_id.in_(VALUES), annotations.c.input == "")
ADD_ENTITIES = insert(entities)
ADD_BOXES = insert(boxes)


@dataclass(frozen=True, slots=True)
class Stored:
    """The annotation ids by sha256 and recipe, and the set of those that were not there before."""

    annotation_ids: dict[tuple[str, int], int]
    made: set[int]


def store(connection: Connection, settled: Sequence[Settled]) -> Stored:
    """Write contents, images and annotations that are new, and say which annotations there are now."""
    content_ids = _store_contents(connection, settled)
    _store_images(connection, settled, content_ids)
    return _store_annotations(connection, settled, content_ids)


def _store_contents(connection: Connection, settled: Sequence[Settled]) -> dict[str, int]:
    """The content ids by sha256."""
    found: dict[str, Content] = {one.content.sha256: one.content for one in settled if one.content}
    rows = [
        {"sha256": sha256, "width": c.width, "height": c.height, "format": c.format, "size": c.size}
        for sha256, c in sorted(found.items())
    ]
    insert_rows(connection, insert_missing(connection.dialect.name, contents), rows)
    return dict(map(tuple, rows_where(connection, CONTENT_IDS, found)))


def _store_images(connection: Connection, settled: Sequence[Settled], content_ids: dict[str, int]) -> None:
    """One row for each version of a URI that was read, or could not be, with the content that was read last."""
    rows: dict[bytes, dict[str, Any]] = {}
    for one in settled:
        content_id = content_ids[one.content.sha256] if one.content else None
        key = image_key(one.item.uri, one.version)
        if content_id is not None or key not in rows:
            uri, version = plain(one.item.uri), plain(one.version)
            rows[key] = {"key": key, "uri": uri, "version": version, "content_id": content_id}
    insert_rows(connection, _upsert_images(connection.dialect.name), [rows[key] for key in sorted(rows)])


@cache
def _upsert_images(dialect: str) -> Any:
    insert = insert_into(dialect, images)
    read = insert.excluded.content_id
    return insert.on_conflict_do_update(
        index_elements=["key"],
        set_={"content_id": read},
        where=read.is_not(None) & images.c.content_id.is_distinct_from(read),
    )


@cache
def _insert_annotations(dialect: str) -> Any:
    insert = insert_into(dialect, annotations).values(created_at=unix_now())
    return insert.on_conflict_do_nothing().returning(*IDENTITY)


def _store_annotations(connection: Connection, settled: Sequence[Settled], content_ids: dict[str, int]) -> Stored:
    wanted = {
        (content_ids[one.content.sha256], recipe_id): result
        for one in settled
        if one.content
        for recipe_id, result in one.results.items()
        if isinstance(result, Annotation)
    }
    if not wanted:
        return Stored({}, set())
    rows = [_annotation_row(content, recipe, wanted[content, recipe]) for content, recipe in sorted(wanted)]
    added = connection.execute(_insert_annotations(connection.dialect.name), rows)
    ids = {(row[0], row[1]): row[2] for row in added}
    made = set(ids.values())
    _store_entities(connection, [(id_, wanted[key]) for key, id_ in ids.items()])
    if len(ids) < len(wanted):
        found = rows_where(connection, ANNOTATION_IDS, {content for content, _ in wanted})
        ids = {(row[0], row[1]): row[2] for row in found}
    sha256s = {id_: sha256 for sha256, id_ in content_ids.items()}
    return Stored({(sha256s[content], recipe): id_ for (content, recipe), id_ in ids.items()}, made)


def _annotation_row(content_id: int, recipe_id: int, annotation: Annotation) -> dict[str, Any]:
    return {
        "content_id": content_id,
        "recipe_id": recipe_id,
        "input": "",
        "caption": plain(annotation.grounding.caption),
        "raw_text": plain(annotation.raw_text),
        "finish_reason": annotation.finish_reason,
        "tokens": annotation.tokens,
        "mean_logprob": annotation.mean_logprob,
        "runtime": plain(annotation.runtime),
    }


def _store_entities(connection: Connection, new: Sequence[tuple[int, Annotation]]) -> None:
    entity_rows: list[dict[str, Any]] = []
    box_rows: list[dict[str, Any]] = []
    for annotation_id, annotation in new:
        for number, (entity, scores) in enumerate(zip(annotation.grounding.entities, annotation.scores, strict=True)):
            entity_rows.append(
                {
                    "annotation_id": annotation_id,
                    "ordinal": number,
                    "phrase": plain(entity.phrase),
                    "phrase_norm": plain(phrase_norm(entity.phrase)),
                    "span_start": entity.start,
                    "span_end": entity.end,
                    "score": scores.phrase,
                }
            )
            for ordinal, (box, score) in enumerate(zip(entity.boxes, scores.boxes, strict=True)):
                place = {"annotation_id": annotation_id, "entity": number, "ordinal": ordinal}
                corners = {"x1": box.x1, "y1": box.y1, "x2": box.x2, "y2": box.y2, "area": box.area}
                box_rows.append(place | corners | {"score": score, "valid": box.valid})
    insert_rows(connection, ADD_ENTITIES, entity_rows)
    insert_rows(connection, ADD_BOXES, box_rows)
