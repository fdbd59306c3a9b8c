"""Rows as the GrIT corpus has them (zzliang/GRIT on the hub), in Parquet: what KOSMOS-2 itself was trained on.

A grounding is `[start, end, x1, y1, x2, y2, score]`: `caption[start:end]` and fractions of the picture. A phrase that
ends with its head noun is a noun chunk; one that goes on behind it, "a dog in the snow", is a referring expression.
Images without a box are left out, as they are there.
"""

from collections.abc import Iterable
from typing import Any

from catalog.exports.arrow import parquet_rows, pyarrow
from catalog.exports.base import Work
from catalog.records import Entity, Record
from schemas.heads import singular


def write(records: Iterable[Record], work: Work) -> None:
    with parquet_rows(work.path, schema()) as rows:
        for record in map(work.drawable, records):
            if any(entity.boxes for entity in record.entities):
                rows.add(_row(record, work.counts["annotations"]))
                work.wrote(record)
            else:
                work.left_out["images without a box"] += 1


def schema() -> Any:
    """The columns of the published files. What only their makers know is null: the similarities, and EXIF."""
    arrow = pyarrow()
    text, whole, real = arrow.string(), arrow.int64(), arrow.float64()
    groundings = arrow.list_(arrow.list_(real))
    columns = {
        "clip_similarity_vitb32": real,
        "clip_similarity_vitl14": real,
        "id": whole,
        **dict.fromkeys(("url", "caption", "key", "status", "error_message"), text),
        **dict.fromkeys(("width", "height", "original_width", "original_height"), whole),
        **dict.fromkeys(("exif", "sha256"), text),
        **dict.fromkeys(("noun_chunks", "ref_exps"), groundings),
    }
    return arrow.schema(list(columns.items()))


def _row(record: Record, number: int) -> dict[str, Any]:
    """A row by its number. Images of the same bytes share an annotation, one image has one of each recipe."""
    noun_chunks: list[list[float | None]] = []
    ref_exps: list[list[float | None]] = []
    for entity in record.entities:
        found = noun_chunks if _is_noun_chunk(entity) else ref_exps
        found += [[entity.start, entity.end, box.x1, box.y1, box.x2, box.y2, box.score] for box in entity.boxes]
    return {
        "id": number,
        "url": record.uri,
        "caption": record.caption,
        "key": f"{record.image_id:09}-{record.annotation_id}",
        "status": "success",
        "width": record.width,
        "height": record.height,
        "original_width": record.width,
        "original_height": record.height,
        "sha256": record.sha256,
        "noun_chunks": noun_chunks,
        "ref_exps": ref_exps,
    }


def _is_noun_chunk(entity: Entity) -> bool:
    return singular(entity.phrase_norm.rpartition(" ")[2]) == entity.head
