"""Words that people look for in captions, as each database's full-text search takes them.

brown dog          both, in any form and order: also "dogs that are brown"
"brown dog"        in this order, side by side
-cat               not this one
snow*              words that begin so
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from catalog.phrases import Phrase
from schemas.errors import UsageError
from schemas.heads import forms_of

_TERM = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')
_WORD = re.compile(r"\w+")
_STOP_WORDS = "a an and are as at be by for from has in is it its of on or that the this to was were will with"
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that say nothing alone. PostgreSQL leaves out its own, more of them; SQLite none."""


class Term(NamedTuple):
    """Words side by side, in one of several ways; `begins`: the last one is how a word begins."""

    ways: tuple[tuple[str, ...], ...]
    begins: bool = False
    excluded: bool = False


def terms_of(text: str) -> list[Term]:
    """What a text asks for. Raises UsageError where that is nothing, or only what must not be there."""
    terms = []
    for minus, quoted, plain in _TERM.findall(text):
        words = tuple(_WORD.findall((quoted or plain).lower()))
        if words and not (words[0] in STOP_WORDS and len(words) == 1):
            terms.append(Term((words,), begins=plain.endswith("*"), excluded=bool(minus)))
    if all(term.excluded for term in terms):
        raise UsageError(f"{text!r} names no word to look for; as in: kosmograph find 'dog -cat'")
    return terms


def words_of(phrase: Phrase) -> Term | None:
    """What must stand in a caption that has this phrase; None where that cannot be said."""
    if phrase.head:
        ways = tuple(tuple(_WORD.findall(form)) for form in forms_of(phrase.head))
    else:
        ways = (tuple(_WORD.findall(phrase.norm)),)
    return Term(ways, begins=phrase.begins) if all(ways) else None


def match_of(terms: Sequence[Term]) -> str:
    """The terms in the language of SQLite's FTS5."""

    def one(term: Term) -> str:
        return "({})".format(" OR ".join('"{}"{}'.format(" ".join(way), "*" * term.begins) for way in term.ways))

    together = " AND ".join(one(term) for term in terms if not term.excluded)
    return " NOT ".join([f"({together})", *(one(term) for term in terms if term.excluded)])


def tsquery_of(terms: Sequence[Term], value: Callable[[str], str]) -> str:
    """The terms in PostgreSQL's functions. `value` takes a text, and gives its name in the statement."""

    def one(way: tuple[str, ...], begins: bool) -> str:
        if begins:  # words hold neither quotes nor operators
            return f"to_tsquery('english', {value(' <-> '.join(way) + ':*')})"
        return f"phraseto_tsquery('english', {value(' '.join(way))})"

    ways = [" || ".join(one(way, term.begins) for way in term.ways) for term in terms]
    return " && ".join(f"{'!! ' * term.excluded}({some})" for term, some in zip(terms, ways, strict=True))
