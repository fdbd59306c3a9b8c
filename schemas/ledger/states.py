"""The states of a chunk as conditions, in words that the partial indexes of `chunks` know: literals, no parameters."""

from sqlalchemy import ColumnElement, and_, literal_column

from schemas.tables import chunks


def _is(state: str) -> ColumnElement[bool]:
    return chunks.c.state == literal_column(f"'{state}'")


UNFINISHED: ColumnElement[bool] = chunks.c.state != literal_column("'done'")
PENDING = and_(_is("pending"), UNFINISHED)
QUEUED = and_(_is("queued"), UNFINISHED)
RUNNING = and_(_is("running"), UNFINISHED)

FIRST = -1.0
"""A `retry_at` before that of every chunk which was never tried: in order of it, they are dispatched."""

BACK_TO_PENDING = {
    "state": "pending",
    "fence": chunks.c.fence + 1,
    "worker": None,
    "lease_until": None,
    "broker": None,
}
"""The values of every way back: the new fence refuses whoever still has the message or the claim."""
