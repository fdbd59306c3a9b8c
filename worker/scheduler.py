"""Which request is computed when, and in which slot. Plain Python: it knows nothing of tensors.

A row waits, then runs in a slot until it ends; its slot then goes to the next. A slot goes on holding the image of its
row, so that other prompts for that image need not compute it again: they take that slot, or a copy.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import chain, islice

from schemas.errors import PermanentFailure
from worker.decoding import Rules
from worker.generation import Generation, Pixels, Request


@dataclass(eq=False, slots=True)
class Row:
    """A request on its way through the engine."""

    request: Request
    prompt_ids: list[int]
    answer_ids: list[int] = field(default_factory=list)
    """What is given in place of a generation; empty where there is to be one."""
    future: Future[Generation] = field(default_factory=Future)
    submitted_at: float | None = None
    """By the clock that goes on; None for a row that follows from another."""
    begun: bool = False
    _left: int = 0
    """Rows that follow from it and are not done."""

    @property
    def image(self) -> int:
        """The same for requests of the same array. It lives while the row does."""
        return id(self.request.pixels)

    @property
    def length(self) -> int:
        """The most tokens that it can have."""
        return len(self.prompt_ids) + (len(self.answer_ids) or self.request.max_new_tokens)

    def begin(self) -> bool:
        """Whether it is still wanted. Once it is begun it cannot be cancelled."""
        self.begun = self.begun or self.future.set_running_or_notify_cancel()
        return self.begun

    def answer(self, generation: Generation, next_rows: Sequence["Row"]) -> None:
        """The request is done with this generation as soon as the rows that follow from it are."""
        self._left = len(next_rows)
        for row in next_rows:
            row.future.add_done_callback(lambda _: self._settle(generation, next_rows))
        if not next_rows:
            self.future.set_result(generation)

    def _settle(self, generation: Generation, next_rows: Sequence["Row"]) -> None:
        """A row that follows is done, which happens in the engine's thread, or when the engine ends."""
        self._left -= 1
        if self._left:
            return
        errors = [row.future.exception() for row in next_rows]
        if fatal := next((error for error in errors if error and not isinstance(error, PermanentFailure)), None):
            self.future.set_exception(fatal)
            return
        answers = [None if error else row.future.result() for row, error in zip(next_rows, errors, strict=True)]
        self.future.set_result(replace(generation, follow_ups=answers))


@dataclass(slots=True)
class Plan:
    """What a prefill does, in this order."""

    images: list[tuple[Pixels, int]] = field(default_factory=list)
    """Images to be encoded, each with its slot."""
    copies: list[tuple[int, int]] = field(default_factory=list)
    """Slots whose image is copied, with the slot that it goes to."""
    rows: list[tuple[Row, int]] = field(default_factory=list)
    """Rows that begin, each in its slot, where by then its image is."""


class Scheduler:
    """First come, first served, into `slots` slots of `length` tokens.

    A free slot that holds an image which another row waits for is kept for it, as long as there are others to take;
    when there are none, that row goes first.
    """

    def __init__(self, slots: int = 0, length: int = 0, refill: int = 1) -> None:
        self.waiting: deque[Row] = deque()
        self.suspects: deque[list[Row]] = deque()
        """Rows in whose company the model failed, in groups: one group will run at a time."""
        self.running: dict[int, Row] = {}  # slot -> row
        self._wanted: Counter[int] = Counter()  # image -> the rows that have not begun
        self.resize(slots, length, refill)

    def resize(self, slots: int, length: int, refill: int) -> None:
        """From now on so many slots, of so many tokens, with nothing in them. What ran waits again, ahead of the rest.

        While as many as `refill` rows wait, they begin that many at a time, or twice that, and so on.
        """
        self.slots, self.length, self.refill = slots, length, max(1, min(refill, slots))
        self.waiting.extendleft(reversed(self._take_back(list(self.running))))
        self._free = list(range(slots))  # a heap: low slots first, so that the rows stay together
        self._kept: dict[int, int] = {}  # free slot -> the image in it that is wanted
        self._held: dict[Row, int] = {}  # a row that has ended, from which others may follow -> its slot
        self._holders: dict[int, dict[int, None]] = {}  # image -> slots that it is in, in the order that it came there

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.suspects or self.running)

    @property
    def too_long(self) -> int:
        """The length of the next row, if it fits no slot and nothing else runs any more; else 0."""
        first = self.waiting[0] if self.waiting and not self.running and not self.suspects else None
        return 0 if first is None or self._fits(first) else first.length

    def add(self, row: Row) -> None:
        """It waits."""
        self.waiting.append(row)
        self._wanted[row.image] += 1

    def schedule(self) -> Plan:
        """What begins now: nothing, while too few slots are free to be worth a prefill."""
        plan = Plan()
        if self.suspects:
            if not self.running:
                self._begin_group(plan)
            return plan
        free = len(self._free) + len(self._kept)
        if self.running and len(self.waiting) >= self.refill:
            free -= free % self.refill
        while free > len(plan.rows) and self.waiting and self._fits(self.waiting[0]):
            self._begin(self._next(), plan)
        return plan

    def _next(self) -> Row:
        """The first row that waits; where it would take another one's image from its slot, that one goes before it."""
        if not self._free:
            images = set(self._kept.values())
            for place, row in enumerate(self.waiting):
                if row.image in images and self._fits(row):
                    del self.waiting[place]
                    return row
        return self.waiting.popleft()

    def finish(self, slot: int, *, sound: bool = True) -> Row:
        """The row that ran there. The slot is free, and what is in it still of use if it is `sound`.

        After a sound row from which others may follow, the slot is free no sooner than `follow` says which these are.
        """
        row = self.running.pop(slot)
        if sound and row.request.follow_up:
            self._wanted[row.image] += 1
            self._held[row] = slot
        elif sound and self._wanted[row.image]:
            self._kept[slot] = row.image
        else:
            self._let_go(slot, row.image)
            heappush(self._free, slot)
        return row

    def follow(self, row: Row, next_rows: Sequence[Row]) -> None:
        """What follows from a row that has ended waits ahead of all others, while its image is at hand."""
        self.waiting.extendleft(reversed(next_rows))
        self._wanted.update(one.image for one in next_rows)
        slot = self._held.pop(row, None)
        if slot is not None:
            self._kept[slot] = row.image
        if row.request.follow_up:
            self._unwant(row.image)

    def isolate(self, slots: Iterable[int]) -> None:
        """The rows that run there become suspect, one half of them apart from the other."""
        rows = self._take_back(slots)
        half = len(rows) // 2
        self.suspects.extendleft(group for group in (rows[half:], rows[:half]) if group)

    def rules(self) -> Rules:
        """The decoding options of all that runs."""
        return Rules.of(row.request for row in self.running.values())

    def refuse(self) -> Row:
        """The row that would be next, which is forgotten."""
        row = self.waiting.popleft()
        self._unwant(row.image)
        return row

    def next_images(self, count: int) -> list[Pixels]:
        """Those of the first `count` rows that wait, but for the ones that are in a slot."""
        first = islice(self.waiting, count)
        return [row.request.pixels for row in first if row.image not in self._holders]

    def drop_waiting(self) -> list[Row]:
        """The rows that do not run, which are forgotten. Nothing follows any more."""
        self._kept |= {slot: row.image for row, slot in self._held.items()}
        self._held.clear()
        rows = [*chain.from_iterable(self.suspects), *self.waiting]
        self.suspects.clear()
        self.waiting.clear()
        for image in list(self._wanted):
            self._want_no_more(image)
        return rows

    def _fits(self, row: Row) -> bool:
        """Whether a slot is long enough for it, or nobody wants it any more."""
        return row.length <= self.length or row.future.cancelled()

    def _take_back(self, slots: Iterable[int]) -> list[Row]:
        """The rows of these slots, which run no more. Whether what is in the slots is of use nobody knows."""
        rows = [self.finish(slot, sound=False) for slot in slots]
        self._wanted.update(row.image for row in rows)
        return rows

    def _begin_group(self, plan: Plan) -> None:
        """The first group of suspects, or as many of it as there are slots."""
        group = self.suspects.popleft()
        if rest := group[self.slots :]:
            self.suspects.appendleft(rest)
        for row in group[: self.slots]:
            self._begin(row, plan)

    def _begin(self, row: Row, plan: Plan) -> None:
        """Gives the row a slot with its image in it, unless nobody wants the row any more."""
        self._wanted[row.image] -= 1
        if row.begin():
            slot = self._slot_with_image(row, plan)
            self.running[slot] = row
            plan.rows.append((row, slot))
        if not self._wanted[row.image]:
            self._want_no_more(row.image)

    def _slot_with_image(self, row: Row, plan: Plan) -> int:
        """A slot that the row's image is in, or will be by the plan."""
        holders = self._holders.setdefault(row.image, {})
        for slot in holders:
            if self._kept.pop(slot, None) is not None:
                return slot
        slot = heappop(self._free) if self._free else self._evict()
        if holders:
            # the first has had it since before this plan, or encodes it in this plan; a later one may be a copy itself
            plan.copies.append((next(iter(holders)), slot))
        else:
            plan.images.append((row.request.pixels, slot))
        holders[slot] = None
        return slot

    def _evict(self) -> int:
        """A kept slot, whose image will have to be encoded again if it is nowhere else."""
        slot, image = self._kept.popitem()
        self._let_go(slot, image)
        return slot

    def _unwant(self, image: int) -> None:
        """One row fewer wants the image; none, if the engine is at its end."""
        if self._wanted[image]:
            self._wanted[image] -= 1
            if not self._wanted[image]:
                self._want_no_more(image)

    def _want_no_more(self, image: int) -> None:
        """The image has no row that waits: slots that were kept for it are free."""
        del self._wanted[image]
        for slot in [slot for slot in self._holders.get(image, ()) if self._kept.pop(slot, None) is not None]:
            self._let_go(slot, image)
            heappush(self._free, slot)

    def _let_go(self, slot: int, image: int) -> None:
        """The image is in that slot no more."""
        holders = self._holders[image]
        del holders[slot]
        if not holders:
            del self._holders[image]
