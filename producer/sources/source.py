"""What every source of images gives."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from producer.sources.filters import Skip
from schemas.items import Item


class Listed(NamedTuple):
    """One name of a source: its item, or why it is passed over; and from where a restart goes on.

    `cursor` is printable ASCII, and means something to the source that gave it alone.
    """

    cursor: str
    item: Item | None = None
    skip: Skip | None = None


class Source(Protocol):
    """A place that holds images."""

    @property
    def spec(self) -> str:
        """Canonical text: the same source has the same, and `open_sources` opens it again."""

    @property
    def roots(self) -> Sequence[str]:
        """The absolute folders in which its local files lie: nothing else of a disk is read for it."""

    def list(self, after: str | None = None) -> Iterator[Listed]:
        """Everything in it, in an order that does not change, strictly after a cursor. Raises SourceError."""


def listed(cursor: str, found: Item | Skip) -> Listed:
    return Listed(cursor, skip=found) if isinstance(found, Skip) else Listed(cursor, item=found)
