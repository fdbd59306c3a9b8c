"""The head noun of a phrase: what "two small brown dogs on the beach" is about, `dog`.

It is a key to find phrases by, made by a few rules of English and no dictionary: what people type goes through the same
rules, so a form that is no word (`glas`) still finds what it should.
"""

import re
from functools import lru_cache

_QUANTITIES = "bunch collection couple crowd dozen flock group handful herd lot lots number pair pile row"
QUANTITIES = frozenset(_QUANTITIES.split())
"""Before `of`, these only say how many: a group of people is about people."""
_ENDS = """
    about above across after against along among around at before behind below beneath beside between beyond by
    down during for from in inside into like near of off on onto out outside over past through to toward towards
    under up upon with within without and or but that which who whose while as is are was were carrying dressed
    driving eating filled flying hanging holding jumping leaning looking lying made parked playing riding
    running seated sitting smiling standing surrounded talking walking watching wearing
"""
ENDS = frozenset(_ENDS.split())
"""Words that end what is said of the noun before them."""
IRREGULAR = {
    "people": "person",
    "men": "man",
    "women": "woman",
    "children": "child",
    "feet": "foot",
    "teeth": "tooth",
    "geese": "goose",
    "mice": "mouse",
    "oxen": "ox",
    "leaves": "leaf",
    "loaves": "loaf",
    "knives": "knife",
    "wolves": "wolf",
    "shelves": "shelf",
    "buses": "bus",
    "cookies": "cookie",
    "movies": "movie",
}
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@lru_cache(maxsize=2**16)
def head_of(phrase: str) -> str:
    """The head noun of a phrase in lower case, in the singular; "" where there is no word."""
    words = _WORD.findall(phrase.lower())
    while len(words) > 2 and "of" in words[1:4] and words[words.index("of") - 1] in QUANTITIES:
        words = words[words.index("of") + 1 :]
    end = next((place for place, word in enumerate(words) if place and word in ENDS), len(words))
    return singular(words[end - 1]) if words else ""


def singular(word: str) -> str:
    """The singular of an English noun, where its form tells it."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith("men") and len(word) > 5:
        return word[:-3] + "man"
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


def forms_of(head: str) -> list[str]:
    """Every word whose `singular` this is: the head itself, and its plurals."""
    irregular = [plural for plural, one in IRREGULAR.items() if one == head]
    regular = [head + "s", head + "es", head[:-1] + "ies", head[:-3] + "men"]
    return [head, *irregular, *(form for form in regular if singular(form) == head)]
