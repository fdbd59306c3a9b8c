"""What every export is told, and what it keeps count of."""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson

from catalog.records import BELIEF, Box, Entity, Record
from schemas.recipes import Recipe

EXTENSIONS = {"JPEG": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}
"""By the format that a picture is in, where it is not the format's own name."""
NO_PHRASE = "object"
"""The category of a box to which the model has given no phrase."""
LOST = "left_out.jsonl"
"""In the folder of an export with pictures: those that could not be had."""
CATEGORIES = ("head", "phrase")
IMAGES = ("copy", "link", "none")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to write it. categories: by head noun or by whole phrase. images: one of `IMAGES`. A shard ends at either."""

    categories: str = "head"
    images: str = "copy"
    shard_images: int = 10_000
    shard_bytes: int = 10**9


class Ids:
    """A set of ids, a bit for each: a million take an eighth of a megabyte."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def __contains__(self, id_: int) -> bool:
        place, bit = divmod(id_, 8)
        return place < len(self._bits) and bool(self._bits[place] >> bit & 1)

    def add(self, id_: int) -> bool:
        """Whether it is new."""
        if id_ in self:
            return False
        place, bit = divmod(id_, 8)
        if place >= len(self._bits):
            self._bits.extend(bytes(place - len(self._bits) + 4096))
        self._bits[place] |= 1 << bit
        return True


@dataclass
class Work:
    """An export in the making.

    path is the file or folder to write; scratch a folder for what is joined later. fetch gives the bytes of a picture,
    or raises ImageFailure, and is called by several threads. created is the time, in ISO 8601.
    """

    path: Path
    scratch: Path
    options: Options
    job: str
    recipes: Sequence[Recipe]
    created: str
    fetch: Callable[[str], bytes]
    counts: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    _images: Ids = field(default_factory=Ids)

    @property
    def recipes_told(self) -> list[dict[str, Any]]:
        """The recipes for whoever reads the files: all that shapes what the model says."""
        return [json.loads(recipe.canonical) for recipe in self.recipes]

    def wrote(self, record: Record) -> bool:
        """Count a record that is written; whether it is the first one of its image."""
        is_new, counts = self._images.add(record.image_id), self.counts
        counts["images"] += is_new
        counts["annotations"] += 1
        counts["entities"] += len(record.entities)
        counts["boxes"] += sum([len(entity.boxes) for entity in record.entities])
        return is_new

    def drawable(self, record: Record) -> Record:
        """The record without the boxes that are none: what is left out is counted."""
        if all(box.valid for entity in record.entities for box in entity.boxes):
            return record
        entities = [one._replace(boxes=[box for box in one.boxes if box.valid]) for one in record.entities]
        self.left_out["invalid boxes"] += sum(not box.valid for one in record.entities for box in one.boxes)
        return record._replace(entities=[entity for entity in entities if entity.boxes])

    def readable(self, records: Iterable[Record], reads: Collection[str], tool: str) -> Iterator[Record]:
        """The records of pictures that a tool reads, told by their extension: what is left out is counted."""
        for record in records:
            if extension(record) in reads:
                yield record
            else:
                self.left_out[f"{record.format} pictures, which {tool} does not read"] += 1

    def lose(self, record: Record, why: str, message: str) -> None:
        """Count an annotation whose picture cannot be had, and name it in the file `LOST`."""
        self.lost += 1
        self.left_out[f"pictures: {why}"] += 1
        named = {"image_id": record.image_id, "uri": record.uri, "why": why, "message": message}
        with (self.path / LOST).open("a") as file:
            file.write(json.dumps(named) + "\n")


class Categories:
    """Numbers from 0 for the names of things, in the order in which they come."""

    def __init__(self, by: str) -> None:
        self._by_phrase = by == "phrase"
        self._numbers: dict[str, int] = {}
        self.heads: list[str] = []

    def number(self, entity: Entity) -> int:
        name = self.name(entity)
        number = self._numbers.setdefault(name, len(self._numbers))
        if number == len(self.heads):
            self.heads.append(_category(entity.head))
        return number

    def name(self, entity: Entity) -> str:
        return _category(entity.phrase_norm if self._by_phrase else entity.head)

    @property
    def names(self) -> list[str]:
        return list(self._numbers)


def _category(words: str) -> str:
    """The words in one line, as every tool can show them."""
    return words if words.isprintable() and words else re.sub(r"[^ -~]+", " ", words).strip() or NO_PHRASE


def to_json(what: Any) -> str:
    """One line of JSON. (By orjson, which takes a tenth of the time of the standard library's.)"""
    return orjson.dumps(what).decode()


def pixel_box(box: Box, record: Record) -> tuple[float, float, float, float]:
    """Left, top, width and height in pixels of the upright picture, to a hundredth."""
    left, top = box.x1 * record.width, box.y1 * record.height
    width, height = box.x2 * record.width - left, box.y2 * record.height - top
    return round(left, 2), round(top, 2), round(width, 2), round(height, 2)


def image_name(record: Record) -> str:
    """A name for its picture, without extension, that no other image has, and that is safe in any folder or archive.

    It begins with the id; the words are there for people, and are those of the URI as far as they are plain.
    """
    words = re.sub(r"[^A-Za-z0-9]+", "-", unquote(record.uri.rpartition("/")[2]).rpartition(".")[0]).strip("-")[:40]
    return f"{record.image_id:09}-{words}" if words else f"{record.image_id:09}"


def extension(record: Record) -> str:
    return EXTENSIONS.get(record.format) or re.sub("[^a-z0-9]", "", record.format.lower()) or "img"


def document(record: Record) -> Mapping[str, Any]:
    """The record as JSON has it, and the columns of Parquet."""
    return {
        "job": record.job,
        "image_id": record.image_id,
        "annotation_id": record.annotation_id,
        "uri": record.uri,
        "task": record.task,
        "prompt": record.prompt,
        "caption": record.caption,
        "raw_text": record.raw_text,
        "finish_reason": record.finish_reason,
        "mean_logprob": record.mean_logprob,
        "width": record.width,
        "height": record.height,
        "sha256": record.sha256,
        "format": record.format,
        "model": record.model,
        "revision": record.revision,
        "input": record.input,
        "absent_phrase": record.absent_phrase,
        "yes_bias": record.yes_bias,
        "absent_score": record.absent_score,
        "entities": [
            {
                "phrase": entity.phrase,
                "phrase_norm": entity.phrase_norm,
                "head": entity.head,
                "start": entity.start,
                "end": entity.end,
                "score": entity.score,
                "boxes": [
                    {
                        "x1": box.x1,
                        "y1": box.y1,
                        "x2": box.x2,
                        "y2": box.y2,
                        "area": box.area,
                        "score": box.score,
                        "valid": box.valid,
                        "expected": box.expected,
                        "sigma": box.sigma,
                        **dict(zip(BELIEF, box[-len(BELIEF) :], strict=True)),
                    }
                    for box in entity.boxes
                ],
            }
            for entity in record.entities
        ],
    }
