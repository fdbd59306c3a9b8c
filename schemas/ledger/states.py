"""The states of chunks and outcomes as conditions.

Those of chunks are in words that the partial indexes know: literals, no parameters.
"""

from random import getrandbits

from sqlalchemy import ColumnElement, and_, literal_column

from schemas.tables import chunks, outcomes


def _is(state: str) -> ColumnElement[bool]:
    return chunks.c.state == literal_column(f"'{state}'")


UNFINISHED: ColumnElement[bool] = chunks.c.state != literal_column("'done'")
PENDING = and_(_is("pending"), UNFINISHED)
QUEUED = and_(_is("queued"), UNFINISHED)
RUNNING = and_(_is("running"), UNFINISHED)

STANDS = and_(outcomes.c.retrying.is_(False), outcomes.c.superseded.is_(False))
"""An outcome that counts: it is not being tried again, and no newer version of its image has taken its place."""

FIRST = -1.0
"""A `retry_at` before that of every chunk which was never tried: in order of it, they are dispatched."""


def first_fence() -> int:
    """Where the fence of a new chunk begins: anywhere, so that no other chunk ever has its id with one of its fences.

    A database numbers chunks anew from a backup's last one, and SQLite also from the last one that was not pruned: what
    still travels or is in work of the chunks that had these numbers must not be taken for theirs.
    """
    return getrandbits(30)


BACK_TO_PENDING = {
    "state": "pending",
    "fence": chunks.c.fence + 1,
    "worker": None,
    "lease_until": None,
    "claimed_at": None,
    "broker": None,
}
"""The values of every way back: the new fence refuses whoever still has the message or the claim."""
