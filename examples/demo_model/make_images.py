# ruff: noqa: T201
"""The pictures of examples/images: several sizes, aspects and formats, always the same for a seed.

What is where on them goes into examples/drawings.json, as COCO instances.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from drawing import Colour, Thing, draw_scene
from numpy.random import Generator
from PIL import ExifTags, Image

SEED = 24
QUARTER_TURN_CLOCKWISE = 6
FINE = 2
"""Pictures are drawn this much larger and then reduced, for smooth edges."""
GROUNDS: tuple[Colour, ...] = (
    (243, 234, 214),  # cream
    (168, 206, 230),  # sky
    (178, 204, 172),  # sage
    (58, 66, 96),  # dusk
    (214, 188, 148),  # sand
    (238, 204, 200),  # blush
    (94, 112, 130),  # slate
    (200, 192, 226),  # lilac
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A file to draw: its name decides the format."""

    name: str
    size: tuple[int, int]
    things: int
    options: dict[str, Any] = field(default_factory=dict)
    turned: bool = False
    """Stored lying on its side, as by a phone held upright, with the EXIF orientation that puts it right."""


PICTURES = (
    Picture("banner.jpg", (960, 540), 4, {"quality": 90}),
    Picture("card.png", (400, 300), 2),
    Picture("column.webp", (360, 640), 3, {"quality": 85}),
    Picture("cover.jpg", (600, 600), 3, {"quality": 90}),
    Picture("flag.gif", (320, 240), 2),
    Picture("icon.bmp", (128, 128), 1),
    Picture("medal.png", (256, 256), 1),
    Picture("note.jpg", (480, 360), 2, {"quality": 75}),
    Picture("poster.png", (450, 600), 4),
    Picture("postcard.jpg", (800, 600), 4, {"quality": 92, "progressive": True}),
    Picture("scan.tiff", (420, 300), 3, {"compression": "tiff_lzw"}),
    Picture("sheet.webp", (640, 480), 3, {"lossless": True}),
    Picture("stamp.png", (200, 250), 1),
    Picture("tile.gif", (280, 280), 2),
    Picture("upright.jpg", (480, 720), 3, {"quality": 90}, turned=True),
    Picture("window.jpg", (1280, 800), 4, {"quality": 88}),
)


def draw(rng: Generator, picture: Picture) -> tuple[Image.Image, list[Thing]]:
    """The picture as it is to be seen, and what is on it from left to right. Drawn again until nothing is missing."""
    while True:
        width, height = picture.size
        ground = GROUNDS[rng.integers(len(GROUNDS))]
        image, things = draw_scene(rng, (width * FINE, height * FINE), picture.things, ground)
        if len(things) == picture.things:
            return image.reduce(FINE), things


def save(image: Image.Image, picture: Picture, folder: Path) -> None:
    """Writes the file; a turned one is stored as the camera would have it, with its orientation in the EXIF block."""
    options = dict(picture.options)
    if picture.turned:
        image = image.transpose(Image.Transpose.ROTATE_90)
        options["exif"] = Image.Exif()
        options["exif"][ExifTags.Base.Orientation] = QUARTER_TURN_CLOCKWISE
    image.save(folder / picture.name, **options)


def instances(drawn: list[tuple[Picture, list[Thing]]]) -> dict[str, Any]:
    """The COCO document: a category is a phrase as the demo model was taught it, a box is in pixels, upright."""
    names = sorted({f"the {thing.name}" for _, things in drawn for thing in things})
    images, annotations = [], []
    for number, (picture, things) in enumerate(drawn, 1):
        width, height = picture.size
        images.append({"id": number, "file_name": picture.name, "width": width, "height": height})
        for thing in things:
            x1, y1, x2, y2 = thing.box
            box = [round(v, 1) for v in (x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height)]
            about = {"image_id": number, "category_id": names.index(f"the {thing.name}") + 1}
            annotations.append({"id": len(annotations) + 1, **about, "bbox": box, "area": round(box[2] * box[3], 1)})
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "images")
    parser.add_argument("--truth", type=Path, default=Path(__file__).parents[1] / "drawings.json")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    drawn = []
    for number, picture in enumerate(PICTURES):
        image, things = draw(np.random.default_rng([arguments.seed, number]), picture)
        save(image, picture, arguments.out)
        drawn.append((picture, things))
        print(f"{picture.name}: {', '.join(thing.name for thing in things)}")
    arguments.truth.write_text(json.dumps(instances(drawn), indent=1) + "\n")


if __name__ == "__main__":
    main()
