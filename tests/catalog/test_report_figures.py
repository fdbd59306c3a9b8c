"""The figures of a report are those that one counts by hand, on both databases."""

import math
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import text

from catalog.reader import Reader
from catalog.report.figures import GRID, figures_of
from catalog.report.page import page_of
from catalog.report.sample import sample_of
from schemas.database import Database
from schemas.errors import Code, UsageError
from schemas.ledger import jobs
from schemas.recipes import Recipe
from tests.catalog.conftest import Picture, Shelve, Thing

CAT_AND_MAT = [Thing("a cat", [(0.0, 0.0, 0.25, 0.5)], 0.5), Thing("the mat", [(0.5, 0.5, 1.0, 1.0)], 1.0)]
PICTURES = (
    Picture("s3://b/1", CAT_AND_MAT, content="same"),
    Picture("s3://b/2", CAT_AND_MAT, content="same"),
    Picture("s3://b/3", [Thing("a cat", [(0.0, 0.0, 1.0, 1.0), (0.25, 0.25, 0.75, 0.75)], None)]),
    Picture("s3://b/4", [Thing("a tall hat", [], 0.25)]),
    Picture("s3://b/5", [Thing("a dog", [(0.5, 0.5, 0.25, 0.25)], 0.75, valid=False)]),
    Picture("s3://b/6", code=Code.TRUNCATED),
    Picture("s3://b/7", code=Code.TRUNCATED),
    Picture("s3://b/8", code=Code.TOO_LARGE),
)


def at(place: int, count: int, length: int) -> list[int]:
    return [count if number == place else 0 for number in range(length)]


def added(*some: list[int]) -> list[int]:
    return [sum(column) for column in zip(*some, strict=True)]


@pytest.fixture
def archive(shelve: Shelve) -> None:
    shelve("other", Picture("s3://b/9", [Thing("a cat")] * 3), Picture("s3://b/6", code=Code.TIMEOUT))
    shelve("job", *PICTURES)


def test_job_and_its_counters(archive: None, reader: Reader) -> None:
    job = figures_of(reader, "job").job
    assert (job.name, job.state, job.sources) == ("job", "finished", [])
    assert (job.images, job.annotated, job.reused, job.failed, job.pending) == (8, 4, 1, 3, 0)
    (recipe,) = job.recipes
    assert (recipe.task, recipe.prompt, recipe.model, recipe.dtype) == ("brief", "<grounding>brief", "null", "float32")
    assert job.finished_at
    assert job.wall_s == pytest.approx(job.finished_at - job.started_at)


def test_failures_by_code_with_examples(archive: None, reader: Reader) -> None:
    first, second = figures_of(reader, "job").failures
    assert (first.code, first.count, second.code, second.count) == ("truncated", 2, "too_large", 1)
    assert first.examples == [("s3://b/6", "truncated it is"), ("s3://b/7", "truncated it is")]


def test_examples_are_three_and_failures_all(shelve: Shelve, reader: Reader) -> None:
    shelve("job", *(Picture(f"s3://b/{number}", code=Code.TRUNCATED) for number in range(9)))
    (failed,) = figures_of(reader, "job").failures
    assert (failed.count, len(failed.examples)) == (9, 3)


def test_failures_are_counted_by_outcome_and_their_examples_are_of_different_images(
    shelve: Shelve, reader: Reader
) -> None:
    shelve(
        "job", *(Picture(f"s3://b/{number}", code=Code.TRUNCATED) for number in range(3)), task=["brief", "detailed"]
    )
    figures = figures_of(reader, "job")
    (failed,) = figures.failures
    assert failed.count == 6
    assert '<th scope="col" class="n">failures</th>' in page_of(figures, [], 0.0, "")
    assert {uri for uri, _ in failed.examples} == {"s3://b/0", "s3://b/1", "s3://b/2"}


def test_captions_by_words_tokens_and_ends(archive: None, reader: Reader) -> None:
    captions = figures_of(reader, "job").captions
    assert captions.count == 5
    assert captions.words == {8: 2, 5: 2, 6: 1}
    assert (captions.tokens, captions.finish_reasons, captions.without_box) == ({7: 5}, {"stop": 5}, 1)


@pytest.mark.parametrize(
    ("caption", "words"), [("one", 1), ("  two   words ", 2), ("three\nmore\t\r\nwords", 3), (" ", 0), ("a < b > c", 5)]
)
def test_words_are_those_that_spaces_part(shelve: Shelve, reader: Reader, caption: str, words: int) -> None:
    shelve("job", Picture("s3://b/1", caption=caption))
    assert figures_of(reader, "job").captions.words == {words: 1} == {len(caption.split()): 1}


def test_phrases_heads_and_pairs_count_images(archive: None, reader: Reader) -> None:
    figures = figures_of(reader, "job")
    assert [(one.words, one.images, one.times) for one in figures.phrases] == [
        ("cat", 3, 3),
        ("mat", 2, 2),
        ("dog", 1, 1),
        ("tall hat", 1, 1),
    ]
    assert [one.words for one in figures.heads] == ["cat", "mat", "dog", "hat"]
    (pair,) = figures.pairs
    assert (pair.one, pair.other, pair.images, figures.together) == ("cat", "mat", 2, 2)
    assert pair.pmi == pytest.approx(math.log2(2 / 5 / (3 / 5 * 2 / 5)))
    in_view = "SELECT pmi FROM cooccurrences WHERE job = 'job' AND phrase_norm = 'cat' AND other_norm = 'mat'"
    assert float(reader.select(in_view).rows[0][0]) == pytest.approx(pair.pmi)


def test_boxes_by_score_area_and_place(archive: None, reader: Reader) -> None:
    figures = figures_of(reader, "job")
    boxes = figures.boxes
    assert (boxes.valid, boxes.invalid, boxes.unscored) == (6, 1, 2)
    assert boxes.scores == added(at(10, 2, 20), at(19, 2, 20))
    assert boxes.areas == added(at(7, 2, 10), at(8, 3, 10), at(9, 1, 10))
    assert figures.phrase_scores == added(at(5, 1, 20), at(10, 2, 20), at(15, 1, 20), at(19, 2, 20))
    assert figures.unscored_phrases == 1
    heat = figures.heat
    assert [heat[0][0], heat[15][7], heat[16][7], heat[16][8], heat[16][16], heat[0][31], heat[31][31]] == [
        3,
        3,
        1,
        2,
        4,
        1,
        3,
    ]
    assert sum(map(sum, heat)) == 2 * 8 * 16 + 2 * 16 * 16 + 32 * 32 + 16 * 16


def test_box_between_centres_of_cells_lies_on_both_cells(shelve: Shelve, reader: Reader) -> None:
    shelve("job", Picture("s3://b/1", [Thing("a cat", [(2.5 / 32, 4.5 / 32, 4.5 / 32, 5.5 / 32)])]))
    heat = figures_of(reader, "job").heat
    on = {(x, y) for y in range(GRID) for x in range(GRID) if heat[y][x]}
    assert on == {(x, y) for x in (2, 3, 4) for y in (4, 5)}


def test_rate_is_by_when_outcomes_were_settled(archive: None, reader: Reader, database: Database) -> None:
    with database.write() as connection:
        number = "(SELECT CAST(SUBSTR(i.uri, 8) AS INTEGER) FROM images i WHERE i.id = image_id)"
        connection.execute(text(f"UPDATE outcomes SET settled_at = 1767276000 + 40 * {number}"))
    rate = figures_of(reader, "job").rate
    assert (rate.origin, rate.width_s) == (1767276040, 5)  # of 1 to 8: 280 seconds, in less than 60 steps
    failed = {place for place, counts in rate.bins.items() if counts[2]}
    assert (set(rate.bins), failed) == (set(range(0, 57, 8)), {40, 48, 56})
    assert [sum(column) for column in zip(*rate.bins.values(), strict=True)] == [4, 1, 3]


def empty(database: Database, shelve: Shelve) -> None:
    recipe = Recipe(task="brief", prompt="p", model="demo", revision="r", dtype="float32")
    jobs.open_job(database, "job", [recipe], listing='{"sources": ["s3://b/"]}')


def all_failed(database: Database, shelve: Shelve) -> None:
    shelve("job", Picture("s3://b/1", code=Code.TIMEOUT), Picture("s3://b/2", code=Code.TIMEOUT))


def no_boxes(database: Database, shelve: Shelve) -> None:
    shelve("job", Picture("s3://b/1", [Thing("a cat", [])]), Picture("s3://b/2"))


def no_scores(database: Database, shelve: Shelve) -> None:
    shelve("job", Picture("s3://b/1", [Thing("a cat", score=None)]), Picture("s3://b/2", [Thing("", score=None)]))


def one_image(database: Database, shelve: Shelve) -> None:
    shelve("job", Picture("s3://b/1", [Thing("a cat")]))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (empty, {"annotated": 0, "codes": [], "valid": 0, "scored": 0, "phrases": 0, "sample": 0}),
        (all_failed, {"annotated": 0, "codes": ["timeout"], "valid": 0, "scored": 0, "phrases": 0, "sample": 0}),
        (no_boxes, {"annotated": 2, "codes": [], "valid": 0, "scored": 0, "phrases": 1, "sample": 2}),
        (no_scores, {"annotated": 2, "codes": [], "valid": 2, "scored": 0, "phrases": 1, "sample": 2}),
        (one_image, {"annotated": 1, "codes": [], "valid": 1, "scored": 1, "phrases": 1, "sample": 1}),
    ],
)
def test_small_and_odd_jobs_have_a_page_too(
    database: Database, reader: Reader, shelve: Shelve, make: Any, expected: dict[str, Any]
) -> None:
    make(database, shelve)
    figures = figures_of(reader, "job")
    assert {
        "annotated": figures.annotated_images,
        "codes": [one.code for one in figures.failures],
        "valid": figures.boxes.valid,
        "scored": sum(figures.boxes.scores),
        "phrases": len(figures.phrases),
        "sample": len(sample_of(reader, "job", 12)),
    } == expected
    page = page_of(figures, [], 1767275990.0, "")
    assert page.count("<h2") == 4
    assert ("Nothing has failed" in page) == (not expected["codes"])


def test_superseded_versions_and_other_jobs_do_not_count(archive: None, reader: Reader, database: Database) -> None:
    with database.write() as connection:
        hidden = "SELECT o.image_id FROM outcomes o JOIN images i ON i.id = o.image_id WHERE i.uri = 's3://b/3'"
        connection.execute(text(f"UPDATE outcomes SET superseded = true WHERE image_id IN ({hidden})"))
    figures = figures_of(reader, "job")
    assert (figures.annotated_images, figures.captions.count, figures.boxes.valid) == (4, 4, 4)


def test_sample_is_spread_over_the_job_and_takes_each_image_once(shelve: Shelve, reader: Reader) -> None:
    shelve("job", *(Picture(f"s3://b/{number:03}", [Thing("a cat")]) for number in range(100)))
    some = [record.image_id for record in sample_of(reader, "job", 10)]
    assert len(set(some)) == 10
    assert some == sorted(some)
    assert max(later - earlier for earlier, later in pairwise(some)) <= 11
    assert len(sample_of(reader, "job", 100)) == 100
    assert sample_of(reader, "job", 0) == []


def test_sample_is_filled_up_where_ids_have_gaps(shelve: Shelve, reader: Reader, database: Database) -> None:
    shelve("job", *(Picture(f"s3://b/{number:03}", [Thing("a cat")]) for number in range(20)))
    with database.write() as connection:
        far = text("INSERT INTO images (id, \"key\", uri, version) VALUES (1000000, :key, 's3://b/far', 'v')")
        connection.execute(far, {"key": b"far"})
        newest = "(SELECT MAX(image_id) FROM outcomes)"
        connection.execute(text(f"UPDATE outcomes SET image_id = 1000000 WHERE image_id = {newest}"))
    some = [record.image_id for record in sample_of(reader, "job", 12)]
    assert len(set(some)) == 12
    assert some == sorted(some)
    assert some[-1] == 1_000_000
    assert len(sample_of(reader, "job", 99)) == 20


def test_unknown_job_is_told_with_those_there_are(archive: None, reader: Reader) -> None:
    with pytest.raises(UsageError, match="there is no job 'jab'; the latest are job, other"):
        figures_of(reader, "jab")
