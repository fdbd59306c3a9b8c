"""Captions from a model that is kept busy: requests in, from any thread; generations out, in batches of its choice."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch

from schemas.errors import Code, PermanentFailure
from worker.generation import (
    IMAGE_SIZE,
    EngineBroken,
    EngineClosed,
    Figures,
    Generation,
    Pixels,
    Request,
)
from worker.model import IMAGE_START, IMAGE_TOKENS, Kosmos

__all__ = ["Engine", "EngineBroken", "EngineClosed", "Figures", "Generation", "Request"]

MAX_WAIT_S = 0.004
GRACE_S = 5.0
SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)

Key = tuple[int, int, int]
"""Prompt length, max_new_tokens, no_repeat_ngram_size: what the rows of one batch must share.

Prompts of unequal length would have to be padded, and transformers counts the pads into the positions of the answer.
"""


@dataclass(eq=False, slots=True)
class _Row:
    """A request on its way through the engine."""

    request: Request
    prompt_ids: list[int]
    future: Future[Generation] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> Key:
        return len(self.prompt_ids), self.request.max_new_tokens, self.request.no_repeat_ngram_size


class Engine:
    """One thread that owns the model and computes what waits in batches, oldest first, across all who submit.

    A request that makes the model fail fails alone, with PermanentFailure. Where the model fails on every image, all
    that wait and all that come get EngineBroken.
    """

    def __init__(self, model: Kosmos, batch_size: int, max_wait_s: float = MAX_WAIT_S) -> None:
        self.model = model
        self.first_patch_id = model.first_patch_id
        self._max_wait_s = max_wait_s
        self._figures = Figures(images=0, tokens=0, batches=0, busy_s=0.0, waiting=0, batch_size=batch_size)
        self._groups: dict[Key, deque[_Row]] = {}
        self._running: list[_Row] = []
        self._changed = threading.Condition()
        self._end: EngineBroken | EngineClosed | None = None
        self._stop_at = math.inf
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
            self._groups.setdefault(row.key, deque()).append(row)
            self._changed.notify()
        return row.future

    @property
    def figures(self) -> Figures:
        """What was done so far."""
        with self._changed:
            return replace(self._figures, waiting=sum(map(len, self._groups.values())))

    def close(self, grace_s: float = GRACE_S) -> None:
        """Ends the thread. What waits gets EngineClosed now; so does what runs and is not done within `grace_s`."""
        self._stop_at = min(self._stop_at, time.monotonic() + grace_s)
        self._finish_with(EngineClosed())
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _admit(self, request: Request) -> _Row:
        """The request as a row. Raises PermanentFailure for one that the model cannot take."""
        pixels = request.pixels
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != SHAPE:
            found = f"{getattr(pixels, 'dtype', type(pixels).__name__)} {getattr(pixels, 'shape', '')}"
            raise PermanentFailure(Code.INTERNAL, f"pixels are {found}, not uint8 {SHAPE}")
        try:
            row = _Row(request, self.model.prompt_ids(request.prompt))
        except (TypeError, ValueError) as error:  # a lone surrogate, for one
            raise PermanentFailure(Code.MODEL_ERROR, f"the prompt cannot be read: {error}") from None
        length, limit = len(row.prompt_ids), self.model.max_positions
        if length + request.max_new_tokens > limit:
            wanted = f"{length} tokens of prompt and {request.max_new_tokens} new ones"
            raise PermanentFailure(Code.MODEL_ERROR, f"{wanted} are more than the model's {limit} positions")
        return row

    def _run(self) -> None:
        """The life of the thread. Whatever ends it, nobody is left waiting."""
        try:
            while (batch := self._next_batch()) is not None:
                self._compute(batch)
        except EngineBroken as broken:
            self._finish_with(broken, self._running)
        except BaseException as error:
            death = EngineBroken(f"the engine's thread died: {_describe(error)}")
            death.__cause__ = error
            self._finish_with(death, self._running)

    def _next_batch(self) -> list[_Row] | None:
        """The oldest request and others like it, once they are enough or it has waited enough; None at the end."""
        with self._changed:
            while not self._end:
                oldest = min(self._groups.values(), key=lambda group: group[0].since, default=None)
                left = oldest[0].since + self._max_wait_s - time.monotonic() if oldest else None
                if oldest and left is not None and (left <= 0 or len(oldest) >= self._figures.batch_size):
                    return self._take(oldest)
                self._changed.wait(left)
        return None

    def _take(self, group: deque[_Row]) -> list[_Row]:
        """The first rows of a group, for one batch, without those that were cancelled."""
        rows = [group.popleft() for _ in range(min(len(group), self._figures.batch_size))]
        if not group:
            self._groups = {key: rest for key, rest in self._groups.items() if rest}
        self._running = [row for row in rows if row.future.set_running_or_notify_cancel()]
        return self._running

    def _compute(self, batch: list[_Row]) -> None:
        """Every future of the batch done, in smaller pieces where the model fails on the whole."""
        pieces = deque([batch] if batch else [])
        while pieces:
            piece = pieces.popleft()
            began = time.monotonic()
            try:
                generations = generate(self.model, piece, self._is_late)
            except Exception as error:
                # only the pieces leave this block: the error's frames hold the memory of the failed batch
                pieces.extendleft(reversed(self._pieces(piece, error)))
            else:
                self._count(generations, time.monotonic() - began)
                self._settle(piece, generations)

    def _is_late(self) -> bool:
        return time.monotonic() > self._stop_at

    def _pieces(self, piece: list[_Row], error: Exception) -> list[list[_Row]]:
        """What to try instead of a piece that failed. A row that fails alone is settled with its error."""
        if not _is_out_of_memory(error):
            if len(piece) > 1:
                return [[row] for row in piece]
            self._blame(piece[0], _describe(error))
            return []
        if len(piece) == 1:
            raise EngineBroken(f"no memory for a single image on {self.model.device}: free some, or take another")
        half = len(piece) // 2
        with self._changed:
            self._figures = replace(self._figures, batch_size=half)
        return [piece[:half], piece[half:]]

    def _settle(self, rows: list[_Row], generations: Sequence[Generation | None]) -> None:
        """Every row's future done."""
        for row, generation in zip(rows, generations, strict=True):
            if generation is None:
                row.future.set_exception(EngineClosed())
            elif not _is_sound(generation):
                self._blame(row, f"the model computed no numbers (NaN) in {self.model.dtype}")
            else:
                row.future.set_result(generation)

    def _blame(self, row: _Row, reason: str) -> None:
        """The row failed for that reason, if the model still works on a plain image. Raises EngineBroken if not."""
        plain = Request(np.full(SHAPE, 128, np.uint8), "", max_new_tokens=1)
        try:
            [generation] = generate(self.model, [_Row(plain, self.model.prompt_ids(""))], lambda: False)
        except Exception as error:
            raise EngineBroken(f"the model fails on every image on {self.model.device}: {_describe(error)}") from error
        if not generation or not _is_sound(generation):
            raise EngineBroken(f"the model gives NaN for every image in {self.model.dtype}: try another --dtype")
        row.future.set_exception(PermanentFailure(Code.MODEL_ERROR, reason))

    def _count(self, generations: Sequence[Generation | None], busy_s: float) -> None:
        done = [generation for generation in generations if generation]
        with self._changed:
            self._figures = replace(
                self._figures,
                images=self._figures.images + len(done),
                tokens=self._figures.tokens + sum(len(generation.token_ids) for generation in done),
                batches=self._figures.batches + 1,
                busy_s=self._figures.busy_s + busy_s,
            )

    def _finish_with(self, end: EngineBroken | EngineClosed, running: Sequence[_Row] = ()) -> None:
        """From now on every request gets `end`: those that come, those that wait, and those of `running` not done."""
        with self._changed:
            self._end = self._end or end
            waiting = [row for group in self._groups.values() for row in group]
            self._groups = {}
            self._changed.notify()
        for row in (row for row in waiting if row.future.set_running_or_notify_cancel()):
            row.future.set_exception(end)
        for row in (row for row in running if not row.future.done()):
            row.future.set_exception(end)


@torch.inference_mode()
def generate(kosmos: Kosmos, rows: Sequence[_Row], stop: Callable[[], bool]) -> list[Generation | None]:
    """Greedy generations of rows of one key; None for a row that was not done when `stop` said so, at any step."""
    length, max_new_tokens, no_repeat_ngram_size = rows[0].key
    input_ids = torch.tensor([row.prompt_ids for row in rows], device=kosmos.device)  # [n, length]
    places = torch.zeros_like(input_ids)
    places[:, IMAGE_START : IMAGE_START + IMAGE_TOKENS] = 1
    out = kosmos.model.generate(
        pixel_values=kosmos.normalise(_stack([row.request.pixels for row in rows])),
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        image_embeds_position_mask=places,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        max_new_tokens=max_new_tokens,
        no_repeat_ngram_size=no_repeat_ngram_size,
        eos_token_id=kosmos.eos_id,
        pad_token_id=kosmos.pad_id,
        stopping_criteria=[lambda ids, _, **__: torch.full((len(ids),), stop(), device=ids.device)],
        return_dict_in_generate=True,
        output_logits=True,
    )
    generated = out.sequences[:, length:]  # [n, steps]
    logprobs = [
        logits.log_softmax(-1).gather(1, tokens[:, None])  # [n, vocabulary] -> [n, 1]; a step at a time, to stay small
        for logits, tokens in zip(out.logits, generated.T, strict=True)
    ]
    columns = torch.cat(logprobs, 1).tolist()
    return [_generation(kosmos, *answer) for answer in zip(rows, generated.tolist(), columns, strict=True)]


def _generation(kosmos: Kosmos, row: _Row, token_ids: list[int], logprobs: list[float]) -> Generation | None:
    """A row of the batch, cut where it ended; None if it did not."""
    ended = kosmos.eos_id in token_ids
    count = token_ids.index(kosmos.eos_id) + 1 if ended else len(token_ids)
    if not ended and count < row.request.max_new_tokens:
        return None
    raw_text = kosmos.raw_text(row.prompt_ids, token_ids[:count])
    return Generation(token_ids[:count], logprobs[:count], raw_text, "stop" if ended else "length")


def _stack(images: Sequence[Pixels]) -> Pixels:
    return np.stack(images)  # [n, 224, 224, 3]


def _is_sound(generation: Generation) -> bool:
    return all(map(math.isfinite, generation.logprobs))


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _describe(error: BaseException) -> str:
    """An error in one line, with its kind."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _failed(reason: Exception) -> Future[Generation]:
    future: Future[Generation] = Future()
    future.set_exception(reason)
    return future
