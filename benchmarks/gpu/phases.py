# ruff: noqa: T201
"""How long vision, prefill and a decode step take alone, and how near that is to the device's best."""

from collections.abc import Callable

import torch

from benchmarks.gpu import costs
from benchmarks.gpu.identity import SYNC_EVERY, kernels, plan_for, runner_with
from benchmarks.gpu.setting import Figures, Setting
from benchmarks.models import blots
from benchmarks.rivals import endless
from worker.attention import DecodeAttention
from worker.decoder import Decoder
from worker.decoding import Rules
from worker.encoder import Encoder
from worker.model import Kosmos
from worker.runner import Runner

LENGTH = 192
LIMIT = 100
DECODES = 4
"""Runs of `SYNC_EVERY` steps that are timed; the first two, before them, are not."""


def phases(setting: Setting) -> Figures:
    """A row for each phase, size and way."""
    kosmos = endless(setting.model(torch.bfloat16))
    dense = [
        row
        for compiled, counts in ((False, setting.sizes.image_batches), (True, setting.sizes.compiled_batches))
        if setting.compiled or not compiled
        for count in counts
        for row in dense_rows(setting, kosmos, count, compiled=compiled)
    ]
    decode = [
        step_row(setting, kosmos, slots, name, attention, graphed=graphed)
        for slots in setting.sizes.slots
        for name, attention, graphed in kernels(setting)
    ]
    return {"dense": dense, "decode": decode}


def dense_rows(setting: Setting, kosmos: Kosmos, count: int, *, compiled: bool) -> list[Figures]:
    """Vision and the prefill of images, `count` at once."""
    decoder = Decoder(kosmos)  # not in inference mode: it changes weights, which `generate` needs as they are
    decoder.allocate(count, 96)
    pixels = torch.randint(0, 255, (count, 224, 224, 3), dtype=torch.uint8, device=setting.device)
    slots = torch.arange(count, device=setting.device)
    encode: Callable[..., torch.Tensor] = Encoder(kosmos).encode
    prefill: Callable[..., list[torch.Tensor]] = decoder.prefill_images
    if compiled:
        encode, prefill = torch.compile(encode, dynamic=False), torch.compile(prefill, dynamic=False)
    with torch.inference_mode():
        images = encode(pixels)
    rows = []
    for phase, work, flop in (
        ("vision", lambda: encode(pixels), costs.vision_flop(setting.sizes.shape)),
        (
            "image prefill",
            lambda: decoder.store_images(prefill(images), slots),
            costs.image_prefill_flop(setting.sizes.shape),
        ),
    ):
        with torch.inference_mode():
            seconds = setting.seconds(work)
        flop_s = count * flop / seconds
        rows.append({"phase": phase, "images": count, "compiled": compiled, "ms": seconds * 1e3, "flop_s": flop_s})
        way = "compiled" if compiled else "eager"
        print(f"  {phase:<14} {count:>4} {way:<14} {seconds * 1e3:>9.2f} ms {flop_s / 1e12:>8.1f} TFLOP/s", flush=True)
    return rows


def step_row(
    setting: Setting, kosmos: Kosmos, slots: int, name: str, attention: DecodeAttention, *, graphed: bool
) -> Figures:
    """A decode step of so many slots, each with a prompt and some tokens in it."""
    setting.free()  # at 1,024 slots the cache of the row before and this one's would not both fit
    runner = runner_with(kosmos, attention, graphed=graphed)
    runner.allocate(slots, LENGTH)
    fill(runner, slots)
    for _ in range(2):
        steps(runner)
    context = costs.PROMPT + 1 + SYNC_EVERY * (2 + 1 + DECODES / 2)
    seconds = setting.seconds(lambda: steps(runner), DECODES) / SYNC_EVERY
    bytes_s = costs.step_bytes(setting.sizes.shape, slots, context) / seconds
    print(f"  decode step    {slots:>4} {name:<14} {seconds * 1e3:>9.3f} ms {bytes_s / 1e9:>8.0f} GB/s", flush=True)
    return {"slots": slots, "kernel": name, "ms": seconds * 1e3, "bytes_s": bytes_s}


def steps(runner: Runner) -> None:
    """Some steps, and the look at who has ended that comes after them."""
    runner.decode(Rules())
    runner.collect()


def fill(runner: Runner, slots: int) -> None:
    """The same image in every slot, as rows that have far to go."""
    [image] = blots(1)
    plan = plan_for(runner.kosmos, [image] * slots, [LIMIT] * slots)
    plan.images, plan.copies = plan.images[:1], [(0, slot) for slot in range(1, slots)]
    runner.prefill(plan)
