"""The public views: their names and columns are a promise, and both databases give the same answers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from schemas.database import Database
from schemas.errors import Code
from schemas.grounding import Box, Entity, Grounding
from schemas.items import Item
from schemas.ledger import jobs, retries
from schemas.results import Annotation, Content, EntityScores, Settled

COLUMNS = {
    "captions": "job image_id annotation_id uri task prompt caption raw_text finish_reason tokens mean_logprob width "
    "height sha256 model model_revision reused created_at score input absent_phrase yes_bias absent_score",
    "groundings": "job image_id annotation_id uri task caption entity phrase phrase_norm span_start span_end box "
    "x1 y1 x2 y2 px1 py1 px2 py2 area score valid phrase_score head "
    "expected_x1 expected_y1 expected_x2 expected_y2 sigma_px1 sigma_py1 sigma_px2 sigma_py2 "
    "presence agreement mirror_agreement naming plausibility doubts evidence trust",
    "failures": "job image_id uri task code message tries failed_at input",
    "progress": "job state images recipes annotated reused failed pending started_at finished_at images_per_s",
    "relations": "job image_id annotation_id uri task entity box phrase phrase_norm head score area "
    "other_entity other_box other_phrase other_norm other_head other_score other_area "
    "left_of right_of above below inside overlaps near iou",
    "cooccurrences": "job phrase_norm other_norm images phrase_images other_images pmi",
}


def settle_one(
    ledger: Any, grounding: Grounding, *, width: int = 640, height: int = 480, name: str = "job"
) -> jobs.Job:
    """A job with one image, annotated so."""
    job = ledger.job_of(Item(f"file:///{name}.jpg", "1"), name=name)
    claim = ledger.one_claim()
    scores = [EntityScores(0.75, [0.5 for _ in entity.boxes]) for entity in grounding.entities]
    said = Annotation(f"<grounding>{grounding.caption}", grounding, scores, "stop", 7, -0.25, "cpu")
    content = Content(f"content of {name}", width, height, "JPEG", 9)
    assert ledger.complete(claim, Settled(claim.items[0], "1", content, dict.fromkeys(claim.recipes, said)))
    return job


@pytest.mark.parametrize("view", COLUMNS)
def test_a_view_has_exactly_the_columns_of_the_design_in_order(database: Database, view: str) -> None:
    with database.read() as connection:
        assert list(connection.execute(text(f"SELECT * FROM {view}")).keys()) == COLUMNS[view].split()


def test_a_caption_says_what_was_made_of_what_by_what(ledger: Any) -> None:
    settle_one(ledger, Grounding("An image of a cat", ()))
    (row,) = ledger.sql("SELECT * FROM captions")
    expected = {
        "job": "job",
        "uri": "file:///job.jpg",
        "task": "brief",
        "prompt": "<grounding>brief",
        "caption": "An image of a cat",
        "raw_text": "<grounding>An image of a cat",
        "finish_reason": "stop",
        "tokens": 7,
        "mean_logprob": -0.25,
        "width": 640,
        "height": 480,
        "sha256": "content of job",
        "model": "null",
        "model_revision": "r",
        "reused": False,
    }
    assert {name: row[name] for name in expected} == expected


def test_a_grounding_is_a_row_for_each_box(ledger: Any) -> None:
    boxes = (Box(0.25, 0.5, 0.75, 1.0, 0, 0, -4, True), Box(0.75, 0.5, 0.25, 1.0, 0, 0, -2, False))
    cat, mat = Entity("The  Cat", 0, 8, boxes), Entity("mat", 12, 15, ())
    settle_one(ledger, Grounding("The  Cat on a mat", (cat, mat)))
    rows = ledger.sql("SELECT * FROM groundings ORDER BY entity, box")
    assert [(row["entity"], row["box"]) for row in rows] == [(0, 0), (0, 1)]
    first = {name: rows[0][name] for name in COLUMNS["groundings"].split()[5:25]}
    assert first == {
        "caption": "The  Cat on a mat",
        "entity": 0,
        "phrase": "The  Cat",
        "phrase_norm": "cat",
        "span_start": 0,
        "span_end": 8,
        "box": 0,
        "x1": 0.25,
        "y1": 0.5,
        "x2": 0.75,
        "y2": 1.0,
        "px1": 160,
        "py1": 240,
        "px2": 480,
        "py2": 480,
        "area": 0.25,
        "score": 0.5,
        "valid": True,
        "phrase_score": 0.75,
        "head": "cat",
    }
    assert (rows[1]["valid"], rows[1]["area"]) == (False, 0.0)


def test_trust_is_the_evidence_through_the_calibration_of_the_model_and_task(ledger: Any, database: Database) -> None:
    """Piecewise linear from knot to knot, at once, and of no other model or way of verifying."""
    boxes = tuple(Box(0.25, 0.5, 0.75, 1.0, 0, 0, -2, True) for _ in range(4))
    settle_one(ledger, Grounding("a cat", (Entity("a cat", 0, 5, boxes),)))
    with database.write() as connection:
        for ordinal, evidence in enumerate((0.25, 0.5, 0.75)):
            given = {"evidence": evidence, "ordinal": ordinal}
            connection.execute(text("UPDATE boxes SET evidence = :evidence WHERE ordinal = :ordinal"), given)
    asked = "SELECT trust FROM groundings ORDER BY box"
    assert [row["trust"] for row in ledger.sql(asked)] == [0.25, 0.5, 0.75, None]
    with database.write() as connection:
        for number, verify in enumerate(("", "mirror"), start=1):
            connection.execute(
                text("INSERT INTO calibrations VALUES (:id, 'null', 'r', 'brief', :verify, 't', '{}', 0)"),
                {"id": number, "verify": verify},
            )
        knots = text("INSERT INTO calibration_knots VALUES (:id, :evidence, :trust, :slope)")
        for evidence, value, slope in ((0.0, 0.0, 0.2), (0.5, 0.1, 2.0), (0.75, 0.9, 0.0)):
            connection.execute(knots, {"id": 1, "evidence": evidence, "trust": value, "slope": slope})
        connection.execute(knots, {"id": 2, "evidence": 0.0, "trust": 1.0, "slope": 0.0})
    assert [row["trust"] for row in ledger.sql(asked)] == pytest.approx([0.05, 0.1, 0.9, None])


@pytest.mark.parametrize(("width", "height"), [(32, 96), (33, 1), (17, 5000)])
def test_pixels_are_the_nearest_with_halves_up(ledger: Any, width: int, height: int) -> None:
    corners = [(cell + 0.5) / 32 for cell in range(0, 32, 3)]
    boxes = tuple(Box(at, at, 1.0, 1.0, 0, 0, -2, True) for at in corners)
    settle_one(ledger, Grounding("a", (Entity("a", 0, 1, boxes),)), width=width, height=height)
    rows = ledger.sql("SELECT px1, py1, px2, py2 FROM groundings ORDER BY box")
    assert [(row["px1"], row["py1"]) for row in rows] == [
        (int(at * width + 0.5), int(at * height + 0.5)) for at in corners
    ]
    assert {(row["px2"], row["py2"]) for row in rows} == {(width, height)}


def test_a_reused_annotation_shows_under_each_image_that_has_it(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(2))
    claim = ledger.one_claim()
    ledger.complete(claim, *(ledger.annotated(claim, item, sha256="same") for item in claim.items))
    assert [row["reused"] for row in ledger.sql("SELECT reused FROM captions ORDER BY uri")] == [False, True]
    assert [row["uri"] for row in ledger.sql("SELECT uri FROM groundings ORDER BY uri")] == [i.uri for i in items(2)]


def test_superseded_versions_are_in_no_view(ledger: Any) -> None:
    ledger.job_of(Item("s3://b/a", "1"))
    ledger.drain()
    ledger.add(ledger.open(), Item("s3://b/a", "2"))
    claim = ledger.one_claim()
    ledger.complete(claim, ledger.failed(claim, claim.items[0]))
    assert [len(ledger.sql(f"SELECT * FROM {view}")) for view in ("captions", "groundings", "failures")] == [0, 0, 1]
    ledger.add(ledger.open(), Item("s3://b/a", "3"))
    ledger.drain()
    assert [len(ledger.sql(f"SELECT * FROM {view}")) for view in ("captions", "groundings", "failures")] == [1, 1, 0]


def test_a_failure_that_is_being_retried_is_pending_and_no_failure(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(1))
    claim = ledger.one_claim()
    ledger.complete(claim, ledger.failed(claim, claim.items[0], Code.TIMEOUT))
    retries.retry_failed(ledger.database, job)
    assert ledger.sql("SELECT * FROM failures") == []
    assert ledger.sql("SELECT failed, pending FROM progress") == [{"failed": 0, "pending": 1}]


def test_progress_counts_in_outcomes_except_images(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(3), recipes=[ledger.recipe("brief"), ledger.recipe("detailed")], chunk_size=1)
    first, second, _ = ledger.claims()
    ledger.annotate_all(first)
    ledger.complete(second, ledger.failed(second, second.items[0]))
    (row,) = ledger.sql("SELECT * FROM progress")
    expected = {"state": "running", "images": 3, "recipes": 2, "annotated": 2, "reused": 0, "failed": 2, "pending": 2}
    assert {name: row[name] for name in expected} == expected
    assert row["images_per_s"] > 0
    assert row["finished_at"] is None


def test_progress_of_an_empty_job_is_zeros(ledger: Any) -> None:
    ledger.job_of()
    jobs.finish_jobs(ledger.database)
    (row,) = ledger.sql("SELECT state, images, pending, images_per_s FROM progress")
    assert row == {"state": "finished", "images": 0, "pending": 0, "images_per_s": 0}


def test_times_are_times_in_utc(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(2))
    claim = ledger.one_claim()
    good, bad = claim.items
    ledger.complete(claim, ledger.annotated(claim, good), ledger.failed(claim, bad))
    jobs.finish_jobs(ledger.database)
    now = datetime.now(UTC)
    for view, column in [
        ("captions", "created_at"),
        ("failures", "failed_at"),
        ("progress", "started_at"),
        ("progress", "finished_at"),
    ]:
        (row,) = ledger.sql(f"SELECT {column} FROM {view}")
        at = row[column]
        if isinstance(at, str):
            at = datetime.fromisoformat(at).replace(tzinfo=UTC)
        assert abs(now - at) < timedelta(seconds=60)


GOLDEN = [
    {"uri": "file:///photos/0000.jpg", "entity": 0, "phrase_norm": "cat", "px1": 160, "py2": 480, "area": 0.25},
    {"uri": "file:///photos/0002.jpg", "entity": 0, "phrase_norm": "cat", "px1": 160, "py2": 480, "area": 0.25},
]


def test_a_query_that_joins_views_has_the_same_answer_on_both_databases(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(3))
    claim = ledger.one_claim()
    first, second, third = claim.items
    ledger.complete(claim, ledger.annotated(claim, first), ledger.failed(claim, second), ledger.annotated(claim, third))
    rows = ledger.sql(
        "SELECT g.uri, g.entity, g.phrase_norm, g.px1, g.py2, g.area FROM groundings g JOIN captions c "
        "ON c.image_id = g.image_id AND c.annotation_id = g.annotation_id WHERE NOT c.reused AND g.valid ORDER BY g.uri"
    )
    assert rows == GOLDEN


RELATIONS = ("left_of", "right_of", "above", "below", "inside", "overlaps", "near")
MIDDLE = (0.375, 0.375, 0.625, 0.625)
LYING: dict[str, tuple[tuple[float, float, float, float], str, str, float]] = {
    "far left": ((0.0, 0.375, 0.25, 0.625), "left_of", "right_of", 0),
    "left and near": ((0.0625, 0.375, 0.3125, 0.625), "left_of near", "right_of near", 0),
    "far below": ((0.375, 0.75, 0.625, 1.0), "below", "above", 0),
    "above, sharing an edge": ((0.375, 0.125, 0.625, 0.375), "above near", "below near", 0),
    "left, the borders across": (
        (0.1875, 0.375, 0.4375, 0.625),
        "left_of overlaps near",
        "right_of overlaps near",
        1 / 7,
    ),
    "shifted by half": ((0.5, 0.5, 0.75, 0.75), "overlaps near", "overlaps near", 1 / 7),
    "within": ((0.4375, 0.4375, 0.5625, 0.5625), "inside overlaps near", "overlaps near", 0.25),
    "within, by a cell over": ((0.34375, 0.5, 0.5, 0.625), "inside overlaps near", "overlaps near", 0.25 / 1.0625),
    "the same": (MIDDLE, "overlaps near", "overlaps near", 1),
    "far in a corner": ((0.0, 0.0, 0.125, 0.125), "left_of above", "right_of below", 0),
    "without ground": ((0.5, 0.5, 0.5, 0.5), "inside overlaps near", "overlaps near", 0),
}


@pytest.mark.parametrize("lying", LYING)
def test_relations_are_those_that_a_person_would_name(ledger: Any, lying: str) -> None:
    corners, one_way, other_way, iou = LYING[lying]
    a, b = (Box(*some, 0, 0, -2, True) for some in (corners, MIDDLE))
    settle_one(ledger, Grounding("a b", (Entity("the a", 0, 1, (a,)), Entity("big b", 2, 3, (b,)))))
    there, back = ledger.sql("SELECT * FROM relations ORDER BY entity")
    assert [name for name in RELATIONS if there[name]] == sorted(one_way.split(), key=RELATIONS.index)
    assert [name for name in RELATIONS if back[name]] == sorted(other_way.split(), key=RELATIONS.index)
    assert there["iou"] == back["iou"] == pytest.approx(iou)
    assert (there["phrase"], there["phrase_norm"], there["head"]) == ("the a", "a", "a")
    assert (there["other_phrase"], there["other_norm"], there["other_head"]) == ("big b", "big b", "b")
    assert (there["score"], there["other_area"], there["other_box"]) == (0.5, 0.0625, 0)


def test_two_boxes_of_one_phrase_lie_to_one_another_and_none_to_itself(ledger: Any) -> None:
    boxes = tuple(Box(*some, 0, 0, -2, True) for some in ((0.0, 0.0, 0.25, 0.25), (0.75, 0.0, 1.0, 0.25)))
    inverted = Box(0.75, 0.5, 0.25, 1.0, 0, 0, -2, False)
    settle_one(ledger, Grounding("two cats", (Entity("two cats", 0, 8, (*boxes, inverted)),)))
    rows = ledger.sql("SELECT box, other_box, left_of, right_of FROM relations ORDER BY box, other_box")
    assert [tuple(row.values()) for row in rows] == [(0, 1, True, False), (1, 0, False, True)]


def test_pmi_is_that_of_pictures_and_by_hand(ledger: Any, items: Any) -> None:
    said = ["a cat on a mat", "the cat on the mat", "a cat and a cat", "a mat", "a hat", "a hat", "a bat", ""]
    job = ledger.job_of(*items(len(said)))
    claim = ledger.one_claim()
    done = []
    for words, item in zip(said, claim.items, strict=True):
        phrases = [f"a {word}" for word in words.split() if word.endswith("at")]
        entities = tuple(Entity(phrase, 0, 1, ()) for phrase in phrases)
        annotation = Annotation(
            words, Grounding(words, entities), [EntityScores(None, []) for _ in entities], "stop", 7, None, "cpu"
        )
        done.append(Settled(item, "1", ledger.content(item.uri), dict.fromkeys(claim.recipes, annotation)))
    assert ledger.complete(claim, *done)
    assert ledger.now(job).annotated == len(said)
    rows = ledger.sql("SELECT * FROM cooccurrences ORDER BY phrase_norm")
    assert [tuple(row.values())[:-1] for row in rows] == [
        ("job", "cat", "mat", 2, 3, 3),
        ("job", "mat", "cat", 2, 3, 3),
    ]
    # log2 of 2/8 over 3/8 × 3/8
    assert [float(row["pmi"]) for row in rows] == pytest.approx([0.8300749986] * 2)


def test_cooccurrences_are_counted_in_each_job_and_in_images_and_not_in_annotations(ledger: Any, items: Any) -> None:
    pair = Grounding("a cat on a mat", (Entity("a cat", 0, 5, ()), Entity("a mat", 9, 14, ())))
    ledger.job_of(*items(2))
    claim = ledger.one_claim()
    said = Annotation("raw", pair, [EntityScores(None, []), EntityScores(None, [])], "stop", 7, None, "cpu")
    same = [Settled(item, "1", ledger.content("same"), dict.fromkeys(claim.recipes, said)) for item in claim.items]
    ledger.complete(claim, *same)
    settle_one(ledger, pair, name="other")
    rows = ledger.sql(
        "SELECT job, images, phrase_images, other_images, pmi FROM cooccurrences WHERE phrase_norm = 'cat'"
    )
    assert sorted(tuple(row.values()) for row in rows) == [("job", 2, 2, 2, 0), ("other", 1, 1, 1, 0)]
