"""YOLO: `labels/` with a text file an image, `data.yaml` with the names, and the images where they are wanted.

`images/` and `labels/` hold the same names, as the trainers find one by the other; `train.txt` lists the images, and
`images.csv` says where each comes from. An image without boxes has an empty label file: it shows none of the names.
With `images` as "none" the files that `train.txt` lists are not there: whoever trains puts them under these names.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from catalog.exports.base import Categories, Work, extension
from catalog.exports.pictures import Shelves, pictured
from catalog.records import Record
from catalog.rows import CsvText
from schemas.errors import SetupError

READS = frozenset({"avif", "bmp", "jp2", "jpg", "png", "tif", "webp"})
"""Extensions that ultralytics takes for images (its IMG_FORMATS), of those that ours have; others it passes by."""


def write(records: Iterable[Record], work: Work) -> None:
    yaml, categories = _yaml(), Categories(work.options.categories)
    images, labels = Shelves(work.path / "images"), Shelves(work.path / "labels")
    with (
        (work.path / "train.txt").open("w") as listed,
        (work.path / "images.csv").open("w", encoding="utf-8", newline="") as sources,
    ):
        text = CsvText()
        sources.write(text(("file", "uri", "width", "height")) + "\n")
        drawable = map(work.drawable, work.readable(records, READS, "ultralytics"))
        for record, picture in pictured(drawable, work, once=True):
            label = labels.place(record, "txt")
            with label.open("a") as file:  # "a": one label file for all that is said of an image
                file.writelines(_lines(record, categories))
            if work.wrote(record):
                if work.options.images != "none":
                    images.put(record, picture, link=work.options.images == "link")
                name = f"images/{label.parent.name}/{label.stem}.{extension(record)}"
                listed.write(f"./{name}\n")
                sources.write(text((name, record.uri, record.width, record.height)) + "\n")
    # without `path`: the lists are then sought where this file is
    told = {"train": "train.txt", "val": "train.txt", "names": dict(enumerate(categories.names))}
    (work.path / "data.yaml").write_text(yaml.safe_dump(told, allow_unicode=True, sort_keys=False), encoding="utf-8")


def _lines(record: Record, categories: Categories) -> Iterator[str]:
    """The number of the name, then centre and size as fractions."""
    for entity in record.entities:
        number = categories.number(entity)
        for box in entity.boxes:
            sides = ((box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2, box.x2 - box.x1, box.y2 - box.y1)
            yield f"{number} {' '.join(f'{side:.6f}' for side in sides)}\n"


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise SetupError("YOLO's data.yaml needs PyYAML: pip install 'kosmograph[export]'") from None
    return yaml
