"""Whether the engine says what transformers says, in float32: rows of forced length and of their own."""

from collections.abc import Sequence

import torch

from benchmarks.gpu.setting import Figures, Setting
from benchmarks.models import BRIEF, blots
from benchmarks.rivals import Transformers, by_engine, endless
from worker.attention import DecodeAttention, decode_attention_on, sdpa_decode_attention
from worker.decoding import Rules
from worker.engine import Engine
from worker.generation import Pixels, Request
from worker.model import Kosmos
from worker.runner import Runner
from worker.scheduler import Plan, Row

SYNC_EVERY = 8


def identity(setting: Setting) -> Figures:
    """Rows of the engine that are those of `generate` at batch 1; rows of other kernels that are those of the first."""
    kosmos, count, limit = setting.model(torch.float32), setting.sizes.identical, setting.sizes.limit
    images = blots(count)
    figures: Figures = {"rows": count}
    for name, model, limits in (
        ("forced", endless(kosmos), [1 + (limit - 1) * row // (count - 1) for row in range(count)]),
        ("free", kosmos, [limit] * count),
    ):
        expected = Transformers(model, images, BRIEF)(1, limits).token_ids
        with Engine(model, max(2, count // 4)) as engine:
            said = by_engine(engine, images, BRIEF, limits).token_ids
        figures[name] = same(said, expected)
    limits = [limit] * count
    eager = said_by(setting, kosmos, images, limits, sdpa_decode_attention, graphed=False)
    figures["kernels"] = {
        name: same(said_by(setting, kosmos, images, limits, attention, graphed=graphed), eager)
        for name, attention, graphed in kernels(setting)
    }
    return figures


def kernels(setting: Setting) -> list[tuple[str, DecodeAttention, bool]]:
    """The ways to decode that there are on this device: name, attention, whether steps are replayed from a graph."""
    attention = decode_attention_on(setting.device)
    found: list[tuple[str, DecodeAttention, bool]] = [("sdpa, eager", sdpa_decode_attention, False)]
    if setting.is_cuda:
        found.append(("sdpa, graph", sdpa_decode_attention, True))
    if attention is not sdpa_decode_attention:
        found += [("triton, eager", attention, False), ("triton, graph", attention, True)]
    return found


def same(said: Sequence[list[int]], expected: Sequence[list[int]]) -> int:
    return sum(ours == theirs for ours, theirs in zip(said, expected, strict=True))


def said_by(
    setting: Setting,
    kosmos: Kosmos,
    images: Sequence[Pixels],
    limits: Sequence[int],
    attention: DecodeAttention,
    *,
    graphed: bool,
) -> list[list[int]]:
    """The tokens of a runner with that attention, all rows at once."""
    runner = runner_with(kosmos, attention, graphed=graphed)
    runner.allocate(len(images), 192)
    runner.prefill(plan_for(kosmos, images, limits))
    ended = runner.collect()
    while len(ended) < len(images):
        runner.decode(Rules())
        ended |= runner.collect()
    return [ended[slot].token_ids for slot in range(len(images))]


def runner_with(kosmos: Kosmos, attention: DecodeAttention, *, graphed: bool) -> Runner:
    runner = Runner(kosmos, sync_every=SYNC_EVERY, attention=attention)
    runner._graphed = graphed
    return runner


def plan_for(kosmos: Kosmos, images: Sequence[Pixels], limits: Sequence[int]) -> Plan:
    """Each image in the slot of its number."""
    prompt_ids = kosmos.prompt_ids(BRIEF)
    requests = [Request(image, BRIEF, limit) for image, limit in zip(images, limits, strict=True)]
    rows = [(Row(request, prompt_ids), slot) for slot, request in enumerate(requests)]
    return Plan(images=[(image, slot) for slot, image in enumerate(images)], rows=rows)
