"""Captions from a model that is kept busy: requests in, from any thread; generations out, as each of them ends.

Continuous batching: rows run side by side in fixed slots, and a slot whose row has ended goes to the next request. The
scheduler says who begins, the runner computes, the translator puts it into words; the engine has each do its part in
turn, hands out what came of it, and goes on after what went wrong.
"""

import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Self

import numpy as np
import torch

from schemas.errors import Code, DeviceLost, EngineBroken, EngineClosed, PermanentFailure
from worker.decoding import Rules
from worker.faults import Fault, describe
from worker.generation import Figures, Generation, Request
from worker.memory import slots_that_fit
from worker.model import Kosmos
from worker.observer import Observer, TurnClock
from worker.runner import Ended, Runner, round_up
from worker.scheduler import Plan, Row, Scheduler
from worker.translation import Translator
from worker.uploads import SHAPE

GRACE_S = 5.0
SLOT_TOKENS = 192
"""Room for a brief caption, a phrase, a question. A longer row makes all slots longer, in steps of `LENGTH_STEP`."""
LENGTH_STEP = 64
REFILL = {"cuda": 1 / 8, "cpu": 1 / 4}
"""The share of the slots that must be free to be worth a prefill, while enough rows wait for them."""
SYNC_EVERY = {"cuda": 8, "cpu": 4}
"""Decode steps between two looks at who has ended: a look costs a GPU its head start, a late one costs idle slots."""


class Engine:
    """One thread that owns the model.

    A request that makes the model fail fails alone, with PermanentFailure. Where the model fails on every image, all
    that wait and all that come get EngineBroken.
    """

    def __init__(
        self,
        model: Kosmos,
        slots: int = 0,
        *,
        sync_every: int = 0,
        refill: float = 0.0,
        compile_after: int | None = None,
        observer: Observer | None = None,
    ) -> None:
        """`slots` rows at once, or with 0 as many as there is memory for; 0 in the next two is what suits the device.

        After so many full batches of images as `compile_after` says, the way from images to KV is compiled: a minute or
        two of waiting, for more speed from then on. Raises EngineBroken where there is no memory for a single slot.
        """
        use(model.device)
        self.model, self.vocabulary = model, model.vocabulary
        self._most_slots, self._refill = slots, refill or REFILL[model.device.type]
        sync_every = sync_every or SYNC_EVERY[model.device.type]
        self._runner = Runner(model, sync_every=sync_every, compile_after=compile_after)
        self._scheduler, self._translator = Scheduler(), Translator(model)
        self._ended: deque[tuple[Row, Ended]] = deque()
        self._observer = observer or Observer()
        self._clock = TurnClock(self._observer, at_once=model.device.type == "cpu")
        self._generations = self._tokens = self._images_again = 0
        self._busy_s = 0.0
        self._changed = threading.Condition()
        self._end: EngineBroken | EngineClosed | None = None
        self._stop_at = math.inf
        self._allocate(min(SLOT_TOKENS, model.max_positions))
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> Future[Generation]:
        """What the model will say. A future that is cancelled before its turn is not computed."""
        try:
            row = self._translator.row(request)
        except PermanentFailure as failure:
            return _failed(failure)
        with self._changed:
            if self._end:
                return _failed(self._end)
            row.submitted_at = time.monotonic()
            if not self._scheduler.busy:
                self._runner.moved_at = row.submitted_at
            self._scheduler.add(row)
            self._changed.notify()
        return row.future

    @property
    def figures(self) -> Figures:
        """What was done so far."""
        with self._changed:
            return Figures(
                generations=self._generations,
                images=self._runner.images,
                tokens=self._tokens,
                steps=self._runner.steps,
                busy_s=self._busy_s,
                waiting=len(self._scheduler.waiting) + sum(map(len, self._scheduler.suspects)),
                running=len(self._scheduler.running),
                slots=self._scheduler.slots,
                images_again=self._images_again,
                still_s=time.monotonic() - self._runner.moved_at if self._scheduler.busy else 0.0,
            )

    def close(self, grace_s: float = GRACE_S) -> None:
        """Ends the thread. What waits gets EngineClosed now; so does what runs and is not done within `grace_s`."""
        self._stop_at = min(self._stop_at, time.monotonic() + grace_s)
        self._finish_with(EngineClosed())
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- the thread

    def _run(self) -> None:
        """The life of the thread. Whatever ends it, nobody is left waiting."""
        use(self.model.device)
        end: EngineBroken | EngineClosed = EngineClosed()
        try:
            while self._has_work():
                began = self._runner.moved_at = time.monotonic()
                self._turn()
                if not self._scheduler.running:
                    self._hand_out()
                self._busy_s += time.monotonic() - began
        except EngineBroken as broken:
            end = broken
        except BaseException as error:
            fault = Fault.of(error)
            end = EngineBroken(f"the engine's thread died: {fault.words}")
            end = self._broken_by(fault) if fault.is_of_the_device else end
            end.__cause__ = error
        self._hand_out()
        self._finish_with(end)
        for row in self._scheduler.running.values():
            row.future.set_exception(end)

    def _has_work(self) -> bool:
        """True as soon as there is some; False at the end."""
        with self._changed:
            while not self._end and not self._scheduler.busy:
                self._changed.wait()
            late = time.monotonic() > self._stop_at
            return bool(self._scheduler.running) and not late if self._end else True

    def _turn(self) -> None:
        """A prefill where slots are free for those who wait, some decode steps, and a look at who has ended."""
        if longer := self._scheduler.too_long:
            self._lengthen(longer)
        with self._changed:
            plan = self._scheduler.schedule()
            rules, running = self._scheduler.rules(), list(self._scheduler.running)
            next_images = self._scheduler.next_images(self._runner.images_at_once)
        tried = [slot for _, slot in plan.rows]
        self._clock.begin()
        steps_before = self._runner.steps
        try:
            if plan.rows:
                self._tell(plan)
                self._runner.prefill(plan)
                self._clock.prefilled()
            tried = running
            if running:
                self._runner.decode(rules)
                self._clock.decoded(self._runner.steps - steps_before)
                self._runner.uploads.send_ahead(next_images)
                self._hand_out()  # on a GPU, while it computes the steps
            ended = self._runner.collect()
        except Exception as error:
            fault = Fault.of(error)  # and not the error, whose frames hold the memory that ran out
        else:
            self._clock.end()
            self._retire(ended)
            return
        self._recover(fault, tried)

    def _tell(self, plan: Plan) -> None:
        """Counts and times what begins."""
        now, images = time.monotonic(), {slot for _, slot in plan.images}
        for row, slot in plan.rows:
            if row.submitted_at is not None:
                self._observer.waited(now - row.submitted_at)
            elif slot in images:
                self._images_again += 1

    def _retire(self, ended: dict[int, Ended]) -> None:
        """Frees the slots of the rows that have ended."""
        for slot, answer in ended.items():
            sound = all(map(math.isfinite, answer.logprobs))
            with self._changed:
                row = self._scheduler.finish(slot, sound=sound)
            if sound:
                self._ended.append((row, answer))
            else:
                self._blame(row, f"the model computed no numbers (NaN) in {self.model.dtype}", slot)

    def _hand_out(self) -> None:
        """Gives the rows that have ended to those who asked for them, or lets what follows from them wait its turn."""
        while self._ended:
            row, answer = self._ended.popleft()
            next_rows: list[Row] = []
            try:
                generation = self._translator.generation(row, answer)
                next_rows = self._translator.next_rows(row, generation)
            except Exception as error:
                why = f"its tokens cannot be read: {describe(error)}"
                row.future.set_exception(PermanentFailure(Code.MODEL_ERROR, why))
            else:
                self._generations += 1
                self._tokens += len(answer.token_ids)
                row.answer(generation, next_rows)
            possible = [one for one in next_rows if not one.future.done()]
            with self._changed:
                if not self._end:
                    self._scheduler.follow(row, possible)
                    continue
            for one in possible:
                one.future.set_exception(self._end)

    # ---- what goes wrong

    def _recover(self, fault: Fault, tried: list[int]) -> None:
        """Goes on after the model failed on the rows of these slots. Raises EngineBroken where it cannot."""
        if fault.is_of_the_device:
            raise self._broken_by(fault)
        if fault.is_out_of_memory:
            self._most_slots = self._fewer(self._scheduler.slots)
            self._allocate(self._scheduler.length)  # what ran begins anew
            return
        self._runner.forget(tried)
        with self._changed:
            if len(tried) > 1:
                self._scheduler.isolate(tried)
                return
            row = self._scheduler.finish(tried[0], sound=False)
        self._blame(row, fault.words, tried[0])

    def _blame(self, row: Row, reason: str, slot: int) -> None:
        """The row failed for that reason, if the model still works on a plain image. Raises EngineBroken if not."""
        broken: EngineBroken | None = EngineBroken("the engine's thread died")
        try:
            self._runner.forget([slot])
            works = self._works(slot)
        except Exception as error:
            broken = self._broken_by(Fault.of(error))
        else:
            nan = f"the model gives NaN for every image in {self.model.dtype}: try another --dtype"
            broken = None if works else EngineBroken(nan)
        finally:  # whatever happened, nobody else has this row
            row.future.set_exception(broken or PermanentFailure(Code.MODEL_ERROR, reason))
        if broken:
            raise broken

    def _works(self, slot: int) -> bool:
        """Whether a plain image gives numbers; while nothing else runs, in a decode step as well."""
        grey = Request(np.full(SHAPE, 128, np.uint8), "", max_new_tokens=1 if self._scheduler.running else 2)
        row = Row(grey, self.model.prompt_ids(""))
        self._runner.prefill(Plan(images=[(grey.pixels, slot)], rows=[(row, slot)]))
        if not self._scheduler.running:
            self._runner.decode(Rules())
        return all(map(math.isfinite, self._runner.collect()[slot].logprobs))

    def _broken_by(self, fault: Fault) -> EngineBroken:
        if fault.is_of_the_device:
            return DeviceLost(f"{self.model.device} is lost to this process: {fault.words}")
        return EngineBroken(f"the model fails on every image on {self.model.device}: {fault.words}")

    def _allocate(self, length: int) -> None:
        """Slots of that length, as many as are wished and there is room for. Raises EngineBroken without any."""
        self._runner.free()
        slots = self._most_slots or slots_that_fit(self._runner.decoder.slot_bytes(length), self.model.device)
        while True:
            try:
                self._runner.allocate(slots, length)
            except Exception as error:
                if not Fault.of(error).is_out_of_memory:
                    raise
            else:
                break
            slots = self._fewer(slots)
        with self._changed:
            self._scheduler.resize(slots, length, int(slots * self._refill))

    def _lengthen(self, length: int) -> None:
        """Slots for the row that is next, or its failure where there is no memory for a single one of them."""
        before = self._scheduler.length
        try:
            self._allocate(min(round_up(length, LENGTH_STEP), self.model.max_positions))
        except EngineBroken:
            self._allocate(before)
            with self._changed:
                row = self._scheduler.refuse()
            if row.begin():
                why = f"there is no memory for a row of {length} tokens on {self.model.device}"
                row.future.set_exception(PermanentFailure(Code.MODEL_ERROR, why))

    def _fewer(self, slots: int) -> int:
        if slots == 1:
            raise EngineBroken(f"no memory for a single image on {self.model.device}: free some, or take another")
        return slots // 2

    def _finish_with(self, end: EngineBroken | EngineClosed) -> None:
        """From now on every request gets `end`: those that come, and those that wait."""
        with self._changed:
            self._end = self._end or end
            waiting = self._scheduler.drop_waiting()
            self._changed.notify()
        for row in waiting:
            if row.begin():
                row.future.set_exception(end)


def use(device: torch.device) -> None:
    """Makes it this thread's: Triton and CUDA graphs go by the thread's device, not by the tensors'."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _failed(reason: Exception) -> Future[Generation]:
    future: Future[Generation] = Future()
    future.set_exception(reason)
    return future
