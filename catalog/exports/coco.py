"""COCO's instances: https://cocodataset.org/#format-data, with a score and the phrase at each annotation.

An image is there once, however many recipes of the job have annotated it. The annotations wait in a file of their own
for the images to end, as the format wants one list behind the other.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from catalog.exports.base import Categories, Work, pixel_box, to_json
from catalog.records import Record
from schemas.uris import path_of


def write(records: Iterable[Record], work: Work) -> None:
    categories = Categories(work.options.categories)
    with work.path.open("w") as file, (work.scratch / "annotations").open("w+") as later:
        file.write(f'{{"info": {json.dumps(_info(work))},\n"images": [\n')
        annotations = _Listed(later)
        images = _Listed(file)
        for record in map(work.drawable, records):
            if work.wrote(record):
                images.add(_image(record))
            for one in _annotations(record, categories, annotations.count + 1):
                annotations.add(one)
        file.write('\n],\n"annotations": [\n')
        later.seek(0)
        shutil.copyfileobj(later, file)
        file.write('\n],\n"categories": [\n')
        named = _Listed(file)
        for number, (name, head) in enumerate(zip(categories.names, categories.heads, strict=True)):
            named.add({"id": number + 1, "name": name, "supercategory": head})
        file.write("\n]}\n")


class _Listed:
    """What stands between the brackets of a list, one a line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.count = 0

    def add(self, one: dict[str, Any]) -> None:
        self._file.write((",\n" if self.count else "") + to_json(one))
        self.count += 1


def _info(work: Work) -> dict[str, Any]:
    return {
        "description": f"job {work.job}, annotated by Kosmograph",
        "version": "1.0",
        "year": int(work.created[:4]),
        "date_created": work.created,
        "recipes": work.recipes_told,
    }


def _image(record: Record) -> dict[str, Any]:
    return {
        "id": record.image_id,
        "file_name": _file_name(record.uri),
        "coco_url": record.uri,
        "width": record.width,
        "height": record.height,
    }


def _file_name(uri: str) -> str:
    """The path of a local file, which stays what it is below any folder of images; another's URI."""
    try:
        path = str(path_of(uri))
        path.encode()
    except ValueError:  # no path, or none that JSON's text can hold
        return uri
    return path


def _annotations(record: Record, categories: Categories, first: int) -> Iterator[dict[str, Any]]:
    boxes = [(entity, box) for entity in record.entities for box in entity.boxes]
    for number, (entity, box) in enumerate(boxes, first):
        left, top, width, height = pixel_box(box, record)
        yield {
            "id": number,
            "image_id": record.image_id,
            "category_id": categories.number(entity) + 1,
            "bbox": [left, top, width, height],
            "area": round(width * height, 2),
            "segmentation": [],
            "iscrowd": 0,
            "score": box.score,
            "trust": box.trust,
            "phrase": entity.phrase,
            "task": record.task,
        }
