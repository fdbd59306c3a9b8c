"""A folder that `datasets.load_dataset(FOLDER)` reads: images with their metadata, and a card for people and the hub.

Without images it is the metadata alone, in Parquet. `objects` is what the hub's detection datasets have: lists of boxes
(left, top, width and height in pixels), categories, phrases, scores and spans, side by side.
"""

from collections.abc import Iterable
from typing import Any

from catalog.exports.arrow import parquet_rows, pyarrow
from catalog.exports.base import Categories, Work, extension, pixel_box
from catalog.exports.pictures import Shelves, pictured
from catalog.records import Record
from schemas.uris import printable

READS = frozenset({"bmp", "gif", "ico", "jp2", "jpg", "png", "ppm", "tif", "webp"})
"""Extensions that the library takes for images (its ImageFolder's), of those that ours have. Where its first files are
of another, it takes the folder for a table, and loads no picture or fails."""
CARD = """---
task_categories:
- image-to-text
- object-detection
---

# {job}

Images annotated by Kosmograph: captions, and phrases with their boxes.

{recipes}
"""
"""It names no files: the library finds the folder `train` by itself, with more looks through it. Where a card does name
them, the key of its cache is these names alone, and an export that replaced another is read as the one before."""


def write(records: Iterable[Record], work: Work) -> None:
    categories, with_images = Categories(work.options.categories), work.options.images != "none"
    (work.path / "train").mkdir()
    shelves = Shelves(work.path / "train")
    if with_images:
        records = work.readable(records, READS, "datasets")
    with parquet_rows(work.path / "train/metadata.parquet", schema(with_images=with_images)) as rows:
        for record, picture in pictured(map(work.drawable, records), work, once=True):
            is_new = work.wrote(record)
            row = _row(record, categories)
            if with_images:
                path = shelves.place(record, extension(record))
                if is_new:
                    shelves.put(record, picture, link=work.options.images == "link")
                row["file_name"] = f"{path.parent.name}/{path.name}"
            rows.add(row)
    recipes = "\n".join(f"- {one.task}: model {one.model}, revision {one.revision}" for one in work.recipes)
    card = CARD.format(job=printable(work.job), recipes=recipes)
    (work.path / "README.md").write_text(card, encoding="utf-8")


def schema(*, with_images: bool) -> Any:
    """The columns of the metadata."""
    arrow = pyarrow()
    text, whole, real = arrow.string(), arrow.int64(), arrow.float64()
    objects = {
        "bbox": arrow.list_(arrow.list_(real)),
        "category": arrow.list_(text),
        "phrase": arrow.list_(text),
        "score": arrow.list_(real),
        "span": arrow.list_(arrow.list_(whole)),
    }
    columns = {
        **({"file_name": text} if with_images else {}),
        "image_id": whole,
        "uri": text,
        "width": whole,
        "height": whole,
        **dict.fromkeys(("task", "caption", "model", "revision"), text),
        "objects": arrow.struct(list(objects.items())),
    }
    return arrow.schema(list(columns.items()))


def _row(record: Record, categories: Categories) -> dict[str, Any]:
    every = [(entity, box) for entity in record.entities for box in entity.boxes]
    return {
        "image_id": record.image_id,
        "uri": record.uri,
        "width": record.width,
        "height": record.height,
        "task": record.task,
        "caption": record.caption,
        "model": record.model,
        "revision": record.revision,
        "objects": {
            "bbox": [pixel_box(box, record) for _, box in every],
            "category": [categories.name(entity) for entity, _ in every],
            "phrase": [entity.phrase for entity, _ in every],
            "score": [box.score for _, box in every],
            "span": [(entity.start, entity.end) for entity, _ in every],
        },
    }
