"""Exports with pictures that lie in S3, fetched as the command does it."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from catalog.exports.base import Options
from catalog.exports.run import Order, export
from catalog.queries import roots_of
from catalog.reader import Reader
from catalog.search import Search
from kosmograph.export import Pictures
from schemas.settings import load_settings
from tests.catalog.conftest import Picture, Shelve, Thing
from tests.catalog.exports.conftest import DOG, drawn
from tests.conftest import S3


def pictures_in(path: Path) -> set[bytes]:
    """The bytes of all pictures of an export, in its folders or shards."""
    found = {one.read_bytes() for one in path.rglob("*.jpg")}
    for shard in path.glob("*.tar"):
        with tarfile.open(shard) as tar:
            members = [tar.extractfile(one) for one in tar if one.name.endswith(".jpg")]
            found |= {member.read() for member in members if member}
    return found


@pytest.mark.parametrize("format_", ["yolo", "webdataset", "hf"])
def test_pictures_from_s3_are_fetched_and_one_that_is_gone_is_named(
    s3: S3, shelve: Shelve, reader: Reader, tmp_path: Path, format_: str
) -> None:
    drawings = {f"photos/a b/{number}.jpg": drawn(64, 48, number) for number in range(3)}
    things = [Thing("a dog", [DOG])]
    pictures = [Picture(s3.put(key, data), things, size=(64, 48), data=data) for key, data in drawings.items()]
    shelve("far", *pictures, Picture(f"s3://{s3.bucket}/gone.jpg", things))
    fetch = Pictures(load_settings(db=None), roots_of(reader, "far")).fetch
    order = Order(search=Search(job="far"), format=format_, out=tmp_path / "out", options=Options())
    made = export(reader, order, fetch)
    assert pictures_in(tmp_path / "out") == set(drawings.values())
    assert (made.counts["images"], made.counts["boxes"], made.lost) == (3, 3, 1)
    named: Any = json.loads((tmp_path / "out/left_out.jsonl").read_text())
    assert (named["uri"], named["why"]) == (f"s3://{s3.bucket}/gone.jpg", "not_found")
