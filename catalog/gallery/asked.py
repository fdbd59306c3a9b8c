"""Searches as the query of a URL: what is looked for is in the address, to be kept, shared and gone back to."""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from catalog.search import Search
from schemas.errors import UsageError

TEXTS = {"q": "text", "place": "place", "job": "job", "task": "task", "model": "model"}
NUMBERS = {
    "min_score": "a score of at least",
    "max_score": "a score of at most",
    "min_area": "an area of at least",
    "max_area": "an area of at most",
    "min_trust": "a trust of at least",
    "max_trust": "a trust of at most",
}
MOST_PHRASES = 12


def search_in(query: QueryParams) -> Search:
    """What a query asks for; what it leaves empty is not asked. Raises UsageError for what cannot be asked."""
    phrases = tuple(_phrases_in(query))
    pairs = zip(query.getlist("relation"), query.getlist("partner"), strict=False)
    relations = tuple((name, partner.strip()) for name, partner in pairs if name and partner.strip())
    if len(phrases) + len(relations) > MOST_PHRASES:
        raise UsageError(f"these are more than {MOST_PHRASES} phrases; ask for fewer at once")
    texts = {field: query.get(name, "").strip() for name, field in TEXTS.items()}
    numbers = {name: _part(query.get(name, ""), said) for name, said in NUMBERS.items()}
    return Search(phrases=phrases, relations=relations, **texts, **numbers)  # type: ignore[arg-type]


def query_of(search: Search, **more: str | int) -> str:
    """The query that asks for this, always in the same words, with its `?`; "" for one that asks for nothing."""
    pairs = [*_pairs(search), *((name, str(value)) for name, value in more.items() if value != "")]
    return "?" + urlencode(pairs) if pairs else ""


def _pairs(search: Search) -> Iterator[tuple[str, str]]:
    if search.text:
        yield "q", search.text
    for phrase in search.phrases:
        yield "phrase", phrase
    for name, partner in search.relations:
        yield "relation", name
        yield "partner", partner
    for name in NUMBERS:
        if (value := getattr(search, name)) is not None:
            yield name, repr(value).removesuffix(".0")
    for name in ("place", "job", "task", "model"):
        if value := getattr(search, name):
            yield name, value


@dataclass(frozen=True, slots=True)
class Chip:
    """A part of a search in words, and the query of the search without it."""

    words: str
    without: str


def chips_of(search: Search) -> list[Chip]:
    """The parts of a search but for its text, each to be taken away."""
    pairs = list(_pairs(search))
    chips, at = [], 0
    while at < len(pairs):
        count = 2 if pairs[at][0] == "relation" else 1
        part = pairs[at : at + count]
        if part[0][0] != "q":
            rest = pairs[:at] + pairs[at + count :]
            chips.append(Chip(_words(part), "?" + urlencode(rest) if rest else ""))
        at += count
    return chips


def _words(part: list[tuple[str, str]]) -> str:
    name, value = part[0]
    if name == "relation":
        return f"{value.replace('_', ' ')} {part[1][1]}"
    if name == "phrase":
        return value
    return f"{NUMBERS[name]} {value}" if name in NUMBERS else f"{name} {value}"


def form_of(query: QueryParams) -> dict[str, str]:
    """What the fields of the form hold: as it was entered, also where it cannot be asked."""
    held = {name: query.get(name, "") for name in (*TEXTS, *NUMBERS, "relation", "partner")}
    exact = exact_in(query)
    return held | {"phrase": ", ".join(phrase for phrase in _phrases_in(query) if phrase not in exact)}


def exact_in(query: QueryParams) -> list[str]:
    """The `=phrases` that the form passes on unseen: in its field, beside another, commas would split them."""
    phrases = list(_phrases_in(query))
    return [phrase for phrase in phrases if phrase.startswith("=")] if len(phrases) > 1 else []


def _phrases_in(query: QueryParams) -> Iterator[str]:
    """The phrases of a query: several in one value by commas, but `=…` is one with all its commas."""
    for value in query.getlist("phrase"):
        parts = [value] if value.strip().startswith("=") else value.split(",")
        yield from (part.strip() for part in parts if part.strip())


def _part(text: str, said: str) -> float | None:
    """A part of 1. Raises UsageError for anything else."""
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"{said} {text!r} cannot be asked for; it is a number from 0 to 1, like 0.5")
    return value
