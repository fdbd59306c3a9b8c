"""Annotations as files for the tools that people already use: a module for each format.

A format has `write(records, work)`: it takes the records one by one, writes below `work.path`, and tells `work` what it
has written and what it has left out. What all share is in `base`; how files come to their final name, in `drafts`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import cast

from catalog.exports.base import Work
from catalog.records import Record

Writer = Callable[[Iterable[Record], Work], None]


@dataclass(frozen=True)
class Format:
    """What is known of a format before it is written, so that its libraries are loaded only then.

    options: those of `base.Options` that it heeds. beside: what the names of files end in that lie beside its own.
    """

    name: str
    what: str
    is_folder: bool = False
    options: frozenset[str] = frozenset()
    beside: tuple[str, ...] = ()

    @property
    def writer(self) -> Writer:
        return cast(Writer, import_module(f"catalog.exports.{self.name}").write)


_CATEGORIES = frozenset({"categories"})
FORMATS = {
    one.name: one
    for one in (
        Format("jsonl", "one JSON object a line: an image with its entities and boxes"),
        Format("csv", "one grounding a row, as the view groundings"),
        Format("parquet", "one image a row, entities and boxes nested"),
        Format("coco", "COCO's instances, for pycocotools", options=_CATEGORIES),
        Format("yolo", "labels, images and data.yaml", is_folder=True, options=_CATEGORIES | {"images"}),
        Format(
            "labelstudio",
            "tasks with predictions, and the labelling configuration",
            options=_CATEGORIES,
            beside=(".config.xml",),
        ),
        Format("grit", "rows as the GrIT corpus has them, in Parquet"),
        Format(
            "webdataset",
            "tar shards of image, JSON and caption",
            is_folder=True,
            options=frozenset({"shard_images", "shard_bytes"}),
        ),
        Format("hf", "a folder for datasets.load_dataset", is_folder=True, options=_CATEGORIES | {"images"}),
    )
}
