"""The pictures of the canaries: drawings in whole numbers, the same to the bit on every machine."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from worker.generation import IMAGE_SIZE, Pixels

Colour = tuple[int, int, int]
Mask = NDArray[np.bool_]

RED, GREEN, BLUE, YELLOW = (215, 35, 40), (35, 165, 60), (45, 75, 220), (240, 220, 40)
PURPLE, WHITE, BLACK = (140, 55, 180), (246, 246, 246), (18, 18, 18)


@cache
def canary_pictures() -> dict[int, Pixels]:
    """The pictures by number, none of which may be written to.

    A number stands for its picture for good, since databases hold what was said of it: another picture takes a new one.
    """
    drawn = {
        1: _drawn((128, 128, 128), (128, 128, 128), ("ring", RED, 112, 108, 48)),
        2: _drawn((225, 225, 215), (150, 190, 225), ("circle", BLUE, 62, 80, 42), ("square", GREEN, 160, 140, 40)),
        3: _drawn((20, 40, 60), (90, 20, 50), ("triangle", YELLOW, 66, 150, 44), ("cross", WHITE, 156, 72, 44)),
        4: _drawn(
            (235, 205, 170),
            (120, 220, 190),
            ("square", BLACK, 50, 60, 34),
            ("ring", PURPLE, 120, 160, 40),
            ("triangle", RED, 176, 62, 34),
        ),
    }
    for picture in drawn.values():
        picture.flags.writeable = False
    return drawn


def _drawn(left: Colour, right: Colour, *things: tuple[str, Colour, int, int, int]) -> Pixels:
    """Shapes (each with its colour, the column and row of its middle, and half of its side) on a ground that shades."""
    rows, columns = np.indices((IMAGE_SIZE, IMAGE_SIZE))
    share, whole = columns[..., None], IMAGE_SIZE - 1
    ground = (np.array(left) * (whole - share) + np.array(right) * share) // whole
    for shape, colour, column, row, half in things:
        ground[_mask(shape, columns - column, rows - row, half)] = colour
    return ground.astype(np.uint8)


def _mask(shape: str, x: NDArray[np.intp], y: NDArray[np.intp], half: int) -> Mask:
    """Where the shape is, from the distances to its middle."""
    distance, third = x * x + y * y, half // 3
    inside: dict[str, Mask] = {
        "circle": distance <= half * half,
        "ring": (distance <= half * half) & (distance > (2 * third) ** 2),
        "square": (abs(x) <= half) & (abs(y) <= half),
        "triangle": (abs(y) <= half) & (2 * abs(x) <= y + half),
        "cross": (abs(x) <= half) & (abs(y) <= third) | (abs(x) <= third) & (abs(y) <= half),
    }
    return inside[shape]
