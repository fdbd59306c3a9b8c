"""How well a number in [0, 1] tells right boxes from wrong ones, and how far it is the chance of being right."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

BINS = 15
"""Of calibration errors: each has as many boxes."""

Group = tuple[float, int, int]
"""A value, how many boxes have it, and how many of these are right."""


class Bin(NamedTuple):
    """Boxes of about one value: its mean, the part of them that is right, and how many they are."""

    value: float
    right: float
    boxes: int


def grouped(values: Iterable[float], right: Iterable[int]) -> list[Group]:
    """The boxes by their value, ascending."""
    groups: list[Group] = []
    before, count, hits = -1.0, 0, 0
    for value, is_right in sorted(zip(values, right, strict=True)):
        if value != before and count:
            groups.append((before, count, hits))
            count = hits = 0
        before, count, hits = value, count + 1, hits + is_right
    return [*groups, (before, count, hits)] if count else []


def auroc(groups: Sequence[Group]) -> float | None:
    """The chance that a right box has a higher value than a wrong one, ties counted half; None without either."""
    wins, below, positive = 0.0, 0, 0
    for _, count, hits in groups:
        wins += hits * (below + (count - hits) / 2)
        below += count - hits
        positive += hits
    return wins / positive / below if positive and below else None


def reliability(groups: Sequence[Group], bins: int = BINS) -> list[Bin]:
    """Bins of as many boxes each, by their value; boxes of one value, where a border parts them, share their rate."""
    total = sum(count for _, count, _ in groups)
    sizes = [b - a for a, b in pairwise(total * number // bins for number in range(bins + 1))]
    left = iter(groups)
    value, count, rate = 0.0, 0, 0.0
    found = []
    for size in filter(None, sizes):
        values = rights = 0.0
        wanted = size
        while wanted:
            if not count:
                value, count, hits = next(left)
                rate = hits / count
            some = min(wanted, count)
            values, rights = values + some * value, rights + some * rate
            wanted, count = wanted - some, count - some
        found.append(Bin(values / size, rights / size, size))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error: how far value and rate of a bin lie apart, on the average of the boxes."""
    return sum(one.boxes * abs(one.value - one.right) for one in bins) / sum(one.boxes for one in bins)
