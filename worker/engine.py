"""Captions from a model that is kept busy: requests in, from any thread; generations out, as each of them ends.

Continuous batching: rows run side by side in fixed slots, and a slot whose row has ended goes to the next request. The
scheduler says who begins, the runner computes, the engine does both in turn and hands out what came of it.
"""

import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from itertools import islice
from typing import NamedTuple, Self

import numpy as np
import torch

from schemas.errors import Code, EngineBroken, EngineClosed, PermanentFailure
from worker.generation import Figures, Generation, Request
from worker.memory import slots_that_fit
from worker.model import Kosmos
from worker.runner import Ended, Runner, round_up
from worker.scheduler import Plan, Row, Scheduler
from worker.uploads import SHAPE

GRACE_S = 5.0
SLOT_TOKENS = 192
"""Room for a brief caption, a phrase, a question. A longer row makes all slots longer, in steps of `LENGTH_STEP`."""
LENGTH_STEP = 64
REFILL = 1 / 8
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
        refill: float = REFILL,
        compiled: bool = False,
    ) -> None:
        """`slots` rows at once, or with 0 as many as there is memory for; with 0 a `sync_every` that suits the device.

        `compiled` takes a minute or two at the first full batch of images, for more speed at all that follow. Raises
        EngineBroken where there is no memory for a single slot.
        """
        self.model, self.vocabulary = model, model.vocabulary
        self._most_slots, self._refill = slots, refill
        self._runner = Runner(model, sync_every=sync_every or SYNC_EVERY[model.device.type], compiled=compiled)
        self._scheduler = Scheduler()
        self._ended: deque[tuple[Row, Ended]] = deque()
        self._accused: Row | None = None
        self._generations = self._tokens = 0
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
            row = self._admit(request)
        except PermanentFailure as failure:
            return _failed(failure)
        with self._changed:
            if self._end:
                return _failed(self._end)
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

    def _admit(self, request: Request) -> Row:
        """The request as a row. Raises PermanentFailure for one that the model cannot take."""
        pixels = request.pixels
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != SHAPE:
            found = f"{getattr(pixels, 'dtype', type(pixels).__name__)} {getattr(pixels, 'shape', '')}"
            raise PermanentFailure(Code.INTERNAL, f"pixels are {found}, not uint8 {SHAPE}")
        try:
            row = Row(request, self.model.prompt_ids(request.prompt))
        except (TypeError, ValueError) as error:  # a lone surrogate, for one
            raise PermanentFailure(Code.MODEL_ERROR, f"the prompt cannot be read: {error}") from None
        if row.length > self.model.max_positions:
            wanted = f"{len(row.prompt_ids)} tokens of prompt and {request.max_new_tokens} new ones"
            limit = self.model.max_positions
            raise PermanentFailure(Code.MODEL_ERROR, f"{wanted} are more than the model's {limit} positions")
        return row

    # ---- the thread

    def _run(self) -> None:
        """The life of the thread. Whatever ends it, nobody is left waiting."""
        end: EngineBroken | EngineClosed = EngineClosed()
        try:
            while self._has_work():
                began = time.monotonic()
                self._turn()
                if not self._scheduler.running:
                    self._hand_out()
                self._busy_s += time.monotonic() - began
        except EngineBroken as broken:
            end = broken
        except BaseException as error:
            end = EngineBroken(f"the engine's thread died: {_describe(error)}")
            end.__cause__ = error
        self._hand_out()
        self._finish_with(end)
        for row in (*self._scheduler.running.values(), *filter(None, [self._accused])):
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
        with self._changed:
            longer = self._scheduler.too_long
            if longer:
                self._allocate(round_up(longer, LENGTH_STEP))
            plan = self._scheduler.schedule()
            rules, running = self._scheduler.rules(), list(self._scheduler.running)
            next_images = [row.request.pixels for row in islice(self._scheduler.waiting, self._runner.images_at_once)]
        tried = [slot for _, slot in plan.rows]
        try:
            if plan.rows:
                self._runner.prefill(plan)
            tried = running
            if running:
                self._runner.decode(rules)
                self._runner.uploads.send_ahead(next_images)
                self._hand_out()  # on a GPU, while it computes the steps
            ended = self._runner.collect()
        except Exception as error:
            fault = Fault.of(error)  # and not the error, whose frames hold the memory that ran out
        else:
            self._retire(ended)
            return
        self._recover(fault, tried)

    def _retire(self, ended: dict[int, Ended]) -> None:
        """Frees the slots of the rows that have ended."""
        for slot, answer in ended.items():
            sound = all(map(math.isfinite, answer.logprobs))
            with self._changed:
                row = self._scheduler.finish(slot, sound=sound)
            if sound:
                self._ended.append((row, answer))
            else:
                self._accused = row
                self._runner.forget([slot])
                self._blame(row, f"the model computed no numbers (NaN) in {self.model.dtype}", slot)

    def _hand_out(self) -> None:
        """Gives the rows that have ended to those who asked for them."""
        while self._ended:
            row, answer = self._ended.popleft()
            try:
                text = self.model.raw_text(row.prompt_ids, answer.token_ids)
            except Exception as error:
                why = f"its tokens cannot be read: {_describe(error)}"
                row.future.set_exception(PermanentFailure(Code.MODEL_ERROR, why))
                continue
            self._generations += 1
            self._tokens += len(answer.token_ids)
            ended = answer.token_ids[-1] == self.vocabulary.eos
            generation = Generation(answer.token_ids, answer.logprobs, text, "stop" if ended else "length")
            row.future.set_result(generation)

    # ---- what goes wrong

    def _recover(self, fault: "Fault", tried: list[int]) -> None:
        """Goes on after the model failed on the rows of these slots. Raises EngineBroken where it cannot."""
        if fault.is_of_the_device:
            raise EngineBroken(f"{self.model.device} is lost to this process: {fault.words}")
        if fault.is_out_of_memory:
            self._shrink()
            return
        self._runner.forget(tried)
        with self._changed:
            if len(tried) > 1:
                self._scheduler.isolate(tried)
                return
            self._accused = row = self._scheduler.finish(tried[0], sound=False)
        self._blame(row, fault.words, tried[0])

    def _blame(self, row: Row, reason: str, slot: int) -> None:
        """The accused row failed for that reason, if the model still works on a plain image.

        Raises EngineBroken if not.
        """
        grey = Row(Request(np.full(SHAPE, 128, np.uint8), "", max_new_tokens=1), self.model.prompt_ids(""))
        try:
            self._runner.prefill(Plan(images=[(grey.request.pixels, slot)], rows=[(grey, slot)]))
            answer = self._runner.collect()[slot]
        except Exception as error:
            broken = EngineBroken(f"the model fails on every image on {self.model.device}: {_describe(error)}")
        else:
            if all(map(math.isfinite, answer.logprobs)):
                row.future.set_exception(PermanentFailure(Code.MODEL_ERROR, reason))
                self._accused = None
                return
            broken = EngineBroken(f"the model gives NaN for every image in {self.model.dtype}: try another --dtype")
        raise broken

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

    def _shrink(self) -> None:
        """Half the slots; what ran begins anew."""
        self._most_slots = self._fewer(self._scheduler.slots)
        self._allocate(self._scheduler.length)

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


class Fault(NamedTuple):
    """What an error of the model was, without the error."""

    words: str
    is_out_of_memory: bool
    is_of_the_device: bool

    @classmethod
    def of(cls, error: Exception) -> Self:
        memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
        device = isinstance(error, torch.AcceleratorError) and not memory
        return cls(_describe(error), memory, device)


def _describe(error: BaseException) -> str:
    """An error in one line, with its kind."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _failed(reason: Exception) -> Future[Generation]:
    future: Future[Generation] = Future()
    future.set_exception(reason)
    return future
