"""Completing a chunk: the one primitive behind finishing, draining, retrying and splitting.

It settles some items and puts the rest into child chunks, in one transaction, in the name of the chunk's fence. Either
all of it is there afterwards or none, and each item is in exactly one place.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, insert, update

from schemas.database import Database
from schemas.inputs import Inputs
from schemas.items import pack_items
from schemas.ledger.breaker import hold_back_faults
from schemas.ledger.bulk import plain, run
from schemas.ledger.jobs import lock_job, pause_within
from schemas.ledger.known import Key
from schemas.ledger.outcomes import Outcome, add_to_job, insert_outcomes, withdraw_outcomes, write_outcomes
from schemas.ledger.records import Stored, store
from schemas.ledger.states import RUNNING, first_fence
from schemas.ledger.work import NAMED, Claim, annotations_of
from schemas.results import Completion, Failure, Later, Reuse, Settled
from schemas.tables import chunks, unix_now

DONE = (
    update(chunks)
    .where(*NAMED, RUNNING)
    .values(state="done", item_list="[]", worker=None, lease_until=None, claimed_at=None)
)


class Settlement(NamedTuple):
    """What a completion has brought: how many outcomes of each kind and code, which is "" but for failures."""

    outcomes: Counter[tuple[str, str]]


def complete(database: Database, claim: Claim, completion: Completion, *, breaker_images: int) -> Settlement | None:
    """running → done, with all that follows from it. None, and nothing changed, if the chunk is not ours now."""
    _check_conserved(claim, completion)
    with database.write() as connection:
        if run(connection, DONE, chunk=claim.chunk_id, named=claim.fence).rowcount != 1:
            return None
        completion = _put_back_pruned(connection, claim, completion)
        stored = store(connection, completion.settled, Inputs(claim.recipes))
        new = _outcomes(claim, completion.settled, stored)
        inserted = insert_outcomes(connection, claim.job_id, list(chain.from_iterable(new)))
        # From here on the completions of a job go one by one: the counters, the breaker and which version of a URI came
        # last need it. What takes longest, the rows above, all write at once.
        job = lock_job(connection, claim.job_id)
        settled = completion.settled
        completion = hold_back_faults(connection, claim, job, completion, breaker_images)
        if len(completion.settled) < len(settled):
            withdraw_outcomes(connection, claim.job_id, inserted)
            kept, inserted = set(map(id, completion.settled)), set()
            new = [some if id(one) in kept else [] for one, some in zip(settled, new, strict=True)]
        uris = {some[0].image_id: plain(one.item.uri) for one, some in zip(settled, new, strict=True) if some}
        every = list(chain.from_iterable(new))
        add_to_job(connection, claim.job_id, write_outcomes(connection, claim.job_id, every, inserted, uris))
        _add_children(connection, claim, completion.later)
        if job.strict:
            _stop_at_failure(connection, claim, completion.settled)
    return Settlement(Counter((outcome.kind, outcome.code or "") for outcome in every))


def _check_conserved(claim: Claim, completion: Completion) -> None:
    accounted = [one.item for one in completion.settled]
    for later in completion.later:
        accounted += later.items
    conserved = accounted == claim.items or Counter(accounted) == Counter(claim.items)
    assert conserved, f"chunk {claim.chunk_id}: its items are not each accounted for once"
    wanted = claim.recipes.keys()
    assert all(one.results.keys() == wanted for one in completion.settled), f"chunk {claim.chunk_id}: lacks a result"


def _put_back_pruned(connection: Connection, claim: Claim, completion: Completion) -> Completion:
    """The completion, with items put back that reuse an annotation which is gone since it was found.

    It was pruned, or is younger than the backup that the database comes from. From here on `pruning` waits for us.
    """
    reusing = [one for one in completion.settled if any(isinstance(it, Reuse) for it in one.results.values())]
    if not reusing:
        return completion
    sha256s = {one.content.sha256 for one in reusing if one.content}
    there, inputs = annotations_of(connection, sha256s, claim.recipes), Inputs(claim.recipes)
    gone = [
        one
        for one in reusing
        for recipe, brought in inputs.hashes_of(one.item).items()
        if isinstance(result := one.results[recipe], Reuse)
        and (one.content is None or there.get((one.content.sha256, recipe, brought)) != result.annotation_id)
    ]
    back = set(map(id, gone))
    later = Later([one.item for one in reusing if id(one) in back], tries=claim.tries)
    kept = [one for one in completion.settled if id(one) not in back]
    return replace(completion, settled=kept, later=[*completion.later, later]) if gone else completion


def _outcomes(claim: Claim, settled: Sequence[Settled], stored: Stored) -> list[list[Outcome]]:
    """Of each item, for each recipe."""
    made, tries, inputs = set(stored.made), claim.tries + 1, Inputs(claim.recipes)
    return [
        [
            _outcome((image_id, recipe_id, input_), one, stored, made, tries)
            for recipe_id, input_ in inputs.hashes_of(one.item).items()
        ]
        for one, image_id in zip(settled, stored.image_ids, strict=True)
    ]


def _outcome(key: Key, one: Settled, stored: Stored, made: set[int], tries: int) -> Outcome:
    result = one.results[key[1]]
    if isinstance(result, Failure):
        return Outcome(*key, code=result.code, message=plain(result.message), tries=tries)
    if isinstance(result, Reuse):
        return Outcome(*key, result.annotation_id, reused=True, tries=tries)
    assert one.content is not None, "an annotation needs a content"
    annotation_id = stored.annotation_ids[one.content.sha256, *key[1:]]
    reused = annotation_id not in made
    made.discard(annotation_id)  # the second image with these bytes reuses what the first one brought
    return Outcome(*key, annotation_id, reused, tries=tries)


def _add_children(connection: Connection, claim: Claim, later: Sequence[Later]) -> None:
    rows = [
        {
            "job_id": claim.job_id,
            "recipe_ids": claim.recipe_ids,
            "item_list": pack_items(rest.items),
            "size": len(rest.items),
            "fence": first_fence(),
            "crashes": 0 if rest.code else claim.crashes,  # with a code, they have been tried, and killed nobody
            "tries": rest.tries,
            "wait_s": rest.wait_s,
        }
        for rest in later
        if rest.items
    ]
    if rows:
        connection.execute(insert(chunks).values(retry_at=unix_now() + bindparam("wait_s")), rows)


def _stop_at_failure(connection: Connection, claim: Claim, settled: Sequence[Settled]) -> None:
    """`--strict`: the first image that fails for good pauses the job."""
    failures = ((one.item, result) for one in settled for result in one.results.values() if isinstance(result, Failure))
    for item, failure in failures:
        pause_within(connection, claim.job_id, f"--strict, and {item.uri} failed: {failure.code}: {failure.message}")
        return
