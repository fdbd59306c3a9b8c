"""What is measured on, and at which sizes."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import median
from typing import Any

import torch

from benchmarks.models import REAL, TOY, Shape, build
from worker.model import Kosmos

Figures = dict[str, Any]
"""What a part of the benchmark found, as it stands in the JSON."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything. All parts but the first take less than ten minutes on one GPU."""

    shape: Shape = REAL
    product: int = 8192
    """Rows of the square matrices that are multiplied."""
    copied_bytes: int = 4 * 2**30
    identical: int = 32
    limit: int = 64
    """Of the rows that are compared."""
    image_batches: tuple[int, ...] = (32, 64, 128, 256)
    compiled_batches: tuple[int, ...] = (64, 128)
    """Few: each of them is compiled for itself."""
    slots: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Of decode steps that are timed alone."""
    engine_slots: tuple[int, ...] = (256, 512, 1024)
    means: tuple[int, ...] = (21, 32, 64)
    rounds: int = 8
    """Images for the engine: so many times its slots."""
    rivals: tuple[tuple[int, int], ...] = ((1, 16), (16, 128), (64, 256), (256, 768))
    """Batch sizes of transformers, each with so many images."""
    gap: int = 256
    repeats: int = 10


FULL = Sizes()
QUICK = Sizes(
    image_batches=(64,),
    compiled_batches=(64,),
    slots=(64, 512),
    engine_slots=(512,),
    means=(21, 64),
    rivals=((1, 8), (64, 128)),
    gap=64,
)
SMALL = Sizes(
    TOY,
    product=64,
    copied_bytes=2**20,
    identical=4,
    limit=8,
    image_batches=(2,),
    slots=(4,),
    engine_slots=(4,),
    means=(12,),
    rounds=2,
    rivals=((1, 2), (4, 4)),
    gap=4,
    repeats=2,
)
"""To see on a CPU that it works."""


@dataclass
class Setting:
    """The device, the sizes, and what the parts before have found."""

    device: torch.device
    sizes: Sizes
    compiled: bool
    """Whether torch.compile is measured too."""
    found: dict[str, Figures] = field(default_factory=dict)

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @lru_cache(maxsize=1)  # noqa: B019  # it lives as long as the process
    def model(self, dtype: torch.dtype) -> Kosmos:
        """The model of that dtype; one at a time is kept."""
        return build(self.sizes.shape, device=str(self.device), dtype=dtype)

    def synchronize(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def free(self) -> None:
        """Gives back the memory that nothing holds any more."""
        gc.collect()
        if self.is_cuda:
            torch.cuda.empty_cache()

    def seconds(self, work: Callable[[], object], repeats: int = 0) -> float:
        """The median time that it takes the device, after one time that does not count."""
        work()
        times = []
        for _ in range(repeats or self.sizes.repeats):
            self.synchronize()
            began = time.perf_counter()
            work()
            self.synchronize()
            times.append(time.perf_counter() - began)
        return median(times)

    __hash__ = object.__hash__
