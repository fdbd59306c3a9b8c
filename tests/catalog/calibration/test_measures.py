"""AUROC by its definition on pairs, and the calibration error by hand."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.calibration.measures import auroc, calibration_error, grouped, reliability

JUDGED = st.lists(st.tuples(st.integers(0, 8).map(lambda n: n / 8), st.integers(0, 1)), min_size=1, max_size=60)


@given(JUDGED)
def test_auroc_is_the_part_of_pairs_in_order_with_ties_as_halves(judged: list[tuple[float, int]]) -> None:
    right = [value for value, is_right in judged if is_right]
    wrong = [value for value, is_right in judged if not is_right]
    pairs = [Fraction(a > b) + Fraction(a == b, 2) for a in right for b in wrong]
    found = auroc(grouped(*zip(*judged, strict=True)))
    assert found == (pytest.approx(float(sum(pairs) / len(pairs))) if pairs else None)


def test_nothing_has_no_auroc() -> None:
    assert auroc(grouped([], [])) is None


def test_calibration_error_by_hand() -> None:
    bins = reliability(grouped([0.1, 0.1, 0.3, 0.3, 0.9, 0.9], [0, 0, 0, 1, 1, 1]), bins=3)
    assert [(round(one.value, 9), one.right, one.boxes) for one in bins] == [(0.1, 0, 2), (0.3, 0.5, 2), (0.9, 1, 2)]
    assert calibration_error(bins) == pytest.approx((0.1 + 0.2 + 0.1) / 3)


def test_bins_have_as_many_boxes_and_ties_share_their_rate() -> None:
    """Given ten boxes of one value, half of them right, whichever come first: both bins have that rate."""
    for right in ([1] * 5 + [0] * 5, [0] * 5 + [1] * 5):
        bins = reliability(grouped([0.5] * 10, right), bins=2)
        assert [tuple(one) for one in bins] == [(0.5, 0.5, 5), (0.5, 0.5, 5)]


@given(JUDGED, st.integers(1, 15))
def test_bins_lose_and_invent_nothing(judged: list[tuple[float, int]], bins: int) -> None:
    values, right = zip(*judged, strict=True)
    found = reliability(grouped(values, right), bins)
    assert sum(one.boxes for one in found) == len(judged)
    assert max(one.boxes for one in found) - min(one.boxes for one in found) <= 1
    assert sum(one.boxes * one.right for one in found) == pytest.approx(sum(right))
    assert sum(one.boxes * one.value for one in found) == pytest.approx(sum(values))
