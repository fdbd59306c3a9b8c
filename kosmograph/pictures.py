"""Pictures with boxes, for `show` and `try`: the image as it is stored, drawn over by the catalog."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from schemas.errors import SetupError
from schemas.settings import Settings


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


def picture_of(uri: str, settings: Settings) -> Any:
    """The upright picture behind a URI, as Pillow's image. Raises ImageFailure."""
    from schemas.storage import StorageOptions
    from worker.fetch import Fetcher
    from worker.images import Limits, upright

    limits = Limits.from_settings(settings)
    return upright(Fetcher(limits, StorageOptions.of(settings)).fetch(uri).data, limits)


def save_picture(picture: Any, caption: str, boxes: Sequence[DrawnBox], path: Path, note: str = "") -> None:
    """Draw boxes and phrases on a picture, and write it in the format that the name's extension says."""
    from catalog.drawing import DrawnPhrase, draw

    phrases = []
    for _, group in groupby(boxes, key=lambda box: box.entity):
        some = list(group)
        corners = [(box.x1, box.y1, box.x2, box.y2) for box in some]
        scores = [box.score for box in some]
        phrases.append(DrawnPhrase(some[0].phrase, corners, scores, valid=all(box.valid for box in some)))
    drawn = draw(picture, caption, phrases, note)
    try:
        drawn.save(path)
    except (OSError, ValueError) as error:
        raise SetupError(f"the picture cannot be written to {path}: {error}") from None


def note_of(model: str) -> str:
    """What a picture says of the model: the demo model is named as such wherever its output shows."""
    return "demo model" if model == "demo" else ""
