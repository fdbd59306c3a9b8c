# ruff: noqa: T201
"""Generated JPEGs for benchmarks: as many as wanted, each with bytes of its own."""

import io
import os
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


def draw_many(folder: Path, count: int, kinds: int = 256) -> None:
    """So many JPEGs of 96×96 pixels in subfolders of a thousand, in seconds: a million take a minute.

    Each is one of `kinds` pictures with a comment that holds its number: bytes of its own, and a real decode. A folder
    of that name is there whole, or not at all.
    """
    draft = folder.with_name(folder.name + ".draft")
    draft.mkdir(parents=True)
    print(f"writing {count:,} JPEGs of 96×96 pixels ...", flush=True)
    pictures = [_encoded(thumbnail(number)) for number in range(min(kinds, count))]
    for number in range(count):
        if number % 1000 == 0:
            below = draft / f"{number // 1000:06}"
            below.mkdir()
        data = pictures[number % len(pictures)]
        file = os.open(f"{below}/{number:09}.jpg", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(file, data[:APP0_END] + b"\xff\xfe\x00\x0c%010d" % number + data[APP0_END:])
        os.close(file)
    draft.rename(folder)


APP0_END = 20
"""Where the first segments of a JPEG end: two bytes of start, eighteen of JFIF. Comments may stand from there on."""


def _encoded(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "JPEG")
    return data.getvalue()


def thumbnail(number: int) -> Image.Image:
    """96×96 pixels of soft colour."""
    noise = np.random.default_rng(number).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC)


def scene(number: int) -> Image.Image:
    """640×480 pixels with one to four shapes, which the demo model puts into captions of as varied a length."""
    from drawing import draw_scene

    rng = np.random.default_rng(number)
    return draw_scene(rng, (640, 480), int(rng.integers(1, 5)))[0]
