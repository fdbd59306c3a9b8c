"""What to look for in the catalog, and the page of images that have it."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from catalog.cursors import packed
from catalog.phrases import phrase_named
from catalog.reader import Reader
from catalog.statement import BOUNDS, PLACES, Statement
from schemas.errors import UsageError
from schemas.relations import RELATIONS
from schemas.uris import storable


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What an image must have to be found: all of what is given.

    text: what its caption says, in the words of catalog/words.py.
    phrases: what it shows, in the words of catalog/phrases.py.
    relations: how a box of the first phrase (without one, any box) lies to a box of another phrase: a name in
        `schemas.relations.RELATIONS`, and that phrase.
    min_score, max_score, min_area, max_area, min_trust, max_trust, place: of that box; areas are fractions of the
        picture, places the words of `PLACES`, joined as in `top-left`.
    job, task, model: whose annotations are looked at; all jobs' without one.
    """

    text: str = ""
    phrases: tuple[str, ...] = ()
    relations: tuple[tuple[str, str], ...] = ()
    min_score: float | None = None
    max_score: float | None = None
    min_area: float | None = None
    max_area: float | None = None
    min_trust: float | None = None
    max_trust: float | None = None
    place: str = ""
    job: str = ""
    task: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        texts = (self.text, *self.phrases, *sum(self.relations, ()), self.place, self.job, self.task, self.model)
        if unstorable := [text for text in texts if not storable(text)]:
            raise UsageError(f"{unstorable[0]!r} holds characters that no text in a database has")
        for name, _ in self.relations:
            if name not in RELATIONS:
                raise UsageError(f"there is no relation {name!r}; there are {', '.join(RELATIONS)}")
        for phrase in self.every_phrase:
            phrase_named(phrase)
        for part in self.place.split("-") if self.place else ():
            if part not in PLACES:
                raise UsageError(f"there is no place {part!r}; there are {', '.join(PLACES)}, also joined: top-left")

    @property
    def every_phrase(self) -> tuple[str, ...]:
        """The phrases, and then those of the relations."""
        return (*self.phrases, *(phrase for _, phrase in self.relations))

    @property
    def names_something(self) -> bool:
        """Whether there are words or phrases, which have an index."""
        return bool(self.text or self.phrases or self.relations)

    @property
    def marks_boxes(self) -> bool:
        """Whether boxes are asked for, so that an image is found by some of its own."""
        bounded = any(getattr(self, bound) is not None for bound in BOUNDS)
        return bool(self.phrases or self.relations or self.place) or bounded


class Hit(NamedTuple):
    """An image that was found, by the annotation it was found by."""

    annotation_id: int
    image_id: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some hits in order, and the cursor behind them: "" where there are no more."""

    hits: Sequence[Hit]
    cursor: str = ""


class Match(NamedTuple):
    """A box that is why an image was found."""

    annotation_id: int
    entity: int
    box: int


def find_page(reader: Reader, search: Search, *, limit: int, after: str = "", backwards: bool = False) -> Page:
    """The next `limit` images that have what is looked for, behind a cursor; backwards, those before it, nearest first.

    Raises UsageError for a cursor that is none, and for a job that there is not.
    """
    reader.step_by_step()
    sql = Statement(reader, search, backwards=backwards)
    query = sql.page(after)
    if query is None:
        return Page([])
    # an image comes once for each phrase and job that it is found by; nothing sorts them out sooner without reading all
    wanted, asked, found = limit + 1, limit + limit // 4 + 1, dict[tuple[Any, ...], None]()
    while len(found) < wanted and asked:
        rows = reader.select(query, sql.values | {"most": asked}).rows
        found = dict.fromkeys(map(tuple, rows))
        asked = 2 * asked if len(rows) == asked else 0
    some = list(found)[:limit]
    hits = [Hit(*keys[-2:]) if search.names_something else Hit(*reversed(keys)) for keys in some]
    return Page(hits, packed(some[-1]) if len(found) > limit else "")


def cursor_of(reader: Reader, search: Search, hit: Hit) -> str:
    """The cursor behind which a search goes on after this hit, and before which it came to it."""
    if not search.names_something:
        return packed([hit.image_id, hit.annotation_id])
    return packed([*Statement(reader, search).phrase_of(hit), hit.annotation_id, hit.image_id])


def every_hit(reader: Reader, search: Search, *, at_once: int) -> Iterator[Sequence[Hit]]:
    """All images that have what is looked for, in lists of `at_once`."""
    page = find_page(reader, search, limit=at_once)
    while page.hits:
        yield page.hits
        page = find_page(reader, search, limit=at_once, after=page.cursor) if page.cursor else Page([])


def matches_of(reader: Reader, search: Search, annotation_ids: Collection[int]) -> set[Match]:
    """The boxes that are why these annotations were found: of the phrases that are named, and as they must lie."""
    found: set[Match] = set()
    for query, values in Statement(reader, search).matches(list(annotation_ids)):
        found.update(Match(*row) for row in reader.select(query, values).rows)
    return found
