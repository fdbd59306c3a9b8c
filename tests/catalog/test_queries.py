"""Questions that commands and pages share."""

import json

from sqlalchemy import text

from catalog.queries import places_of
from catalog.reader import Reader
from schemas.database import Database
from schemas.errors import Code
from tests.catalog.conftest import Picture, Shelve
from tests.catalog.galleries import ids_of, set_roots


def test_places_are_below_the_roots_of_all_jobs_that_have_the_image(
    shelve: Shelve, reader: Reader, database: Database
) -> None:
    one, both, any_ = (Picture(f"s3://b/{name}", size=(30, 20)) for name in ("one", "both", "any"))
    failed = Picture("s3://b/failed", code=Code.TRUNCATED)
    shelve("first", one, both, any_, failed, task=["brief", "detailed"])
    shelve("second", both)
    shelve("third", any_)
    set_roots(database, "first", json.dumps(["/a", "/b"]))
    set_roots(database, "second", json.dumps(["/c", "/a"]))
    with database.write() as connection:
        connection.execute(
            text("INSERT INTO images (id, \"key\", uri, version) VALUES (99, :key, 's3://b/nobody', 'v')"),
            {"key": b"99"},
        )
    ids = ids_of(database)
    found = places_of(reader, [*ids.values(), 12345])
    places = {name: found[image] for name, image in ids.items() if image in found}
    folders = {name: place.roots.folders if place.roots else None for name, place in places.items()}
    assert folders == {"one": ["/a", "/b"], "both": ["/a", "/b", "/c"], "any": None, "failed": ["/a", "/b"]}
    assert [(place.uri, place.sha256, place.pixels) for place in (places["one"], places["failed"])] == [
        ("s3://b/one", one.sha256, 600),
        ("s3://b/failed", None, 0),
    ]
    assert places_of(reader, []) == {}
