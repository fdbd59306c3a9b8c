"""Completing a chunk: all of it or nothing, each item in one place, one annotation for each content."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from schemas.errors import Code
from schemas.grounding import Entity, Grounding
from schemas.items import Item
from schemas.ledger import dispatch, jobs, settlement, work
from schemas.results import Annotation, Completion, EntityScores, Failure, Later, Reuse, Settled

EVERYTHING = ("contents", "images", "annotations", "entities", "boxes", "outcomes")


def rows(ledger: Any) -> dict[str, int]:
    return {table: ledger.sql(f"SELECT COUNT(*) AS n FROM {table}")[0]["n"] for table in EVERYTHING}


def at_once(*tasks: Callable[[], object]) -> list[BaseException]:
    """What the tasks raised, all begun in the same moment."""
    start, raised = threading.Barrier(len(tasks)), list[BaseException]()

    def run(task: Callable[[], object]) -> None:
        start.wait()
        try:
            task()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_everything_that_a_chunk_brought_is_there_afterwards(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(3))
    assert ledger.annotate_all(ledger.one_claim())
    assert rows(ledger) == dict.fromkeys(EVERYTHING, 3)
    assert ledger.counters(job) == (3, 3, 0, 0, 0)
    (chunk,) = ledger.sql("SELECT state, item_list, worker, lease_until FROM chunks")
    assert chunk == {"state": "done", "item_list": "[]", "worker": None, "lease_until": None}


def test_a_chunk_is_completed_once(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(2))
    claim = ledger.one_claim()
    assert ledger.annotate_all(claim)
    assert not ledger.annotate_all(claim)
    assert not ledger.complete(claim, later=[Later(claim.items, 0)])
    assert ledger.counters(job) == (2, 2, 0, 0, 0)
    assert rows(ledger)["outcomes"] == 2


def test_a_completion_under_an_old_fence_changes_nothing(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(2))
    stolen = ledger.one_claim(worker="stopped", lease_s=-1)
    dispatch.reclaim_expired(ledger.database)
    owner = ledger.one_claim(worker="other")
    assert not ledger.annotate_all(stolen)
    assert rows(ledger) == dict.fromkeys(EVERYTHING, 0)
    assert ledger.annotate_all(owner)
    assert not ledger.annotate_all(stolen)
    assert ledger.counters(job) == (2, 2, 0, 0, 0)


def test_a_worker_that_overran_its_lease_still_commits_while_nobody_took_it(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1))
    assert ledger.annotate_all(ledger.one_claim(lease_s=-1))
    assert dispatch.reclaim_expired(ledger.database) == 0


def test_a_completion_that_fails_half_way_leaves_nothing(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(2))
    claim = ledger.one_claim()
    good, other = (ledger.annotated(claim, item) for item in claim.items)
    no_size = replace(other, content=replace(other.content, width=None))
    with pytest.raises(Exception, match=r"(?i)null"):
        ledger.complete(claim, good, no_size)
    assert rows(ledger) == dict.fromkeys(EVERYTHING, 0)
    assert ledger.counters(job) == (2, 0, 0, 0, 2)
    assert ledger.annotate_all(claim)


def test_a_completion_must_account_for_each_item_once(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(2))
    claim = ledger.one_claim()
    first, second = (ledger.annotated(claim, item) for item in claim.items)
    for wrong in ([first], [first, first], [first, second, second], [first, replace(second, item=Item("other"))]):
        with pytest.raises(AssertionError, match="accounted for once"):
            ledger.complete(claim, *wrong)
    with pytest.raises(AssertionError, match="accounted for once"):
        ledger.complete(claim, first, second, later=[Later([second.item], 0)])
    assert ledger.counters(job) == (2, 0, 0, 0, 2)


def test_a_completion_must_have_a_result_for_each_recipe(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1), recipes=[ledger.recipe("brief"), ledger.recipe("detailed")])
    claim = ledger.one_claim()
    with pytest.raises(AssertionError, match="lacks a result"):
        ledger.complete(claim, ledger.mixed(claim.items[0], {min(claim.recipes): ledger.annotation()}))


def test_a_permanent_failure_is_recorded_for_each_recipe_and_the_rest_goes_on(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(2), recipes=[ledger.recipe("brief"), ledger.recipe("detailed")])
    claim = ledger.one_claim()
    bad, good = claim.items
    assert ledger.complete(claim, ledger.failed(claim, bad, Code.NOT_AN_IMAGE, "text"), ledger.annotated(claim, good))
    failures = ledger.sql("SELECT uri, task, code, message, tries FROM failures ORDER BY task")
    assert failures == [
        {"uri": bad.uri, "task": task, "code": "not_an_image", "message": "text", "tries": 1}
        for task in ("brief", "detailed")
    ]
    assert ledger.counters(job) == (2, 2, 0, 2, 0)


def test_a_failure_of_one_recipe_is_that_outcome_alone(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(1), recipes=[ledger.recipe("brief"), ledger.recipe("detailed")])
    claim = ledger.one_claim()
    brief, detailed = claim.recipes
    results = {brief: ledger.annotation(), detailed: Failure(Code.MODEL_ERROR, "no tokens")}
    assert ledger.complete(claim, ledger.mixed(claim.items[0], results))
    assert ledger.sql("SELECT task FROM captions") == [{"task": "brief"}]
    assert ledger.sql("SELECT task, code FROM failures") == [{"task": "detailed", "code": "model_error"}]
    assert ledger.counters(job) == (1, 1, 0, 1, 0)


def test_transient_failures_come_again_later_and_the_others_settle(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(3))
    claim = ledger.one_claim()
    good, slow = claim.items[:1], claim.items[1:]
    later = Later(slow, tries=claim.tries + 1, wait_s=-1, code=Code.THROTTLED)
    assert ledger.complete(claim, ledger.annotated(claim, good[0]), later=[later])
    assert ledger.counters(job) == (3, 1, 0, 0, 2)
    child = ledger.one_claim()
    assert (child.items, child.tries) == (slow, 1)
    assert ledger.complete(child, *(ledger.failed(child, item, Code.THROTTLED) for item in slow))
    assert [row["tries"] for row in ledger.sql("SELECT tries FROM failures")] == [2, 2]


def test_a_graceful_stop_settles_what_is_finished_and_blames_nobody(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(3))
    claim = ledger.one_claim()
    done, *rest = claim.items
    assert ledger.complete(claim, ledger.annotated(claim, done), later=[Later(rest, claim.tries), Later([], 0)])
    child = ledger.one_claim()
    assert (child.items, child.tries, child.crashes) == (rest, 0, 0)
    assert ledger.annotate_all(child)
    assert ledger.counters(job) == (3, 3, 0, 0, 0)


def test_a_child_keeps_the_crashes_of_its_parent(ledger: Any, items: Any) -> None:
    """Or a chunk that kills its worker now and then would never be taken apart."""
    ledger.job_of(*items(2))
    ledger.one_claim(lease_s=-1)
    dispatch.reclaim_expired(ledger.database)
    claim = ledger.one_claim()
    ledger.complete(claim, later=[Later(claim.items, 0)])
    assert ledger.one_claim().crashes == 1


def test_a_child_of_images_that_were_tried_has_no_crashes(ledger: Any, items: Any) -> None:
    """They have come through a worker that lives: one more that dies beside them is not their doing."""
    ledger.job_of(*items(2))
    ledger.one_claim(lease_s=-1)
    dispatch.reclaim_expired(ledger.database)
    claim = ledger.one_claim()
    ledger.complete(claim, later=[Later(claim.items, 1, wait_s=-1, code=Code.THROTTLED)])
    assert ledger.one_claim().crashes == 0


def test_the_same_bytes_twice_in_one_chunk_are_one_annotation(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(3))
    claim = ledger.one_claim()
    assert ledger.complete(claim, *(ledger.annotated(claim, item, sha256="same") for item in claim.items))
    assert ledger.counters(job) == (3, 1, 2, 0, 0)
    assert (rows(ledger)["annotations"], rows(ledger)["boxes"], rows(ledger)["outcomes"]) == (1, 1, 3)


def test_the_same_bytes_in_two_chunks_are_one_annotation(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(2), chunk_size=1)
    for claim in ledger.claims():
        assert ledger.complete(claim, ledger.annotated(claim, claim.items[0], sha256="same"))
    assert ledger.counters(job) == (2, 1, 1, 0, 0)
    assert rows(ledger)["annotations"] == 1


def test_the_same_bytes_in_two_jobs_are_one_annotation(ledger: Any, items: Any) -> None:
    one = ledger.job_of(*items(1), name="one")
    two = ledger.job_of(*items(1, start=7), name="two")
    for claim in ledger.claims():
        assert ledger.complete(claim, ledger.annotated(claim, claim.items[0], sha256="same"))
    assert ledger.counters(one) == (1, 1, 0, 0, 0)
    assert ledger.counters(two) == (1, 0, 1, 0, 0)
    assert len({row["annotation_id"] for row in ledger.sql("SELECT annotation_id FROM captions")}) == 1


def test_an_annotation_that_was_found_is_reused(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1), name="one")
    claim = ledger.one_claim()
    ledger.complete(claim, ledger.annotated(claim, claim.items[0], sha256="same"))
    job = ledger.job_of(*items(1, start=7), name="two")
    claim = ledger.one_claim()
    found = work.find_annotations(ledger.database, ["same"], claim.recipes)
    results = {recipe: Reuse(id_) for (_, recipe, _), id_ in found.items()}
    assert ledger.complete(claim, ledger.mixed(claim.items[0], results, sha256="same"))
    assert ledger.counters(job) == (1, 0, 1, 0, 0)
    assert [row["reused"] for row in ledger.sql("SELECT reused FROM captions WHERE job = 'two'")] == [True]


def test_an_annotation_that_is_gone_since_it_was_found_is_made_again(ledger: Any, items: Any) -> None:
    """Given one that was pruned, and another under its id, when it is to be reused, then its item comes back."""
    job = ledger.job_of(*items(2))
    claim = ledger.one_claim()
    first, second = claim.items
    (recipe,) = claim.recipes
    assert ledger.complete(claim, ledger.annotated(claim, first, sha256="other"), later=[Later([second], 0)])
    (taken,) = ledger.sql("SELECT id FROM annotations")
    claim = ledger.one_claim()
    gone = ledger.mixed(second, {recipe: Reuse(taken["id"])}, sha256="gone")
    assert ledger.complete(claim, gone)
    assert ledger.counters(job) == (2, 1, 0, 0, 1)
    ledger.drain()
    assert ledger.counters(job) == (2, 2, 0, 0, 0)


def test_a_claim_of_before_a_backup_was_restored_is_no_claim_on_the_chunk_that_has_its_id_now(
    ledger: Any, items: Any
) -> None:
    """The backup is older than the claim's chunk: another job's chunk gets its number, and its own first message."""
    ledger.job_of(*items(3), name="after the backup")
    old = ledger.one_claim(worker="w1")
    ledger.change("DELETE FROM chunks")
    if not ledger.database.is_sqlite:
        ledger.change(f"SELECT setval('chunks_id_seq', {old.chunk_id}, false)")
    job = ledger.job_of(*items(2, start=10), name="new")
    new = ledger.one_claim(worker="w2")
    assert new.chunk_id == old.chunk_id
    assert not ledger.annotate_all(old)
    assert not work.release_chunk(ledger.database, old)
    assert ledger.counters(job) == (2, 0, 0, 0, 2)
    assert ledger.annotate_all(new)
    assert ledger.counters(job) == (2, 2, 0, 0, 0)


def test_an_object_that_changed_since_the_listing_is_stored_in_the_version_that_was_read(ledger: Any) -> None:
    job = ledger.job_of(Item("s3://b/a", "listed"))
    claim = ledger.one_claim()
    assert ledger.complete(claim, ledger.annotated(claim, claim.items[0], version="read"))
    assert ledger.sql("SELECT version FROM images") == [{"version": "read"}]
    assert ledger.counters(job) == (1, 1, 0, 0, 0)
    assert ledger.add(ledger.open(), Item("s3://b/a", "read")).known == 1


def test_of_two_versions_in_one_chunk_the_one_that_was_read_last_is_shown(ledger: Any) -> None:
    job = ledger.job_of(Item("s3://b/a", "1"), Item("s3://b/a", "2"), Item("s3://b/b", "1"))
    assert ledger.annotate_all(ledger.one_claim())
    shown = ledger.sql("SELECT sha256 FROM captions ORDER BY sha256")
    assert shown == [{"sha256": "s3://b/a#2"}, {"sha256": "s3://b/b#1"}]
    assert ledger.counters(job) == (3, 2, 1, 0, 0)


def test_a_version_that_comes_again_beside_another_one_is_shown_if_it_was_read_last(ledger: Any) -> None:
    job = ledger.job_of(Item("s3://b/a", "1"))
    ledger.annotate_all(ledger.one_claim())
    again = ledger.open()
    ledger.add(again, Item("s3://b/a", "2"), Item("s3://b/a"), recheck=True)
    claim = ledger.one_claim()
    newer, older = claim.items
    assert ledger.complete(claim, ledger.annotated(claim, newer), ledger.annotated(claim, older, version="1"))
    assert ledger.sql("SELECT sha256 FROM captions") == [{"sha256": "s3://b/a#1"}]
    assert ledger.counters(job) == (3, 1, 2, 0, 0)


def test_a_failure_of_a_newer_version_takes_the_place_of_an_annotation(ledger: Any) -> None:
    job = ledger.job_of(Item("s3://b/a", "1"))
    ledger.annotate_all(ledger.one_claim())
    ledger.add(ledger.open(), Item("s3://b/a", "2"))
    claim = ledger.one_claim()
    assert ledger.complete(claim, ledger.failed(claim, claim.items[0]))
    assert ledger.sql("SELECT * FROM captions") == []
    assert ledger.counters(job) == (2, 0, 1, 1, 0)


@pytest.mark.parametrize("failed_first", [True, False])
def test_of_two_mentions_of_an_image_the_one_that_succeeded_stands(ledger: Any, items: Any, failed_first: bool) -> None:
    job = ledger.job_of(*items(1), *items(1), chunk_size=1)
    claims = ledger.claims()
    for claim, fails in zip(claims, (failed_first, not failed_first), strict=True):
        (item,) = claim.items
        assert ledger.complete(claim, ledger.failed(claim, item) if fails else ledger.annotated(claim, item))
    assert ledger.counters(job) == (2, 1, 1, 0, 0)
    assert ledger.sql("SELECT * FROM failures") == []


def test_an_image_gets_its_content_once_it_can_be_read(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1), name="one")
    claim = ledger.one_claim()
    ledger.complete(claim, ledger.failed(claim, claim.items[0]))
    assert ledger.sql("SELECT content_id FROM images") == [{"content_id": None}]
    ledger.job_of(*items(1), name="two")
    ledger.annotate_all(ledger.one_claim())
    (image,) = ledger.sql("SELECT content_id FROM images")
    assert image["content_id"] is not None
    ledger.job_of(*items(1, version=""), name="three", recheck=True)
    claim = ledger.one_claim()
    ledger.complete(claim, replace(ledger.failed(claim, claim.items[0]), version="1"))
    assert ledger.sql("SELECT content_id FROM images") == [image]


def ascii_start(words: str) -> str:
    return ascii(words[:20])


@pytest.mark.parametrize(
    "words",
    [
        *("a\0b", "caf\u00e9 \U0001f600", "half \udcff", "3 < 5 </phrase>", "'; --", "%s {0} :x"),
        *(
            "tab\tnew line\nreturn\r\v",
            "\\N",
            "\\.",
            "back \\ slash \\",
            '"quoted", {braces}',
            "NULL",
            "",
            " \n ",
            "null,None",
        ),
        *("\x01\x7f\u2028", "\\" * 5000 + '"', "long \U0001f600 " * 100_000),
    ],
    ids=ascii_start,
)
def test_hostile_words_are_stored_on_both_databases(ledger: Any, items: Any, words: str) -> None:
    job = ledger.job_of(*items(2))
    claim = ledger.one_claim()
    good, bad = claim.items
    grounding = Grounding(words, (Entity(words, 0, len(words), ()),))
    said = Annotation(words, grounding, [EntityScores(None, [])], "stop", 1, None, words)
    annotated = ledger.mixed(good, dict.fromkeys(claim.recipes, said))
    assert ledger.complete(claim, annotated, ledger.failed(claim, bad, Code.INTERNAL, words))
    stored = words.replace("\0", "\ufffd").replace("\udcff", "\ufffd")
    assert ledger.sql("SELECT caption, raw_text FROM captions") == [{"caption": stored, "raw_text": stored}]
    assert ledger.sql("SELECT message FROM failures") == [{"message": stored}]
    assert ledger.sql("SELECT phrase FROM entities") == [{"phrase": stored}]
    assert ledger.counters(job) == (2, 1, 0, 1, 0)


def test_contents_that_are_there_and_new_ones_in_one_chunk_each_get_their_own_annotation(
    ledger: Any, items: Any
) -> None:
    """Ids come back in bulk: those of new rows must not be taken for those of rows that were there."""
    ledger.job_of(*items(9), name="one")
    claim = ledger.one_claim()
    assert ledger.complete(claim, *(said_of(ledger, claim, item) for item in claim.items))
    job = ledger.job_of(*items(9, start=4, version="2"), name="two")
    claim = ledger.one_claim()
    assert ledger.complete(claim, *(said_of(ledger, claim, item) for item in reversed(claim.items)))
    assert ledger.counters(job) == (9, 4, 5, 0, 0)
    for row in ledger.sql("SELECT uri, caption, sha256 FROM captions"):
        assert (row["caption"], row["sha256"]) == (f"words of {row['uri']}", f"bytes of {row['uri']}")
    shown = ledger.sql("SELECT uri, caption, phrase FROM groundings WHERE job = 'two'")
    assert len(shown) == 9
    assert all(row["caption"] == f"words of {row['uri']}" for row in shown)


def said_of(ledger: Any, claim: work.Claim, item: Item) -> Settled:
    """An annotation that tells whose it is."""
    results = dict.fromkeys(claim.recipes, ledger.annotation(f"words of {item.uri}"))
    return Settled(item, item.version, ledger.content(f"bytes of {item.uri}"), results)


def test_one_image_in_many_chunks_completed_at_once_has_one_outcome(ledger: Any, items: Any) -> None:
    """Its outcome is written before the job is locked: they wait for one another, and never in a circle."""
    job = ledger.job_of(*[item for turn in range(8) for item in items(6)[:: 1 if turn % 2 else -1]], chunk_size=6)
    claims = ledger.claims()
    assert len(claims) == 8

    def settle(claim: work.Claim, turn: int) -> None:
        settled = ledger.failed if turn % 3 == 0 else ledger.annotated
        assert ledger.complete(claim, *[settled(claim, item) for item in claim.items])

    tasks = [lambda claim=claim, turn=turn: settle(claim, turn) for turn, claim in enumerate(claims)]  # type: ignore[misc]
    assert at_once(*tasks) == []
    assert ledger.counters(job) == (48, 6, 42, 0, 0)
    assert rows(ledger)["outcomes"] == 6


def test_strict_pauses_at_the_first_permanent_failure(ledger: Any, items: Any) -> None:
    job = ledger.open(strict=True)
    ledger.add(job, *items(3), chunk_size=1)
    first, second, third = ledger.claims()
    ledger.annotate_all(first)
    assert ledger.now(job).state == "running"
    ledger.complete(second, ledger.failed(second, second.items[0], Code.TRUNCATED, "it ends early"))
    paused = ledger.now(job)
    assert (paused.state, paused.failed) == ("paused", 1)
    assert paused.reason == f"--strict, and {second.items[0].uri} failed: truncated: it ends early"
    assert ledger.annotate_all(third)


def test_an_empty_completion_of_an_empty_chunk_is_done(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1))
    claim = ledger.one_claim()
    ledger.change("UPDATE chunks SET item_list = '[]'")
    assert settlement.complete(ledger.database, replace(claim, items=[]), Completion(), breaker_images=1)


def test_overlapping_chunks_completed_at_once_neither_deadlock_nor_double_a_row(ledger: Any, items: Any) -> None:
    """Two jobs over the same images and contents, by six workers, with failures in another order for each."""
    one = ledger.job_of(*items(24), *items(24), name="one", chunk_size=8)
    two = ledger.job_of(*reversed(items(24)), *items(24), name="two", chunk_size=8)
    claims = ledger.claims()

    def settle(claim: work.Claim, turn: int) -> Settled | list[Settled]:
        some = []
        for item in reversed(claim.items) if turn % 2 else claim.items:
            number = int(item.uri[-8:-4])
            fails = number % 5 == turn % 2
            some.append(
                ledger.failed(claim, item) if fails else ledger.annotated(claim, item, sha256=f"content {number % 7}")
            )
        return some

    def worker(first: int) -> None:
        for turn in range(first, len(claims), 6):
            assert ledger.complete(claims[turn], *settle(claims[turn], turn))

    assert at_once(*(lambda first=first: worker(first) for first in range(6))) == []  # type: ignore[misc]
    for job in (one, two):
        images, annotated, reused, failed, pending = ledger.counters(job)
        assert (images, pending) == (48, 0)
        assert annotated + reused + failed == 48
        shown = ledger.sql("SELECT COUNT(*) AS n FROM outcomes WHERE job_id = :id AND code IS NOT NULL", id=job.id)
        assert shown == [{"n": failed}]
    total = rows(ledger)
    assert (total["contents"], total["images"], total["annotations"], total["boxes"]) == (7, 24, 7, 7)
    assert total["outcomes"] == 48
    assert ledger.now(one).annotated + ledger.now(two).annotated <= 7


def test_versions_of_one_uri_completed_at_once_leave_one_shown(ledger: Any) -> None:
    listed = [Item(f"s3://b/{name}", str(version)) for version in range(6) for name in "abcd"]
    job = ledger.job_of(*listed, chunk_size=4)
    claims = ledger.claims()
    assert at_once(*(lambda claim=claim: ledger.annotate_all(claim) for claim in claims)) == []  # type: ignore[misc]
    shown = ledger.sql("SELECT uri FROM captions ORDER BY uri")
    assert shown == [{"uri": f"s3://b/{name}"} for name in "abcd"]
    assert ledger.counters(job) == (24, 4, 20, 0, 0)


def test_the_breaker_trips_at_once_with_others_that_bring_the_same_contents(ledger: Any, items: Any) -> None:
    """Source faults touch the job's row: were that before the contents, two chunks would wait in a circle."""
    job = ledger.job_of(*items(32), chunk_size=4)
    claims = ledger.claims()

    def settle(claim: work.Claim, turn: int) -> None:
        ordered = claim.items if turn % 2 else list(reversed(claim.items))
        fault, *rest = ordered
        settled = [ledger.annotated(claim, item, sha256=f"content {number}") for number, item in enumerate(rest)]
        assert ledger.complete(claim, *settled, ledger.failed(claim, fault, Code.NOT_FOUND), breaker_images=3)

    tasks = [lambda claim=claim, turn=turn: settle(claim, turn) for turn, claim in enumerate(claims)]  # type: ignore[misc]
    assert at_once(*tasks) == []
    assert ledger.counters(job) == (32, 3, 21, 8, 0)


def test_listing_settling_and_retrying_at_once_close_the_counters(ledger: Any, items: Any) -> None:
    from schemas.ledger import retries

    ledger.job_of(*items(40), name="before")
    ledger.drain()
    job = ledger.job_of(*items(40, start=20), name="job", chunk_size=2, end=False)
    claims = ledger.claims()

    def complete_all() -> None:
        for turn, claim in enumerate(claims):
            if turn % 3:
                ledger.annotate_all(claim)
            else:
                ledger.complete(claim, *(ledger.failed(claim, item) for item in claim.items))

    def list_more() -> None:
        for start in range(0, 40, 4):
            ledger.add(job, *items(8, start=start), end=False)

    def retry_often() -> None:
        for _ in range(5):
            retries.retry_failed(ledger.database, job, chunk_size=3)

    assert at_once(complete_all, list_more, retry_often) == []
    ledger.add(job)
    ledger.drain()
    now = ledger.now(job)
    assert (now.state, now.pending) == ("finished", 0)
    assert now.images == 40 + 80
    assert jobs.finish_jobs(ledger.database) == []


def test_settlement_tells_what_became_of_each_item(ledger: Any, items: Callable[..., list[Item]]) -> None:
    """In the words of the job's counters: the second image with the same bytes is reused."""
    ledger.job_of(*items(4))
    claim = ledger.one_claim()
    first, second, bad, late = claim.items
    same = [ledger.annotated(claim, item, sha256="same") for item in (first, second)]
    done = ledger.complete(claim, *same, ledger.failed(claim, bad, Code.TRUNCATED), later=[Later([late], 0)])
    assert done.outcomes == {("annotated", ""): 1, ("reused", ""): 1, ("failed", "truncated"): 1}
    assert ledger.complete(claim, *same, later=[Later([bad, late], 0)]) is None
