"""Every row runs once, in a slot that holds its image by then: in the order in which it came, or sooner where a slot is
kept for its image and there is no other."""

import random
from collections import deque
from itertools import chain
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from worker.decoding import Rules
from worker.generation import Request
from worker.scheduler import Plan, Row, Scheduler

IMAGES = [np.full((1, 1, 3), level, np.uint8) for level in range(5)]


def row(image: int = 0, length: int = 10, **options: Any) -> Row:
    return Row(Request(IMAGES[image], "", length - 4, **options), [0] * 4)


def start(scheduler: Scheduler, *rows: Row) -> Plan:
    for one in rows:
        scheduler.add(one)
    return scheduler.schedule()


class Slots(RuleBasedStateMachine):
    """A scheduler, and beside it what its plans do to the slots of a device."""

    @initialize(slots=st.integers(1, 5), refill=st.integers(0, 6))
    def begin(self, slots: int, refill: int) -> None:
        self.scheduler = Scheduler(slots, 10, refill)
        self.contents: dict[int, int] = {}  # slot -> image that is really in it
        self.queue: deque[Row] = deque()  # who is to begin next, as it should be
        self.suspects: deque[list[Row]] = deque()
        self.running: dict[int, Row] = {}
        self.ended: list[Row] = []
        self.all: list[Row] = []
        self.asked: list[Row] = []  # rows that have ended, from which others may follow
        self.held: dict[int, Row] = {}  # slot -> the one of them whose image it holds

    @rule(
        image=st.integers(0, 4),
        length=st.sampled_from([5, 10, 10, 10, 14]),
        times=st.integers(1, 6),
        followed=st.booleans(),
    )
    def add(self, image: int, length: int, times: int, followed: bool) -> None:
        for _ in range(times):
            one = row(image, length, follow_up=(lambda _: []) if followed else None)
            self.all.append(one)
            self.queue.append(one)
            self.scheduler.add(one)

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(list(self.queue))).future.cancel()

    @rule()
    def schedule(self) -> None:
        longer = self.scheduler.too_long
        queue = self.queue
        first = queue[0] if queue and not self.running and not self.suspects else None
        wanted = first and first.length > self.scheduler.length and not first.future.cancelled()
        assert longer == (first.length if first and wanted else 0)
        if longer:
            self._resize(self.scheduler.slots, longer)
        if self.suspects:
            self._schedule_suspects()
            return
        free = self.scheduler.slots - len(self.running) - len(self.held)
        at_hand = {image for slot, image in self.contents.items() if slot not in {**self.running, **self.held}}
        if self.running and len(self.queue) >= self.scheduler.refill:
            free -= free % self.scheduler.refill
        plan = self.scheduler.schedule()
        self._carry_out(plan)
        begun = [one for one, _ in plan.rows]
        for one in [one for one in queue if one.future.cancelled() and one not in self.scheduler.waiting]:
            assert not one.begun
            queue.remove(one)
        for one in begun:
            assert one is queue[0] or one.image in at_hand
            queue.remove(one)
        assert len(begun) <= free
        assert len(begun) == free or not queue or queue[0].length > self.scheduler.length

    def _schedule_suspects(self) -> None:
        """A group of them begins when nothing else runs, and no one else with it."""
        group: list[Row] = []
        if not self.running:
            whole = self.suspects.popleft()
            group, rest = whole[: self.scheduler.slots], whole[self.scheduler.slots :]
            if rest:
                self.suspects.appendleft(rest)
        plan = self.scheduler.schedule()
        assert [one for one, _ in plan.rows] == group
        self._carry_out(plan)

    def _carry_out(self, plan: Plan) -> None:
        taken = [slot for _, slot in plan.images] + [slot for _, slot in plan.copies]
        placed = [slot for _, slot in plan.rows]
        assert len(set(taken)) == len(taken)
        assert len(set(placed)) == len(placed)
        assert set(taken) <= set(placed)
        assert not set(placed) & set(self.running)
        assert len({id(pixels) for pixels, _ in plan.images}) == len(plan.images)
        for pixels, slot in plan.images:
            self.contents[slot] = id(pixels)
        before = dict(self.contents)
        self.contents |= {target: before[source] for source, target in plan.copies}
        for one, slot in plan.rows:
            assert self.contents[slot] == id(one.request.pixels)
            assert one.begun
            self.running[slot] = one

    @precondition(lambda self: self.running)
    @rule(data=st.data(), sound=st.sampled_from([True, True, True, False]))
    def finish(self, data: st.DataObject, sound: bool) -> None:
        """Some rows end, and others begin."""
        for slot in data.draw(st.lists(st.sampled_from(sorted(self.running)), min_size=1, unique=True)):
            one = self.running.pop(slot)
            assert self.scheduler.finish(slot, sound=sound) is one
            self.ended.append(one)
            if not sound:
                self.contents[slot] = -1
            elif one.request.follow_up:
                self.asked.append(one)
                self.held[slot] = one
        self.books_agree()
        self.schedule()

    @precondition(lambda self: self.asked)
    @rule(images=st.lists(st.integers(0, 4), max_size=4), own=st.integers(0, 3))
    def follow(self, images: list[int], own: int) -> None:
        """Rows about the same image, or others, wait ahead of all."""
        before = self.asked.pop(0)
        self.held = {slot: one for slot, one in self.held.items() if one is not before}
        image = next(number for number, pixels in enumerate(IMAGES) if id(pixels) == before.image)
        rows = [row(number) for number in [image] * own + images]
        self.all += rows
        self.queue.extendleft(reversed(rows))
        self.scheduler.follow(before, rows)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def isolate(self, data: st.DataObject) -> None:
        slots = data.draw(st.lists(st.sampled_from(sorted(self.running)), min_size=1, unique=True))
        rows = [self.running.pop(slot) for slot in slots]
        half = len(rows) // 2
        self.suspects.extendleft(group for group in (rows[half:], rows[:half]) if group)
        self.contents |= dict.fromkeys(slots, -1)
        self.scheduler.isolate(slots)

    @precondition(lambda self: len(self.all) > 6)
    @rule(slots=st.integers(1, 5))
    def resize(self, slots: int) -> None:
        self._resize(slots, self.scheduler.length)

    def _resize(self, slots: int, length: int) -> None:
        self.scheduler.resize(slots, length, self.scheduler.refill)
        self.queue.extendleft(reversed(self.running.values()))  # in the order in which they began
        self.running, self.contents, self.held = {}, {}, {}

    @precondition(lambda self: len(self.all) > 12)
    @rule()
    def drop_waiting(self) -> None:
        dropped = self.scheduler.drop_waiting()
        assert dropped == [*chain.from_iterable(self.suspects), *self.queue]
        self.suspects.clear()
        self.queue.clear()
        self.asked.clear()
        self.held.clear()
        for one in dropped:
            assert one.begin() is not one.future.cancelled()
        self.ended += dropped

    @invariant()
    def books_agree(self) -> None:
        scheduler = self.scheduler
        assert scheduler.running == self.running
        assert list(scheduler.waiting) == list(self.queue)
        assert list(scheduler.suspects) == list(self.suspects)
        assert scheduler.busy == bool(self.queue or self.suspects or self.running)
        taken = [*scheduler._free, *scheduler._kept, *self.running, *self.held]
        assert sorted(taken) == list(range(scheduler.slots))
        wanted = {one.image for one in (*self.queue, *chain.from_iterable(self.suspects), *self.asked)}
        assert set(scheduler._kept.values()) <= wanted
        assert set(scheduler._wanted) == wanted  # nothing is left of images that are gone

    def teardown(self) -> None:
        """Left to itself it ends every row that nobody cancelled, each of them once."""
        while self.scheduler.busy or self.asked:
            while self.asked:
                self.follow([], 0)
            self.schedule()
            for slot in list(self.running):
                self.ended.append(self.running.pop(slot))
                self.scheduler.finish(slot, sound=False)
        assert len({id(one) for one in self.ended}) == len(self.ended)
        assert {id(one) for one in self.all if not one.future.cancelled()} <= {id(one) for one in self.ended}
        assert not self.scheduler._holders


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)


def test_low_slots_come_first() -> None:
    """So that the rows that run stay together, and few steps are computed for slots without a row."""
    scheduler = Scheduler(6, 10)
    start(scheduler, *(row(image % 5) for image in range(6)))
    for slot in random.Random(0).sample(range(6), 6):
        scheduler.finish(slot)
    assert [slot for _, slot in start(scheduler, row(0), row(1), row(2)).rows] == [0, 1, 2]


def test_rows_begin_as_many_at_a_time_as_the_refill_while_as_many_wait() -> None:
    """Or twice that: batches of few sizes."""
    scheduler = Scheduler(7, 10, refill=3)
    assert len(start(scheduler, *(row() for _ in range(20))).rows) == 7
    begun = []
    for slot in (0, 1, 2):
        scheduler.finish(slot)
        begun.append(len(scheduler.schedule().rows))
    for slot in range(6):
        scheduler.finish(slot)
    begun.append(len(scheduler.schedule().rows))
    assert begun == [0, 0, 3, 6]


def test_fewer_rows_than_the_refill_begin_at_once() -> None:
    scheduler = Scheduler(4, 10, refill=4)
    start(scheduler, row())
    assert len(start(scheduler, row(), row()).rows) == 2


def test_slot_is_kept_for_the_next_prompt_of_its_image() -> None:
    scheduler = Scheduler(2, 10)
    start(scheduler, row(0), row(1), row(2), row(1))
    scheduler.finish(1)
    scheduler.finish(0)
    plan = scheduler.schedule()
    assert plan.images == [(IMAGES[2], 0)]  # slot 0, though slot 1 was free first
    assert (plan.copies, [slot for _, slot in plan.rows]) == ([], [0, 1])


def test_row_whose_image_a_slot_is_kept_for_goes_first_where_there_is_no_other_slot() -> None:
    scheduler = Scheduler(1, 10)
    first, second, third = row(0), row(1), row(0)
    start(scheduler, first, second, third)
    scheduler.finish(0)
    plan = scheduler.schedule()
    assert (plan.images, plan.rows) == ([], [(third, 0)])
    scheduler.finish(0)
    assert scheduler.schedule().images == [(IMAGES[1], 0)]


def test_kept_slot_is_given_up_where_the_rows_that_want_it_do_not_fit() -> None:
    scheduler = Scheduler(1, 10)
    start(scheduler, row(0), row(1), row(0, length=11))
    scheduler.finish(0)
    assert scheduler.schedule().images == [(IMAGES[1], 0)]


def test_slot_waits_for_what_follows_from_its_row() -> None:
    """Though another row waits for a slot: its image would have to be encoded again."""
    scheduler = Scheduler(1, 10)
    asked, other, follows = row(0, follow_up=lambda _: []), row(1), row(0)
    start(scheduler, asked, other)
    scheduler.finish(0)
    assert scheduler.schedule().rows == []
    scheduler.follow(asked, [follows])
    assert scheduler.schedule() == Plan(rows=[(follows, 0)])


def test_second_prompt_of_an_image_is_a_copy_and_the_image_is_encoded_once() -> None:
    plan = start(Scheduler(4, 10), row(3), row(3), row(3))
    assert (plan.images, plan.copies) == ([(IMAGES[3], 0)], [(0, 1), (0, 2)])


def test_what_an_unsound_row_left_is_not_used() -> None:
    scheduler = Scheduler(2, 10)
    start(scheduler, row(0), row(1), row(0))
    scheduler.finish(0, sound=False)
    assert scheduler.schedule().images == [(IMAGES[0], 0)]


def test_row_that_is_too_long_waits_until_nothing_runs_and_none_overtakes_it() -> None:
    scheduler = Scheduler(2, 10)
    plan = start(scheduler, row(), row(length=11), row())
    assert len(plan.rows) == 1
    assert (scheduler.too_long, scheduler.schedule().rows) == (0, [])
    scheduler.finish(0)
    assert (scheduler.too_long, scheduler.schedule().rows) == (11, [])
    scheduler.resize(2, 64, 1)
    assert (scheduler.too_long, len(scheduler.schedule().rows)) == (0, 2)


def test_row_begins_once_however_often_it_is_put_back() -> None:
    """A future that runs cannot be cancelled any more, nor be told again that it runs."""
    scheduler = Scheduler(1, 10)
    one = row()
    start(scheduler, one)
    scheduler.resize(1, 10, 1)
    assert not one.future.cancel()
    assert [begun for begun, _ in scheduler.schedule().rows] == [one]


def test_rules_are_those_of_the_rows_that_run() -> None:
    scheduler = Scheduler(3, 10)
    start(scheduler, row(no_repeat_ngram_size=3), row(no_repeat_ngram_size=2, constrained=True), row(min_new_tokens=1))
    assert scheduler.rules() == Rules((2, 3), True, True)
    scheduler.finish(1)
    assert scheduler.rules() == Rules((3,), True, False)
    assert not any(Scheduler().rules())
