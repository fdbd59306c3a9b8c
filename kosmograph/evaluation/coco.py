"""COCO instances: the name of each category that an image has, and of one that it has not, is asked as a phrase."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from kosmograph.evaluation.questions import (
    ALL,
    Picture,
    Pixels,
    Question,
    Side,
    phrase_prompt,
    pictures_of,
    read_json,
)
from schemas.errors import SourceError
from schemas.grounding import Corners, from_coco

WHAT = "an annotation file of COCO for instances, such as instances_val2017.json"


class Image(BaseModel):
    """An entry of `images`."""

    id: int
    file_name: str
    width: Side
    height: Side


class Category(BaseModel):
    """An entry of `categories`."""

    id: int
    name: str


class Annotation(BaseModel):
    """A thing: x, y, width, height in pixels. A crowd is many things in one box."""

    image_id: int
    category_id: int
    bbox: tuple[Pixels, Pixels, Pixels, Pixels]
    iscrowd: bool = False


class Instances(BaseModel):
    """The file."""

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]


def read_coco(path: Path) -> list[Picture]:
    """Every image with its categories. Raises SourceError for an annotation of something that the file lacks."""
    file = read_json(path, Instances, WHAT)
    names = {category.id: category.name for category in file.categories}
    images = {image.id: image for image in file.images}
    boxes: dict[int, dict[str, list[Corners]]] = {}  # image → category → boxes
    seen: dict[int, set[str]] = {}  # crowds too: the category is there
    for one in file.annotations:
        if one.image_id not in images or one.category_id not in names:
            raise SourceError(f"{path} lacks the image {one.image_id} or the category {one.category_id} of a box in it")
        image, name = images[one.image_id], names[one.category_id]
        seen.setdefault(image.id, set()).add(name)
        if not one.iscrowd:
            box = from_coco(one.bbox, (image.width, image.height))
            boxes.setdefault(image.id, {}).setdefault(name, []).append(box)
    return pictures_of(
        (image.file_name, (image.width, image.height), question)
        for image in file.images
        for question in questions_of(
            image.file_name, boxes.get(image.id, {}), set(names.values()) - seen.get(image.id, set())
        )
    )


def questions_of(file_name: str, boxes: dict[str, list[Corners]], absent: set[str]) -> Iterator[Question]:
    """One for each category that has a box, and one for a category that is not there: always the same, by hash."""
    for name, some in boxes.items():
        yield Question(phrase_prompt(name), tuple(some), (ALL, name))
    if absent:
        number = int.from_bytes(hashlib.sha256(file_name.encode()).digest()[:8])
        yield Question(phrase_prompt(sorted(absent)[number % len(absent)]), (), (ALL,))
