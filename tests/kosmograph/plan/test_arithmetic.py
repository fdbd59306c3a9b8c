"""What a plan computes from given figures: no clock, no model."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from kosmograph.plan.deadline import deadline_of
from kosmograph.plan.estimate import Asked, estimate, growth_of, limit_of
from kosmograph.plan.intervals import Figure, mean_of, share_of, student
from kosmograph.plan.meter import Mark, Meter, Shares, seconds_a_generation, shares, steady
from kosmograph.plan.sample import Sample, draw
from kosmograph.plan.trial import Pace, Trial
from kosmograph.plan.words import Plan, document_of, lines_of
from producer.sources import Item, Listed, Skip
from schemas.errors import UsageError
from schemas.recipes import Recipe


@pytest.mark.parametrize(
    ("seen", "drawn", "total", "low", "high"),
    [
        (0, 100, 10**9, 0.0, 0.0263),  # z² / (n + z²)
        (100, 100, 10**9, 0.9737, 1.0),
        (10, 100, 10**9, 0.0610, 0.1596),
        (10, 100, 100, 0.1, 0.1),
        (10, 100, 125, 0.0804, 0.1237),
    ],
)
def test_share_has_wilsons_interval(seen: int, drawn: int, total: int, low: float, high: float) -> None:
    found = share_of(seen, drawn, total)
    assert found == pytest.approx((seen / drawn, low, high), abs=1e-3)


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 6.314), (2, 2.920), (5, 2.015), (10, 1.812), (100, 1.660)])
def test_students_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert student(degrees) == pytest.approx(quantile, rel=0.015)


def test_mean_of_measurements_that_agree_is_certain() -> None:
    assert mean_of([2.0, 2.0, 2.0]) == Figure(2.0, 2.0, 2.0)
    assert mean_of([1.0, 2.0, 3.0]) == pytest.approx((2.0, 0.861, 4.647), rel=0.015)
    assert mean_of([0.1, 9.0]).low > 0
    assert Figure(2.0, 1.0, 4.0).inverse() == Figure(0.5, 0.25, 1.0)


class Listing:
    """A source of numbered images, each tenth name of which is skipped."""

    spec, roots = "listing", ()

    def __init__(self, count: int) -> None:
        self.count = count

    def list(self, after: str | None = None) -> Iterator[Listed]:
        for number in range(self.count):
            yield Listed(str(number), item=Item(str(number)))
            if number % 10 == 0:
                yield Listed(str(number), skip=Skip.HIDDEN)


def test_sample_is_of_the_whole_listing_and_the_same_each_time() -> None:
    told: list[int] = []
    sample = draw([Listing(6000), Listing(4000)], 1000, progress=told.append)
    assert (len(sample.items), sample.listed, sample.skipped, sample.whole) == (1000, 10_000, {Skip.HIDDEN: 1000}, True)
    assert sample.items == draw([Listing(6000), Listing(4000)], 1000).items
    assert told == list(range(1000, 10_001, 1000))
    numbers = [int(item.uri) for item in sample.items]
    # 4,000 numbers come twice: a tenth of the listing each, give or take five standard deviations
    for first, share in ((0, 0.2), (1000, 0.2), (3000, 0.2), (4000, 0.1), (5000, 0.1)):
        assert abs(sum(first <= number < first + 1000 for number in numbers) / 1000 - share) < 0.065
    halves = [sum(number < 4000 for number in half) for half in (numbers[:500], numbers[500:])]
    assert abs(halves[0] - halves[1]) < 80  # any first part of it is a sample too


def test_sample_of_few_is_all_of_them_and_a_known_total_ends_the_listing() -> None:
    assert sorted(int(item.uri) for item in draw([Listing(7)], 100).items) == list(range(7))
    bounded = draw([Listing(10**12)], 10, most=500)
    assert (bounded.listed, bounded.whole, len(bounded.items)) == (500, False, 10)
    assert draw([Listing(500)], 10, most=500).whole
    assert not draw([Listing(10**12)], 10, stopped=lambda: True).whole


def marks(per_s: float = 50.0, slots: int = 64, images: int = 1000, start_s: float = 8.0) -> list[Mark]:
    """Twice a second: the slots fill in four seconds, are full, and run empty in two."""
    found, done, at = [], 4.0, start_s
    while done < images + 4:
        speed = per_s / 3 if done < slots else per_s / 2 if done > images + 4 - slots / 2 else per_s
        done, at = min(images + 4.0, done + speed / 2), at + 0.5
        worked = at - start_s
        found.append(Mark(at, done, worked, worked, worked * 0.1, worked * 0.6, worked * 0.05, slots))
    return found


def trial(**more: Any) -> Trial:
    found = marks()
    given: dict[str, Any] = {
        "marks": found,
        "settled": 1000,
        "wall_s": found[-1].at + 2.0,
        "failures": {},
        "messages": {},
        "sizes": [(0, 300_000), (200, 520_000), (600, 920_000), (1000, 1_320_000)],
        "runtime": "cuda:0 bfloat16 torch=2",
        "loaders": 2,
        "kind": "SQLite",
        "canaries": 4,
    }
    return Trial(**given | more)


def test_time_is_the_start_and_what_the_steady_rate_makes_of_the_images() -> None:
    found = estimate(trial(), Asked(images=1_000_000, workers=4, price=2.0, seconds_left=3600.0))
    assert found.seconds_an_image == pytest.approx((0.02, 0.02, 0.02))
    assert not found.rough
    assert found.startup_s == pytest.approx(trial().wall_s - 20.0)
    assert found.time_s.value == pytest.approx(5000 + found.startup_s)
    assert found.worker_hours.value == pytest.approx(4 * found.time_s.value / 3600)
    assert found.cost is not None
    assert found.cost.value == pytest.approx(2 * found.worker_hours.value)
    assert found.workers_needed == 6  # 20,000 s in an hour without the start
    assert found.bytes_an_image == pytest.approx(1000)


def test_images_that_are_annotated_already_take_no_time() -> None:
    found = estimate(trial(), Asked(images=1_000_000, workers=1), Figure(0.5, 0.4, 0.6))
    assert found.reused == Figure(500_000, 400_000, 600_000)
    assert found.time_s == pytest.approx((10_000 + found.startup_s, 8_000 + found.startup_s, 12_000 + found.startup_s))


def test_what_is_reused_is_told() -> None:
    plan = told()
    reused = estimate(plan.trial, plan.asked, Figure(0.25, 0.2, 0.3))
    line = "annotated   2,500,000 (2,000,000 to 3,000,000) of them already: these are not computed again"
    assert line in list(lines_of(replace(plan, estimate=reused)))


def test_several_answers_an_image_are_one_image() -> None:
    found = marks(images=3000)
    of_three = trial(marks=found, settled=1000, wall_s=found[-1].at)
    assert estimate(of_three, Asked(1000, 1)).seconds_an_image.value == pytest.approx(0.06)


def test_all_that_was_tried_takes_as_long_as_it_took() -> None:
    whole = trial()
    assert estimate(whole, Asked(images=1000, workers=1)).time_s.value == pytest.approx(whole.wall_s)
    few = trial(marks=marks(images=20), settled=20, wall_s=12.0)
    found = estimate(few, Asked(images=20, workers=1))
    assert found.rough
    assert found.time_s == pytest.approx((12.0, 12.0, 12.0))
    unseen = trial(marks=[], settled=1, wall_s=5.0, sizes=[(0, 100), (1, 1100)])
    assert estimate(unseen, Asked(1, 1)).time_s.value == pytest.approx(5.0)


def test_deadline_before_the_start_is_over_cannot_be_kept() -> None:
    assert estimate(trial(), Asked(1000, 1, seconds_left=1.0)).workers_needed is None
    assert estimate(trial(), Asked(1000, 1)).workers_needed is None


def test_rate_has_the_interval_of_its_blocks() -> None:
    even = seconds_a_generation(steady(marks(), 4, 1004))
    assert even == pytest.approx((0.02, 0.02, 0.02))
    uneven, at = [], 0.0
    for number in range(40):
        uneven.append(Mark(at, number * 50.0, slots=8))
        at += 1.0 + 0.4 * (number // 2 % 2)
    found = seconds_a_generation(uneven)
    assert found is not None
    assert found.low < 0.0235 < found.value < 0.0245 < found.high
    assert found.high - found.low < 0.004
    assert seconds_a_generation(uneven[:3]) is None


def test_marks_are_read_from_what_a_worker_serves() -> None:
    meter = Meter(port=1)  # where nobody listens
    meter.close()
    meter.note(1.0, "kosmograph_slots 0.0\nkosmograph_generations_total 0.0\n")
    meter.note(
        2.0,
        '# HELP kosmograph_slots Rows\nkosmograph_worker_info{worker="a b",runtime="cpu float32 torch=2.1"} 1.0\n'
        'kosmograph_slots 64.0\nkosmograph_generations_total 1.5e+02\nkosmograph_fetch_seconds_bucket{le="0.1"} 7.0\n'
        "kosmograph_fetch_seconds_sum 0.25\nkosmograph_decode_seconds_sum 0.75\nkosmograph_commit_seconds_sum 0.5\n"
        "kosmograph_engine_busy_seconds_total 3.0\nkosmograph_work_seconds_total 4.0\n",
    )
    assert meter.marks == [Mark(2.0, 150.0, 3.0, 4.0, 0.25, 0.75, 0.5, 64.0)]
    assert meter.runtime == "cpu float32 torch=2.1"


def test_shares_say_what_the_others_wait_for() -> None:
    last = Mark(at=10.0, busy_s=4.0, work_s=8.0, fetch_s=12.0, decode_s=6.0, commit_s=1.0)
    assert shares(Mark(), last, loaders=2) == pytest.approx((0.6, 0.3, 0.5, 0.1))
    assert limit_of(Shares(0.6, 0.3, 0.5, 0.1)) == "fetch"
    assert limit_of(Shares(0.3, 0.6, 0.5, 0.1)) == "decode"
    assert limit_of(Shares(0.6, 0.3, 0.9, 0.1)) == "engine"
    assert limit_of(Shares(0.1, 0.1, 0.2, 0.9)) == "write"
    assert limit_of(Shares(0.1, 0.1, 0.2, 0.1)) == ""


def test_growth_of_the_database_has_not_what_an_empty_one_has() -> None:
    by_pages = [(0, 400_000), *((n, 400_000 + 8192 * (n * 1100 // 8192)) for n in range(64, 1025, 64))]
    assert growth_of(by_pages) == pytest.approx(1100, rel=0.03)
    assert growth_of([(0, 400_000), (20, 440_000)]) == pytest.approx(2000)
    assert growth_of([(0, 400_000), (5, 400_000)]) is None


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(os.environ, "TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "now", "hours"),
    [
        ("06:00", "2026-11-23 22:30", 7.5),
        ("6:00", "2026-11-23 05:59", 1 / 60),
        ("06:00", "2026-11-23 06:00", 24),
        ("06:00", "2026-10-24 22:00", 9),  # the clocks go back
        ("06:00", "2026-03-28 22:00", 7),
        ("8h", "2026-10-24 22:00", 8),
        ("1.5h", "2026-11-23 22:00", 1.5),
        ("7h30m", "2026-11-23 22:00", 7.5),
        ("90min", "2026-11-23 22:00", 1.5),
    ],
)
def test_deadline_is_the_next_such_time_or_so_long_from_now(text: str, now: str, hours: float, berlin: None) -> None:
    at = datetime.fromisoformat(now)
    assert deadline_of(text, at).timestamp() - at.timestamp() == pytest.approx(hours * 3600)


@pytest.mark.parametrize("text", ["", "h", "24:00", "06:60", "tomorrow", "8", "-1h", "99999999999h"])
def test_deadline_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="06:00, or a time from now"):
        deadline_of(text, datetime(2026, 11, 23))


RECIPE = Recipe(task="brief", prompt="p", model="null", revision="r", dtype="float32")


def pace(found: list[Mark], wanted: int | None = None, verify: bool = False) -> Pace:
    meter = Meter(port=1)
    meter.close()
    meter.marks = found
    return Pace(meter, [RECIPE.model_copy(update={"verify": "mirror" if verify else ""})], wanted)


def test_trial_has_seen_enough_after_some_seconds_of_full_slots() -> None:
    whole = marks(per_s=50.0, images=5000)
    enough = [pace(whole[:count]).is_enough for count in range(len(whole))]
    first = whole[enough.index(True) - 1]
    assert 10 <= first.at - next(mark.at for mark in whole if mark.generations >= 64) < 11
    assert pace(whole).rate == pytest.approx(50, rel=0.02)
    assert not pace(whole[: enough.index(True)], wanted=4000).is_enough
    assert pace(whole, wanted=4000).is_enough
    assert pace(whole).ahead == pytest.approx(3 * 64 + 150, abs=5)
    assert pace(whole, verify=True).done == 0  # the ledger says how many images its answers make


def test_slow_model_is_not_waited_for() -> None:
    slow = [Mark(float(second), second / 10, second, second, slots=64.0) for second in range(1, 200)]
    assert not pace(slow[:170]).is_enough
    assert pace(slow).is_enough
    assert not pace(slow, wanted=20).is_enough
    assert pace(slow).rate == pytest.approx(0.1, rel=0.06)
    assert not pace(slow).is_soon_done(200)
    assert pace(slow).is_soon_done(2)
    assert pace([]).ahead == 256
    assert not pace([]).is_enough


def told(**more: Any) -> Plan:
    asked = Asked(images=10_000_000, workers=8, price=2.5, seconds_left=6 * 3600.0)
    one = trial(**more)
    sample = Sample(items=[], listed=10_000_000, whole=True)
    return Plan(asked, estimate(one, asked), one, sample, True, "demo", datetime(2026, 11, 24, 6, 0))


def test_plan_is_told_in_lines() -> None:
    assert list(lines_of(told())) == [
        "images      10,000,000",
        "tried       1,000 images in 33 s, by demo on cuda:0",
        "rate        50.0 images/s of one worker",
        "time        6 h 57 min with 8 workers, 13 s of it to start and end",
        "work        55.6 GPU-hours",
        "cost        138.96 at 2.5 for an hour of a worker",
        "database    10.0 GB (1.0 kB an image, SQLite)",
        "failures    none seen, 26,980 at most",
        "limit       the model, which is as it should be: more workers, on GPUs of their own, are faster"
        " (busy: model 100%; 2 loader processes: fetch 5%, decode 30%; commits 5%)",
        "deadline    10 workers would be done by Tue 06:00, at the slower end of the interval",
    ]


def test_plan_tells_failures_by_code_and_what_is_not_known() -> None:
    failing = told(failures={"timeout": 2, "truncated": 10}, messages={"timeout": "slow", "truncated": "it is cut off"})
    failing = replace(failing, counted=False, why_not_reused="no answer", deadline=None)
    text = list(lines_of(failing))
    assert text[0] == "images      10,000,000, as you say"
    assert text[1] == "annotated   not looked up: no answer"
    first, second = (line for line in text if line.startswith("  "))
    assert first.startswith("  truncated  100,000 (")
    assert first.endswith(": it is cut off")
    assert second.startswith("  timeout    20,000 (")
    assert second.endswith(" (before it is tried again): slow")
    assert not any(line.startswith("deadline") for line in text)


def test_plan_is_a_document_for_a_script() -> None:
    document = document_of(told(failures={"truncated": 10}, messages={"truncated": "cut off"}))
    assert document["time_s"].keys() == {"value", "low", "high"}
    assert document["workers_for_deadline"] == 10
    assert document["deadline"] == "2026-11-24T06:00:00"
    assert document["limit"] == "engine"
    assert document["device"] == "gpu"
    (failure,) = document["failures"]
    assert failure["images"]["low"] < failure["images"]["value"] == 100_000 < failure["images"]["high"]
