"""Prompts that differ from image to image: each image, recipe and input has an outcome of its own."""

from dataclasses import replace
from typing import Any

import pytest

from schemas.errors import Code
from schemas.inputs import input_hash, pack_input
from schemas.items import Item, pack_items, unpack_items
from schemas.ledger import jobs, known, listing, retries, work
from schemas.ledger.listing import Registered
from schemas.recipes import Recipe
from schemas.results import Failure, Result

BRIEF = Recipe(task="brief", prompt="p", model="null", revision="r", dtype="float32")
PHRASE = BRIEF.model_copy(update={"task": "phrase", "prompt": "<phrase>{phrase}</phrase>", "input": "phrase"})
BOTH = [BRIEF, PHRASE]


def asking(*phrases: str, uri: str = "s3://b/a", version: str = "1") -> list[Item]:
    """An image that is asked for these."""
    return [Item(uri, version, None, pack_input({"phrase": phrase})) for phrase in phrases]


def outcomes(ledger: Any) -> list[tuple[str, str, str]]:
    """Task, input and what became of it, of all that is shown."""
    rows = ledger.sql(
        """SELECT r.task, n.value, o.code, o.reused FROM outcomes o JOIN recipes r ON r.id = o.recipe_id
        LEFT JOIN inputs n ON n.hash = o.input WHERE NOT o.superseded ORDER BY r.task, n.value"""
    )
    return [(row["task"], row["value"] or "", row["code"] or ("reused" if row["reused"] else "new")) for row in rows]


def test_items_without_input_are_packed_as_they_were_and_old_chunks_are_read() -> None:
    plain, (asked,) = Item("s3://b/a", "1", 5), asking("a dog")
    assert pack_items([plain]) == '[["s3://b/a","1",5]]'
    assert unpack_items('[["s3://b/a","1",5],["s3://b/b","",null]]') == [plain, Item("s3://b/b")]
    assert unpack_items(pack_items([plain, asked])) == [plain, asked]


def test_phrases_of_an_image_have_annotations_of_their_own_and_the_caption_is_made_once(ledger: Any) -> None:
    job = ledger.job_of(*asking("a cat", "a dog"), recipes=BOTH)
    ledger.drain()
    assert outcomes(ledger) == [("brief", "", "new"), ("phrase", "a cat", "new"), ("phrase", "a dog", "new")]
    assert ledger.counters(job) == (2, 3, 1, 0, 0)
    assert ledger.sql("SELECT COUNT(*) AS n FROM annotations") == [{"n": 3}]


def test_second_run_reuses_what_is_annotated_with_the_same_input_alone(ledger: Any) -> None:
    ledger.job_of(*asking("a cat", "a dog"), recipes=BOTH, name="first")
    ledger.drain()
    again = ledger.open("second", *BOTH)
    assert ledger.add(again, *asking("a cat", "a bird", "a cat")) == Registered(new=1, reused=2, known=0)
    assert ledger.counters(again) == (3, 0, 4, 0, 2)
    ledger.drain()
    assert ledger.counters(again) == (3, 1, 5, 0, 0)


def test_job_that_is_listed_again_knows_its_inputs(ledger: Any) -> None:
    job = ledger.job_of(*asking("a cat"), recipes=BOTH)
    ledger.drain()
    assert ledger.add(ledger.open("job", *BOTH), *asking("a cat", "a dog")) == Registered(new=1, reused=0, known=1)
    waiting = listing.waiting_items(ledger.database, job)
    third = ledger.open("job", *BOTH)
    assert ledger.add(third, *asking("a dog", "a bird"), waiting=waiting) == Registered(new=1, reused=0, known=1)


def test_newer_version_takes_the_place_of_the_same_input_only(ledger: Any) -> None:
    ledger.job_of(*asking("a cat", "a dog"), recipes=[PHRASE])
    ledger.drain()
    ledger.add(ledger.open("job", PHRASE), *asking("a dog", version="2"))
    ledger.drain()
    shown = ledger.sql("SELECT input, sha256 FROM captions ORDER BY input")
    assert shown == [{"input": "a cat", "sha256": "s3://b/a#1"}, {"input": "a dog", "sha256": "s3://b/a#2"}]


def test_annotations_are_found_by_their_input(ledger: Any) -> None:
    ledger.job_of(*asking("a cat"), recipes=[PHRASE])
    ledger.drain()
    (recipe,) = (row["id"] for row in ledger.sql("SELECT id FROM recipes"))
    assert list(work.find_annotations(ledger.database, ["s3://b/a#1"], [recipe])) == [
        ("s3://b/a#1", recipe, input_hash("a cat"))
    ]


@pytest.mark.parametrize("phrase", ["a cat", "", "say \"hi\", 5°, 'ж'", "a\0b\ud800"])
def test_retry_puts_the_input_back(ledger: Any, phrase: str) -> None:
    job = ledger.job_of(*asking(phrase), recipes=[PHRASE])
    claim = ledger.one_claim()
    ledger.complete(claim, ledger.failed(claim, claim.items[0]))
    jobs.finish_jobs(ledger.database)
    before = ledger.sql("SELECT input FROM outcomes")
    assert retries.retry_failed(ledger.database, job) == 1
    ledger.drain()
    assert ledger.counters(job) == (1, 1, 0, 0, 0)
    assert ledger.sql("SELECT input FROM outcomes") == before


def test_retry_brings_back_each_failure_once_however_recipes_and_inputs_are_mixed(ledger: Any) -> None:
    job = ledger.job_of(*asking("a cat", "a dog", "a cat"), *asking("a cat", uri="s3://b/b"), recipes=BOTH)
    claim = ledger.one_claim()
    ledger.complete(claim, *(ledger.failed(claim, item) for item in claim.items))
    jobs.finish_jobs(ledger.database)
    assert ledger.counters(job) == (4, 0, 3, 5, 0)
    assert retries.retry_failed(ledger.database, job) == 5
    assert ledger.counters(job) == (4, 0, 3, 0, 5)
    ledger.drain()
    assert ledger.counters(job) == (4, 5, 3, 0, 0)


def test_one_failed_input_leaves_the_others_of_its_image(ledger: Any) -> None:
    ledger.job_of(*asking("a cat", ""), recipes=BOTH)
    claim = ledger.one_claim()
    good = {id_: ledger.annotation() for id_ in claim.recipes}
    bad: dict[int, Result] = {**good, max(good): Failure(Code.BAD_INPUT, "there is no phrase")}
    first, second = claim.items
    ledger.complete(claim, ledger.mixed(first, good), ledger.mixed(second, bad))
    assert outcomes(ledger) == [("brief", "", "new"), ("phrase", "", "bad_input"), ("phrase", "a cat", "new")]
    assert retries.retry_failed(ledger.database, ledger.open("job", *BOTH), code=Code.BAD_INPUT) == 1


def test_image_that_many_items_name_is_one_to_the_breaker(ledger: Any) -> None:
    job = ledger.job_of(*asking(*map(str, range(20))), recipes=[PHRASE])
    claim = ledger.one_claim()
    failed = [ledger.failed(claim, item, Code.NOT_FOUND) for item in claim.items]
    ledger.complete(claim, *failed, breaker_images=2)
    assert (ledger.now(job).state, ledger.now(job).failed) == ("running", 20)


def test_view_has_what_was_asked_and_what_the_item_brought(ledger: Any) -> None:
    ledger.job_of(*asking("a cat"), recipes=BOTH)
    claim = ledger.one_claim()
    brief, phrase = claim.recipes
    filled = replace(ledger.annotation(), prompt="<phrase>a cat</phrase>")
    ledger.complete(claim, ledger.mixed(claim.items[0], {brief: ledger.annotation(), phrase: filled}))
    assert ledger.sql("SELECT task, prompt, input FROM captions ORDER BY task") == [
        {"task": "brief", "prompt": "p", "input": None},
        {"task": "phrase", "prompt": "<phrase>a cat</phrase>", "input": "a cat"},
    ]


def test_image_that_many_items_name_is_looked_up_once(ledger: Any) -> None:
    """Else a batch of a listing would take the square of its items."""
    ledger.job_of(*asking("a cat"), recipes=[PHRASE])
    ledger.drain()
    versionless = asking("a cat", "a dog", "a bird", version="")
    with ledger.database.read() as connection:
        found = known.known_images(connection, [*asking("a cat", "a dog"), *versionless], recheck=False)
    assert {image: len(some) for image, some in found.items()} == {("s3://b/a", "1"): 1, ("s3://b/a", ""): 1}


def test_failures_tell_for_which_input_they_are(ledger: Any) -> None:
    ledger.job_of(*asking("a cat", "a dog"), recipes=BOTH)
    claim = ledger.one_claim()
    ledger.complete(claim, *(ledger.failed(claim, item) for item in claim.items))
    failures = ledger.sql("SELECT task, input FROM failures ORDER BY task, input")
    assert [(row["task"], row["input"]) for row in failures] == [
        ("brief", None),
        ("phrase", "a cat"),
        ("phrase", "a dog"),
    ]
