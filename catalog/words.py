"""Words that people look for in captions, as each database's full-text search takes them.

brown dog          both, in any form and order: also "dogs that are brown"
"brown dog"        in this order, side by side
-cat               not this one
snow*              words that begin so; what is indexed is their stem: universit* is longer than that of university
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from catalog.phrases import Phrase
from schemas.errors import UsageError
from schemas.heads import forms_of

_TERM = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')
_WORD = re.compile(r"\w+")
_STOP_WORDS = """
    a about above after again against all am an and any are as at be because been before being below between both but by
    can did do does doing don down during each few for from further had has have having he her here hers herself him
    himself his how i if in into is it its itself just me more most my myself no nor not now of off on once only or
    other our ours ourselves out over own s same she should so some such t than that the their theirs them themselves
    then there these they this those through to too under until up very was we were what when where which while who
    whom why will with you your yours yourself yourselves"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that say nothing alone: those that PostgreSQL leaves out of its index of English. SQLite leaves out none."""


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
        begins = plain.endswith("*")
        if words and not (words[0] in STOP_WORDS and len(words) == 1 and not begins):
            terms.append(Term((words,), begins, excluded=bool(minus)))
    if all(term.excluded for term in terms):
        raise UsageError(f"{text!r} names no word to look for; as in: kosmograph find 'dog -cat'")
    return terms


def words_of(phrase: Phrase) -> Term | None:
    """What must stand in a caption that has this phrase; None where that cannot be said.

    Of the last word of a phrase that only begins so nothing can: the index has stems, which may be shorter.
    """
    if phrase.head:
        ways = tuple(tuple(_WORD.findall(form)) for form in forms_of(phrase.head))
    else:
        ways = (tuple(_WORD.findall(phrase.norm.rpartition(" ")[0] if phrase.begins else phrase.norm)),)
    return Term(ways) if all(ways) else None


def match_of(terms: Sequence[Term]) -> str:
    """The terms in the language of SQLite's FTS5."""

    def one(term: Term) -> str:
        return "({})".format(" OR ".join('"{}"{}'.format(" ".join(way), "*" * term.begins) for way in term.ways))

    together = " AND ".join(one(term) for term in terms if not term.excluded)
    return " NOT ".join([f"({together})", *(one(term) for term in terms if term.excluded)])


def tsquery_of(terms: Sequence[Term], value: Callable[[str], str]) -> str:
    """The terms in PostgreSQL's functions. `value` takes a text, and gives its name in the statement."""

    def one(way: tuple[str, ...], begins: bool) -> str:
        *before, last = way if begins else (*way, "")
        words = f"phraseto_tsquery('english', {value(' '.join(before))})"
        if not begins:
            return words
        # as it stands: the beginning of a word has no stem, and is no word to leave out
        beginning = f"to_tsquery('simple', {value(last + ':*')})"  # which holds neither quotes nor operators
        return f"tsquery_phrase({words}, {beginning})" if before else beginning

    ways = [" || ".join(one(way, term.begins) for way in term.ways) for term in terms]
    return " && ".join(f"{'!! ' * term.excluded}({some})" for term, some in zip(terms, ways, strict=True))
