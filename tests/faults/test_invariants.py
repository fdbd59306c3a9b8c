"""The invariants are broken one by one, to see that each is noticed, and named with its image."""

import pytest

from schemas.database import Database
from schemas.items import Item
from tests.faults.invariants import assert_sound, violations
from tests.schemas.conftest import Ledger

URIS = [f"file:///photos/{number}.jpg" for number in range(6)]
OTHER_VERSION = (
    "INSERT INTO images (key, uri, version, content_id) SELECT :key, uri, '2', content_id FROM images WHERE id = 1"
)
DOUBLED = (
    "INSERT INTO outcomes (job_id, image_id, recipe_id, annotation_id, settled_at) "
    "SELECT o.job_id, i.id, o.recipe_id, o.annotation_id, 0 FROM outcomes o, images i "
    "WHERE o.image_id = 1 AND i.version = '2'"
)

ON_ONE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""The questions are the same on both; that PostgreSQL understands them is seen where nothing is broken."""


@pytest.fixture
def done(database: Database) -> Ledger:
    """A finished job of six images in three chunks."""
    ledger = Ledger(database)
    ledger.job_of(*(Item(uri, "1", 1000) for uri in URIS), chunk_size=2)
    assert ledger.drain() == ["job"]
    return ledger


def test_job_that_nothing_befell_is_sound(done: Ledger) -> None:
    assert_sound(done.database, URIS)


@ON_ONE
@pytest.mark.parametrize(
    ("harm", "kind", "words"),
    [
        ("DELETE FROM outcomes WHERE image_id = 1", "lost", "1 have no outcome: file:///photos/"),
        ("UPDATE chunks SET state = 'running' WHERE id = 1", "leased", "chunk 1 of 2 images is running"),
        ("UPDATE chunks SET lease_until = 5 WHERE id = 1", "leased", "is done, held by None until 5"),
        ("UPDATE jobs SET annotated = 7", "other", "the job counts 7 as annotated, and there are 6"),
        ("UPDATE jobs SET images = 7", "other", "the job counts 7 as images, and there are 6"),
        ("UPDATE jobs SET state = 'paused', reason = 'by hand'", "other", "the job is paused: by hand"),
        ("UPDATE outcomes SET retrying = true WHERE image_id = 1", "other", "1 still wait for a retry: file:///"),
        ("DELETE FROM boxes WHERE annotation_id = 1", "other", "1 have not just one row in boxes: file:///"),
        (
            "UPDATE outcomes SET code = 'crashed_worker', message = 'it died', annotation_id = NULL WHERE image_id < 6",
            "other",
            "5 failed as crashed_worker (it died): file:///photos/0.jpg, file:///photos/1.jpg, file:///photos/2.jpg"
            " and 2 more",
        ),
    ],
)  # fmt: skip
def test_broken_promise_is_named_with_its_images(done: Ledger, harm: str, kind: str, words: str) -> None:
    done.change(harm)
    found = violations(done.database, URIS)
    assert any(one.kind == kind and words in one.text for one in found), found
    with pytest.raises(AssertionError, match=kind):
        assert_sound(done.database, URIS)


@ON_ONE
def test_second_version_that_stands_beside_the_first_is_doubled(done: Ledger) -> None:
    done.change(OTHER_VERSION, key=b"k" * 16)
    done.change(DOUBLED)
    assert "1 have several outcomes" in {one.kind: one.text for one in violations(done.database, URIS)}["doubled"]


def test_failure_is_sound_where_it_is_expected_and_only_there(database: Database) -> None:
    ledger = Ledger(database)
    ledger.job_of(Item(URIS[0], "1", 1000))
    claim = ledger.one_claim()
    ledger.complete(claim, ledger.failed(claim, claim.items[0]))
    ledger.drain()
    assert_sound(database, URIS[:1], codes=["truncated"])
    assert_sound(database, URIS[:1], failing={URIS[0]: "truncated"})
    assert violations(database, URIS[:1])
    assert violations(database, URIS[:1], failing={URIS[0]: "timeout"})


@ON_ONE
def test_image_that_must_fail_and_does_not_is_noticed(done: Ledger) -> None:
    (found,) = violations(done.database, URIS, failing={URIS[0]: "not_an_image"})
    assert found.text == f"1 should have failed: {URIS[0]}"
