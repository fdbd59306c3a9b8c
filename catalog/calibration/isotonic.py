"""Isotonic regression: the chance of being right as a function of the evidence that never falls.

Pool adjacent violators (Barlow and others, "Statistical Inference under Order Restrictions", 1972), and a curve through
what it gives that is continuous and keeps the order of the evidence.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

Curve = Sequence[tuple[float, float]]
"""Points (evidence, trust) from evidence 0 to 1, ascending; linear between them."""

MOST_BINS, LEAST_BOXES = 48, 10
"""Bins of the evidence, and boxes in the smallest of them."""
TILT = 0.05
"""How far a level stretch rises at its ends, of the way to the next level: enough to keep the order of its boxes."""


class Block(NamedTuple):
    """Some bins side by side: how many boxes they weigh, how many of these are right, and how many bins they are."""

    weight: float
    right: float
    bins: int = 1

    @property
    def rate(self) -> float:
        return self.right / self.weight


def pool(blocks: Iterable[Block]) -> list[Block]:
    """The blocks in their order, those put together whose rates do not rise: the least squares fit that never falls."""
    pooled: list[Block] = []
    for block in blocks:
        while pooled and pooled[-1].rate >= block.rate:
            before = pooled.pop()
            block = Block(before.weight + block.weight, before.right + block.right, before.bins + block.bins)
        pooled.append(block)
    return pooled


def curve_of(judged: Sequence[tuple[float, int]]) -> Curve:
    """The curve for boxes, each with its evidence, in steps of STEP in [0, 1], and whether it is right, ascending.

    Every block counts one box more than it has, right to the degree to which all of them are: none says 0 or 1.
    """
    places, counts = zip(*_bins(judged), strict=True)
    base = (sum(right for _, right in judged) + 0.5) / (len(judged) + 1)
    levels = pool(Block(n + 1, right + base, bins) for n, right, bins in pool(counts))
    points = list(zip(places, _tilted(levels), strict=True))
    (first, low), (last, high) = points[0], points[-1]
    before = [(0.0, low * (1 - TILT))] if first > 0 else []
    behind = [(1.0, high + (1 - high) * TILT)] if last < 1 else []
    return [*before, *points, *behind]


def value_at(curve: Curve, evidence: float) -> float:
    """The trust in a box of this evidence, as the view `groundings` has it."""
    place = min(bisect_right(curve, evidence, key=lambda point: point[0]), len(curve) - 1)
    (x1, y1), (x2, y2) = curve[max(place - 1, 0)], curve[place]
    return y1 + (y2 - y1) / (x2 - x1) * (evidence - x1) if x2 > x1 else y2


def _bins(judged: Sequence[tuple[float, int]]) -> list[tuple[float, Block]]:
    """Bins of about as many boxes, each with its mean evidence; boxes of the same evidence stay together."""
    least = max(LEAST_BOXES, math.ceil(len(judged) / MOST_BINS))
    borders, at = [0], least
    while at < len(judged):
        if judged[at][0] == judged[at - 1][0]:
            at += 1
        else:
            borders.append(at)
            at += least
    if len(borders) > 1 and len(judged) - borders[-1] < least:
        borders.pop()
    parts = [judged[start:end] for start, end in pairwise([*borders, len(judged)])]
    return [(_mean(part), Block(len(part), sum(right for _, right in part))) for part in parts]


def _mean(judged: Sequence[tuple[float, int]]) -> float:
    """The mean evidence; rounding does not take it out of its bin."""
    mean = math.fsum(evidence for evidence, _ in judged) / len(judged)
    return min(max(mean, judged[0][0]), judged[-1][0])


def _tilted(levels: Sequence[Block]) -> list[float]:
    """The rate of each bin: those of one block rise a little around its rate."""
    rates = [0.0, *(level.rate for level in levels), 1.0]
    rooms = [b - a for a, b in pairwise(rates)]
    values = []
    for place, level in enumerate(levels):
        step = TILT * min(rooms[place], rooms[place + 1]) / level.bins
        values += [level.rate + step * (2 * number - level.bins + 1) for number in range(level.bins)]
    return values
