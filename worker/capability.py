"""What the CUDA devices of this machine can do, found out without torch, which takes seconds to import."""

import subprocess

from schemas.environment import visible_gpus

BFLOAT16_SINCE = 8.0
"""The compute capability of Ampere, the first to multiply matrices of bfloat16; before it they are emulated."""
ASK = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
TIMEOUT_S = 10.0
"""Without its persistence mode the driver wakes every GPU first, which takes about a second each."""


def lacks_bfloat16(device: str) -> bool:
    """Whether `device` (auto, cuda or cuda:N) means CUDA devices, none of which has bfloat16. False where unknown."""
    if device.partition(":")[0] not in ("auto", "cuda") or visible_gpus() == []:
        return False
    try:
        told = subprocess.run(ASK, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S)
        capabilities = [float(line) for line in told.stdout.splitlines()]
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return False
    return told.returncode == 0 and bool(capabilities) and max(capabilities) < BFLOAT16_SINCE
