"""Phrases as people name them when they search.

dog            a head noun: also "two brown dogs"
brown dog      the whole phrase, but for its article
=dog           the whole phrase, of one word
dog*           what begins so
"""

from dataclasses import dataclass

from schemas.errors import UsageError
from schemas.grounding import phrase_norm
from schemas.heads import head_of


@dataclass(frozen=True, slots=True)
class Phrase:
    """What is looked for: a head noun where there is one, else a whole phrase in its normal form, or how it begins."""

    norm: str
    head: str = ""
    begins: bool = False


def phrase_named(text: str) -> Phrase:
    """What a text names. Raises UsageError where that is nothing."""
    exact = text.strip().startswith("=")
    norm = phrase_norm(text.strip().removeprefix("="))
    if norm.endswith("*"):
        found = Phrase(norm.rstrip("*"), begins=True)
    elif exact or " " in norm:
        found = Phrase(norm)
    else:
        found = Phrase(norm, head_of(norm))
    if not found.norm.strip() or not (found.head or found.begins or exact or " " in norm):
        raise UsageError(f"the phrase {text!r} names nothing to look for; as in --phrase dog")
    return found
