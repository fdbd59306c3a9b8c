"""Trust, and what it is made of, wherever people look: searches, exports, the gallery, the report."""

import csv
import json
import re
from typing import Any

import pyarrow.parquet
import pytest
from sqlalchemy import text

from catalog.exports.base import Options
from catalog.exports.run import Order, export
from catalog.reader import Reader
from catalog.records import records_of
from catalog.report.figures import figures_of
from catalog.report.page import page_of
from catalog.search import Search, find_page, matches_of
from schemas.database import Database
from schemas.ledger.calibrations import put_calibrations
from tests.catalog.conftest import Picture, Shelve, Thing, all_records
from tests.catalog.galleries import Gallery
from tests.catalog.galleries import gallery as gallery
from tests.schemas.test_calibrations import calibration

BELIEF = ("presence", "agreement", "mirror_agreement", "naming", "plausibility", "doubts", "evidence", "trust")
EDGES = ("x1", "y1", "x2", "y2")


@pytest.fixture
def archive(shelve: Shelve, database: Database) -> None:
    """Three pictures whose boxes have their score as evidence, twice as much trust under `brief`, and one of before."""
    shelve(
        "job",
        Picture("s3://b/1", [Thing("a dog", score=0.125), Thing("a cat", score=0.25)]),
        Picture("s3://b/2", [Thing("a dog", [(0.25, 0.25, 0.75, 0.75), (0.0, 0.0, 0.5, 0.5)], 0.375)]),
        task=("brief", "detailed"),
    )
    shelve("job2", Picture("s3://b/3", [Thing("a dog", score=0.5, valid=False)]))
    shelve("old", Picture("s3://b/4", [Thing("a dog", score=None)]))
    edges = ", ".join(f"expected_{edge} = {edge} + 0.0625, sigma_{edge} = 0.03125" for edge in EDGES)
    with database.write() as connection:
        connection.execute(
            text(f"""
            UPDATE boxes SET evidence = score, presence = 0.5, agreement = 0.75, mirror_agreement = 0.25,
                             naming = 0.125, plausibility = 1, doubts = 'frame,twin', {edges}
            WHERE score IS NOT NULL""")
        )
    put_calibrations(database, [calibration(points=((0, 0), (0.5, 1), (1, 1)))])


pytestmark = pytest.mark.usefixtures("archive")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"min_trust": 0.7, "task": "brief"}, {"2"}),
        ({"min_trust": 0.25, "max_trust": 0.25}, {"1"}),
        ({"min_trust": 0.25, "phrases": ("cat",)}, {"1"}),
        ({"max_trust": 0.2, "phrases": ("d*",), "task": "detailed"}, {"1"}),
        ({"max_trust": 0.2, "phrases": ("dog",), "task": "brief"}, set()),
        ({"max_trust": 1.0}, {"1", "2"}),
        ({"min_trust": 0.3, "text": "dog", "relations": (("overlaps", "dog"),)}, {"1", "2"}),
        ({"min_trust": 0.6, "text": "dog", "relations": (("overlaps", "dog"),)}, {"2"}),
        ({"min_trust": 0.3, "phrases": ("dog",), "job": "job"}, {"2"}),
    ],
)
def test_search_goes_by_the_trust_of_the_view(reader: Reader, asked: dict[str, Any], found: set[str]) -> None:
    search = Search(**asked)
    hits = find_page(reader, search, limit=100).hits
    assert {record.uri[-1] for record in records_of(reader, hits)} == found
    marked = matches_of(reader, search, [hit.annotation_id for hit in hits])
    assert bool(marked) == bool(found)
    low, high = asked.get("min_trust", 0), asked.get("max_trust", 1)
    if not search.relations:
        trusts = reader.select("SELECT annotation_id, entity, box, trust FROM groundings").rows
        assert all(low <= trust <= high for *key, trust in trusts if tuple(key) in marked)


def test_records_have_what_the_view_has(reader: Reader) -> None:
    columns = ", ".join(f"expected_{edge}" for edge in EDGES)
    query = f"SELECT annotation_id, entity, box, {columns}, {', '.join(BELIEF)} FROM groundings"
    view = {tuple(row[:3]): tuple(row[3:]) for row in reader.select(query).rows}
    boxes = {
        (record.annotation_id, entity.ordinal, number): box
        for record in all_records(reader, Search())
        for entity in record.entities
        for number, box in enumerate(entity.boxes)
    }
    assert len(boxes) == len(view) == 10
    for key, box in boxes.items():
        expected = box.expected or (None,) * 4
        assert (*expected, *(getattr(box, name) for name in BELIEF)) == view[key]
        assert box.sigma == (None if box.evidence is None else (0.03125,) * 4)


def take(reader: Reader, tmp_path: Any, format_: str, job: str = "job") -> Any:
    path = tmp_path / f"{job}.{format_}"
    order = Order(search=Search(job=job), format=format_, out=path, options=Options(), only_found=False, force=False)
    export(reader, order, lambda uri: b"")
    return path


def test_exports_have_it_at_their_end(reader: Reader, tmp_path: Any) -> None:
    with take(reader, tmp_path, "csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    query = "SELECT * FROM groundings WHERE job = 'job' ORDER BY image_id, annotation_id, entity, box"
    view = reader.select(query)
    assert list(rows[0]) == list(view.columns)
    for row, record in zip(rows, view.records, strict=True):
        for name in ("expected_x1", "sigma_px1", "sigma_py2", *BELIEF):
            assert row[name] == str(record[name])
    lines = [json.loads(line) for line in take(reader, tmp_path, "jsonl").read_text().splitlines()]
    box = lines[0]["entities"][0]["boxes"][0]
    assert list(box)[-10:] == ["expected", "sigma", *BELIEF]
    assert (box["sigma"], box["doubts"]) == ([0.03125] * 4, "frame,twin")
    assert pyarrow.parquet.read_table(take(reader, tmp_path, "parquet")).to_pylist() == lines
    annotations = json.loads(take(reader, tmp_path, "coco").read_text())["annotations"]
    assert sorted({one["trust"] for one in annotations}) == [0.125, 0.25, 0.375, 0.5, 0.75]
    (old,) = json.loads(take(reader, tmp_path, "coco", "old").read_text())["annotations"]
    assert old["trust"] is None


def test_gallery_asks_for_it_and_shows_it(gallery: Gallery, reader: Reader) -> None:
    client = gallery()
    grid = client.get("/?min_trust=0.7").text
    assert "a trust of at least 0.7" in grid
    (card,) = set(re.findall(r'href="(/images/[^"]+)" data-card', grid))
    page = client.get(card.replace("&amp;", "&")).text
    assert ">Trust</th>" in page
    assert page.count('<td class="figure">0.75</td>') == 2
    assert "score 0.38, trust 0.75, " in page
    ((image,),) = reader.select("SELECT id FROM images WHERE uri = 's3://b/4'").rows
    assert ">Trust</th>" not in client.get(f"/images/{image}").text


def test_report_has_trust_beside_the_scores_where_there_is_any(reader: Reader) -> None:
    figures = figures_of(reader, "job")
    assert {place / 20: count for place, count in enumerate(figures.trust) if count} == {
        0.1: 1,
        0.25: 2,
        0.35: 2,
        0.5: 1,
        0.75: 2,
    }
    assert "Trust in boxes" in page_of(figures, [], 0.0, "")
    old = figures_of(reader, "old")
    assert (sum(old.trust), old.untrusted) == (0, 1)
    assert "Trust in boxes" not in page_of(old, [], 0.0, "")
