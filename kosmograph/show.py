"""`show`: one image, its captions and boxes, as text, JSON or a picture."""

import os
from pathlib import Path
from typing import Any

from catalog.queries import failures_of, image_of, places_of
from catalog.reader import Reader
from catalog.records import boxes_of, records_of
from catalog.search import Hit
from kosmograph.control import asked, open_database
from kosmograph.output import believed, say, say_json
from kosmograph.pictures import Originals, save_picture
from schemas.errors import UsageError
from schemas.settings import Settings, load_settings
from schemas.uris import absolute_uri, masked, printable


def show_image(
    image: str, *, job: str | None, save: Path | None, allow_http: bool | None, as_json: bool, db: str | None
) -> int:
    """Print what was found in an image, and draw it if wanted; the exit code."""
    uri = image if "://" in image else absolute_uri(image, os.getcwd())
    with open_database(db) as database:
        found = _found(database, image, uri, job)
        if as_json:
            say_json(found)
        else:
            for one in found:
                _say(one)
        if save:
            _draw(database, found[0], save, load_settings(db=db, allow_http=allow_http))
    if save and not as_json:
        say(f"saved {save}")
    return 0


def _draw(database: Reader, one: dict[str, Any], path: Path, settings: Settings) -> None:
    image = one["image_id"]
    (record,) = records_of(database, [Hit(one["annotation_id"], image)], one["job"])
    picture = Originals(settings).picture(places_of(database, [image])[image])
    save_picture(picture, record.caption, record.entities, record.model, path)


def _found(database: Reader, image: str, uri: str, job: str | None) -> list[dict[str, Any]]:
    """The image's captions, each with its boxes; the same annotation once, however many jobs show it."""
    captions = image_of(database, image, uri, job)
    if captions is None:
        failed = failures_of(database, image, uri)
        if failed:
            name, code, message = failed.rows[0]
            raise UsageError(f"{printable(uri)} has failed in the job {name}: {code}: {message}")
        raise UsageError(f"no image {printable(masked(image))} in {database}" + (f" in the job {job}" if job else ""))
    found: dict[int, dict[str, Any]] = {}
    for row in captions.rows:
        one = dict(zip(captions.columns, row, strict=True))
        one["boxes"] = boxes_of(database, one["annotation_id"], one["job"])
        found.setdefault(one["annotation_id"], one)
    return list(found.values())


def _say(one: dict[str, Any]) -> None:
    size, origin = f"{one['width']}×{one['height']}", f"job {one['job']}, {asked(one)}, model {one['model']}"
    say(f"{printable(one['uri'])}  {size}  {origin}")
    say(f"  {printable(one['caption'])}")
    for box in one["boxes"]:
        belief = believed(box["score"], box["trust"], box["doubts"])
        flag = "" if box["valid"] else "  (not a box: its corners are the wrong way round)"
        corners = ", ".join(str(box[name]) for name in ("px1", "py1", "px2", "py2"))
        say(f"    {printable(box['phrase']) or '(no phrase)'}: pixels ({corners}){belief}{flag}")
