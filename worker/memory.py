"""How many slots there is memory for."""

import os

import torch

MOST_ON_GPU, MOST_ON_CPU = 512, 32
"""More than these gain nothing: a GPU's matrix units are full, a CPU's caches are."""
RESERVE_BYTES = 3 * 2**30
"""On a GPU, for activations of a prefill, logits, and what its allocator cannot join."""
CPU_SHARE = 0.25


def slots_that_fit(slot_bytes: int, device: torch.device) -> int:
    """At least 1, at most as many as are of use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        most, room = MOST_ON_GPU, free - RESERVE_BYTES
    else:
        most, room = MOST_ON_CPU, int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * CPU_SHARE)
    return max(1, min(most, room // slot_bytes))
