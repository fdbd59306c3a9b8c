"""Text for pictures, in the font that Pillow brings along: the same on every machine, with few but Latin letters."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont

_SPELLED = str.maketrans(
    {"–": "-", "—": "-", "‘": "'", "×": "x", "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
)
"""What the font lacks and Unicode does not take apart."""
_MISSING = "\uffff"
"""Never a letter, so it shows what the font draws for those that it lacks: an empty square."""


def font_of(size: int) -> Font:
    """The built-in font at a size in pixels. A new one each time: FreeType's faces are not for several threads."""
    font = ImageFont.load_default(size)
    assert isinstance(font, Font)
    return font


def legible(text: str) -> str:
    """The text in letters that the font has, spaces folded: accents fall away, others become an empty square."""
    return "".join(letter for letter, _ in placed_letters(text))


def placed_letters(text: str) -> list[tuple[str, int]]:
    """The letters of the legible text, each with its place in the text itself."""
    kept: list[tuple[str, int]] = []
    for place, character in enumerate(text):
        for letter in "".join(map(_letter, character.translate(_SPELLED))):
            if letter != " " or (kept and kept[-1][0] != " "):
                kept.append((letter, place))
    return kept[:-1] if kept and kept[-1][0] == " " else kept


def shortened(text: str, font: Font, width: float) -> str:
    """The text, or as much of it as fits into `width` with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    kept = text[: max(0, int(width))]  # no letter is narrower than a pixel
    while kept and font.getlength(kept + "…") > width:
        kept = kept[:-1]
    return kept.rstrip() + "…"


def wrapped(text: str, longest: int, fits: Callable[[int, int], bool]) -> Iterator[range]:
    """The places of each line of the text: as many words as fit, and words in pieces of `longest` letters."""
    line = range(0)
    for piece in re.finditer(rf"\S{{1,{longest}}}", text):
        if line and fits(line.start, piece.end()):
            line = range(line.start, piece.end())
            continue
        if line:
            yield line
        line = range(*piece.span())
    if line:
        yield line


@cache
def _letter(character: str) -> str:
    """The character as the font can draw it: itself, without its accent, or the sign for what is missing."""
    if character.isspace():
        return " "
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Mn", "Me"}:
        return ""  # joiners, marks, directions: they have no picture of their own
    if character.isascii() or _has(character):
        return character
    parts = [part for part in unicodedata.normalize("NFKD", character) if unicodedata.category(part) != "Mn"]
    return "".join(parts) if all(part.isascii() for part in parts) else _MISSING


def _has(character: str) -> bool:
    """Whether the font draws it otherwise than what it lacks."""
    font = font_of(16)
    shown, missing = font.getmask(character), font.getmask(_MISSING)
    return shown.size != missing.size or bytes(shown) != bytes(missing)
