"""One image on the web. The producer asks no server for it: only workers fetch, under their own rules."""

from collections.abc import Iterator, Sequence

from producer.sources.source import Listed, listed
from schemas.items import Item


class UrlSource:
    """One http(s) URL, named by the user."""

    def __init__(self, url: str) -> None:
        self.spec = url
        self.roots: Sequence[str] = ()

    def list(self, after: str | None = None) -> Iterator[Listed]:
        if after is None:
            yield listed("1", Item(self.spec))
