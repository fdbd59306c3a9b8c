"""A search in SQL.

A page is found from the rarest condition that has an index, in the order of its annotations, so that it costs what it
shows and not what there is. Where nothing but a job or nothing at all is asked for, the order is that of the images.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog.cursors import unpacked
from catalog.phrases import phrase_named
from catalog.queries import require_job
from catalog.reader import Reader
from catalog.words import Term, match_of, terms_of, tsquery_of, words_of
from schemas.caption_search import TABLE
from schemas.relations import relation
from schemas.trust import trust

if TYPE_CHECKING:
    from catalog.search import Hit, Search

FREQUENT = 7.0
"""Words are frequent whose number of captions, squared, is so many times that of all: where both ways take as long.

Measured on PostgreSQL with 4 million captions (benchmarks/RESULTS.md): 0.6 µs to pass one by, some 9 to read one.
"""
PLACES = {
    "left": "{0}.x1 + {0}.x2 < 2 / 3.0",
    "right": "{0}.x1 + {0}.x2 > 4 / 3.0",
    "top": "{0}.y1 + {0}.y2 < 2 / 3.0",
    "bottom": "{0}.y1 + {0}.y2 > 4 / 3.0",
    "center": "{0}.x1 + {0}.x2 BETWEEN 2 / 3.0 AND 4 / 3.0 AND {0}.y1 + {0}.y2 BETWEEN 2 / 3.0 AND 4 / 3.0",
}
"""Thirds of the picture, by where the centre of a box lies."""
TRUST = f"""(
    SELECT {trust("{0}", "r")}
    FROM annotations w JOIN recipes r ON r.id = w.recipe_id WHERE w.id = {{0}}.annotation_id)"""
"""Looked for only where it is asked for: it takes some rows of other tables for each box."""
BOUNDS = {
    "min_score": "{0}.score >=",
    "max_score": "{0}.score <=",
    "min_area": "{0}.area >=",
    "max_area": "{0}.area <=",
    "min_trust": f"{TRUST} >=",
    "max_trust": f"{TRUST} <=",
}
LAST_CHARACTER = chr(0x10FFFF)
PHRASE = "n.phrase_norm"


class _Way(NamedTuple):
    """What a search can begin with: a table, its annotation's id there, a condition, and the order that it gives."""

    table: str
    own: str
    condition: str
    order: tuple[str, ...] = ()
    """What comes before the annotation's id; of two entities of an image the first one in this order counts."""


class Statement:
    """A search in SQL: its conditions, and the values that they name.

    Tables are joined by CROSS JOIN, which SQLite takes in the order in which they stand. Aliases: d is what the search
    begins with, o the outcome that makes it visible; e and b are an entity and its box, f and c another one.
    """

    def __init__(self, reader: Reader, search: "Search", *, backwards: bool = False) -> None:
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
            behind = self._behind(keys, unpacked(after, int, int))
            return self._ordered(
                keys, "outcomes o", ["o.annotation_id IS NOT NULL", *self._others(None), *visible, *behind]
            )
        way, conditions = self._begin()
        cursor = unpacked(after, *[str] * len(way.order), int, int)
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

    def phrase_of(self, hit: "Hit") -> list[str]:
        """What a cursor says before a hit's ids: its phrase, where the search goes by how phrases begin."""
        search, phrases = self._search, self._search.every_phrase
        if search.text or not all(phrase_named(phrase).begins for phrase in phrases):
            return []
        conditions = [f"e.annotation_id = {self._value(hit.annotation_id)}", self._phrase(phrases[0], "e")]
        conditions += self._subject_box("e") if search.phrases else []
        query = self._ordered(["e.phrase_norm"], "entities e", conditions)
        found = [row[0] for row in self._reader.select(query, self.values | {"most": 1}).rows]
        return found or [""]  # an image that the search does not find

    def matches(self, ids: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each SELECT for boxes among these annotations, with its values: the subject's, other phrases', partners'."""
        search = self._search
        roles: list[Callable[[], list[str]]] = []
        if search.phrases or self._box_conditions("b"):
            roles.append(lambda: [*self._named(search.phrases[:1]), *self._box_conditions("b")])
        roles += [partial(self._named, [phrase]) for phrase in search.phrases[1:]]
        roles += [partial(self._partner, name, phrase) for name, phrase in search.relations]
        for role in roles:
            self.values = {"ids": ids}
            conditions = [f"e.annotation_id {self._reader.in_list('ids')}", *role()]
            yield (
                f"""SELECT e.annotation_id, e.ordinal, b.ordinal FROM entities e CROSS JOIN boxes b
                WHERE b.annotation_id = e.annotation_id AND b.entity = e.ordinal AND {" AND ".join(conditions)}""",
                self.values,
            )

    def _named(self, phrases: Sequence[str]) -> list[str]:
        return [self._phrase(phrase, "e") for phrase in phrases]

    def _partner(self, name: str, phrase: str) -> list[str]:
        """That a box is a partner's, and that the subject has one that lies so to it and is as it should be."""
        subject = [self._phrase(phrase, "s") for phrase in self._search.phrases[:1]]
        between = ["NOT (t.entity = b.entity AND t.ordinal = b.ordinal)", relation(name, "t", "b")]
        found = " AND ".join(["t.entity = s.ordinal", *subject, *self._box_conditions("t"), *between])
        return [
            *self._named([phrase]),
            "b.valid",
            f"""EXISTS (SELECT 1 FROM entities s CROSS JOIN boxes t
            WHERE s.annotation_id = e.annotation_id AND t.annotation_id = s.annotation_id AND {found})""",
        ]

    def _value(self, value: Any) -> str:
        name = f"v{len(self.values)}"
        self.values[name] = value
        return f":{name}"

    @cached_property
    def _job_id(self) -> int:
        return require_job(self._reader, self._search.job)

    def _visible(self) -> list[str] | None:
        """What is asked of an outcome; None where no outcome can have it."""
        search, conditions = self._search, ["NOT o.superseded"]
        if search.job:
            conditions.append(f"o.job_id = {self._value(self._job_id)}")
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
        phrase that fewest images have, or the job where it is smaller. All ways but those by how a phrase begins are in
        one order, whichever is taken.
        """
        search, phrases = self._search, self._search.every_phrase
        if search.text:
            words = [words_of(phrase_named(phrase)) for phrase in phrases]
            way = self._words([*terms_of(search.text), *filter(None, words)])
            return way, [way.condition, *self._others(None, way.own)]
        ways: dict[int | None, _Way] = {number: self._way(phrase, number) for number, phrase in enumerate(phrases)}
        whole: dict[int | None, _Way] = {number: way for number, way in ways.items() if not way.order}
        if whole and search.job:
            whole[None] = self._of_job()
        first = (
            min(whole, key=lambda number: self._size(whole[number])) if len(whole) > 1 else next(iter(whole or ways))
        )
        way = (whole or ways)[first]
        return way, [way.condition, *self._others(first, way.own)]

    def _size(self, way: _Way) -> float:
        return self._reader.expected(way.table, way.condition, self.values)

    def _words(self, terms: Sequence[Term]) -> _Way:
        """By the index of words; on PostgreSQL, for frequent words, by the captions in their order."""
        if self._reader.dialect == "sqlite":
            return _Way(TABLE, f"{TABLE}.rowid", f"{TABLE} MATCH {self._value(match_of(terms))}")
        condition = f"{TABLE} @@ ({tsquery_of(terms, self._value)})"
        if self._is_frequent(condition):
            return _Way("annotations w", "w.id", f"(w.{condition}) IS TRUE")  # which no index knows
        # OFFSET has the planner leave it as it is: it may take rare words for frequent ones
        rare = f"SELECT id FROM annotations WHERE {condition} ORDER BY id {self._order} OFFSET 0"
        return _Way(f"({rare}) w", "w.id", "TRUE")

    def _is_frequent(self, condition: str) -> bool:
        """Whether as many captions as a page has are sooner met in passing than looked up, sorted and read."""
        query = "SELECT reltuples FROM pg_class WHERE oid = to_regclass('annotations')"
        ((captions,),) = self._reader.select(query).rows
        return self._reader.expected("annotations", condition, self.values) ** 2 > FREQUENT * max(float(captions), 1.0)

    def _of_job(self) -> _Way:
        """By the job's outcomes, which PostgreSQL is told to sort: it takes any job for a large one."""
        of_job = f"job_id = {self._value(self._job_id)} AND annotation_id IS NOT NULL AND NOT superseded"
        if self._reader.dialect == "sqlite":
            return _Way("outcomes d", "d.annotation_id", of_job)
        whole = f"SELECT annotation_id FROM outcomes WHERE {of_job} ORDER BY annotation_id {self._order} OFFSET 0"
        return _Way(f"({whole}) d", "d.annotation_id", "TRUE")

    def _way(self, phrase: str, number: int) -> _Way:
        condition = self._phrase(phrase, "d")
        if not phrase_named(phrase).begins:
            return _Way("entities d", "d.annotation_id", condition)
        # an image with two phrases that begin so comes with the first one that is as it should be
        boxes = self._subject_box("e") if self._search.phrases and number == 0 else []
        again = self._has("d.annotation_id", phrase, f"e.phrase_norm {self._bytewise('<')} d.phrase_norm", *boxes)
        return _Way("entities d", "d.annotation_id", f"{condition} AND NOT {again}", ("d.phrase_norm",))

    def _others(self, first: int | None, own: str = "o.annotation_id") -> list[str]:
        """The conditions of all phrases and boxes, but for the phrase that the search begins with."""
        partners = enumerate((phrase for _, phrase in self._search.relations), len(self._search.phrases))
        # what the boxes say again, and the index of phrases knows sooner
        conditions = [self._has(own, phrase) for number, phrase in partners if number != first]
        for number, phrase in enumerate(self._search.phrases):
            box = self._subject_box("d" if number == first else "e") if number == 0 else []
            conditions += box if number == first else [self._has(own, phrase, *box)]
        if not self._search.phrases and (boxes := self._box_conditions("b")):
            conditions.append(f"EXISTS (SELECT 1 FROM boxes b WHERE b.annotation_id = {own} AND {' AND '.join(boxes)})")
        return conditions

    def _has(self, own: str, phrase: str, *more: str) -> str:
        """That an annotation, by its id, has an entity e of this phrase, of which more may be asked."""
        asked = " AND ".join([f"e.annotation_id = {own}", self._phrase(phrase, "e"), *more])
        return f"EXISTS (SELECT 1 FROM entities e WHERE {asked})"

    def _subject_box(self, entity: str) -> list[str]:
        """That an entity of the first phrase has such a box as is asked for; nothing, where nothing is."""
        asked = self._box_conditions("b")
        conditions = [f"b.annotation_id = {entity}.annotation_id", f"b.entity = {entity}.ordinal", *asked]
        return [f"EXISTS (SELECT 1 FROM boxes b WHERE {' AND '.join(conditions)})"] if asked else []

    def _box_conditions(self, box: str) -> list[str]:
        """What is asked of a box of the first phrase; nothing, where nothing is."""
        search = self._search
        asked = {told: getattr(search, name) for name, told in BOUNDS.items()}
        bounds = [f"{told.format(box)} {self._value(value)}" for told, value in asked.items() if value is not None]
        places = [PLACES[part].format(box) for part in search.place.split("-")] if search.place else []
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
