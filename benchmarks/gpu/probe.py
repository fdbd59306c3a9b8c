"""What the device can do at best, whatever the model: a large copy, a large product."""

import platform
import subprocess
from importlib.util import find_spec

import torch
import transformers

from benchmarks.gpu.setting import Figures, Setting


def probe(setting: Setting) -> Figures:
    """Device, versions, bytes/s and operations/s."""
    figures: Figures = {
        "device": str(setting.device),
        "name": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "triton": triton_version(),
        "varlen_attention": find_spec("torch.nn.attention.varlen") is not None,
    }
    if setting.is_cuda:
        properties = torch.cuda.get_device_properties(setting.device)
        figures |= {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": properties.total_memory / 2**30,
            "cuda": torch.version.cuda,
            "driver": driver_version(),
        }
    return figures | {"copy_bytes_s": copy_rate(setting), "product_flop_s": product_rate(setting)}


def copy_rate(setting: Setting) -> float:
    """Bytes/s of a copy on the device, read and written."""
    size = setting.sizes.copied_bytes
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    return 2 * size / setting.seconds(lambda: target.copy_(source))


def product_rate(setting: Setting) -> float:
    """Operations/s of a square product in bfloat16, of random numbers: zeros would be faster."""
    side = setting.sizes.product
    a, b = (torch.randn(side, side, device=setting.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / setting.seconds(lambda: a @ b)


def triton_version() -> str:
    if not find_spec("triton"):
        return ""
    import triton

    return str(triton.__version__)


def driver_version() -> str:
    """As nvidia-smi says it; nothing where it is not at hand."""
    try:
        ask = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        return subprocess.run(ask, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
