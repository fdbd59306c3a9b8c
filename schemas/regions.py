"""Regions: boxes that people name, on their way to the two location tokens of a prompt."""

import math
from collections.abc import Iterable

from schemas.grounding import cells_from_box

Size = tuple[int, int]
"""Width and height of the upright image in pixels."""

SLACK = 1e-3
"""So far a box may reach beyond the image, as a fraction of it: the sum of a corner and a width is rarely exact."""


def region_text(numbers: Iterable[float]) -> str:
    """`x1,y1,x2,y2`, as a recipe takes it: the same for 10 and 10.0."""
    return ",".join(f"{number:.12g}" for number in numbers)


def region_tokens(text: str, size: Size | None = None) -> str:
    """The location tokens of the box `x1,y1,x2,y2`: in fractions where none is above 1, else in pixels of `size`.

    Raises ValueError, with what is wrong, for what is no box, is inverted, or reaches beyond the image.
    """
    corners = _fractions(text, _numbers(text), size)
    if min(corners) < -SLACK or max(corners) > 1 + SLACK:
        within = f", which is {size[0]}×{size[1]}" if size else ""
        raise ValueError(f"the region {text} reaches beyond the image{within}")
    x1, y1, x2, y2 = (min(1.0, max(0.0, corner)) for corner in corners)
    if not (x1 < x2 and y1 < y2):
        raise ValueError(f"the region {text} has no area: x1 must be less than x2, and y1 less than y2")
    return "".join(f"<patch_index_{cell:04}>" for cell in cells_from_box(x1, y1, x2, y2))


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{text[:80]!r} is no region; one is X1,Y1,X2,Y2")
    return numbers


def _fractions(text: str, numbers: list[float], size: Size | None) -> list[float]:
    if max(numbers) <= 1 + SLACK:
        return numbers
    if size is None:
        raise ValueError(f"the region {text} must be in fractions of the image, from 0 to 1")
    width, height = size
    return [number / side for number, side in zip(numbers, (width, height, width, height), strict=True)]
