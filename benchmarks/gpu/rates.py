# ruff: noqa: T201
"""Images/s end to end in bfloat16, the engine and transformers, on captions of the same lengths.

Nothing ends by itself (the end token is an id that never comes); each row has a limit instead. The engine gets every
row with its own. `generate` has one limit for a batch: the batch runs to its longest, as it would with rows that end
by themselves, and of each row only the tokens within its own limit are counted.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch

from benchmarks.gpu.limits import limits
from benchmarks.gpu.setting import Figures, Setting
from benchmarks.models import BRIEF, blots
from benchmarks.rivals import Captioned, Transformers, by_engine, endless
from worker.engine import Engine
from worker.generation import Pixels
from worker.model import Kosmos

DIFFERENT = 256
"""Different images; they come again as other arrays, and so cost the engine as much as others would."""


def rates(setting: Setting) -> Figures:
    """A row for each mean length, and each number of slots or batch size."""
    kosmos = endless(setting.model(torch.bfloat16))
    most = max(setting.sizes.rounds * max(setting.sizes.engine_slots), *(count for _, count in setting.sizes.rivals))
    images = [image.copy() for image in islice(cycle(blots(min(DIFFERENT, most))), most)]
    figures: Figures = {"engine": [], "transformers": []}
    for compiled in (False, True) if setting.compiled else (False,):
        for slots in setting.sizes.engine_slots:
            figures["engine"] += engine_rows(setting, kosmos, images, slots, compiled=compiled)
    plain = Transformers(kosmos, images[: max(count for _, count in setting.sizes.rivals)], BRIEF)
    for batch, count in setting.sizes.rivals:
        figures["transformers"] += [rival_row(setting, plain, batch, count, mean) for mean in setting.sizes.means]
    return figures


def engine_rows(setting: Setting, kosmos: Kosmos, images: list[Pixels], slots: int, *, compiled: bool) -> list[Figures]:
    """All mean lengths on one engine, which is warm by the first of them."""
    setting.free()
    reset_peak(setting)
    count = setting.sizes.rounds * slots
    rows = []
    with Engine(kosmos, slots, compile_after=0 if compiled else None) as engine:
        slots = engine.figures.slots
        by_engine(engine, images[:slots], BRIEF, limits(slots, 12))
        watch = Watch.of(engine, setting)
        for mean in setting.sizes.means:
            wished = limits(count, mean)
            before = engine.figures
            watch.clear()
            began = time.perf_counter()
            said = by_engine(engine, images[:count], BRIEF, wished)
            seconds = time.perf_counter() - began
            after = engine.figures
            steps = after.steps - before.steps
            prefill_s, decode_s = watch.seconds()
            rows.append(
                {
                    "slots": slots,
                    "compiled": compiled,
                    **outcome(setting, mean, wished, said, seconds),
                    "steps": steps,
                    "occupancy": (said.tokens - count) / (steps * slots),
                    "prefill_share": prefill_s / seconds,
                    "decode_share": decode_s / seconds,
                    "host_share": max(0.0, 1 - (prefill_s + decode_s) / seconds),
                }
            )
            kind = "compiled" if compiled else "eager"
            print(f"  engine, {slots} slots, {kind}, mean {mean}: {count / seconds:.1f} images/s", flush=True)
    return rows


def rival_row(setting: Setting, plain: Transformers, batch: int, count: int, mean: int) -> Figures:
    """`generate` at one batch size."""
    wished = limits(count, mean)
    plain(batch, [4] * batch)
    reset_peak(setting)
    setting.synchronize()
    began = time.perf_counter()
    said = plain(batch, wished)
    seconds = time.perf_counter() - began
    print(f"  transformers, batch {batch}, mean {mean}: {count / seconds:.1f} images/s", flush=True)
    return {"batch": batch, **outcome(setting, mean, wished, said, seconds)}


def outcome(setting: Setting, mean: int, wished: list[int], said: Captioned, seconds: float) -> Figures:
    """What is told of either way."""
    return {
        "mean": mean,
        "images": len(wished),
        "tokens": said.tokens,
        "complete": [len(ids) for ids in said.token_ids] == wished,
        "seconds": seconds,
        "images_s": len(wished) / seconds,
        "tokens_s": said.tokens / seconds,
        "peak_gib": peak_gib(setting),
    }


@dataclass
class Watch:
    """How long the device was at prefills and at decode steps, from the first of their kernels to the last."""

    setting: Setting
    spans: dict[str, list[tuple[Any, Any]]]

    @classmethod
    def of(cls, engine: Engine, setting: Setting) -> "Watch":
        """Of an engine that is at rest."""
        watch, runner = cls(setting, {"prefill": [], "decode": []}), engine._runner
        runner.prefill = watch._around("prefill", runner.prefill)  # type: ignore[method-assign]
        runner.decode = watch._around("decode", runner.decode)  # type: ignore[method-assign]
        return watch

    def clear(self) -> None:
        for spans in self.spans.values():
            spans.clear()

    def seconds(self) -> tuple[float, float]:
        """At prefills, and at decode steps."""
        self.setting.synchronize()
        prefill, decode = (sum(between(*span) for span in spans) for spans in self.spans.values())
        return prefill, decode

    def _around(self, phase: str, work: Callable[..., None]) -> Callable[..., None]:
        def watched(*given: Any) -> None:
            began = self._now()
            work(*given)
            self.spans[phase].append((began, self._now()))

        return watched

    def _now(self) -> Any:
        """A moment of the device: an event on a GPU, the time on a CPU."""
        if not self.setting.is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def between(start: Any, end: Any) -> float:
    """Seconds."""
    return float(end - start if isinstance(start, float) else start.elapsed_time(end) / 1e3)


def reset_peak(setting: Setting) -> None:
    if setting.is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(setting.device)


def peak_gib(setting: Setting) -> float | None:
    return torch.cuda.max_memory_allocated(setting.device) / 2**30 if setting.is_cuda else None
