"""Room for decoded images, shared by the chunks of a worker."""

from hypothesis import given
from hypothesis import strategies as st

from worker.budget import PixelBudget, Share
from worker.images import PIXEL_BYTES


def budget_of(images: int) -> PixelBudget:
    return PixelBudget(images * PIXEL_BYTES)


def test_room_is_in_bytes_and_for_one_image_at_least() -> None:
    assert PixelBudget(10 * PIXEL_BYTES + 1).free == 10
    assert PixelBudget(1).free == 1


def test_older_chunk_gets_the_room_that_comes_back_though_a_younger_asks_first() -> None:
    budget = budget_of(4)
    older, younger = budget.share(lambda: None), budget.share(lambda: None)
    assert (older.take(9), younger.take(9)) == (4, 0)
    older.give_back(2)
    assert younger.take(9) == 0
    assert older.take(5) == 2


def test_younger_chunk_gets_what_the_older_leaves() -> None:
    budget = budget_of(4)
    older, younger = budget.share(lambda: None), budget.share(lambda: None)
    assert (older.take(3), younger.take(9)) == (3, 1)
    assert younger.is_short


def test_chunk_is_woken_when_room_comes_back_and_when_the_older_ones_have_enough() -> None:
    woken: list[str] = []
    budget = budget_of(2)
    first = budget.share(lambda: woken.append("first"))
    second = budget.share(lambda: woken.append("second"))
    third = budget.share(lambda: woken.append("third"))
    assert (first.take(3), second.take(1), third.take(1)) == (2, 0, 0)
    assert not woken
    first.give_back()
    assert woken == ["first"]
    assert first.take(1) == 1
    with first:
        pass
    assert woken == ["first", "second"]
    second.take(1)
    assert woken == ["first", "second", "third"]


def test_room_of_a_chunk_that_ends_early_comes_back() -> None:
    budget = budget_of(3)
    with budget.share(lambda: None) as share:
        share.take(9)
    assert budget.free == 3
    assert budget.share(lambda: None).take(3) == 3


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["take", "back", "end"]))))
def test_no_more_is_given_than_there_is_and_all_comes_back(images: int, steps: list[tuple[int, str]]) -> None:
    budget = budget_of(images)
    shares = [budget.share(lambda: None) for _ in range(4)]
    for number, step in steps:
        share = shares[number]
        if step == "take":
            share.take(2)
        elif step == "back" and share.held:
            share.give_back()
        elif step == "end":
            ended(share)
        assert budget.free + sum(one.held for one in shares) == images
        assert budget.free >= 0
    for share in shares:
        ended(share)
    assert budget.free == images
    assert budget.share(lambda: None).take(images) == images


def ended(share: Share) -> None:
    with share:
        pass
