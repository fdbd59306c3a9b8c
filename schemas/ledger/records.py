"""What a chunk brought, as rows: contents, images, inputs, annotations with their entities and boxes.

Rows go in sorted by key and table after table in this order: two transactions that bring the same never wait for each
other in a circle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from schemas.grounding import phrase_norm
from schemas.heads import head_of
from schemas.inputs import Inputs
from schemas.items import image_key
from schemas.ledger.bulk import VALUES, KeyedRows, Rows, copy_rows, plain
from schemas.ledger.known import Key
from schemas.results import Annotation, Belief, Settled
from schemas.tables import annotations, boxes, contents, entities, images, inputs, unix_now

MOST_INDEXED = 600
"""Characters of a phrase: an index of PostgreSQL refuses what has more than 2,704 bytes."""


def _keep_last_read(insert: Any) -> Any:
    """An image that is there gets the content that was read now, if one was."""
    read = insert.excluded.content_id
    return insert.on_conflict_do_update(
        index_elements=["key"],
        set_={"content_id": read},
        where=read.is_not(None) & images.c.content_id.is_distinct_from(read),
    )


CONTENTS = KeyedRows(
    Rows(contents, ("sha256", "width", "height", "format", "size"), returning=("sha256", "id")),
    key=1,
    ids_of=select(contents.c.sha256, contents.c.id).where(contents.c.sha256.in_(VALUES)),
)
IMAGES = KeyedRows(
    Rows(images, ("key", "uri", "version", "content_id"), _keep_last_read, returning=("key", "id")),
    key=1,
    ids_of=select(images.c.key, images.c.id).where(images.c.uri.in_(VALUES)),
)
ANNOTATIONS = KeyedRows(
    Rows(
        annotations,
        (
            *("content_id", "recipe_id", "input", "caption", "raw_text"),
            *("finish_reason", "tokens", "mean_logprob", "runtime"),
            *("prompt", "absent_phrase", "yes_bias", "absent_score"),
        ),
        computed={"created_at": unix_now()},
        returning=("content_id", "recipe_id", "input", "id"),
    ),
    key=3,
    ids_of=select(annotations.c.content_id, annotations.c.recipe_id, annotations.c.input, annotations.c.id).where(
        annotations.c.content_id.in_(VALUES)
    ),
)
INPUTS = Rows(inputs, ("hash", "value"))
ENTITIES = Rows(
    entities,
    ("annotation_id", "ordinal", "phrase", "phrase_norm", "span_start", "span_end", "score", "head"),
    lambda it: it,
)
BOXES = Rows(
    boxes,
    ("annotation_id", "entity", "ordinal", "x1", "y1", "x2", "y2", "area", "score", "valid", *Belief._fields),
    lambda it: it,
)
NOTHING_KNOWN = Belief()


@dataclass(frozen=True, slots=True)
class Stored:
    """The image ids of what was settled, one by one; annotation ids by sha256, recipe and input, and those made now."""

    image_ids: list[int]
    annotation_ids: dict[tuple[str, int, str], int]
    made: set[int]


def store(connection: Connection, settled: Sequence[Settled], brought: Inputs) -> Stored:
    """Write contents, images, inputs and annotations that are new, and say which there are now."""
    content_ids = _store_contents(connection, settled)
    image_ids = _store_images(connection, settled, content_ids)
    INPUTS.insert(connection, sorted(brought.values_by_hash(one.item for one in settled).items()))
    return Stored(image_ids, *_store_annotations(connection, settled, content_ids, brought))


def _store_contents(connection: Connection, settled: Sequence[Settled]) -> dict[str, int]:
    """The content ids by sha256."""
    found = {one.content.sha256: one.content for one in settled if one.content}
    rows = [(sha256, c.width, c.height, c.format, c.size) for sha256, c in sorted(found.items())]
    return CONTENTS.insert(connection, rows, found)[0]


def _store_images(connection: Connection, settled: Sequence[Settled], content_ids: dict[str, int]) -> list[int]:
    """One row for each version of a URI that was read, or could not be, with the content that was read last."""
    keys = [image_key(one.item.uri, one.version) for one in settled]
    rows: dict[bytes, tuple[bytes, str, str, int | None]] = {}
    for key, one in zip(keys, settled, strict=True):
        content_id = content_ids[one.content.sha256] if one.content else None
        if content_id is not None or key not in rows:
            rows[key] = (key, plain(one.item.uri), plain(one.version), content_id)
    ids, _ = IMAGES.insert(connection, [rows[key] for key in sorted(rows)], {row[1] for row in rows.values()})
    return [ids[key] for key in keys]


def _store_annotations(
    connection: Connection, settled: Sequence[Settled], content_ids: dict[str, int], brought: Inputs
) -> tuple[dict[tuple[str, int, str], int], set[int]]:
    """The annotation ids by sha256, recipe and input, and those of them that were not there before."""
    wanted = {
        (content_ids[one.content.sha256], recipe_id, input_): (one.content.sha256, result)
        for one in settled
        if one.content
        for recipe_id, input_ in brought.hashes_of(one.item).items()
        if isinstance(result := one.results[recipe_id], Annotation)
    }
    rows = [_annotation_row(key, wanted[key][1]) for key in sorted(wanted)]
    ids, is_new = ANNOTATIONS.insert(connection, rows, {key[0] for key in wanted})
    made = {ids[key]: annotation for key, (_, annotation) in wanted.items() if is_new(ids[key])}
    _store_entities(connection, made)
    return {(sha256, *key[1:]): ids[key] for key, (sha256, _) in wanted.items()}, set(made)


def _annotation_row(key: Key, annotation: Annotation) -> tuple[Any, ...]:
    return (
        *key,
        plain(annotation.grounding.caption),
        plain(annotation.raw_text),
        annotation.finish_reason,
        annotation.tokens,
        annotation.mean_logprob,
        plain(annotation.runtime),
        annotation.prompt,
        annotation.absent_phrase,
        annotation.yes_bias,
        annotation.absent_score,
    )


def _store_entities(connection: Connection, made: dict[int, Annotation]) -> None:
    entity_rows: list[tuple[Any, ...]] = []
    box_rows: list[tuple[Any, ...]] = []
    for id_, annotation in sorted(made.items()):
        known = annotation.beliefs or [[NOTHING_KNOWN] * len(scores.boxes) for scores in annotation.scores]
        scored = zip(annotation.grounding.entities, annotation.scores, known, strict=True)
        for number, (entity, scores, beliefs) in enumerate(scored):
            phrase = plain(entity.phrase)
            norm = phrase_norm(phrase)[:MOST_INDEXED]
            span = (entity.start, entity.end)
            entity_rows.append((id_, number, phrase, norm, *span, scores.phrase, head_of(norm)))
            for ordinal, (box, score, belief) in enumerate(zip(entity.boxes, scores.boxes, beliefs, strict=True)):
                place = (id_, number, ordinal)
                box_rows.append((*place, box.x1, box.y1, box.x2, box.y2, box.area, score, box.valid, *belief))
    copy_rows(connection, ENTITIES, entity_rows)
    copy_rows(connection, BOXES, box_rows)
