"""A finished job of real pictures on disk, two boxes wrong, and what exports it."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from catalog.exports.base import Options
from catalog.exports.run import Made, Order, export
from catalog.reader import Reader
from catalog.search import Search
from schemas.errors import Code, PermanentFailure
from schemas.uris import file_uri, path_of
from tests.catalog.conftest import Picture, Shelve, Thing

DOG, CAT, MAN = (0.25, 0.5, 0.75, 1.0), (0.0, 0.0, 0.5, 0.25), (0.015625, 0.046875, 0.984375, 0.828125)


def drawn(width: int, height: int, colour: int, format_: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (colour, 90, 160)).save(file, format_)
    return file.getvalue()


def picture(
    path: Path, things: list[Thing], *, size: tuple[int, int] = (64, 48), caption: str = "", format_: str = "JPEG"
) -> Picture:
    """A picture as it lies on the disk."""
    data = drawn(*size, len(list(path.parent.iterdir())) * 20 % 256, format_)
    path.write_bytes(data)
    return Picture(file_uri(path), things, caption, size, data=data, format=format_)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def zoo(shelve: Shelve, photos: Path) -> dict[str, Picture]:
    """Four pictures by name that are annotated, one without boxes; and there is one that failed."""
    wrong = Thing("a dog", [(0.8, 0.8, 0.2, 0.2)], 0.3, valid=False)
    pictures = [
        picture(photos / "dog.jpg", [Thing("A brown dog", [DOG], 0.9), Thing("two cats", [CAT, DOG], 0.4)]),
        picture(photos / "man.jpg", [Thing("a man in a red hat", [MAN], None)], size=(100, 40)),
        picture(photos / "wrong.jpg", [wrong, Thing("a cat", [CAT])]),
        picture(photos / "sky.jpg", [], caption='An image of, oddly, "nothing"\nat all'),
    ]
    shelve("zoo", *pictures, Picture("file:///none.jpg", code=Code.NOT_FOUND))
    return {name_of(one.uri): one for one in pictures}


def fetch(uri: str) -> bytes:
    """The bytes of a local file."""
    try:
        return path_of(uri).read_bytes()
    except OSError:
        raise PermanentFailure(Code.NOT_FOUND, "no such file") from None


@pytest.fixture
def take(reader: Reader, tmp_path: Path) -> Callable[..., tuple[Path, Made]]:
    """Exports: `take("coco", categories="phrase", job="zoo", phrases=("dog",))`; the path, and what was made."""

    def run(format_: str, *, force: bool = False, only_found: bool = False, out: str = "", **asked: Any) -> Any:
        options = {name: asked.pop(name) for name in list(asked) if name in Options.__dataclass_fields__}
        path = tmp_path / (out or f"out.{format_}")
        order = Order(
            search=Search(**{"job": "zoo", **asked}),
            format=format_,
            out=path,
            options=Options(**options),
            only_found=only_found,
            force=force,
        )
        return path, export(reader, order, fetch)

    return run


def name_of(uri: str) -> str:
    """`dog` of `file:///photos/dog.jpg`."""
    return Path(uri).stem


def manifest_of(path: Path) -> Any:
    place = path / "manifest.json" if path.is_dir() else path.with_name(path.name + ".manifest.json")
    return json.loads(place.read_text())
