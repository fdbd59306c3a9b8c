"""Who gets which cores of this machine: the threads of the model, and the processes that load images.

On a CPU both get all of them: loaders are bounded by what may be in hand, so they work in bursts, and a model leaves
no core to them otherwise. They are not nice to the engine: loaders that starve leave its slots half empty, and a step
costs the same with few rows as with many; with a niceness of 10 a worker did two thirds (benchmarks/
RESULTS.md). On a GPU the engine is one thread of Python, which must never wait: the loaders leave it a core.
"""

import os

from schemas.settings import Settings

GPU_TORCH_THREADS = 4
"""Enough to read weights; at work the tensors on the CPU's side are small."""


def our_cores(settings: Settings) -> int:
    """This worker's part of the cores that the process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, settings.workers))


def loader_processes(settings: Settings, *, gpu: bool) -> int:
    """As many as told; else one a core, of which a GPU's engine keeps one."""
    cores = our_cores(settings)
    return settings.loader_processes or (max(1, cores - 1) if gpu else cores)


def torch_threads(settings: Settings, *, gpu: bool) -> int:
    """As many as told; else one a core, or on a GPU a few."""
    cores = our_cores(settings)
    return settings.torch_threads or (min(cores, GPU_TORCH_THREADS) if gpu else cores)
