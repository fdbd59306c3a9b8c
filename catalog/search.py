"""What to look for in the catalog, and the page of images that have it.

A page is found from the rarest condition that has an index, in the order of its annotations, so that it costs what it
shows and not what there is. Where nothing but a job or nothing at all is asked for, the order is that of the images.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from catalog.phrases import phrase_named
from catalog.queries import require_job
from catalog.reader import Reader
from catalog.words import Term, match_of, terms_of, tsquery_of, words_of
from schemas.caption_search import TABLE
from schemas.errors import UsageError
from schemas.relations import RELATIONS, relation

COUNT_TO = 10_000
"""So far the rows of a condition are counted, to find the rarest."""
PLACES = {
    "left": "b.x1 + b.x2 < 2 / 3.0",
    "right": "b.x1 + b.x2 > 4 / 3.0",
    "top": "b.y1 + b.y2 < 2 / 3.0",
    "bottom": "b.y1 + b.y2 > 4 / 3.0",
    "center": "b.x1 + b.x2 BETWEEN 2 / 3.0 AND 4 / 3.0 AND b.y1 + b.y2 BETWEEN 2 / 3.0 AND 4 / 3.0",
}
"""Thirds of the picture, by where the centre of a box lies."""
BOUNDS = {"min_score": "b.score >=", "max_score": "b.score <=", "min_area": "b.area >=", "max_area": "b.area <="}
LAST_CHARACTER = chr(0x10FFFF)
PHRASE = "n.phrase_norm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What an image must have to be found: all of what is given.

    text: what its caption says, in the words of catalog/words.py.
    phrases: what it shows, in the words of catalog/phrases.py.
    relations: how a box of the first phrase (without one, any box) lies to a box of another phrase: a name in
        `schemas.relations.RELATIONS`, and that phrase.
    min_score, max_score, min_area, max_area, place: of that box; areas are fractions of the picture, places the words
        of `PLACES`, joined as in `top-left`.
    job, task, model: whose annotations are looked at; all jobs' without one.
    """

    text: str = ""
    phrases: tuple[str, ...] = ()
    relations: tuple[tuple[str, str], ...] = ()
    min_score: float | None = None
    max_score: float | None = None
    min_area: float | None = None
    max_area: float | None = None
    place: str = ""
    job: str = ""
    task: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        for name, _ in self.relations:
            if name not in RELATIONS:
                raise UsageError(f"there is no relation {name!r}; there are {', '.join(RELATIONS)}")
        for phrase in [*self.phrases, *(phrase for _, phrase in self.relations)]:
            phrase_named(phrase)
        for part in self.place.split("-") if self.place else ():
            if part not in PLACES:
                raise UsageError(f"there is no place {part!r}; there are {', '.join(PLACES)}, also joined: top-left")

    @property
    def names_something(self) -> bool:
        """Whether there are words or phrases, which have an index."""
        return bool(self.text or self.phrases or self.relations)


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
    sql = _Statement(reader, search, backwards=backwards)
    query = sql.page(after)
    if query is None:
        return Page([])
    # an image comes once for each phrase and job that it is found by; nothing sorts them out sooner without reading all
    wanted = asked = limit + 1
    found: dict[tuple[Any, ...], None] = {}
    while len(found) < wanted and asked:
        asked *= 2
        rows = reader.select(query, sql.values | {"most": asked}).rows
        found = dict.fromkeys(map(tuple, rows))
        asked = asked if len(rows) == asked else 0
    some = list(found)[:limit]
    hits = [Hit(*keys[-2:]) if search.names_something else Hit(*reversed(keys)) for keys in some]
    return Page(hits, _packed(some[-1]) if len(found) > limit else "")


def cursor_of(reader: Reader, search: Search, hit: Hit) -> str:
    """The cursor behind which a search goes on after this hit, and before which it came to it."""
    if not search.names_something:
        return _packed([hit.image_id, hit.annotation_id])
    return _packed([*_Statement(reader, search).phrase_of(hit), hit.annotation_id, hit.image_id])


def every_hit(reader: Reader, search: Search, *, at_once: int) -> Iterator[Sequence[Hit]]:
    """All images that have what is looked for, in lists of `at_once`."""
    page = find_page(reader, search, limit=at_once)
    while page.hits:
        yield page.hits
        page = find_page(reader, search, limit=at_once, after=page.cursor) if page.cursor else Page([])


def matches_of(reader: Reader, search: Search, annotation_ids: Collection[int]) -> set[Match]:
    """The boxes that are why these annotations were found: of the phrases that are named, and as they must lie."""
    found: set[Match] = set()
    for query, values in _Statement(reader, search).matches(list(annotation_ids)):
        found.update(Match(*row) for row in reader.select(query, values).rows)
    return found


class _Way(NamedTuple):
    """What a search can begin with: a table, its annotation's id there, a condition, and the order that it gives."""

    table: str
    own: str
    condition: str
    order: tuple[str, ...] = ()
    """What comes before the annotation's id; of two entities of an image the first one in this order counts."""


class _Statement:
    """A search in SQL: its conditions, and the values that they name.

    Tables are joined by CROSS JOIN, which SQLite takes in the order in which they stand. Aliases: d is what the search
    begins with, o the outcome that makes it visible; e and b are an entity and its box, f and c another one.
    """

    def __init__(self, reader: Reader, search: Search, *, backwards: bool = False) -> None:
        self.values: dict[str, Any] = {}
        self._reader = reader
        self._search = search
        self._beyond, self._order = ("<", "DESC") if backwards else (">", "ASC")

    def page(self, after: str) -> str | None:
        """The SELECT of `:most` rows behind a cursor, which are cursors; None where nothing can be found."""
        visible = self._visible()
        if visible is None:
            return None
        if not self._search.names_something:
            keys: tuple[str, ...] = ("o.image_id", "o.annotation_id")
            behind = self._behind(keys, _unpacked(after, int, int))
            return self._ordered(
                keys, "outcomes o", ["o.annotation_id IS NOT NULL", *self._others(None), *visible, *behind]
            )
        way, conditions = self._begin()
        cursor = _unpacked(after, *[str] * len(way.order), int, int)
        start, rest = self._behind((*way.order, way.own, "o.image_id"), cursor)
        # first so many annotations that can be seen, then their images: no index has both in order
        seen = " AND ".join([f"o.annotation_id = {way.own}", *visible, rest])
        found = [*conditions, start, f"EXISTS (SELECT 1 FROM outcomes o WHERE {seen})"]
        named = (*[PHRASE] * len(way.order), "n.id")
        within = self._ordered((*way.order, way.own), way.table, found, as_=[name.partition(".")[2] for name in named])
        keys = (*named, "o.image_id")
        shown = ["o.annotation_id = n.id", *visible, *self._behind(keys, cursor)]
        return self._ordered(keys, f"({within}) n CROSS JOIN outcomes o", shown)

    def _ordered(self, keys: Sequence[str], table: str, conditions: Sequence[str], as_: Sequence[str] = ()) -> str:
        """The SELECT of these keys in their order."""
        shown = [f"{key} AS {name}" for key, name in zip(keys, as_, strict=True)] if as_ else keys
        # phrases in the order of their bytes, whatever the database's collation is: so is PostgreSQL's index of them
        bytewise = self._order if self._reader.dialect == "sqlite" else f"USING ~{'<' if self._beyond == '>' else '>'}~"
        order = [f"{key} {bytewise if key.endswith('phrase_norm') else self._order}" for key in keys]
        wanted = " AND ".join(conditions)
        return f"SELECT {', '.join(shown)} FROM {table} WHERE {wanted} ORDER BY {', '.join(order)} LIMIT :most"

    def _behind(self, keys: Sequence[str], cursor: Sequence[Any]) -> list[str]:
        """The two conditions for what comes behind a cursor: the first one is for the index."""
        (first, *others), (start, *values) = keys, map(self._value, cursor)
        signs = (self._beyond, self._beyond + "=")
        more, least = (self._bytewise(sign) if first.endswith("phrase_norm") else sign for sign in signs)
        rest = f"({', '.join(others)}) {self._beyond} ({', '.join(values)})"
        return [f"{first} {least} {start}", f"({first} {more} {start} OR {rest})"]

    def _bytewise(self, sign: str) -> str:
        return sign if self._reader.dialect == "sqlite" else f"~{sign}~"

    def phrase_of(self, hit: Hit) -> list[str]:
        """What a cursor says before a hit's ids: its phrase, where the search goes by how phrases begin."""
        search = self._search
        phrases = [*search.phrases, *(phrase for _, phrase in search.relations)]
        if search.text or not all(phrase_named(phrase).begins for phrase in phrases):
            return []
        keys, named = ["e.phrase_norm"], self._phrase(phrases[0], "e")
        query = self._ordered(keys, "entities e", [f"e.annotation_id = {self._value(hit.annotation_id)}", named])
        found = [row[0] for row in self._reader.select(query, self.values | {"most": 1}).rows]
        return found or [""]  # an image that the search does not find

    def matches(self, ids: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each SELECT for boxes among these annotations, with its values."""
        search = self._search
        subject = search.phrases[:1] or ([""] if search.relations or self._box_conditions("b") else [])
        for phrase in (*subject, *search.phrases[1:], *(phrase for _, phrase in search.relations)):
            self.values = {"ids": ids}
            conditions = [f"e.annotation_id {self._reader.in_list('ids')}"]
            conditions += [self._phrase(phrase, "e")] if phrase else []
            conditions += self._box_conditions("b") if phrase in subject else ["b.valid"]
            yield (
                f"""SELECT e.annotation_id, e.ordinal, b.ordinal FROM entities e CROSS JOIN boxes b
                WHERE b.annotation_id = e.annotation_id AND b.entity = e.ordinal AND {" AND ".join(conditions)}""",
                self.values,
            )

    def _value(self, value: Any) -> str:
        name = f"v{len(self.values)}"
        self.values[name] = value
        return f":{name}"

    def _visible(self) -> list[str] | None:
        """What is asked of an outcome; None where no outcome can have it."""
        search, conditions = self._search, ["NOT o.superseded"]
        if search.job:
            require_job(self._reader, search.job)
            ((job_id,),) = self._reader.select("SELECT id FROM jobs WHERE name = :name", {"name": search.job}).rows
            conditions.append(f"o.job_id = {self._value(job_id)}")
        wanted = {name: value for name in ("task", "model") if (value := getattr(search, name))}
        if wanted:
            named = " AND ".join(f"{name} = :{name}" for name in wanted)
            ids = [row[0] for row in self._reader.select(f"SELECT id FROM recipes WHERE {named}", wanted).rows]
            if not ids:
                return None
            conditions.append(f"o.recipe_id IN ({', '.join(map(str, ids))})")
        return conditions

    def _begin(self) -> tuple[_Way, list[str]]:
        """What to begin with, and all conditions.

        Where there are words, the index of words, for those of the phrases as well: they stand in the caption. Else the
        phrase that fewest images have.
        """
        search = self._search
        phrases = [*search.phrases, *(phrase for _, phrase in search.relations)]
        if search.text:
            words = [words_of(phrase_named(phrase)) for phrase in phrases]
            way = self._words([*terms_of(search.text), *filter(None, words)])
            return way, [way.condition, *self._others(None, way.own)]
        ways = [self._way(phrase) for phrase in phrases]
        whole = [number for number, way in enumerate(ways) if not way.order]  # in one order, whichever is taken
        first = min(whole, key=lambda number: self._count(ways[number])) if len(whole) > 1 else (whole or [0])[0]
        return ways[first], [ways[first].condition, *self._others(first, ways[first].own)]

    def _words(self, terms: Sequence[Term]) -> _Way:
        """By the index of words.

        PostgreSQL is told how to use it: it knows only of the most frequent words how often they come, and where it
        takes a rare one for frequent it passes by all captions there are.
        """
        if self._reader.dialect == "sqlite":
            return _Way(TABLE, f"{TABLE}.rowid", f"{TABLE} MATCH {self._value(match_of(terms))}")
        condition = f"{TABLE} @@ ({tsquery_of(terms, self._value)})"
        if self._count(_Way("annotations", "", condition)) == COUNT_TO:
            return _Way(
                "annotations w", "w.id", f"(w.{condition}) IS TRUE"
            )  # in the order of ids, until there are enough
        rare = f"WITH rare AS MATERIALIZED (SELECT id FROM annotations WHERE {condition}) SELECT id FROM rare"
        return _Way(f"({rare}) w", "w.id", "TRUE")

    def _way(self, phrase: str) -> _Way:
        condition = self._phrase(phrase, "d")
        if not phrase_named(phrase).begins:
            return _Way("entities d", "d.annotation_id", condition)
        # an image with two phrases that begin so comes with the first one
        earlier = f"e.phrase_norm {self._bytewise('<')} d.phrase_norm AND {self._phrase(phrase, 'e')}"
        again = f"EXISTS (SELECT 1 FROM entities e WHERE e.annotation_id = d.annotation_id AND {earlier})"
        return _Way("entities d", "d.annotation_id", f"{condition} AND NOT {again}", ("d.phrase_norm",))

    def _others(self, first: int | None, own: str = "o.annotation_id") -> list[str]:
        """The conditions of all phrases and boxes, but for the phrase that the search begins with."""
        conditions = []
        for number, phrase in enumerate(self._search.phrases):
            boxes = self._box_conditions("b") if number == 0 else []
            entity = "d" if number == first else "e"
            of_box = [f"b.annotation_id = {entity}.annotation_id", f"b.entity = {entity}.ordinal", *boxes]
            box = [f"EXISTS (SELECT 1 FROM boxes b WHERE {' AND '.join(of_box)})"] if boxes else []
            if number == first:
                conditions += box
            else:
                named = [f"e.annotation_id = {own}", self._phrase(phrase, "e"), *box]
                conditions.append(f"EXISTS (SELECT 1 FROM entities e WHERE {' AND '.join(named)})")
        if not self._search.phrases and (boxes := self._box_conditions("b")):
            conditions.append(f"EXISTS (SELECT 1 FROM boxes b WHERE b.annotation_id = {own} AND {' AND '.join(boxes)})")
        return conditions

    def _box_conditions(self, box: str) -> list[str]:
        """What is asked of a box of the first phrase; nothing, where nothing is."""
        search = self._search
        asked = {told: getattr(search, name) for name, told in BOUNDS.items()}
        bounds = [f"{told} {self._value(value)}" for told, value in asked.items() if value is not None]
        places = [PLACES[part] for part in search.place.split("-")] if search.place else []
        related = [
            f"""EXISTS (SELECT 1 FROM entities f CROSS JOIN boxes c WHERE f.annotation_id = {box}.annotation_id
            AND {self._phrase(phrase, "f")} AND c.annotation_id = f.annotation_id AND c.entity = f.ordinal AND c.valid
            AND NOT (c.entity = {box}.entity AND c.ordinal = {box}.ordinal) AND {relation(name, box, "c")})"""
            for name, phrase in search.relations
        ]
        conditions = [*bounds, *places, *related]
        return [f"{box}.valid", *conditions] if conditions else []

    def _phrase(self, text: str, entity: str) -> str:
        """The condition that an entity has this phrase."""
        phrase = phrase_named(text)
        if phrase.head:
            return f"{entity}.head = {self._value(phrase.head)}"
        if not phrase.begins:
            return f"{entity}.phrase_norm = {self._value(phrase.norm)}"
        if self._reader.dialect == "sqlite":
            column, end = f"{entity}.phrase_norm", phrase.norm + LAST_CHARACTER
            return f"{column} >= {self._value(phrase.norm)} AND {column} < {self._value(end)}"
        escaped = re.sub(r"([\\%_])", r"\\\1", phrase.norm)
        return f"{entity}.phrase_norm LIKE {self._value(escaped + '%')}"

    def _count(self, way: _Way) -> int:
        """How many rows fulfil a condition, as far as they are counted."""
        query = f"SELECT COUNT(*) FROM (SELECT 1 FROM {way.table} WHERE {way.condition} LIMIT {COUNT_TO}) counted"
        return int(self._reader.select(query, self.values).rows[0][0])


def _packed(keys: Sequence[Any]) -> str:
    return urlsafe_b64encode(json.dumps(keys).encode()).decode().rstrip("=")


def _unpacked(cursor: str, *kinds: type) -> list[Any]:
    """What `_packed` was given, of these kinds; the beginning where there is no cursor."""
    if not cursor:
        return [kind() for kind in kinds]
    try:
        keys = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        keys = None
    if not isinstance(keys, list) or list(map(type, keys)) != list(kinds):
        raise UsageError(f"{cursor!r} is no cursor of this search; take it from the page before")
    return keys
