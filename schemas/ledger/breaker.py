"""The circuit breaker: a wrong bucket or an expired credential is the source's fault, not that of a million images."""

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, update

from schemas.errors import CONTENT_CODES, SOURCE_FAULTS
from schemas.ledger.jobs import pause_within
from schemas.ledger.work import Claim
from schemas.results import Completion, Failure, Later, Settled
from schemas.tables import jobs


def hold_back_faults(
    connection: Connection, claim: Claim, job: Row[Any], completion: Completion, breaker_images: int
) -> Completion:
    """The completion, with its source faults put back instead of settled where they have tripped the breaker.

    Images that fail with a source fault, one after the other over all workers with not one read between them, are
    counted in the job (whose row is locked). At `breaker_images` of them it pauses with the reason; `resume` goes on
    where it stopped. What says nothing of the source (a worker that died, a store that asks to slow down) leaves the
    count as it is.
    """
    faults = [one for one in completion.settled if _fault(one)]
    # at its first try: an image that is tried again is no other image
    passing = [it for one in completion.later if one.code in SOURCE_FAULTS and not claim.tries for it in one.items]
    read = any(_was_read(one) for one in completion.settled)
    images = {item.image for item in (*(one.item for one in faults), *passing)}  # which many items may name
    in_a_row = 0 if read else job.source_faults + len(images)
    if in_a_row != job.source_faults:
        connection.execute(update(jobs).where(jobs.c.id == claim.job_id).values(source_faults=in_a_row))
    if in_a_row < breaker_images or not (faults or passing):
        return completion
    pause_within(connection, claim.job_id, _reason(in_a_row, completion))
    kept = [one for one in completion.settled if not _fault(one)]
    back = Later([one.item for one in faults], tries=claim.tries)
    return replace(completion, settled=kept, later=[*completion.later, back])


def _was_read(one: Settled) -> bool:
    """Whether the source gave the item's bytes, picture or not."""
    failures = (result for result in one.results.values() if isinstance(result, Failure))
    return one.content is not None or any(failure.code in CONTENT_CODES for failure in failures)


def _fault(one: Settled) -> Failure | None:
    """The source fault that an item failed with."""
    for result in one.results.values():
        if isinstance(result, Failure) and result.code in SOURCE_FAULTS:
            return result
    return None


def _reason(in_a_row: int, completion: Completion) -> str:
    for one in completion.settled:
        if failure := _fault(one):
            return f"{in_a_row} images in a row could not be read; the last: {one.item.uri}: {failure.message}"
    codes = sorted({str(later.code) for later in completion.later if later.code})
    return f"{in_a_row} images in a row could not be read: {', '.join(codes)}"
