"""Lengths of captions for a benchmark: lognormal, within bounds, with the mean that is asked for."""

import math
from statistics import NormalDist, fmean

import numpy as np

SHORTEST, LONGEST = 8, 128
SPREAD = 0.6
"""Of the logarithm: the longest tenth is about twice as long as the middle."""


def limits(count: int, mean: float, seed: int = 0) -> list[int]:
    """So many lengths, in random order.

    They are the quantiles of the distribution and not draws from it, so that few of them are as long as many.
    """
    low, high = math.log(SHORTEST) - 2, math.log(LONGEST) + 2
    for _ in range(50):
        middle = (low + high) / 2
        lengths = quantiles(count, middle)
        low, high = (middle, high) if fmean(lengths) < mean else (low, middle)
    return [int(length) for length in np.random.default_rng(seed).permutation(lengths)]


def quantiles(count: int, log_mean: float) -> list[int]:
    """Ascending."""
    normal = NormalDist(log_mean, SPREAD)
    wished = (math.exp(normal.inv_cdf((place + 0.5) / count)) for place in range(count))
    return [round(min(LONGEST, max(SHORTEST, length))) for length in wished]
