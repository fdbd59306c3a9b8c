"""How many slots there is memory for."""

import os
from pathlib import Path

import torch

MOST_ON_GPU, MOST_ON_CPU = 512, 64
"""More than these gain nothing: a GPU's matrix units are full, a CPU's caches are."""
RESERVE_BYTES = 4 * 2**30
"""On a GPU, for activations of a prefill, logits, and what its allocator cannot join."""
CPU_SHARE = 0.25


def slots_that_fit(slot_bytes: int, device: torch.device) -> int:
    """At least 1, at most as many as are of use."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        most, room = MOST_ON_GPU, free - RESERVE_BYTES
    else:
        most, room = MOST_ON_CPU, int(memory_bytes() * CPU_SHARE)
    return max(1, min(most, room // slot_bytes))


def memory_bytes(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Of this machine, or of the container that we are in."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(physical, int(limit.read_text()))
    except (OSError, ValueError):  # no such file, or `max`
        return physical
