# ruff: noqa: T201
"""The engine on a GPU, with nothing installed but torch, transformers, Pillow and numpy.

    python -m benchmarks.gpu [--part 1 2 …] [--quick] [--json FILE] [--no-compile]

Full-size random weights, made on the device. Each part takes less than ten minutes and can be run alone; what it finds
goes into the JSON as soon as it is done, beside what the file has already. A part that fails does not stop the others.

1 probe, 2 identity, 3 phases, 4 rates, 5 summary (of 1 and 4), 6 gap of bfloat16
"""

import argparse
import json
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.gpu.identity import identity
from benchmarks.gpu.phases import phases
from benchmarks.gpu.probe import probe
from benchmarks.gpu.rates import rates
from benchmarks.gpu.setting import FULL, QUICK, SMALL, Figures, Setting
from benchmarks.gpu.summary import summary
from benchmarks.models import BRIEF, blots
from benchmarks.precision import measure


def gap(setting: Setting) -> Figures:
    """Engine and transformers in bfloat16 against float32."""
    sizes = setting.sizes
    gaps = measure(setting.model(torch.float32), blots(sizes.gap), BRIEF, sizes.limit, slots=min(64, sizes.gap))
    return {found.name: asdict(found) for found in gaps}


PARTS = (probe, identity, phases, rates, summary, gap)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--part", type=int, nargs="+", choices=range(1, len(PARTS) + 1), help="[all]")
    options.add_argument("--quick", action="store_true", help="fewer sizes: a few minutes in all")
    options.add_argument("--toy", action="store_true", help="a tiny model, to see that it works")
    options.add_argument("--no-compile", action="store_true", help="without torch.compile, which takes minutes")
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options.add_argument("--json", type=Path, help="a file for all figures")
    given = options.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        options.error("no CUDA device here: give --device cpu --toy to see that it works")
    sizes = SMALL if given.toy else QUICK if given.quick else FULL
    setting = Setting(torch.device(given.device), sizes, compiled=given.device == "cuda" and not given.no_compile)
    # float32 is to be float32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if given.json and given.json.exists():
        setting.found = json.loads(given.json.read_text())["parts"]
    failed = [number for number in given.part or range(1, len(PARTS) + 1) if not run(number, setting, given.json)]
    return 1 if failed else 0


def run(number: int, setting: Setting, path: Path | None) -> bool:
    """Whether the part went well. Either way the file knows."""
    part = PARTS[number - 1]
    print(f"\n{number} {part.__name__}", flush=True)
    began = time.monotonic()
    try:
        figures = part(setting)
    except Exception as error:
        traceback.print_exc()
        figures = {"error": f"{type(error).__name__}: {error}"}
    setting.found[part.__name__] = figures | {"part_s": time.monotonic() - began}
    print(json.dumps({name: value for name, value in figures.items() if not isinstance(value, list)}), flush=True)
    if path:
        path.write_text(json.dumps({"command": sys.argv[1:], "parts": setting.found}, indent=1))
    setting.free()
    return "error" not in figures


if __name__ == "__main__":
    sys.exit(main())
