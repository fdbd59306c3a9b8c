"""Pictures with boxes, for `show`, `try` and `find`: the image as it is stored, drawn over by the catalog."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.records import Record
from catalog.search import Match
from schemas.errors import ImageFailure, SetupError
from schemas.roots import Roots
from schemas.settings import Settings

if TYPE_CHECKING:
    from catalog.drawing import DrawnPhrase


@dataclass(frozen=True)
class DrawnBox:
    """A box of an entity of the caption, as fractions of the upright image."""

    entity: int
    phrase: str
    x1: float
    y1: float
    x2: float
    y2: float
    score: float | None
    phrase_score: float | None
    valid: bool


def picture_of(uri: str, settings: Settings, roots: Roots | None) -> Any:
    """The upright picture behind a URI, as Pillow's image; a local file only below the roots (None: any).

    Raises ImageFailure.
    """
    from schemas.storage import StorageOptions
    from worker.fetch import Fetcher
    from worker.images import Limits, upright

    limits = Limits.from_settings(settings)
    fetcher = Fetcher(limits, StorageOptions.of(settings), roots)
    return upright(fetcher.fetch(uri).data, limits)


def save_picture(picture: Any, caption: str, boxes: Sequence[DrawnBox], path: Path, note: str = "") -> None:
    """Draw boxes and phrases on a picture, and write it in the format that the name's extension says."""
    from catalog.drawing import draw

    _save(draw(picture, caption, _phrases(boxes), note), path)


def save_sheet(
    records: Sequence[Record],
    matches: Collection[Match],
    roots: Mapping[int, Roots | None],
    path: Path,
    settings: Settings,
) -> None:
    """Draw the pictures of some records on one sheet, each with the boxes it was found for, or else with all of them.

    `roots` has the folders of each image, by its id. A picture that cannot be read leaves its place to the reason.
    """
    from PIL import Image
    from rich.console import Console
    from rich.progress import track

    from catalog.drawing import draw
    from catalog.sheet import TILE, sheet_of

    tiles = []
    console = Console(stderr=True)
    for record in track(records, "drawing", console=console, transient=True, disable=not console.is_terminal):
        boxes = _boxes(record, matches)
        try:
            picture, note = picture_of(record.uri, settings, roots[record.image_id]), note_of(record.model)
        except ImageFailure as failure:
            picture, boxes, note = Image.new("RGB", TILE, (60, 60, 64)), [], failure.message
        tiles.append(draw(picture, record.caption, _phrases(boxes), note, long_side=(TILE[0], TILE[0])))
    _save(sheet_of(tiles), path)


def _boxes(record: Record, matches: Collection[Match]) -> list[DrawnBox]:
    """The boxes that a record was found for; all of them where it was found by its words."""
    every = [
        (Match(record.annotation_id, entity.ordinal, number), entity, box)
        for entity in record.entities
        for number, box in enumerate(entity.boxes)
    ]
    some = [one for one in every if one[0] in matches] or every
    return [DrawnBox(e.ordinal, e.phrase, b.x1, b.y1, b.x2, b.y2, b.score, e.score, b.valid) for _, e, b in some]


def _phrases(boxes: Sequence[DrawnBox]) -> "list[DrawnPhrase]":
    from catalog.drawing import DrawnPhrase

    phrases = []
    for _, group in groupby(boxes, key=lambda box: box.entity):
        some = list(group)
        corners = [(box.x1, box.y1, box.x2, box.y2) for box in some]
        scores = [box.score for box in some]
        phrases.append(DrawnPhrase(some[0].phrase, corners, scores, valid=all(box.valid for box in some)))
    return phrases


def _save(picture: Any, path: Path) -> None:
    try:
        picture.save(path)
    except (OSError, ValueError) as error:
        raise SetupError(f"the picture cannot be written to {path}: {error}") from None


def note_of(model: str) -> str:
    """What a picture says of the model: the demo model is named as such wherever its output shows."""
    return "demo model" if model == "demo" else ""
