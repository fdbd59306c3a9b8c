"""Pictures as they were annotated, with their boxes drawn on them: for `show`, `try`, `find`, `report` and the rest."""

import hashlib
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from catalog.queries import Place
from catalog.records import Entity, Record, found_in
from catalog.search import Match
from schemas.errors import Code, ImageFailure, PermanentFailure, SetupError
from schemas.roots import Roots
from schemas.settings import Settings


class Originals:
    """Reads pictures where they lie, within the worker's limits. Many threads may ask."""

    def __init__(self, settings: Settings) -> None:
        from schemas.storage import StorageOptions
        from worker.images import Limits

        self._limits, self._storage = Limits.from_settings(settings), StorageOptions.of(settings)
        self._own = threading.local()  # a fetcher reads one URI after the other, and keeps its connections

    def fetch(self, uri: str, roots: Roots | None) -> bytes:
        """What lies at a URI now; a local file only below the roots (None: any). Raises ImageFailure."""
        if not hasattr(self._own, "fetcher"):
            from worker.fetch import Fetcher

            self._own.fetcher = Fetcher(self._limits, self._storage)
        self._own.fetcher.roots = roots
        data: bytes = self._own.fetcher.fetch(uri).data
        return data

    def read(self, place: Place) -> bytes:
        """The bytes that were annotated: a loader process, which may die of others, has decoded them before.

        Raises ImageFailure, also where others lie there by now, as the boxes would lie on something else.
        """
        data = self.fetch(place.uri, place.roots)
        if hashlib.sha256(data).hexdigest() != place.sha256:
            raise PermanentFailure(
                Code.NOT_FOUND, "it has changed since it was annotated; the same annotate command takes it in again"
            )
        return data

    def decode(self, data: bytes, side: int | None = None) -> Any:
        """The upright picture as Pillow's image; where a side is given, it may be halved down to that.

        Raises ImageFailure.
        """
        from worker.images import upright

        return upright(data, self._limits, side=side)

    def picture(self, place: Place) -> Any:
        """The upright picture that was annotated, as Pillow's image. Raises ImageFailure."""
        return self.decode(self.read(place))


def save_picture(picture: Any, caption: str, entities: Sequence[Entity], model: str, path: Path) -> None:
    """Draw boxes and phrases on a picture, and write it in the format that the name's extension says."""
    from catalog.drawing import draw, note_of

    _save(draw(picture, caption, entities, note_of(model)), path)


def save_sheet(
    records: Sequence[Record],
    matches: Collection[Match],
    places: Mapping[int, Place],
    path: Path,
    settings: Settings,
) -> None:
    """Draw the pictures of some records on one sheet, each with the boxes it was found for, or else with all of them.

    `places` has each image, by its id. A picture that cannot be read leaves its place to the reason.
    """
    from PIL import Image
    from rich.console import Console
    from rich.progress import track

    from catalog.drawing import draw, note_of
    from catalog.sheet import TILE, sheet_of

    tiles, originals = [], Originals(settings)
    console = Console(stderr=True)
    for record in track(records, "drawing", console=console, transient=True, disable=not console.is_terminal):
        entities = _found(record, matches)
        try:
            picture, note = originals.picture(places[record.image_id]), note_of(record.model)
        except ImageFailure as failure:
            picture, entities, note = Image.new("RGB", TILE, (60, 60, 64)), [], failure.message
        tiles.append(draw(picture, record.caption, entities, note, long_side=(TILE[0], TILE[0])))
    _save(sheet_of(tiles), path)


def _found(record: Record, matches: Collection[Match]) -> Sequence[Entity]:
    """The entities with the boxes that a record was found for; with all of them where it was found by its words."""
    marked = found_in(record, matches)
    return marked if any(entity.boxes for entity in marked) else record.entities


def _save(picture: Any, path: Path) -> None:
    try:
        picture.save(path)
    except (OSError, ValueError) as error:
        raise SetupError(f"the picture cannot be written to {path}: {error}") from None
