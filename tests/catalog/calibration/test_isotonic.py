"""The map from evidence to the chance of being right, held against its definition."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.calibration.isotonic import LEAST_BOXES, MOST_BINS, Block, curve_of, pool, value_at
from schemas.calibration import STEP

BLOCKS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12)
EVIDENCE = st.integers(0, round(1 / STEP)).map(lambda steps: steps * STEP)
JUDGED = st.lists(st.tuples(EVIDENCE, st.integers(0, 1)), min_size=1, max_size=120).map(sorted)


@given(BLOCKS)
def test_pooled_rates_are_those_of_the_min_max_formula(counts: list[tuple[int, int]]) -> None:
    """Robertson, Wright and Dykstra, "Order Restricted Statistical Inference" (1988), theorem 1.4.4."""
    blocks = [Block(weight, min(weight, right)) for weight, right in counts]

    def rate(start: int, end: int) -> float:
        part = blocks[start : end + 1]
        return sum(block.right for block in part) / sum(block.weight for block in part)

    places = range(len(blocks))
    wanted = [max(min(rate(a, b) for b in places[at:]) for a in places[: at + 1]) for at in places]
    assert [block.rate for block in pool(blocks) for _ in range(block.bins)] == pytest.approx(wanted)


@given(JUDGED)
def test_curve_rises_from_0_to_1_and_says_neither_of_a_box(judged: list[tuple[float, int]]) -> None:
    curve = curve_of(judged)
    assert (curve[0][0], curve[-1][0]) == (0, 1)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(curve))
    assert curve[0][1] > 0
    assert curve[-1][1] < 1
    assert len(curve) <= MOST_BINS + 2


@given(JUDGED, st.floats(0, 1))
def test_value_lies_between_the_points_beside_it(judged: list[tuple[float, int]], evidence: float) -> None:
    curve = curve_of(judged)
    low = max(y for x, y in curve if x <= evidence)
    high = min(y for x, y in curve if x >= evidence)
    assert low - 1e-9 <= value_at(curve, evidence) <= high + 1e-9
    assert all(value_at(curve, x) == pytest.approx(y) for x, y in curve)


def test_curve_through_what_is_a_chance_already_leaves_it_as_it_is() -> None:
    rng = random.Random(1)
    judged = sorted((evidence, int(rng.random() < evidence)) for evidence in (rng.random() for _ in range(20_000)))
    curve = curve_of(judged)
    assert all(value_at(curve, part / 20) == pytest.approx(part / 20, abs=0.05) for part in range(21))


def test_few_boxes_share_a_bin_and_boxes_of_one_evidence_always_do() -> None:
    assert len(curve_of([(number / 40, number % 2) for number in range(40)])) <= 40 // LEAST_BOXES + 2
    same = curve_of([(0.5, number % 2) for number in range(500)])
    assert [x for x, _ in same] == [0, 0.5, 1]
    assert value_at(same, 0.5) == pytest.approx(0.5)


def test_a_bin_that_is_all_right_is_not_certain() -> None:
    judged = [(0.1, 0)] * 20 + [(0.9, 1)] * 20
    low, high = value_at(curve_of(judged), 0.1), value_at(curve_of(judged), 0.9)
    assert (low, high) == pytest.approx((0.5 / 21, 20.5 / 21))
