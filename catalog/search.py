"""What to look for in the catalog, and the page of images that have it.

A page is found from the rarest condition that has an index, in the order of its annotations, so that it costs what it
shows and not what there is. Where nothing but a job or nothing at all is asked for, the order is that of the images.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from catalog.queries import require_job
from catalog.reader import Reader
from catalog.words import words_condition
from schemas.errors import UsageError
from schemas.grounding import phrase_norm
from schemas.heads import head_of
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What an image must have to be found: all of what is given.

    text: words of its caption, in any form; "in this order", -not, begin*.
    phrases: what it shows. One word is a head noun (`dog` finds "two brown dogs"), several are the whole phrase, `=dog`
        is the whole phrase as well, `dog*` how it begins.
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
            if not phrase.strip("=* "):
                raise UsageError("a phrase is empty; name what to look for, as in --phrase dog")
        for part in self.place.split("-") if self.place else ():
            if part not in PLACES:
                raise UsageError(f"there is no place {part!r}; there are {', '.join(PLACES)}, also joined: top-left")


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


def find_page(reader: Reader, search: Search, *, limit: int, after: str = "") -> Page:
    """The next `limit` images that have what is looked for, behind a cursor.

    Raises UsageError for a cursor that is none, and for a job that there is not.
    """
    place = _cursor(after)
    sql = _Statement(reader, search)
    query = sql.page()
    found: dict[tuple[int, int], None] = {}
    # rows come more than once where several jobs show an image, or it shows several dogs: DISTINCT would have SQLite
    # read all that there is before it gives the first
    while query and len(found) <= limit:
        rows = reader.select(query, sql.values | {"x": place[0], "y": place[1], "most": limit + 1}).rows
        found.update(dict.fromkeys((row[0], row[1]) for row in rows))
        if len(rows) <= limit:
            break
        place = rows[-1][0], rows[-1][1]
    some = list(found)[:limit]
    hits = [Hit(x, y) if sql.by_annotation else Hit(y, x) for x, y in some]
    return Page(hits, "{}.{}".format(*some[-1]) if len(found) > limit else "")


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


class _Statement:
    """A search in SQL: its conditions, and the values that they name.

    Tables are joined by CROSS JOIN, which SQLite takes in the order in which they stand. Aliases: d is what the search
    begins with, o the outcome that makes it visible; e and b are an entity and its box, f and c another one.
    """

    def __init__(self, reader: Reader, search: Search) -> None:
        self.values: dict[str, Any] = {}
        self.by_annotation = bool(search.phrases or search.text)
        self._reader = reader
        self._search = search

    def page(self) -> str | None:
        """The SELECT of the rows behind the place :x, :y, at most :most of them; None where there is nothing.

        They are, as the place: annotation and image, or image and annotation.
        """
        visible = self._visible()
        if visible is None:
            return None
        table, own, conditions = self._begin() if self.by_annotation else ("", "o.annotation_id", self._others(None))
        keys = (own, "o.image_id") if self.by_annotation else ("o.image_id", own)
        joined = f"{table} CROSS JOIN outcomes o" if table else "outcomes o"
        wanted = [
            *conditions,
            f"o.annotation_id = {own}" if table else "o.annotation_id IS NOT NULL",
            *visible,
            f"{keys[0]} >= :x",
            f"({keys[0]}, {keys[1]}) > (:x, :y)",
        ]
        return f"""
            SELECT {keys[0]} AS first, {keys[1]} AS second FROM {joined}
            WHERE {" AND ".join(wanted)} ORDER BY 1, 2 LIMIT :most"""

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

    def _begin(self) -> tuple[str, str, list[str]]:
        """The table to begin with, how its annotation is called there, and all conditions."""
        phrases = range(len(self._search.phrases))
        ways: dict[int | None, tuple[str, str, str]] = {
            number: ("entities d", "d.annotation_id", self._phrase(self._search.phrases[number], "d"))
            for number in phrases
        }
        if self._search.text:
            table, own, condition = words_condition(self._reader.dialect, self._search.text, self._value)
            ways[None] = table, own, condition
        first = min(ways, key=lambda way: self._count(ways[way])) if len(ways) > 1 else next(iter(ways))
        table, own, condition = ways[first]
        conditions = [condition, *self._others(first, own)]
        if None in ways and first is not None:
            table_, own_, condition_ = ways[None]
            conditions.append(f"EXISTS (SELECT 1 FROM {table_} WHERE {own_} = {own} AND {condition_})")
        return table, own, conditions

    def _others(self, first: int | None, own: str = "o.annotation_id") -> list[str]:
        """The conditions of all phrases and boxes, but for the phrase that the search begins with."""
        conditions = []
        for number, phrase in enumerate(self._search.phrases):
            boxes = self._box_conditions("b") if number == 0 else []
            if number == first and not boxes:
                continue
            entity = "d" if number == first else "e"
            of_box = [f"b.annotation_id = {entity}.annotation_id", f"b.entity = {entity}.ordinal", *boxes]
            box = f"EXISTS (SELECT 1 FROM boxes b WHERE {' AND '.join(of_box)})"
            if number == first:
                conditions.append(box)
            else:
                named = [f"e.annotation_id = {own}", self._phrase(phrase, "e"), *([box] if boxes else [])]
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

    def _phrase(self, phrase: str, entity: str) -> str:
        """The condition that an entity has this phrase."""
        norm = phrase_norm(phrase.strip().removeprefix("="))
        if norm.endswith("*"):
            return self._begins(f"{entity}.phrase_norm", norm.rstrip("*"))
        if " " in norm or phrase.strip().startswith("="):
            return f"{entity}.phrase_norm = {self._value(norm)}"
        return f"{entity}.head = {self._value(head_of(norm))}"

    def _begins(self, column: str, start: str) -> str:
        if self._reader.dialect == "sqlite":
            return f"{column} >= {self._value(start)} AND {column} < {self._value(start + LAST_CHARACTER)}"
        escaped = re.sub(r"([\\%_])", r"\\\1", start)
        return f"{column} LIKE {self._value(escaped + '%')}"

    def _count(self, way: tuple[str, str, str]) -> int:
        """How many rows fulfil a condition, as far as they are counted."""
        table, _, condition = way
        query = f"SELECT COUNT(*) FROM (SELECT 1 FROM {table} WHERE {condition} LIMIT {COUNT_TO}) counted"
        return int(self._reader.select(query, self.values).rows[0][0])


def _cursor(text: str) -> tuple[int, int]:
    if not text:
        return 0, 0
    if not re.fullmatch(r"\d{1,18}\.\d{1,18}", text):
        raise UsageError(f"{text!r} is no cursor; take it from the page before")
    x, y = text.split(".")
    return int(x), int(y)
