"""From a listing to chunks: what is new, what is reused, what is known, and where a listing goes on."""

from typing import Any

import pytest

from schemas.errors import Code
from schemas.items import Item, image_key, pack_items, unpack_items
from schemas.ledger import listing
from schemas.ledger.listing import Registered, WaitingItems

HOSTILE = [
    "file:///a%20b%0A%23%25.jpg",
    "s3://bucket/with space+%41?x=1#y.jpg",
    "s3://bucket/back\\slash'quote\"double;drop table jobs;--.jpg",
    "s3://bucket/caf\u00e9.jpg",
    "s3://bucket/cafe\u0301.jpg",
    "s3://bucket/\U0001f600\u202e.jpg",
    "s3://bucket/line\nbreak\ttab\x01.jpg",
    "s3://bucket/" + "x" * 4000,
    "s3://bucket/" + "\u00e9" * 2000,
    "s3://bucket/%(name)s{0}:name?.jpg",
]
UNSTORABLE = ["s3://bucket/nul\0.jpg", "s3://bucket/half\ud800.jpg"]


def test_items_go_into_chunks_with_the_cursor_beside_them(ledger: Any, items: Any) -> None:
    job = ledger.open()
    registered = ledger.add(job, *items(5), chunk_size=2, end=False, skipped=3)
    assert registered == Registered(new=5, reused=0, known=0)
    assert [row["size"] for row in ledger.sql("SELECT size FROM chunks ORDER BY id")] == [2, 2, 1]
    now = ledger.now(job)
    assert (now.images, now.pending, now.cursor, now.skipped) == (5, 5, "here", 3)


def test_a_chunk_holds_its_items_as_they_were_listed(ledger: Any) -> None:
    listed = [Item("file:///a.jpg", "17:5", 5), Item("s3://b/c", "", None)]
    ledger.job_of(*listed)
    assert ledger.one_claim().items == listed


@pytest.mark.parametrize("uri", HOSTILE)
def test_hostile_uris_come_back_as_they_went_in(ledger: Any, uri: str) -> None:
    job = ledger.job_of(Item(uri, "1"))
    claim = ledger.one_claim()
    assert claim.items == [Item(uri, "1")]
    assert ledger.annotate_all(claim)
    assert ledger.sql("SELECT uri FROM captions") == [{"uri": uri}]
    again = ledger.open()
    assert ledger.add(again, Item(uri, "1")) == Registered(new=0, reused=0, known=1)
    assert ledger.add(ledger.open("unversioned"), Item(uri)) == Registered(new=0, reused=1, known=0)
    assert ledger.counters(job) == (1, 1, 0, 0, 0)


@pytest.mark.parametrize("uri", UNSTORABLE)
def test_a_uri_that_no_database_takes_does_not_fail_its_chunk(ledger: Any, uri: str) -> None:
    job = ledger.job_of(Item(uri, "1"), Item("s3://bucket/neighbour.jpg", "1"))
    assert ledger.annotate_all(ledger.one_claim())
    assert ledger.counters(job) == (2, 2, 0, 0, 0)


def test_names_that_differ_only_in_normal_form_are_two_images(ledger: Any) -> None:
    ledger.job_of(Item("s3://b/caf\u00e9", "1"), Item("s3://b/cafe\u0301", "1"))
    assert ledger.annotate_all(ledger.one_claim())
    assert ledger.sql("SELECT COUNT(*) AS n FROM images") == [{"n": 2}]


def test_a_listed_version_that_is_annotated_is_settled_with_the_listing(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(3), name="first")
    ledger.drain()
    job = ledger.open("second")
    assert ledger.add(job, *items(4)) == Registered(new=1, reused=3, known=0)
    assert ledger.counters(job) == (4, 0, 3, 0, 1)
    assert ledger.one_claim().items == items(1, start=3)


def test_an_image_that_is_known_for_some_recipes_only_goes_into_a_chunk(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1), name="brief", recipes=[ledger.recipe("brief")])
    ledger.drain()
    both = ledger.open("both", ledger.recipe("brief"), ledger.recipe("detailed"))
    assert ledger.add(both, *items(1)) == Registered(new=1, reused=0, known=0)
    assert len(ledger.one_claim().recipes) == 2


def test_without_a_version_the_newest_known_image_of_the_uri_counts(ledger: Any) -> None:
    ledger.job_of(Item("s3://b/a", "1"), name="first")
    ledger.drain()
    ledger.job_of(Item("s3://b/a", "2"), name="newer")
    ledger.drain()
    job = ledger.open("manifest")
    assert ledger.add(job, Item("s3://b/a")) == Registered(new=0, reused=1, known=0)
    assert ledger.sql("SELECT sha256 FROM captions WHERE job = 'manifest'") == [{"sha256": "s3://b/a#2"}]


def test_recheck_reads_again_what_has_no_version(ledger: Any) -> None:
    ledger.job_of(Item("s3://b/a", "1"), Item("s3://b/b", "1"), name="first")
    ledger.drain()
    job = ledger.open("manifest")
    registered = ledger.add(job, Item("s3://b/a"), Item("s3://b/b", "1"), recheck=True)
    assert registered == Registered(new=1, reused=1, known=0)


def test_a_failed_version_is_not_tried_again_by_the_same_job(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(1))
    claim = ledger.one_claim()
    ledger.complete(claim, ledger.failed(claim, claim.items[0]))
    assert ledger.add(ledger.open(), *items(1)) == Registered(new=0, reused=0, known=1)
    assert ledger.counters(job) == (1, 0, 0, 1, 0)


def test_an_image_that_could_not_be_read_is_tried_by_another_job(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1), name="first")
    claim = ledger.one_claim()
    ledger.complete(claim, ledger.failed(claim, claim.items[0]))
    assert ledger.add(ledger.open("second"), *items(1)).new == 1


def test_without_a_version_a_failed_uri_is_left_alone_as_well(ledger: Any) -> None:
    ledger.job_of(Item("s3://b/a"))
    claim = ledger.one_claim()
    ledger.complete(claim, ledger.failed(claim, claim.items[0], Code.NOT_FOUND))
    assert ledger.add(ledger.open(), Item("s3://b/a")).known == 1


def test_the_same_command_again_lists_new_images_only(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(3))
    assert ledger.drain() == ["job"]
    job = ledger.open()
    assert ledger.add(job, *items(5)) == Registered(new=2, reused=0, known=3)
    assert ledger.drain() == ["job"]
    assert ledger.counters(job) == (5, 5, 0, 0, 0)


def test_the_same_command_again_leaves_alone_what_still_waits(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(3), chunk_size=1)
    assert ledger.annotate_all(ledger.claims()[0])
    job = ledger.open()
    waiting = listing.waiting_items(ledger.database, job)
    assert ledger.add(job, *items(4), waiting=waiting) == Registered(new=1, reused=0, known=3)


def test_a_uri_that_is_listed_twice_is_one_outcome_and_reused_the_second_time(ledger: Any, items: Any) -> None:
    job = ledger.open()
    ledger.add(job, *items(1), *items(1), chunk_size=1, end=False)
    for claim in ledger.claims():
        assert ledger.annotate_all(claim)
    assert ledger.add(job, *items(1)) == Registered(new=0, reused=1, known=0)
    assert ledger.counters(job) == (3, 1, 2, 0, 0)
    assert len(ledger.sql("SELECT * FROM captions")) == 1


def test_a_uri_twice_in_one_batch_of_annotated_images_is_one_outcome(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1), name="first")
    ledger.drain()
    job = ledger.open("second")
    assert ledger.add(job, *items(1), *items(1)) == Registered(new=0, reused=2, known=0)
    assert ledger.counters(job) == (2, 0, 2, 0, 0)


def test_a_changed_object_is_new_to_the_next_job_and_the_old_rows_stay(ledger: Any) -> None:
    ledger.job_of(Item("s3://b/a", "1"), name="first")
    ledger.drain()
    second = ledger.open("second")
    assert ledger.add(second, Item("s3://b/a", "2")).new == 1
    ledger.drain()
    rows = ledger.sql("SELECT job, sha256 FROM captions ORDER BY job")
    assert rows == [{"job": "first", "sha256": "s3://b/a#1"}, {"job": "second", "sha256": "s3://b/a#2"}]


def test_a_changed_object_takes_the_place_of_the_old_one_in_the_same_job(ledger: Any) -> None:
    job = ledger.job_of(Item("s3://b/a", "1"))
    ledger.drain()
    assert ledger.add(ledger.open(), Item("s3://b/a", "2")).new == 1
    ledger.drain()
    assert ledger.sql("SELECT sha256 FROM captions") == [{"sha256": "s3://b/a#2"}]
    assert ledger.counters(job) == (2, 1, 1, 0, 0)
    assert ledger.sql("SELECT COUNT(*) AS n FROM outcomes") == [{"n": 2}]


def test_an_object_that_is_put_back_to_what_it_was_is_shown_again(ledger: Any) -> None:
    job = ledger.job_of(Item("s3://b/a", "1"))
    ledger.drain()
    ledger.add(ledger.open(), Item("s3://b/a", "2"))
    ledger.drain()
    assert ledger.add(ledger.open(), Item("s3://b/a", "1")) == Registered(new=0, reused=1, known=0)
    assert ledger.sql("SELECT sha256 FROM captions") == [{"sha256": "s3://b/a#1"}]
    assert ledger.counters(job) == (3, 0, 3, 0, 0)
    assert ledger.add(ledger.open(), Item("s3://b/a")).known == 1


def test_a_listing_goes_on_from_its_cursor_without_counting_twice(ledger: Any, items: Any) -> None:
    ledger.add(ledger.open(), *items(2), end=False)
    job = ledger.open()
    ledger.add(job, *items(2, start=2))
    assert ledger.drain() == ["job"]
    assert ledger.counters(job) == (4, 4, 0, 0, 0)


def test_other_words_for_a_listing_that_was_cut_off_count_nothing_twice(ledger: Any, items: Any) -> None:
    ledger.add(ledger.open(listing="all"), *items(2), end=False)
    ledger.drain()
    job = ledger.open(listing="all, and hidden ones")
    assert ledger.add(job, *items(3), waiting=listing.waiting_items(ledger.database, job)).known == 2
    ledger.drain()
    assert ledger.counters(job) == (3, 3, 0, 0, 0)


def test_a_batch_that_fails_leaves_neither_items_nor_cursor(ledger: Any, items: Any) -> None:
    job = ledger.open()
    with pytest.raises(TypeError):
        ledger.add(job, *items(2), Item("s3://b/a", "1", {1}), end=False)  # no JSON has a set
    assert (ledger.now(job).images, ledger.now(job).cursor) == (0, None)
    assert ledger.sql("SELECT * FROM chunks") == []


def test_a_batch_whose_answer_was_lost_is_not_added_twice(ledger: Any, items: Any) -> None:
    job = ledger.open()
    ledger.add(job, *items(2), end=False)
    assert ledger.add(job, *items(2), end=False, again=True) == Registered(2, 0, 0)
    assert ledger.now(job).images == 2
    ledger.change("UPDATE jobs SET cursor = 'before'")
    ledger.add(job, *items(2, start=2), end=False, again=True)  # the one that never arrived
    assert ledger.now(job).images == 4


def test_an_empty_batch_moves_the_cursor(ledger: Any) -> None:
    job = ledger.open()
    assert ledger.add(job, end=False, skipped=7) == Registered(0, 0, 0)
    assert (ledger.now(job).cursor, ledger.now(job).skipped) == ("here", 7)


def test_a_large_batch_is_found_again_whole(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(2500), name="first", chunk_size=2500)
    ledger.drain()
    second = ledger.open("second")
    assert ledger.add(second, *items(2500)).reused == 2500
    unversioned = [Item(item.uri) for item in items(2500)]
    assert ledger.add(ledger.open("third"), *unversioned).reused == 2500


def test_waiting_items_are_those_of_unfinished_chunks(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(3), chunk_size=1)
    assert ledger.annotate_all(ledger.claims()[0])
    waiting = listing.waiting_items(ledger.database, job)
    assert [item in waiting for item in items(4)] == [False, True, True, False]


def test_waiting_items_take_eight_bytes_each() -> None:
    waiting = WaitingItems(Item(f"s3://bucket/{number}") for number in range(20_000))
    assert all(Item(f"s3://bucket/{number}") in waiting for number in range(0, 20_000, 97))
    assert Item("s3://bucket/20000") not in waiting
    assert sum(len(some) * some.itemsize for some in waiting._hashes.values()) == 8 * 20_000


@pytest.mark.parametrize("uri", HOSTILE + UNSTORABLE)
def test_packed_items_are_ascii_and_round_trip(uri: str) -> None:
    some = [Item(uri, 'W/"etag"', 7), Item(uri)]
    assert pack_items(some).isascii()
    assert "\0" not in pack_items(some)
    assert unpack_items(pack_items(some)) == some


def test_an_image_key_tells_uri_and_version_apart() -> None:
    keys = {image_key("a", "bc"), image_key("ab", "c"), image_key("abc", ""), image_key("", "abc")}
    assert len(keys) == 4
    assert {len(key) for key in keys} == {16}
