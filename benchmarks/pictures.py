# ruff: noqa: T201
"""Generated JPEGs for benchmarks: as many as wanted, each with bytes of its own."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "examples/demo_model"))


def draw(folder: Path, count: int, picture: Callable[[int], Image.Image]) -> None:
    """So many files, each as its number says."""
    folder.mkdir()
    print(f"drawing {count} JPEGs of {'×'.join(map(str, picture(0).size))} pixels ...", flush=True)
    for number in range(count):
        picture(number).save(folder / f"{number:08}.jpg")


def thumbnail(number: int) -> Image.Image:
    """96×96 pixels of soft colour."""
    noise = np.random.default_rng(number).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC)


def scene(number: int) -> Image.Image:
    """640×480 pixels with one to four shapes, which the demo model puts into captions of as varied a length."""
    from drawing import draw_scene

    rng = np.random.default_rng(number)
    return draw_scene(rng, (640, 480), int(rng.integers(1, 5)))[0]
