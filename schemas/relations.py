"""How two boxes of one picture lie to one another: each relation as an SQL expression of both databases.

Boxes are fractions of the picture, y downwards. `{a}` and `{b}` stand for the two boxes' aliases in a statement.
"""

from schemas.grounding import GRID

NEAR = 0.1
"""How wide the gap between two near boxes is at most, along either side, as a fraction of that side of the picture."""
CELL = 1 / GRID
"""A cell of the model's grid: nothing is told apart that is finer."""

_CENTRE_X, _CENTRE_Y = "({0}.x1 + {0}.x2) / 2", "({0}.y1 + {0}.y2) / 2"


def _before(low: str, high: str, centre: str, first: str, second: str) -> str:
    """The first one's centre lies before all of the second, and the second one's behind all of the first."""
    return f"({centre.format(first)} < {second}.{low} AND {centre.format(second)} > {first}.{high})"


def _along_x(first: str, second: str) -> str:
    return _before("x1", "x2", _CENTRE_X, first, second)


def _along_y(first: str, second: str) -> str:
    return _before("y1", "y2", _CENTRE_Y, first, second)


RELATIONS = {
    "left_of": _along_x("{a}", "{b}"),
    "right_of": _along_x("{b}", "{a}"),
    "above": _along_y("{a}", "{b}"),
    "below": _along_y("{b}", "{a}"),
    "inside": f"({{a}}.x1 >= {{b}}.x1 - {CELL} AND {{a}}.x2 <= {{b}}.x2 + {CELL} AND {{a}}.y1 >= {{b}}.y1 - {CELL}"
    f" AND {{a}}.y2 <= {{b}}.y2 + {CELL} AND {{a}}.area < {{b}}.area)",
    "overlaps": "({a}.x1 < {b}.x2 AND {b}.x1 < {a}.x2 AND {a}.y1 < {b}.y2 AND {b}.y1 < {a}.y2)",
    "near": f"({{a}}.x1 - {{b}}.x2 <= {NEAR} AND {{b}}.x1 - {{a}}.x2 <= {NEAR} AND {{a}}.y1 - {{b}}.y2 <= {NEAR}"
    f" AND {{b}}.y1 - {{a}}.y2 <= {NEAR})",
}
"""By name, what of the first box is true with regard to the second."""


def relation(name: str, a: str, b: str) -> str:
    """The relation between the boxes with these aliases, as a condition."""
    return RELATIONS[name].format(a=a, b=b)
