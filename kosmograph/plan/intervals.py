"""Figures with an interval that holds the truth nine times in ten, as far as only the draw is left to chance."""

from collections.abc import Sequence
from math import exp, sqrt
from statistics import fmean, stdev
from typing import NamedTuple

Z = 1.6448536269514722
"""The normal distribution's quantile at 95%: two of them leave 90% between them."""


class Figure(NamedTuple):
    """A value and the ends of its interval; those are the value itself where nothing is left to chance."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> "Figure":
        """Each of the three, for a factor that is not negative."""
        return Figure(self.value * factor, self.low * factor, self.high * factor)

    def plus(self, more: float) -> "Figure":
        return Figure(self.value + more, self.low + more, self.high + more)

    def inverse(self) -> "Figure":
        """One over it: the ends change places."""
        return Figure(*(1 / end for end in (self.value, self.high, self.low)))


def share_of(seen: int, drawn: int, total: int) -> Figure:
    """The share of an archive of `total` from those that were seen among `drawn`: Wilson's score interval.

    Where a large part of the archive was drawn, less is left to chance (the finite population's correction), and
    nothing where it was drawn whole. None seen has still an upper end.
    """
    share = seen / drawn
    if drawn >= total:
        return Figure(share, share, share)
    n = drawn * (total - 1) / (total - drawn)
    middle, half = share + Z * Z / (2 * n), Z * sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    return Figure(share, max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))


def mean_of(values: Sequence[float]) -> Figure:
    """The mean of at least two repeated measurements of what is above 0, by Student's distribution.

    Its ends are as far away in proportion, on both sides: no end is 0, which would make a rate without end.
    """
    mean = fmean(values)
    factor = exp(student(len(values) - 1) * stdev(values) / sqrt(len(values)) / mean)
    return Figure(mean, mean / factor, mean * factor)


def student(degrees: int) -> float:
    """The 95% quantile of Student's t: Abramowitz & Stegun 26.7.5, within 1% from two degrees of freedom on."""
    if degrees == 1:
        return 6.3138
    z3, z5, z7 = (pow(Z, power) for power in (3, 5, 7))
    first, second = (z3 + Z) / 4, (5 * z5 + 16 * z3 + 3 * Z) / 96
    third = (3 * z7 + 19 * z5 + 17 * z3 - 15 * Z) / 384
    return float(Z + first / degrees + second / degrees**2 + third / degrees**3)
