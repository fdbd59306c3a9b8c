"""The squash to 224×224: whichever way it is done, its pixels are those of plain Pillow, byte for byte."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from worker import resample
from worker.resample import COMPILED, SIDE, Box, squash

needs_compiled = pytest.mark.skipif(
    not COMPILED, reason="worker/resample.c is not compiled: there was no C compiler at install"
)
SIZES = [
    *((1, 1), (1, 2), (2, 3), (1, 300), (300, 1), (10, 11), (11, 10), (31, 33), (96, 96), (223, 223), (224, 100)),
    *((100, 224), (223, 225), (225, 223), (224, 225), (225, 224), (448, 448), (448, 897), (300, 400), (3000, 17)),
    *((17, 3000), (639, 480), (480, 640), (2048, 9), (2049, 9)),
]
BOXES = [
    ((96, 96), (0.25, 0.5, 95.75, 95.5)),
    ((640, 480), (0, 0, 639.5, 479.75)),
    ((480, 640), (0, 0, 479.875, 639.125)),
    ((300, 300), (3, 5, 227, 229)),
    ((300, 300), (3, 5, 227, 230)),
    ((300, 300), (70.4, 0, 70.6, 300)),
    ((300, 300), (150, 299.999, 150, 300)),
    ((224, 224), (0, 0, 223.5, 224)),
    ((5, 7), (4.9, 6.9, 5, 7)),
]
FILLS: dict[str, Callable[[int, int], np.ndarray]] = {
    "black": lambda width, height: np.zeros((height, width, 3), np.uint8),
    "white": lambda width, height: np.full((height, width, 3), 255, np.uint8),
    "checker": lambda width, height: np.indices((height, width, 3)).sum(0).astype(np.uint8) % 2 * 255,
    "noise": lambda width, height: np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8),
}


def of_pillow(image: Image.Image, box: Box | None = None) -> bytes:
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box).tobytes()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size_is_squashed_as_pillow_does(size: tuple[int, int], fill: str) -> None:
    image = Image.fromarray(FILLS[fill](*size))
    assert squash(image) == of_pillow(image)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(("size", "box"), BOXES, ids=str)
def test_part_of_a_picture_is_squashed_as_pillow_does(size: tuple[int, int], box: Box, fill: str) -> None:
    image = Image.fromarray(FILLS[fill](*size))
    assert squash(image, box) == of_pillow(image, box)


@given(st.data(), st.integers(1, 700), st.integers(1, 700), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_picture_is_squashed_as_pillow_does(data: st.DataObject, width: int, height: int, harsh: bool) -> None:
    noise = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(noise // 128 * 255 if harsh else noise)
    across = sorted(data.draw(st.floats(0, width)) for _ in range(2))
    down = sorted(data.draw(st.floats(0, height)) for _ in range(2))
    box = (across[0], down[0], across[1], down[1])
    assert squash(image) == of_pillow(image)
    assert squash(image, box) == of_pillow(image, box)


@needs_compiled
@pytest.mark.parametrize("size", [(SIDE, SIDE), (SIDE, 30), (30, SIDE), (70_000, 2), (2, 70_000)], ids=str)
def test_compiled_squash_gives_the_same_where_pillow_would_be_asked(size: tuple[int, int]) -> None:
    """Where a pass changes nothing, and beyond the sizes that `squash` hands over."""
    image = Image.fromarray(FILLS["noise"](*size))
    assert resample._resample.squash(image.tobytes(), *size, (0, 0, *size)) == of_pillow(image)


@needs_compiled
@pytest.mark.parametrize(
    ("length", "width", "height", "box"),
    [
        (11, 2, 2, (0, 0, 2, 2)),
        (13, 2, 2, (0, 0, 2, 2)),
        (0, 0, 0, (0, 0, 0, 0)),
        (12, -2, -2, (0, 0, 2, 2)),
        (12, 0, 4, (0, 0, 0, 4)),
        (12, 2**31 - 1, 2**31 - 1, (0, 0, 2, 2)),
        (0, 2**24, 2**24, (0, 0, 2, 2)),
        (12, 2, 2, (-0.5, 0, 2, 2)),
        (12, 2, 2, (0, 0, 2, 2.5)),
        (12, 2, 2, (2, 0, 1, 2)),
        (12, 2, 2, (0, float("nan"), 2, 2)),
        (12, 2, 2, (0, 0, float("inf"), 2)),
    ],
)
def test_sizes_that_do_not_fit_their_bytes_are_refused(length: int, width: int, height: int, box: Box) -> None:
    with pytest.raises(ValueError, match="pixels"):
        resample._resample.squash(bytes(length), width, height, box)


def test_without_the_compiled_part_pillow_does_it() -> None:
    code = (
        "import sys; sys.modules['worker._resample'] = None\n"
        "from PIL import Image; from worker.resample import COMPILED, squash\n"
        "image = Image.linear_gradient('L').resize((61, 37)).convert('RGB')\n"
        "assert not COMPILED\n"
        "sys.stdout.buffer.write(squash(image) + squash(image, (0, 0, 60.5, 36.5)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    image = Image.linear_gradient("L").resize((61, 37)).convert("RGB")
    assert done.stdout == of_pillow(image) + of_pillow(image, (0, 0, 60.5, 36.5))
