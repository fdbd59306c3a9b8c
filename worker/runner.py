"""What the engine has on the device: the slots' tokens beside their KV, prefilled and stepped in place."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.attention import DecodeAttention, sdpa_decode_attention
from worker.compilation import compiled_for
from worker.decoder import PREFIX, Decoder
from worker.decoding import Rows, Rules, choose
from worker.encoder import Encoder
from worker.generation import Glance
from worker.model import Kosmos
from worker.scheduler import Plan, Row
from worker.uploads import Uploads

T = TypeVar("T")

IMAGES_AT_ONCE = {"cuda": 64, "cpu": 16}
"""In a prefill: as many fill a GPU. On a CPU fewer, where the model is large."""
CPU_ACTIVATION_BYTES = 9 * 2**20
"""Of a batch of images: more leave the caches, and beyond 32 MiB the C library asks the kernel for each anew."""
PROMPT_TOKENS_AT_ONCE = 4096
CONTEXT_STEP = 32
"""Contexts are rounded up to a multiple of this, so that kernels meet few different shapes."""


class Ended(NamedTuple):
    """A row that is done: what it generated."""

    token_ids: list[int]
    logprobs: list[float]
    glances: NDArray[np.float32]


class Prompts(NamedTuple):
    """Rows that begin, on the device."""

    slots: Tensor
    """[n]"""
    ids: Tensor
    """[n, tokens of the longest], padded on the right; so are the positions."""
    positions: Tensor
    limits: Tensor
    """[n, 5]: see `limits_of`. The first column is the prompts' length."""
    rules: Rules
    given: Tensor
    """[3, m]: row, slot and place of each token that is given, and not to be generated."""


class Runner:
    """`slots` rows side by side, each with its tokens, its limits, and its part of the KV cache.

    Everything on the device is a handful of tensors of fixed shape that change in place, so that the steps between two
    looks of the host can be one CUDA graph.
    """

    def __init__(
        self,
        kosmos: Kosmos,
        *,
        sync_every: int,
        compile_after: int | None = None,
        attention: DecodeAttention | None = None,
    ) -> None:
        self.kosmos, self.device, self.sync_every = kosmos, kosmos.device, sync_every
        self.decoder = Decoder(kosmos, attention)
        # one graph serves all lengths where attention reads each row's own, and there is a device to replay it
        self._graphed = self.device.type == "cuda" and self.decoder.attention is not sdpa_decode_attention
        self.images_at_once = images_at_once(kosmos)
        self.uploads = Uploads(self.device, self.images_at_once)
        self.steps = self.images = 0
        self.moved_at = time.monotonic()
        """When something was last begun or done: in a prefill, with each of its batches."""
        self._graphs: dict[Rules, torch.cuda.CUDAGraph] = {}
        self._encode, self._prefill_images = Encoder(kosmos).encode, self.decoder.prefill_images
        if compile_after is not None:
            self._encode = compiled_for(self.images_at_once, self._encode, after=compile_after)
            self._prefill_images = compiled_for(self.images_at_once, self._prefill_images, after=compile_after)

    def free(self) -> None:
        """Gives the slots' memory back, to the driver too: graphs take theirs from there."""
        if self._graphed:
            torch.cuda.synchronize(self.device)
            self._side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()
        self._graphs = {}
        self.decoder.free()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def allocate(self, slots: int, length: int) -> None:
        """Empty slots of so many tokens. What was in others is gone."""
        self.free()
        self.slots, self.length = slots, length
        self.decoder.allocate(slots, length)
        self.ids = self._zeros(slots, length)  # prompt and generated tokens
        self.logprobs = self._zeros(slots, length, dtype=torch.float32)
        self.glances = self._zeros(slots, length, len(Glance._fields), dtype=torch.float32)
        self.next = self._zeros(slots) + 1  # the place where the next token will stand
        self.done = self._zeros(slots, dtype=torch.bool).logical_not_()
        self.limits = self._zeros(slots, 5)  # see `limits_of`
        self.all_slots = torch.arange(slots, device=self.device)
        self._known: dict[int, int] = {}  # slot -> `next` of the rows that run, as the host knows it
        self._ends: dict[int, int] = {}  # slot -> the first place that is past the limit of its row

    @torch.inference_mode()
    def prefill(self, plan: Plan) -> None:
        """Carries out the plan: afterwards each row of it has its first token."""
        # what comes from the host comes first: each such copy would wait for all that the GPU has been given
        by_length = sorted(plan.rows, key=lambda placed: given_tokens(placed[0]))
        groups = batches(by_length, PROMPT_TOKENS_AT_ONCE, lambda placed: given_tokens(placed[0]) - PREFIX)
        prompts = [self._prompts(*zip(*group, strict=True)) for group in groups]
        slots = self._tensor([slot for _, slot in plan.images])
        copies = self._tensor(plan.copies)

        self.images += len(plan.images)
        for start in range(0, len(plan.images), self.images_at_once):
            end = start + self.images_at_once
            pixels = self.uploads.take([image for image, _ in plan.images[start:end]])
            self.decoder.store_images(self._prefill_images(self._encode(pixels)), slots[start:end])
            self.moved_at = time.monotonic()
        if plan.copies:
            self.decoder.copy_images(*copies.T)
        for group in prompts:
            self._start(group)
            self.moved_at = time.monotonic()

    @torch.inference_mode()
    def decode(self, rules: Rules) -> None:
        """Up to `sync_every` tokens more for every row that is not done. Does not wait for the device."""
        left = max(self._ends[slot] - place for slot, place in self._known.items())
        if left <= 0:  # answers that were given, and rows of a single token
            return
        steps = self.sync_every if self._graphed else min(left, self.sync_every)
        self.steps += steps
        if self._graphed:
            self._graph(rules).replay()
            return
        context = round_up(max(self._known.values()) + steps, CONTEXT_STEP)
        slots = self.all_slots[: max(self._known) + 1]
        for _ in range(steps):
            self._step(slots, rules, min(context, self.length))

    @torch.inference_mode()
    def collect(self) -> dict[int, Ended]:
        """The rows that are done, by slot; their slots are free. Waits for the device."""
        slots = list(self._known)
        if not slots:
            return {}
        state = torch.stack([self.next, self.done.long(), self.limits[:, 0]])[:, slots].tolist()
        ended = [(slot, first, last) for slot, last, done, first in zip(slots, *state, strict=True) if done]
        self._known = {slot: last for slot, last, done, _ in zip(slots, *state, strict=True) if not done}
        if not ended:
            return {}
        places = [slot for slot, *_ in ended]
        all_ids, all_logprobs = self.ids[places].tolist(), self.logprobs[places].tolist()
        all_glances = self.glances[places].numpy(force=True)
        return {
            slot: Ended(ids[first:last], logprobs[first:last], glances[first:last].copy())
            for (slot, first, last), ids, logprobs, glances in zip(
                ended, all_ids, all_logprobs, all_glances, strict=True
            )
        }

    @torch.inference_mode()
    def forget(self, slots: Sequence[int]) -> None:
        """Ends the rows that run there, as if they had never been."""
        self.done[list(slots)] = True
        self.decoder.cache[:, :, list(slots)] = 0  # should there be a NaN: masked or not, it spreads
        self._known = {slot: last for slot, last in self._known.items() if slot not in slots}

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.long) -> Tensor:
        return torch.zeros(*shape, dtype=dtype, device=self.device)

    def _tensor(self, values: Sequence[object]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.device)

    def _prompts(self, rows: Sequence[Row], slots: Sequence[int]) -> "Prompts":
        """What a prefill needs to know of these rows."""
        ids = [[*row.prompt_ids, *row.answer_ids] for row in rows]
        for slot, row in zip(slots, rows, strict=True):  # a prefill gives the first token
            self._known[slot] = row.length if row.answer_ids else len(row.prompt_ids) + 1
            self._ends[slot] = row.length
        given = [
            (number, slot, len(row.prompt_ids) + place)
            for number, (row, slot) in enumerate(zip(rows, slots, strict=True))
            for place in range(len(row.answer_ids))
        ]
        return Prompts(
            slots=self._tensor(slots),
            ids=self._padded(ids),
            positions=self._padded([self._positions(prompt) for prompt in ids]),
            limits=self._tensor([limits_of(row) for row in rows]),
            rules=Rules.of(row.request for row in rows),
            given=self._tensor(given).view(-1, 3).T,
        )

    def _start(self, prompts: "Prompts") -> None:
        """The first token of each row, whose image is in its slot; all of those that are given."""
        slots, lengths = prompts.slots, prompts.limits[:, 0]
        own_ids, own_positions = prompts.ids[:, PREFIX:], prompts.positions[:, PREFIX:]
        count, (given_rows, given_slots, given_places) = len(slots), prompts.given
        rows = torch.cat([torch.arange(count, device=self.device), given_rows])
        before = torch.cat([lengths, given_places]) - PREFIX - 1
        logits = self.decoder.prefill_prompts(own_ids, own_positions, slots, rows, before)
        self.ids[slots, : prompts.ids.shape[1]] = prompts.ids
        self.limits[slots] = prompts.limits
        self.next[slots] = lengths
        self.done[slots] = False
        self._emit(logits[:count], slots, prompts.rules)
        if len(given_rows):
            self._take(prompts.ids[given_rows, given_places], logits[count:].float(), given_slots, given_places)

    def _take(self, tokens: Tensor, logits: Tensor, slots: Tensor, places: Tensor) -> None:
        """Tokens [m] as if they had been generated at `places` [m] of `slots` [m], where rows end with them."""
        self.ids[slots, places] = tokens
        self.logprobs[slots, places] = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        self.glances[slots, places] = 0.0
        self.next[slots] = self.limits[slots, 1]
        self.done[slots] = True

    def _positions(self, prompt: list[int]) -> list[int]:
        """Rows of the position table, as transformers counts them: a pad takes the zero row and is not counted."""
        pad = self.kosmos.vocabulary.pad
        counts = accumulate(token != pad for token in prompt)
        return [pad if token == pad else pad + count for token, count in zip(prompt, counts, strict=True)]

    def _padded(self, lists: Sequence[list[int]]) -> Tensor:
        """[n, tokens of the longest], padded on the right."""
        pad, length = self.kosmos.vocabulary.pad, max(map(len, lists))
        return self._tensor([[*items, *[pad] * (length - len(items))] for items in lists])

    def _step(self, slots: Tensor, rules: Rules, context: int) -> None:
        """One more token for slots 0, 1, ... A row that is done computes its last one again, and nothing changes."""
        count = len(slots)
        place = self.next[:count] - 1
        tokens = self.ids[:count].gather(1, place[:, None])[:, 0]
        self._emit(self.decoder.step(tokens, place, context), slots, rules)

    def _emit(self, logits: Tensor, slots: Tensor, rules: Rules) -> None:
        """Chooses a token for each of `slots` [n] from logits [n, vocabulary]; nothing changes where a row is done."""
        place, done = self.next[slots], self.done[slots]
        _, end, min_end, size, constrained = self.limits[slots].unbind(1)
        rows = Rows(self.ids[slots] if any(rules) else self.ids, place, end, min_end, size, constrained.bool())
        tokens, logprobs, glances = choose(logits.float(), rows, rules, self.kosmos.vocabulary)
        at = slots, place.clamp(max=self.length - 1)  # a row that is done may have filled its slot
        self.ids[at] = torch.where(done, self.ids[at], tokens)
        self.logprobs[at] = torch.where(done, self.logprobs[at], logprobs)
        self.glances[at] = torch.where(done[:, None], self.glances[at], glances)
        self.next[slots] = place + ~done
        over = (tokens == self.kosmos.vocabulary.eos) | (place + 1 >= end) | ~logprobs.isfinite()
        self.done[slots] = done | over

    def _graph(self, rules: Rules) -> torch.cuda.CUDAGraph:
        """The steps between two looks of the host, recorded while no row is live: nothing of them shows."""
        if graph := self._graphs.get(rules):
            return graph
        done = self.done.clone()
        self.done.fill_(True)
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        self._side.wait_stream(here)
        with torch.cuda.stream(self._side):
            self._step(self.all_slots, rules, self.length)  # compiles the kernels, which a graph must find ready
            # all graphs share memory: they never run at once, and nothing lives on between them
            with torch.cuda.graph(graph, self._pool, self._side, capture_error_mode="thread_local"):
                for _ in range(self.sync_every):
                    self._step(self.all_slots, rules, self.length)
        here.wait_stream(self._side)
        self.done.copy_(done)
        self._graphs[rules] = graph
        return graph


def batches(items: Sequence[T], most: int, size: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in turn, in lists that come to `most` at most, each counted as large as the last of its list.

    An item that is larger than that alone has a list of its own.
    """
    batch: list[T] = []
    for item in items:
        if batch and (len(batch) + 1) * size(item) > most:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def images_at_once(kosmos: Kosmos) -> int:
    """How many images are encoded in a batch."""
    most, vision = IMAGES_AT_ONCE[kosmos.device.type], kosmos.model.config.vision_config
    if kosmos.device.type == "cuda":
        return most
    patches = (vision.image_size // vision.patch_size) ** 2 + 1
    image_bytes: int = patches * vision.intermediate_size * kosmos.dtype.itemsize
    return max(1, min(most, CPU_ACTIVATION_BYTES // image_bytes))


def round_up(count: int, step: int) -> int:
    return -(-count // step) * step


def given_tokens(row: Row) -> int:
    return len(row.prompt_ids) + len(row.answer_ids)


def limits_of(row: Row) -> tuple[int, int, int, int, bool]:
    """The columns of `Runner.limits`: prompt length, end, first place where it may end, n-gram size, constrained."""
    request, first = row.request, len(row.prompt_ids)
    return (
        first,
        row.length,
        first + request.min_new_tokens,
        request.no_repeat_ngram_size,
        request.constrained,
    )
